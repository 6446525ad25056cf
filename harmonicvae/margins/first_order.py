"""The first-order margin: an estimate, not a certificate."""

from __future__ import annotations

import math
from typing import Any

from scipy import stats

from harmonicvae.exceptions import InputError
from harmonicvae.margins.arguments import check_number, check_positive_integer, check_stds
from harmonicvae.margins.base import Margin


def first_order_margin(
    std: Any, jacobian_norm: float, probability: float, r: float, *, latent_dim: int
) -> Margin:
    """Estimate of one input's margin from the encoder's Jacobian there; not a certificate.

    Parameters
    ----------
    std : float or array of shape (latent_dim,)
        Encoder standard deviation σ(x), ≥ 0, in latent units.
    jacobian_norm : float
        ‖J_p(x)‖_F, Frobenius norm of the encoder mean's Jacobian at x, ≥ 0.
    probability : float
        P(‖Δ(x)‖₂ ≤ r) without a perturbation, in [0, 1], e.g. from
        :func:`robustness_probability` with δ = 0.
    r : float
        Allowed distance the probability belongs to, in output units, ≥ 0.
    latent_dim : int
        Number of latent units, ≥ 1.

    Returns
    -------
    Margin
        R = min_i σ_i · Φ⁻¹(probability) / ‖J_p(x)‖_F in input units, status "estimate"; 0 if
        the probability is at most ½, ``inf`` if it is 1 or the Jacobian is 0.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Exact to first order in δ only; the encoder's curvature, and for a sampled probability its
    error, are ignored.  It may exceed the largest true margin.

    References
    ----------
    Camuto et al., "Towards a Theoretical Understanding of the Robustness of Variational
    Autoencoders", arXiv 2007.07365.

    Examples
    --------
    Φ⁻¹(0.8413) ≈ 1.

    >>> found = first_order_margin(0.5, 2.0, 0.8413447460685429, 8.0, latent_dim=3)
    >>> round(found.value, 6), found.status
    (0.25, 'estimate')
    """
    size = check_positive_integer("latent_dim", latent_dim)
    stds = check_stds(std, size)
    if stds.ndim > 1:
        raise InputError(f"std must be a number or have shape ({size},), got {stds.shape}")
    slope = check_number("jacobian_norm", jacobian_norm)
    share = check_number("probability", probability)
    if share > 1:
        raise InputError(f"probability must lie in [0, 1], got {share!r}")
    reach = float(stds.min()) * float(stats.norm.ppf(share)) if share > 0.5 else 0.0
    value = 0.0 if math.isnan(reach) else reach
    if slope > 0:
        value = value / slope
    elif value > 0:
        value = math.inf
    return Margin(
        value=value,
        method="first_order",
        status="estimate",
        r=check_number("r", r),
        encoder_bound=slope,
        decoder_bound=math.nan,
        std=stds if stds.ndim else float(stds),
        latent_dim=size,
        message="first order in the perturbation; no guarantee",
    )
