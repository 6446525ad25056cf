"""The inequality of sparse networks: against the dense one, textbook forms and exact numbers."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import nn

from harmonicvae import arrow_matrices
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import (
    bound,
    load_certificate,
    lower_bound,
    save_certificate,
    sparse_lmi,
    verify_certificate,
)
from harmonicvae.lipschitz import lmi as lmi_module
from harmonicvae.lipschitz import recursion as recursion_module
from harmonicvae.lipschitz.certificate import Multipliers, prove
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.lmi_matrix import LmiMatrix, Weight
from harmonicvae.lipschitz.recursion import Recursion, fast_multipliers
from harmonicvae.lipschitz.slopes import SlopeRanges
from harmonicvae.lipschitz.sparse_lmi import SparseLmi, sparse_form
from harmonicvae.lipschitz.sparse_terms import Lift, sided, summed
from harmonicvae.models.conv_modules import ConvVAEModule
from harmonicvae.network import LayeredNetwork

from .conv_networks import conv_module, read
from .proposals import exact_product, gershgorin_multipliers, random_slopes, squared_norm_below
from .test_lmi import dense_inequality

SEEDS = st.integers(0, 100_000)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks so small that small networks have several."""
    monkeypatch.setattr(arrow_matrices, "_SMALLEST_BLOCK", 8)


def chains(seed):
    """The same network's dense chain and sparse one, with slopes of all kinds."""
    module, shape = conv_module(seed)
    networks = [read(module, shape, sparse) for sparse in (False, True)]
    ranges = None
    if seed % 3 == 0:
        ranges = random_slopes(seed, networks[0])
    elif seed % 3 == 1:
        ranges = one_sided(seed, networks[0])
    dense, sparse = (build_chain(network, ranges) for network in networks)
    return dense, sparse_form(sparse)


def one_sided(seed, network):
    """Slope ranges from 0 up for some neurons, from 0 down for others: αβ = 0, α + β ≠ 0."""
    rng = np.random.default_rng(seed)
    tops = [rng.uniform(0.1, 1.0, size) * rng.choice([-1, 1], size) for size in network.hidden_dims]
    alphas = tuple(np.minimum(top, 0.0) for top in tops)
    return SlopeRanges(alphas, tuple(np.maximum(top, 0.0) for top in tops), "x")


@given(seed=SEEDS, factor=st.floats(0.5, 2.0), per_neuron=st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_inequality_is_that_of_the_literature(seed, factor, per_neuron):
    dense, sparse = chains(seed)
    if dense.is_constant or not dense.alphas:
        return
    multipliers = gershgorin_multipliers(dense)
    if not per_neuron:
        values = tuple(np.asarray(np.min(item)) for item in multipliers.values)
        multipliers = Multipliers(values, multipliers.shifts, multipliers.rho)
    rho = abs(multipliers.rho) * factor
    smallest = np.linalg.eigvalsh(dense_inequality(dense, multipliers, rho))[0]
    proved = SparseLmi(sparse, multipliers).proves(rho)
    if smallest > 1e-7:
        assert proved
    if smallest < -1e-12:
        assert not proved


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_the_smallest_rho_is_that_of_the_dense_recursion(seed):
    """Proved just above it, not below; never below the dense proof's."""
    dense, sparse = chains(seed)
    if dense.is_constant or not dense.alphas:
        return
    recursion = Recursion(dense)
    multipliers = fast_multipliers(dense)
    for layer, values in enumerate(multipliers.values):
        part = Multipliers(multipliers.values[:layer], multipliers.shifts[:layer], 1.0)
        gain = SparseLmi(sparse.part(0, layer + 1), part).gain()
        assert gain == pytest.approx(recursion.gain(layer), rel=1e-8)
        recursion.advance(layer, values, multipliers.shifts[layer])
    whole = SparseLmi(sparse, multipliers)
    assert whole.gain() == pytest.approx(multipliers.rho, rel=1e-8)
    assert whole.proves(multipliers.rho * (1 + 1e-6))
    assert not whole.proves(multipliers.rho * (1 - 1e-7))
    assert LmiMatrix(dense.with_square_input(), multipliers).proves(multipliers.rho * (1 + 1e-6))


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_sparse_and_dense_fast_bounds_agree(seed):
    module, shape = conv_module(seed)
    dense, sparse = (bound(read(module, shape, item), "eclipse_fast") for item in (False, True))
    assert sparse.status == "certified"
    assert sparse.value == pytest.approx(dense.value, rel=1e-6)
    assert "could not be proved" not in sparse.message


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_bounds_lie_between_the_sampled_constant_and_the_norm_product(seed):
    network = read(*conv_module(seed), sparse=True)
    upper, simple = (bound(network, name) for name in ("eclipse_fast", "norm_product"))
    lower = lower_bound(network, n_steps=5, n_random=4, n_starts=2)
    assert lower.value <= upper.value * (1 + 1e-12)
    assert upper.value <= simple.value
    assert verify_certificate(upper.certificate, network)
    assert bound(network).value <= upper.value * (1 + 1e-9)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_nothing_below_the_exact_constant_is_proved(seed):
    """Nonnegative kernels, ReLU, no biases: the constant is the norm of the layers' product."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv1d(1, 2, 3, stride=int(rng.integers(1, 5)), padding=1, bias=False),
        nn.ReLU(),
        nn.Conv1d(2, 2, 2, groups=2, dilation=int(rng.integers(1, 3)), padding=1, bias=False),
        nn.ReLU(),
        nn.ConvTranspose1d(2, 1, 3, stride=2, bias=False),
        nn.Flatten(),
    )
    for parameter in module.parameters():
        parameter.data = parameter.data.abs() * torch.from_numpy(rng.random(parameter.shape) < 0.9)
    network = read(module, (1, int(rng.integers(4, 12))), sparse=True)
    value = bound(network, "eclipse_fast").value
    exact = squared_norm_below(exact_product([item.toarray() for item in network.weights]))
    assert Fraction(value) ** 2 >= exact
    chain = build_chain(network)
    if chain.is_constant:
        assert value == 0.0
        return
    chain = sparse_form(chain)
    multipliers = fast_multipliers(chain)
    for low in (0.5, 0.9, 1 - 1e-9):
        rho = float(exact) * low / 4.0 ** (chain.exponent - sum(multipliers.shifts))
        assert not SparseLmi(chain, multipliers).proves(rho)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_the_matrix_is_right_within_its_error_bound(seed):
    """Entry by entry, against the textbook form in fractions, scaled alike."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv1d(1, 2, 2), nn.AvgPool1d(2), nn.ReLU(), nn.Conv1d(2, 2, 2), nn.ReLU(), nn.Flatten()
    ).append(nn.Linear(4, 2))
    networks = [read(module, (1, 7), sparse) for sparse in (False, True)]
    chosen = one_sided if seed % 2 else random_slopes
    slopes = chosen(seed, networks[0])
    if seed % 4 > 1:  # the pooling follows at once
        ones = np.ones(networks[0].hidden_dims[0])
        slopes = SlopeRanges((ones, *slopes.alphas[1:]), (ones, *slopes.betas[1:]), "x")
    dense, chain = (build_chain(network, slopes) for network in networks)
    multipliers = gershgorin_multipliers(dense)
    rho = abs(multipliers.rho) * 1.1
    ends = (True, False) if chosen is one_sided else (True,)
    for own_rows in product(ends, (True, False)):
        lmi = SparseLmi(sparse_form(chain), multipliers)
        lmi._own_rows = lambda with_output, own_rows=own_rows: own_rows
        found = lmi._assembled(rho)
        exact = exact_inequality(networks[0], chain, multipliers, rho, own_rows)
        assert is_near(found.matrix.toarray(), exact, found.error)
        assert found.error < 1e-11


def is_near(matrix, exact, error):
    """True if all entries are those of a matrix in fractions, scaled by powers of two."""
    diagonal = np.array([float(exact[i][i]) for i in range(len(exact))])
    shifts = np.round(0.5 * np.log2(np.diag(matrix) / diagonal)).astype(int)
    powers = [Fraction(2) ** int(shift) for shift in shifts]
    return all(
        abs(entry * powers[i] * powers[j] - Fraction(matrix[i, j])) <= Fraction(error)
        for i, row in enumerate(exact)
        for j, entry in enumerate(row)
    )


def exact_inequality(network, chain, multipliers, rho, own_rows):
    """The matrix in fractions, ends as rows of their own or as Gram matrices; no scales."""
    inputs, outputs = own_rows
    blocks = list(exact_blocks(network, chain, multipliers.shifts))
    dims = [len(blocks[0][0]), *map(len, blocks)]
    starts = [sum(dims[:i]) for i in range(len(dims) + 1)]
    size = starts[-1] if outputs else starts[-2]
    matrix = [[Fraction(0)] * size for _ in range(size)]
    for k in range(dims[0]):
        matrix[k][k] += 1
    for i, values in enumerate(multipliers.values):
        for k, t in enumerate(map(Fraction, np.broadcast_to(values, (dims[i + 1],)))):
            low, high = Fraction(chain.alphas[i][k]), Fraction(chain.betas[i][k])
            row, here = blocks[i][k], starts[i + 1] + k
            matrix[here][here] += t
            for j, x in enumerate(row, starts[i]):
                matrix[here][j] = matrix[j][here] = -(low + high) / 2 * t * x
                for other, y in enumerate(row, starts[i]):
                    matrix[j][other] += low * high * t * x * y
    for here, row in enumerate(blocks[-1], starts[-2]):
        for j, x in enumerate(row, starts[-3]):
            if outputs:
                matrix[here][j] = matrix[j][here] = x
                matrix[here][here] = Fraction(rho)
            else:
                for other, y in enumerate(row, starts[-3]):
                    matrix[j][other] -= x * y / Fraction(rho)
    return matrix if inputs else without_inputs(matrix, dims[0], dims[1])


def without_inputs(matrix, inputs, first):
    """The Schur complement of inputs whose own block is the identity."""
    links = [row[:inputs] for row in matrix[inputs : inputs + first]]
    rest = [row[inputs:] for row in matrix[inputs:]]
    for i, row in enumerate(links):
        for j, other in enumerate(links):
            rest[i][j] -= sum(x * y for x, y in zip(row, other))
    return rest


@given(seed=SEEDS, size=st.sampled_from([0.0, 1e-12, 1e-3]))
@settings(max_examples=60, deadline=None)
def test_errors_of_the_weights_are_counted(seed, size):
    """True matrices within the error of a weight give terms within the error of the term."""
    rng = np.random.default_rng(seed)
    pattern = rng.random((6, 5)) < 0.6
    given_, error = (rng.standard_normal((6, 5)) * pattern for _ in range(2))
    true = given_ + size * error
    weight = Weight(csr_array(given_), csr_array(size * np.abs(error)), 0)
    row, column = rng.standard_normal(6), rng.standard_normal(5)
    roots, signs = np.abs(row), rng.choice([-1.0, 1.0], 6)
    scales = rng.integers(-1, 2, 5)
    factors = 2.0**scales
    base = rng.uniform(1.0, 2.0, 5)
    terms = (
        (sided(weight, row, column), row[:, None] * true * column),
        (
            summed(base, [(Lift(weight, roots, signs, 1.7), -1.0)], scales),
            np.diag(base)
            - (factors[:, None] * true.T * (row * signs * row)) @ true * factors / 1.7,
        ),
        (
            summed(np.ones(6), [(Lift.transposed(weight, row), -1.0)], np.zeros(6, dtype=int)),
            np.eye(6) - (row[:, None] * true) @ (row[:, None] * true).T,
        ),
    )
    for term, wanted in terms:
        distance = np.linalg.norm(term.matrix.toarray() - wanted, 2)
        assert distance <= term.error + 1e-13
        assert term.error <= 1e-11 + 1e3 * size


def exact_blocks(network, chain, shifts):
    """Products of the original weights between the chain's layers, of its neurons, scaled."""
    ends = [*chain.layers, len(network.weights) - 1]
    starts = [0, *(layer + 1 for layer in chain.layers)]
    columns = [range(network.input_dim), *chain.kept]
    rows = [*chain.kept, range(network.output_dim)]
    for i, block in enumerate(chain.blocks):
        whole = exact_product(network.weights[starts[i] : ends[i] + 1])
        scale = Fraction(2) ** ([*shifts, 0][i] - block.exponent)
        yield [[whole[k][j] * scale for j in columns[i]] for k in rows[i]]


# ------------------------------------------------------------------ certificates


@pytest.fixture
def network():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ELU(), nn.Conv2d(2, 3, 3, 2), nn.SiLU(), nn.Flatten()
    )
    return read(module.append(nn.Linear(27, 4)), (1, 7, 7), sparse=True)


def test_certificates_are_verified_and_tampered_ones_refused(network, tmp_path):
    result = bound(network, "eclipse_fast")
    assert result.details["inflation"] < 1e-8
    path = tmp_path / "certificate.json"
    save_certificate(result.certificate, path)
    certificate = load_certificate(path)
    assert certificate == result.certificate
    assert certificate["kind"] == "lmi"
    assert verify_certificate(certificate, network)
    rho, values = certificate["rho"], certificate["multipliers"]
    below = 1 - 1e-6
    for changed in (
        {"value": certificate["value"] * below},
        {"rho": rho * below},
        {"rho": rho * below, "value": certificate["value"] * below},
        {"multipliers": [values[0], 0.2 * values[1]]},
        {"multipliers": [2.2 * values[0], values[1]]},
        {"exponents": [certificate["exponents"][0] + 1, *certificate["exponents"][1:]]},
    ):
        assert not verify_certificate(certificate | changed, network), changed
    for changed in ({"multipliers": values[:1]}, {"multipliers": [-1.0, 1.0]}, {"rho": "1"}):
        with pytest.raises(InputError):
            verify_certificate(certificate | changed, network)


def test_certificates_belong_to_one_network(network):
    certificate = bound(network, "eclipse_fast").certificate
    weights = list(network.weights)
    weights[0] = weights[0] * 2.0
    other = LayeredNetwork(tuple(weights), network.biases, network.activations)
    with pytest.raises(InputError, match="belongs to network"):
        verify_certificate(certificate, other)
    assert not verify_certificate(certificate | {"network_hash": other.hash}, other)


def test_slopes_in_a_box_and_propagated(network):
    results = [
        bound(network, "eclipse_fast", **options)
        for options in ({}, {"slopes": "propagated"}, {"box": (-1, 1)})
    ]
    assert all(verify_certificate(item.certificate, network) for item in results)
    values = [item.value for item in results]
    assert values[2] < values[1] * (1 + 1e-9)
    assert values[1] <= values[0] * (1 + 1e-9)


def test_dense_networks_of_few_entries_take_the_same_way(monkeypatch):
    """Certificates of the dense proof are accepted, be their inflation smaller or not."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ELU(), nn.Flatten()
    )
    network = read(module.append(nn.Linear(128, 3)), (2, 8, 8), sparse=False)
    assert sparse_form(build_chain(network)) is None
    monkeypatch.setattr(lmi_module, "sparse_form", lambda chain: None)
    wanted = prove(network, fast_multipliers(build_chain(network)))
    monkeypatch.undo()
    monkeypatch.setattr(sparse_lmi, "_SPARSE_ROWS", 100)
    monkeypatch.setattr(sparse_lmi, "_SPARSE_SHARE", 0.2)
    assert sparse_form(build_chain(network)) is not None
    result = bound(network, "eclipse_fast")
    assert wanted.value == pytest.approx(result.value, rel=1e-8)
    assert wanted.inflation < result.details["inflation"]
    for certificate in (wanted.certificate, result.certificate):
        assert verify_certificate(certificate, network)
        assert not verify_certificate(certificate | {"rho": 0.99 * certificate["rho"]}, network)


def test_few_entries_in_no_order_stay_dense():
    """A pruned multilayer perceptron has no narrow band: its layers are smaller than any block."""
    rng = np.random.default_rng(0)
    dims = [400, 600, 600, 600, 10]
    weights = [rng.standard_normal((b, a)) * (rng.random((b, a)) < 0.02) for a, b in pairwise(dims)]
    assert sparse_form(build_chain(LayeredNetwork.from_arrays(weights, activation="relu"))) is None


def test_gram_matrices_of_full_layers_are_not_formed(network, monkeypatch):
    monkeypatch.setattr(sparse_lmi, "_MOST_PRODUCTS", 0.0)
    with_rows_of_their_own = bound(network, "eclipse_fast", slopes="activation")
    assert "too many entries" in with_rows_of_their_own.message
    plain = LayeredNetwork.from_arrays(network.weights, activation="relu")
    result = bound(plain, "eclipse_fast")
    monkeypatch.undo()
    assert result.value == pytest.approx(bound(plain, "eclipse_fast").value, rel=1e-7)


def test_what_is_too_large_gets_the_norm_product(network, monkeypatch):
    monkeypatch.setattr(arrow_matrices, "_MOST_OPERATIONS", 10.0)
    result = bound(network, "eclipse_fast")
    assert result.value == bound(network, "norm_product").value
    assert result.status == "certified"
    assert "rows would take" in result.message
    assert "the norm product is returned" in result.message


def test_layers_of_zeros(network):
    zero = LayeredNetwork.from_arrays(
        [network.weights[0], csr_array(network.weights[1].shape), network.weights[2]],
        activation="relu",
    )
    result = bound(zero, "eclipse_fast")
    assert result.value == 0.0
    assert verify_certificate(result.certificate, zero)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales(network, scale):
    weights = [network.weights[0] * scale, network.weights[1], network.weights[2] / scale]
    plain = LayeredNetwork.from_arrays(network.weights, activation="silu")
    other = LayeredNetwork.from_arrays(weights, activation="silu")
    wanted, found = (bound(item, "eclipse_fast") for item in (plain, other))
    assert found.value == pytest.approx(wanted.value, rel=1e-6)
    assert verify_certificate(found.certificate, other)


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64])
def test_networks_of_the_study_size(side, monkeypatch):
    monkeypatch.undo()
    torch.manual_seed(0)
    module = ConvVAEModule((side, side, 3), 64, [8, 16, 32], 3, 2, [], "elu").eval()
    for part in (module.encoder, module.decoder):
        network = LayeredNetwork.from_module(part)
        result = bound(network, "eclipse_fast")
        assert result.method == "eclipse_fast"
        assert result.message == ""
        assert result.value < 0.8 * bound(network, "norm_product").value
        assert lower_bound(network, n_steps=3).value <= result.value
        assert verify_certificate(result.certificate, network)
        if side == 32:
            chain = build_chain(network)
            monkeypatch.setattr(recursion_module, "sparse_form", lambda chain: None)
            dense = fast_multipliers(chain)
            monkeypatch.undo()
            assert result.value == pytest.approx(dense.bound(chain, dense.rho), rel=1e-7)
