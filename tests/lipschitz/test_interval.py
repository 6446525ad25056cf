"""The exact constant of networks with one input, against closed forms and dense grids."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harmonicvae.activations import ACTIVATIONS, elu, leaky_relu
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.interval import exact_constant
from harmonicvae.lipschitz.leaves import Leaves, proves_leaves
from harmonicvae.lipschitz.segments import SegmentNetwork
from harmonicvae.lipschitz.slopes import slope_ranges
from harmonicvae.network import LayeredNetwork

ITEMS = [ACTIVATIONS[name]() for name in ACTIVATIONS] + [leaky_relu(-0.5), elu(2.0), elu(-1.0)]


def random_network(seed, dims, item, gain=2.0, bias=1.0):
    rng = np.random.default_rng(seed)
    weights = [gain * rng.standard_normal((b, a)) / np.sqrt(a) for a, b in pairwise(dims)]
    biases = [bias * rng.standard_normal(b) for b in dims[1:]]
    return LayeredNetwork.from_arrays(weights, biases, item)


def norms_at(network, points):
    """‖f′‖ from slopes, in plain float64."""
    product = np.broadcast_to(network.weights[0].T, (len(points), len(network.weights[0])))
    for slope, weight in zip(network.local_slopes(points[:, None]), network.weights[1:]):
        product = (slope * product) @ weight.T
    return np.linalg.norm(product, axis=1)


def grid_maximum(network, low, high, count=4000, rounds=4):
    """The largest ‖f′‖ on a grid that is refined around its best points."""
    points, step = np.linspace(low, high, count), (high - low) / count
    for _ in range(rounds):
        norms = norms_at(network, points)
        best = points[np.argsort(-norms)[:5]]
        points = np.concatenate([z + np.linspace(-step, step, 101) for z in best])
        step /= 50
    return float(norms_at(network, points).max())


@pytest.mark.parametrize(("item", "slope"), [("sigmoid", 0.25), ("tanh", 1.0)])
@given(
    w=st.floats(0.01, 100.0), v=st.floats(0.01, 100.0), b=st.floats(-1e4, 1e4), flip=st.booleans()
)
@settings(max_examples=20, deadline=None)
def test_one_neuron_has_its_steepest_slope(item, slope, w, v, b, flip):
    weight = -w if flip else w
    network = LayeredNetwork.from_arrays([[[weight]], [[v], [-v]]], [[b], [0, 0]], item)
    result = exact_constant(network)
    exact = math.sqrt(2.0) * w * v * slope
    assert exact * (1 - 1e-4) <= result.lower.value <= exact * (1 + 1e-12)
    assert exact <= result.upper.value * (1 + 1e-15)
    assert result.upper.value <= exact * (1 + 2e-4)
    assert (result.upper.status, result.upper.message) == ("certified", "")
    assert (result.upper.scope, result.upper.method) == ("global", "interval")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_sums_of_two_sigmoids_against_a_grid(seed):
    rng = np.random.default_rng(seed)
    w, b, v = rng.uniform(0.5, 4, 2), rng.uniform(-6, 6, 2), rng.uniform(-2, 2, 2)
    network = LayeredNetwork.from_arrays([w[:, None], v[None, :]], [b, [0.0]], "sigmoid")
    result = exact_constant(network)
    z = np.linspace(-40.0, 40.0, 200_001)
    s = 1 / (1 + np.exp(-np.clip(w[:, None] * z + b[:, None], -500, 500)))
    largest = np.max(np.abs((v * w) @ (s * (1 - s))))
    assert largest <= result.upper.value
    assert result.upper.value <= largest * (1 + 2e-4)
    assert result.ratio <= 1 + 1e-4


@given(
    seed=st.integers(0, 10_000),
    item=st.sampled_from(ITEMS),
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bias=st.sampled_from([0.0, 1.0, 3.0]),
    gain=st.sampled_from([0.5, 2.0, 4.0]),
)
@example(seed=249, item=elu(2.0), dims=[1, 1], bias=0.0, gain=2.0)  # the best input is a kink
@settings(max_examples=70, deadline=None)
def test_random_networks_against_a_grid(seed, item, dims, bias, gain):
    network = random_network(seed, [1, *dims], item, gain, bias)
    result = exact_constant(network, max_boxes=20_000)
    reached = max(grid_maximum(network, -6, 6), grid_maximum(network, -60, 60))
    assert reached <= result.upper.value * (1 + 1e-12)
    assert result.lower.value <= result.upper.value * (1 + 1e-12)
    assert result.ratio <= 1 + 1e-4, result.upper.message
    assert result.upper.message == ""
    point = np.array(result.lower.details["point"])
    assert np.linalg.norm(network.jacobian(point)) == pytest.approx(result.lower.value, rel=1e-12)


@given(seed=st.integers(0, 10_000), names=st.lists(st.sampled_from(ITEMS), min_size=2, max_size=3))
@settings(max_examples=20, deadline=None)
def test_mixed_activations_meet(seed, names):
    network = random_network(seed, [1, *[6] * len(names), 3], names)
    result = exact_constant(network, max_boxes=40_000)
    assert grid_maximum(network, -20, 20) <= result.upper.value * (1 + 1e-12)
    assert result.ratio <= 1 + 1e-4, result.upper.message


@given(
    seed=st.integers(0, 10_000),
    item=st.sampled_from(ITEMS),
    centre=st.floats(-30, 30),
    width=st.floats(1e-6, 100),
    split=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_every_segment_bound_covers_its_points(seed, item, centre, width, split):
    """The enclosure itself, without the search: no point of a segment lies above its bound."""
    network = random_network(seed, [1, 7, 6, 4], item)
    ends = np.linspace(centre - width, centre + width, split + 1)
    low, high = np.append(ends[:-1], [-np.inf, ends[-1]]), np.append(ends[1:], [ends[0], np.inf])
    line = SegmentNetwork(network)
    bounds = line.bounds(low, high)
    for a, b, upper in zip(low, high, np.ldexp(bounds.upper, line.exponent)):
        inside = np.linspace(max(a, -1e3 - width), min(b, 1e3 + width), 101)
        assert np.max(norms_at(network, inside)) <= upper * (1 + 1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e6, 1e9])
def test_the_maximiser_may_lie_far_out(shift):
    """Moving the input moves the maximiser, not the constant."""
    network = random_network(3, [1, 8, 8, 3], "tanh")
    first = network.weights[0][:, 0]
    moved = LayeredNetwork.from_arrays(
        network.weights, [network.biases[0] - shift * first, *network.biases[1:]], "tanh"
    )
    result = exact_constant(moved)
    assert result.ratio <= 1 + 1e-4
    assert result.upper.value == pytest.approx(exact_constant(network).upper.value, rel=3e-4)


@pytest.mark.parametrize("first", [1e-12, 1e12])
@pytest.mark.parametrize("last", [1e-200, 1e-12, 1e12, 1e200])
@pytest.mark.parametrize("item", ["relu", "sigmoid", "softplus"])
def test_scales_of_the_outer_layers_multiply_the_constant(item, first, last):
    network = random_network(5, [1, 6, 5, 3], item)
    scaled = LayeredNetwork.from_arrays(
        [first * network.weights[0], network.weights[1], last * network.weights[2]],
        [network.biases[0], network.biases[1], network.biases[2]],
        item,
    )
    result = exact_constant(scaled)
    assert result.ratio <= 1 + 1e-4
    expected = exact_constant(network).upper.value
    assert result.upper.value / first / last == pytest.approx(expected, rel=3e-4)


def test_box_counts_only_its_inputs():
    network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation="sigmoid")
    result = exact_constant(network, box=([1.0], [2.0]))
    exact = math.exp(-1) / (1 + math.exp(-1)) ** 2
    assert exact <= result.upper.value <= exact * (1 + 1e-4)
    assert (result.upper.scope, result.lower.scope) == ("box", "box")
    assert 1.0 <= result.lower.details["point"][0] <= 2.0
    assert result.lower.value == pytest.approx(exact, rel=1e-4)


@given(seed=st.integers(0, 1000), item=st.sampled_from(ITEMS))
@settings(max_examples=10, deadline=None)
def test_boxes_are_below_the_line_and_above_their_points(seed, item):
    network = random_network(seed, [1, 6, 6, 2], item)
    box = sorted(np.random.default_rng(seed).uniform(-3, 3, 2))
    local, whole = exact_constant(network, box=box), exact_constant(network)
    assert local.lower.value <= whole.upper.value * (1 + 1e-12)
    assert np.max(norms_at(network, np.linspace(*box, 500))) <= local.upper.value * (1 + 1e-12)
    assert local.ratio <= 1 + 1e-4


def test_degenerate_networks():
    linear = LayeredNetwork.from_arrays([[[3.0], [4.0]]])
    assert exact_constant(linear).lower.value == 5.0
    assert 5.0 <= exact_constant(linear).upper.value <= 5.0 * (1 + 1e-9)
    for weights in ([[[0.0]], [[2.0]]], [[[2.0]], [[0.0]]]):
        for item in ("relu", "sigmoid", "elu"):
            constant = LayeredNetwork.from_arrays(weights, [[1.0], [1.0]], item)
            result = exact_constant(constant)
            assert (result.lower.value, result.upper.value, result.ratio) == (0.0, 0.0, 1.0)
    dead = LayeredNetwork.from_arrays([[[1.0]], [[-1.0]], [[1.0]]], [[0], [-1.0], [0]], "relu")
    assert exact_constant(dead).upper.value == 0.0
    hinge = LayeredNetwork.from_arrays([[[1.0], [-1.0]], [[2.0, 3.0]]], activation="relu")
    assert exact_constant(hinge).upper.value == pytest.approx(3.0, rel=1e-9)


def test_widened_slopes_do_not_change_the_function():
    network = random_network(0, [1, 5, 2], "sigmoid")
    wide = network.with_slopes(0.0, 1.0)
    with pytest.raises(InputError, match="wider ones have no effect"):
        exact_constant(wide)


def test_kinks_of_many_neurons_at_one_input():
    """Eight neurons with kinks at 0.3, right up to rounding: reported, not hidden."""
    w = np.random.default_rng(0).standard_normal((8, 1))
    v = np.random.default_rng(1).standard_normal((2, 8))
    network = LayeredNetwork.from_arrays([w, v], [-0.3 * w[:, 0], [0, 0]], "relu")
    result = exact_constant(network, max_boxes=5000)
    sides = [np.linalg.norm(v[:, w[:, 0] * side > 0] @ w[w[:, 0] * side > 0]) for side in (1, -1)]
    assert max(sides) * (1 - 1e-12) <= result.upper.value
    assert result.lower.value >= max(sides) * (1 - 1e-12)
    assert (result.upper.message == "") == (result.ratio <= 1 + 1e-4)


def test_certificates_prove_again_and_altered_ones_do_not():
    network = random_network(1, [1, 8, 8, 3], "sigmoid")
    for box in (None, (-1.0, 0.5)):
        upper = exact_constant(network, box=box).upper
        certificate = json.loads(json.dumps(upper.to_dict()["certificate"]))
        assert certificate["value"] == upper.value
        assert Leaves.verify(certificate, network)
        assert not Leaves.verify({**certificate, "value": upper.value * (1 - 1e-3)}, network)
        coarse = {**certificate, "breakpoints": certificate["breakpoints"][::20]}
        assert not Leaves.verify(coarse, network)
        with pytest.raises(InputError, match="ascending"):
            Leaves.verify({**certificate, "breakpoints": certificate["breakpoints"][::-1]}, network)
    with pytest.raises(InputError, match="scope"):
        Leaves.verify({**certificate, "scope": "global"}, network)
    with pytest.raises(InputError, match="must be finite"):
        Leaves.verify({**certificate, "breakpoints": [math.nan]}, network)


def test_leaves_prove_nothing_for_wrong_breakpoints():
    network = random_network(1, [1, 3, 2], "sigmoid")
    slopes = slope_ranges(network, "activation")
    assert Leaves((1.0, 0.0)).prove(network, slopes) is None
    assert Leaves(()).prove(network, slopes).value >= exact_constant(network).upper.value
    assert not proves_leaves(network, [-np.inf, np.inf], 0.0)
    for points in ([0.0], [0.0, 0.0], [0.0, np.nan], [1.0, 0.0]):
        with pytest.raises(InputError, match="ascending"):
            proves_leaves(network, points, 1.0)


def test_stops_cleanly_and_says_so():
    network = random_network(7, [1, 40, 40, 5], "sigmoid", gain=6.0)
    exact = exact_constant(network)
    few = exact_constant(network, max_boxes=2)
    assert "max_boxes" in few.upper.message
    assert few.upper.status == "certified"
    assert few.upper.value >= exact.lower.value
    calls = []

    def stop(lower, upper, evaluated):
        calls.append((lower, upper, evaluated))
        return len(calls) == 3

    stopped = exact_constant(network, progress=stop)
    assert stopped.upper.message.startswith("stopped on request")
    assert stopped.upper.value >= exact.lower.value
    assert all(lower <= upper for lower, upper, _ in calls)
    assert calls[0][1] >= calls[-1][1]


def test_arguments_are_checked():
    network = random_network(0, [1, 3, 2], "sigmoid")
    with pytest.raises(InputError, match="1 input, got 2"):
        exact_constant(random_network(0, [2, 3, 2], "sigmoid"))
    with pytest.raises(InputError, match="1 input, got 2"):
        proves_leaves(random_network(0, [2, 3, 2], "sigmoid"), [0.0, 1.0], 1.0)
    for rtol in (0.0, -1.0, 1.0, math.nan):
        with pytest.raises(InputError, match="rtol"):
            exact_constant(network, rtol=rtol)
    with pytest.raises(InputError, match="max_boxes"):
        exact_constant(network, max_boxes=1)
    for box in ((1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), 3.0, ([0, 1], [2, 3])):
        with pytest.raises(InputError, match="box must"):
            exact_constant(network, box=box)


def test_a_decoder_of_the_sincs_size_meets():
    network = random_network(0, [1, 256, 256, 256, 344], "sigmoid", gain=3.0)
    result = exact_constant(network)
    assert result.ratio <= 1 + 1e-4
    assert grid_maximum(network, -4, 4) <= result.upper.value
