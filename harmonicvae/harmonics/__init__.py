"""Harmonic analysis of differentiable maps: Hermite spectra under a Gaussian, power spectra.

All results are estimates from random samples with confidence intervals, never bounds.
"""

from harmonicvae.harmonics.fourier import slice_spectrum
from harmonicvae.harmonics.hermite import hermite_spectrum
from harmonicvae.harmonics.images import log_spectra, radial_spectrum

__all__ = ["hermite_spectrum", "log_spectra", "radial_spectrum", "slice_spectrum"]
