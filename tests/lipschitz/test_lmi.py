"""Chains and matrix inequalities against textbook forms and exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.activations import leaky_relu
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.certificate import LayerNorms, Multipliers, Split, prove
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.exact import Dyadic, is_positive_semidefinite
from harmonicvae.lipschitz.lmi import LmiMatrix
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges
from harmonicvae.network import LayeredNetwork

from .proposals import (
    exact_product,
    gershgorin_multipliers,
    propose,
    random_network,
    random_slopes,
    squared_norm_below,
)


def dense_inequality(chain, multipliers, rho):
    """The matrix of the inequality from its textbook form, in plain float64."""
    weights = [np.ldexp(b.matrix, s) for b, s in zip(chain.blocks, [*multipliers.shifts, 0])]
    dims = [weights[0].shape[1], *(len(w) for w in weights[:-1])]
    offset = np.concatenate([[0], np.cumsum(dims)])
    hidden = offset[-1] - dims[0]
    before = np.zeros((hidden, offset[-1]))
    after = np.hstack([np.zeros((hidden, dims[0])), np.eye(hidden)])
    row = 0
    for i, weight in enumerate(weights[:-1]):
        before[row : row + len(weight), offset[i] : offset[i + 1]] = weight
        row += len(weight)
    t = np.concatenate([np.broadcast_to(v, d) for v, d in zip(multipliers.values, dims[1:])])
    low, high = np.concatenate(chain.alphas), np.concatenate(chain.betas)
    stacked = np.vstack([before, after])
    middle = np.block(
        [
            [np.diag(-2 * low * high * t), np.diag((low + high) * t)],
            [np.diag((low + high) * t), np.diag(-2 * t)],
        ]
    )
    form = 0.5 * stacked.T @ middle @ stacked
    form[: dims[0], : dims[0]] -= np.eye(dims[0])
    last = weights[-1]
    form[offset[-2] :, offset[-2] :] += last.T @ last / rho
    return -form


@given(
    seed=st.integers(0, 10_000),
    slopes=st.sampled_from(["relu", "leaky_relu", "sigmoid", "random"]),
    factor=st.floats(0.5, 2.0),
    per_neuron=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_inequality_is_that_of_the_literature(seed, slopes, factor, per_neuron):
    """Proved where the dense textbook matrix is clearly definite, not where it is not."""
    network = random_network(seed, [3, 4, 5, 2], "relu" if slopes == "random" else slopes)
    ranges = random_slopes(seed, network) if slopes == "random" else None
    chain = build_chain(network, ranges)
    multipliers = gershgorin_multipliers(chain)
    if not per_neuron:
        values = tuple(np.asarray(np.min(v)) for v in multipliers.values)
        multipliers = Multipliers(values, multipliers.shifts, multipliers.rho)
    rho = abs(multipliers.rho) * factor
    smallest = np.linalg.eigvalsh(dense_inequality(chain, multipliers, rho))[0]
    proved = LmiMatrix(chain, multipliers).proves(rho)
    if smallest > 1e-8:
        assert proved
    if smallest < -1e-12:
        assert not proved


@given(seed=st.integers(0, 10_000), slopes=st.sampled_from(["leaky_relu", "random"]))
@settings(max_examples=100, deadline=None)
def test_the_critical_rho_is_that_of_the_layer_recursion(seed, slopes):
    """The recursion gives the smallest ρ of its multipliers: proved just above, not below."""
    network = random_network(seed, [3, 4, 5, 2], "leaky_relu" if slopes != "random" else "relu")
    ranges = random_slopes(seed, network) if slopes == "random" else None
    chain = build_chain(network, ranges)
    multipliers = gershgorin_multipliers(chain)
    matrix = LmiMatrix(chain, multipliers)
    if (
        slopes == "leaky_relu"
        or np.linalg.eigvalsh(dense_inequality(chain, multipliers, 1.0001 * abs(multipliers.rho)))[
            0
        ]
        > 1e-8
    ):
        assert matrix.proves(multipliers.rho * (1 + 1e-7))
        assert not matrix.proves(multipliers.rho * (1 - 1e-7))


def exact_is_psd(matrix):
    """Decide positive semidefiniteness of a rational 2×2 matrix."""
    (a, b), (_, d) = matrix
    return a >= 0 and d >= 0 and a * d >= b * b


@given(
    first=st.floats(0.5, 1.0),
    last=st.lists(st.floats(0.5, 1.0), min_size=1, max_size=30),
    t=st.floats(0.6, 4.0),
    item=st.sampled_from(["relu", "leaky_relu", "sigmoid"]),
    position=st.integers(-400, 400),
)
@settings(max_examples=300, deadline=None)
def test_near_the_critical_rho_only_true_inequalities_are_proved(first, last, t, item, position):
    """One neuron, where the matrix is 2×2 and its definiteness can be decided in fractions."""
    network = LayeredNetwork.from_arrays([[[first]], [[value] for value in last]], activation=item)
    chain = build_chain(network)
    alpha, beta = Fraction(chain.alphas[0][0]), Fraction(chain.betas[0][0])
    scale = Fraction(2) ** chain.blocks[0].exponent, Fraction(2) ** chain.blocks[1].exponent
    w = Fraction(first) / scale[0]
    output = sum(Fraction(value) ** 2 for value in last) / scale[1] ** 2
    mean, product, weight = (alpha + beta) / 2, alpha * beta, Fraction(t)
    corner = 1 + product * weight * w * w
    slack = weight - (mean * weight * w) ** 2 / corner
    if slack <= 0:
        return
    rho = float(output / slack) * (1 + position * 1e-15)
    multipliers = Multipliers((np.asarray(t),), (0,), rho)
    proved = LmiMatrix(chain, multipliers).proves(rho)
    link = -mean * weight * w
    true = exact_is_psd([[corner, link], [link, weight - output / Fraction(rho)]])
    assert true or not proved
    assert LmiMatrix(chain, multipliers).proves(rho * 1.0001)


@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 7), min_size=3, max_size=6),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    kind=st.sampled_from(["norm_product", "lmi", "product"]),
    rank_one=st.booleans(),
    spread=st.sampled_from([0.0, 3.0, 9.0]),
)
@settings(max_examples=200, deadline=None)
def test_nothing_below_the_exact_constant_is_proved(seed, dims, scale, kind, rank_one, spread):
    """Nonnegative weights and ReLU: the constant is the norm of the product of the layers."""
    network = random_network(seed, dims, "relu", False, spread, rank_one)
    weights = [w * scale for w in network.weights]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    proof = prove(network, propose(kind, build_chain(network)))
    assert proof is not None
    assert Fraction(proof.value) ** 2 >= squared_norm_below(exact_product(weights))
    # steps of 1e-13·8ᵏ; where neurons differ by 1e18, rounding asks for up to k = 7 (2.1e-7)
    assert proof.inflation < (1e-8 if spread < 9.0 else 1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid"])
@pytest.mark.parametrize("spread", [4.0, 9.0])
def test_multipliers_of_very_different_size_cost_no_accuracy(activation, spread):
    """Scaling neurons by d in and 1/d out scales their multipliers by d**-2 and nothing else."""
    plain = random_network(3, [5, 7, 6, 8, 4], activation)
    rng = np.random.default_rng(0)
    weights = list(plain.weights)
    for i in range(3):
        d = 2.0 ** np.round(rng.uniform(-spread, spread, len(weights[i])) / np.log10(2.0))
        weights[i], weights[i + 1] = d[:, None] * weights[i], weights[i + 1] / d
    network = LayeredNetwork.from_arrays(weights, None, activation)
    proposals = [gershgorin_multipliers(build_chain(net)) for net in (plain, network)]
    ratio = np.max(proposals[1].values[0]) / np.min(proposals[1].values[0])
    assert ratio > 10 ** (2 * spread)
    first, second = prove(plain, proposals[0]), prove(network, proposals[1])
    assert second.value == pytest.approx(first.value, rel=1e-9)
    assert second.inflation < 1e-9


def test_proofs_fail_below_the_norm_however_the_multipliers_are_chosen():
    """One multiplier in closed form is optimal here: √ρ = w₀·w₁, and no less."""
    network = LayeredNetwork.from_arrays([[[0.75]], [[0.5]]], activation="relu")
    matrix = LmiMatrix(
        build_chain(network), Multipliers((np.asarray(2 / 0.75**2),), (0,), 0.75**2 / 4)
    )
    assert matrix.proves(0.75**2 * 0.25 * (1 + 1e-12))
    assert not matrix.proves(0.75**2 * 0.25 * (1 - 1e-15))
    for t in np.geomspace(1e-3, 1e3, 200):
        other = LmiMatrix(build_chain(network), Multipliers((np.asarray(t),), (0,), 1.0))
        assert not other.proves(0.75**2 * 0.25 * (1 - 1e-15))


@given(seed=st.integers(0, 10_000), dims=st.lists(st.integers(1, 6), min_size=3, max_size=6))
@settings(max_examples=100, deadline=None)
def test_neurons_left_out_change_no_jacobian(seed, dims):
    """Sparse weights and dead neurons; the Jacobian for slopes within the ranges stays."""
    network = random_network(seed, dims)
    rng = np.random.default_rng(seed + 1)
    weights = [w * (rng.random(w.shape) < 0.4) for w in network.weights]
    network = LayeredNetwork.from_arrays(weights, activation="relu")
    slopes = random_slopes(seed, network, dead=0.2)
    chain = build_chain(network, slopes)
    full, reduced = weights[0], chain.blocks[0].matrix
    chosen = [rng.uniform(a, b) for a, b in zip(slopes.alphas, slopes.betas)]
    for slope, weight in zip(chosen, weights[1:]):
        full = weight @ (slope[:, None] * full)
    for layer, kept, block in zip(chain.layers, chain.kept, chain.blocks[1:]):
        reduced = block.matrix @ (chosen[layer][kept][:, None] * reduced)
    if chain.is_constant:
        assert not np.any(full)
    else:
        np.testing.assert_allclose(np.ldexp(reduced, chain.exponent), full, atol=1e-12)
        live = [block.matrix for block in chain.blocks]
        assert all(np.all(np.any(w != 0, axis=1)) for w in live[:-1])
        assert all(np.all(np.any(w != 0, axis=0)) for w in live[1:])


def test_dead_layers_prove_zero():
    network = random_network(0, [3, 4, 2])
    dead = SlopeRanges((np.zeros(4),), (np.zeros(4),), "activation")
    assert build_chain(network, dead).is_constant
    for proposal in (LayerNorms((1.0, 1.0)), Multipliers((), (), 1.0), Split((), ())):
        assert proposal.prove(network, dead).value == 0.0


@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 6), min_size=4, max_size=6),
    spread=st.sampled_from([0.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_products_of_linear_layers_lie_within_their_error_bounds(seed, dims, spread):
    network = random_network(seed, dims, "identity", spread=spread)
    slopes = slope_ranges(network, "activation")
    (block,) = build_chain(network, slopes).blocks
    scale = Fraction(2) ** -block.exponent
    true = exact_product(network.weights)
    for i, row in enumerate(true):
        for j, entry in enumerate(row):
            error = abs(entry * scale - Fraction(block.matrix[i, j]))
            assert error <= Fraction(block.error[i, j])
            assert block.error[i, j] < 1e-11


def test_layers_of_single_slopes_are_multiplied():
    """Every neuron has one slope, each its own: the layer is linear."""
    network = random_network(1, [3, 5, 4, 2])
    fixed = np.linspace(-1.0, 2.0, 5)
    slopes = SlopeRanges((fixed, np.zeros(4)), (fixed, np.ones(4)), "activation")
    merged = LayeredNetwork.from_arrays(
        [network.weights[1] @ np.diag(fixed) @ network.weights[0], network.weights[2]],
        activation="relu",
    )
    chain = build_chain(network, slopes)
    assert chain.layers == (1,)
    value = prove(network, gershgorin_multipliers(chain), slopes).value
    assert value == pytest.approx(prove(merged, propose("lmi", build_chain(merged))).value)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 5),
    columns=st.integers(2, 12),
    spread=st.sampled_from([0.0, 4.0, 8.0]),
)
@settings(max_examples=100, deadline=None)
def test_square_inputs_map_the_unit_ball_onto_no_less(seed, rows, columns, spread):
    """RRᵀ − MMᵀ ⪰ 0 in exact arithmetic, and small against each row's own size."""
    rng = np.random.default_rng(seed)
    matrix = 10.0 ** rng.uniform(-spread, spread, (rows, 1)) * rng.standard_normal((rows, columns))
    network = LayeredNetwork.from_arrays([matrix, np.ones((1, rows))], activation="relu")
    chain = build_chain(network)
    wide, square = chain.blocks[0].matrix, chain.with_square_input().blocks[0].matrix
    exact = [Dyadic.of(item) for item in (square, wide)]
    products = [item @ item.T for item in exact]
    difference = products[0] + -products[1]
    assert is_positive_semidefinite(difference.integers)
    sizes = np.sum(wide * wide, axis=1)
    gap = np.diag(square @ square.T) - sizes
    assert np.all(np.abs(gap) <= 1e-12 * sizes)


def test_reduced_matrices_keep_the_inequality():
    chain = build_chain(random_network(0, [9, 3, 4, 11], "sigmoid"))
    reduced = chain.reduced_matrices()
    assert [item.shape for item in reduced] == [(3, 3), (4, 3), (4, 4)]
    np.testing.assert_allclose(
        reduced[0] @ reduced[0].T, chain.blocks[0].matrix @ chain.blocks[0].matrix.T
    )
    np.testing.assert_allclose(
        reduced[-1].T @ reduced[-1], chain.blocks[-1].matrix.T @ chain.blocks[-1].matrix
    )


@pytest.mark.parametrize(
    "size", [1e-300, 1e-150, 1e-40, 1e40, 1e150, 1e300], ids=lambda value: f"{value:g}"
)
@pytest.mark.parametrize("kind", ["norm_product", "lmi", "product"])
def test_slopes_of_extreme_size(size, kind):
    network = random_network(2, [3, 4, 5, 4, 2], signed=False)
    ranges = [np.linspace(0.1, 1.0, n) * size for n in network.hidden_dims[:1]]
    others = [np.ones(n) for n in network.hidden_dims[1:]]
    slopes = SlopeRanges(tuple(np.zeros(n) for n in network.hidden_dims), (*ranges, *others), "x")
    proof = propose(kind, build_chain(network, slopes)).prove(network, slopes)
    weights = [network.weights[0] * np.linspace(0.1, 1.0, 4)[:, None], *network.weights[1:]]
    true = squared_norm_below(exact_product(weights))
    assert Fraction(proof.value) ** 2 >= true * Fraction(size) ** 2 * (1 - Fraction(1, 10**12))
    assert proof.value <= 100 * float(true) ** 0.5 * size


@pytest.mark.parametrize(("item", "true"), [("sigmoid", 1.5), (leaky_relu(-3.0), 18.0)])
def test_slopes_between_parts_are_multiplied(item, true):
    network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation=item)
    proof = prove(network, propose("product", build_chain(network)))
    assert true <= proof.value <= true * (1 + 1e-9)


def test_what_does_not_fit_is_refused():
    network = random_network(0, [3, 4, 2])
    chain = build_chain(network)
    good = gershgorin_multipliers(chain)
    for values in ([np.ones(3)], [-np.ones(4)], [np.full(4, np.nan)], [np.full(4, 1e90)], []):
        with pytest.raises(InputError, match="multipliers"):
            LmiMatrix(chain, Multipliers(tuple(values), good.shifts, good.rho))
        assert prove(network, Multipliers(tuple(values), good.shifts, good.rho)) is None
    with pytest.raises(InputError, match="shifts"):
        LmiMatrix(chain, Multipliers(good.values, (10**6,), good.rho))
    for rho in (0.0, -1.0, np.nan, np.inf, 1e-200, good.rho / 2):
        assert prove(network, Multipliers(good.values, good.shifts, rho)) is None
    assert prove(network, Multipliers((np.zeros(4),), good.shifts, good.rho)) is None
    for lengths in ((1, 2), (0, 2), (1,), (2, 1)):
        assert prove(network, Split((good,) * len(lengths), lengths)) is None
    for alphas, betas in (
        ((), ()),
        ((np.zeros(3),), (np.ones(3),)),
        ((np.ones(4),), (np.zeros(4),)),
        ((np.zeros(4),), (np.full(4, np.inf),)),
    ):
        with pytest.raises(InputError, match="slopes"):
            build_chain(network, SlopeRanges(alphas, betas, "activation"))
