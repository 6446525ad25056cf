"""No method below a known constant, an attained value or LipSDP's dual value."""

import math
from functools import cache

import numpy as np
import pytest

from harmonicvae.activations import leaky_relu
from harmonicvae.lipschitz import METHODS, bound, lower_bound, verify_certificate
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.cases import (
    GENERAL,
    OPTIONS,
    SLOPE_ONE,
    Norm,
    applicable,
    dense_weights,
    is_surely_below,
    mixed_network,
    random_weights,
)

#: Networks of the long run, and how many each of its parts takes.
MANY, CHUNK = 10_000, 500
#: Number of networks with one input among every this many.
ONE_INPUT = 5


def nonnegative(seed, **limits):
    """Weights ≥ 0 and the network, which is linear at positive inputs."""
    weights = random_weights(seed, **limits)
    if seed % ONE_INPUT == 0:
        weights[0] = weights[0][:, :1]
    item = SLOPE_ONE[seed % len(SLOPE_ONE)]
    return weights, LayeredNetwork.from_arrays(weights, activation=item)


def check_nonnegative(seeds, names=tuple(METHODS), **limits):
    """Every method on every network; return how many bounds there were and the least excess."""
    count, least = 0, math.inf
    for seed in seeds:
        weights, network = nonnegative(seed, **limits)
        norm = Norm.of(weights)
        for name in applicable(network, names):
            result = bound(network, name, **OPTIONS.get(name, {}))
            count, excess = count + 1, norm.excess(result.value)
            least = min(least, excess)
            assert (result.kind, result.status) == ("upper", "certified"), (seed, name)
            assert excess >= -1e-12, (seed, name, result.message)
            if sum(map(np.size, weights)) <= 60:
                assert not is_surely_below(result.value, weights), (seed, name, result.message)
    return count, least


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_bound_of_a_nonnegative_network_is_below_the_exact_constant(name):
    check_nonnegative(range(1_000_000, 1_000_150), [name], max_depth=20, max_width=16)


def test_no_bound_of_a_large_nonnegative_network_is_below_the_exact_constant():
    check_nonnegative(range(2_000_000, 2_000_020))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, MANY, CHUNK))
def test_ten_thousand_nonnegative_networks(start, record_property):
    count, least = check_nonnegative(range(start, start + CHUNK))
    record_property("bounds", count)
    record_property("least_excess", least)
    assert count >= len(GENERAL) * CHUNK


def test_the_reference_norm_is_that_of_exact_arithmetic():
    """The reference must be able to find fault: 1 − 1e-9 of the norm is below, the norm is not."""
    for seed in range(200):
        weights = random_weights(seed, max_depth=6, max_width=5)
        norm = Norm.of(weights)
        if norm.mantissa == 0.0:
            continue
        assert is_surely_below(norm.fraction * (1 - 10**-9), weights)
        assert not is_surely_below(norm.fraction * (1 + 10**-9), weights)
        assert norm.excess(float(norm.fraction) * (1 - 1e-9)) < -1e-10


@pytest.mark.parametrize("seed", range(40))
def test_attained_values_and_the_dual_value_lie_below_every_bound(seed):
    network = mixed_network(seed, max_depth=5, max_width=8)
    points = np.random.default_rng(seed).standard_normal((10, network.input_dim))
    lower = lower_bound(network, points, n_steps=20).value
    results = {name: bound(network, name, **OPTIONS.get(name, {})) for name in applicable(network)}
    for name, result in results.items():
        assert lower <= result.value * (1 + 1e-12), name
        assert verify_certificate(result.certificate, network), name
    dual = results["lipsdp_neuron"].details["dual_value"]
    results.pop("interval", None)  # bounds the function itself, not all of its slope ranges
    for name, result in results.items():
        assert result.details["float64_value"] >= dual * (1 - 1e-9), name


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rule", ["propagated", "box"])
def test_attained_values_lie_below_bounds_with_tightened_slopes(seed, rule):
    """A box around the origin, where the attained value is that of points inside it."""
    network = mixed_network(seed, max_depth=4, max_width=6)
    box = (-0.5, 0.5) if rule == "box" else None
    inside = np.random.default_rng(seed).uniform(-0.5, 0.5, (40, network.input_dim))
    attained = max(np.linalg.norm(network.jacobian(point), 2) for point in inside)
    for name in applicable(network):
        result = bound(network, name, slopes=rule, box=box, **OPTIONS.get(name, {}))
        assert attained <= result.value * (1 + 1e-12), name
        assert result.status == "certified"
        if name in ("norm_product", "lipsdp_neuron"):  # optimal, where others need not gain
            assert result.value <= bound(network, name).value * (1 + 1e-5), name


@cache
def deep(layers, width):
    """A nonnegative network with 4 inputs and 1 output, and its exact constant."""
    weights = dense_weights(0, [4, *[width] * (layers - 1), 1], signed=False)
    return LayeredNetwork.from_arrays(weights, activation="relu"), Norm.of(weights)


@pytest.mark.parametrize(("layers", "width"), [(64, 64), (100, 80)])
def test_deep_networks_get_their_exact_constant(layers, width, record_property):
    network, norm = deep(layers, width)
    result = bound(network, "lipsdp_neuron")
    record_property("seconds", result.seconds)
    assert -1e-12 <= norm.excess(result.value) <= 1e-4
    assert result.status == "certified"
    assert result.message == ""


@pytest.mark.parametrize(
    ("layers", "item"),
    [(20, "relu"), (20, "sigmoid"), (20, leaky_relu(0.2)), (20, "silu"), (40, "relu")],
)
def test_deep_signed_networks_are_never_above_a_closed_form(layers, item):
    network = LayeredNetwork.from_arrays(
        dense_weights(layers, [16] * (layers + 1)), activation=item
    )
    result = bound(network, "lipsdp_neuron")
    assert result.value <= bound(network, "eclipse_fast").value * (1 + 1e-9)
    assert result.details["duality_gap"] <= 1e-6 or result.message
    assert "norm product" not in result.message
    assert result.details["inflation"] <= 1e-6
