"""Ranges of activations, of their derivatives and of affine maps over intervals, rounded outwards.

Every function takes arrays of intervals [low, high] and returns arrays that enclose the exact
range, in real arithmetic, of the function with its float64 parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harmonicvae.activations import ACTIVATIONS, Activation
from harmonicvae.enclosures.curves import (
    GATES,
    Turning,
    between,
    elu_slope,
    elu_value,
    gate_curvature,
    gate_slope,
    gate_value,
    leaky_value,
    logistic_range,
    scaled,
    softplus_value,
    tanh_value,
    two_sided,
)
from harmonicvae.enclosures.intervals import Ends, Interval, affine_range, checked_ends

__all__ = [
    "affine_range",
    "curvature_range",
    "is_widened",
    "slope_range",
    "third_range",
    "value_range",
]


def _own(item: Activation) -> Activation | None:
    """Return the activation as its factory makes it; None if it is not a known one."""
    if item.name not in ACTIVATIONS:
        return None
    return ACTIVATIONS[item.name](*item.parameters)


def is_widened(item: Activation) -> bool:
    """Return whether a slope range differs from the activation's own, or nothing is known of it.

    Examples
    --------
    >>> from harmonicvae.activations import sigmoid
    >>> is_widened(sigmoid()), is_widened(sigmoid().with_slopes(0.0, 1.0))
    (False, True)
    """
    own = _own(item)
    return own is None or (own.alpha, own.beta) != (item.alpha, item.beta)


def value_range(item: Activation, low: Any, high: Any) -> Ends:
    """Enclose φ([low, high]), elementwise.

    Parameters
    ----------
    item : Activation
        φ. Of one that is not in :data:`~harmonicvae.activations.ACTIVATIONS` nothing is known:
        its range is (−∞, ∞).
    low, high : array-like of one shape
        Ends of the intervals, low ≤ high; may be infinite.

    Returns
    -------
    lower, upper : ndarray
        Bounds of φ on each interval, rounded outwards: at a point about 10⁻¹⁴ apart,
        relatively, plus at most 10⁻²⁸⁰.

    Raises
    ------
    InputError
        If an end is NaN or low > high.

    Notes
    -----
    Cost of a few dozen float64 operations for each interval, about 500 for GELU.

    Examples
    --------
    >>> from harmonicvae.activations import relu, sigmoid
    >>> value_range(relu(), [-1.0, 2.0], [3.0, np.inf])
    (array([0., 2.]), array([ 3., inf]))
    >>> lower, upper = value_range(sigmoid(), -np.inf, np.inf)
    >>> float(lower), float(upper)
    (0.0, 1.0)
    """
    low, high = checked_ends(low, high)
    return tuple(_value(item, low, high))  # type: ignore[return-value]


def _value(item: Activation, low: np.ndarray, high: np.ndarray) -> Interval:
    at_zero: tuple[Turning, ...] = ((0.0, 0.0, 0.0),)
    if item.name == "identity":
        return Interval(low, high)
    if item.name in ("relu", "leaky_relu"):
        slope = item.parameters[0] if item.parameters else 0.0
        return between(lambda x: leaky_value(x, slope), at_zero, low, high)
    if item.name == "elu":
        return between(lambda x: elu_value(x, item.parameters[0]), at_zero, low, high)
    if item.name == "sigmoid":
        return logistic_range(0, low, high)
    if item.name == "tanh":
        return between(tanh_value, (), low, high)
    if item.name == "softplus":
        ends = scaled(low, high, item.parameters[0])
        whole = between(softplus_value, (), *ends)
        if item.parameters[0] == 1.0:
            return whole
        return whole.over(item.parameters[0]).within(0.0, np.inf)
    if item.name in GATES:
        gate = GATES[item.name]
        return between(lambda x: gate_value(gate, x), (gate.lowest,), low, high)
    return Interval(np.full_like(low, -np.inf), np.full_like(low, np.inf))


def slope_range(item: Activation, low: Any, high: Any) -> Ends:
    """Enclose every difference quotient (φ(a) − φ(b))/(a − b) of a ≠ b in [low, high].

    Parameters
    ----------
    item : Activation
        φ. If its slope range was widened by ``with_slopes``, or its name is not known here,
        its [alpha, beta] is returned for every interval.
    low, high : array-like of one shape
        Ends of the intervals, low ≤ high; may be infinite. For low = high the derivative.

    Returns
    -------
    lower, upper : ndarray
        Bounds of φ′ on each interval, rounded outwards, within [alpha, beta]. If a kink lies
        in the closed interval, the slopes of both sides are enclosed.

    Raises
    ------
    InputError
        If an end is NaN or low > high.

    Notes
    -----
    By the mean value theorem the quotients lie in the range of φ′, one-sided at kinks. Cost
    as for :func:`value_range`.

    Examples
    --------
    >>> from harmonicvae.activations import leaky_relu, sigmoid
    >>> slope_range(leaky_relu(0.5), [-1.0, 1.0], [1.0, 2.0])
    (array([0.5, 1. ]), array([1., 1.]))
    >>> lower, upper = slope_range(sigmoid(), -1.0, 2.0)
    >>> round(float(lower), 6), float(upper)
    (0.104994, 0.25)
    """
    low, high = checked_ends(low, high)
    stored = Interval(np.full_like(low, item.alpha), np.full_like(low, item.beta))
    if is_widened(item) or item.is_linear:
        return tuple(stored)  # type: ignore[return-value]
    return tuple(_slope(item, low, high).within(item.alpha, item.beta))  # type: ignore[return-value]


def _slope(item: Activation, low: np.ndarray, high: np.ndarray) -> Interval:
    if item.name in ("relu", "leaky_relu"):
        slope = item.parameters[0] if item.parameters else 0.0

        def constant(x: np.ndarray) -> Interval:
            return Interval(np.full_like(x, slope), np.full_like(x, slope))

        return two_sided(constant, 1.0, low, high)
    if item.name == "elu":
        return two_sided(lambda x: elu_slope(x, item.parameters[0]), 1.0, low, high)
    if item.name == "sigmoid":
        return logistic_range(1, low, high)
    if item.name == "tanh":
        return logistic_range(1, *scaled(low, high, 2.0)).times(4.0)
    if item.name == "softplus":
        return logistic_range(0, *scaled(low, high, item.parameters[0]))
    gate = GATES[item.name]
    before, after = gate.steepest
    turning = ((before, after, item.beta), (-after, -before, item.alpha))
    return between(lambda x: gate_slope(gate, x), turning, low, high)


def curvature_range(item: Activation, low: Any, high: Any) -> Ends:
    """Enclose φ″ over [low, high], elementwise.

    Parameters
    ----------
    item : Activation
        φ; of one with an unknown name nothing is known: (−∞, ∞).
    low, high : array-like of one shape
        Ends of the intervals, low ≤ high; may be infinite.

    Returns
    -------
    lower, upper : ndarray
        Bounds of (φ′(a) − φ′(b))/(a − b) for a ≠ b in the interval, rounded outwards;
        (−∞, ∞) if a kink lies in the closed interval.

    Raises
    ------
    InputError
        If an end is NaN or low > high.

    Notes
    -----
    Exact up to rounding but for GELU with tanh, where plain interval arithmetic over [low, high]
    overestimates the range of wide intervals.

    Examples
    --------
    >>> from harmonicvae.activations import relu, sigmoid
    >>> curvature_range(relu(), [-1.0, 1.0], [1.0, 2.0])
    (array([-inf,   0.]), array([inf,  0.]))
    >>> lower, upper = curvature_range(sigmoid(), -np.inf, np.inf)
    >>> round(float(upper), 6)
    0.096225
    """
    low, high = checked_ends(low, high)
    return tuple(_curvature(item, low, high))  # type: ignore[return-value]


def _curvature(item: Activation, low: np.ndarray, high: np.ndarray) -> Interval:
    everything = Interval(np.full_like(low, -np.inf), np.full_like(low, np.inf))
    zero = np.zeros_like(low)
    if item.name == "identity":
        return Interval(zero, zero)
    if item.name in ("relu", "leaky_relu"):
        kinked = (low <= 0) & (high >= 0) & (item.kink != (1.0, 1.0))
        return everything.choose(kinked, Interval(zero, zero))
    if item.name == "elu":
        whole = two_sided(lambda x: elu_slope(x, item.parameters[0]), 0.0, low, high)
        kinked = (low <= 0) & (high >= 0) & (item.kink is not None)
        return everything.choose(kinked, whole)
    if item.name == "sigmoid":
        return logistic_range(2, low, high)
    if item.name == "tanh":
        return logistic_range(2, *scaled(low, high, 2.0)).times(8.0)
    if item.name == "softplus":
        sharpness = item.parameters[0]
        return logistic_range(1, *scaled(low, high, sharpness)).times(sharpness)
    if item.name in GATES:
        return gate_curvature(GATES[item.name], low, high)
    return everything


def third_range(item: Activation, low: Any, high: Any) -> Ends:
    """Enclose φ‴ over [low, high], elementwise.

    Parameters
    ----------
    item : Activation
        φ; known for the identity, sigmoid, tanh and softplus, (−∞, ∞) for others.
    low, high : array-like of one shape
        Ends of the intervals, low ≤ high; may be infinite.

    Returns
    -------
    lower, upper : ndarray
        Bounds of φ‴ on each interval, rounded outwards.

    Raises
    ------
    InputError
        If an end is NaN or low > high.

    Notes
    -----
    Cost as for :func:`value_range`.

    Examples
    --------
    >>> from harmonicvae.activations import sigmoid
    >>> lower, upper = third_range(sigmoid(), -np.inf, np.inf)
    >>> float(lower), round(float(upper), 6)
    (-0.125, 0.041667)
    """
    low, high = checked_ends(low, high)
    return tuple(_third(item, low, high))  # type: ignore[return-value]


def _third(item: Activation, low: np.ndarray, high: np.ndarray) -> Interval:
    if item.name == "identity":
        return Interval(np.zeros_like(low), np.zeros_like(low))
    if item.name == "sigmoid":
        return logistic_range(3, low, high)
    if item.name == "tanh":
        return logistic_range(3, *scaled(low, high, 2.0)).times(16.0)
    if item.name == "softplus":
        sharpness = item.parameters[0]
        whole = logistic_range(2, *scaled(low, high, sharpness))
        return whole.times(sharpness).times(sharpness)
    return Interval(np.full_like(low, -np.inf), np.full_like(low, np.inf))
