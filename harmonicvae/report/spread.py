"""Differences of configurations beside their seed-to-seed spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harmonicvae.exceptions import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the mean of one configuration is from that of another.

    Parameters
    ----------
    value : float
        Mean minus the baseline's mean; NaN if one of them was not measured.
    low, high : float
        Welch's interval of the difference; NaN where a side has fewer than two seeds.
    degrees : float
        Degrees of freedom of Welch and Satterthwaite; NaN likewise, or without any spread.
    verdict : str
        In words.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    degrees: float = math.nan
    verdict: str = ""


def welch_difference(
    values: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE
) -> Difference:
    """Compare the means of two configurations, one value a seed.

    Parameters
    ----------
    values, baseline : sequence of float
        One value a seed; NaN counts as not measured.
    confidence : float, default=0.95
        Of the interval, in (0, 1).

    Returns
    -------
    Difference

    Raises
    ------
    InputError
        If ``confidence`` is not in (0, 1).

    Notes
    -----
    Welch's interval holds for normally distributed values of different variances; with two or
    three seeds it is wide, and rightly so.  Two configurations without any spread have an
    interval of width 0.

    References
    ----------
    B. L. Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", Biometrika 34, 1947.

    Examples
    --------
    >>> found = welch_difference([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    >>> found.value, round(found.low, 4), round(found.high, 4), found.degrees
    (3.0, 0.733, 5.267, 4.0)
    >>> found.verdict
    'higher, beyond the seed-to-seed spread'
    >>> welch_difference([4.0], [1.0, 2.0]).verdict
    'no spread known (1 seed)'
    """
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence must be in (0, 1), got {confidence}")
    sides = [np.asarray([v for v in side if not math.isnan(v)]) for side in (values, baseline)]
    if not all(map(len, sides)):
        return Difference(value=math.nan, verdict="not measured")
    if not all(np.isfinite(side).all() for side in sides):
        return Difference(value=math.nan, verdict="not finite")
    difference = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) < 2:
        return Difference(value=difference, verdict="no spread known (1 seed)")
    shares = [float(side.var(ddof=1)) / len(side) for side in sides]
    variance = sum(shares)
    if variance == 0.0:  # also where squares underflow: there is no spread to speak of
        return Difference(
            value=difference, low=difference, high=difference, verdict=_verdict(difference, 0.0)
        )
    # of shares of the variance, so that no square of a small variance underflows
    degrees = 1.0 / sum(
        (share / variance) ** 2 / (len(side) - 1) for share, side in zip(shares, sides)
    )
    reach = float(stdtrit(degrees, 0.5 + confidence / 2)) * math.sqrt(variance)
    return Difference(
        value=difference,
        low=difference - reach,
        high=difference + reach,
        degrees=degrees,
        verdict=_verdict(difference, reach),
    )


def _verdict(difference: float, reach: float) -> str:
    """Say whether a difference exceeds what seeds alone do."""
    if difference == 0.0 and reach == 0.0:
        return "the same for every seed"
    if abs(difference) <= reach:
        return "within the seed-to-seed spread"
    return f"{'higher' if difference > 0 else 'lower'}, beyond the seed-to-seed spread"
