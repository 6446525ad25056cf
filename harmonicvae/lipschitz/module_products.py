"""The norm product of a torch module layer by layer, where matrices would be too large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from harmonicvae.exceptions import InputError
from harmonicvae.norms import certified_spectral_norm
from harmonicvae.readers.affine_maps import AffineMap, Shape
from harmonicvae.readers.image_maps import (
    Window,
    convolution_sizes,
    copying_pad,
    transposed_sizes,
)
from harmonicvae.readers.layer_stack import LayerStack
from harmonicvae.readers.torch_layers import LayerReader, checked_shape
from harmonicvae.rounding import inflate
from harmonicvae.symbol_norms import convolution_norm


def norms_and_slopes(
    module: nn.Module, input_shape: Any = None
) -> tuple[dict[str, float], list[float]]:
    """Compute proved norms of a module's affine layers, without the layers' matrices.

    Parameters
    ----------
    module, input_shape
        As for :func:`harmonicvae.lipschitz.module_norm_product`.

    Returns
    -------
    norms : dict of str to float
        By name, in the order of the layers.
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

    def scaled(self, factors: np.ndarray) -> _Convolution:
        """Return the convolution with its output channels multiplied by numbers."""
        groups = 1 if not self.transposed else self.groups  # theirs lie group by group
        parts = self.kernel.reshape(groups, -1, *self.kernel.shape[1:])
        shape = [groups, 1, -1] if self.transposed else [1, -1, 1]
        ones = [1] * (self.kernel.ndim - 2)
        kernel = (parts * factors.reshape(*shape, *ones)).reshape(self.kernel.shape)
        sizes = np.sqrt(np.sum(kernel * kernel, axis=(0, 1)))
        error = self.error * float(np.max(np.abs(factors)))
        error = inflate(error + 2.0**-51 * float(np.sum(sizes)) + 1e-150)
        return replace(self, kernel=kernel, error=error)


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
        """Take the norm of a layer's matrix."""
        self.add(certified_spectral_norm(affine.matrix), affine.shape, layer)

    def linear(self, matrix: np.ndarray, bias: np.ndarray, layer: str) -> None:
        """Take the norm of a matrix that acts on the last dimension."""
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
            self.norms[-1] = (f"{self.norms[-1][0]}, {layer}", before.scaled(factors.ravel()))
        else:
            self.add(float(np.max(np.abs(factors))), shape, layer)

    def _take_slopes(self) -> None:
        self.slopes += [max(abs(item.alpha), abs(item.beta)) for item in self.pending]
        self.pending = []

    def found(self) -> dict[str, float]:
        """Return the norms by layer, once nothing follows any more."""
        self._take_slopes()
        return {
            layer: item.norm() if isinstance(item, _Convolution) else item
            for layer, item in self.norms
        }


class _NormReader(LayerReader):
    """Reads a module layer by layer into norms."""

    def __init__(self, input_shape: Shape | None = None) -> None:
        super().__init__(input_shape)
        self.norms = _NormStack(input_shape)
        self.stack = self.norms

    def pad(
        self, shape: Shape, before: Sequence[int], after: Sequence[int], mode: str, layer: str
    ) -> None:
        """Add a padding, the same for each channel."""
        affine = copying_pad((1, *shape[1:]), before, after, mode, layer)
        norm = certified_spectral_norm(affine.matrix)
        self.norms.add(norm, (shape[0], *affine.shape[1:]), f"padding of {layer}")

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

    def _read_pool(self, module: Any, layer: str) -> None:
        shape = self.norms.known_shape(layer)
        self.norms.shape = (1, *shape[1:])
        super()._read_pool(module, layer)
        self.norms.shape = (shape[0], *self.norms.known_shape(layer)[1:])
