"""Convolutions, pooling, normalisation and shapes against torch, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from harmonicvae.exceptions import HarmonicVAEError, InputError, UnsupportedNetworkError
from harmonicvae.network import LayeredNetwork
from harmonicvae.readers import affine_maps

FEW = settings(max_examples=60, deadline=None)
small = st.integers(1, 3)


def assert_same(module, input_shape, give_shape=True, rtol=1e-12):
    """The network computes what the float64 module computes, on random inputs."""
    module = module.double().eval()
    network = LayeredNetwork.from_module(module, input_shape if give_shape else None)
    x = torch.randn(4, *input_shape, dtype=torch.float64)
    with torch.no_grad():
        expected = module(x).reshape(4, -1).numpy()
    found = network(x.reshape(4, -1).numpy())
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)
    return network


def assert_entries_are_weights(matrix, weight):
    """Bit for bit: every entry that is not zero is a weight."""
    entries = set(matrix[matrix != 0].view(np.int64).tolist())
    assert entries <= set(weight.detach().double().numpy().ravel().view(np.int64).tolist())


@st.composite
def convolutions(draw):
    """A Conv2d or Conv1d and the shape of its input, both at random."""
    rank = draw(st.sampled_from([1, 2, 2]))
    groups, per_in, per_out = draw(small), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(small) for _ in range(rank)) for _ in range(3))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = draw(
        st.one_of(st.sampled_from(["same", "valid"]), st.tuples(*[st.integers(0, 3)] * rank))
    )
    if padding == "same":
        stride = (1,) * rank
    sizes = tuple(draw(st.integers(1, 7)) for _ in range(rank))
    kind = nn.Conv1d if rank == 1 else nn.Conv2d
    module = kind(
        groups * per_in,
        groups * per_out,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    return module, (groups * per_in, *sizes)


def runs(module, shape):
    """Whether torch itself accepts the shape and returns something."""
    try:
        return module.double()(torch.zeros(1, *shape, dtype=torch.float64)).numel() > 0
    except RuntimeError:
        return False


@given(case=convolutions())
@FEW
def test_convolutions_are_those_of_torch(case):
    module, shape = case
    if not runs(module, shape):
        with pytest.raises(HarmonicVAEError, match="Conv"):
            LayeredNetwork.from_module(module, shape)
        return
    network = assert_same(module, shape)
    assert_entries_are_weights(network.weights[-1], module.weight)
    assert network.n_layers == (1 if module.padding_mode == "zeros" else 2)


@st.composite
def transposed_convolutions(draw):
    """A ConvTranspose2d or ConvTranspose1d and the shape of its input."""
    rank = draw(st.sampled_from([1, 2, 2]))
    groups, per_in, per_out = draw(small), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(small) for _ in range(rank)) for _ in range(3))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    kind = nn.ConvTranspose1d if rank == 1 else nn.ConvTranspose2d
    module = kind(
        groups * per_in,
        groups * per_out,
        kernel,
        stride=stride,
        padding=tuple(draw(st.integers(0, 3)) for _ in range(rank)),
        output_padding=extra,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    return module, (groups * per_in, *(draw(st.integers(1, 5)) for _ in range(rank)))


@given(case=transposed_convolutions())
@FEW
def test_transposed_convolutions_are_those_of_torch(case):
    module, shape = case
    if not runs(module, shape):
        with pytest.raises(InputError, match="ConvTranspose"):
            LayeredNetwork.from_module(module, shape)
        return
    network = assert_same(module, shape)
    assert_entries_are_weights(network.weights[0], module.weight)


@given(
    kernel=st.tuples(small, small),
    stride=st.tuples(small, small),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    ceil=st.booleans(),
    count=st.booleans(),
    divisor=st.sampled_from([None, None, 1, 5, -2]),
    shape=st.tuples(small, st.integers(1, 8), st.integers(1, 8)),
)
@FEW
def test_average_pooling_is_that_of_torch(kernel, stride, padding, ceil, count, divisor, shape):
    assume(all(2 * p <= k for p, k in zip(padding, kernel)))
    module = nn.AvgPool2d(kernel, stride, padding, ceil, count, divisor)
    if not runs(module.double(), shape):
        with pytest.raises(InputError, match="AvgPool2d at the top has no outputs"):
            LayeredNetwork.from_module(module, shape)
        return
    assert_same(module, shape)
    if divisor is None:
        narrow = (*shape[:1], shape[2])
        single = nn.AvgPool1d(kernel[1], stride[1], padding[1], ceil, count)
        assert_same(single, narrow)


def with_statistics(module):
    """Give a normalisation statistics and coefficients that are not trivial."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (module.running_mean, module.weight, module.bias):
            if tensor is not None:
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) * 4)
    return module


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.BatchNorm1d, (5,)), (nn.BatchNorm1d, (5, 3)), (nn.BatchNorm2d, (5, 2, 3))],
)
def test_batch_normalisation_is_that_of_torch(kind, shape, affine):
    network = assert_same(with_statistics(kind(5, eps=1e-3, affine=affine).double()), shape)
    assert np.count_nonzero(network.weights[0]) == np.prod(shape)


def test_batch_normalisation_of_flat_input_needs_no_shape():
    module = nn.Sequential(with_statistics(nn.BatchNorm1d(3)), nn.ReLU(), nn.Linear(3, 2))
    assert_same(module, (3,), give_shape=False)


def conv_vae():
    """Encoder and decoder in one, as small convolutional autoencoders have them."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        with_statistics(nn.BatchNorm2d(4)),
        nn.SiLU(),
        nn.Dropout2d(0.3),
        nn.Conv2d(4, 6, 3, padding="same", groups=2, padding_mode="reflect"),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.GELU("tanh"),
        nn.Linear(5, 16),
        nn.Unflatten(1, (4, 2, -1)),
        nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1),
        nn.Sigmoid(),
        nn.Flatten(2),
        nn.Linear(16, 3),
        nn.Tanh(),
    )


def test_a_convolutional_autoencoder_is_represented_as_a_whole():
    torch.manual_seed(0)
    network = assert_same(conv_vae(), (3, 8, 8))
    assert (network.input_dim, network.output_dim) == (192, 6)
    names = [item.name for item in network.activations]
    assert [name for name in names if name != "identity"] == [
        "silu",
        "gelu",
        "gelu_tanh" if "gelu_tanh" in names else "gelu",
        "sigmoid",
        "tanh",
    ]


def test_one_activation_module_used_twice_counts_twice():
    """named_children() names a module once; a network that trusts it has a layer too few."""
    tanh = nn.Tanh()
    module = nn.Sequential(nn.Linear(3, 3), tanh, nn.Linear(3, 3), tanh, nn.Linear(3, 2))
    network = assert_same(module, (3,), give_shape=False)
    assert [item.name for item in network.activations] == ["tanh", "tanh"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_every_precision_are_copied_exactly(dtype):
    module = nn.Conv2d(2, 3, 2, dtype=dtype)
    matrix = LayeredNetwork.from_module(module, (2, 3, 3)).weights[0]
    assert_entries_are_weights(matrix, module.weight)


def test_parametrised_weights_are_those_the_module_uses():
    module = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    )
    with pytest.raises(UnsupportedNetworkError, match=r"ParametrizedLinear at '0'.*call \.eval"):
        LayeredNetwork.from_module(module)
    assert_same(module, (4,), give_shape=False)


class Restless(nn.Module):
    def forward(self, weight):
        return weight + torch.rand(())


def random_parametrization():
    layer = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Restless())
    return layer.eval()


class Gentle(nn.Linear):
    """Changes nothing that matters."""

    def __init__(self):
        super().__init__(3, 2)

    def extra_repr(self):
        return "gentle"

    def helper(self):
        return 1


class SlyConv(nn.Conv2d):
    def _conv_forward(self, *arguments):
        return 2 * super()._conv_forward(*arguments)


class SlyCall(nn.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Backwards(nn.Sequential):
    def __iter__(self):
        return reversed(list(super().__iter__()))


def replaced_forward():
    layer = nn.Linear(2, 2)
    layer.forward = lambda x: 2 * x
    return layer


def pruned():
    layer = nn.Linear(2, 2)
    prune.random_unstructured(layer, "weight", 1)
    return layer


def with_nan(module, name):
    with torch.no_grad():
        getattr(module, name).view(-1)[0] = torch.nan
    return module


def reshaped(module, **tensors):
    for name, shape in tensors.items():
        setattr(module, name, nn.Parameter(torch.ones(shape)))
    return module


def test_a_harmless_subclass_is_read():
    assert_same(Gentle(), (3,), give_shape=False)


UNSUPPORTED = [
    (nn.Sequential(nn.MaxPool2d(2)), (1, 4, 4), "MaxPool2d at '0': it is not among"),
    (nn.Conv2d(1, 1, 3), None, "Conv2d at the top: the shape of its input is unknown"),
    (nn.AvgPool2d(2), None, "AvgPool2d at the top: the shape"),
    (nn.BatchNorm2d(2).eval(), None, "BatchNorm2d at the top: the shape"),
    (nn.Conv2d(1, 1, 3), (9,), r"samples of 3 dimensions, here they have shape \(9,\)"),
    (nn.BatchNorm2d(2), (2, 2, 2), "BatchNorm2d at the top: .*training mode"),
    (nn.BatchNorm1d(2, track_running_stats=False).eval(), (2,), "no running statistics"),
    (nn.Dropout2d(0.1), (1, 2, 2), "Dropout2d at the top: it is random"),
    (SlyConv(1, 1, 1), (1, 2, 2), "SlyConv at the top"),
    (nn.Sequential(SlyCall(2, 2)), None, "SlyCall at '0'"),
    (Backwards(nn.Linear(2, 2), nn.ReLU()), None, "Backwards at the top"),
    (replaced_forward(), None, "a method is replaced on the object"),
    (pruned(), None, "forward hooks"),
    (random_parametrization(), None, "changes from one reading to the next"),
    (nn.Linear(2, 2, device="meta"), None, "not an ordinary tensor"),
    (nn.LazyLinear(2), None, "LazyLinear at the top"),
    (nn.Flatten(2), None, r"only Flatten\(1, -1\)"),
    (nn.Flatten(0), (2, 2), "must merge dimensions within samples"),
    (nn.Unflatten(1, (-1, 2)), None, "Unflatten at the top: the shape"),
    (nn.Unflatten(0, (1, 2)), (2,), "must split a dimension within samples"),
    (nn.Sequential(nn.Conv2d(512, 512, 3)), (512, 64, 64), r"Conv2d at '0': .* GiB, more than 2"),
]


@pytest.mark.parametrize(("module", "shape", "message"), UNSUPPORTED)
def test_layers_without_exact_form_are_refused_by_name(module, shape, message):
    with pytest.raises(UnsupportedNetworkError, match=message):
        LayeredNetwork.from_module(module, shape)


WRONG = [
    (
        with_nan(nn.Linear(2, 2), "weight"),
        None,
        "weight of Linear at the top must be finite",
    ),
    (with_nan(nn.Linear(2, 2), "bias"), None, "bias of Linear at the top must be finite"),
    (with_nan(nn.BatchNorm1d(2).eval(), "running_var"), None, "running_var of BatchNorm1d"),
    (nn.Conv2d(2, 1, 1), (3, 2, 2), "must get 2 channels"),
    (nn.Conv2d(2, 2, 1, groups=2), (3, 2, 2), "3 input channels"),
    (nn.ConvTranspose2d(2, 1, 1), (3, 2, 2), "must get 2 channels"),
    (nn.BatchNorm2d(2).eval(), (3, 2, 2), "must get 2 channels"),
    (nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)), None, "Linear at '1' must get 4 inputs"),
    (nn.Sequential(nn.Linear(2, 3)), (5,), "Linear at '0' must get 2 inputs"),
    (
        nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (2, 2))),
        None,
        "Unflatten at '1' must split 3",
    ),
    (
        nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (-1, 2))),
        None,
        "Unflatten at '1' must split 3",
    ),
    (
        reshaped(nn.Linear(2, 3), bias=(1,)),
        None,
        r"bias of Linear at the top must have shape \(3,\)",
    ),
    (reshaped(nn.Conv2d(1, 1, 2), weight=(1, 1, 3, 3)), (1, 4, 4), "kernels of size"),
    (nn.AvgPool2d(2, divisor_override=None, stride=1), (1, 1, 1), "no outputs"),
    (nn.BatchNorm1d(2, eps=-2.0).eval(), None, r"running variance \+ eps > 0"),
    (nn.Linear(0, 3), None, "at least one input"),
    (nn.Linear(2, 2), (0,), "input_shape must be whole numbers >= 1"),
    (nn.Linear(2, 2), (2.0,), "input_shape must be"),
    (nn.Linear(2, 2), "ab", "input_shape must be"),
    (nn.Linear(2, 2), (), "input_shape must be"),
    (5, None, "must be a torch.nn.Module, got int"),
    (nn.Linear, None, "must be a torch.nn.Module, got type"),
]


@pytest.mark.parametrize(("module", "shape", "message"), WRONG)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_sizes_and_numbers_are_checked(module, shape, message):
    with pytest.raises(InputError, match=message):
        LayeredNetwork.from_module(module, shape)


def test_hooks_on_all_modules_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: 2 * output)
    try:
        with pytest.raises(UnsupportedNetworkError, match="forward hooks"):
            LayeredNetwork.from_module(nn.Linear(2, 2))
    finally:
        handle.remove()


def test_a_module_that_contains_itself_is_refused():
    module = nn.Sequential(nn.Linear(2, 2))
    module.add_module("again", module)
    with pytest.raises(UnsupportedNetworkError, match="nested more than"):
        LayeredNetwork.from_module(module)


def test_deep_nesting_is_read():
    module = nn.Linear(2, 2)
    for _ in range(150):
        module = nn.Sequential(module)
    assert_same(module, (2,), give_shape=False)


def test_a_network_of_activations_alone_needs_its_size():
    assert_same(nn.Sequential(nn.Tanh(), nn.ReLU()), (2, 3))
    assert LayeredNetwork.from_module(nn.Flatten(), 3).n_layers == 1


def test_large_maps_of_few_entries_are_sparse(monkeypatch):
    monkeypatch.setattr(affine_maps, "MAX_MATRIX_BYTES", 8 * 16 * 16)
    small = LayeredNetwork.from_module(nn.Conv2d(1, 1, 1), (1, 4, 4))
    assert not small.is_sparse
    assert LayeredNetwork.from_module(nn.Conv2d(1, 1, 1), (1, 5, 5)).is_sparse
    with pytest.raises(UnsupportedNetworkError, match="144 × 144 has 144 entries"):
        LayeredNetwork.from_module(nn.Conv2d(1, 1, 1), (1, 12, 12))


def test_identities_of_wide_layers_are_sparse():
    first = LayeredNetwork.from_module(nn.Sequential(nn.ReLU(), nn.Linear(20000, 2)))
    assert first.weights[0].nnz == 20000
    last = LayeredNetwork.from_module(nn.Sequential(nn.Linear(2, 20000), nn.ReLU()))
    assert last.weights[1].nnz == 20000
    assert np.all(last([1.0, 2.0]) >= 0)
