"""Variational autoencoders as scikit-learn estimators."""

from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.net import EpochHook
from harmonicvae.models.persistence import load_estimator, save_estimator

__all__ = ["EpochHook", "HarmonicVAE", "load_estimator", "save_estimator"]
