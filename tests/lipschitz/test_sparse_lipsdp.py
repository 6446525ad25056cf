"""LipSDP of networks whose matrices are sparse: solved as dense ones, proved as they are."""

import pytest
import torch
from torch import nn

from harmonicvae.lipschitz import bound, verify_certificate
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.steepest import attained
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.conv_networks import conv_module, read

METHODS = ("lipsdp_neuron", "lipsdp_layer")


def both_forms(seed):
    """A random network of convolutions with sparse and with dense matrices."""
    module, shape = conv_module(seed)
    return read(module, shape, sparse=True), read(module, shape, sparse=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(20))
def test_sparse_and_dense_matrices_have_one_bound(method, seed):
    sparse, full = both_forms(seed)
    first, second = bound(sparse, method, gap=1e-8), bound(full, method, gap=1e-8)
    assert first.status == second.status == "certified"
    assert first.value == pytest.approx(second.value, rel=1e-6, abs=1e-300)
    assert verify_certificate(first.certificate, sparse)


@pytest.fixture(scope="module")
def pooled():
    """16,384 linear neurons between 12,288 inputs and 64 hidden neurons."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(16), nn.ELU(), nn.Flatten()]
    return LayeredNetwork.from_module(nn.Sequential(*layers, nn.Linear(64, 5)), (3, 64, 64))


def test_only_hidden_neurons_between_activations_count(pooled):
    assert pooled.is_sparse
    result = bound(pooled, "lipsdp_neuron", max_size=64)
    assert result.message == ""
    assert result.details["duality_gap"] < 1e-6
    assert result.value < bound(pooled, "eclipse_fast").value
    assert bound(pooled).method == "lipsdp_neuron"


@pytest.mark.parametrize("method", METHODS)
def test_too_large_ones_get_eclipse_fast(pooled, method):
    result = bound(pooled, method, max_size=63)
    assert result.message == "64 hidden neurons exceed max_size=63: ECLipsE-Fast was used"
    assert result.value == pytest.approx(bound(pooled, "eclipse_fast").value, rel=1e-9)
    assert result.details["dual_value"] <= result.value


def test_matrices_too_large_for_dense_ones_get_eclipse_fast(pooled, monkeypatch):
    monkeypatch.setattr("harmonicvae.lipschitz.lipsdp.MAX_MATRIX_BYTES", 2**20)
    assert "a dense matrix would take" in bound(pooled, "lipsdp_neuron").message


@pytest.mark.parametrize("seed", range(10))
def test_the_attained_value_of_sparse_matrices_is_that_of_dense_ones(seed):
    sparse, full = map(build_chain, both_forms(seed))
    assert attained(sparse) == pytest.approx(attained(full), rel=1e-3, abs=1e-300)
    assert attained(sparse) <= attained(full) * (1 + 1e-9)
