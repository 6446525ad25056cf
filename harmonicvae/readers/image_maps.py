"""Sparse matrices of convolutions, paddings and poolings, entry by entry exact.

Samples are flat vectors in C order of ``(channels, *sizes)``, as torch and ONNX flatten
them. Weights are copied into the matrices, never multiplied or added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from scipy.sparse import csr_array, kron

from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.matrices import rows_times
from harmonicvae.readers.affine_maps import (
    AffineMap,
    Shape,
    check_entries,
    check_matrix,
    repeat_sparse,
)

#: Larger strides, paddings and the like are damage, not geometry.
_LARGEST = 2**31


@dataclass(frozen=True)
class Window:
    """How a kernel moves over each axis of an image.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        One number ≥ 1 an axis.
    before, after : tuple of int
        Padding at the start and the end of each axis, ≥ 0.

    Raises
    ------
    InputError
        If a number is outside its range, or the tuples differ in length.

    Examples
    --------
    >>> Window((3,), (2,), (1,), (1,), (1,)).output_sizes((8,))
    (4,)
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    before: Shape
    after: Shape

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("dilation", 1), ("before", 0)):
            _check_numbers(name, getattr(self, name), least, len(self.kernel))
        _check_numbers("after", self.after, 0, len(self.kernel))

    def output_sizes(self, sizes: Shape, ceil: bool = False) -> Shape:
        """Return how many positions the window has along each axis.

        Parameters
        ----------
        sizes : tuple of int
            Sizes of the image.
        ceil : bool, default=False
            Round up, as pooling in ceil mode; a last window that would start in the
            padding at the end is left out.

        Returns
        -------
        tuple of int
            May hold numbers ≤ 0 where the kernel is larger than the padded image.
        """
        result = []
        for i, size in enumerate(sizes):
            span = self.dilation[i] * (self.kernel[i] - 1) + 1
            room = size + self.before[i] + self.after[i] - span
            count = (-(-room // self.stride[i]) if ceil else room // self.stride[i]) + 1
            if ceil and (count - 1) * self.stride[i] >= size + self.before[i]:
                count -= 1
            result.append(count)
        return tuple(result)


def _check_numbers(name: str, values: Any, least: int, count: int) -> None:
    """Refuse anything but ``count`` whole numbers ≥ ``least``."""
    fits = all(isinstance(v, int) and least <= v < _LARGEST for v in values)
    if not fits or len(values) != count:
        raise InputError(f"{name} must be {count} whole numbers >= {least}, got {values!r}")


def _check_sizes(sizes: Shape, layer: str) -> None:
    if min(sizes) <= 0:
        raise InputError(f"{layer} has no outputs: their sizes would be {sizes}; give larger input")


def _check_channels(weight: np.ndarray, channels: int, groups: int, layer: str) -> None:
    """Refuse kernels that do not fit the channels and groups."""
    if groups < 1 or channels % groups or weight.shape[0] % groups or weight.size == 0:
        raise InputError(
            f"{layer} cannot split {channels} input channels and kernels of shape "
            f"{weight.shape} into {groups} groups"
        )


def _unroll(
    weight: np.ndarray, groups: int, coarse: Shape, fine: Shape, window: Window
) -> csr_array:
    """Return the matrix from ``(groups·in, *fine)`` to ``(out, *coarse)``.

    Its entry is ``weight[o, i, tap]`` where, along each axis, the position in ``fine``
    is position in ``coarse`` × stride − before + tap × dilation, within the groups.
    Two taps never meet, as dilation ≥ 1. O(nonzeros), a few array operations a tap.
    """
    kernels = weight.reshape(groups, -1, *weight.shape[1:])
    outputs = np.arange(weight.shape[0]).reshape(groups, -1, 1, 1) * prod(coarse)
    inputs = np.arange(groups * weight.shape[1]).reshape(groups, 1, -1, 1) * prod(fine)
    parts = []
    for tap in np.ndindex(*weight.shape[2:]):
        into, out = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        for i, number in enumerate(tap):
            positions = np.arange(coarse[i]) * window.stride[i]
            positions += number * window.dilation[i] - window.before[i]
            inside = np.flatnonzero((positions >= 0) & (positions < fine[i]))
            out = np.add.outer(out * coarse[i], inside).ravel()
            into = np.add.outer(into * fine[i], positions[inside]).ravel()
        rows, columns = np.broadcast_arrays(outputs + out, inputs + into)
        values = np.broadcast_to(kernels[(..., *tap)][..., None], rows.shape)
        chosen = values != 0.0
        parts.append((values[chosen], rows[chosen], columns[chosen]))
    values, rows, columns = (np.concatenate(part) for part in zip(*parts))
    size = (weight.shape[0] * prod(coarse), groups * weight.shape[1] * prod(fine))
    return csr_array((values, (rows, columns)), shape=size)


def convolution_sizes(
    weight: np.ndarray, shape: Shape, window: Window, groups: int, layer: str
) -> Shape:
    """Return the sizes of a convolution's output, without its channels.

    Parameters
    ----------
    weight, shape, window, groups, layer
        As for :func:`convolution`.

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        If the kernels do not fit the channels, or there is no output.

    Examples
    --------
    >>> window = Window((2,), (1,), (1,), (0,), (0,))
    >>> convolution_sizes(np.ones((1, 1, 2)), (1, 3), window, 1, "layer")
    (2,)
    """
    _check_channels(weight, shape[0], groups, layer)
    if weight.shape[1] * groups != shape[0]:
        raise InputError(
            f"{layer} must get {weight.shape[1] * groups} channels, got input of shape {shape}"
        )
    sizes = window.output_sizes(shape[1:])
    _check_sizes(sizes, layer)
    return sizes


def transposed_sizes(
    weight: np.ndarray,
    shape: Shape,
    window: Window,
    output_padding: Shape,
    groups: int,
    layer: str,
) -> Shape:
    """Return the sizes of a transposed convolution's output, without its channels.

    Parameters
    ----------
    weight, shape, window, output_padding, groups, layer
        As for :func:`transposed_convolution`.

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        If the kernels do not fit the channels, or there is no output.

    Examples
    --------
    >>> window = Window((2,), (2,), (1,), (0,), (0,))
    >>> transposed_sizes(np.ones((1, 1, 2)), (1, 2), window, (0,), 1, "layer")
    (4,)
    """
    _check_channels(weight, shape[0], groups, layer)
    _check_numbers("output_padding", output_padding, 0, len(shape) - 1)
    if weight.shape[0] != shape[0]:
        raise InputError(f"{layer} must get {weight.shape[0]} channels, got input of shape {shape}")
    sizes = tuple(
        (size - 1) * window.stride[i]
        + window.dilation[i] * (window.kernel[i] - 1)
        + 1
        + output_padding[i]
        - window.before[i]
        - window.after[i]
        for i, size in enumerate(shape[1:])
    )
    _check_sizes(sizes, layer)
    return sizes


def convolution(
    weight: np.ndarray, bias: np.ndarray, shape: Shape, window: Window, groups: int, layer: str
) -> AffineMap:
    """Return the affine map of a convolution with zero padding.

    Parameters
    ----------
    weight : ndarray of shape (out_channels, channels / groups, ...)
    bias : ndarray of shape (out_channels,)
    shape : tuple of int
        ``(channels, *sizes)`` of one input.
    window : Window
        Kernel, stride, dilation and padding.
    groups : int
        Channels are split into as many independent groups, ≥ 1.
    layer : str
        What to call it in an error.

    Returns
    -------
    AffineMap
        Every entry of the matrix is 0 or one of the weights, bit for bit.

    Raises
    ------
    InputError
        If the kernels do not fit the channels, or there is no output.
    UnsupportedNetworkError
        If the entries would take more than
        :data:`~harmonicvae.readers.affine_maps.MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> window = Window((2,), (1,), (1,), (0,), (0,))
    >>> weight = np.array([[[1.0, 2.0]]])
    >>> convolution(weight, np.zeros(1), (1, 3), window, 1, "layer").matrix.toarray()
    array([[1., 2., 0.],
           [0., 1., 2.]])
    """
    sizes = convolution_sizes(weight, shape, window, groups, layer)
    rows, entries = weight.shape[0] * prod(sizes), weight.size * prod(sizes)
    check_entries(rows, prod(shape), entries, layer)
    matrix = _unroll(weight, groups, sizes, shape[1:], window)
    return AffineMap(matrix, np.repeat(bias, prod(sizes)), (weight.shape[0], *sizes))


def transposed_convolution(
    weight: np.ndarray,
    bias: np.ndarray,
    shape: Shape,
    window: Window,
    output_padding: Shape,
    groups: int,
    layer: str,
) -> AffineMap:
    """Return the affine map of a transposed convolution.

    Parameters
    ----------
    weight : ndarray of shape (channels, out_channels / groups, ...)
    bias : ndarray of shape (out_channels,)
    shape : tuple of int
        ``(channels, *sizes)`` of one input.
    window : Window
        Kernel, stride, dilation, and the padding that is cut off.
    output_padding : tuple of int
        What is added to the end of each axis, ≥ 0.
    groups : int
        Channels are split into as many independent groups, ≥ 1.
    layer : str
        What to call it in an error.

    Returns
    -------
    AffineMap
        Every entry of the matrix is 0 or one of the weights, bit for bit.

    Raises
    ------
    InputError
        If the kernels do not fit the channels, or there is no output.
    UnsupportedNetworkError
        If the entries would take more than
        :data:`~harmonicvae.readers.affine_maps.MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> window = Window((2,), (2,), (1,), (0,), (0,))
    >>> weight = np.array([[[1.0, 2.0]]])
    >>> affine = transposed_convolution(weight, np.zeros(1), (1, 2), window, (0,), 1, "layer")
    >>> affine.matrix.toarray()
    array([[1., 0.],
           [2., 0.],
           [0., 1.],
           [0., 2.]])
    """
    sizes = transposed_sizes(weight, shape, window, output_padding, groups, layer)
    channels = weight.shape[1] * groups
    check_entries(channels * prod(sizes), prod(shape), weight.size * prod(shape[1:]), layer)
    matrix = csr_array(_unroll(weight, groups, shape[1:], sizes, window).T)
    return AffineMap(matrix, np.repeat(bias, prod(sizes)), (channels, *sizes))


def _outer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.multiply.outer(first, second)


def _kron(first: csr_array, second: csr_array) -> csr_array:
    return csr_array(kron(first, second, format="csr"))


def average_pool(
    shape: Shape,
    window: Window,
    layer: str,
    *,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> AffineMap:
    """Return the linear map of average pooling, channel by channel.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, *sizes)`` of one input.
    window : Window
        Kernel, stride, dilation and padding.
    layer : str
        What to call it in an error.
    ceil : bool, default=False
        Round the number of windows up.
    count_padding : bool, default=True
        Divide by the size of the window within the padded image, else by the number of
        entries of the image in it.
    divisor : int, default=None
        Divide by this number instead, ≠ 0.

    Returns
    -------
    AffineMap
        Entries are 1 / count, rounded once to float64 (to nearest); bias 0.

    Raises
    ------
    InputError
        If there is no output, a window holds nothing, or ``divisor`` is 0.
    UnsupportedNetworkError
        If the entries would take more than
        :data:`~harmonicvae.readers.affine_maps.MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> window = Window((2,), (2,), (1,), (0,), (0,))
    >>> average_pool((1, 4), window, "AvgPool1d").matrix.toarray()
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    sizes = window.output_sizes(shape[1:], ceil)
    _check_sizes(sizes, layer)
    rows = shape[0] * prod(sizes)
    check_entries(rows, prod(shape), min(rows, prod(shape)) * prod(window.kernel), layer)
    covers, counts = [], []
    for i, size in enumerate(shape[1:]):
        check_matrix(sizes[i], window.kernel[i], layer)
        check_matrix(sizes[i], size, layer)
        taps = np.arange(window.kernel[i]) * window.dilation[i] - window.before[i]
        positions = np.arange(sizes[i])[:, None] * window.stride[i] + taps
        cover = np.zeros((sizes[i], size))
        row, column = np.nonzero((positions >= 0) & (positions < size))
        cover[row, positions[row, column]] = 1.0
        covers.append(csr_array(cover))
        padded = np.sum(positions < size + window.after[i], axis=1)
        counts.append(padded if count_padding else cover.sum(axis=1))
    total = reduce(_outer, counts).reshape(-1, 1) if divisor is None else divisor
    if np.any(np.equal(total, 0)):
        raise InputError(f"{layer} divides by 0: the divisor is 0 or a window holds no entry")
    block = reduce(_kron, covers)
    weights = 1.0 / np.broadcast_to(total, (prod(sizes), 1)).ravel()
    matrix = repeat_sparse(rows_times(weights, block), shape[0])
    return AffineMap(matrix, np.zeros(matrix.shape[0]), (shape[0], *sizes))


#: Padding modes that copy entries, and what NumPy calls them.
_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def copying_pad(
    shape: Shape, before: Sequence[int], after: Sequence[int], mode: str, layer: str
) -> AffineMap:
    """Return the linear map that pads images with copies of their own entries.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, *sizes)`` of one input.
    before, after : sequence of int
        Entries added to the start and the end of each axis, ≥ 0.
    mode : str
        "reflect" (without the border itself), "replicate" or "circular".
    layer : str
        What to call it in an error.

    Returns
    -------
    AffineMap
        One entry 1 in each row; bias 0.

    Raises
    ------
    InputError
        If the padding is larger than the image has entries to copy.
    UnsupportedNetworkError
        If ``mode`` is another, or the entries would take more than
        :data:`~harmonicvae.readers.affine_maps.MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> copying_pad((1, 2), (1,), (0,), "circular", "Conv1d").matrix.toarray()
    array([[0., 1.],
           [1., 0.],
           [0., 1.]])
    """
    if mode not in _PAD_MODES:
        raise UnsupportedNetworkError(f"cannot read {layer}: padding mode {mode!r} is not known")
    for i, size in enumerate(shape[1:]):
        room = {"reflect": size - 1, "circular": size}.get(mode, _LARGEST)
        if max(before[i], after[i]) > room:
            raise InputError(f"{layer} pads {size} entries by more than {room} in mode {mode!r}")
    sizes = tuple(size + before[i] + after[i] for i, size in enumerate(shape[1:]))
    check_entries(shape[0] * prod(sizes), prod(shape), shape[0] * prod(sizes), layer)
    source = np.pad(
        np.arange(prod(shape[1:])).reshape(shape[1:]),
        list(zip(before, after)),
        mode=_PAD_MODES[mode],
    )
    places = (np.arange(prod(sizes)), source.ravel())
    block = csr_array((np.ones(prod(sizes)), places), shape=(prod(sizes), prod(shape[1:])))
    matrix = repeat_sparse(block, shape[0])
    return AffineMap(matrix, np.zeros(matrix.shape[0]), (shape[0], *sizes))
