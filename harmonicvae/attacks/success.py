"""How many attacked inputs were damaged by more than an allowed amount."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harmonicvae.exceptions import InputError


def success_rate(values: Any, thresholds: Any) -> pd.DataFrame:
    """Share of attacked inputs whose damage exceeds each threshold r.

    Parameters
    ----------
    values : array of shape (n,)
        Damage of each attacked input, in output units, ≥ 0 and finite, n ≥ 1.
    thresholds : float or array of shape (k,)
        Allowed damages r, in output units, ≥ 0; ``inf`` is allowed, k ≥ 1.

    Returns
    -------
    DataFrame
        Columns r and success_rate (in [0, 1]), one row for each r as given.

    Raises
    ------
    InputError
        If an array is empty or of another shape, negative or NaN.

    Notes
    -----
    Damage equal to r is no success: r-robustness allows it.  An attack finds a lower bound
    on the largest damage, so the share is a lower bound on that of inputs which some
    perturbation of the same radius would damage by more than r.  Cost O((n + k) log n).

    Examples
    --------
    >>> success_rate([0.5, 1.0, 2.0, 4.0], [0.0, 1.0, 4.0])
         r  success_rate
    0  0.0           1.0
    1  1.0           0.5
    2  4.0           0.0
    """
    damage = _vector("values", values)
    if damage.max() == np.inf:
        raise InputError("values must be finite, got infinity; the attack's result is no number")
    limits = _vector("thresholds", thresholds)
    ordered = np.sort(damage)
    exceeding = len(ordered) - np.searchsorted(ordered, limits, side="right")
    return pd.DataFrame({"r": limits, "success_rate": exceeding / len(ordered)})


def _vector(name: str, given: Any) -> np.ndarray:
    """Return a non-empty float64 vector of numbers ≥ 0."""
    try:
        vector = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers >= 0, got {given!r}") from error
    vector = np.atleast_1d(vector) if name == "thresholds" else vector
    if vector.ndim != 1 or vector.size == 0:
        raise InputError(f"{name} must be a non-empty array of one dimension, got {vector.shape}")
    if not (vector >= 0).all():
        raise InputError(f"{name} must be >= 0 and not NaN, got {float(vector.min())!r}")
    return vector
