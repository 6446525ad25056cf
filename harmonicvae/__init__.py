"""Variational autoencoders with chosen encoder noise, and how robust they are.

Train with a chosen encoder standard deviation σ_enc and input noise σ_N, bound the
Lipschitz constants of encoder and decoder, attack them, and compare in MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harmonicvae._version import __version__

if TYPE_CHECKING:
    from harmonicvae.attacks import attack
    from harmonicvae.datasets import load_celeba, load_cifar10, load_sinc
    from harmonicvae.exceptions import HarmonicVAEError
    from harmonicvae.harmonics import hermite_spectrum, radial_spectrum, slice_spectrum
    from harmonicvae.lipschitz import bound, bracket
    from harmonicvae.margins import margin, robustness_probability
    from harmonicvae.models import (
        ConvHarmonicVAE,
        HarmonicVAE,
        fit_together,
        load_estimator,
        save_estimator,
    )
    from harmonicvae.network import LayeredNetwork
    from harmonicvae.records import Bound, Bracket, Spectrum
    from harmonicvae.report import write_report
    from harmonicvae.tracking.comparison import Comparison, compare
    from harmonicvae.tracking.registry import load_model
    from harmonicvae.tracking.sweep_logger import SweepLogger

#: Where each public name lives; modules are imported at first use.
_LOCATIONS = {
    "Bound": "harmonicvae.records",
    "Bracket": "harmonicvae.records",
    "Comparison": "harmonicvae.tracking.comparison",
    "ConvHarmonicVAE": "harmonicvae.models",
    "HarmonicVAE": "harmonicvae.models",
    "HarmonicVAEError": "harmonicvae.exceptions",
    "LayeredNetwork": "harmonicvae.network",
    "Spectrum": "harmonicvae.records",
    "SweepLogger": "harmonicvae.tracking.sweep_logger",
    "attack": "harmonicvae.attacks",
    "bound": "harmonicvae.lipschitz",
    "bracket": "harmonicvae.lipschitz",
    "compare": "harmonicvae.tracking.comparison",
    "fit_together": "harmonicvae.models",
    "hermite_spectrum": "harmonicvae.harmonics",
    "load_celeba": "harmonicvae.datasets",
    "load_cifar10": "harmonicvae.datasets",
    "load_estimator": "harmonicvae.models",
    "load_model": "harmonicvae.tracking.registry",
    "load_sinc": "harmonicvae.datasets",
    "margin": "harmonicvae.margins",
    "radial_spectrum": "harmonicvae.harmonics",
    "robustness_probability": "harmonicvae.margins",
    "save_estimator": "harmonicvae.models",
    "slice_spectrum": "harmonicvae.harmonics",
    "write_report": "harmonicvae.report",
}

__all__ = [
    "Bound",
    "Bracket",
    "Comparison",
    "ConvHarmonicVAE",
    "HarmonicVAE",
    "HarmonicVAEError",
    "LayeredNetwork",
    "Spectrum",
    "SweepLogger",
    "__version__",
    "attack",
    "bound",
    "bracket",
    "compare",
    "fit_together",
    "hermite_spectrum",
    "load_celeba",
    "load_cifar10",
    "load_estimator",
    "load_model",
    "load_sinc",
    "margin",
    "radial_spectrum",
    "robustness_probability",
    "save_estimator",
    "slice_spectrum",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _LOCATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LOCATIONS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
