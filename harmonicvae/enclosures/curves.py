"""Enclosures of activations and their derivatives, one family at a time.

φ, φ′, φ″ and φ‴ are monotone between turning points known in closed form or to neighbouring
float64 numbers, so that two evaluations with a proved error and the turning points inside
enclose the range over an interval. :mod:`harmonicvae.enclosures.functions` offers them by
activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from harmonicvae.enclosures.elementary import (
    enclose_exp,
    enclose_expm1,
    enclose_log1p,
    enclose_normal,
)
from harmonicvae.enclosures.intervals import Ends, Interval, down, up

#: Neighbouring numbers between which a turning point lies, and the value there, rounded so that
#: a largest value is an upper and a smallest one a lower bound.
Turning = tuple[float, float, float]

#: Turning points of σ, σ′, σ″ and σ‴.
_LOGISTIC_TURNING: tuple[tuple[Turning, ...], ...] = (
    (),
    ((0.0, 0.0, 0.25),),
    (
        (1.3169578969248166, 1.3169578969248168, -0.09622504486493763),
        (-1.3169578969248168, -1.3169578969248166, 0.09622504486493763),
    ),
    (
        (0.0, 0.0, -0.125),
        (2.2924316695611773, 2.2924316695611777, 0.04166666666666667),
        (-2.2924316695611777, -2.2924316695611773, 0.04166666666666667),
    ),
)
#: 2√(2/π), the factor of GELU with tanh, lies between these; 0.044715 is the float64 number.
_GELU_TANH_FACTOR = (1.5957691216057306, 1.5957691216057308)
_GELU_TANH_CUBIC = 0.044715


class Gate(NamedTuple):
    """φ(x) = x·G(x) with G(x) + G(−x) = 1: SiLU and GELU.

    ``parts`` maps an interval a in [0, end] to enclosures of 1 − G(a), G′(a) and φ″(a).
    Beyond ``end``, aG(−a), φ′(−a) and φ″(a) are monotone with limit 0.
    """

    parts: Callable[[Interval], tuple[Interval, Interval, Interval]]
    end: float
    lowest: Turning
    steepest: tuple[float, float]
    bends: tuple[Turning, ...] | None  # turning points of φ″; None: not used


def _exp_negative(a: Interval) -> Interval:
    """Enclose e^−a."""
    low = enclose_exp(-a.upper)
    high = low if a.upper is a.lower else enclose_exp(-a.lower)
    return Interval(low.lower, high.upper)


def _half_tanh(a: Interval, power: Interval) -> Interval:
    """Enclose tanh(a/2) = (1 − e^−a)/(1 + e^−a) for a ≥ 0."""
    low = enclose_expm1(-a.lower)
    high = low if a.upper is a.lower else enclose_expm1(-a.upper)
    rise = Interval(-low.upper, -high.lower)
    return rise.over(power.plus(1.0)).within(0.0, 1.0)


def _logistic(a: Interval) -> tuple[Interval, Interval, Interval]:
    """Enclose σ(−a), σ′(a) and tanh(a/2) for a ≥ 0."""
    power = _exp_negative(a).within(0.0, 1.0)
    # t/(1 + t) and t/(1 + t)² grow with t in [0, 1], so each end is taken by itself
    low, high = Interval(power.lower, power.lower), Interval(power.upper, power.upper)
    small, large = low.over(low.plus(1.0)), high.over(high.plus(1.0))
    tail = Interval(small.lower, large.upper).within(0.0, 0.5)
    density = Interval(small.over(low.plus(1.0)).lower, large.over(high.plus(1.0)).upper)
    return tail, density.within(0.0, 0.25), _half_tanh(a, power)


def _silu_parts(a: Interval) -> tuple[Interval, Interval, Interval]:
    tail, density, bent = _logistic(a)
    return tail, density, density.times(a.times(bent).negative().plus(2.0))


def _gelu_parts(a: Interval) -> tuple[Interval, Interval, Interval]:
    density, tail = enclose_normal(a.lower)
    if a.upper is not a.lower:
        upper_density, upper_tail = enclose_normal(a.upper)
        density = Interval(upper_density.lower, density.upper)
        tail = Interval(upper_tail.lower, tail.upper)
    return tail, density, density.times(a.times(a).negative().plus(2.0))


def _gelu_tanh_parts(a: Interval) -> tuple[Interval, Interval, Interval]:
    factor = Interval(*map(np.asarray, _GELU_TANH_FACTOR))
    square = a.times(a).times(_GELU_TANH_CUBIC).within(0.0, np.inf)
    argument = square.plus(1.0).times(a).times(factor).within(0.0, np.inf)
    rate = square.times(3.0).plus(1.0).times(factor)
    tail, density, bent = _logistic(argument)
    curving = square.times(6.0).plus(1.0).times(factor).times(2.0)
    bend = curving.minus(a.times(rate).times(rate).times(bent)).times(density)
    return tail, density.times(rate), bend


GATES = {
    "silu": Gate(
        _silu_parts,
        600.0,
        (-1.278464542761074, -1.2784645427610737, -0.2784645427610738),
        (2.3993572805154675, 2.399357280515468),
        (
            (0.0, 0.0, 0.5),
            (3.4358409935351104, 3.435840993535111, -0.036914373199893186),
        ),
    ),
    "gelu": Gate(
        _gelu_parts,
        30.0,
        (-0.7517915246935645, -0.7517915246935644, -0.16997120747990369),
        (1.414213562373095, 1.4142135623730951),
        ((0.0, 0.0, 0.7978845608028655), (2.0, 2.0, -0.10798193302637611)),
    ),
    "gelu_tanh": Gate(
        _gelu_tanh_parts,
        12.0,
        (-0.7524614220710165, -0.752461422071016, -0.1700407505712541),
        (1.418504008790828, 1.4185040087908287),
        None,
    ),
}


def between(
    point: Callable[[np.ndarray], Interval],
    turning: Sequence[Turning],
    low: np.ndarray,
    high: np.ndarray,
) -> Interval:
    """Enclose a function that is monotone between its turning points over [low, high]."""
    first, last = point(low), point(high)
    whole = Interval(np.minimum(first.lower, last.lower), np.maximum(first.upper, last.upper))
    for before, after, value in turning:
        whole = whole.hull(value, (low <= after) & (high >= before))
    return whole


def scaled(low: np.ndarray, high: np.ndarray, factor: float) -> Ends:
    """Return [low, high] times a factor > 0, rounded outwards unless the factor is 1 or 2."""
    with np.errstate(over="ignore", under="ignore"):
        if factor in (1.0, 2.0):
            return low * factor, high * factor
        return down(low * factor), up(high * factor)


def logistic_range(order: int, low: np.ndarray, high: np.ndarray) -> Interval:
    """Enclose the derivative of σ of order 0 … 3 over [low, high]."""

    def point(x: np.ndarray) -> Interval:
        a = np.abs(x)
        tail, density, bent = _logistic(Interval(a, a))
        if order == 0:
            return tail.choose(x < 0, tail.negative().plus(1.0)).within(0.0, 1.0)
        if order == 1:
            return density
        if order == 2:
            slope = density.times(bent)
            return slope.choose(x < 0, slope.negative())
        return density.times(density.times(-6.0).plus(1.0))

    return between(point, _LOGISTIC_TURNING[order], low, high)


def tanh_value(x: np.ndarray) -> Interval:
    """Enclose tanh x."""
    with np.errstate(over="ignore"):
        a = 2.0 * np.abs(x)
    size = _half_tanh(Interval(a, a), _exp_negative(Interval(a, a))).within(0.0, np.abs(x))
    return size.choose(x >= 0, size.negative())


def softplus_value(x: np.ndarray) -> Interval:
    """Enclose log(1 + e^x)."""
    a = np.abs(x)
    rest = enclose_log1p(_exp_negative(Interval(a, a)).within(0.0, 1.0))
    linear = np.maximum(x, 0.0)
    return rest.plus(Interval(linear, linear)).choose(x > 0, rest)


def leaky_value(x: np.ndarray, slope: float) -> Interval:
    """Enclose x for x > 0 and slope·x below."""
    negative = np.minimum(x, 0.0)
    if slope in (0.0, 1.0, -1.0):  # exact; 0·∞ is 0 here
        exact = negative * slope if slope else np.zeros_like(negative)
        scaled = Interval(exact, exact)
    else:
        scaled = Interval(negative, negative).times(slope)
    return Interval(x, x).choose(x >= 0, scaled)


def elu_value(x: np.ndarray, scale: float) -> Interval:
    """Enclose x for x > 0 and scale·(e^x − 1) below."""
    return Interval(x, x).choose(x >= 0, enclose_expm1(np.minimum(x, 0.0)).times(scale))


def two_sided(
    left: Callable[[np.ndarray], Interval], right: float, low: np.ndarray, high: np.ndarray
) -> Interval:
    """Enclose a function, monotone below 0 and constant above; both one-sided limits at 0."""
    below = between(left, (), np.minimum(low, 0.0), np.minimum(high, 0.0))
    constant = np.full_like(low, right)
    return below.hull(right, high >= 0).choose(low <= 0, Interval(constant, constant))


def gate_value(gate: Gate, x: np.ndarray) -> Interval:
    """Enclose φ(x) = max(x, 0) − a·(1 − G(a)), a = |x|."""
    a = np.abs(x)
    inside = np.minimum(a, gate.end)
    here = Interval(inside, inside)
    loss = gate.parts(here)[0].times(here).negative().hull(0.0, a > gate.end).within(-np.inf, 0.0)
    linear = np.maximum(x, 0.0)
    return loss.plus(Interval(linear, linear)).choose(x > 0, loss)


def gate_slope(gate: Gate, x: np.ndarray) -> Interval:
    """Enclose φ′(x): 1 − G(a) − a·G′(a) for x = −a ≤ 0, and 1 minus that for x = a."""
    a = np.abs(x)
    inside = np.minimum(a, gate.end)
    here = Interval(inside, inside)
    tail, density, _ = gate.parts(here)
    slope = tail.minus(density.times(here)).hull(0.0, a > gate.end)
    return slope.choose(x <= 0, slope.negative().plus(1.0))


def gate_curvature(gate: Gate, low: np.ndarray, high: np.ndarray) -> Interval:
    """Enclose the even function φ″ over [low, high]."""
    nearest = np.maximum(np.maximum(low, -high), 0.0)
    farthest = np.maximum(np.abs(low), np.abs(high))

    def part(first: np.ndarray, last: np.ndarray) -> Interval:
        ends = np.minimum(first, gate.end), np.minimum(last, gate.end)
        here = Interval(ends[0], ends[0] if last is first else ends[1])
        return gate.parts(here)[2].hull(0.0, last > gate.end)

    if gate.bends is None:
        return part(nearest, farthest)
    return between(lambda a: part(a, a), gate.bends, nearest, farthest)


def elu_slope(x: np.ndarray, scale: float) -> Interval:
    """Enclose scale·e^x."""
    return enclose_exp(x).times(scale).hull(scale, x == 0)
