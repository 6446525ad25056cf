"""Lower bounds against explicit Jacobians."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from harmonicvae.exceptions import InputError, SoundnessError
from harmonicvae.lipschitz import bound, bracket, jacobians, lower_bound, sampled_jacobian_norm
from harmonicvae.lipschitz.ascent import climb, polish, random_starts
from harmonicvae.lipschitz.interval import exact_constant
from harmonicvae.lipschitz.jacobians import JacobianSearch
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound, Bracket


def random_network(seed, dims, activation):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(dims)]
    biases = [rng.standard_normal(len(weight)) for weight in weights]
    return LayeredNetwork.from_arrays(weights, biases, activation)


@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    activation=st.sampled_from(["relu", "sigmoid", "tanh", "elu", "softplus"]),
    explicit=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_is_the_largest_of_the_explicit_jacobians(seed, dims, activation, explicit):
    network = random_network(seed, dims, activation)
    x = np.random.default_rng(seed).standard_normal((15, dims[0]))
    norms = [np.linalg.norm(network.jacobian(point), 2) for point in x]
    side = jacobians._EXPLICIT_SIDE if explicit else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jacobians, "_EXPLICIT_SIDE", side)
        patch.setattr(jacobians, "_CHUNK_NUMBERS", 60)
        result = lower_bound(network, x, n_steps=0, n_random=0)
    slack = 1e-6 if explicit else 0.2
    assert max(norms) * (1 - slack) <= result.value <= max(norms) * (1 + 1e-12)
    assert result.value == pytest.approx(norms[result.details["index"]], rel=1e-12)
    assert (result.kind, result.status) == ("lower", "float64")
    assert result.network_hash == network.hash


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus", "elu", "gelu"])
def test_the_gradient_of_the_norm_is_that_of_difference_quotients(activation):
    network = random_network(2, [9, 7, 6, 8], activation)
    search = JacobianSearch.of(network)
    point = np.random.default_rng(0).standard_normal((1, 9))
    state = search.state(search.reduce(point))
    _, right = search.singular(state.slopes, search.starts(1), 5000, 1e-15)
    gradient = search.expand(search.gradients(state, right)[1])[0]
    step = 1e-5
    expected = [
        (
            np.linalg.norm(network.jacobian(point[0] + step * axis), 2)
            - np.linalg.norm(network.jacobian(point[0] - step * axis), 2)
        )
        / (2 * step)
        for axis in np.eye(9)
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6 * np.max(np.abs(expected)))


def test_ascent_climbs_towards_the_constant():
    """The sigmoid is steepest at 0, away from the samples."""
    network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation="sigmoid")
    still = lower_bound(network, [[2.0], [3.0]], n_steps=0, n_random=0)
    climbed = lower_bound(network, [[2.0], [3.0]], n_steps=60, n_random=0)
    assert still.value < 0.11
    assert climbed.value == pytest.approx(0.25, rel=1e-6)
    assert climbed.value <= 0.25
    assert abs(climbed.details["point"][0]) < 1e-2


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_ascent_never_loses_and_stays_below_the_upper_bound(seed):
    network = random_network(seed, [6, 10, 10, 4], "tanh")
    x = np.random.default_rng(seed).standard_normal((10, 6))
    still = lower_bound(network, x, n_steps=0)
    climbed = lower_bound(network, x, n_steps=10, n_starts=3)
    assert still.value <= climbed.value <= bound(network, "norm_product").value


def shares_reached(seed, activation):
    """Return the sampled lower bound over the exact constant of a network with one input."""
    network = random_network(seed, [1, 8, 6, 3], activation)
    exact = exact_constant(network)
    found = lower_bound(network, None, n_steps=60)
    assert found.value <= exact.upper.value
    assert found.details["start"] == "random"
    return found.value / exact.lower.value


@given(
    seed=st.integers(0, 1000),
    activation=st.sampled_from(["tanh", "sigmoid", "elu", "softplus", "silu"]),
)
@settings(max_examples=40, deadline=None)
def test_reaches_the_exact_constant_of_networks_with_one_input(seed, activation):
    assert shares_reached(seed, activation) >= 0.9


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_mostly_reaches_the_exact_constant_of_piecewise_linear_networks(activation):
    """No gradient leads to a narrow piece between two kinks, so that some are missed."""
    shares = np.array([shares_reached(seed, activation) for seed in [489, *range(29)]])
    assert np.mean(shares >= 0.9) >= 0.9
    assert np.median(shares) >= 1 - 1e-9


def explicit_norms(network, points):
    return np.array([np.linalg.norm(network.jacobian(point), 2) for point in points])


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu"])
def test_climbs_as_high_as_lbfgs(activation):
    """From the same starts, against SciPy with difference quotients of explicit Jacobians."""
    for seed in range(3):
        network = random_network(seed, [4, 10, 3], activation)
        search = JacobianSearch.of(network)
        starts = np.random.default_rng(seed).standard_normal((6, 4))
        points, heights = climb(search, starts, 200, np.random.default_rng(0))
        oracle = [
            -minimize(lambda z, n=network: -np.linalg.norm(n.jacobian(z), 2), start).fun
            for start in starts
        ]
        assert np.all(heights <= explicit_norms(network, points) * (1 + 1e-9))
        assert max(heights) >= 0.99 * max(oracle)
        assert np.median(heights / oracle) >= 0.98
        best = points[np.argmax(heights)]
        refined = polish(search, best, 100)
        assert np.linalg.norm(network.jacobian(refined), 2) >= max(heights) * (1 - 1e-9)


def test_climbs_over_kinks():
    """Local search from fifty draws must beat plain sampling of four thousand.

    By how much depends on the processor's rounding, which decides at kinks: the lead is asked of
    the mean of eight networks, that there is one of each.
    """
    leads = []
    for seed in range(8):
        network = random_network(seed, [10, 40, 40, 5], "relu")
        draws = np.random.default_rng(1).standard_normal((4000, 10)) * 3
        sampled = lower_bound(network, draws, n_steps=0, n_random=0).value
        climbed = lower_bound(network, draws[:50], n_steps=100).value
        assert sampled < climbed <= bound(network, "norm_product").value
        leads.append(climbed / sampled)
    assert np.mean(leads) > 1.05


def test_random_starts_lie_where_neurons_are_steep():
    """Ten steep neurons far from the origin: standard normal draws see none of them."""
    weight = 30.0 * np.eye(10)
    network = LayeredNetwork.from_arrays(
        [weight, np.eye(10)], [-3000.0 * np.ones(10), np.zeros(10)]
    )
    draws = np.random.default_rng(0).standard_normal((200, 10))
    assert lower_bound(network, draws, n_steps=0, n_random=0).value < 1e-12
    assert lower_bound(network, draws, n_steps=0).value == pytest.approx(7.5)
    starts = random_starts(JacobianSearch.of(network), 20, np.random.default_rng(0))
    assert starts.shape == (20, 10)
    assert np.all(np.isfinite(starts))


@given(seed=st.integers(0, 1000), activation=st.sampled_from(["tanh", "relu"]))
@settings(max_examples=20, deadline=None)
def test_only_points_in_the_box_count(seed, activation):
    network = random_network(seed, [6, 5, 7, 3], activation)
    low, high = np.full(6, 0.5), np.linspace(0.5, 2.0, 6)
    x = 3 * np.random.default_rng(seed).standard_normal((5, 6))
    result = lower_bound(network, x, n_steps=15, box=(low, high))
    point = result.details["point"]
    assert np.all((low <= point) & (point <= high))
    assert result.scope == "box"
    free = network.jacobian(point)[:, low < high]  # the first input is fixed
    assert result.value == pytest.approx(np.linalg.norm(free, 2), rel=1e-12)
    thin = lower_bound(network, None, n_steps=5, box=(low, low))
    np.testing.assert_array_equal(thin.details["point"], low)


def test_results_repeat_and_say_where_they_come_from():
    network = random_network(3, [6, 5, 7, 3], "tanh")
    x = np.random.default_rng(0).standard_normal((5, 6))
    first, second = lower_bound(network, x, random_state=4), lower_bound(network, x, random_state=4)
    assert first.value == second.value
    assert first.details["n_points"] == 5 + 32
    assert first.details["steps"] == 100
    alone = lower_bound(network, x, n_steps=0, n_random=0)
    norms = explicit_norms(network, x)
    assert alone.details["start"] == "data"
    assert alone.details["index"] == np.argmax(norms)
    np.testing.assert_array_equal(alone.details["point"], x[np.argmax(norms)])
    assert alone.details["median"] == pytest.approx(np.median(norms), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_extreme_scales_do_no_harm(scale, activation):
    base = random_network(1, [3, 4, 2], activation)
    network = LayeredNetwork.from_arrays(
        [scale * base.weights[0], base.weights[1]], base.biases, activation
    )
    result = lower_bound(network, None, n_steps=10)
    assert 0 < result.value <= bound(network, "norm_product").value
    zero = LayeredNetwork.from_arrays([np.zeros((4, 3)), base.weights[1]], base.biases, activation)
    assert lower_bound(zero, np.ones((2, 3))).value == 0.0


def test_images_and_modules_are_taken():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 5))
    x = torch.randn(7, 3, 2, 2)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: module(v[None])[0]))(x)
    expected = torch.linalg.matrix_norm(jacobians.reshape(7, 5, 12), 2).max().item()
    assert sampled_jacobian_norm(module, x, n_steps=0, n_random=0).value == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("dims", [[30, 6, 30], [200, 100, 120]])
def test_wide_ends_are_reduced_without_loss(dims):
    network = random_network(1, dims, "tanh")
    x = np.random.default_rng(1).standard_normal((5, dims[0])) / 10
    norms = [np.linalg.norm(network.jacobian(point), 2) for point in x]
    result = lower_bound(network, x, n_steps=0, n_random=0, tol=1e-9, max_iter=1000)
    assert result.value == pytest.approx(max(norms))


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_thin_matrices_are_multiplied_as_sparse_ones(activation, monkeypatch):
    rng = np.random.default_rng(4)
    weights = [
        rng.standard_normal(shape) * (rng.random(shape) < 0.02)
        for shape in [(500, 400), (400, 500), (300, 400)]
    ]
    network = LayeredNetwork.from_arrays(weights, activation=activation)
    thin = JacobianSearch.of(network)
    assert thin.network.is_sparse
    monkeypatch.setattr("harmonicvae.lipschitz.jacobians._SPARSE_SHARE", 0.0)
    full = JacobianSearch.of(network)
    assert not full.network.is_sparse
    points = rng.standard_normal((7, 400))
    assert thin.norms(points) == pytest.approx(full.norms(full.reduce(points)), rel=1e-3)
    vectors = rng.standard_normal((7, 400))
    norms, gradients = thin.gradients(thin.state(points), vectors)
    other, reduced = full.gradients(full.state(full.reduce(points)), full.reduce(vectors))
    assert norms == pytest.approx(other, rel=1e-12)
    assert gradients == pytest.approx(full.expand(reduced), rel=1e-9, abs=1e-9)


def test_bracket_holds_both_sides():
    network = random_network(4, [5, 8, 8, 3], "sigmoid")
    result = bracket(network, np.zeros((3, 5)), n_steps=3)
    assert 0 < result.lower.value <= result.upper.value
    assert result.ratio == result.upper.value / result.lower.value
    plain = bracket(network, np.zeros((3, 5)), "norm_product", ["slope_one"])
    assert plain.upper.value == pytest.approx(16 * bound(network, "norm_product").value)
    assert plain.lower.value == lower_bound(network, np.zeros((3, 5))).value


def test_a_crossing_bracket_is_an_error():
    low = Bound(kind="lower", value=2.0, method="a", status="float64")
    high = Bound(kind="upper", value=1.0, method="b", status="certified")
    with pytest.raises(SoundnessError):
        Bracket(lower=low, upper=high)


def test_options_are_checked():
    network = random_network(0, [3, 2], "relu")
    for name, value in (("n_steps", -1), ("n_starts", 0)):
        with pytest.raises(InputError, match=f"{name} must be"):
            lower_bound(network, np.zeros((1, 3)), **{name: value})
    with pytest.raises(InputError, match="max_iter"):
        lower_bound(network, np.zeros((1, 3)), max_iter=0)
    with pytest.raises(InputError, match="n_random"):
        lower_bound(network, None, n_random=0)
    with pytest.raises(InputError, match="n_random"):
        lower_bound(network, np.zeros((1, 3)), n_random=-1)
    for box in ((1.0, 0.0), (0.0, np.nan), 1.0, ("a", "b"), ([0.0, 0.0], [1.0, 1.0])):
        with pytest.raises(InputError, match="box must"):
            lower_bound(network, np.zeros((1, 3)), box=box)
    with pytest.raises(InputError, match="x must hold"):
        lower_bound(network, np.zeros((1, 4)))
