"""Elementary functions against mpmath: enclosed, within a few rounding errors."""

import mpmath
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mpf

from harmonicvae.enclosures import elementary
from harmonicvae.enclosures.elementary import (
    enclose_exp,
    enclose_expm1,
    enclose_log1p,
    enclose_normal,
)
from harmonicvae.enclosures.intervals import Interval

UNIT = 2.0**-53
#: Many arguments at once, so that an enclosure without its margin fails for some of them.
SEEDS = st.integers(0, 2**32 - 1)


def check(enclosure, exact, arguments, relative):
    """Every value is enclosed, and the enclosure no wider than ``relative`` of it."""
    with mpmath.workdps(60):
        for low, high, x in zip(enclosure.lower, enclosure.upper, arguments):
            value = exact(mpf(float(x)))
            assert mpf(float(low)) <= value <= mpf(float(high))
            assert mpf(float(high)) - mpf(float(low)) <= relative * abs(value) + mpf("4e-290")


def spread(seed, low, high):
    """Arguments uniform in [low, high] and others log-uniform towards 0."""
    rng = np.random.default_rng(seed)
    near = np.clip(rng.choice([low, high], 20) * 10.0 ** rng.uniform(-20, 0, 20), low, high)
    return np.concatenate([rng.uniform(low, high, 60), near, [low, high]])


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_exp(seed):
    x = spread(seed, -660.0, 709.0)
    check(enclose_exp(x), mpmath.exp, x, 20 * UNIT)
    x = spread(seed, -0.4, 0.4)
    check(enclose_exp(x), mpmath.exp, x, 20 * UNIT)


def test_exp_beyond_its_reach():
    low, high = enclose_exp(np.array([-np.inf, -1e300, -661.0, 709.1, 1e300, np.inf]))
    np.testing.assert_array_equal(low[:3], 0.0)
    assert np.all((high[:3] > 0) & (high[:3] < 1e-286))
    assert np.all((low[3:] > 8e307) & np.isinf(high[3:]))


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_expm1(seed):
    for end in (-0.5, -40.0):
        x = spread(seed, end, 0.0)
        check(enclose_expm1(x), mpmath.expm1, x, 60 * UNIT)
    assert enclose_expm1(np.array([-np.inf])).lower[0] == -1.0


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_log1p(seed):
    t = spread(seed, 0.0, 1.0)
    check(enclose_log1p(Interval(t, t)), mpmath.log1p, t, 50 * UNIT)


@given(seed=SEEDS)
@example(seed=0)
@settings(max_examples=10, deadline=None)
def test_normal(seed):
    x = np.concatenate([spread(seed, 0.0, 2.5), spread(seed, 2.5, 30.0), [np.nextafter(2.5, 3.0)]])
    density, tail = enclose_normal(x)
    near, far = x <= 8.0, x > 8.0
    for part, relative in ((near, 1500 * UNIT), (far, 9000 * UNIT)):
        chosen = Interval(density.lower[part], density.upper[part])
        check(chosen, mpmath.npdf, x[part], relative)
        chosen = Interval(tail.lower[part], tail.upper[part])
        check(chosen, lambda z: mpmath.erfc(z / mpmath.sqrt(2)) / 2, x[part], 16 * relative)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_both_halves_of_the_normal_distribution_by_themselves(seed):
    def tail(z):
        return mpmath.erfc(z / mpmath.sqrt(2)) / 2

    x = spread(seed, 2.5, 30.0)[:60]
    check(elementary._mills_fraction(x), lambda z: mpmath.npdf(z) / tail(z), x, 100 * UNIT)
    x = spread(seed, 0.0, 2.5)
    check(
        elementary._normal_series(x),
        lambda z: (mpf(1) / 2 - tail(z)) / mpmath.npdf(z),
        x,
        150 * UNIT,
    )
