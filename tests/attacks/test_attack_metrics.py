import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from harmonicvae.attacks import (
    damage_bound_ratio,
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.exceptions import InputError, SoundnessError

rows = arrays(np.float64, (3, 7), elements=st.floats(-5, 5))


@given(rows, rows, rows)
def test_degradation_is_that_of_a_gaussian_density(x, before, after):
    ours = log_likelihood_degradation(x, before, after)
    for i in range(len(x)):
        clean = stats.norm.logpdf(x[i], loc=before[i], scale=1).sum()
        moved = stats.norm.logpdf(x[i], loc=after[i], scale=1).sum()
        assert ours[i] == pytest.approx(abs(moved - clean) / clean, rel=1e-9, abs=1e-12)
    assert (ours <= 0).all()


@given(rows, st.floats(0, 5))
def test_relative_damage_is_a_ratio_of_norms(decoding, size):
    ours = relative_damage(np.full(3, size), decoding)
    for value, row in zip(ours, decoding):
        norm = np.linalg.norm(row)
        if norm:
            assert value == pytest.approx(size / norm)
        else:
            assert value == (np.inf if size else 0)


def test_reproduction_formula_on_its_own_terms():
    before, after = np.array([[0.5, -0.2, 3.0]]), np.array([[0.4, 0.3, 2.0]])
    mean, excluded = reproduction_log_ratio(before, after)
    ratios = [np.log(0.1) / np.log(0.5), np.log(0.5) / np.log(0.2), np.log(1.0) / np.log(3.0)]
    assert mean[0] == pytest.approx(np.mean(ratios), rel=1e-12)
    assert excluded[0] == 0


@given(rows, rows)
def test_reproduction_formula_counts_what_it_leaves_out(before, after):
    before[0, :3], after[0, 3] = (0.0, 1.0, -1.0), before[0, 3]
    mean, excluded = reproduction_log_ratio(before, after)
    assert excluded[0] >= 4
    assert ((excluded == 7) == np.isnan(mean)).all()
    same, all_out = reproduction_log_ratio(before, before)
    assert np.isnan(same).all()
    assert (all_out == 7).all()


def test_bound_ratio():
    np.testing.assert_allclose(damage_bound_ratio([3.0], 2.0, 3.0, 1.0), [0.5])
    np.testing.assert_array_equal(damage_bound_ratio([0.0, 1.0], 0.0, np.inf, 1.0), [0, np.inf])
    np.testing.assert_array_equal(damage_bound_ratio([1.0], np.inf, 2.0, 1.0), [0])
    np.testing.assert_allclose(damage_bound_ratio([7.0], 2.0, 3.0, 1.0), [7 / 6])
    damage_bound_ratio([6.0 * (1 + 1e-10)], 2.0, 3.0, 1.0, certified=True)
    with pytest.raises(SoundnessError, match=r"exceeds the certified bound 6\.0"):
        damage_bound_ratio([1.0, 6.0 * (1 + 1e-8)], 2.0, 3.0, 1.0, certified=True)
    damage_bound_ratio([6.0 * (1 + 1e-8)], 2.0, 3.0, 1.0, certified=True, rounding=1e-6)
    with pytest.raises(SoundnessError):
        damage_bound_ratio([1e-3], 0.0, 3.0, 1.0, certified=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relative_damage([1.0], np.ones((2, 3))), r"damage must have shape \(2,\)"),
        (lambda: relative_damage([1.0], np.ones(3)), "flatten the images"),
        (lambda: reproduction_log_ratio([[np.nan]], [[1.0]]), "decoding must be finite"),
        (lambda: reproduction_log_ratio([[1.0]], [[1.0, 2.0]]), "shapes must agree"),
        (lambda: damage_bound_ratio([1.0], -1, 1, 1), "encoder_bound must be >= 0, got -1"),
        (lambda: damage_bound_ratio([1.0], 1, 1, np.nan), "radius must be >= 0"),
        (lambda: damage_bound_ratio([-1.0], 1, 1, 1), "damage must be finite and >= 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
