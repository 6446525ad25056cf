"""Lower bounds at kinks and at the edges of boxes, and options that are out of range."""

import numpy as np
import pytest

from harmonicvae.exceptions import HarmonicVAEError, InputError
from harmonicvae.lipschitz import bound, bracket, exact_constant, lower_bound
from harmonicvae.network import LayeredNetwork


def relu(*weights, biases=None):
    return LayeredNetwork.from_arrays(weights, biases, "relu")


def test_a_box_that_ends_at_a_kink_counts_its_own_side_only():
    network = relu([[1.0]], [[1.0]])
    result = bracket(network, box=(-1.0, 0.0))
    assert (result.lower.value, result.upper.value) == (0.0, 0.0)
    assert exact_constant(network, box=(-1.0, 0.0)).upper.value == 0.0
    plane = relu(np.eye(2), [[1.0, 1.0]])
    assert lower_bound(plane, box=(-1.0, 0.0)).value == 0.0
    assert lower_bound(plane, box=(0.0, 1.0)).value == pytest.approx(np.sqrt(2.0))


def test_inputs_that_a_box_fixes_do_not_count():
    network = LayeredNetwork.from_arrays([[[1.0, 100.0]]])
    assert lower_bound(network, box=([0.0, 5.0], [1.0, 5.0])).value == pytest.approx(1.0)
    assert lower_bound(network, box=([0.0, 5.0], [0.0, 5.0])).value == 0.0


def test_rounding_does_not_combine_slopes_of_different_regions():
    """f(x) = −1.7x + 1.241 for x > 0; at 0.73 both neurons vanish, up to rounding."""
    weights = [np.ones((3, 1)), [[-0.9, 0.1, -0.9], [0.9, 0.9, -0.1]], [[1.0, -1.0]]]
    biases = [np.zeros(3), [1.241, -1.241], [0.0]]
    network = LayeredNetwork.from_arrays(weights, biases, "relu")
    value = lower_bound(network, [[0.73]], n_steps=0, n_random=0).value
    assert value == pytest.approx(1.7)


@pytest.mark.parametrize("box", [(0.0, np.inf), (0.0, 0.0), (-np.inf, 1.0)])
def test_half_lines_and_points_are_boxes_of_one_input(box):
    network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    result = bound(network, box=box)
    assert result.status == "certified"
    assert result.value <= 1.5 + 1e-9


def test_a_constant_too_large_for_float64_is_not_claimed_without_proof():
    network = relu([[1e200]], [[1e200]])
    upper = bound(network, "interval", max_boxes=100)
    assert upper.value == np.inf
    assert upper.certificate is not None


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("eclipse", {"gap": 0}),
        ("eclipse", {"gap": float("nan")}),
        ("lipsdp_neuron", {"gap": "a"}),
        ("lipsdp_neuron", {"split": 2.5}),
        ("lipsdp_neuron", {"split": True}),
        ("lipsdp_neuron", {"max_size": 0}),
        ("lipsdp_neuron", {"max_iterations": None}),
        ("lipsdp_neuron", {"device": "nowhere"}),
        ("lipsdp_neuron", {"device": None}),
        ("best", {"split": -1}),
        ("best", {"unknown": 1}),
    ],
)
def test_options_out_of_range_are_one_clear_error(method, options):
    network = relu(np.eye(2), np.eye(2))
    with pytest.raises(InputError):
        bound(network, method, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"n_steps": 2.5},
        {"n_steps": "a"},
        {"n_random": -1},
        {"random_state": -1},
        {"foo": 1},
        {"box": (1.0, 0.0)},
        {"box": (float("nan"), 1.0)},
    ],
)
def test_a_lower_bounds_options_out_of_range_are_one_clear_error(options):
    with pytest.raises(HarmonicVAEError):
        lower_bound(relu(np.eye(2), np.eye(2)), **options)


def test_a_bracket_takes_the_options_of_both_sides():
    result = bracket(relu(np.eye(2), np.eye(2)), gap=1e-3, n_random=4)
    assert result.ratio == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("gap", [0.5, 0.3, 1e-2, 1e-6])
def test_the_duality_gap_asked_for_is_kept(gap):
    rng = np.random.default_rng(1)
    network = relu(*(rng.standard_normal(shape) for shape in [(12, 8), (12, 12), (3, 12)]))
    assert bound(network, "lipsdp_neuron", gap=gap).details["duality_gap"] <= gap
