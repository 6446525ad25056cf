"""Hermite spectra against quadrature, closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harmonicvae import HarmonicVAE, hermite_spectrum
from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.harmonics.stability_fit import design_matrix, fit_weights
from harmonicvae.models.modules import multilayer_perceptron
from tests.harmonics.oracles import quantities, weights

REPETITIONS = 200
#: A share of hits of 95 % intervals below or above these has probability < 1e-4.
LOW, HIGH = stats.binom.ppf([1e-4, 1 - 1e-4], REPETITIONS, 0.95)


def ridge(dim, seed=0):
    """A unit vector, in whose direction a function of one variable is laid."""
    vector = np.random.default_rng(seed).standard_normal(dim)
    return vector / np.linalg.norm(vector)


def along(function, vector):
    a = torch.tensor(vector)
    return lambda z: function(z @ a)


#: Name → tensor function, the same in NumPy, its slope, centre, σ, dimension.
CASES = {
    "sine": (
        lambda z: torch.sin(2 * z),
        lambda z: np.sin(2 * z),
        lambda z: 2 * np.cos(2 * z),
        *(0.3, 1.0, 1),
    ),
    "bump": (
        lambda z: torch.exp(-(z**2)),
        lambda z: np.exp(-(z**2)),
        lambda z: -2 * z * np.exp(-(z**2)),
        *(0.5, 0.7, 3),
    ),
    "step": (
        lambda z: torch.tanh(z - 1),
        lambda z: np.tanh(z - 1),
        lambda z: 1 - np.tanh(z - 1) ** 2,
        *(0.4, 1.0, 64),
    ),
    "wave": (
        lambda z: torch.cos(1.5 * z) + z,
        lambda z: np.cos(1.5 * z) + z,
        lambda z: 1 - 1.5 * np.sin(1.5 * z),
        *(0.4, 1.0, 64),
    ),
}


def repeated(name, repetitions, n_samples, **options):
    tensor, _, _, mean, std, dim = CASES[name]
    vector = ridge(dim)
    return [
        hermite_spectrum(
            along(tensor, vector),
            mean * vector,
            std,
            n_samples=n_samples,
            random_state=seed,
            **options,
        )
        for seed in range(repetitions)
    ]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["sine", "step", pytest.param("bump", marks=SLOW), pytest.param("wave", marks=SLOW)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    """Dimension 64 by rotation invariance: g(z) = h(⟨a, z⟩), ‖a‖ = 1, has h's spectrum."""
    _, function, slope, mean, std, _ = CASES[name]
    truth = quantities(function, slope, mean, std)
    tail = truth.pop("tail")
    known = weights(function, mean, std)
    found = repeated(name, REPETITIONS, 1024, n_resamples=300)
    for quantity, value in truth.items():
        hits = sum(item[quantity].lower <= value <= item[quantity].upper for item in found)
        assert LOW <= hits <= HIGH, (quantity, hits)
    curve = np.polynomial.polynomial.polyval(
        found[0].stability.abscissa, weights(function, mean, std, 60)
    )
    covered = sum((s.stability.lower <= curve) & (curve <= s.stability.upper) for s in found)
    assert ((covered >= LOW) & (covered <= HIGH)).all(), covered
    # joint bands: at least as often as they say
    inside = sum((s.lower <= known[:9]) & (known[:9] <= s.upper) for s in found)
    assert (inside >= LOW).all(), inside
    assert sum(s["tail"].lower <= tail <= s["tail"].upper for s in found) >= LOW


def test_unbiased_estimates_have_the_right_mean():
    _, function, slope, mean, std, _ = CASES["wave"]
    truth = quantities(function, slope, mean, std)
    found = repeated("wave", 100, 128, n_resamples=100, max_degree=2)
    for quantity in ("squared_mean", "variance", "first_weight", "jacobian_energy"):
        values = np.array([item[quantity].value for item in found])
        deviation = (values.mean() - truth[quantity]) / (values.std(ddof=1) / 10)
        assert abs(deviation) < 4, quantity


def test_random_directions_are_unbiased():
    """Six orthogonal ridges in 64 dimensions: six times one ridge's numbers."""
    tensor, function, slope, mean, std, _ = CASES["wave"]
    truth = quantities(function, slope, mean, std)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 6)))[0]
    axes, centre = torch.tensor(basis), mean * basis.sum(axis=1)
    found = [
        hermite_spectrum(
            lambda z: tensor(z @ axes), centre, std,
            n_samples=128, random_state=seed, n_resamples=100, max_degree=2,
        )
        for seed in range(100)
    ]  # fmt: skip
    assert found[0].details["jacobian"] == "random directions"
    for quantity in ("variance", "squared_mean", "jacobian_energy", "first_weight"):
        values = np.array([item[quantity].value for item in found])
        deviation = (values.mean() - 6 * truth[quantity]) / (values.std(ddof=1) / 10)
        assert abs(deviation) < 4, quantity
    degree = truth["mean_degree"]
    hits = sum(s["mean_degree"].lower <= degree <= s["mean_degree"].upper for s in found)
    assert hits >= stats.binom.ppf(1e-4, 100, 0.95)


def test_errors_shrink_as_the_root_of_the_samples():
    _, function, slope, mean, std, _ = CASES["step"]
    truth = quantities(function, slope, mean, std)
    sizes = (128, 512, 2048)
    found = [repeated("step", 60, size, n_resamples=100, max_degree=2) for size in sizes]
    names = ("variance", "mean_degree", "first_weight", "squared_mean", "jacobian_energy")
    for quantity in names:
        values = np.array([[item[quantity].value for item in group] for group in found])
        errors = np.sqrt(((values - truth[quantity]) ** 2).mean(axis=1))
        rate = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
        assert -0.65 < rate < -0.35, (quantity, rate)
    abscissa = found[0][0].stability.abscissa
    curve = np.polynomial.polynomial.polyval(abscissa, weights(function, mean, std, 60))
    values = np.array([[item.stability.values for item in group] for group in found])
    errors = np.sqrt(((values - curve) ** 2).mean(axis=1))
    rates = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert ((rates > -0.65) & (rates < -0.35)).all(), rates


def test_standard_errors_are_those_of_repetitions():
    found = repeated("step", 100, 512, n_resamples=200, max_degree=2)
    for quantity in ("variance", "mean_degree", "jacobian_energy"):
        spread = np.std([item[quantity].value for item in found], ddof=1)
        stated = np.mean([item[quantity].standard_error for item in found])
        assert stated == pytest.approx(spread, rel=0.3)


def test_products_of_variables():
    """z1·z2 has W_2 = 1 alone; z1·z2·z3 has W_3 = 1; sin z1·cos z2 has the product's weights."""
    for dim in (2, 3):
        found = hermite_spectrum(lambda z: z.prod(1), np.zeros(dim), 1.0, random_state=0)
        expected = np.eye(9)[dim]
        assert ((found.lower <= expected) & (expected <= found.upper)).all()
        assert found.values[dim] == pytest.approx(1.0, rel=0.1)
        assert found.values[dim - 1 :: -2] == pytest.approx(0.0, abs=1e-20)  # the other parity
        assert found.values[dim + 1 :: 2] == pytest.approx(0.0, abs=1e-20)
        assert found["mean_degree"].lower <= dim <= found["mean_degree"].upper
    both = np.convolve(weights(np.sin, 0.2, 1.0), weights(np.cos, -0.5, 1.0))
    found = hermite_spectrum(
        lambda z: torch.sin(z[:, 0]) * torch.cos(z[:, 1]), [0.2, -0.5], 1.0, random_state=0
    )
    assert ((found.lower <= both[:9]) & (both[:9] <= found.upper)).all()
    assert found.values[:4] == pytest.approx(both[:4], abs=0.02)


@settings(max_examples=15)
@given(
    coefficients=st.lists(st.floats(-2, 2), min_size=2, max_size=4),
    mean=st.floats(-1, 1),
    std=st.floats(0.3, 1.5),
)
def test_polynomials_of_any_degree(coefficients, mean, std):
    """Unbiased estimates of variance and weights lie within six standard errors of quadrature."""
    function = np.polynomial.Polynomial(coefficients)
    truth = quantities(function, function.deriv(), mean, std)
    found = hermite_spectrum(
        lambda z: sum(c * z**k for k, c in enumerate(coefficients)), [mean], std,
        n_samples=2048, random_state=0,
    )  # fmt: skip
    for name in ("variance", "squared_mean", "first_weight", "jacobian_energy"):
        slack = 1e-9 * (1 + abs(truth[name]))
        assert abs(found[name].value - truth[name]) <= 6 * found[name].standard_error + slack
    assert found.values[len(coefficients) :] == pytest.approx(0.0, abs=1e-9)


def test_a_linear_map_is_exactly_of_degree_one():
    matrix = torch.tensor(np.random.default_rng(0).standard_normal((5, 30)))
    found = hermite_spectrum(lambda z: z @ matrix.T + 3, np.ones(30), 0.5, random_state=0)
    assert found["mean_degree"].value == pytest.approx(1.0, rel=1e-12)
    assert found["variance"].value == pytest.approx(0.25 * (matrix**2).sum().item(), rel=0.05)
    assert found.values[2:] == pytest.approx(0.0, abs=1e-12)
    assert found.values[1] == pytest.approx(found["variance"].value, rel=1e-9)
    assert found["tail"].upper < 1e-4


def test_a_constant_map_has_no_degree():
    found = hermite_spectrum(lambda z: torch.full((len(z), 2), 0.1), np.zeros(3), 1.0)
    assert found.status == "degenerate"
    assert found.values[0] == pytest.approx(0.02, rel=1e-6)
    assert found.values[1:].tolist() == [0.0] * 8
    assert math.isnan(found["mean_degree"].value)
    assert math.isnan(found["first_weight_share"].value)
    assert found["variance"].value == 0.0


def test_wide_layers_are_shortened_without_changing_the_spectrum():
    torch.manual_seed(0)
    for dims in ([5, 8, 40], [40, 8, 5], [40, 6, 40], [30, 8]):
        module = multilayer_perceptron(dims, "tanh").double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(4)
        centre = np.random.default_rng(1).standard_normal((12, dims[0]))
        short = hermite_spectrum(module, centre, 0.7, n_samples=12 * 512, random_state=0)
        plain = lambda z, run=module: run(z)  # noqa: E731 - a plain function is taken as it is
        whole = hermite_spectrum(plain, centre, 0.7, n_samples=12 * 512, random_state=0)
        for quantity in ("variance", "squared_mean", "mean_degree", "jacobian_energy"):
            pairs = [(a[quantity], b[quantity]) for a, b in zip(short.parts, whole.parts)]
            for a, b in pairs:
                assert abs(a.value - b.value) <= 5 * math.hypot(a.standard_error, b.standard_error)
        if dims[0] < dims[1]:  # the same normals: the same numbers
            np.testing.assert_allclose(short.values, whole.values, rtol=1e-7, atol=1e-9)


def test_several_centres_are_averaged():
    found = hermite_spectrum(
        lambda z: z**2, np.array([[0.0], [1.0], [2.0]]), 1.0, n_samples=3000, random_state=0
    )
    assert len(found.parts) == 3
    assert found.units == "blocks"
    mean = np.mean([part["variance"].value for part in found.parts])
    assert found["variance"].value == pytest.approx(mean, rel=1e-12)
    assert found["variance"].lower <= 2 + 4 * 5 / 3 <= found["variance"].upper
    energy = np.mean([part["jacobian_energy"].value for part in found.parts])
    assert found["mean_degree"].value == pytest.approx(energy / mean, rel=1e-12)


def test_many_centres_are_a_sample_of_their_population():
    """z² around μ ~ N(0, 1): the variance 2 + 4μ² has the mean 6."""
    hits = 0
    for seed in range(20):
        centres = np.random.default_rng(seed).standard_normal((20, 1))
        found = hermite_spectrum(
            lambda z: z**2,
            centres,
            1.0,
            n_samples=40 * 32,
            random_state=seed,
            n_resamples=100,
            max_degree=2,
        )
        hits += found["variance"].lower <= 6 <= found["variance"].upper
    assert found.units == "centres"
    assert found.n_units == 20
    assert hits >= stats.binom.ppf(1e-4, 20, 0.9)  # skewed: 90 % is what is asked


def test_results_depend_on_the_seed_alone():
    function = multilayer_perceptron([4, 6, 9], "tanh")
    shared = {"n_samples": 600, "n_resamples": 100}
    first = hermite_spectrum(function, np.zeros(4), 1.0, random_state=3, **shared)
    again = hermite_spectrum(function, np.zeros(4), 1.0, random_state=3, **shared)
    other = hermite_spectrum(function, np.zeros(4), 1.0, random_state=4, **shared)
    np.testing.assert_array_equal(first.values, again.values)
    assert first["variance"] == again["variance"]
    assert first["variance"].value != other["variance"].value
    small = hermite_spectrum(function, np.zeros(4), 1.0, random_state=3, max_memory=2**18, **shared)
    assert small["variance"].value == pytest.approx(first["variance"].value, rel=1e-9)


def test_the_callers_module_stays_as_it_was():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    found = hermite_spectrum(module, np.zeros(2), 1.0, random_state=0, n_samples=64)
    assert module.training
    assert next(module.parameters()).dtype == torch.float32
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert found.values[2:] == pytest.approx(0.0, abs=1e-12)  # affine: no dropout


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    X = load_digits().data / 8 - 1
    vae = HarmonicVAE(latent_dim=8, encoder_std=0.1, max_epochs=60, lr=3e-3, random_state=0)
    return vae.fit(X), X


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_the_degree_identity_holds_on_a_trained_model(digits, side):
    """Σ k·W_k of the fit, which knows no derivative, is σ²·E‖J‖² from derivatives."""
    vae, X = digits
    module = getattr(vae, f"{side}_")
    width = vae.latent_dim if side == "decoder" else X.shape[1]
    mean = np.zeros(width) if side == "decoder" else X[0]
    found = hermite_spectrum(module, mean, 1.0, n_samples=10_000, random_state=0)
    energy = found["jacobian_energy"]
    lowest = (found.abscissa * found.lower).sum()
    summed = (found.abscissa * found.values).sum() + 9 * found["tail"].value
    assert lowest <= energy.upper
    assert summed == pytest.approx(energy.value, rel=0.05)
    total = found.values[1:].sum() + found["tail"].value
    assert total == pytest.approx(found["variance"].value, rel=1e-3)
    assert found["first_weight"].lower <= found.upper[1]
    assert found.lower[1] <= found["first_weight"].upper
    assert found["mean_degree"].upper >= 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"std": 0.0}, InputError, "std must be > 0"),
        ({"std": -1.0}, InputError, "std must be > 0"),
        ({"std": math.nan}, InputError, "std must be > 0"),
        ({"mean": [math.nan]}, InputError, "mean must be finite"),
        ({"mean": [[[0.0]]]}, InputError, "mean must have shape"),
        ({"n_samples": 10}, InputError, "n_samples must be an integer >= 32"),
        ({"max_degree": 0}, InputError, "max_degree must be an integer >= 1"),
        ({"confidence": 1.0}, InputError, "confidence must be > 0 and < 1"),
        ({"max_memory": 100.0}, InputError, "max_memory must be at least"),
        ({"random_state": "seed"}, InputError, "random_state must be"),
        ({"function": 3}, InputError, "function must be a torch module or a callable"),
        ({"function": lambda z: z / 0}, SolverError, "NaN or infinite"),
        ({"function": lambda z: torch.sqrt(z)}, SolverError, "NaN or infinite"),
        ({"function": lambda z: z.numpy()}, InputError, "must return a tensor"),
        ({"function": lambda z: z.sum()}, InputError, "one row per input"),
        ({"function": torch.nn.Linear(3, 2)}, InputError, "float64 tensors of shape"),
        ({"function": lambda z: torch.zeros(len(z), 0)}, InputError, "at least one output"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, error, text):
    given = {"function": lambda z: z, "mean": [0.0], "std": 1.0, "random_state": 0} | options
    with pytest.raises(error, match=text):
        hermite_spectrum(given.pop("function"), given.pop("mean"), given.pop("std"), **given)


def test_derivatives_that_do_not_exist_are_named():
    def opaque(z):
        return torch.from_numpy(np.sin(z.detach().numpy()))

    with pytest.raises((InputError, SolverError)):
        hermite_spectrum(opaque, np.zeros(8), 1.0, n_samples=64)


@pytest.mark.slow
def test_the_cifar10_decoder_in_time():
    decoder = multilayer_perceptron([64, 256, 256, 256, 3072], "sigmoid")
    found = hermite_spectrum(decoder, np.zeros(64), 1.0, n_samples=10_000, random_state=0)
    assert found.seconds < 30


@pytest.mark.parametrize("open_above", [True, False])
def test_a_frequency_that_resamples_leave_open_makes_an_interval_without_upper_end(open_above):
    """A resample that trusts itself absurdly overflows the band's upper end."""
    true = np.array([2.0, 0.7, 0.5])
    curve = design_matrix(np.array([1.0, 2.0, 3.0]), 16) @ true[:, None]
    coefficients = np.repeat(curve.T, 12, axis=0)
    coefficients[1:] *= np.exp(np.random.default_rng(0).normal(0, 1, (11, 9)))
    errors = np.full((12, 9), 0.05)
    if open_above:
        errors[1:6] = 1e-12
    found = fit_weights(coefficients, errors, 4, 0.95)
    np.testing.assert_allclose(found.weights[0], [*true, 0.0], atol=1e-5)
    assert not np.isnan(found.upper).any()
    assert (found.lower[:4] <= found.weights[0] + 1e-6).all()
    assert (found.weights[0] <= found.upper[:4] + 1e-6).all()
    assert np.isinf(found.upper).any() == open_above
