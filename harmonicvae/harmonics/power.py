"""The mean power spectrum of independent units, with intervals and derived numbers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from harmonicvae.harmonics.bootstrap import estimate, percentile_interval, resampling_weights
from harmonicvae.records import Spectrum

#: A power below this share of the mean square is rounding: (1000 units in the last place)².
NO_VARIANCE = (1000 * np.finfo(np.float64).eps) ** 2


def summarised(
    power: np.ndarray,
    frequencies: np.ndarray,
    cutoff: float,
    size: float,
    *,
    name: str,
    units: str,
    n_samples: int,
    confidence: float,
    n_resamples: int,
    generator: np.random.Generator,
    details: dict[str, Any],
    started: float,
) -> Spectrum:
    """Return the mean spectrum of independent units, with intervals.

    Parameters
    ----------
    power : ndarray of shape (u, k)
        One spectrum each, u ≥ 2.
    frequencies : ndarray of shape (k,)
    cutoff : float
    size : float
        Mean square before anything was subtracted: a far smaller power is rounding.
    name, units, n_samples, confidence, details
        Of the record.
    n_resamples : int
    generator : Generator
    started : float
        Clock at the start.

    Returns
    -------
    Spectrum
    """
    count = len(power)
    mean = resampling_weights(count, n_resamples, generator) @ power / count
    lower, upper, _ = percentile_interval(mean[1:], count, confidence)
    total = mean.sum(axis=1)
    varies = bool(total[0] > NO_VARIANCE * size)
    scale = np.where(total > 0, total, np.nan) if varies else np.full_like(total, np.nan)
    ratios = {
        "centroid": mean @ frequencies / scale,
        "high_frequency_share": mean[:, frequencies > cutoff].sum(axis=1) / scale,
    }
    return Spectrum(
        name=name,
        abscissa=frequencies,
        values=mean[0],
        lower=lower,
        upper=upper,
        kind="unbiased",
        status="estimate" if varies else "degenerate",
        confidence=confidence,
        summaries={"power": estimate(total, count, confidence, "unbiased")}
        | {key: estimate(value, count, confidence, "ratio") for key, value in ratios.items()},
        n_samples=n_samples,
        units=units,
        n_units=count,
        seconds=time.perf_counter() - started,
        details=details,
    )
