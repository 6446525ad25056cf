"""Certificates: they verify again, and nothing else does."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import METHODS, bound, verify_certificate
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.eclipse import fast_multipliers
from harmonicvae.lipschitz.lmi import LmiMatrix, Multipliers
from harmonicvae.network import LayeredNetwork


def network_of(seed=0, activation="sigmoid", scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = [(6, 9), (5, 6), (7, 5)]
    return LayeredNetwork.from_arrays(
        [scale * rng.standard_normal(shape) for shape in shapes], activation=activation
    )


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("activation", ["sigmoid", "leaky_relu"])
def test_certificates_survive_json_and_verify(method, scale, activation):
    network = network_of(activation=activation, scale=scale)
    result = bound(network, method)
    certificate = json.loads(json.dumps(result.to_dict()["certificate"]))
    assert certificate["value"] == result.value
    assert verify_certificate(certificate, network)
    assert not verify_certificate({**certificate, "value": result.value * (1 - 1e-12)}, network)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_altered_certificates_do_not_verify(method):
    network = network_of()
    certificate = dict(bound(network, method).certificate)
    with pytest.raises(InputError, match="belongs to network"):
        verify_certificate(certificate, network_of(1))
    with pytest.raises(InputError, match="belongs to network"):
        verify_certificate(certificate, network.with_slopes(0.0, 1.0))
    with pytest.raises(InputError, match="incomplete"):
        verify_certificate({"network_hash": network.hash}, network)
    with pytest.raises(InputError, match="unknown kind"):
        verify_certificate({**certificate, "kind": "guess"}, network)
    key = "norms" if method == "norm_product" else "multipliers"
    with pytest.raises(InputError):
        verify_certificate({**certificate, key: ["a"]}, network)
    if method == "eclipse_fast":
        smaller = {**certificate, "rho": certificate["rho"] * 0.999, "value": 1e9}
        assert not verify_certificate(smaller, network)
        shifted = [shift + 1 for shift in certificate["shifts"]]
        assert not verify_certificate({**certificate, "shifts": shifted}, network)
    else:
        smaller = [norm * (1 - 1e-9) for norm in certificate["norms"]]
        assert not verify_certificate({**certificate, "norms": smaller}, network)


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
    values = [np.broadcast_to(v, d) for v, d in zip(multipliers.values, dims[1:])]
    t = np.concatenate(values)
    low = np.repeat(chain.alphas, dims[1:])
    high = np.repeat(chain.betas, dims[1:])
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
    slopes=st.sampled_from(["relu", "leaky_relu", "sigmoid", "negative"]),
    factor=st.floats(0.5, 2.0),
    per_neuron=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_inequality_is_that_of_the_literature(seed, slopes, factor, per_neuron):
    """Proved where the dense textbook matrix is clearly definite, not where it is not."""
    from harmonicvae.activations import leaky_relu

    rng = np.random.default_rng(seed)
    item = leaky_relu(-0.3) if slopes == "negative" else slopes
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal(s) for s in [(4, 3), (5, 4), (2, 5)]], activation=item
    )
    chain = build_chain(network).with_square_input()
    multipliers = fast_multipliers(chain)
    if per_neuron:
        values = tuple(v * rng.uniform(0.7, 1.4, n) for v, n in zip(multipliers.values, (4, 5)))
        multipliers = Multipliers(values, multipliers.shifts, multipliers.rho)
    rho = multipliers.rho * factor
    smallest = np.linalg.eigvalsh(dense_inequality(chain, multipliers, rho))[0]
    proved = LmiMatrix(chain, multipliers).proves(rho)
    if smallest > 1e-9:
        assert proved
    if smallest < 0:
        assert not proved


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
    alpha, beta = Fraction(chain.alphas[0]), Fraction(chain.betas[0])
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
