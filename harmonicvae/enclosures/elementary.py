"""Elementary functions in float64 with proved error bounds.

Nothing here relies on the accuracy of a mathematical library: only +, −, ×, ÷ of IEEE 754
double precision, rounded to nearest, powers of two by ``ldexp``, and comparisons. u = 2⁻⁵³
is the unit roundoff. Results below 10⁻²⁸⁰ are widened by 10⁻²⁹⁰, so that underflow and
flush-to-zero are covered.

References
----------
N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapters 2 and 5.
J.-M. Muller, "Elementary Functions: Algorithms and Implementation", 3rd ed., chapter 11
(range reduction in two parts).
"""

from __future__ import annotations

import numpy as np

from harmonicvae.enclosures.intervals import Interval, down, up
from harmonicvae.rounding import TINY, UNIT

__all__ = [
    "Interval",
    "down",
    "enclose_exp",
    "enclose_expm1",
    "enclose_log1p",
    "enclose_normal",
    "up",
]

#: ln 2 = _LN2_HIGH + _LN2_LOW up to 2**-86; the first has 32 bits, so that k times it is
#: exact for |k| < 2**21.
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = 1.9082149292705877e-10
_INVERSE_LN2 = 1.4426950408889634
#: Where exp is evaluated; beyond, it is bounded by its values at these two.
_EXP_LOW, _EXP_HIGH = -660.0, 709.0
#: 1/j! for j = 1 … 14, each rounded to nearest.
_COEFFICIENTS = (
    *(1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320),
    *(1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600),
    *(1.0 / 6227020800, 1.0 / 87178291200),
)
#: Below this |x| the normal distribution comes from its series, above from its fraction.
_SERIES_END = 2.5
_SERIES_TERMS = 34
_FRACTION_TERMS = 64
#: Factors that outweigh up to four roundings of terms ≥ 0, and their own.
_LESS, _MORE = 1.0 - 6.0 * UNIT, 1.0 + 6.0 * UNIT
#: 1/√(2π) lies between these neighbouring numbers.
_DENSITY_AT_ZERO = (0.39894228040143265, 0.3989422804014327)


def _exponential_slope(r: np.ndarray) -> np.ndarray:
    """Return (e^r − 1)/r for |r| ≤ 0.35 with relative error below 2.1u.

    Horner's rule on s_j = 1/j! + r·s_{j+1}, j = 14 … 1. With E_j the absolute error in u,
    E_j ≤ |s_j| (sum) + 0.35·(E_{j+1} + |s_{j+1}|) (product) + 1/j! (coefficient, j ≥ 3), and
    |s_j| ≤ 1/(j!·(1 − 0.35/(j+1))): E_4 ≤ 0.10, E_3 ≤ 0.41, E_2 ≤ 0.78, E_1 ≤ 1.7 while
    s_1 ≥ (1 − e^−0.35)/0.35 > 0.843. The rest of the series is below 0.35¹⁴/15! < 0.003u.
    """
    total = np.full_like(r, _COEFFICIENTS[-1])
    for coefficient in _COEFFICIENTS[-2::-1]:
        total = coefficient + r * total
    return total


def enclose_exp(x: np.ndarray) -> Interval:
    """Enclose e^x.

    Parameters
    ----------
    x : ndarray of float64
        May be infinite, not NaN.

    Returns
    -------
    Interval
        Relative width below 20u for −660 ≤ x ≤ 709; [0, 10⁻²⁸⁶] below, and up to +∞ above.

    Notes
    -----
    x = k·ln 2 + r, |r| ≤ 0.35, k integer. r has an absolute error below 0.71u: 0.35u for
    each of the two subtractions (the product k·_LN2_HIGH is exact), the rest below 2⁻²²u.
    1 + r·s_1 has an absolute error of (1 + r·s_1 + 0.35·(1.7 + 1.2))u, so that relative to
    e^r ≥ 0.704 all errors together stay below (0.71 + 1 + 1.45)u < 4u; the result is widened
    by 8u, which also covers the rounding of the widening itself.

    Examples
    --------
    >>> low, high = enclose_exp(np.array([0.0, -np.inf]))
    >>> bool(low[0] == 1.0), bool(high[0] == 1.0), float(low[1])
    (True, True, 0.0)
    """
    inside = np.clip(x, _EXP_LOW, _EXP_HIGH)
    k = np.rint(inside * _INVERSE_LN2)
    r = (inside - k * _LN2_HIGH) - k * _LN2_LOW
    value = np.ldexp(1.0 + r * _exponential_slope(r), k.astype(np.int64))
    lower, upper = value - 8.0 * UNIT * value, value + 8.0 * UNIT * value
    lower = np.where(x < _EXP_LOW, 0.0, np.where(x >= 0, np.maximum(lower, 1.0), lower))
    upper = np.where(x > _EXP_HIGH, np.inf, np.where(x <= 0, np.minimum(upper, 1.0), upper))
    return Interval(lower, upper)


def enclose_expm1(x: np.ndarray) -> Interval:
    """Enclose e^x − 1 for x ≤ 0.

    Parameters
    ----------
    x : ndarray of float64
        ≤ 0; may be −∞.

    Returns
    -------
    Interval
        Relative width below 40u, plus 10⁻²⁹⁰.

    Notes
    -----
    For |x| ≤ 0.35 it is x·s_1(x), with relative error below 2.1u + u, else e^x − 1 without
    harmful cancellation. Clamped to [max(x, −1), 0].

    Examples
    --------
    >>> enclose_expm1(np.array([-np.inf, 0.0])).lower
    array([-1.,  0.])
    """
    near = np.maximum(x, -0.35)
    value = near * _exponential_slope(near)
    small = Interval(value + 8.0 * UNIT * value - TINY, value - 8.0 * UNIT * value + TINY)
    return small.choose(x >= -0.35, enclose_exp(x).minus(1.0)).within(np.maximum(x, -1.0), 0.0)


def enclose_log1p(t: Interval) -> Interval:
    """Enclose log(1 + t) for t in [0, 1].

    Parameters
    ----------
    t : Interval
        Ends in [0, 1].

    Returns
    -------
    Interval
        Relative width below 40u plus that of ``t``, plus 10⁻²⁹⁰.

    Notes
    -----
    log(1 + t) = 2 Σ w^(2k+1)/(2k+1), w = t/(2 + t) ≤ ⅓: all terms are ≥ 0. With y = w² ≤ 1/9,
    Horner's s_k = 1/(2k+1) + y·s_{k+1} damps the relative error ρ of each step by 1/9:
    ρ ≤ 2u + (ρ + u + 5u)/9, hence ρ ≤ 3u (w has 2u, y 5u), and the product w·s_0 has 6u.
    18 terms leave less than y¹⁸ < 0.1u. Widened by 16u; clamped to ≤ t.

    Examples
    --------
    >>> low, high = enclose_log1p(Interval(np.array(0.0), np.array(1.0)))
    >>> float(low), bool(0 <= high - np.log(2) < 1e-14)
    (0.0, True)
    """
    lower, upper = _log1p(t.lower), _log1p(t.upper)
    lower = np.maximum(lower - 16.0 * UNIT * lower - TINY, 0.0)
    return Interval(lower, np.minimum(upper + 16.0 * UNIT * upper + TINY, t.upper))


def _log1p(t: np.ndarray) -> np.ndarray:
    """Return log(1 + t) for t in [0, 1] with relative error below 8u."""
    w = t / (2.0 + t)
    y = w * w
    total = np.full_like(y, 1.0 / 35.0)
    for k in range(16, -1, -1):
        total = 1.0 / (2 * k + 1) + y * total
    return 2.0 * (w * total)


def enclose_normal(x: np.ndarray) -> tuple[Interval, Interval]:
    """Enclose the density and the upper tail of the standard normal distribution at x ≥ 0.

    Parameters
    ----------
    x : ndarray of float64
        0 ≤ x ≤ 30.

    Returns
    -------
    density : Interval
        e^(−x²/2)/√(2π).
    tail : Interval
        Q(x) = 1 − Φ(x), at most 10⁻¹⁴ wide for x ≤ 2.5, and 10⁻¹² of itself beyond.

    Notes
    -----
    x ≤ 2.5: Q = ½ − density·Σ x^(2k+1)/(1·3⋯(2k+1)), all terms ≥ 0, evaluated from the
    34th on by s_k = 1 + s_{k+1}·x²/(2k+3); as the terms fall by at least x²/(2k+3), the
    first s lies in [1, 1/(1 − x²/(2k+3))].

    x > 2.5: with I_k = ∫_x^∞ (t−x)^k/k!·φ(t) dt > 0 and I_{−1} = φ(x), integration by parts
    gives I_{k−1} = x·I_k + (k+1)·I_{k+1}. So d_k = I_{k−1}/I_k fulfils
    d_k = x + (k+1)/d_{k+1}, where x ≤ d_k ≤ x + (k+1)/x, and Q = φ(x)/d_0. Intervals
    are carried from k = 64 down to 0 (Laplace's continued fraction).

    References
    ----------
    M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.2.11 and 26.2.14.

    Examples
    --------
    >>> _, tail = enclose_normal(np.array([0.0]))
    >>> bool(abs(tail.lower[0] - 0.5) < 1e-15)
    True
    """
    argument = Interval(x, x).times(Interval(x, x)).times(-0.5)
    power = Interval(enclose_exp(argument.lower).lower, enclose_exp(argument.upper).upper)
    density = power.times(Interval(*map(np.asarray, _DENSITY_AT_ZERO)))
    near, far = np.minimum(x, _SERIES_END), np.maximum(x, _SERIES_END)
    series = density.times(_normal_series(near)).negative().plus(0.5)
    fraction = density.over(_mills_fraction(far))
    return density, series.choose(x <= _SERIES_END, fraction).within(0.0, 0.5)


def _normal_series(x: np.ndarray) -> Interval:
    """Enclose Σ x^(2k+1)/(1·3⋯(2k+1)) for 0 ≤ x ≤ 2.5; each step rounds thrice, so by ≤ 3u."""
    y = Interval(x, x).times(Interval(x, x)).within(0.0, np.inf)
    lower = np.ones_like(x)
    upper = np.full_like(x, 1.001 / (1.0 - _SERIES_END**2 / (2 * _SERIES_TERMS + 3)))
    for k in range(_SERIES_TERMS - 1, -1, -1):
        lower = (1.0 + lower * y.lower / (2 * k + 3)) * _LESS
        upper = (1.0 + upper * y.upper / (2 * k + 3)) * _MORE
    return Interval(lower, upper).times(Interval(x, x))


def _mills_fraction(x: np.ndarray) -> Interval:
    """Enclose φ(x)/Q(x) for x ≥ 2.5; each step rounds twice, so by ≤ 2u."""
    lower, upper = x, (x + (_FRACTION_TERMS + 1) / x) * _MORE
    for k in range(_FRACTION_TERMS, 0, -1):
        lower, upper = (x + k / upper) * _LESS, (x + k / lower) * _MORE
    return Interval(lower, upper)
