"""Power spectra on lines and of pictures against analytic ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae import radial_spectrum, slice_spectrum
from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.harmonics import log_spectra
from harmonicvae.models.modules import multilayer_perceptron


def wave(frequency, amplitude=1.0, phase=0.0):
    return lambda z: amplitude * torch.sin(2 * math.pi * frequency * z + phase)


def test_a_sinusoid_without_window_is_one_line():
    found = slice_spectrum(
        wave(3.0, 2.0), [[0.0], [0.3]], 4.0, n_points=64, window="none", random_state=0
    )
    line = np.zeros(33)
    line[12] = 2.0  # a²/2 at 12 cycles on 4 units
    np.testing.assert_allclose(found.values, line, atol=1e-12)
    assert found.abscissa[12] == 3.0
    assert found["centroid"].value == pytest.approx(3.0)


def test_hann_spreads_a_sinusoid_over_three_frequencies():
    """Power 1/6, 2/3, 1/6 of a²/2: the squares ¼, 1, ¼ over their sum."""
    found = slice_spectrum(wave(3.0), [[0.0], [0.3]], 4.0, n_points=64, random_state=0)
    assert found.values[[11, 12, 13]] == pytest.approx([1 / 12, 1 / 3, 1 / 12], rel=1e-9)
    assert found["power"].value == pytest.approx(0.5, rel=1e-9)
    assert np.delete(found.values, [11, 12, 13]) == pytest.approx(0.0, abs=1e-20)


def test_a_gaussian_has_a_gaussian_spectrum():
    """g = exp(−t²/2s²): |ĝ(f)|² = 2πs²·exp(−4π²s²f²); one-sided, over L² as a Fourier series."""
    s, length = 0.3, 12.0
    found = slice_spectrum(
        lambda z: torch.exp(-(z**2) / (2 * s**2)), [[0.0], [0.0]], length,
        n_points=512, window="none", detrend="none", random_state=0,
    )  # fmt: skip
    expected = 2 * (2 * math.pi * s**2) * np.exp(-((2 * math.pi * s * found.abscissa) ** 2))
    expected[0] /= 2
    np.testing.assert_allclose(found.values[:-1], expected[:-1] / length**2, atol=1e-15)
    share = found.values[found.abscissa > 4 / length].sum() / found.values.sum()
    assert found["high_frequency_share"].value == pytest.approx(share, rel=1e-12)


@settings(max_examples=20)
@given(
    n_points=st.integers(8, 65),
    window=st.sampled_from(["hann", "none"]),
    detrend=st.sampled_from(["none", "mean", "linear"]),
    length=st.floats(0.1, 50),
    seed=st.integers(0, 9),
)
def test_parseval(n_points, window, detrend, length, seed):
    """The sum over frequencies is the windowed mean power of what is left after the trend."""
    torch.manual_seed(seed)
    network = multilayer_perceptron([2, 6, 3], "tanh").double()
    way = np.array([0.6, 0.8])
    base = np.random.default_rng(seed).standard_normal((2, 2))
    found = slice_spectrum(
        network, base, length, n_points=n_points, window=window, detrend=detrend,
        directions=way, random_state=0,
    )  # fmt: skip
    steps = np.arange(n_points)
    w = np.sin(np.pi * steps / n_points) ** 2 if window == "hann" else np.ones(n_points)
    w = w / np.sqrt((w**2).mean())
    t = length * (steps / n_points - 0.5)
    powers = []
    for start in base:
        with torch.no_grad():
            values = network(torch.tensor(start + t[:, None] * way)).numpy()
        if detrend != "none":
            degree = 1 if detrend == "linear" else 0
            trend = np.polynomial.polynomial.polyfit(t / length, values, degree, w=np.sqrt(w))
            values = values - np.polynomial.polynomial.polyval(t / length, trend).T
        powers.append((w[:, None] ** 2 * values**2).mean(axis=0).sum())
    assert found["power"].value == pytest.approx(np.mean(powers), rel=1e-9, abs=1e-24)
    if detrend != "none":
        assert found.values[0] == pytest.approx(0.0, abs=1e-20)


def test_smoothing_lowers_the_spectrum_as_it_should():
    """E g(z + σε) of a sinusoid has its power times exp(−σ²ω²)."""
    frequency, std = 0.75, 0.2
    damped = math.exp(-0.5 * (std * 2 * math.pi * frequency) ** 2)
    points = [[0.0], [0.1]]
    rough = slice_spectrum(wave(frequency), points, 8.0, random_state=0)
    smooth = slice_spectrum(wave(frequency, damped), points, 8.0, random_state=0)
    ratio = smooth["power"].value / rough["power"].value
    assert ratio == pytest.approx(math.exp(-((std * 2 * math.pi * frequency) ** 2)), rel=1e-9)


def test_intervals_of_the_mean_power_cover_it():
    """g = a·sin with random phase and a ~ z0-dependent amplitude: mean power is known."""
    function = lambda z: z[:, :1] * torch.sin(2 * math.pi * z[:, 1:])  # noqa: E731
    hits = 0
    for seed in range(100):
        base = np.random.default_rng(seed).standard_normal((40, 2))
        found = slice_spectrum(
            function, base, 4.0, directions=[0.0, 1.0], random_state=seed, n_points=32,
            n_resamples=500,
        )  # fmt: skip
        hits += found["power"].lower <= 0.5 <= found["power"].upper  # E a²/2
    assert 82 <= hits <= 100


def test_memory_and_seed():
    torch.manual_seed(0)
    network = multilayer_perceptron([5, 6, 40], "tanh")
    base = np.random.default_rng(0).standard_normal((7, 5))
    first = slice_spectrum(network, base, 8.0, n_directions=3, random_state=1)
    small = slice_spectrum(network, base, 8.0, n_directions=3, random_state=1, max_memory=1.0)
    plain = slice_spectrum(
        lambda z: network.double()(z), base, 8.0, n_directions=3, random_state=1
    )  # not shortened
    np.testing.assert_allclose(first.values, small.values, rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(first.values, plain.values, rtol=1e-9, atol=1e-20)
    assert first.n_samples == 21
    assert first.units == "base points"
    assert first["power"].kind == "unbiased"
    assert first["centroid"].kind == "ratio"


def test_a_constant_has_no_centroid():
    found = slice_spectrum(lambda z: torch.ones_like(z), [[0.0], [1.0]], 1.0, random_state=0)
    assert found.status == "degenerate"
    assert math.isnan(found["centroid"].value)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"length": 0.0}, InputError, "length must be > 0"),
        ({"window": "boxcar"}, InputError, "window must be one of"),
        ({"detrend": "cubic"}, InputError, "detrend must be one of"),
        ({"n_points": 4}, InputError, "n_points must be an integer >= 8"),
        ({"directions": [0.0]}, InputError, "directions must be non-zero"),
        ({"directions": [1.0, 0.0]}, InputError, "have 1 components"),
        ({"base": [[0.0]]}, InputError, "at least 2 slices"),
        ({"function": lambda z: z / 0}, SolverError, "NaN or infinite"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, error, text):
    given = {"function": wave(1.0), "base": [[0.0], [1.0]], "length": 2.0} | options
    with pytest.raises(error, match=text):
        slice_spectrum(given.pop("function"), given.pop("base"), given.pop("length"), **given)


def picture_wave(size, cycles, across):
    y, x = np.mgrid[:size, :size] / size
    return np.sin(2 * np.pi * cycles * (x if across else y)).reshape(1, -1)


def test_pictures_of_waves_have_one_ring():
    pictures = np.concatenate([picture_wave(16, 3, True), picture_wave(16, 3, False)])
    found = radial_spectrum(pictures, (16, 16, 1), random_state=0)
    expected = np.zeros(12)
    expected[3] = 0.5
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found["centroid"].value == pytest.approx(3 / 16)
    assert found["high_frequency_share"].value == pytest.approx(0.0, abs=1e-12)


@given(seed=st.integers(0, 99), h=st.integers(2, 9), w=st.integers(2, 9), mean=st.booleans())
def test_parseval_of_pictures(seed, h, w, mean):
    samples = np.random.default_rng(seed).standard_normal((3, h * w * 3))
    found = radial_spectrum(samples, (h, w, 3), remove_mean=mean, random_state=0)
    grey = samples.reshape(3, h, w, 3).mean(axis=3)
    if mean:
        grey = grey - grey.mean(axis=(1, 2), keepdims=True)
    assert found["power"].value == pytest.approx((grey**2).mean(), rel=1e-9)
    decibel = log_spectra(samples, (h, w, 3))
    squares = (10 ** (decibel / 10)).sum(axis=(1, 2)) / (h * w)
    raw = samples.reshape(3, h, w, 3).mean(axis=3)
    np.testing.assert_allclose(squares, (raw**2).sum(axis=(1, 2)), rtol=1e-6)


def test_pictures_must_be_pictures():
    with pytest.raises(InputError, match="needs pictures"):
        radial_spectrum(np.zeros((2, 8)), (4, 2))
    with pytest.raises(InputError, match="at least 2 pictures"):
        radial_spectrum(np.zeros((1, 4)), (2, 2, 1))
    with pytest.raises(InputError, match="finite"):
        radial_spectrum(np.full((2, 4), np.nan), (2, 2, 1))
