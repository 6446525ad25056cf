"""Harmonic analysis of differentiable maps: Hermite spectra under a Gaussian, power spectra.

All results are estimates from random samples with confidence intervals, never bounds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harmonicvae.harmonics.fourier import slice_spectrum
    from harmonicvae.harmonics.hermite import hermite_spectrum
    from harmonicvae.harmonics.images import log_spectra, radial_spectrum

__all__ = ["hermite_spectrum", "log_spectra", "radial_spectrum", "slice_spectrum"]

#: Imported at first use: the report needs the spectra of pictures, but not torch.
_LOCATIONS = {
    "hermite_spectrum": "harmonicvae.harmonics.hermite",
    "log_spectra": "harmonicvae.harmonics.images",
    "radial_spectrum": "harmonicvae.harmonics.images",
    "slice_spectrum": "harmonicvae.harmonics.fourier",
}


def __getattr__(name: str) -> Any:
    if name not in _LOCATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LOCATIONS[name]), name)
