"""Convolutions as sparse matrices: equal to torch's, with proved norms that dense SVD confirms."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from harmonicvae import LayeredNetwork, matrices, sparse_norms
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import (
    bound,
    bracket,
    load_certificate,
    save_certificate,
    verify_certificate,
    verify_exactly,
)
from harmonicvae.models.conv_modules import ConvVAEModule
from harmonicvae.norms import certified_spectral_norm, norm_is_at_most
from harmonicvae.readers import affine_maps
from harmonicvae.readers.mat_files import write_cells


@pytest.fixture
def all_sparse(monkeypatch):
    """Keep every map sparse whatever its size."""
    monkeypatch.setattr(affine_maps, "DENSE_SIDE", 0)


def random_convolution(rng):
    """A random (transposed) convolution of one or two axes and a shape that it takes."""
    rank = int(rng.integers(1, 3))
    groups = int(rng.integers(1, 4))
    into, out = (groups * int(rng.integers(1, 4)) for _ in range(2))
    stride, dilation, kernel = (
        tuple(int(n) for n in rng.integers(1, 4, size=rank)) for _ in range(3)
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    padding = tuple(int(rng.integers(0, n + 1)) for n in reach)
    largest = 24 if rank == 1 else 9
    sizes = tuple(int(rng.integers(n, n + largest)) for n in reach)
    options = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    if rng.random() < 0.5:
        kind = nn.Conv1d if rank == 1 else nn.Conv2d
        return kind(into, out, kernel, **options), (into, *sizes)
    kind = nn.ConvTranspose1d if rank == 1 else nn.ConvTranspose2d
    rest = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation))
    padding = tuple(min(p, (n - 1) // 2) for p, n in zip(padding, reach))
    options |= {"output_padding": rest, "padding": padding}
    return kind(into, out, kernel, **options), (into, *sizes)


@pytest.mark.parametrize("chunk", range(10))
def test_500_random_convolutions(all_sparse, chunk):
    rng = np.random.default_rng(chunk)
    torch.manual_seed(chunk)
    for _ in range(50):
        module, shape = random_convolution(rng)
        network = LayeredNetwork.from_module(module, shape)
        matrix = network.weights[0]
        assert isinstance(matrix, csr_array)
        exact = float(np.linalg.svd(matrix.toarray(), compute_uv=False)[0])
        proved = certified_spectral_norm(matrix)
        assert exact <= proved <= 1.0001 * exact, (module, shape)
        assert norm_is_at_most(matrix, proved)
        assert exact == 0.0 or not norm_is_at_most(matrix, 0.9999 * exact)


@pytest.mark.parametrize("seed", range(60))
def test_integer_convolutions_equal_torch_exactly(all_sparse, seed):
    rng = np.random.default_rng(seed)
    module, shape = random_convolution(rng)
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.from_numpy(rng.integers(-9, 10, tuple(parameter.shape)) * 1.0)
    x = rng.integers(-9, 10, (3, *shape)) * 1.0
    network = LayeredNetwork.from_module(module, shape)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).flatten(1).numpy()
    np.testing.assert_array_equal(network(x), expected)
    np.testing.assert_array_equal(
        network.weights[0].toarray() @ x[0].ravel() + network.biases[0], expected[0]
    )


@pytest.mark.parametrize("block", [1, 7, 96])
def test_narrow_blocks_prove_the_same(monkeypatch, block):
    monkeypatch.setattr(sparse_norms, "_SMALLEST_BLOCK", block)
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 3, padding=1)
    dense = LayeredNetwork.from_module(module, (2, 12, 7)).weights[0]
    exact = float(np.linalg.svd(dense, compute_uv=False)[0])
    assert exact <= certified_spectral_norm(csr_array(dense)) <= exact * (1 + 1e-8)
    assert not norm_is_at_most(csr_array(dense), exact * (1 - 1e-8))


def test_a_gram_matrix_that_is_too_wide_gets_the_simple_bound(monkeypatch):
    monkeypatch.setattr(sparse_norms, "_MOST_OPERATIONS", 0.0)
    torch.manual_seed(0)
    matrix = LayeredNetwork.from_module(nn.Conv1d(2, 3, 3), (2, 30)).weights[0]
    value = certified_spectral_norm(csr_array(matrix))
    exact = float(np.linalg.svd(matrix, compute_uv=False)[0])
    assert exact < value <= np.linalg.norm(matrix) * (1 + 1e-9)
    assert norm_is_at_most(csr_array(matrix), value)
    assert not norm_is_at_most(csr_array(matrix), exact * 1.0001)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_extreme_scales(scale):
    matrix = scale * csr_array(np.diag([1.0, 0.75, 0.5]) + np.diag([0.25, 0.5], 1))
    exact = float(np.linalg.svd(matrix.toarray() / scale, compute_uv=False)[0])
    assert exact <= certified_spectral_norm(matrix) / scale <= exact * (1 + 1e-8)
    assert certified_spectral_norm(0.0 * matrix) == 0.0


def test_large_dense_matrices_of_few_entries_are_proved_as_sparse(monkeypatch):
    torch.manual_seed(0)
    dense = LayeredNetwork.from_module(nn.Conv2d(2, 2, 3, padding=1), (2, 14, 14)).weights[0]
    asked = []
    real = sparse_norms.BandedGram.is_below
    monkeypatch.setattr(
        sparse_norms.BandedGram,
        "is_below",
        lambda self, square: asked.append(square) or real(self, square),
    )
    exact = float(np.linalg.svd(dense, compute_uv=False)[0])
    assert exact <= certified_spectral_norm(dense) <= exact * (1 + 1e-8)
    assert asked


# --------------------------------------------------------------------- networks


def layers():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(3).eval(),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(3, 2, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(162, 3),
    ).eval()


def test_a_sparse_network_is_the_dense_one(monkeypatch):
    dense = LayeredNetwork.from_module(layers(), (2, 8, 8))
    monkeypatch.setattr(affine_maps, "DENSE_SIDE", 0)
    sparse = LayeredNetwork.from_module(layers(), (2, 8, 8))
    assert sparse.is_sparse
    assert not dense.is_sparse
    x = np.random.default_rng(0).standard_normal((4, 128))
    np.testing.assert_allclose(sparse(x), dense(x), rtol=1e-12)
    np.testing.assert_allclose(sparse.jacobian(x[0]), dense.jacobian(x[0]), atol=1e-14)
    for options in ({}, {"slopes": "propagated"}, {"box": (-1, 1)}):
        upper, wanted = (bound(net, "norm_product", **options) for net in (sparse, dense))
        assert upper.status == "certified"
        assert upper.value == pytest.approx(wanted.value, rel=1e-6)


def test_bounds_of_a_sparse_network(all_sparse, tmp_path):
    network = LayeredNetwork.from_module(layers(), (2, 8, 8))
    found = bracket(network, n_steps=5, n_random=4)
    assert 0 < found.lower.value <= found.upper.value
    assert found.upper.method == "lipsdp_neuron"  # as dense matrices
    assert found.upper.value <= bound(network, "eclipse_fast").value
    found = bracket(network, method="norm_product", n_steps=5, n_random=4)
    with pytest.raises(InputError, match="needs dense matrices"):
        bound(network, "eclipse")
    path = tmp_path / "certificate.json"
    save_certificate(found.upper.certificate, path)
    certificate = load_certificate(path)
    assert verify_certificate(certificate, network)
    lowered = {**certificate, "norms": [0.999 * n for n in certificate["norms"]]}
    assert not verify_certificate(lowered | {"value": 0.99 * certificate["value"]}, network)
    with pytest.raises(InputError, match="dense"):
        verify_exactly(certificate, network)
    with pytest.raises(InputError, match="dense"):
        network.to_mat(tmp_path / "weights.mat")


def test_sparse_weights_come_back_from_a_file(all_sparse, tmp_path):
    network = LayeredNetwork.from_module(layers(), (2, 8, 8))
    path = tmp_path / "weights.mat"
    write_cells(path, {"weights": network.weights, "bias": network.biases})
    again = LayeredNetwork.from_mat(path, network.activations)
    assert again.is_sparse
    assert again.hash == network.hash
    assert verify_certificate(bound(network).certificate, again)


def test_hashes_see_every_entry(all_sparse):
    network = LayeredNetwork.from_module(layers(), (2, 8, 8))
    module = layers()
    assert LayeredNetwork.from_module(module, (2, 8, 8)).hash == network.hash
    module[0].weight.data[0, 0, 0, 0] += 1e-6
    assert LayeredNetwork.from_module(module, (2, 8, 8)).hash != network.hash


def test_networks_of_sparse_matrices_are_checked():
    good = csr_array(np.eye(3))
    with pytest.raises(InputError, match="NaN"):
        LayeredNetwork.from_arrays([good * np.nan, good])
    with pytest.raises(InputError, match="columns"):
        LayeredNetwork.from_arrays([good, csr_array(np.ones((1, 2)))])
    network = LayeredNetwork.from_arrays([good, good], activation="relu")
    with pytest.raises(ValueError, match="read-only"):
        network.weights[0].data[0] = 2.0


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64])
def test_layers_of_the_study_size(side):
    torch.manual_seed(0)
    module = ConvVAEModule((side, side, 3), 64, [8, 16, 32], 3, 2, [], "elu").eval()
    for part in (module.encoder, module.decoder):
        network = LayeredNetwork.from_module(part)
        assert network.is_sparse == (side == 64)
        for weight in network.weights:
            proved = certified_spectral_norm(weight)
            vector = np.random.default_rng(0).standard_normal(weight.shape[1])
            for _ in range(300):
                vector = weight.T @ (weight @ (vector / np.linalg.norm(vector)))
            estimate = np.sqrt(np.linalg.norm(vector))
            assert estimate <= proved <= 1.01 * estimate


def test_matrices_of_one_pattern_are_independent():
    """Sorting the indices of one in place, as SciPy does, changes no other."""
    unsorted = csr_array((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    operations = (
        lambda m: matrices.scaled(m, 1),
        lambda m: matrices.plus_constant(m, 0.0),
        lambda m: matrices.rows_times(np.ones(1), m),
        lambda m: matrices.columns_times(m, np.ones(2)),
        matrices.ones_like,
    )
    for operation in operations:
        operation(unsorted).sort_indices()
        np.testing.assert_array_equal(unsorted.toarray(), [[2.0, 1.0]])
