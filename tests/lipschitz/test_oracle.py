"""LipSDP by CVXPY: the published program, written down once more here, and its relations."""

import subprocess
import sys
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest

from harmonicvae.activations import leaky_relu
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import bound, verify_certificate, verify_exactly
from harmonicvae.lipschitz.sdp.conic import LipSDPConic
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.cases import Norm, dense_weights


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


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "silu", leaky_relu(-0.5)])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_method_is_the_published_program(activation, per_layer, seed):
    dims = [(3, 4, 5, 2), (2, 5, 3, 4, 3), (4, 6, 2)][seed]
    network = LayeredNetwork.from_arrays(dense_weights(seed, dims), activation=activation)
    result = LipSDPConic(per_layer=per_layer).bound(network)
    expected = lipsdp(network, per_layer)
    assert result.details["solver_value"] == pytest.approx(expected, rel=1e-6)
    assert result.value == pytest.approx(expected, rel=1e-6)
    assert result.status == "certified"
    assert verify_certificate(result.certificate, network)


def test_small_certificates_hold_in_exact_arithmetic():
    network = LayeredNetwork.from_arrays(dense_weights(0, (2, 3, 2)), activation="silu")
    assert verify_exactly(LipSDPConic().bound(network).certificate, network)


def changed(kind):
    """Weights and activations of a network with the same bound as the plain one."""
    first, second, third = dense_weights(0, (3, 5, 5, 2))
    if kind == "a dead neuron":
        return [
            np.vstack([first, np.zeros((1, 3))]),
            np.hstack([second, np.ones((5, 1))]),
            third,
        ], ["tanh", "tanh"]
    if kind == "consecutive affine layers":
        rotation = np.linalg.qr(dense_weights(1, (5, 5))[0])[0]
        return [first, rotation.T, second @ rotation, third], ["tanh", "identity", "tanh"]
    if kind == "uneven neurons":
        factors = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
        return [factors[:, None] * first, second / factors, third], ["relu", "tanh"]
    return [1e9 * first, 1e-30 * second, 1e21 * third], ["relu", "relu"]


@pytest.mark.parametrize(
    "kind", ["a dead neuron", "consecutive affine layers", "uneven neurons", "scaled layers"]
)
def test_what_changes_no_value_changes_no_bound(kind):
    weights, activations = changed(kind)
    plain = [item for item in activations if item != "identity"]
    oracle = LipSDPConic(tolerance=1e-11)
    value = oracle.bound(
        LayeredNetwork.from_arrays(dense_weights(0, (3, 5, 5, 2)), None, plain)
    ).value
    network = LayeredNetwork.from_arrays(weights, None, activations)
    tolerance = 1e-5 if kind == "uneven neurons" else 1e-6  # which cost Clarabel a digit
    assert oracle.bound(network).value == pytest.approx(value, rel=tolerance)


def readme_network(seed):
    """Weights of the shape and distribution of LipSDP's own example, which has no seed."""
    rng = np.random.default_rng(seed)
    return [rng.random((b, a)) / 2.0 for a, b in pairwise([2, 10, 30, 20, 2])]


@pytest.mark.parametrize("seed", range(3))
def test_relations_of_the_readme_example(seed):
    """There: exact and neuron 36.482, split in two 37.668, layer 39.839."""
    weights = readme_network(seed)
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    exact = float(Norm.of(weights).fraction)
    neuron = bound(network, "lipsdp_neuron").value
    layer = bound(network, "lipsdp_layer").value
    split = bound(network, "lipsdp_neuron", split=2).value
    assert exact * (1 - 1e-12) <= neuron <= exact * (1 + 1e-6)
    assert exact * 1.005 < split < exact * 1.2
    assert exact * 1.01 < layer < exact * 1.2
    halves = [LayeredNetwork.from_arrays(weights[i : i + 2], activation="relu") for i in (0, 2)]
    product = np.prod([LipSDPConic().bound(half).value for half in halves])
    assert split == pytest.approx(product, rel=1e-6)
    assert layer == pytest.approx(LipSDPConic(per_layer=True).bound(network).value, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_what_scs_claims_is_proved_or_raised(seed):
    """At its own tolerance SCS may call values "optimal" that lie below the exact constant."""
    weights = readme_network(seed)
    result = LipSDPConic(solver="SCS").bound(LayeredNetwork.from_arrays(weights, activation="relu"))
    norm = Norm.of(weights)
    assert result.details["solver"] == "SCS"
    assert abs(norm.excess(result.details["solver_value"])) < 0.05
    assert -1e-12 <= norm.excess(result.value) < 0.05
    assert result.status == "certified"


def test_a_claim_below_the_constant_is_not_believed(monkeypatch):
    """The solver's ρ is a tenth of the true one, its multipliers fit that."""
    from harmonicvae.lipschitz.sdp import conic

    true = conic._solve

    def claim(*arguments):
        rho, t, status = true(*arguments)
        return 0.1 * rho, 0.1 * t, status

    weights = readme_network(0)[:2]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    monkeypatch.setattr(conic, "_solve", claim)
    result = LipSDPConic().bound(network)
    assert Norm.of(weights).excess(result.details["solver_value"]) < -0.5
    assert -1e-12 <= Norm.of(weights).excess(result.value) < 1e-3


def test_a_status_other_than_optimal_is_passed_on():
    network = LayeredNetwork.from_arrays(dense_weights(0, (3, 4, 4, 2)), activation="tanh")
    with pytest.warns(UserWarning, match="inaccurate"):
        result = LipSDPConic(tolerance=1e-15).bound(network)
    assert result.details["solver_status"] == "optimal_inaccurate"
    assert result.message == "CLARABEL reports optimal_inaccurate"
    assert result.status == "certified"


def test_what_cannot_be_solved_falls_back_to_the_norm_product(monkeypatch):
    from harmonicvae.lipschitz.sdp import conic

    def fail(*arguments, **options):
        raise cp.SolverError("no memory")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    network = LayeredNetwork.from_arrays(dense_weights(0, (3, 4, 2)), activation="tanh")
    result = conic.LipSDPConic().bound(network)
    assert result.value == bound(network, "norm_product").value
    assert "CLARABEL failed: no memory" in result.message


def test_parameters_are_checked():
    network = LayeredNetwork.from_arrays(dense_weights(0, (3, 4, 2)), activation="tanh")
    missing = sorted({"CLARABEL", "SCS", "CVXOPT"} - set(cp.installed_solvers()))
    for solver in ["MOSEK-2", "clarabel", "OSQP", *missing]:
        with pytest.raises(InputError, match=rf"solver must be one of \['CLARABEL'.*{solver}"):
            LipSDPConic(solver=solver).bound(network)
    for tolerance in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="tolerance must lie in"):
            LipSDPConic(tolerance=tolerance).bound(network)
    with pytest.raises(InputError, match="takes limit=6 inputs and neurons, got 7; try lipsdp_n"):
        LipSDPConic(limit=6).bound(network)
    assert LipSDPConic(limit=7).bound(network).status == "certified"


def test_trivial_networks_and_a_stop_need_no_solver():
    linear = LayeredNetwork.from_arrays([[[3.0, 4.0]]])
    assert LipSDPConic().bound(linear).value == pytest.approx(5.0, rel=1e-12)
    zero = LayeredNetwork.from_arrays([np.ones((3, 2)), np.zeros((1, 3))], activation="relu")
    assert LipSDPConic().bound(zero).value == 0.0
    network = LayeredNetwork.from_arrays(dense_weights(0, (3, 4, 2)), activation="tanh")
    result = LipSDPConic().bound(network, progress=lambda what, numbers: True)
    assert result.value == bound(network, "norm_product").value
    assert "stopped on request" in result.message


def test_importing_the_package_does_not_import_cvxpy():
    script = (
        "import sys; import harmonicvae.lipschitz, harmonicvae.lipschitz.sdp.conic; "
        "print('cvxpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


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
