"""The sinc curves against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.datasets import load_sinc
from harmonicvae.exceptions import InputError

# The three seeds of the reproduction: 64-bit unsigned.
STUDY_SEEDS = (14609714069366804553, 10209623728859046282, 13978253786968215756)
SIZES = {"n_samples": st.integers(1, 20), "n_points": st.integers(2, 40)}


def curves(bunch):
    pairs = bunch.data.reshape(-1, *bunch.image_shape)
    return pairs[..., 0], pairs[..., 1]


@settings(deadline=None)
@given(seed=st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(STUDY_SEEDS)), **SIZES)
def test_training_curves_are_scaled_sincs_on_sorted_times(seed, n_samples, n_points):
    bunch = load_sinc(n_samples=n_samples, n_points=n_points, random_state=seed)
    assert bunch.data.shape == (n_samples, 2 * n_points)
    assert bunch.data.dtype == np.float32
    values, times = curves(bunch)
    assert values.min() == -1
    assert values.max() == 1
    assert (np.diff(times, axis=1) >= 0).all()
    assert np.abs(times).max() <= 1
    low, high = bunch.scaling["minimum"], bunch.scaling["maximum"]
    angle = 5 * np.pi * times.astype(np.float64)
    unscaled = np.divide(np.sin(angle), angle, out=np.ones_like(angle), where=angle != 0)
    # times are rounded to float32: 6e-8, times the slope of sinc(5t), at most 7
    np.testing.assert_allclose((values + 1) * (high - low) / 2 + low, unscaled, atol=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), **SIZES)
def test_validation_has_the_training_scale(seed, n_samples, n_points):
    options = {"n_samples": n_samples, "n_points": n_points, "random_state": seed}
    train, validation = load_sinc(**options), load_sinc("validation", **options)
    assert validation.scaling == train.scaling
    values, times = curves(validation)
    assert values.shape == (1, n_points)
    np.testing.assert_array_equal(times[0], np.linspace(-1, 1, n_points).astype(np.float32))
    low, high = train.scaling["minimum"], train.scaling["maximum"]
    expected = 2 * (np.sinc(5 * np.linspace(-1, 1, n_points)) - low) / (high - low) - 1
    np.testing.assert_allclose(values[0], expected, rtol=1e-6, atol=1e-6)


def test_default_sizes_of_the_study():
    train, validation = load_sinc(), load_sinc("validation")
    assert train.data.shape == (4096, 344)
    assert validation.data.shape == (1, 344)
    assert train.image_shape == validation.image_shape == (172, 2)
    assert np.abs(validation.data).max() <= 1
    # extrema of sin(x)/x: 1 at 0 and −0.217233628 at 4.493409458
    assert train.scaling["maximum"] == pytest.approx(1, abs=1e-8)
    assert train.scaling["minimum"] == pytest.approx(-0.217233628211, abs=1e-8)


def test_times_are_uniform():
    times = np.sort(curves(load_sinc())[1].ravel().astype(np.float64))
    uniform = np.linspace(-1, 1, len(times))
    # Kolmogorov–Smirnov at 704,512 draws: 0.1 % level is 1.95 / √n on [0, 1]
    assert np.abs(times - uniform).max() / 2 < 1.95 / np.sqrt(len(times))


def test_seed_decides_and_the_global_generator_is_untouched():
    np.random.seed(3)  # noqa: NPY002 - the legacy generator is what must stay untouched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = load_sinc(random_state=1), load_sinc(random_state=1)
    np.testing.assert_array_equal(first.data, second.data)
    assert first.digest == second.digest
    assert load_sinc(random_state=2).digest != first.digest
    assert load_sinc(random_state=None).digest != load_sinc(random_state=None).digest
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_generator_is_advanced():
    generator = np.random.default_rng(5)
    first = load_sinc(random_state=generator)
    assert first.digest == load_sinc(random_state=5).digest
    assert load_sinc(random_state=generator).digest != first.digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split must be one of train, validation, got 'test'"),
        ({"split": None}, "split must be one of"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 2.0}, "n_samples must be an integer"),
        ({"n_points": 1}, "n_points must be an integer >= 2, got 1"),
        ({"n_points": True}, "n_points must be an integer"),
        ({"random_state": -1}, "random_state must be .* got -1"),
        ({"random_state": "7"}, "random_state must be"),
        ({"random_state": np.random.RandomState(0)}, "random_state must be"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        load_sinc(**options)
