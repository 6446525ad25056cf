"""The structured solver against Clarabel, and on networks that are hard for a solver."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from harmonicvae.activations import leaky_relu
from harmonicvae.lipschitz import bound, verify_certificate
from harmonicvae.lipschitz.sdp.conic import LipSDPConic
from harmonicvae.lipschitz.slopes import slope_ranges
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.cases import ACTIVATIONS, dense_weights, mixed_network

#: Rules of slope ranges, one after another, with a box where there is one.
RULES = (("activation", None), ("propagated", None), ("box", (-5.0, 5.0)))
SEEDS = range(75)
#: For which Clarabel goes on until it cannot. At 1e-9 it calls values 6e-5 too high "optimal".
TIGHT = 1e-11


def is_well_posed(slopes):
    """Whether no slope range is close to a point.

    Where one is, optimal multipliers are huge, and Clarabel stops up to 1e-3 above the optimum.
    """
    return all(
        np.min(high - low) >= 0.01 * np.max(np.maximum(np.abs(low), np.abs(high)))
        for low, high in zip(slopes.alphas, slopes.betas)
    )


@cache
def both(seed, per_layer):
    """The structured solver's bound, Clarabel's, and whether Clarabel's can serve as reference."""
    network = mixed_network(seed)
    rule, box = ("activation", None) if per_layer else RULES[seed % len(RULES)]
    name = "lipsdp_layer" if per_layer else "lipsdp_neuron"
    ours = bound(network, name, slopes=rule, box=box, gap=1e-9)
    theirs = LipSDPConic(per_layer=per_layer, tolerance=TIGHT).bound(network, slopes=rule, box=box)
    trusted = is_well_posed(slope_ranges(network, rule, box)) and "solver" in theirs.details
    return ours, theirs, trusted


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("per_layer", [False, True])
def test_the_bound_is_clarabels(seed, per_layer):
    ours, theirs, trusted = both(seed, per_layer)
    assert (ours.status, theirs.status) == ("certified", "certified")
    assert ours.value <= theirs.value * (1 + 1e-6)
    if not trusted:
        return
    optimum = theirs.details["float64_value"]
    primal, dual = ours.details["float64_value"], ours.details["dual_value"]
    assert primal == pytest.approx(optimum, rel=1e-6)
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    assert dual <= optimum * (1 + 1e-9)
    assert dual <= primal * (1 + 1e-9)
    assert dual >= primal * (1 - 1e-8)
    assert ours.details["duality_gap"] <= 1e-8


def test_clarabel_can_serve_as_reference_for_fifty_networks():
    chosen = [seed for seed in SEEDS if both(seed, False)[2]]
    assert len(chosen) >= 50
    used = {item.name for seed in chosen for item in mixed_network(seed).activations}
    assert used >= {"relu", "sigmoid", "tanh", "softplus", "elu", "silu", "gelu", "leaky_relu"}
    assert {seed % len(RULES) for seed in chosen} == {0, 1, 2}


@pytest.mark.parametrize("item", ACTIVATIONS, ids=str)
def test_every_activation_agrees_with_clarabel(item):
    network = LayeredNetwork.from_arrays(dense_weights(3, [4, 7, 5, 6, 3]), activation=item)
    ours = bound(network, "lipsdp_neuron", gap=1e-9)
    theirs = LipSDPConic(tolerance=TIGHT).bound(network)
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    assert ours.details["dual_value"] <= theirs.details["float64_value"] * (1 + 1e-9)
    assert ours.details["duality_gap"] <= 1e-8
    assert ours.message == ""


def collapsed(rng, spread):
    """Layers of nearly rank one, as of decoders that ignore most of their code."""
    dims = [6, 12, 12, 12, 8]
    return [
        np.outer(rng.standard_normal(after), rng.standard_normal(before))
        + spread * rng.standard_normal((after, before))
        for before, after in pairwise(dims)
    ]


def duplicates(rng):
    """Every hidden neuron twice."""
    first, second, third = dense_weights(rng.integers(1000), [4, 5, 5, 3])
    return [
        np.repeat(first, 2, axis=0),
        np.repeat(np.repeat(second, 2, axis=0), 2, axis=1),
        np.repeat(third, 2, axis=1),
    ]


def uneven(rng, decades):
    """Incoming weights of neurons and outgoing ones differ by orders of magnitude."""
    weights = dense_weights(rng.integers(1000), [5, 9, 9, 4])
    for before, after in pairwise(weights):
        factor = 10.0 ** rng.uniform(-decades, decades, len(before))
        before *= factor[:, None]
        after *= 10.0 ** rng.uniform(-decades, decades, len(before))
    return weights


def with_dead_parts(rng):
    """A zero row, a zero column and a neuron that is fed by dead neurons only."""
    weights = dense_weights(rng.integers(1000), [4, 6, 6, 3])
    weights[0][:2] = 0.0
    weights[1][3, 2:] = 0.0
    weights[2][:, 5] = 0.0
    return weights


def some(*dims):
    return lambda rng: dense_weights(rng.integers(1000), dims)


HARD = {
    "rank one": lambda rng: collapsed(rng, 0.0),
    "nearly rank one, 1e-3": lambda rng: collapsed(rng, 1e-3),
    "nearly rank one, 1e-6": lambda rng: collapsed(rng, 1e-6),
    "nearly rank one, 1e-12": lambda rng: collapsed(rng, 1e-12),
    "duplicate neurons": duplicates,
    "uneven neurons, 1e3": lambda rng: uneven(rng, 3),
    "uneven neurons, 1e8": lambda rng: uneven(rng, 8),
    "dead parts": with_dead_parts,
    "a zero layer": lambda rng: [rng.random((3, 2)), np.zeros((4, 3)), rng.random((2, 4))],
    "one neuron": some(5, 1, 4),
    "one neuron a layer": some(1, 1, 1, 1, 1),
    "bottlenecks": some(6, 8, 1, 8, 1, 8, 5),
    "one input": some(1, 8, 8, 3),
    "one output": some(6, 8, 8, 1),
    "a wide input": some(30, 6, 6, 3),
    "a tall output": some(3, 6, 6, 60),
    "tiny": lambda rng: [1e-12 * w for w in dense_weights(3, [4, 8, 8, 3])],
    "huge": lambda rng: [1e12 * w for w in dense_weights(3, [4, 8, 8, 3])],
    "tiny and huge": lambda rng: [
        w * s for w, s in zip(dense_weights(3, [4, 8, 8, 3]), (1e-12, 1e12, 1e-12))
    ],
    "orthogonal": lambda rng: [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(4)],
    "identities": lambda rng: [np.eye(5)] * 4,
}
ITEMS = ("relu", "sigmoid", "silu", leaky_relu(0.9999), leaky_relu(-1.0))


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("name", ["eclipse", "lipsdp_layer", "lipsdp_neuron"])
def test_hard_networks_get_a_bound_below_the_closed_forms(kind, name):
    for seed, item in enumerate(ITEMS):
        weights = HARD[kind](np.random.default_rng(seed))
        network = LayeredNetwork.from_arrays(weights, activation=item)
        result = bound(network, name)
        forms = ["norm_product"] if name == "eclipse" else ["norm_product", "eclipse_fast"]
        best = min(bound(network, form).value for form in forms)
        assert result.status == "certified"
        assert result.value <= best * (1 + 1e-9), item
        assert verify_certificate(result.certificate, network)
        gap = result.details.get("duality_gap", 0.0)
        assert gap <= 1e-6 or result.message, item


@pytest.mark.parametrize("kind", HARD)
def test_hard_networks_get_clarabels_bound_where_it_has_one(kind):
    for seed, item in enumerate(ITEMS[:3]):
        weights = HARD[kind](np.random.default_rng(seed))
        network = LayeredNetwork.from_arrays(weights, activation=item)
        theirs = LipSDPConic(tolerance=TIGHT).bound(network)
        assert bound(network, "lipsdp_neuron").value <= theirs.value * (1 + 1e-6), item


def test_nearly_equal_slopes_approach_the_linear_network():
    """leaky_relu(1 − ε) differs from the identity by ε: so does the bound, up to a factor."""
    weights = dense_weights(0, [5, 9, 9, 4])
    linear = np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2)
    for slope, factor in ((0.9, 1.5), (0.99, 1.05), (0.999, 1.005), (0.9999, 1.001)):
        network = LayeredNetwork.from_arrays(weights, activation=leaky_relu(slope))
        value = bound(network, "lipsdp_neuron").value
        assert linear <= value <= factor * linear


def test_a_solver_that_is_stopped_returns_a_bound_and_says_so():
    network = LayeredNetwork.from_arrays(dense_weights(1, [8, 20, 20, 5]), activation="tanh")
    full = bound(network, "lipsdp_neuron")
    calls = []

    def stop_after_three(what, numbers):
        calls.append(numbers)
        return len(calls) >= 3

    for result in (
        bound(network, "lipsdp_neuron", max_iterations=3),
        bound(network, "lipsdp_neuron", progress=stop_after_three),
    ):
        assert result.status == "certified"
        assert full.value < result.value <= bound(network, "eclipse_fast").value
        assert result.message.startswith("stopped")
        assert result.details["duality_gap"] > 1e-6
        assert result.details["dual_value"] <= full.value
    assert len(calls) == 3
    assert calls[0]["bound"] >= calls[-1]["bound"] >= full.value * (1 - 1e-6)
