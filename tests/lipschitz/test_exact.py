"""Exact verification against dense definitions and against the proof in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.certificate import KINDS, prove, verify_certificate
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.exact import (
    Dyadic,
    ExactChain,
    _decided_by_factor,
    _eliminated,
    is_positive_semidefinite,
    verify_exactly,
)
from harmonicvae.lipschitz.slopes import slope_ranges
from harmonicvae.network import LayeredNetwork

from .proposals import KINDS as PROPOSALS
from .proposals import (
    exact_product,
    gershgorin_multipliers,
    propose,
    random_network,
    squared_norm_below,
)

EVERY_KIND = pytest.mark.parametrize("kind", PROPOSALS)


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 7),
    rank=st.integers(1, 7),
    dent=st.integers(-2, 2),
    bits=st.sampled_from([2, 40, 90]),
)
@settings(max_examples=300, deadline=None)
def test_definiteness_is_decided_for_singular_matrices_too(seed, size, rank, dent, bits):
    """A Gram matrix of any rank; a dent in a direction of its null space, however small, shows."""
    rng = np.random.default_rng(seed)
    integers = [[int(x) << (bits - 2) for x in row] for row in rng.integers(-3, 4, (size, rank))]
    factor = np.array(integers, dtype=object)
    matrix = factor @ factor.T
    assert is_positive_semidefinite(matrix)
    vector = np.array([int(x) for x in rng.integers(-2, 3, size)], dtype=object)
    dented = matrix + dent * np.outer(vector, vector)
    exact = [[Fraction(int(x)) for x in row] for row in dented]
    true = all(coefficient >= 0 for coefficient in signed_characteristic(exact))
    assert is_positive_semidefinite(dented) == true
    assert _eliminated(dented) == true
    assert _decided_by_factor(dented) in (None, true)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_definiteness_of_matrices_with_many_zeros(seed, size):
    """Zero pivots with rows that are not zero."""
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.integers(-1, 2, (size, size)))
    matrix = lower + lower.T + np.diag(rng.integers(0, 2, size))
    exact = [[Fraction(int(x)) for x in row] for row in matrix]
    rows = [[int(x) for x in row] for row in matrix]
    signs = [coefficient >= 0 for coefficient in signed_characteristic(exact)]
    assert is_positive_semidefinite(rows) == all(signs)
    for decided in (_decided_by_factor(np.array(rows, dtype=object)), _eliminated(np.array(rows))):
        assert decided in (None, all(signs))


def signed_characteristic(matrix):
    """(−1)ᵏ times the coefficients of the characteristic polynomial, by Faddeev and LeVerrier.

    A symmetric matrix is positive semidefinite just if all are ≥ 0.
    """
    size = len(matrix)
    identity = [[Fraction(i == j) for j in range(size)] for i in range(size)]
    current = [[Fraction(0)] * size for _ in range(size)]
    coefficient, found = Fraction(1), []
    for k in range(1, size + 1):
        product = times(matrix, current)
        current = [[a + coefficient * b for a, b in zip(*rows)] for rows in zip(product, identity)]
        image = times(matrix, current)
        coefficient = -sum(image[i][i] for i in range(size)) / k
        found.append((-1) ** k * coefficient)
    return found


def times(left, right):
    columns = list(zip(*right))
    return [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in left]


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_numbers_are_taken_exactly(values):
    dyadic = Dyadic.of(values)
    scale = Fraction(2) ** dyadic.exponent
    assert [int(x) * scale for x in dyadic.integers] == [Fraction(x) for x in values]


@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    activation=st.sampled_from(["relu", "sigmoid", "leaky_relu", "identity"]),
    spread=st.sampled_from([0.0, 6.0]),
    kind=st.sampled_from(PROPOSALS),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
)
@settings(max_examples=100, deadline=None)
def test_what_float64_proves_holds_exactly(seed, dims, activation, spread, kind, scale):
    network = random_network(seed, dims, activation, spread=spread)
    weights = [w * scale for w in network.weights]
    network = LayeredNetwork.from_arrays(weights, None, activation)
    proof = prove(network, propose(kind, build_chain(network)))
    assert verify_certificate(proof.certificate, network)
    assert verify_exactly(proof.certificate, network)
    if proof.value > 0:
        less = {**proof.certificate, "value": proof.value * (1 - 1e-14)}
        assert not verify_exactly(less, network)


@given(
    seed=st.integers(0, 10_000),
    dims=st.lists(st.integers(1, 4), min_size=3, max_size=5),
    wide=st.booleans(),
    activation=st.sampled_from(["relu", "leaky_relu"]),
    position=st.floats(-1e-7, 1e-7),
)
@settings(max_examples=100, deadline=None)
def test_the_inequality_is_that_of_the_blocks(seed, dims, wide, activation, position):
    """ρ near its critical value: exact decisions follow the Schur complement in fractions."""
    dims = [dims[1] + 3, *dims[1:]] if wide else dims
    network = random_network(seed, dims, activation)
    chain = build_chain(network)
    proposal = gershgorin_multipliers(chain)
    certificate = dict(prove(network, proposal).certificate)
    rho = proposal.rho * (1 + position)
    certificate |= {"rho": rho, "value": 1e9 * certificate["value"]}
    exact = schur_proves(network, chain, proposal, rho)
    assert verify_exactly(certificate, network) == exact
    if verify_certificate(certificate, network):
        assert exact


def schur_proves(network, chain, proposal, rho):
    """The inequality by block elimination in fractions, from the original wide weights."""
    state = fractions(np.eye(network.input_dim))
    for i, t in enumerate(proposal.values):
        scale = Fraction(2) ** (proposal.shifts[i] - chain.blocks[i].exponent)
        weight = [[x * scale for x in row] for row in fractions(network.weights[i])]
        low, high = Fraction(chain.alphas[i][0]), Fraction(chain.betas[i][0])
        t = [Fraction(x) for x in t]
        scaled = [[low * high * x * f for x in row] for row, f in zip(weight, t)]
        term = times(list(zip(*weight)), scaled)
        state = [[a + b for a, b in zip(*rows)] for rows in zip(state, term)]
        link = [[(low + high) / 2 * x * f for x in row] for row, f in zip(weight, t)]
        solved = times(link, inverse(state))
        cut = times(solved, list(zip(*link)))
        state = [[f * (j == k) - cut[j][k] for k in range(len(t))] for j, f in enumerate(t)]
    scale = Fraction(2) ** -chain.blocks[-1].exponent
    last = [[x * scale for x in row] for row in fractions(network.weights[-1])]
    gram = times(list(zip(*last)), last)
    final = [[a - b / Fraction(rho) for a, b in zip(*rows)] for rows in zip(state, gram)]
    return all(x >= 0 for x in signed_characteristic(final))


def fractions(array):
    return [[Fraction(float(x)) for x in row] for row in array]


def inverse(matrix):
    """Gauss–Jordan in fractions, of a definite matrix."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for j in range(size):
            if j != i:
                rows[j] = [x - rows[j][i] * y for x, y in zip(rows[j], rows[i])]
    return [row[size:] for row in rows]


@EVERY_KIND
def test_slopes_of_saturated_neurons(kind):
    """Tiny slopes are rounded outwards alike in both proofs."""
    network = LayeredNetwork.from_arrays(
        [np.ones((3, 1)), np.eye(3), np.ones((1, 3))],
        [np.array([0.0, 50.0, 400.0]), np.array([0.0, -700.0, -90.0]), [0.0]],
        "sigmoid",
    )
    slopes = slope_ranges(network, "propagated")
    proof = propose(kind, build_chain(network, slopes)).prove(network, slopes)
    assert verify_certificate(proof.certificate, network)
    assert verify_exactly(proof.certificate, network)


@EVERY_KIND
def test_networks_that_let_nothing_pass(kind):
    network = LayeredNetwork.from_arrays([np.ones((2, 2)), np.zeros((2, 2))], activation="relu")
    certificate = (
        propose(kind, build_chain(network))
        .prove(network, slope_ranges(network, "activation"))
        .certificate
    )
    assert certificate["value"] == 0.0
    assert verify_exactly(certificate, network)
    assert ExactChain.of(network, slope_ranges(network, "activation")) is None


def test_singular_inequalities_are_decided():
    """x ↦ relu(x): t = 2 and ρ = 1 give [[1, −1], [−1, 1]], which no float64 proof accepts."""
    network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation="relu")
    certificate = dict(prove(network, propose("lmi", build_chain(network))).certificate)
    certificate |= {"multipliers": [[2.0]], "exponents": [0, 0], "rho": 1.0, "value": 1.0}
    assert verify_exactly(certificate, network)
    assert not verify_certificate(certificate, network)
    assert not verify_exactly({**certificate, "value": 1 - 2.0**-53}, network)
    assert not verify_exactly({**certificate, "rho": 1 - 2.0**-53}, network)


def test_an_infinite_bound_holds():
    network = LayeredNetwork.from_arrays([np.full((2, 2), 1e200)] * 2, activation="relu")
    proof = prove(network, propose("norm_product", build_chain(network)))
    assert proof.value == math.inf
    assert verify_exactly(proof.certificate, network)


def test_known_constant_of_a_nonnegative_network():
    network = random_network(5, [2, 6, 7, 3], signed=False)
    proof = prove(network, propose("lmi", build_chain(network)))
    true = squared_norm_below(exact_product(network.weights))
    assert Fraction(proof.value) ** 2 >= true
    below = {**proof.certificate, "value": float(true) ** 0.5 * (1 - 1e-12)}
    for rho in np.linspace(0.5, 1.0, 20) * proof.certificate["rho"]:
        assert not verify_exactly({**below, "rho": float(rho)}, network)


def test_large_matrices_and_other_kinds_are_refused(monkeypatch):
    network = random_network(0, [4, 30, 30, 5])
    certificate = prove(network, propose("lmi", build_chain(network))).certificate
    with pytest.raises(InputError, match="64 rows, more than limit = 63"):
        verify_exactly(certificate, network, limit=63)
    with pytest.raises(InputError, match="norm_product"):
        verify_exactly({**certificate, "kind": "other"}, network)
    with pytest.raises(InputError, match="incomplete"):
        verify_exactly({k: v for k, v in certificate.items() if k != "rho"}, network)
    far = {**certificate, "exponents": [-100_000, *certificate["exponents"][1:]]}
    with pytest.raises(InputError, match="magnitude"):
        verify_exactly(far, network)
    assert set(KINDS) >= set(PROPOSALS)
