"""Enclosures of a function of one input and of its first two derivatives, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from harmonicvae.activations import Activation
from harmonicvae.enclosures.elementary import Interval, down, up
from harmonicvae.enclosures.functions import curvature_range, slope_range, value_range

#: Activations without second derivative away from 0.
_STRAIGHT = ("identity", "relu", "leaky_relu")
#: Where a kink is, intervals on one side of it end here instead of at 0.
_BESIDE_ZERO = 1e-300


class Jet(NamedTuple):
    """Enclosures of a layer's value, first and second derivative, each of shape (n, width)."""

    value: Interval
    first: Interval
    second: Interval | None  # None: zero


def thin(value: np.ndarray) -> Interval:
    """Return the intervals [v, v]."""
    return Interval(value, value)


def is_zero(a: Interval) -> np.ndarray:
    """Tell where an interval is [0, 0]."""
    return (a.lower == 0) & (a.upper == 0)


def times(a: Interval, b: Interval) -> Interval:
    """Return a·b rounded outwards, exactly 0 where a factor is.

    Examples
    --------
    >>> times(thin(np.array(0.0)), thin(np.array(2.0)))
    Interval(lower=array(0.), upper=array(0.))
    """
    product = a.times(b)
    zero = is_zero(a) | is_zero(b)
    return Interval(np.where(zero, 0.0, product.lower), np.where(zero, 0.0, product.upper))


def square(a: Interval) -> Interval:
    """Return a² rounded outwards, without the excess of a·a where a contains 0.

    Examples
    --------
    >>> both = square(Interval(np.array(-1.0), np.array(2.0)))
    >>> float(both.lower), 4.0 <= float(both.upper) < 4.0 + 1e-14
    (0.0, True)
    """
    largest = np.maximum(np.abs(a.lower), np.abs(a.upper))
    least = np.where((a.lower <= 0) & (a.upper >= 0), 0.0, np.minimum(abs(a.lower), abs(a.upper)))
    with np.errstate(over="ignore", under="ignore"):
        return Interval(
            np.where(least > 0, np.maximum(down(least * least), 0.0), 0.0),
            np.where(largest > 0, up(largest * largest), 0.0),
        )


def meet(a: Interval, b: Interval) -> Interval:
    """Return the intersection of two enclosures of the same numbers."""
    lower, upper = np.maximum(a.lower, b.lower), np.minimum(a.upper, b.upper)
    crossed = lower > upper  # cannot happen but for segments where nothing is enclosed
    return Interval(np.where(crossed, a.lower, lower), np.where(crossed, a.upper, upper))


class Sides(NamedTuple):
    """On which side of their kink neurons are over a whole segment."""

    right: np.ndarray
    flips: np.ndarray  # True where both sides occur

    @classmethod
    def of(cls, value: Interval) -> Sides:
        """Read the sides off the ranges of the pre-activations."""
        return cls(value.lower >= 0, (value.lower < 0) & (value.upper > 0))


_Range = Callable[[Activation, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def one_sided(function: _Range, item: Activation, value: Interval, right: np.ndarray) -> Interval:
    """Enclose φ′ or φ″ on the chosen side of a kink at 0."""
    floor = np.where(right, _BESIDE_ZERO, -np.inf)
    ceiling = np.where(right, np.inf, -_BESIDE_ZERO)
    low, high = np.clip(value.lower, floor, ceiling), np.clip(value.upper, floor, ceiling)
    return Interval(*function(item, low, high))


def slope(item: Activation, value: Interval, sides: Sides | None) -> Interval:
    """Enclose φ′, on both sides where a neuron changes side."""
    both = Interval(*slope_range(item, value.lower, value.upper))
    if sides is None:
        return both
    return both.choose(sides.flips, one_sided(slope_range, item, value, sides.right))


def activate(item: Activation, jet: Jet, sides: Sides | None, curved: bool) -> Jet:
    """Push a jet through an activation.

    Parameters
    ----------
    item : Activation
        φ, elementwise.
    jet : Jet
        Enclosures of a, a′ and a″.
    sides : Sides or None
        Of neurons with a kink; None where φ has none.
    curved : bool
        Whether to enclose the second derivative, too.

    Returns
    -------
    Jet
        Of φ(a): φ′(a)a′ and φ″(a)a′² + φ′(a)a″, rounded outwards. The second derivative
        does not hold where a neuron changes side.
    """
    value = Interval(*value_range(item, jet.value.lower, jet.value.upper))
    rate = slope(item, jet.value, sides)
    first = times(rate, jet.first)
    if not curved:
        return Jet(value, first, None)
    second = None if jet.second is None else times(rate, jet.second)
    if item.name in _STRAIGHT:
        return Jet(value, first, second)
    if sides is None:
        bend = Interval(*curvature_range(item, jet.value.lower, jet.value.upper))
    else:
        bend = one_sided(curvature_range, item, jet.value, sides.right)
    turned = times(bend, square(jet.first))
    return Jet(value, first, turned if second is None else turned.plus(second))
