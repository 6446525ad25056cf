"""The methods against LipSDP solved by CVXPY with Clarabel on small networks."""

import cvxpy as cp
import numpy as np
import pytest

from harmonicvae.lipschitz import bound
from harmonicvae.network import LayeredNetwork


def lipsdp(network, per_layer=False):
    """Return the optimum of LipSDP-Neuron (or -Layer) in float64, to solver tolerance."""
    weights = network.weights
    dims = [weights[0].shape[1], *network.hidden_dims]
    total = sum(dims)
    offset = np.concatenate([[0], np.cumsum(dims)])
    rho = cp.Variable(nonneg=True)
    hidden = total - dims[0]
    before = np.zeros((hidden, total))
    row = 0
    for i, weight in enumerate(weights[:-1]):
        before[row : row + len(weight), offset[i] : offset[i + 1]] = weight
        row += len(weight)
    after = np.hstack([np.zeros((hidden, dims[0])), np.eye(hidden)])
    if per_layer:
        scale = cp.Variable(len(dims) - 1, nonneg=True)
        t = np.repeat(np.eye(len(dims) - 1), dims[1:], axis=0) @ scale
    else:
        t = cp.Variable(hidden, nonneg=True)
    low = np.repeat([item.alpha for item in network.activations], dims[1:])
    high = np.repeat([item.beta for item in network.activations], dims[1:])
    cross = before.T @ cp.diag(cp.multiply(low + high, t)) @ after
    form = (
        -2 * before.T @ cp.diag(cp.multiply(low * high, t)) @ before
        + cross
        + cross.T
        - 2 * after.T @ cp.diag(t) @ after
    )
    first = np.zeros((total, total))
    first[: dims[0], : dims[0]] = np.eye(dims[0])
    last = np.zeros((total, total))
    last[offset[-2] :, offset[-2] :] = weights[-1].T @ weights[-1]
    problem = cp.Problem(cp.Minimize(rho), [form - rho * first + last << 0])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return float(np.sqrt(rho.value))


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "leaky_relu", "tanh"])
@pytest.mark.parametrize("seed", range(4))
def test_eclipse_lies_between_lipsdp_and_the_norm_product(activation, seed):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (5, 4), (2, 5)] if seed % 2 else [(5, 2), (3, 5), (4, 3), (3, 4)]
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal(shape) for shape in shapes], activation=activation
    )
    fast = bound(network, "eclipse_fast")
    neuron, layer = lipsdp(network), lipsdp(network, per_layer=True)
    assert neuron <= layer * (1 + 1e-6)
    assert layer * (1 - 1e-6) <= fast.value <= bound(network, "norm_product").value
    assert fast.value <= 1.5 * layer


def test_one_hidden_layer_is_optimal_over_one_multiplier():
    """One multiplier: the layer form's optimum, up to the closed form's choice of it."""
    rng = np.random.default_rng(0)
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal((1, 3)), rng.standard_normal((2, 1))], activation="relu"
    )
    assert bound(network, "eclipse_fast").value == pytest.approx(lipsdp(network), rel=1e-6)
