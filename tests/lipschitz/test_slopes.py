"""Slope ranges: they hold for sampled inputs and exact ones, and propagation tightens them."""

from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from harmonicvae.activations import ACTIVATIONS, Activation, activation, leaky_relu
from harmonicvae.enclosures.intervals import Interval
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import slopes
from harmonicvae.lipschitz.slopes import RULES, slope_ranges
from harmonicvae.network import LayeredNetwork

NAMES = sorted(ACTIVATIONS)


def random_network(seed, dims, names, scale=1.0):
    rng = np.random.default_rng(seed)
    weights = [scale * rng.standard_normal((b, a)) for a, b in pairwise(dims)]
    biases = [rng.standard_normal(len(weight)) for weight in weights]
    chosen = [names] * (len(weights) - 1) if isinstance(names, str) else names
    return LayeredNetwork.from_arrays(weights, biases, chosen)


def quotients(network, x, y):
    """Yield, per hidden layer, difference quotients and how sure float64 is of them."""
    for i, item in enumerate(network.activations):
        x = x @ network.weights[i].T + network.biases[i]
        y = y @ network.weights[i].T + network.biases[i]
        far = np.abs(x - y) > 1e-4
        quotient = (item.function(x) - item.function(y)) / np.where(far, x - y, 1.0)
        yield quotient, far
        x, y = item.function(x), item.function(y)


@st.composite
def networks(draw):
    depth = draw(st.integers(1, 5))
    dims = [draw(st.integers(1, 7)) for _ in range(depth + 1)]
    names = [draw(st.sampled_from(NAMES)) for _ in range(depth - 1)]
    scale = draw(st.sampled_from([0.1, 1.0, 3.0]))
    return random_network(draw(st.integers(0, 10_000)), dims, names, scale)


@given(
    network=networks(),
    rule=st.sampled_from(RULES),
    size=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=250, deadline=None)
def test_hold_for_sampled_pairs_of_inputs(network, rule, size, seed):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(network.input_dim)
    box = (centre - size, centre + size)
    ranges = slope_ranges(network, rule, box if rule == "box" else None)
    shape = (200, network.input_dim)
    reach = size if rule == "box" else 5.0
    x, y = (centre + reach * rng.uniform(-1, 1, shape) for _ in range(2))
    corners = rng.choice([-1.0, 1.0], shape)
    x[:50] = (centre + reach * corners)[:50]
    if rule == "box":
        x, y = np.clip(x, *box), np.clip(y, *box)
    items = zip(ranges.alphas, ranges.betas, network.activations)
    layers = zip(quotients(network, x, y), network.local_slopes(x))
    for (alpha, beta, item), ((quotient, far), slope) in zip(items, layers, strict=True):
        assert np.all(item.alpha <= alpha)
        assert np.all(alpha <= beta)
        assert np.all(beta <= item.beta)
        assert np.all(np.where(far, quotient - alpha, 0.0) >= -1e-9)
        assert np.all(np.where(far, beta - quotient, 0.0) >= -1e-9)
        assert np.all(slope >= alpha - 1e-9 * (1 + np.abs(slope)))
        assert np.all(slope <= beta + 1e-9 * (1 + np.abs(slope)))


def exact_slopes(network, point):
    """φ′ of every hidden neuron of a sigmoid network in 60 digits."""
    values = [mpf(float(x)) for x in point]
    for weight, bias in zip(network.weights[:-1], network.biases):
        sums = [
            mpf(float(b)) + mpmath.fsum(mpf(float(w)) * x for w, x in zip(row, values))
            for row, b in zip(weight, bias)
        ]
        values = [1 / (1 + mpmath.exp(-s)) for s in sums]
        yield [v * (1 - v) for v in values]


@given(seed=st.integers(0, 10_000), dims=st.lists(st.integers(1, 4), min_size=3, max_size=5))
@settings(max_examples=40, deadline=None)
def test_rounding_is_outwards(seed, dims):
    """At one point all that keeps the exact slopes inside is the rounding."""
    network = random_network(seed, dims, "sigmoid", scale=2.0)
    point = np.random.default_rng(seed).standard_normal(dims[0])
    ranges = slope_ranges(network, "box", (point, point))
    with mpmath.workdps(60):
        for i, slopes_of_layer in enumerate(exact_slopes(network, point)):
            for j, slope in enumerate(slopes_of_layer):
                assert mpf(float(ranges.alphas[i][j])) <= slope <= mpf(float(ranges.betas[i][j]))


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_propagation_is_strictly_tighter_behind_bounded_outputs(name):
    network = random_network(0, [5, 6, 6, 6, 3], name, scale=0.5)
    ranges = slope_ranges(network)
    item = activation(name)
    assert np.all(ranges.alphas[0] == item.alpha)
    assert np.all(ranges.betas[0] == item.beta)
    for alpha in ranges.alphas[1:]:
        assert np.all(alpha > item.alpha)
    biased = network.biases[1] + 9.0  # no pre-activation of the second layer reaches 0
    moved = LayeredNetwork.from_arrays(
        network.weights, [network.biases[0], biased, *network.biases[2:]], name
    )
    assert np.all(slope_ranges(moved).betas[1] < 0.9 * item.beta)
    assert (ranges.rule, ranges.scope, ranges.box) == ("propagated", "global", None)


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_piecewise_linear_networks_keep_their_range_without_a_box(name):
    network = random_network(1, [4, 5, 5, 2], name)
    propagated, plain = slope_ranges(network), slope_ranges(network, "activation")
    for one, other in zip(propagated.alphas + propagated.betas, plain.alphas + plain.betas):
        np.testing.assert_array_equal(one, other)


def test_one_sided_outputs_still_help():
    """relu(x) ≥ 0 and a positive weight: the second neuron is always on."""
    network = LayeredNetwork.from_arrays(
        [[[1.0]], [[2.0], [-2.0]], [[1.0, 1.0]]], [[0.0], [1.0, -1.0], [0.0]], "relu"
    )
    ranges = slope_ranges(network)
    np.testing.assert_array_equal(ranges.alphas[1], [1.0, 0.0])
    np.testing.assert_array_equal(ranges.betas[1], [1.0, 0.0])


def test_a_known_chain():
    """σ of [0, 2] has slopes from σ′(2) to σ′(0); of a box that is a point, one slope."""
    network = LayeredNetwork.from_arrays([[[1.0]], [[2.0]], [[1.0]]], activation="sigmoid")
    ranges = slope_ranges(network)
    end = np.exp(-2.0) / (1 + np.exp(-2.0)) ** 2
    assert ranges.alphas[1][0] == pytest.approx(end, rel=1e-13)
    assert ranges.alphas[1][0] < end * (1 + 1e-15)
    assert ranges.betas[1][0] == 0.25
    point = slope_ranges(network, "box", (0.0, 0.0))
    assert point.alphas[0][0] == pytest.approx(0.25, rel=1e-13)
    assert point.betas[1][0] == pytest.approx(np.exp(-1.0) / (1 + np.exp(-1.0)) ** 2, rel=1e-13)
    assert point.betas[1][0] - point.alphas[1][0] < 1e-13
    assert point.scope == "box"


@pytest.mark.parametrize("name", NAMES)
def test_smaller_boxes_and_rules_are_nested(name):
    network = random_network(3, [3, 6, 6, 2], name)
    rules = [
        slope_ranges(network, "activation"),
        slope_ranges(network, "propagated"),
        slope_ranges(network, "box", (-np.inf, np.inf)),
        slope_ranges(network, "box", (-1.0, 1.0)),
        slope_ranges(network, "box", (-0.01, 0.01)),
    ]
    for wide, narrow in pairwise(rules):
        for i in range(2):
            assert np.all(wide.alphas[i] <= narrow.alphas[i] + 1e-12)
            assert np.all(narrow.betas[i] <= wide.betas[i] + 1e-12)


def test_a_box_is_never_looser_than_all_inputs():
    """Wide boxes, where forms in the inputs lose against forms in the first layer's outputs."""
    rng = np.random.default_rng(0)
    dims = [16, 40, 40, 40, 4]
    weights = [rng.uniform(-1, 1, (b, a)) / np.sqrt(a) for a, b in pairwise(dims)]
    network = LayeredNetwork.from_arrays(weights, activation="sigmoid")
    everywhere = slope_ranges(network)
    for size in (0.5, 2.0, 8.0):
        local = slope_ranges(network, "box", (-size, size))
        for i in range(3):
            assert np.all(local.alphas[i] >= everywhere.alphas[i])
            assert np.all(local.betas[i] <= everywhere.betas[i])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_affine_forms_are_at_least_as_tight_as_intervals(name, monkeypatch):
    network = random_network(4, [3, 8, 8, 8, 2], name, scale=0.6)
    forms = slope_ranges(network, "box", (-0.3, 0.3))
    monkeypatch.setattr(slopes._AffineForm, "of", lambda low, high: [])
    intervals = slope_ranges(network, "box", (-0.3, 0.3))
    spans = []
    for ranges in (forms, intervals):
        spans.append(sum(np.sum(b - a) for a, b in zip(ranges.alphas, ranges.betas)))
    assert spans[0] <= spans[1] + 1e-12
    if name not in ("relu", "leaky_relu"):
        assert spans[0] < 0.9 * spans[1]


@given(network=networks(), size=st.sampled_from([0.0, 1e-3, 1.0]), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_box_of_one_point_gives_the_local_slopes(network, size, seed):
    """Where nothing is lost but rounding, the ranges close around float64's slopes."""
    point = size * np.random.default_rng(seed).standard_normal(network.input_dim)
    ranges = slope_ranges(network, "box", (point, point))
    values = point[None]
    for i, slope in enumerate(network.local_slopes(point[None])):
        values = values @ network.weights[i].T + network.biases[i]
        item = network.activations[i]
        smooth = np.ones_like(slope[0], bool) if item.kink is None else np.abs(values[0]) > 1e-6
        near = {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(ranges.alphas[i][smooth], slope[0][smooth], **near)
        np.testing.assert_allclose(ranges.betas[i][smooth], slope[0][smooth], **near)
        values = item.function(values)


def test_identities_and_widened_slopes_are_kept():
    network = random_network(5, [3, 4, 4, 2], ["identity", "sigmoid"]).with_slopes(0.0, 1.0)
    for rule in ("activation", "propagated"):
        ranges = slope_ranges(network, rule)
        assert np.all(ranges.alphas[0] == 1.0)
        assert np.all(ranges.betas[0] == 1.0)
        assert np.all(ranges.alphas[1] == 0.0)
        assert np.all(ranges.betas[1] == 1.0)


def test_unknown_activations_end_the_propagation_only():
    sine = Activation("sine", -1.0, 1.0, np.sin, np.cos, lambda z: -np.sin(z))
    network = random_network(6, [3, 4, 4, 4, 2], [sine, "sigmoid", "sigmoid"])
    ranges = slope_ranges(network, "box", (-1.0, 1.0))
    assert np.all(ranges.betas[0] == 1.0)
    assert np.all(ranges.alphas[1] == 0.0)
    assert np.all(ranges.alphas[2] > 0.0)


def test_extreme_scales_give_valid_ranges():
    for scale in (1e-300, 1e-160, 1e150, 1e300):
        for name in NAMES:
            network = random_network(7, [3, 4, 4, 4, 2], name, scale)
            for rule, box in (
                ("propagated", None),
                ("box", (-1e10, 1e10)),
                ("box", (-1e308, 1e308)),
            ):
                ranges = slope_ranges(network, rule, box)
                for alpha, beta, item in zip(ranges.alphas, ranges.betas, network.activations):
                    assert np.all((item.alpha <= alpha) & (alpha <= beta) & (beta <= item.beta))


def test_the_form_limit_only_loosens(monkeypatch):
    network = random_network(8, [3, 6, 6, 6, 2], "sigmoid")
    full = slope_ranges(network, "box", (-0.5, 0.5))
    monkeypatch.setattr(slopes, "_FORM_LIMIT", 0)
    less = slope_ranges(network, "box", (-0.5, 0.5))
    for i in range(3):
        assert np.all(less.alphas[i] <= full.alphas[i] + 1e-12)
        assert np.all(full.betas[i] <= less.betas[i] + 1e-12)


def test_integer_ends_that_float64_cannot_hold_move_outwards():
    network = random_network(9, [1, 4, 2], "sigmoid")
    box = slope_ranges(network, "box", (-(2**53) - 1, 2**53 + 1)).box
    assert int(box[0][0]) <= -(2**53) - 1
    assert int(box[1][0]) >= 2**53 + 1


def test_results_are_read_only_and_of_the_layers_sizes():
    network = random_network(9, [3, 4, 5, 2], "gelu")
    for rule in RULES:
        ranges = slope_ranges(network, rule, (0, 1) if rule == "box" else None)
        assert tuple(map(len, ranges.alphas)) == tuple(map(len, ranges.betas)) == (4, 5)
        assert not any(part.flags.writeable for part in ranges.alphas + ranges.betas)
    np.testing.assert_array_equal(ranges.box[0], np.zeros(3))
    np.testing.assert_array_equal(ranges.box[1], np.ones(3))
    linear = LayeredNetwork.from_arrays([np.eye(2)])
    assert slope_ranges(linear).alphas == ()


@pytest.mark.parametrize(
    ("rule", "box", "message"),
    [
        ("guess", None, "rule must be one of"),
        ("box", None, "needs a box"),
        ("propagated", (0.0, 1.0), "needs rule='box'"),
        ("activation", (0.0, 1.0), "needs rule='box'"),
        ("box", 1.0, "pair"),
        ("box", "ab", "pair"),
        ("box", (0.0, 1.0, 2.0), "pair"),
        ("box", (np.nan, 1.0), "NaN"),
        ("box", (0.0, [1.0, 1.0, np.nan]), "NaN"),
        ("box", (0.0, [1.0, 1.0]), r"3 of them for its high end"),
        ("box", (np.zeros((1, 3)), 1.0), r"3 of them for its low end"),
        ("box", (1.0, 0.0), "low <= high"),
        ("box", ([0.0, 2.0, 0.0], [1.0, 1.0, 1.0]), "at input 1"),
        ("box", ("a", 1.0), "real numbers"),
        ("box", (None, 1.0), "real numbers"),
        ("box", (0.0, [[1.0], [1.0, 2.0]]), "its high end does not"),
        ("box", (1j, 1.0), "real numbers"),
    ],
)
def test_bad_rules_and_boxes_are_refused(rule, box, message):
    network = random_network(0, [3, 4, 2], "sigmoid")
    with pytest.raises(InputError, match=message):
        slope_ranges(network, rule, box)


@given(
    seed=st.integers(0, 2**32 - 1),
    through=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_affine_forms_hold_in_rational_arithmetic_where_everything_cancels(seed, through):
    """(a − a′)·x with a ≈ a′: only the error terms keep the exact values inside."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.5, 1.0, 40)
    pair = np.column_stack([a, a * (1 + rng.integers(0, 3, 40) * 2.0**-52)])
    low, high = -rng.uniform(1, 2, 40), -rng.uniform(0, 1, 40)
    item = leaky_relu(rng.uniform(0.1, 0.9))
    for (first, second), start, end in zip(pair, low, high):
        box = np.array([start]), np.array([end])
        (form,) = slopes._AffineForm.of(*box)
        (form,) = form.after_layer(np.array([[first], [second]]), np.zeros(2))
        factor = Fraction(1)
        if through:
            ends = form.bounds()
            (form,) = form.after_activation(item, ends.lower, ends.upper)
            factor = Fraction(item.parameters[0])
        (last,) = form.after_layer(np.array([[1.0, -1.0]]), np.zeros(1))
        bounds = last.bounds()
        for x in (start, end, 0.5 * start + 0.5 * end):
            exact = factor * (Fraction(first) - Fraction(second)) * Fraction(x)
            assert Fraction(bounds.lower[0]) <= exact <= Fraction(bounds.upper[0])
        assert bounds.upper[0] - bounds.lower[0] < 1e-13


def test_errors_of_the_affine_forms_are_counted():
    """With the rest exact, the matrix alone must not be trusted."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(50):
        a, r = rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0)
        weight = np.array([[a], [a * (1 + 2.0**-52)]])
        form = slopes._AffineForm(np.array([r]), Interval(np.zeros(1), np.zeros(1)))
        (form,) = form.after_layer(weight, np.zeros(2))
        (form,) = form.after_layer(np.array([[1.0, -1.0]]), np.zeros(1))
        exact = abs(Fraction(weight[0, 0]) - Fraction(weight[1, 0])) * Fraction(r)
        assert Fraction(form.bounds().upper[0]) >= exact
        missed += Fraction(abs(form.matrix[0, 0])) < exact
    assert missed > 0
