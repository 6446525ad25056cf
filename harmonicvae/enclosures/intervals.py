"""Interval arithmetic on float64 arrays, rounded outwards, and ranges of affine maps.

Operations are those of IEEE 754 double precision, rounded to nearest; each result is then
moved outwards by 4u of itself, u = 2⁻⁵³, and by 10⁻²⁹⁰, so that underflow and
flush-to-zero are covered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.matrices import largest_entry
from harmonicvae.rounding import TINY, UNIT, gamma

Ends = tuple[np.ndarray, np.ndarray]
_MAX = np.finfo(np.float64).max


def down(value: np.ndarray) -> np.ndarray:
    """Return a lower bound of the exact result of one float64 operation.

    Parameters
    ----------
    value : ndarray of float64
        What +, −, × or ÷ returned; may be infinite, where +∞ means overflow. NaN means that
        nothing is known.

    Returns
    -------
    ndarray
        value − 4u|value| − 10⁻²⁹⁰; NaN becomes −∞.

    Examples
    --------
    >>> bool(down(np.array(1.0)) < 1.0)
    True
    """
    safe = np.where(np.isnan(value), -np.inf, np.minimum(value, _MAX))
    return safe - (4.0 * UNIT * np.abs(safe) + TINY)


def up(value: np.ndarray) -> np.ndarray:
    """Return an upper bound of the exact result of one float64 operation.

    Parameters
    ----------
    value : ndarray of float64
        As for :func:`down`, with −∞ for overflow.

    Returns
    -------
    ndarray
        value + 4u|value| + 10⁻²⁹⁰; NaN becomes +∞.

    Examples
    --------
    >>> bool(up(np.array(1.0)) > 1.0)
    True
    """
    return -down(-np.asarray(value))


class Interval(NamedTuple):
    """Arrays of closed intervals [lower, upper]; operations round outwards.

    Parameters
    ----------
    lower, upper : ndarray of float64
        Ends, of one shape; may be infinite, not NaN.

    Examples
    --------
    >>> square = Interval(np.array(-1.0), np.array(2.0)).times(3.0)
    >>> bool(square.lower < -3.0), bool(square.upper > 6.0)
    (True, True)
    """

    lower: np.ndarray
    upper: np.ndarray

    def plus(self, other: Interval | float) -> Interval:
        """Return the sum."""
        low, high = _ends(other)
        with np.errstate(over="ignore", invalid="ignore"):
            return Interval(down(self.lower + low), up(self.upper + high))

    def minus(self, other: Interval | float) -> Interval:
        """Return the difference."""
        low, high = _ends(other)
        return self.plus(Interval(-high, -low))

    def times(self, other: Interval | float) -> Interval:
        """Return the product; 0 · ∞ counts as 0, as infinite ends are limits of numbers."""
        low, high = _ends(other)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            products = [a * b for a in (self.lower, self.upper) for b in (low, high)]
        products = [np.where(np.isnan(product), 0.0, product) for product in products]
        least = np.minimum(np.minimum(*products[:2]), np.minimum(*products[2:]))
        most = np.maximum(np.maximum(*products[:2]), np.maximum(*products[2:]))
        return Interval(down(least), up(most))

    def over(self, other: Interval | float) -> Interval:
        """Return the quotient by an interval of finite numbers > 0."""
        low, high = _ends(other)
        with np.errstate(over="ignore", under="ignore"):
            inverse = Interval(down(1.0 / high), up(1.0 / low))
        return self.times(inverse)

    def within(self, low: float | np.ndarray, high: float | np.ndarray) -> Interval:
        """Return the part inside [low, high], known to hold the true values."""
        return Interval(np.clip(self.lower, low, high), np.clip(self.upper, low, high))

    def hull(self, value: float, where: np.ndarray) -> Interval:
        """Return the intervals, those chosen by ``where`` extended to hold ``value``."""
        return Interval(
            np.where(where, np.minimum(self.lower, value), self.lower),
            np.where(where, np.maximum(self.upper, value), self.upper),
        )

    def choose(self, where: np.ndarray, other: Interval) -> Interval:
        """Return these intervals where ``where`` is true, and ``other`` elsewhere."""
        return Interval(
            np.where(where, self.lower, other.lower), np.where(where, self.upper, other.upper)
        )

    def negative(self) -> Interval:
        """Return −[lower, upper], exactly."""
        return Interval(-self.upper, -self.lower)


def _ends(value: Interval | float) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of an interval or of a number."""
    if isinstance(value, Interval):
        return value.lower, value.upper
    number = np.asarray(value, dtype=np.float64)
    return number, number


def checked_ends(low: Any, high: Any) -> Ends:
    """Return both ends of intervals as float64 arrays of one shape.

    Parameters
    ----------
    low, high : array-like
        Ends, of shapes that broadcast; may be infinite.

    Returns
    -------
    low, high : ndarray of float64

    Raises
    ------
    InputError
        If an end is NaN or low > high.

    Examples
    --------
    >>> checked_ends([0.0, 1.0], 2.0)[1]
    array([2., 2.])
    """
    low, high = np.broadcast_arrays(
        np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    )
    if not np.all(low <= high):
        raise InputError("intervals need low <= high and no NaN; check the order of the ends")
    return low, high


def affine_range(weight: Any, bias: np.ndarray, low: Any, high: Any) -> Ends:
    """Enclose W x + b over boxes of x.

    Parameters
    ----------
    weight : ndarray or csr_array of shape (m, n)
        W, finite.
    bias : ndarray of shape (m,)
        b, finite.
    low, high : array-like of shape (..., n)
        Ends of the boxes, low ≤ high; may be infinite.

    Returns
    -------
    lower, upper : ndarray of shape (..., m)
        Bounds of each output, rounded outwards; infinite only where an infinite end reaches it
        through a weight ≠ 0, or a number exceeds the largest float64.

    Raises
    ------
    InputError
        If an end is NaN, low > high, or shapes do not fit.

    Notes
    -----
    With x = c + δ, |δ| ≤ r, the range is Wc + b ± |W|r, exact for one box. The computed
    Wc + b is off by at most γ_{n+2}(|W||c| + |b|), plus underflows; |W|(r + γ|c|) takes one
    product, inflated by the same γ. A half-infinite x_j enters by its finite end. Cost two
    products, O(mn) for each box, and four more where an end is infinite.

    Examples
    --------
    >>> lower, upper = affine_range(np.array([[1.0, -2.0]]), np.array([1.0]), [0, 0], [1, np.inf])
    >>> float(lower[0]), bool(2.0 <= upper[0] < 2.0 + 1e-14)
    (-inf, True)
    """
    low, high = checked_ends(low, high)
    if weight.ndim != 2 or low.ndim == 0 or low.shape[-1] != weight.shape[1]:
        raise InputError(
            f"boxes must have shape (..., {weight.shape[-1]}), one end for each input, "
            f"got {low.shape}"
        )
    no_floor, no_ceiling = np.isneginf(low), np.isposinf(high)
    bottom = np.where(no_floor, np.where(no_ceiling | np.isneginf(high), 0.0, high), low)
    top = np.where(no_ceiling, np.where(no_floor | np.isposinf(low), 0.0, low), high)
    bottom = np.where(np.isposinf(bottom), 0.0, bottom)
    top = np.where(np.isneginf(top), 0.0, top)
    lower, upper = _finite_affine(weight, bias, bottom, top)
    unbounded = no_floor | np.isneginf(high), no_ceiling | np.isposinf(low)
    if not (np.any(unbounded[0]) or np.any(unbounded[1])):
        return lower, upper
    falls = [part.astype(np.float64) for part in unbounded]
    positive, negative = (weight > 0).astype(np.float64).T, (weight < 0).astype(np.float64).T
    drops = falls[0] @ positive + falls[1] @ negative > 0
    rises = falls[1] @ positive + falls[0] @ negative > 0
    return np.where(drops, -np.inf, lower), np.where(rises, np.inf, upper)


def _finite_affine(weight: Any, bias: np.ndarray, low: np.ndarray, high: np.ndarray) -> Ends:
    """Enclose W x + b over finite boxes."""
    error = gamma(weight.shape[1] + 8)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        centre = 0.5 * low + 0.5 * high
        radius = up(np.maximum(high - centre, centre - low))
        absolute = abs(weight)
        value = centre @ weight.T + bias
        reach = np.abs(centre) * error + radius
        spread = reach @ absolute.T + error * np.abs(bias)
        peak = np.max(reach, axis=-1, initial=0.0) + np.max(np.abs(centre), axis=-1, initial=0.0)
        underflow = TINY * (1.0 + peak[..., None]) * (1.0 + largest_entry(weight))
        spread = up(spread * (1.0 + 2.0 * error) + underflow)
        return down(value - spread), up(value + spread)
