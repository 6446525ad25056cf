"""Variational autoencoders as scikit-learn estimators."""

from harmonicvae.models.conv_estimator import ConvHarmonicVAE
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.net import EpochHook
from harmonicvae.models.persistence import load_estimator, save_estimator

__all__ = [
    "ConvHarmonicVAE",
    "EpochHook",
    "HarmonicVAE",
    "load_estimator",
    "save_estimator",
]
