"""Robustness margins of a VAE: certified from Lipschitz bounds, estimated, and simulated.

A reconstruction is r-robust at x within R if P(‖g(z') − g(z)‖₂ ≤ r) > ½ for every
perturbation ‖δ‖₂ < R, z and z' being codes of x and x + δ.  :func:`margin` computes R from
upper bounds on the Lipschitz constants of encoder mean p and decoder g.
"""

from harmonicvae.margins.base import MARGINS, Margin, margin
from harmonicvae.margins.curves import margin_frame, share_with_margin
from harmonicvae.margins.first_order import first_order_margin
from harmonicvae.margins.simulation import (
    RobustnessProbability,
    clopper_pearson,
    robustness_probability,
)

__all__ = [
    "MARGINS",
    "Margin",
    "RobustnessProbability",
    "clopper_pearson",
    "first_order_margin",
    "margin",
    "margin_frame",
    "robustness_probability",
    "share_with_margin",
]
