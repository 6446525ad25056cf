"""From sums over rings to a Hermite spectrum with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harmonicvae.harmonics.bootstrap import (
    distinct_products,
    estimate,
    percentile_interval,
    resampling_weights,
    standard_errors,
)
from harmonicvae.harmonics.power import NO_VARIANCE
from harmonicvae.harmonics.rings import RingSums
from harmonicvae.harmonics.stability_fit import fit_weights
from harmonicvae.records import Estimate, Spectrum

#: From this many centres on, an average's interval is for the population they were drawn from.
POPULATION = 10


@dataclass(frozen=True)
class Setting:
    """What decides how sums become a spectrum: K, the intervals' level and the resamples."""

    max_degree: int
    confidence: float
    n_resamples: int


@dataclass(frozen=True)
class Resampled:
    """Unbiased statistics of the original sample (row 0) and of every resample.

    Parameters
    ----------
    power : ndarray of shape (1 + r, J/2 + 1)
        Cosine coefficients of the stability curve, without ‖E g‖².
    spread : ndarray of shape (1 + r, J/2 + 1)
        Standard errors of ``power`` as each resample itself would state them.
    squared_mean, jacobian, first : ndarray of shape (1 + r,)
        ‖E g‖², σ²E‖J‖_F² and W_1.
    size : float
        E‖g‖².
    """

    power: np.ndarray
    spread: np.ndarray
    squared_mean: np.ndarray
    jacobian: np.ndarray
    first: np.ndarray
    size: float


def resample(sums: RingSums, setting: Setting, generator: np.random.Generator) -> Resampled:
    """Resample the blocks of one centre.

    Parameters
    ----------
    sums : RingSums
    setting : Setting
    generator : Generator

    Returns
    -------
    Resampled
    """
    n_blocks = len(sums.power)
    weights = resampling_weights(n_blocks, setting.n_resamples, generator)
    power = weights @ sums.power / n_blocks
    centre = distinct_products(sums.mean_gram, weights)
    power[:, 0] -= centre
    return Resampled(
        power=power,
        spread=standard_errors(sums.power, weights),
        squared_mean=centre + weights @ sums.shifted_mean / n_blocks,
        jacobian=weights @ sums.jacobian / n_blocks,
        first=distinct_products(sums.first_gram, weights),
        size=sums.size,
    )


def average(
    samples: Sequence[Resampled], setting: Setting, generator: np.random.Generator, n_blocks: int
) -> tuple[Resampled, str, int]:
    """Return the average over centres, what was resampled for it, and how many there were.

    Parameters
    ----------
    samples : sequence of Resampled
        One for each centre.
    setting : Setting
    generator : Generator
    n_blocks : int
        Blocks of each centre.

    Returns
    -------
    Resampled, str, int
        From ``POPULATION`` centres on these are resampled, each with its own error in it;
        else the blocks of each centre.
    """
    count = len(samples)
    population = count >= POPULATION
    weights = resampling_weights(count, setting.n_resamples, generator) / count

    def mean(name: str) -> np.ndarray:
        values = np.stack([getattr(sample, name) for sample in samples])
        return np.tensordot(weights, values[:, 0], 1) if population else values.mean(axis=0)

    spreads = np.stack([sample.spread for sample in samples])
    own = np.stack([sample.power[0] for sample in samples])
    averaged = Resampled(
        power=mean("power"),
        spread=standard_errors(own, weights * count)
        if population
        else np.sqrt((spreads**2).sum(axis=0)) / count,
        squared_mean=mean("squared_mean"),
        jacobian=mean("jacobian"),
        first=mean("first"),
        size=float(np.mean([sample.size for sample in samples])),
    )
    return averaged, *(("centres", count) if population else ("blocks", n_blocks))


def to_spectrum(
    sample: Resampled, setting: Setting, std: float, units: str, n_units: int, n_samples: int
) -> Spectrum:
    """Fit the weights and return a spectrum with its stability curve.

    Parameters
    ----------
    sample : Resampled
    setting : Setting
    std : float
        σ.
    units, n_units
        What was resampled.
    n_samples : int
        Rings.

    Returns
    -------
    Spectrum
    """
    variance = sample.power.sum(axis=1)
    varies = bool(variance[0] > NO_VARIANCE * sample.size)
    level = setting.confidence
    fit = fit_weights(sample.power * varies, sample.spread * varies, setting.max_degree, level)
    squared_mean = estimate(sample.squared_mean, n_units, level, "unbiased")
    shared: dict[str, Any] = {
        "status": "estimate" if varies else "degenerate",
        "confidence": level,
        "n_samples": n_samples,
        "units": units,
        "n_units": n_units,
    }
    ratios = {
        "first_weight_share": sample.first,
        "mean_degree": sample.jacobian,
        "tail_share": fit.tail,
        "fitted_first_share": fit.weights[:, 0],
    }
    scale = variance if varies else np.full_like(variance, np.nan)
    summaries: dict[str, Estimate] = {
        "variance": estimate(variance, n_units, level, "unbiased"),
        "squared_mean": squared_mean,
        "first_weight": estimate(sample.first, n_units, level, "unbiased"),
        "jacobian_energy": estimate(sample.jacobian / std**2, n_units, level, "unbiased"),
        "tail": replace(
            estimate(fit.tail, n_units, level, "least_squares"),
            lower=float(fit.lower[-1]),
            upper=float(fit.upper[-1]),
        ),
    } | {name: estimate(top / scale, n_units, level, "ratio") for name, top in ratios.items()}
    for name, place in (("tail_share", -1), ("fitted_first_share", 0)):
        ends = np.minimum([fit.lower[place], fit.upper[place]] / scale[0], 1.0)
        summaries[name] = replace(
            summaries[name], kind="least_squares", lower=float(ends[0]), upper=float(ends[1])
        )
    return Spectrum(
        name="hermite",
        abscissa=np.arange(setting.max_degree + 1),
        values=np.array([max(squared_mean.value, 0.0), *fit.weights[0]]),
        lower=np.array([max(squared_mean.lower, 0.0), *fit.lower[:-1]]),
        upper=np.array([max(squared_mean.upper, 0.0), *fit.upper[:-1]]),
        kind="least_squares",
        summaries=summaries,
        stability=_stability(sample, n_units, shared),
        **shared,
    )


def _stability(sample: Resampled, n_units: int, shared: dict[str, Any]) -> Spectrum:
    """Return the noise-stability curve S(ρ), ρ rising from −1 to 1."""
    half = sample.power.shape[1] - 1
    orders = np.arange(half + 1)
    cosines = np.cos(np.pi * np.outer(orders, orders) / half)
    curve = sample.squared_mean[:, None] + sample.power @ cosines
    curve = curve[:, ::-1]
    lower, upper, _ = percentile_interval(curve[1:], n_units, shared["confidence"])
    return Spectrum(
        name="noise_stability",
        abscissa=np.cos(np.pi * orders / half)[::-1],
        values=curve[0],
        lower=lower,
        upper=upper,
        kind="unbiased",
        **shared,
    )
