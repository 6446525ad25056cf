"""Read torch modules into affine layers and activations, refusing what has no exact form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from harmonicvae.activations import (
    Activation,
    elu,
    identity,
    leaky_relu,
    relu,
    sigmoid,
    softplus,
    tanh,
)
from harmonicvae.exceptions import UnsupportedNetworkError

_ACTIVATION_READERS: dict[type[nn.Module], Callable[..., Activation]] = {
    nn.ReLU: lambda module: relu(),
    nn.LeakyReLU: lambda module: leaky_relu(module.negative_slope),
    nn.Sigmoid: lambda module: sigmoid(),
    nn.Tanh: lambda module: tanh(),
    nn.Softplus: lambda module: softplus(module.beta),
    nn.ELU: lambda module: elu(module.alpha),
}


@dataclass
class LayerReader:
    """Collects affine layers and activations while walking through a module.

    Consecutive affine layers get the identity activation between them, consecutive
    activations an identity matrix, so that nothing is rounded.

    Parameters
    ----------
    weights, biases : list of ndarray
        What was read, float64.
    activations : list of Activation
        One between each two affine layers.
    pending : list of Activation
        Activations that wait for their next affine layer.
    flat : bool
        False between an Unflatten and the next Flatten.

    Examples
    --------
    >>> reader = LayerReader()
    >>> reader.read(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))
    >>> [weight.shape for weight in reader.weights], [item.name for item in reader.activations]
    ([(2, 3), (1, 2)], ['relu'])
    """

    weights: list[np.ndarray] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    pending: list[Activation] = field(default_factory=list)
    flat: bool = True

    def read(self, module: nn.Module) -> None:
        """Read a whole module.

        Parameters
        ----------
        module : torch.nn.Module
            Sequential, nested at will, of Linear, Flatten, Unflatten, Identity, Dropout
            (eval mode) and the activations known here.

        Raises
        ------
        UnsupportedNetworkError
            If a layer has no exact form here; the message says which and where.
        """
        self._read(module, "")
        if not self.weights:
            raise UnsupportedNetworkError(
                f"{type(module).__name__} holds no Linear layer, so its size is unknown; "
                "give a module with at least one"
            )
        if self.pending:  # activations after the last affine layer
            self._append(np.eye(len(self.weights[-1])), np.zeros(len(self.weights[-1])))

    def _read(self, module: nn.Module, path: str) -> None:
        if module._forward_hooks or module._forward_pre_hooks:
            self._refuse(module, path, "it has forward hooks, which may change what it computes")
        reader = _ACTIVATION_READERS.get(_known_class(module))
        if reader is not None:
            self._check_softplus(module, path)
            self.pending.append(reader(module))
            return
        handlers = {
            nn.Sequential: self._read_sequential,
            nn.Linear: self._read_linear,
            nn.Flatten: self._read_flatten,
            nn.Unflatten: self._read_unflatten,
            nn.Identity: lambda module, path: None,
            nn.Dropout: self._read_dropout,
        }
        handler = handlers.get(_known_class(module))
        if handler is None:
            self._refuse(module, path, "it is not among the layers that can be represented exactly")
        else:
            handler(module, path)

    def _read_sequential(self, module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            self._read(child, f"{path}.{name}" if path else name)

    def _read_linear(self, module: Any, path: str) -> None:
        if not self.flat:
            self._refuse(module, path, "it follows an Unflatten; put a Flatten between them")
        weight = _as_array(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _as_array(module.bias)
        self._append(weight, bias)

    def _append(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Add an affine layer, with identities where two layers of one kind meet."""
        pending, self.pending = self.pending, []
        if self.weights:
            size = len(self.weights[-1])
            between = pending or [identity()]
            self.activations.append(between[0])
            rest = between[1:]
        else:
            size = weight.shape[1]
            rest = pending
        for item in rest:
            self.weights.append(np.eye(size))
            self.biases.append(np.zeros(size))
            self.activations.append(item)
        self.weights.append(weight)
        self.biases.append(bias)

    def _read_flatten(self, module: Any, path: str) -> None:
        if module.start_dim != 1 or module.end_dim != -1:
            self._refuse(module, path, "only Flatten(start_dim=1, end_dim=-1) keeps samples apart")
        self.flat = True

    def _read_unflatten(self, module: Any, path: str) -> None:
        if module.dim not in (1, -1) or not self.flat:
            self._refuse(module, path, "only Unflatten(1, …) of flat samples is known")
        self.flat = False

    def _read_dropout(self, module: Any, path: str) -> None:
        if module.training and module.p > 0:
            self._refuse(module, path, "it is random in training mode; call .eval() first")

    def _check_softplus(self, module: Any, path: str) -> None:
        if isinstance(module, nn.Softplus) and module.threshold < 20:
            self._refuse(module, path, f"threshold {module.threshold} < 20 makes the function jump")

    def _refuse(self, module: nn.Module, path: str, reason: str) -> None:
        where = f"at {path!r}" if path else "at the top"
        raise UnsupportedNetworkError(f"cannot read {type(module).__name__} {where}: {reason}")


def _known_class(module: nn.Module) -> type[nn.Module]:
    """Return the torch class whose ``forward`` the module runs, or its own class."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.modules") and issubclass(base, nn.Module):
            return base if type(module).forward is base.forward else type(module)
    return type(module)


def _as_array(tensor: Any) -> np.ndarray:
    """Return a parameter as float64, exactly."""
    if tensor.is_complex() or not tensor.is_floating_point():
        raise UnsupportedNetworkError(f"weights must be real floating point, got {tensor.dtype}")
    return tensor.detach().to("cpu", torch.float64).numpy()


def read_module(
    module: nn.Module,
) -> tuple[list[np.ndarray], list[np.ndarray], list[Activation]]:
    """Read a torch module into weights, biases and activations.

    Parameters
    ----------
    module : torch.nn.Module
        See :meth:`LayerReader.read`.

    Returns
    -------
    weights, biases : list of ndarray of float64
        One (out, in) matrix and one (out,) vector an affine layer.
    activations : list of Activation
        One fewer.

    Raises
    ------
    UnsupportedNetworkError
        If a layer has no exact form here.

    Notes
    -----
    Softplus is read as the exact function; torch switches to the identity at its
    threshold, which changes values by at most 2.1e-9 / beta.

    Examples
    --------
    >>> weights, biases, activations = read_module(nn.Linear(3, 2))
    >>> weights[0].shape, len(activations)
    ((2, 3), 0)
    """
    reader = LayerReader()
    reader.read(module)
    return reader.weights, reader.biases, reader.activations
