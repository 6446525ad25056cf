"""Variational autoencoders as scikit-learn estimators."""

from harmonicvae.models.conv_estimator import ConvHarmonicVAE
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.groups import can_train_together, pays_together, together_groups
from harmonicvae.models.net import EpochHook
from harmonicvae.models.persistence import load_estimator, save_estimator
from harmonicvae.models.together import fit_together

__all__ = [
    "ConvHarmonicVAE",
    "EpochHook",
    "HarmonicVAE",
    "can_train_together",
    "fit_together",
    "load_estimator",
    "pays_together",
    "save_estimator",
    "together_groups",
]
