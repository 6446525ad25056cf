"""Read torch modules into affine layers and activations, refusing what has no exact form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import getattr_static
from math import prod
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from harmonicvae.activations import (
    Activation,
    elu,
    gelu,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.readers.affine_maps import Shape, batch_norm
from harmonicvae.readers.image_maps import (
    Window,
    average_pool,
    convolution,
    copying_pad,
    transposed_convolution,
)
from harmonicvae.readers.layer_stack import Layers, LayerStack

_ACTIVATION_READERS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda module: relu(),
    nn.LeakyReLU: lambda module: leaky_relu(module.negative_slope),
    nn.Sigmoid: lambda module: sigmoid(),
    nn.Tanh: lambda module: tanh(),
    nn.Softplus: lambda module: softplus(module.beta),
    nn.ELU: lambda module: elu(module.alpha),
    nn.SiLU: lambda module: silu(),
    nn.GELU: lambda module: gelu(module.approximate),
}

#: What a subclass may define anew without changing what the module computes.
_HARMLESS = frozenset(
    (
        *("__init__", "__doc__", "__module__", "__dict__", "__weakref__", "__constants__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__getstate__", "__setstate__", "__deepcopy__", "__repr__", "extra_repr"),
        *("__orig_bases__", "__parameters__", "__firstlineno__", "__static_attributes__"),
        *("reset_parameters", "train", "eval"),
    )
)
#: Deeper nesting than this is taken for a Sequential that contains itself.
_MAX_DEPTH = 200


class LayerReader:
    """Reads a module layer by layer into a stack.

    Parameters
    ----------
    input_shape : tuple of int or None, default=None
        Shape of one input sample; None if the module itself says enough.

    Examples
    --------
    >>> reader = LayerReader()
    >>> reader.read(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))
    >>> [weight.shape for weight in reader.stack.weights]
    [(2, 3), (1, 2)]
    """

    def __init__(self, input_shape: Shape | None = None) -> None:
        self.stack = LayerStack(input_shape)
        self._handlers: dict[type[nn.Module], Callable[[Any, str], None]] = {
            nn.Linear: self._read_linear,
            nn.Conv1d: self._read_convolution,
            nn.Conv2d: self._read_convolution,
            nn.ConvTranspose1d: self._read_transposed,
            nn.ConvTranspose2d: self._read_transposed,
            nn.AvgPool1d: self._read_pool,
            nn.AvgPool2d: self._read_pool,
            nn.BatchNorm1d: self._read_batch_norm,
            nn.BatchNorm2d: self._read_batch_norm,
            nn.Flatten: self._read_flatten,
            nn.Unflatten: self._read_unflatten,
            nn.Identity: lambda module, layer: None,
            nn.Dropout: self._read_dropout,
            nn.Dropout1d: self._read_dropout,
            nn.Dropout2d: self._read_dropout,
        }

    def read(self, module: nn.Module) -> None:
        """Read a whole module.

        Parameters
        ----------
        module : torch.nn.Module
            Sequential, nested at will, of the layers and activations known here.

        Raises
        ------
        UnsupportedNetworkError
            If a layer has no exact form here; the message says which and where.
        InputError
            If sizes do not fit or a parameter is not finite.
        """
        for path, layer in _leaves(module):
            name = _name(layer, path)
            kind = _plain_class(layer, name)
            if kind in _ACTIVATION_READERS:
                _check_softplus(layer, name)
                self.stack.activate(_ACTIVATION_READERS[kind](layer))
            elif kind in self._handlers:
                self._handlers[kind](layer, name)
            else:
                _refuse(name, "it is not among the layers that can be represented exactly")

    def _read_linear(self, module: Any, layer: str) -> None:
        weight = _parameter(module, "weight", layer)
        self.stack.linear(weight, _bias(module, len(weight), layer), layer)

    def _read_convolution(self, module: Any, layer: str) -> None:
        weight = _kernels(module, layer)
        shape = self.stack.known_shape(layer, [weight.ndim - 1])
        before, after = _padding(module)
        if module.padding_mode != "zeros":
            self.pad(shape, before, after, module.padding_mode, layer)
            shape = self.stack.known_shape(layer)
            before = after = (0,) * len(before)
        window = Window(module.kernel_size, module.stride, module.dilation, before, after)
        bias = _bias(module, len(weight), layer)
        self.convolve(weight, bias, shape, window, module.groups, layer)

    def pad(
        self, shape: Shape, before: Sequence[int], after: Sequence[int], mode: str, layer: str
    ) -> None:
        """Add a padding with copies; arguments as of :func:`.image_maps.copying_pad`."""
        self.stack.append(copying_pad(shape, before, after, mode, layer), layer)

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
        """Add an average pooling; arguments as of :func:`.image_maps.average_pool`."""
        affine = average_pool(
            shape, window, layer, ceil=ceil, count_padding=count_padding, divisor=divisor
        )
        self.stack.append(affine, layer)

    def convolve(
        self,
        weight: np.ndarray,
        bias: np.ndarray,
        shape: Shape,
        window: Window,
        groups: int,
        layer: str,
    ) -> None:
        """Add a convolution; arguments as of :func:`.image_maps.convolution`."""
        self.stack.append(convolution(weight, bias, shape, window, groups, layer), layer)

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
        """Add a transposed convolution; see :func:`.image_maps.transposed_convolution`."""
        affine = transposed_convolution(weight, bias, shape, window, output_padding, groups, layer)
        self.stack.append(affine, layer)

    def _read_transposed(self, module: Any, layer: str) -> None:
        weight = _kernels(module, layer)
        shape = self.stack.known_shape(layer, [weight.ndim - 1])
        padding = module.padding
        window = Window(module.kernel_size, module.stride, module.dilation, padding, padding)
        bias = _bias(module, weight.shape[1] * module.groups, layer)
        self.convolve_transposed(
            weight, bias, shape, window, module.output_padding, module.groups, layer
        )

    def _read_pool(self, module: Any, layer: str) -> None:
        rank = 1 if isinstance(module, nn.AvgPool1d) else 2
        shape = self.stack.known_shape(layer, [rank + 1])
        padding = _tuple(module.padding, rank)
        kernel, stride = _tuple(module.kernel_size, rank), _tuple(module.stride, rank)
        window = Window(kernel, stride, (1,) * rank, padding, padding)
        self.pool(
            shape,
            window,
            layer,
            ceil=module.ceil_mode,
            count_padding=module.count_include_pad,
            divisor=getattr(module, "divisor_override", None),
        )

    def _read_batch_norm(self, module: Any, layer: str) -> None:
        if module.running_mean is None or module.running_var is None:
            _refuse(layer, "it has no running statistics, so it is not a fixed map")
        if module.training:
            _refuse(layer, "it uses the statistics of the batch in training mode; call .eval()")
        mean = _parameter(module, "running_mean", layer)
        gamma, beta = np.ones(len(mean)), np.zeros(len(mean))
        if module.weight is not None:
            gamma = _parameter(module, "weight", layer)
        if module.bias is not None:
            beta = _parameter(module, "bias", layer)
        variance = _parameter(module, "running_var", layer)
        scale, shift = batch_norm(gamma, beta, mean, variance, module.eps, layer)
        ranks = [3] if isinstance(module, nn.BatchNorm2d) else [1, 2]
        if self.stack.shape is None and 1 in ranks:
            self.stack.shape = (len(mean),)
        shape = self.stack.known_shape(layer, ranks)
        if shape[0] != len(mean):
            raise InputError(f"{layer} must get {len(mean)} channels, got input of shape {shape}")
        column = (len(mean), *[1] * (len(shape) - 1))
        self.stack.scale(scale.reshape(column), shift.reshape(column), shape, layer)

    def _read_flatten(self, module: Any, layer: str) -> None:
        start, end, shape = module.start_dim, module.end_dim, self.stack.shape
        if shape is None:
            if (start, end) != (1, -1):
                _refuse(layer, "only Flatten(1, -1) is known while the shape is unknown")
            return
        rank = len(shape) + 1
        start, end = (number + rank if number < 0 else number for number in (start, end))
        if not 1 <= start <= end < rank:
            _refuse(layer, f"it must merge dimensions within samples of shape {shape}")
        merged = prod(shape[start - 1 : end])
        self.stack.shape = (*shape[: start - 1], merged, *shape[end:])

    def _read_unflatten(self, module: Any, layer: str) -> None:
        sizes, dim = tuple(module.unflattened_size), module.dim
        if not (isinstance(dim, int) and sizes and all(isinstance(n, int) for n in sizes)):
            _refuse(layer, "dimensions with names are not known")
        if self.stack.shape is None and min(sizes) > 0 and dim in (1, -1):
            self.stack.shape = (prod(sizes),)
        shape = self.stack.known_shape(layer)
        position = dim - 1 if dim >= 0 else len(shape) + dim
        if not 0 <= position < len(shape):
            _refuse(layer, f"it must split a dimension within samples of shape {shape}")
        sizes = _resolve(sizes, shape[position], layer)
        self.stack.shape = (*shape[:position], *sizes, *shape[position + 1 :])

    def _read_dropout(self, module: Any, layer: str) -> None:
        if module.training and module.p > 0:
            _refuse(layer, "it is random in training mode; call .eval() first")


def _name(module: Any, path: str) -> str:
    return f"{type(module).__name__} at {path!r}" if path else f"{type(module).__name__} at the top"


def _refuse(layer: str, reason: str) -> NoReturn:
    raise UnsupportedNetworkError(f"cannot read {layer}: {reason}")


def _leaves(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield paths and modules in the order in which nested Sequentials call them."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), module)]
    while waiting:
        path, item = waiting.pop()
        if not isinstance(item, nn.Sequential):
            yield ".".join(path), item
            continue
        name = _name(item, ".".join(path[:10]))
        if len(path) > _MAX_DEPTH:
            _refuse(name, f"modules are nested more than {_MAX_DEPTH} deep")
        if _plain_class(item, name) is not nn.Sequential:
            _refuse(name, "its class may compute something other than its layers in turn")
        waiting += [((*path, key), child) for key, child in reversed(item._modules.items())]


def _plain_class(module: Any, layer: str) -> type[nn.Module]:
    """Return the torch class that says what a module computes, or its own if it may differ."""
    if not isinstance(module, nn.Module):
        _refuse(layer, "it is not a torch module")
    everywhere = nn.modules.module
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if any((*hooks, everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks)):
        _refuse(layer, "it has forward hooks, which may change what it computes")
    kind = type(module)
    if any(callable(getattr(kind, name, None)) for name in vars(module)):
        _refuse(layer, "a method is replaced on the object itself")
    ours = (base for base in kind.__mro__ if base.__module__.startswith("torch.nn.modules."))
    known = next(ours, kind)
    changed = (
        name
        for name in set(dir(known)) - _HARMLESS
        if getattr_static(kind, name) is not getattr_static(known, name)
    )
    return kind if any(changed) else known


def _parameter(module: Any, name: str, layer: str) -> np.ndarray:
    """Return a parameter as finite float64, exactly."""
    tensor = getattr(module, name)
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or tensor.layout != torch.strided:
        _refuse(layer, f"its {name} is not an ordinary tensor with values")
    if tensor.is_complex() or not tensor.is_floating_point():
        _refuse(layer, f"its {name} must be real floating point, got {tensor.dtype}")
    if hasattr(module, "parametrizations"):
        _check_parametrization(module, name, tensor, layer)
    array = tensor.detach().to("cpu", torch.float64).numpy()
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise InputError(f"{name} of {layer} must be finite, got {count} NaN or infinite entries")
    return array


def _check_parametrization(module: Any, name: str, tensor: torch.Tensor, layer: str) -> None:
    """Refuse a computed parameter that is not the same each time."""
    if any(child.training for child in module.parametrizations.modules()):
        _refuse(layer, "its parametrization is in training mode; call .eval() first")
    again = getattr(module, name)
    if again.shape != tensor.shape or not torch.equal(again, tensor):
        _refuse(layer, f"its parametrized {name} changes from one reading to the next")


def _bias(module: Any, size: int, layer: str) -> np.ndarray:
    bias = np.zeros(size) if module.bias is None else _parameter(module, "bias", layer)
    if bias.shape != (size,):
        raise InputError(f"bias of {layer} must have shape ({size},), got {bias.shape}")
    return bias


def _kernels(module: Any, layer: str) -> np.ndarray:
    weight = _parameter(module, "weight", layer)
    if weight.shape[2:] != tuple(module.kernel_size):
        raise InputError(
            f"weight of {layer} must have kernels of size {tuple(module.kernel_size)}, "
            f"got shape {weight.shape}"
        )
    return weight


def _padding(module: Any) -> tuple[Shape, Shape]:
    """Return the padding of a convolution at the start and the end of each axis."""
    if module.padding == "valid":
        return (0,) * len(module.kernel_size), (0,) * len(module.kernel_size)
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size)]
        return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return tuple(module.padding), tuple(module.padding)


def _tuple(value: Any, count: int) -> Shape:
    if isinstance(value, Sequence):
        return tuple(value) * count if len(value) == 1 else tuple(value)
    return (value,) * count


def _resolve(sizes: Shape, total: int, layer: str) -> Shape:
    """Replace one −1 by what is left of the total."""
    rest = abs(prod(sizes))
    if min(sizes) < -1 or sizes.count(-1) > 1 or rest == 0 or total % rest:
        raise InputError(f"{layer} must split {total} entries, which {sizes} does not")
    sizes = tuple(total // rest if number == -1 else number for number in sizes)
    if prod(sizes) != total:
        raise InputError(f"{layer} must split {total} entries, which {sizes} does not")
    return sizes


def _check_softplus(module: Any, layer: str) -> None:
    if isinstance(module, nn.Softplus) and module.threshold < 20:
        _refuse(layer, f"threshold {module.threshold} < 20 makes the function jump")


def read_module(module: nn.Module, input_shape: Any = None) -> Layers:
    """Read a torch module into weights, biases and activations.

    Parameters
    ----------
    module : torch.nn.Module
        See :meth:`LayerReader.read`.
    input_shape : int, tuple of int or None, default=None
        Shape of one input sample, without the batch.

    Returns
    -------
    weights : list of ndarray or csr_array of float64
    biases : list of ndarray of float64
        One (out, in) matrix and one (out,) vector an affine layer.
    activations : list of Activation
        One fewer.

    Raises
    ------
    UnsupportedNetworkError
        If a layer has no exact form here.
    InputError
        If ``module`` is no module, ``input_shape`` is not made of whole numbers ≥ 1,
        sizes do not fit, or a parameter is NaN or infinite.

    Notes
    -----
    Weights are copied bit for bit, also those of convolutions. Computed in float64 and
    so rounded are 1/count of average pooling (once) and the scales and shifts of batch
    normalisation (see :func:`~harmonicvae.readers.affine_maps.batch_norm`). Softplus is read as
    the exact function; torch switches to the identity at its threshold, which changes
    values by at most 2.1e-9 / beta.

    Examples
    --------
    >>> weights, biases, activations = read_module(nn.Linear(3, 2))
    >>> weights[0].shape, len(activations)
    ((2, 3), 0)
    >>> read_module(nn.Conv2d(3, 8, 3, stride=2), (3, 5, 5))[0][0].shape
    (32, 75)
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    reader = LayerReader(checked_shape(input_shape))
    reader.read(module)
    return reader.stack.finish(type(module).__name__)


def checked_shape(input_shape: Any) -> Shape | None:
    """Return an input shape as a tuple of int ≥ 1, None as None.

    Raises
    ------
    InputError
        If it is neither.
    """
    if input_shape is None:
        return None
    items = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in items)
    if not (items and whole and min(items) >= 1):
        raise InputError(f"input_shape must be whole numbers >= 1, got {input_shape!r}")
    return tuple(int(n) for n in items)
