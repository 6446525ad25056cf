import itertools

import numpy as np
import pytest
import torch
from torch import nn


def perceptron(*sizes, seed=0, gain=2.0):
    """Return a sigmoid network with weights large enough to be far from linear."""
    source = torch.Generator().manual_seed(seed)
    layers = []
    for inner, outer in itertools.pairwise(sizes):
        layer = nn.Linear(inner, outer)
        with torch.no_grad():
            scale = gain * inner**-0.5
            layer.weight.copy_(scale * torch.randn(outer, inner, generator=source))
            layer.bias.copy_(0.3 * torch.randn(outer, generator=source))
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1]).eval()


@pytest.fixture(scope="session")
def pair():
    """Encoder 20 → 5 and decoder 5 → 20 with one hidden layer each."""
    return perceptron(20, 16, 5, seed=1), perceptron(5, 16, 20, seed=2, gain=4.0)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, size=(6, 20))
