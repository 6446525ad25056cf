"""Upper bounds against networks whose constant is known, for every method."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae.activations import elu, leaky_relu
from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz import Candidate, LipschitzMethod, bound, lower_bound
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import spectral_norm
from tests.lipschitz.cases import GENERAL, Norm, dense_weights, random_weights

EVERY_METHOD = pytest.mark.parametrize("method", GENERAL)
SOME = settings(max_examples=15, deadline=None)
#: What leaves so small a gap that it does not count among the tolerances.
CLOSED = {name: {"gap": 1e-9} for name in ("eclipse", "lipsdp_layer", "lipsdp_neuron")}


def weights_of(**limits):
    """Weight matrices as from :func:`random_weights`."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_weights(seed, **limits))


@EVERY_METHOD
@given(weights=weights_of())
@SOME
def test_never_below_the_exact_constant_of_nonnegative_networks(method, weights):
    result = bound(LayeredNetwork.from_arrays(weights, activation="relu"), method)
    assert (result.kind, result.status) == ("upper", "certified")
    assert Norm.of(weights).excess(result.value) >= -1e-12


@EVERY_METHOD
@given(
    weights=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20),
    slope=st.sampled_from(["relu", "tanh", "sigmoid", "softplus"]),
)
@SOME
def test_chains_of_numbers_are_bounded_in_exact_arithmetic(method, weights, slope):
    network = LayeredNetwork.from_arrays([[[w]] for w in weights], activation=slope)
    true = Fraction(1, 4) ** (len(weights) - 1) if slope == "sigmoid" else Fraction(1)
    for weight in weights:
        true *= Fraction(weight)
    value = Fraction(bound(network, method, **CLOSED.get(method, {})).value)
    excess = Fraction(1, 10**8 if method in CLOSED else 10**10)
    assert true <= value <= true * (1 + excess)


@EVERY_METHOD
@given(
    diagonals=st.lists(
        st.lists(st.floats(0.5, 8.0), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
@SOME
def test_diagonal_networks(method, diagonals):
    network = LayeredNetwork.from_arrays([np.diag(d) for d in diagonals], activation="relu")
    true = max(math.prod(Fraction(d[i]) for d in diagonals) for i in range(3))
    value = bound(network, method).value
    assert Fraction(value) >= true
    assert value <= math.prod(max(d) for d in diagonals) * (1 + 1e-9)


@given(weights=weights_of(signed=True, max_depth=6, max_width=12))
@settings(max_examples=60, deadline=None)
def test_linear_networks_get_their_norm(weights):
    network = LayeredNetwork.from_arrays(weights, activation="identity")
    value = bound(network, "norm_product").value
    rows = [[Fraction(float(e)) for e in row] for row in weights[0]]
    for weight in weights[1:]:
        rows = [
            [
                sum(Fraction(float(w)) * rows[k][j] for k, w in enumerate(r))
                for j in range(len(rows[0]))
            ]
            for r in weight
        ]
    peak = max(abs(entry) for row in rows for entry in row)
    if peak == 0:
        return
    true = spectral_norm([[float(entry / peak) for entry in row] for row in rows])
    assert Fraction(value) >= peak * Fraction(true) * (1 - Fraction(1, 10**13))
    if max(len(weight) for weight in weights) > 1:
        return
    assert Fraction(value) <= peak * Fraction(true) * (1 + Fraction(1, 10**9))


def test_consecutive_linear_layers_are_multiplied():
    """Two projections onto orthogonal axes: the product is zero but for rounding."""
    weights = [np.diag([1.0, 0.0]), np.diag([0.0, 3.0])]
    network = LayeredNetwork.from_arrays(weights, activation="identity")
    assert bound(network).value < 1e-14
    rng = np.random.default_rng(0)
    inner = [
        rng.standard_normal((30, 4)),
        rng.standard_normal((5, 30)),
        rng.standard_normal((2, 5)),
    ]
    split = LayeredNetwork.from_arrays(inner, None, ["identity", "tanh"])
    merged = LayeredNetwork.from_arrays([inner[1] @ inner[0], inner[2]], activation="tanh")
    for method in GENERAL:
        values = [bound(item, method, **CLOSED.get(method, {})).value for item in (split, merged)]
        assert values[0] == pytest.approx(values[1], rel=1e-8 if method in CLOSED else 1e-9)


@EVERY_METHOD
@given(
    weights=weights_of(signed=True, max_depth=6, max_width=16),
    name=st.sampled_from(["relu", "tanh", "sigmoid", "elu", "leaky_relu", "silu", "gelu"]),
)
@SOME
def test_signed_networks_lie_above_sampled_jacobians_and_below_the_norm_product(
    method, weights, name
):
    network = LayeredNetwork.from_arrays(weights, activation=name)
    upper = bound(network, method)
    x = np.random.default_rng(0).standard_normal((20, network.input_dim))
    assert lower_bound(network, x).value <= upper.value * (1 + 1e-12)
    assert upper.value <= bound(network, "norm_product").value
    assert upper.status == "certified"


@EVERY_METHOD
@pytest.mark.parametrize(
    "item", [leaky_relu(-0.5), leaky_relu(-1.0), leaky_relu(-2.0), leaky_relu(3.0), elu(-1.0)]
)
def test_slopes_of_both_signs_and_above_one(method, item):
    """x ↦ φ(x) alone, where the constant is the steepest slope, and random networks."""
    single = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation=item)
    steepest = max(abs(item.alpha), abs(item.beta))
    assert steepest <= bound(single, method).value <= steepest * (1 + 1e-6)
    rng = np.random.default_rng(0)
    for seed in range(10):
        shapes = [(5, 3), (6, 5), (2, 6)]
        network = LayeredNetwork.from_arrays(
            [rng.standard_normal(shape) for shape in shapes], activation=item
        )
        x = np.random.default_rng(seed).standard_normal((200, 3))
        assert lower_bound(network, x).value <= bound(network, method).value


def test_an_achieved_value_of_a_network_with_slopes_of_both_signs():
    """φ(x) − φ(−x) with φ of slope −1 left and 1 right is 0, with slope range [−1, 1] it is 2."""
    network = LayeredNetwork.from_arrays(
        [[[1.0], [1.0]], [[1.0, 1.0]]], activation=leaky_relu(-1.0)
    )
    for method in GENERAL:
        assert bound(network, method).value >= 2.0


def test_eclipse_is_tighter_than_the_norm_product_and_above_the_exact_value():
    weights = [
        np.random.default_rng(0).standard_normal(s) for s in [(10, 2), (30, 10), (20, 30), (2, 20)]
    ]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    fast, product = bound(network, "eclipse_fast").value, bound(network, "norm_product").value
    assert fast < 0.9 * product
    weights = dense_weights(1618, [2, 10, 30, 20, 2], signed=False)
    fast = bound(LayeredNetwork.from_arrays(weights, activation="relu"), "eclipse_fast")
    exact = spectral_norm(np.linalg.multi_dot(weights[::-1]))
    assert exact <= fast.value <= 1.5 * exact
    assert fast.method == "eclipse_fast"
    assert fast.message == ""


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_hundred_layers_keep_their_accuracy(scale):
    """Diagonal layers: constant known, and the recursion must neither under- nor overflow."""
    rng = np.random.default_rng(0)
    weights = [np.diag(rng.choice([0.5, 1.0, 2.0], 8)) for _ in range(100)]
    weights = [w * (scale if i % 2 else 1 / scale) for i, w in enumerate(weights)]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    result = bound(network, "eclipse_fast")
    product = bound(network, "norm_product").value
    assert np.linalg.norm(np.linalg.multi_dot(weights), 2) <= result.value <= product
    assert result.message == "" or "norm product is smaller" in result.message
    dense = [rng.standard_normal((40, 40)) * scale for _ in range(100)]
    dense = [w / scale if i % 2 else w / (40 * scale) for i, w in enumerate(dense)]
    result = bound(LayeredNetwork.from_arrays(dense, activation="relu"), "eclipse_fast")
    assert result.method == "eclipse_fast"
    assert result.message == ""
    assert result.details["inflation"] < 1e-6


@EVERY_METHOD
def test_extreme_magnitudes(method):
    huge = LayeredNetwork.from_arrays([np.full((3, 3), 1e200)] * 3, activation="relu")
    result = bound(huge, method)
    assert result.value == math.inf
    assert "largest float64" in result.message
    tiny = LayeredNetwork.from_arrays([np.full((3, 3), 1e-200)] * 3, activation="relu")
    assert 0.0 < bound(tiny, method).value < 1e-300
    balanced = LayeredNetwork.from_arrays(
        [np.full((3, 3), s) for s in (1e200, 1e200, 1e-200, 1e-200)], activation="relu"
    )
    assert bound(balanced, method).value == pytest.approx(81.0, rel=1e-9)
    assert bound(balanced, method).value >= 81.0 * (1 - 1e-15)
    zero = LayeredNetwork.from_arrays([np.ones((3, 3)), np.zeros((2, 3))], activation="relu")
    assert bound(zero, method).value == 0.0


@EVERY_METHOD
def test_slope_one_is_sixty_four_times_for_three_hidden_sigmoid_layers(method):
    layers = [nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8)]
    module = nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(8, 5))
    right, wrong = bound(module, method), bound(module, method, ["slope_one"])
    assert wrong.value == pytest.approx(64 * right.value, rel=1e-9)
    assert wrong.details["reproduction_errors"] == ["slope_one"]
    assert wrong.network_hash != right.network_hash


@EVERY_METHOD
@given(
    seed=st.integers(0, 1000),
    factor=st.sampled_from([2.0**-40, 0.3, 8.0, -1.0, 2.0**70]),
    name=st.sampled_from(["relu", "tanh", "silu", "leaky_relu"]),
)
@SOME
def test_equivariance(method, seed, factor, name):
    """Outputs scaled and rotated, neurons permuted, inputs rotated."""
    options = CLOSED.get(method, {})
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(s) for s in [(7, 4), (6, 7), (3, 6)]]
    value = bound(LayeredNetwork.from_arrays(weights, activation=name), method, **options).value
    order = rng.permutation(7)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    back = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    changed = [weights[0][order] @ rotation, weights[1][:, order], factor * back @ weights[2]]
    other = bound(LayeredNetwork.from_arrays(changed, activation=name), method, **options).value
    assert other == pytest.approx(abs(factor) * value, rel=1e-6 if options else 1e-9)


@given(seed=st.integers(0, 1000), wide=st.integers(20, 200), tall=st.integers(20, 200))
@settings(max_examples=25, deadline=None)
def test_wide_inputs_and_tall_outputs_are_reduced_without_loss(seed, wide, tall):
    """Orthonormal rows before, orthonormal columns after, change nothing."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(s) for s in [(7, 7), (6, 7), (6, 6)]]
    value = bound(LayeredNetwork.from_arrays(weights, activation="relu"), "eclipse_fast").value
    before = np.linalg.qr(rng.standard_normal((wide, 7)))[0].T
    after = np.linalg.qr(rng.standard_normal((tall, 6)))[0]
    weights = [weights[0] @ before, weights[1], after @ weights[2]]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    assert bound(network, "eclipse_fast").value == pytest.approx(value, rel=1e-9)


def test_best_is_the_smallest_of_all():
    rng = np.random.default_rng(3)
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal(s) for s in [(9, 5), (9, 9), (4, 9)]], activation="sigmoid"
    )
    best = bound(network)
    values = {name: bound(network, name, slopes="propagated").value for name in GENERAL}
    assert best.value == min(values.values())
    assert best.details["compared"] == {
        name: values[name] for name in ("norm_product", "eclipse_fast", "lipsdp_neuron")
    }
    assert best.network_hash == network.hash


class Guess(LipschitzMethod):
    """A method under test: whatever it claims, the base class must not believe it."""

    name = "guess"

    def __init__(self, answer):
        self.answer = answer

    def _bound(self, task):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(task.network) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    "answer",
    [
        SolverError("no"),
        Candidate(value=math.nan, proposal=None),
        Candidate(value=-1.0, proposal=None),
        lambda network: Candidate(value=0.1, proposal=_shrunk(network, 0.9)),
        lambda network: Candidate(value=0.1, proposal=_shrunk(network, 1.0, wrong_count=True)),
        lambda network: Candidate(value=0.1, proposal=_shrunk(network, 1.0, negative=True)),
    ],
)
def test_what_a_method_claims_is_not_believed(answer):
    rng = np.random.default_rng(5)
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal(s) for s in [(5, 4), (5, 5), (3, 5)]], activation="relu"
    )
    result = Guess(answer).bound(network)
    assert result.value == bound(network, "norm_product").value
    assert (result.kind, result.status) == ("upper", "certified")
    assert "the norm product is returned" in result.message


def _shrunk(network, factor, wrong_count=False, negative=False):
    from dataclasses import replace

    from harmonicvae.lipschitz.recursion import fast_multipliers

    true = fast_multipliers(build_chain(network).with_square_input())
    if wrong_count:
        return replace(true, values=true.values[:-1])
    if negative:
        return replace(true, values=(-true.values[0], *true.values[1:]))
    return replace(true, rho=true.rho * factor)


def test_a_proved_value_above_the_norm_product_is_replaced():
    rng = np.random.default_rng(5)
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal(s) for s in [(5, 4), (5, 5), (3, 5)]], activation="relu"
    )
    result = Guess(lambda net: Candidate(value=1.0, proposal=_shrunk(net, 100.0))).bound(network)
    assert result.value == bound(network, "norm_product").value
    assert "the norm product is smaller" in result.message


def test_a_value_without_proof_is_called_an_estimate():
    network = LayeredNetwork.from_arrays([[[2.0]]])
    result = Guess(Candidate(value=1.9, proposal=None)).bound(network)
    assert (result.kind, result.status, result.value) == ("estimate", "estimate", 1.9)
    assert result.certificate is None


def test_names_are_checked():
    network = LayeredNetwork.from_arrays([[[2.0]]])
    with pytest.raises(InputError, match="method must be 'best' or one of"):
        bound(network, "lipsdp_net")
    for errors in (["squared_std"], "slope_one", ["nothing"]):
        with pytest.raises(InputError, match="reproduction_errors"):
            bound(network, reproduction_errors=errors)
    with pytest.raises(InputError, match="must contain that of elu"):
        bound(
            LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation=elu(2.0)),
            reproduction_errors=["slope_one"],
        )
    with pytest.raises(InputError, match="LayeredNetwork or a torch module, got list"):
        bound([[1.0]])


@EVERY_METHOD
@given(
    a=st.floats(0.1, 1.0),
    b=st.floats(0.1, 1.0),
    ulps=st.integers(1, 20),
    place=st.sampled_from(["first", "middle", "last"]),
)
@settings(max_examples=50, deadline=None)
def test_cancellation_between_linear_layers_is_paid_for(method, a, b, ulps, place):
    """[a, b]·[b, −a′]ᵀ with a′ a few ulp from a: float64 may compute 0, the truth is not 0."""
    other = a * (1 + ulps * 2.0**-52)
    pair = [np.array([[b], [-other]]), np.array([[a, b]])]
    outer = np.ones((1, 1))
    layers = {
        "first": ([*pair, outer], ["identity", "relu"]),
        "middle": ([outer, *pair, outer], ["relu", "identity", "relu"]),
        "last": ([outer, *pair], ["relu", "identity"]),
    }
    weights, activations = layers[place]
    network = LayeredNetwork.from_arrays(weights, None, activations)
    true = abs(Fraction(a) * Fraction(b) - Fraction(b) * Fraction(other))
    assert Fraction(bound(network, method).value) >= true


@given(
    weights=weights_of(signed=True, max_depth=5, max_width=8),
    factor=st.floats(0.5, 1.5),
    activation=st.sampled_from(["relu", "sigmoid"]),
)
@SOME
def test_norm_products_are_said_to_exceed_only_what_they_exceed(weights, factor, activation):
    chain = build_chain(LayeredNetwork.from_arrays(weights, activation=activation))
    proved = chain.norm_product(chain.layer_norms())
    assert not chain.norm_product_exceeds(proved)
    if chain.norm_product_exceeds(factor * proved):
        assert proved > factor * proved


def test_norm_products_that_are_far_larger_are_recognised():
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((20, 20)) for _ in range(4)]
    chain = build_chain(LayeredNetwork.from_arrays(layers, activation="tanh"))
    assert chain.norm_product_exceeds(0.5 * chain.norm_product(chain.layer_norms()))
