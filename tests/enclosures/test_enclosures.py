"""Enclosures against mpmath in 400 digits: they hold, and they are tight."""

import functools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mpf

from harmonicvae.activations import ACTIVATIONS, Activation, elu, leaky_relu, softplus
from harmonicvae.enclosures import curves, elementary
from harmonicvae.enclosures.curves import GATES
from harmonicvae.enclosures.functions import (
    affine_range,
    curvature_range,
    slope_range,
    third_range,
    value_range,
)
from harmonicvae.exceptions import InputError

_X = sympy.Symbol("x", real=True)


@functools.cache
def _exact(name, parameter):
    """Return φ, φ′, φ″ and φ‴ in mpmath, from formulas written apart from the package.

    Piecewise ones as on the left of 0.
    """
    p = sympy.Float(parameter, 60)
    cubic = _X + sympy.Float(0.044715, 60) * _X**3
    formula = {
        "identity": _X,
        "relu": 0 * _X,
        "leaky_relu": p * _X,
        "sigmoid": 1 / (1 + sympy.exp(-_X)),
        "tanh": 1 - 2 / (1 + sympy.exp(2 * _X)),
        "softplus": sympy.log(1 + sympy.exp(p * _X)) / p if parameter else _X,
        "elu": p * (sympy.exp(_X) - 1),
        "silu": _X / (1 + sympy.exp(-_X)),
        "gelu": _X * sympy.erfc(-_X / sympy.sqrt(2)) / 2,
        "gelu_tanh": _X / (1 + sympy.exp(-2 * sympy.sqrt(2 / sympy.pi) * cubic)),
    }[name]
    return [sympy.lambdify(_X, sympy.diff(formula, _X, k), "mpmath") for k in range(4)]


ITEMS = [factory() for factory in ACTIVATIONS.values()]
ITEMS += [leaky_relu(-0.5), leaky_relu(1.0), leaky_relu(3.0), elu(-0.7), elu(2.5), elu(0.0)]
ITEMS += [softplus(0.3), softplus(20.0)]
LABELS = [f"{item.name}{item.parameters}" for item in ITEMS]
EVERY_ITEM = pytest.mark.parametrize("item", ITEMS, ids=LABELS)
RANGES = [value_range, slope_range, curvature_range, third_range]
PIECEWISE = {"relu", "leaky_relu", "elu"}
SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -2.3e-308, 1e-17, -1e-9, 1e-3, 0.35, -0.35, -0.175]
SPECIAL += [1.0, 2.5, -2.5, 2.5000000000000004, -0.7517915246935645, -1.2784645427610738]
SPECIAL += [math.sqrt(2), 2.3993572805154675, 1.4185040087908285, 1.3169578969248166, 12.0, -12.0]
SPECIAL += [30.0, -30.0, 37.5, -38.6, 600.0, -600.0, 709.0, 709.9, 710.0, -660.0, -660.1]
SPECIAL += [745.0, -745.0, -745.2, 746.0, 1000.0, -1000.0]
POINTS = st.one_of(
    st.sampled_from(SPECIAL), st.floats(-4, 4), st.floats(-50, 50), st.floats(-1000, 1000)
)


def _derivatives(item, x):
    """Return φ, φ′, φ″ and φ‴ at x; of piecewise functions on the side of x, 0 counted left."""
    if item.name in PIECEWISE and x > 0:
        return [mpf(x), mpf(1), mpf(0), mpf(0)]
    parameter = item.parameters[0] if item.parameters else 0.0
    return [function(mpf(x)) for function in _exact(item.name, parameter)]


def _inside(low, value, high):
    """400 digits leave the oracle an error far below 1e-300."""
    return mpf(float(low)) - mpf("1e-300") <= value <= mpf(float(high)) + mpf("1e-300")


@EVERY_ITEM
@given(low=POINTS, high=POINTS, share=st.floats(0, 1))
@example(low=-1.0, high=1.0, share=0.5)
@settings(max_examples=40, deadline=None)
def test_hold_at_points_of_the_interval(item, low, high, share):
    with mpmath.workdps(400):
        low, high = min(low, high), max(low, high)
        middle = min(max(low + share * (high - low), low), high)
        turning = [t for t in SPECIAL if low <= t <= high]
        for x in [low, high, middle, *turning[:3]]:
            for rule, exact in zip(RANGES, _derivatives(item, x)):
                lower, upper = rule(item, low, high)
                assert _inside(lower, exact, upper), (rule.__name__, x, low, high)


@EVERY_ITEM
@given(x=POINTS)
@settings(max_examples=60, deadline=None)
def test_are_tight_and_hold_at_single_points(item, x):
    """Within 4e-13 relatively, or of the size of the terms that cancel."""
    with mpmath.workdps(400):
        exact = _derivatives(item, x)
        kinked = x == 0 and item.name in PIECEWISE
        scale = max(map(abs, item.parameters), default=1.0) + 1.0
        for order, rule in enumerate(RANGES):
            lower, upper = (float(end) for end in rule(item, x, x))
            assert _inside(lower, exact[order], upper)
            if order >= 1 and (kinked or math.isinf(upper)):
                continue
            size = abs(float(exact[order])) + scale**order * min(1.0, math.exp(-abs(x) / 2))
            assert upper - lower <= 4e-13 * size + 1e-55


@pytest.mark.parametrize("rule", RANGES, ids=lambda rule: rule.__name__)
@EVERY_ITEM
@given(low=st.floats(-6, 6), width=st.floats(0, 6))
@settings(max_examples=15, deadline=None)
def test_are_close_to_the_sampled_range(item, rule, low, width):
    """Nothing is lost on wide intervals (but for the curvature of GELU with tanh)."""
    high = low + width
    lower, upper = rule(item, low, high)
    if rule is third_range and item.name not in ("identity", "sigmoid", "tanh", "softplus"):
        assert (lower, upper) == (-np.inf, np.inf)
        return
    if math.isinf(upper):
        assert item.kink is not None
        assert low <= 0 <= high
        return
    if rule is curvature_range and item.name == "gelu_tanh":
        return
    x = np.concatenate([np.linspace(low, high, 4001), [0.0] * (low <= 0 <= high)])
    order = RANGES.index(rule)
    if order == 3:
        step = 1e-6
        sampled = (item.curvature(x + step) - item.curvature(x - step)) / (2 * step)
    else:
        sampled = [item.function, item.derivative, item.curvature][order](x)
    if item.kink is not None and order == 1 and low <= 0 <= high:
        sampled = np.append(sampled, item.kink)
    if item.name == "elu" and order == 2 and low <= 0 <= high:
        sampled = np.append(sampled, 0.0)
    size = max(1.0, *map(abs, item.parameters)) ** (2 * order) if item.parameters else 1.0
    slack = 1e-4 * size * max(1.0, width)
    assert np.min(sampled) - slack <= lower <= np.min(sampled) + 1e-8 * size
    assert np.max(sampled) - 1e-8 * size <= upper <= np.max(sampled) + slack


@EVERY_ITEM
def test_unbounded_intervals_hold_the_limits(item):
    ends = np.array([-np.inf, -3.0, -np.inf, 0.0])
    tops = np.array([np.inf, np.inf, 3.0, np.inf])
    x = np.concatenate([np.linspace(-60, 60, 2001), [1e5, -1e5, 1e300, -1e300]])
    for low, high in zip(ends, tops):
        here = x[(x >= low) & (x <= high)]
        lower, upper = value_range(item, low, high)
        assert lower <= np.min(item.function(here)) + 1e-12
        assert np.max(item.function(here)) - 1e-12 <= upper
        lower, upper = slope_range(item, low, high)
        assert item.alpha <= lower <= np.min(item.derivative(here)) + 1e-12
        assert np.max(item.derivative(here)) - 1e-12 <= upper <= item.beta
    lower, upper = slope_range(item, -np.inf, np.inf)
    assert float(lower) == pytest.approx(item.alpha, abs=1e-14)
    assert float(upper) == pytest.approx(item.beta, abs=1e-14)


@EVERY_ITEM
@pytest.mark.parametrize("x", [-np.inf, np.inf, -1.7e308, 1.7e308])
def test_ends_beyond_all_numbers_give_no_nan(item, x):
    for rule in RANGES:
        lower, upper = rule(item, x, x)
        assert lower <= upper


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_bounded_activations_stay_bounded(name):
    item = ACTIVATIONS[name]()
    lower, upper = value_range(item, -np.inf, np.inf)
    assert (lower, upper) == {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf)}[name]


def test_widened_and_unknown_activations_keep_their_range():
    wider = ACTIVATIONS["sigmoid"]().with_slopes(-0.5, 1.0)
    lower, upper = slope_range(wider, [3.0], [4.0])
    assert (lower[0], upper[0]) == (-0.5, 1.0)
    assert value_range(wider, 0.0, 0.0)[1] < 0.51
    other = Activation("sine", -1.0, 1.0, np.sin, np.cos, lambda z: -np.sin(z))
    assert slope_range(other, 0.0, 0.0) == (-1.0, 1.0)
    for rule in (value_range, curvature_range, third_range):
        assert rule(other, 0.0, 0.0) == (-np.inf, np.inf)


@pytest.mark.parametrize("rule", RANGES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("ends", [(np.nan, 1.0), (0.0, np.nan), (1.0, 0.0), ([0, 2], [1, 1])])
def test_reversed_or_missing_ends_are_refused(rule, ends):
    with pytest.raises(InputError, match="low <= high"):
        rule(ACTIVATIONS["sigmoid"](), *ends)


def test_shapes_are_kept():
    low = np.zeros((2, 0, 3))
    for rule in RANGES:
        for item in ITEMS:
            assert [end.shape for end in rule(item, low, low + 1)] == [low.shape] * 2
            assert [end.shape for end in rule(item, low[0, 0:0, 0], 1.0)] == [(0,)] * 2
            assert [end.shape for end in rule(item, np.ones((3, 2)), 2.0)] == [(3, 2)] * 2


MAGNITUDES = st.sampled_from([1.0, 1.0, 1e-12, 1e12, 1e-200, 1e150])


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    columns=st.integers(0, 30),
    scales=st.tuples(MAGNITUDES, MAGNITUDES, MAGNITUDES),
    point=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_affine_ranges_hold_exactly_and_are_tight(seed, rows, columns, scales, point):
    rng = np.random.default_rng(seed)
    weight = scales[0] * rng.standard_normal((rows, columns))
    bias = scales[1] * rng.standard_normal(rows)
    low = scales[2] * rng.standard_normal(columns)
    high = low if point else low + scales[2] * rng.random(columns)
    lower, upper = affine_range(weight, bias, low, high)
    for i in range(rows):
        ends, size = [Fraction(bias[i])] * 2, abs(Fraction(bias[i]))
        for w, a, b in zip(weight[i], low, high):
            products = Fraction(w) * Fraction(a), Fraction(w) * Fraction(b)
            ends = [ends[0] + min(products), ends[1] + max(products)]
            size += max(map(abs, products))
        assert Fraction(lower[i]) <= ends[0]
        assert Fraction(upper[i]) >= ends[1]
        slack = size * Fraction(1, 10**13) + Fraction(1, 10**100)
        assert ends[0] - Fraction(lower[i]) <= slack
        assert Fraction(upper[i]) - ends[1] <= slack


@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(
        st.sampled_from(["finite", "below", "above", "both", "+inf", "-inf"]),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=150, deadline=None)
def test_infinite_ends_reach_only_what_they_touch(seed, kinds):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-1, 2, (4, len(kinds))).astype(float)
    low, high = rng.integers(-3, 0, len(kinds)) * 1.0, rng.integers(0, 3, len(kinds)) * 1.0
    for i, kind in enumerate(kinds):
        low[i] = {"below": -np.inf, "both": -np.inf, "+inf": np.inf, "-inf": -np.inf}.get(
            kind, low[i]
        )
        high[i] = {"above": np.inf, "both": np.inf, "+inf": np.inf, "-inf": -np.inf}.get(
            kind, high[i]
        )
    lower, upper = affine_range(weight, np.ones(4), low, high)
    for i in range(4):
        used = weight[i] != 0
        first = weight[i][used] * np.where(weight[i] > 0, low, high)[used]
        last = weight[i][used] * np.where(weight[i] > 0, high, low)[used]
        if np.any(first == -np.inf) or not np.any(np.isinf(first)):
            expected = -np.inf if np.any(first == -np.inf) else 1.0 + np.sum(first)
            assert lower[i] == pytest.approx(expected, abs=1e-12)
            assert lower[i] <= expected
        if np.any(last == np.inf) or not np.any(np.isinf(last)):
            expected = np.inf if np.any(last == np.inf) else 1.0 + np.sum(last)
            assert upper[i] == pytest.approx(expected, abs=1e-12)
            assert upper[i] >= expected


def test_affine_ranges_of_many_boxes_are_those_of_each():
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 4)), rng.standard_normal(3)
    low = rng.standard_normal((2, 5, 4))
    high = low + rng.random((2, 5, 4))
    high[1, 2, 3] = np.inf
    lower, upper = affine_range(weight, bias, low, high)
    assert lower.shape == upper.shape == (2, 5, 3)
    one = affine_range(weight, bias, low[1, 2], high[1, 2])
    np.testing.assert_allclose(lower[1, 2], one[0], rtol=1e-12)
    np.testing.assert_allclose(upper[1, 2], one[1], rtol=1e-12)


def test_affine_ranges_survive_overflow_and_refuse_wrong_shapes():
    lower, upper = affine_range(np.full((1, 2), 1e300), np.zeros(1), [-1e300, 0.0], [1e300, 1e300])
    assert (lower[0], upper[0]) == (-np.inf, np.inf)
    with pytest.raises(InputError, match="shape"):
        affine_range(np.ones((1, 2)), np.zeros(1), [0.0], [1.0])
    with pytest.raises(InputError, match="low <= high"):
        affine_range(np.ones((1, 1)), np.zeros(1), [1.0], [0.0])


@pytest.mark.parametrize("name", sorted(GATES))
def test_turning_points_of_the_gates_lie_between_their_neighbours(name):
    """φ′, φ″ and φ‴ change sign inside, and the stored values are on the outer side."""
    gate = GATES[name]
    value, slope, bend, third = _exact(name, 0.0)
    before, after, lowest = gate.lowest
    with mpmath.workdps(60):
        assert slope(mpf(before)) < 0 < slope(mpf(after))
        least = value((mpf(before) + mpf(after)) / 2)
        assert 0 < least - mpf(lowest) < mpf("2e-16")
        assert bend(mpf(gate.steepest[0])) > 0 > bend(mpf(gate.steepest[1]))
        for start, end, bent in gate.bends or ():
            peak = bend((mpf(start) + mpf(end)) / 2)
            assert abs(peak - mpf(bent)) < mpf("2e-16")
            if start > 0:
                assert mpf(bent) <= peak
            else:
                assert mpf(bent) >= peak
            if start < end:
                assert third(mpf(start)) < 0 < third(mpf(end))


def test_constants_of_the_elementary_functions():
    with mpmath.workdps(60):
        split = mpf(elementary._LN2_HIGH) + mpf(elementary._LN2_LOW)
        assert abs(split - mpmath.log(2)) < mpf(2) ** -86
        assert Fraction(elementary._LN2_HIGH).denominator <= 2**32
        low, high = elementary._DENSITY_AT_ZERO
        assert mpf(low) <= 1 / mpmath.sqrt(2 * mpmath.pi) <= mpf(high)
        low, high = curves._GELU_TANH_FACTOR
        assert mpf(low) <= 2 * mpmath.sqrt(2 / mpmath.pi) <= mpf(high)
        for j, coefficient in enumerate(elementary._COEFFICIENTS, 1):
            assert abs(mpf(coefficient) * mpmath.factorial(j) - 1) <= mpf(2) ** -53


@given(
    x=st.one_of(
        st.floats(-660, 709),
        st.floats(-0.36, 0.36),
        st.integers(-952, 1022).map(lambda k: (k + 0.5) * math.log(2)),
    )
)
@settings(max_examples=300, deadline=None)
def test_errors_of_exp_stay_below_half_of_what_is_added(x):
    """The docstring's 4u, against the 8u by which the value is widened."""
    with mpmath.workdps(60):
        low, high = (mpf(float(end)) for end in elementary.enclose_exp(np.array(x)))
        exact = mpmath.exp(mpf(x))
        assert low <= exact <= high
        if x not in (0.0,) and abs(x) > 1e-3:
            margin = 3 * mpf(2) ** -53 * exact
            assert exact - low >= margin or low == 1
            assert high - exact >= margin or high == 1
