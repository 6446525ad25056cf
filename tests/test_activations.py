"""SiLU and GELU: slope constants proved by intervals, functions against mpmath and torch."""

import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import iv, mp, mpf

from harmonicvae.activations import ACTIVATIONS, activation, gelu, silu
from harmonicvae.exceptions import InputError, UnsupportedNetworkError

GATED = [silu(), gelu(), gelu("tanh")]
EVERY_GATE = pytest.mark.parametrize("item", GATED, ids=lambda item: item.name)
#: Where φ″ changes its sign for z > 0.
STEEPEST = {"silu": 2.3993572805154676, "gelu": math.sqrt(2.0), "gelu_tanh": 1.4185040087908285}


def _gate(name, z, m):
    """Return G, G′ and G″ at z, φ(z) = z·G(z); ``m`` is mpmath.mp or mpmath.iv."""
    if name == "gelu":
        density = m.exp(-z * z / 2) / m.sqrt(2 * m.pi)
        return _normal(z, m), density, -z * density
    kappa, factor = m.mpf(0.044715), 2 * m.sqrt(2 / m.pi)
    inner, rate, bend = z, m.mpf(1), m.mpf(0)
    if name == "gelu_tanh":
        inner = factor * (z + kappa * z**3)
        rate, bend = factor * (1 + 3 * kappa * z * z), 6 * factor * kappa * z
    s = 1 / (1 + m.exp(-inner))
    first = s * (1 - s)
    return s, first * rate, first * (1 - 2 * s) * rate * rate + first * bend


def _normal(z, m):
    """Return Φ(z); in interval arithmetic by its Taylor series around 0 with the remainder."""
    if m is mp:
        return mp.ncdf(z)
    total, term = iv.mpf(0), z
    for k in range(60):  # terms alternate and fall for |z| < 2: the rest is below the last one
        total += term / (2 * k + 1)
        term = -term * z * z / (2 * (k + 1))
    rest = abs(term).b
    return iv.mpf(1) / 2 + (total + iv.mpf([-rest, rest])) / iv.sqrt(2 * iv.pi)


def _slope(name, z, m):
    gate, first, _ = _gate(name, z, m)
    return gate + z * first


def _curvature(name, z, m):
    _, first, second = _gate(name, z, m)
    return 2 * first + z * second


@EVERY_GATE
def test_slope_ranges_enclose_the_extreme_slopes_and_are_next_to_them(item):
    """φ″ > 0 before and < 0 behind one small interval; φ′ on it, proved, is next to beta."""
    with mpmath.workdps(50):
        old, iv.dps = iv.dps, 50
        before = mpf(STEEPEST[item.name]) - mpf("1e-15")
        behind = mpf(STEEPEST[item.name]) + mpf("1e-15")
        try:
            assert _curvature(item.name, iv.mpf(before), iv).a > 0
            assert _curvature(item.name, iv.mpf(behind), iv).b < 0
            # φ′ at the maximum is φ′(before) plus at most the rise φ″(before)·2e-15
            rise = iv.mpf([0, 1]) * _curvature(item.name, iv.mpf([before, behind]), iv)
            largest = _slope(item.name, iv.mpf(before), iv) + rise * iv.mpf("2e-15")
        finally:
            iv.dps = old
        top, bottom = mpf(largest.b), mpf(largest.a)
        for end, low, high in [(item.beta, bottom, top), (-item.alpha, bottom - 1, top - 1)]:
            assert mpf(end) >= high - mpf("1e-28")
            assert mpf(end) - low <= mpf(math.ulp(end)) + mpf("1e-28")
            assert mpf(end) >= low


@EVERY_GATE
def test_slope_constants_are_upper_bounds_in_interval_arithmetic(item):
    """φ′ ≤ beta on all pieces of [−9, 9]; beyond, φ″ < 0 and φ′ → 1, or by symmetry 0."""
    with mpmath.workdps(40):
        highest = max(_slope(item.name, mpf(k) / 500, mp) for k in range(-4500, 4501))
        assert highest <= mpf(item.beta)
        assert mpf(item.beta) - highest < 1e-5
        peak = mpmath.findroot(lambda z: _curvature(item.name, z, mp), STEEPEST[item.name])
        assert mpf(0) <= mpf(item.beta) - _slope(item.name, peak, mp) <= mpf(math.ulp(item.beta))
        assert mpf(0) <= _slope(item.name, -peak, mp) - mpf(item.alpha) <= math.ulp(item.alpha)


@EVERY_GATE
def test_the_range_holds_for_either_reading_of_the_factor(item):
    """GELU with tanh has 2√(2/π): as a real number and as its float64 neighbours."""
    if item.name != "gelu_tanh":
        return
    with mpmath.workdps(40):
        real = 2 * mp.sqrt(2 / mp.pi)
        for factor in (real, mpf(1.5957691216057306), mpf(1.5957691216057308)):

            def slope(z, factor=factor):
                return mpmath.diff(
                    lambda t: t / (1 + mp.exp(-factor * (t + mpf(0.044715) * t**3))), z
                )

            near = [STEEPEST["gelu_tanh"] + k * 1e-9 for k in range(-3, 4)]
            assert max(map(slope, near)) <= mpf(item.beta)
            assert min(slope(-z) for z in near) >= mpf(item.alpha)


@EVERY_GATE
@given(z=st.one_of(st.floats(-8, 8), st.sampled_from([0.0, -0.0, 40.0, -40.0, 5e-324, -1e-9])))
@settings(max_examples=60, deadline=None)
def test_functions_agree_with_many_digits(item, z):
    with mpmath.workdps(40):
        exact = mpf(z)
        expected = [
            exact * _gate(item.name, exact, mp)[0],
            _slope(item.name, exact, mp),
            _curvature(item.name, exact, mp),
        ]
    at = np.array([z])
    found = [item.function(at)[0], item.derivative(at)[0], item.curvature(at)[0]]
    np.testing.assert_allclose(found, [float(value) for value in expected], rtol=1e-9, atol=2e-14)


@EVERY_GATE
def test_torch_computes_the_same(item):
    z = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64, requires_grad=True)
    module = {
        "silu": torch.nn.SiLU(),
        "gelu": torch.nn.GELU(),
        "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    }[item.name]
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    points = z.detach().numpy()
    np.testing.assert_allclose(item.function(points), value.detach().numpy(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(item.derivative(points), slope.numpy(), rtol=0, atol=1e-14)


@EVERY_GATE
def test_slopes_never_leave_the_range_and_no_number_is_too_large(item):
    huge = np.array([1e3, 1e100, 1e155, 1.7e308])
    points = np.concatenate([np.linspace(-10, 10, 100_001), huge, -huge])
    with np.errstate(all="raise", under="ignore"):
        slope, value = item.derivative(points), item.function(points)
        curvature = item.curvature(points)
    assert np.all((item.alpha <= slope) & (slope <= item.beta))
    assert np.all(np.isfinite(value) & np.isfinite(curvature))
    np.testing.assert_array_equal(slope[-8:], [1.0] * 4 + [0.0] * 4)
    np.testing.assert_array_equal(value[-8:], [*huge, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_found_by_its_name_and_survives_pickling(name):
    item = activation(name)
    assert item.name == name
    again = pickle.loads(pickle.dumps(item))
    assert (again.alpha, again.beta, again.name) == (item.alpha, item.beta, item.name)
    same = ACTIVATIONS[name](*item.parameters)
    points = np.linspace(-3, 3, 11)
    np.testing.assert_array_equal(same.function(points), again.function(points))


def test_other_approximations_are_refused():
    with pytest.raises(InputError, match="'none' or 'tanh'"):
        gelu("exact")
    with pytest.raises(UnsupportedNetworkError, match="its slope range is not known"):
        activation("mish")
