"""LipSDP of a network that is narrower at its output is that of its mirror image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.lipschitz import bound, verify_certificate, verify_exactly
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.lipsdp import LipSDPNeuron, polished
from harmonicvae.lipschitz.sdp import structured
from harmonicvae.lipschitz.sdp.neuron_problem import build_problem, mirror_image
from harmonicvae.lipschitz.sdp.structured import StructuredSolver
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.cases import ACTIVATIONS, dense_weights, mixed_network


def solved(problem):
    return StructuredSolver(problem, gap=1e-8).solve()


def parts(chain):
    return chain.reduced_matrices(), chain.alphas, chain.betas


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 9), min_size=3, max_size=6),
    item=st.sampled_from(ACTIVATIONS),
    scale=st.sampled_from([1.0, 1e-9, 1e9]),
)
def test_both_have_one_optimum_and_its_multipliers_serve_the_network(seed, dims, item, scale):
    weights = [scale * weight for weight in dense_weights(seed, dims)]
    chain = build_chain(LayeredNetwork.from_arrays(weights, activation=item))
    own, image = build_problem(*parts(chain)), build_problem(*mirror_image(*parts(chain)))
    first, second = solved(own), solved(image)
    value = own.value(first.rho, chain.exponent)
    assert image.value(second.rho, chain.exponent) == pytest.approx(value, rel=1e-6)
    mapped = image.mirrored_multipliers(second.rho, second.t)
    assert mapped.bound(chain, mapped.rho) == pytest.approx(value, rel=1e-6)
    assert all(np.all(item > 0) for item in mapped.values)
    smallest = polished(chain, mapped)  # the inequality holds with them, in float64
    assert smallest.rho <= mapped.rho * (1 + 1e-9)
    assert smallest.bound(chain, smallest.rho) >= value * (1 - 1e-6)


@pytest.mark.parametrize("method", ["lipsdp_neuron", "lipsdp_layer"])
@pytest.mark.parametrize("seed", range(40))
def test_a_network_and_its_transposed_have_one_bound(method, seed):
    network = mixed_network(seed)
    transposed = LayeredNetwork.from_arrays(
        [weight.T for weight in reversed(network.weights)],
        activation=list(reversed(network.activations)),
    )
    first, second = (bound(item, method, gap=1e-8) for item in (network, transposed))
    assert first.value == pytest.approx(second.value, rel=1e-6)
    assert verify_certificate(first.certificate, network)
    assert verify_certificate(second.certificate, transposed)


@pytest.mark.parametrize("dims", [[9, 6, 5, 2], [2, 6, 5, 9]])
def test_certificates_of_both_hold_in_exact_rationals(dims):
    network = LayeredNetwork.from_arrays(dense_weights(5, dims), activation="elu")
    result = bound(network, "lipsdp_neuron")
    assert result.message == ""
    assert verify_exactly(result.certificate, network)


@pytest.mark.parametrize(
    "options",
    [
        {"split": 2},
        {"slopes": "propagated"},
        {"box": (-0.5, 0.5)},
        {"split": 3, "box": (-1.0, 2.0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("item", ["sigmoid", "gelu", "relu"])
def test_parts_and_slopes_of_single_neurons_are_mirrored_alike(options, item, monkeypatch):
    weights = dense_weights(8, [12, 7, 9, 6, 8, 2])
    network = LayeredNetwork.from_arrays(weights, activation=item)
    mirrored = bound(network, "lipsdp_neuron", gap=1e-8, **options)
    monkeypatch.setattr(LipSDPNeuron, "_is_better_mirrored", lambda self, chain: False)
    plain = bound(network, "lipsdp_neuron", gap=1e-8, **options)
    assert mirrored.value == pytest.approx(plain.value, rel=1e-6)
    assert mirrored.status == plain.status == "certified"


@pytest.mark.parametrize("stop", [0, 1, 3, 6])
def test_a_mirrored_solve_can_be_stopped_with_a_bound(stop):
    network = LayeredNetwork.from_arrays(dense_weights(9, [20, 14, 12, 3]), activation="elu")
    full = bound(network, "lipsdp_neuron")
    seen = []

    def progress(what, numbers):
        seen.append(numbers["bound"])
        return len(seen) > stop

    early = bound(network, "lipsdp_neuron", progress=progress)
    assert early.status == "certified"
    assert "stopped on request" in early.message
    assert full.value * (1 - 1e-6) <= early.value <= min(seen) * (1 + 1e-9)
    assert early.details["dual_value"] <= full.value


@pytest.fixture
def sizes(monkeypatch):
    """The block sizes of every problem that is solved while the test runs."""
    found = []
    plain = structured.StructuredSolver.solve

    def watched(self, progress=None):
        found.append(self.problem.dims)
        return plain(self, progress)

    monkeypatch.setattr(structured.StructuredSolver, "solve", watched)
    return found


def test_the_smaller_of_both_is_solved(sizes):
    for dims in ([40, 12, 11, 2], [2, 11, 12, 40]):
        network = LayeredNetwork.from_arrays(dense_weights(1, dims), activation="relu")
        bound(network, "lipsdp_neuron")
        bound(network, "lipsdp_layer")
    assert sizes == [(2, 11, 12)] * 4


def test_one_multiplier_a_layer_is_mirrored_only_where_it_stays_one(sizes):
    network = LayeredNetwork.from_arrays(dense_weights(2, [9, 8, 7, 2]), activation="sigmoid")
    uneven = bound(network, "lipsdp_layer", slopes="propagated")
    assert sizes == [(8, 8, 7)]
    assert uneven.value >= bound(network, "lipsdp_neuron", slopes="propagated").value * (1 - 1e-6)


def test_rows_are_limited_too_unless_the_size_asked_for_allows_them(monkeypatch):
    monkeypatch.setattr("harmonicvae.lipschitz.lipsdp._LARGEST_ROWS", 20)
    wide = LayeredNetwork.from_arrays(dense_weights(3, [30, 9, 6, 30]), activation="elu")
    refused = bound(wide, "lipsdp_neuron", max_size=15)
    assert refused.message.startswith("21 rows exceed 20 and max_size=15")
    assert bound(wide, "lipsdp_neuron", max_size=21).message == ""
    narrow = LayeredNetwork.from_arrays(dense_weights(3, [30, 9, 6, 4]), activation="elu")
    assert bound(narrow, "lipsdp_neuron", max_size=15).message == ""


def test_the_size_counts_hidden_neurons():
    wide = LayeredNetwork.from_arrays(dense_weights(3, [30, 9, 6, 30]), activation="elu")
    assert bound(wide, "lipsdp_neuron", max_size=15).message == ""
    refused = bound(wide, "lipsdp_neuron", max_size=14)
    assert refused.message.startswith("15 hidden neurons exceed max_size=14")
    assert refused.status == "certified"
    assert refused.value >= bound(wide, "lipsdp_neuron").value
