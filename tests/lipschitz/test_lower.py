"""Lower bounds against explicit Jacobians."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae.exceptions import InputError, SoundnessError
from harmonicvae.lipschitz import bound, bracket, lower, lower_bound, sampled_jacobian_norm
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
    side = lower._EXPLICIT_SIDE if explicit else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "_EXPLICIT_SIDE", side)
        patch.setattr(lower, "_CHUNK_NUMBERS", 60)
        result = lower_bound(network, x)
    slack = 1e-6 if explicit else 0.2
    assert max(norms) * (1 - slack) <= result.value <= max(norms) * (1 + 1e-12)
    assert result.value == pytest.approx(norms[result.details["index"]], rel=1e-12)
    assert (result.kind, result.status) == ("lower", "float64")
    assert result.network_hash == network.hash


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus", "elu"])
def test_the_gradient_of_the_norm_is_that_of_difference_quotients(activation):
    network = random_network(2, [9, 7, 6, 8], activation)
    search = lower._Search.of(network, tol=1e-15, max_iter=5000)
    point = np.random.default_rng(0).standard_normal((1, 9))
    gradient = search.gradients(point)[0]
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
    still = lower_bound(network, [[2.0], [3.0]])
    climbed = lower_bound(network, [[2.0], [3.0]], n_steps=60)
    assert still.value < 0.11
    assert climbed.value == pytest.approx(0.25, rel=1e-6)
    assert climbed.value <= 0.25
    assert abs(climbed.details["point"][0]) < 1e-2


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_ascent_never_loses_and_stays_below_the_upper_bound(seed):
    network = random_network(seed, [6, 10, 10, 4], "tanh")
    x = np.random.default_rng(seed).standard_normal((10, 6))
    still, climbed = lower_bound(network, x), lower_bound(network, x, n_steps=10, n_starts=3)
    assert still.value <= climbed.value <= bound(network).value


def test_piecewise_linear_networks_do_not_move():
    network = random_network(0, [3, 5, 2], "relu")
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert lower_bound(network, x, n_steps=5).value == lower_bound(network, x).value


def test_images_and_modules_are_taken():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 5))
    x = torch.randn(7, 3, 2, 2)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: module(v[None])[0]))(x)
    expected = torch.linalg.matrix_norm(jacobians.reshape(7, 5, 12), 2).max().item()
    assert sampled_jacobian_norm(module, x).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dims", [[30, 6, 30], [200, 100, 120]])
def test_wide_ends_are_reduced_without_loss(dims):
    network = random_network(1, dims, "tanh")
    x = np.random.default_rng(1).standard_normal((5, dims[0])) / 10
    norms = [np.linalg.norm(network.jacobian(point), 2) for point in x]
    assert lower_bound(network, x, tol=1e-9, max_iter=1000).value == pytest.approx(max(norms))


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
    for options in ({"n_steps": -1}, {"n_starts": 0}):
        with pytest.raises(InputError, match="n_steps >= 0"):
            lower_bound(network, np.zeros((1, 3)), **options)
    with pytest.raises(InputError, match="max_iter"):
        lower_bound(random_network(0, [120, 110], "relu"), np.zeros((1, 120)), max_iter=0)
    with pytest.raises(InputError, match="x must hold"):
        lower_bound(network, np.zeros((1, 4)))
