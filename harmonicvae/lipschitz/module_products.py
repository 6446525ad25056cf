"""The norm product of a torch module layer by layer, where matrices would be too large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from harmonicvae.exceptions import InputError
from harmonicvae.norms import certified_spectral_norm
from harmonicvae.readers.affine_maps import AffineMap, Shape, check_matrix
from harmonicvae.readers.image_maps import (
    Window,
    average_pool,
    convolution_sizes,
    copying_pad,
    transposed_sizes,
)
from harmonicvae.readers.layer_stack import LayerStack
from harmonicvae.readers.torch_layers import LayerReader, checked_shape
from harmonicvae.rounding import inflate, normalise, product_up, round_up, scale_up
from harmonicvae.symbol_norms import convolution_norm


def norms_and_slopes(
    module: nn.Module, input_shape: Any = None
) -> tuple[list[tuple[str, float]], list[float]]:
    """Compute proved norms of a module's affine layers, without the layers' matrices.

    Parameters
    ----------
    module, input_shape
        As for :func:`harmonicvae.lipschitz.module_norm_product`.

    Returns
    -------
    norms : list of (str, float)
        Name and norm of the layers in order; two may have one name.
    slopes : list of float
        Largest slope of each activation.

    Raises
    ------
    UnsupportedNetworkError, InputError, SolverError
        As there.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    reader = _NormReader(checked_shape(input_shape))
    reader.read(module)
    return reader.norms.found(), reader.norms.slopes


@dataclass(frozen=True, eq=False)
class _Convolution:
    """A kernel and how it moves, with a bound on the kernel's rounding errors."""

    kernel: np.ndarray
    stride: Shape
    dilation: Shape
    groups: int
    transposed: bool = False
    error: float = 0.0

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.kernel.shape[1] * self.groups if self.transposed else len(self.kernel)

    def norm(self) -> float:
        """Return a proved bound of its norm."""
        return convolution_norm(self.kernel, self.stride, self.dilation, self.groups, self.error)

    def scaled(self, factors: np.ndarray) -> _Convolution | None:
        """Return the convolution with its output channels multiplied by numbers, or None.

        None where numbers overflow, or errors do not stay small.
        """
        groups = 1 if not self.transposed else self.groups  # theirs lie group by group
        parts = self.kernel.reshape(groups, -1, *self.kernel.shape[1:])
        shape = [groups, 1, -1] if self.transposed else [1, -1, 1]
        ones = [1] * (self.kernel.ndim - 2)
        largest = float(np.max(np.abs(factors)))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            kernel = (parts * factors.reshape(*shape, *ones)).reshape(self.kernel.shape)
            scaled, exponent = normalise(kernel) if np.all(np.isfinite(kernel)) else (kernel, 0)
            sizes = np.sqrt(np.sum(scaled * scaled, axis=(0, 1)))
            rounded = scale_up(2.0**-51 * float(np.sum(sizes)), exponent)
        error = self.error * largest + rounded + kernel.size * 2.0**-1070
        return replace(self, kernel=kernel, error=inflate(error)) if error < math.inf else None


@dataclass
class _NormStack(LayerStack):
    """Keeps the shape of a sample, norms and slopes where another stack keeps matrices."""

    norms: list[tuple[str, float | _Convolution]] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)

    def add(self, norm: float | _Convolution, shape: Shape, layer: str) -> None:
        """Add a layer's norm, or the convolution that has it."""
        self._take_slopes()
        self.norms.append((layer, norm))
        self.shape = shape

    def append(self, affine: AffineMap, layer: str) -> None:
        """Take the norm of a layer's matrix: for layers that have no way of their own here."""
        self.add(certified_spectral_norm(affine.matrix), affine.shape, layer)

    def linear(self, matrix: np.ndarray, bias: np.ndarray, layer: str) -> None:
        """Take the norm of a matrix that acts on the last dimension."""
        check_matrix(matrix.shape[0], matrix.shape[1], layer)
        shape = self.shape or (matrix.shape[1],)
        if shape[-1] != matrix.shape[1]:
            raise InputError(
                f"{layer} must get {matrix.shape[1]} inputs, but its input has shape {shape}"
            )
        self.add(certified_spectral_norm(matrix), (*shape[:-1], len(matrix)), layer)

    def scale(self, factors: np.ndarray, shifts: np.ndarray, shape: Shape, layer: str) -> None:
        """Scale the channels of the convolution before, or take the largest factor."""
        before = self.norms[-1][1] if self.norms and not self.pending else None
        if isinstance(before, _Convolution) and before.channels == factors.size:
            folded = before.scaled(factors.ravel())
            if folded is not None:
                self.norms[-1] = (f"{self.norms[-1][0]}, {layer}", folded)
                return
        self.add(float(np.max(np.abs(factors))), shape, layer)

    def _take_slopes(self) -> None:
        self.slopes += [max(abs(item.alpha), abs(item.beta)) for item in self.pending]
        self.pending = []

    def found(self) -> list[tuple[str, float]]:
        """Return layers and norms, once nothing follows any more."""
        self._take_slopes()
        return [
            (layer, item.norm() if isinstance(item, _Convolution) else item)
            for layer, item in self.norms
        ]


class _NormReader(LayerReader):
    """Reads a module layer by layer into norms."""

    def __init__(self, input_shape: Shape | None = None) -> None:
        super().__init__(input_shape)
        self.norms = _NormStack(input_shape)
        self.stack = self.norms
        self._wrapped: Shape | None = None  # sizes of an image just padded with its other side

    def pad(
        self, shape: Shape, before: Sequence[int], after: Sequence[int], mode: str, layer: str
    ) -> None:
        """Add a padding, which is one of each axis after another."""
        norms = [
            certified_spectral_norm(copying_pad((1, n), [first], [last], mode, layer).matrix)
            for n, first, last in zip(shape[1:], before, after)
        ]
        sizes = (n + first + last for n, first, last in zip(shape[1:], before, after))
        self.norms.add(product_up(norms), (shape[0], *sizes), f"padding of {layer}")
        self._wrapped = shape[1:] if mode == "circular" else None

    def pool(
        self,
        shape: Shape,
        window: Window,
        layer: str,
        *,
        ceil: bool = False,
        count_padding: bool = True,
        divisor: int | None = None,
    ) -> None:
        """Add an average pooling, whose counts are products of those along the axes."""
        if divisor == 0:
            raise InputError(f"{layer} divides by 0: the divisor is 0")
        norms = [1.0 if divisor is None else round_up(1.0 / abs(divisor))]
        for axis, size in enumerate(shape[1:]):
            along = Window(*((numbers[axis],) for numbers in astuple(window)))
            affine = average_pool(
                (1, size),
                along,
                layer,
                ceil=ceil,
                count_padding=count_padding,
                divisor=None if divisor is None else 1,
            )
            norms.append(certified_spectral_norm(affine.matrix))
        norms.append(1.0 + 2.0**-48)  # each entry of the pooling itself is rounded once
        self.norms.add(product_up(norms), (shape[0], *window.output_sizes(shape[1:], ceil)), layer)

    def convolve(
        self,
        weight: np.ndarray,
        bias: np.ndarray,
        shape: Shape,
        window: Window,
        groups: int,
        layer: str,
    ) -> None:
        """Add a convolution by its kernel."""
        sizes = convolution_sizes(weight, shape, window, groups, layer)
        wrapped, self._wrapped = self._wrapped, None
        if wrapped and set(window.stride) == {1} and all(n <= m for n, m in zip(sizes, wrapped)):
            self.norms.norms.pop()  # rows of a circulant matrix, whose norm is the symbol's
        item = _Convolution(weight, window.stride, window.dilation, groups)
        self.norms.add(item, (item.channels, *sizes), layer)

    def convolve_transposed(
        self,
        weight: np.ndarray,
        bias: np.ndarray,
        shape: Shape,
        window: Window,
        output_padding: Shape,
        groups: int,
        layer: str,
    ) -> None:
        """Add a transposed convolution by its kernel."""
        sizes = transposed_sizes(weight, shape, window, output_padding, groups, layer)
        item = _Convolution(weight, window.stride, window.dilation, groups, transposed=True)
        self.norms.add(item, (item.channels, *sizes), layer)
