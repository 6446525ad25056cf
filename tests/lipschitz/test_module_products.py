"""Norm products of modules without their matrices, against those with them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from harmonicvae import LayeredNetwork
from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.lipschitz import bound, lower_bound, module_norm_product
from harmonicvae.lipschitz.module_products import _NormStack
from harmonicvae.models import ConvHarmonicVAE
from harmonicvae.norms import certified_spectral_norm
from harmonicvae.readers.affine_maps import AffineMap
from tests.lipschitz.conv_networks import conv_module


@pytest.mark.parametrize("seed", range(40))
def test_never_below_the_norms_of_the_matrices(seed):
    module, shape = conv_module(seed)
    network = LayeredNetwork.from_module(module, shape)
    result = module_norm_product(module, shape)
    norms = [
        float(np.linalg.norm(w if isinstance(w, np.ndarray) else w.toarray(), 2))
        for w in network.weights
    ]
    slopes = [max(abs(item.alpha), abs(item.beta)) for item in network.activations]
    assert result.value >= math.prod(norms) * math.prod(slopes) * (1 - 1e-9)
    assert (result.kind, result.status, result.scope) == ("upper", "certified", "global")
    assert len(result.details["norms"]) >= 1


def everything():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False, ceil_mode=True),
        nn.Conv2d(8, 8, 3, stride=2, groups=4, dilation=2),
        nn.ELU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2, output_padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.BatchNorm1d(4 * 14 * 14),
        nn.Dropout(0.5),
        nn.Linear(4 * 14 * 14, 5),
        nn.Sigmoid(),
    )
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.weight.copy_(torch.randn(len(layer.weight)))
                layer.running_var.copy_(torch.rand(len(layer.weight)) + 0.1)
    return module.eval()


def test_every_layer_counts_and_scales_are_folded_into_convolutions():
    module = everything()
    result = module_norm_product(module, (3, 30, 30))
    names = list(result.details["norms"])
    assert names == [
        "padding of Conv2d at '0'",
        "Conv2d at '0', BatchNorm2d at '1'",
        "AvgPool2d at '3'",
        "Conv2d at '4'",
        "ConvTranspose2d at '6', BatchNorm2d at '7'",
        "BatchNorm1d at '10'",
        "Linear at '12'",
    ]
    assert result.details["slopes"] == [1.0, 1.0, 1.0, 0.25]
    network = LayeredNetwork.from_module(module, (3, 30, 30))
    assert result.value >= bound(network, "norm_product").value  # consecutive layers multiplied
    single = [certified_spectral_norm(weight) for weight in network.weights]
    assert result.value <= 1.1 * math.prod([*single, *result.details["slopes"]])
    scale = (module[1].weight / torch.sqrt(module[1].running_var + module[1].eps)).detach()
    plain = module_norm_product(module[:1], (3, 30, 30)).details["norms"]["Conv2d at '0'"]
    folded = result.details["norms"]["Conv2d at '0', BatchNorm2d at '1'"]
    assert folded < plain * float(scale.abs().max()) * 0.999


def test_a_layer_without_a_way_of_its_own_gets_the_norm_of_its_matrix():
    stack = _NormStack((2,))
    stack.append(AffineMap(np.array([[3.0, 4.0]]), np.zeros(1), (1,)), "new layer")
    ((layer, norm),) = stack.found()
    assert (layer, norm) == ("new layer", pytest.approx(5.0))
    assert norm >= 5.0 * (1 - 1e-15)
    assert stack.weights == []


def test_two_scalings_and_flattened_ones():
    module = nn.Sequential(
        nn.Conv1d(1, 2, 1, bias=False), nn.BatchNorm1d(2, eps=0.0), nn.BatchNorm1d(2, eps=0.0)
    ).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[[3.0]], [[4.0]]]))
        module[1].weight.copy_(torch.tensor([2.0, 0.0]))
        module[2].weight.copy_(torch.tensor([5.0, 7.0]))
    assert module_norm_product(module, (1, 9)).value == pytest.approx(30.0, rel=1e-9)
    flat = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.BatchNorm1d(18)).eval()
    assert list(module_norm_product(flat, (1, 9)).details["norms"]) == [
        "Conv1d at '0'",
        "BatchNorm1d at '2'",
    ]


@pytest.mark.parametrize("side", ["encoder_", "decoder_"])
def test_of_a_model_it_is_near_to_the_norm_product_of_its_image_size(side):
    X = np.random.default_rng(0).uniform(-1, 1, (32, 3072)).astype(np.float32)
    vae = ConvHarmonicVAE(latent_dim=4, max_epochs=1, batch_size=16, random_state=0).fit(X)
    module = getattr(vae, side)
    known = bound(module, "norm_product").value
    assert known <= module_norm_product(module).value <= 1.25 * known  # 4 × 4 pixels at the end


def test_a_network_whose_matrices_are_too_large():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(224), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    with pytest.raises(UnsupportedNetworkError, match="module_norm_product"):
        LayeredNetwork.from_module(module, (3, 224, 224))
    result = module_norm_product(module, (3, 224, 224))
    assert math.isfinite(result.value)
    small = nn.Sequential(*module[:4], nn.AvgPool2d(12), *module[5:])
    network = LayeredNetwork.from_module(small, (3, 12, 12))
    pooled = result.details["norms"]["AvgPool2d at '4'"]
    assert pooled == pytest.approx(1 / 224, rel=1e-9)
    found = lower_bound(network, np.zeros((1, 432)), n_steps=5, n_random=2).value
    assert found <= module_norm_product(small, (3, 12, 12)).value


def test_layers_of_one_name_all_count():
    inner = nn.Sequential(nn.Identity(), nn.Linear(1, 1, bias=False))
    module = nn.Sequential(inner)
    setattr(module, "0.1", nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        inner[1].weight.fill_(100.0)
        getattr(module, "0.1").weight.fill_(3.0)
    assert module_norm_product(module).value >= 300.0


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AvgPool2d((2, 3), (1, 2), divisor_override=-5),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    ],
    ids=str,
)
def test_pooling_is_a_product_of_its_axes(pool):
    network = LayeredNetwork.from_module(pool, (2, 9, 11))
    exact = certified_spectral_norm(network.weights[0])
    found = module_norm_product(pool, (2, 9, 11)).value
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-6)
    assert module_norm_product(nn.AvgPool2d(3, 1, 1), (64, 3000, 2000)).value >= 0.99


def test_a_circular_padding_costs_nothing():
    torch.manual_seed(3)
    module = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False)
    network = LayeredNetwork.from_module(module, (2, 16, 16))
    exact = float(np.linalg.norm(network.weights[1] @ network.weights[0], 2))
    found = module_norm_product(module, (2, 16, 16))
    assert exact <= found.value <= 1.02 * exact
    assert list(found.details["norms"]) == ["Conv2d at the top"]
    wider = nn.Conv2d(2, 3, 3, padding=2, padding_mode="circular", bias=False)
    assert len(module_norm_product(wider, (2, 16, 16)).details["norms"]) == 2


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_is_a_product_of_its_axes(mode):
    module = nn.Conv2d(1, 1, (3, 5), 2, padding=(1, 2), padding_mode=mode, bias=False)
    norms = module_norm_product(module, (1, 8, 9)).details["norms"]
    padding = LayeredNetwork.from_module(module, (1, 8, 9)).weights[0]
    dense = padding if isinstance(padding, np.ndarray) else padding.toarray()
    exact = float(np.linalg.norm(dense, 2))
    assert norms["padding of Conv2d at the top"] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    ("weight", "scales"),
    [
        (1e200, [1e200, 1.0]),
        (1e160, [1.0, 0.0]),
        (1e160, [1.0, 1.0]),
        (1e-200, [1e-200, 1e300]),
        (1e-300, [1e-20, 1e-20]),
    ],
)
def test_extreme_scales_are_bounded(weight, scales):
    module = nn.Sequential(nn.Conv1d(1, 2, 1, bias=False), nn.BatchNorm1d(2, eps=0.0)).double()
    module.eval()
    with torch.no_grad():
        module[0].weight.fill_(weight)
        module[1].weight.copy_(torch.tensor(scales, dtype=torch.float64))
    exact = math.hypot(*(min(weight * scale, 1e308) for scale in scales))
    found = module_norm_product(module, (1, 5)).value
    assert exact * (1 - 1e-12) <= found
    if 0 < exact < 1e300:
        assert found <= max(1.5 * exact, 1e-289)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(InputError, match="torch"):
        module_norm_product(3)
    with pytest.raises(UnsupportedNetworkError, match="MaxPool2d"):
        module_norm_product(nn.Sequential(nn.MaxPool2d(2)), (1, 4, 4))
    with pytest.raises(UnsupportedNetworkError, match="input_shape"):
        module_norm_product(nn.Conv2d(1, 1, 3))
    with pytest.raises(UnsupportedNetworkError, match=r"samples of 3 dimensions.*\(5,\)"):
        module_norm_product(nn.AvgPool2d(2), (5,))
    with pytest.raises(InputError, match="divides by 0"):
        module_norm_product(nn.AvgPool2d(2, divisor_override=0), (1, 4, 4))
    with pytest.raises(InputError, match="Linear"):
        module_norm_product(nn.Linear(3, 0))
    with pytest.raises(InputError, match="channels"):
        module_norm_product(nn.Conv2d(1, 1, 3), (2, 9, 9))
    with pytest.raises(InputError, match="larger input"):
        module_norm_product(nn.Conv2d(1, 1, 3), (1, 2, 2))
