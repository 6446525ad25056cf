"""Random small convolutional networks, sparse or dense, and degenerate ones among them."""

import numpy as np
import torch
from torch import nn

from harmonicvae.network import LayeredNetwork
from harmonicvae.readers import affine_maps

#: α = 0, α > 0, α < 0 < β and β ≠ 1.
ACTIVATIONS = (
    nn.ReLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.SiLU,
    lambda: nn.LeakyReLU(0.1),
    lambda: nn.LeakyReLU(-0.5),
)
#: Inputs, hidden neurons and outputs at most.
_LARGEST = 400


def convolution(rng, into, rank):
    """A convolution or transposed one with stride, dilation, groups and padding at random."""
    groups = int(rng.choice([g for g in (1, 2, 3) if into % g == 0]))
    out = groups * int(rng.integers(1, 4))
    kernel, stride, dilation = (
        tuple(int(n) for n in rng.integers(1, 4, size=rank)) for _ in range(3)
    )
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    options["padding"] = tuple(int(n) for n in rng.integers(0, 2, size=rank))
    if rng.random() < 0.3:
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d)[rank - 1]
    else:
        kind = (nn.Conv1d, nn.Conv2d)[rank - 1]
    return kind(into, out, kernel, **options), out


def spoiled(rng, module):
    """Zero some kernels, now and then a whole layer."""
    with torch.no_grad():
        if rng.random() < 0.3:
            module.weight[int(rng.integers(len(module.weight)))] = 0.0
        if rng.random() < 0.2:
            module.weight[..., 0] = 0.0
        if rng.random() < 0.03:
            module.weight.zero_()
    return module


def candidate(rng):
    """A stack of layers and the shape of its input; torch may refuse it."""
    rank = int(rng.integers(1, 3))
    channels = int(rng.integers(1, 4))
    shape = (channels, *(int(n) for n in rng.integers(2, 40 if rank == 1 else 9, size=rank)))
    kinds = ACTIVATIONS[: 2 if rng.random() < 0.4 else None]
    layers = []
    for _ in range(int(rng.integers(1, 4))):
        module, channels = convolution(rng, channels, rank)
        layers += [spoiled(rng, module), kinds[int(rng.integers(len(kinds)))]()]
    if rng.random() < 0.3:
        layers.pop()
        layers.append(convolution(rng, channels, rank)[0])
        return nn.Sequential(*layers, nn.Flatten()), shape
    with torch.no_grad():
        features = nn.Sequential(*layers)(torch.zeros(1, *shape)).numel()
    if features == 0:
        raise ValueError("no outputs")
    linear = nn.Linear(features, int(rng.integers(1, 6)))
    return nn.Sequential(*layers, nn.Flatten(), linear), shape


def conv_module(seed):
    """A random module of at most three convolutions and its input shape."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    while True:
        try:
            module, shape = candidate(rng)
            widths = read(module, shape, sparse=True)
        except (RuntimeError, ValueError):
            continue
        if max(widths.input_dim, widths.output_dim, *widths.hidden_dims, 1) <= _LARGEST:
            return module.eval(), shape


def read(module, shape, sparse):
    """Return a module with sparse or with dense matrices, whatever their size."""
    side, affine_maps.DENSE_SIDE = affine_maps.DENSE_SIDE, 0 if sparse else 10**9
    try:
        return LayeredNetwork.from_module(module, shape)
    finally:
        affine_maps.DENSE_SIDE = side
