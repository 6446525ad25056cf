"""Norms of convolutions on images of any size against singular values of matrices."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae import LayeredNetwork
from harmonicvae.exceptions import InputError
from harmonicvae.symbol_norms import _roots_of_unity, convolution_norm


def exact_norm(module, shape):
    network = LayeredNetwork.from_module(module, shape)
    weight = network.weights[0]
    dense = weight if isinstance(weight, np.ndarray) else weight.toarray()
    return float(np.linalg.svd(dense, compute_uv=False)[0])


def norm_of(module):
    kernel = module.weight.detach().double().numpy()
    return convolution_norm(kernel, module.stride, module.dilation, module.groups)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from([nn.Conv1d, nn.ConvTranspose1d]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    groups=st.integers(1, 3),
    padding=st.integers(0, 6),
    size=st.integers(20, 90),
    sparse=st.booleans(),
)
def test_never_below_the_norm_on_an_image(
    seed, kind, channels, kernel, stride, dilation, groups, padding, size, sparse
):
    torch.manual_seed(seed)
    into, out = (groups * number for number in channels)
    padding = min(padding, dilation * (kernel - 1))
    module = kind(into, out, kernel, stride, padding, dilation=dilation, groups=groups)
    if sparse:
        with torch.no_grad():
            module.weight *= torch.rand_like(module.weight) < 0.5
    exact = exact_norm(module, (into, size))
    assert norm_of(module) >= exact * (1 - 1e-12)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize("seed", range(20))
def test_within_one_percent_on_long_images(kind, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kernel, stride = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    module = kind(3, 2, kernel, stride=stride, padding=(kernel - 1) // 2)
    exact = exact_norm(module, (3, 200))
    assert exact * (1 - 1e-12) <= norm_of(module) <= 1.01 * exact


@pytest.mark.parametrize("seed", range(30))
def test_never_below_the_symbol_between_the_frequencies_of_the_proof(seed):
    rng = np.random.default_rng(seed)
    taps = int(rng.integers(2, 8))
    kernel = rng.standard_normal((2, 2, taps))
    angles = np.linspace(0, np.pi, 5001)
    phases = np.exp(1j * np.outer(angles, np.arange(taps)))
    symbols = np.einsum("at,oit->aoi", phases, kernel)
    largest = float(np.linalg.svd(symbols, compute_uv=False).max())
    assert largest <= convolution_norm(kernel, (1,), (1,)) <= largest * 1.002


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [((3, 3), (1, 1), (1, 1)), ((2, 5), (2, 3), (1, 1)), ((4, 4), (2, 2), (2, 1))],
)
def test_images_of_two_axes(kind, kernel, stride, dilation):
    torch.manual_seed(1)
    module = kind(2, 3, kernel, stride=stride, dilation=dilation, padding=1)
    exact = exact_norm(module, (2, 24, 24))
    assert exact * (1 - 1e-12) <= norm_of(module) <= 1.03 * exact


def test_closed_forms():
    ones = np.ones((1, 1, 3, 3))
    assert 9.0 <= convolution_norm(ones, (1, 1), (1, 1)) <= 9.0 * 1.0025
    disjoint = convolution_norm(ones, (3, 3), (1, 1))
    assert 3.0 <= disjoint <= 3.0 * (1 + 1e-9)
    difference = np.array([[[1.0, -1.0]]])
    assert 2.0 <= convolution_norm(difference, (1,), (1,)) <= 2.0 * 1.0013
    assert 2.0 <= convolution_norm(difference, (1,), (5,)) <= 2.0 * 1.0013
    assert convolution_norm(np.zeros((2, 3, 4)), (1,), (1,)) == 0.0
    matrix = np.array([[3.0, 0.0], [4.0, 5.0]])
    pointwise = convolution_norm(matrix[:, :, None, None], (1, 1), (1, 1))
    assert pointwise == pytest.approx(math.sqrt(45.0), rel=1e-9)
    assert pointwise >= math.sqrt(45.0) * (1 - 1e-15)


@given(exponent=st.integers(-900, 900))
def test_scales_with_the_kernel(exponent):
    kernel = np.array([[[1.0, -2.0, 0.5]]])
    one = convolution_norm(kernel, (1,), (1,))
    assert convolution_norm(np.ldexp(kernel, exponent), (1,), (1,)) == pytest.approx(
        math.ldexp(one, exponent), rel=1e-12
    )


def test_errors_of_the_kernel_are_added():
    kernel = np.array([[[1.0, -2.0, 0.5]]])
    plain = convolution_norm(kernel, (1,), (1,))
    assert convolution_norm(kernel, (1,), (1,), error=0.25) >= plain + 0.25
    assert convolution_norm(0.0 * kernel, (1,), (1,), error=0.25) >= 0.25


@pytest.mark.parametrize("count", [1, 2, 4, 64, 1024])
def test_roots_of_unity_are_as_exact_as_claimed(count):
    mpmath.mp.dps = 40
    roots = _roots_of_unity(count)
    for j in range(0, count, max(1, count // 64)):
        true = mpmath.expjpi(mpmath.mpf(2 * j) / count)
        assert abs(mpmath.mpc(roots[j].real, roots[j].imag) - true) < 2.0**-44


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "word"),
    [
        (np.ones(3), (1,), (1,), 1, "kernel"),
        (np.full((1, 1, 2), np.nan), (1,), (1,), 1, "kernel"),
        (1j * np.ones((1, 1, 2)), (1,), (1,), 1, "kernel"),
        (np.ones((2, 2)), (), (), 1, "kernel"),
        (np.ones((1, 1, 2)), (0,), (1,), 1, "stride"),
        (np.ones((1, 1, 2)), 1, (1,), 1, "stride"),
        (np.ones((1, 1, 2)), (1,), (np.inf,), 1, "dilation"),
        (np.ones((1, 1, 2)), (1, 1), (1,), 1, "stride"),
        (np.ones((1, 1, 2)), (1,), (1.5,), 1, "dilation"),
        (np.ones((3, 1, 2)), (1,), (1,), 2, "groups"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(kernel, stride, dilation, groups, word):
    with pytest.raises(InputError, match=word):
        convolution_norm(kernel, stride, dilation, groups)


@pytest.mark.parametrize("error", [-1.0, np.nan, np.inf])
def test_errors_must_be_finite_and_not_negative(error):
    with pytest.raises(InputError, match="error"):
        convolution_norm(np.ones((1, 1, 2)), (1,), (1,), error=error)


@pytest.mark.parametrize(("stride", "dilation"), [(6, 4), (2, 6), (4, 4), (9, 1), (3, 5)])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_strides_and_dilations_together(stride, dilation, kind):
    torch.manual_seed(stride)
    module = kind(2, 3, 4, stride=stride, dilation=dilation)
    exact = exact_norm(module, (2, 40 if kind is nn.ConvTranspose1d else 400))
    assert exact * (1 - 1e-12) <= norm_of(module) <= 1.04 * exact


def test_large_kernels_and_dilations_stay_small_in_memory():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((1, 1, 3, 3))
    plain = convolution_norm(wide, (1, 1), (1, 1))
    assert convolution_norm(wide, (1, 1), (50, 70)) == pytest.approx(plain, rel=1e-12)
    assert convolution_norm(rng.standard_normal((8, 8, 1, 1)), (500, 500), (1, 1)) > 0
    assert convolution_norm(rng.standard_normal((1, 1, 15, 15)), (1, 1), (1, 1)) > 0
