"""A network under construction: affine layers, activations and the shape of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from scipy.sparse import csr_array, diags_array

from harmonicvae.activations import Activation, identity
from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.matrices import Matrix
from harmonicvae.readers.affine_maps import (
    AffineMap,
    Shape,
    check_entries,
    identity_map,
    kept_forms,
    repeat_blocks,
)

Layers = tuple[list[Matrix], list[np.ndarray], list[Activation]]


@dataclass
class LayerStack:
    """Affine layers and activations in the order in which a reader meets them.

    Consecutive affine layers get the identity activation between them, consecutive
    activations an identity matrix, so that nothing is rounded.

    Parameters
    ----------
    shape : tuple of int or None, default=None
        Shape of one sample where the reader is; None while unknown, which counts as a
        flat vector.
    weights : list of ndarray or csr_array
    biases : list of ndarray
        What was read, float64.
    activations : list of Activation
        One between each two affine layers.
    pending : list of Activation
        Activations that wait for their next affine layer.

    Examples
    --------
    >>> stack = LayerStack()
    >>> stack.linear(np.ones((2, 3)), np.zeros(2), "first")
    >>> stack.linear(np.ones((1, 2)), np.zeros(1), "second")
    >>> [item.name for item in stack.finish("network")[2]]
    ['identity']
    """

    shape: Shape | None = None
    weights: list[Matrix] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    pending: list[Activation] = field(default_factory=list)

    def known_shape(self, layer: str, ranks: Sequence[int] | None = None) -> Shape:
        """Return the shape of a sample, which a layer needs.

        Parameters
        ----------
        layer : str
            What to call it in an error.
        ranks : sequence of int, default=None
            Numbers of dimensions that the layer takes; None for any.

        Returns
        -------
        tuple of int

        Raises
        ------
        UnsupportedNetworkError
            If the shape is unknown or has another number of dimensions.
        """
        if self.shape is None:
            raise UnsupportedNetworkError(
                f"cannot read {layer}: the shape of its input is unknown; for a torch module "
                "give input_shape, for instance (3, 32, 32), or put an Unflatten before it, in "
                "an ONNX file fix all sizes of the graph's input but the batch"
            )
        if ranks is not None and len(self.shape) not in ranks:
            allowed = " or ".join(str(rank) for rank in ranks)
            raise UnsupportedNetworkError(
                f"cannot read {layer}: it takes samples of {allowed} dimensions, "
                f"here they have shape {self.shape}"
            )
        return self.shape

    def activate(self, item: Activation) -> None:
        """Add an activation.

        Parameters
        ----------
        item : Activation
            Applied to every entry.
        """
        self.pending.append(item)

    def append(self, affine: AffineMap, layer: str) -> None:
        """Add an affine layer.

        Parameters
        ----------
        affine : AffineMap
            Acts on the flat sample.
        layer : str
            What to call it in an error.

        Raises
        ------
        InputError
            If sizes do not fit.
        UnsupportedNetworkError
            If an identity matrix between two activations would be too large.
        """
        rows, columns = affine.matrix.shape
        if self.shape is not None and columns != prod(self.shape):
            raise InputError(
                f"{layer} must get {columns} inputs, but its input has shape {self.shape}"
            )
        if affine.bias.shape != (rows,):
            raise InputError(f"bias of {layer} must have shape ({rows},), got {affine.bias.shape}")
        between, self.pending = self.pending, []
        if self.weights:
            between = between or [identity()]
            self.activations.append(between.pop(0))
        for item in between:
            self.weights.append(identity_map(columns, f"the identity before {layer}"))
            self.biases.append(np.zeros(columns))
            self.activations.append(item)
        self.weights.append(affine.matrix)
        self.biases.append(affine.bias)
        self.shape = affine.shape

    def linear(self, matrix: np.ndarray, bias: np.ndarray, layer: str) -> None:
        """Add a matrix that acts on the last dimension, once for each entry of the others.

        Parameters
        ----------
        matrix : ndarray of shape (out, in)
        bias : ndarray of shape (out,)
        layer : str
            What to call it in an error.

        Raises
        ------
        InputError
            If sizes do not fit.
        UnsupportedNetworkError
            If the repeated matrix would be too large.
        """
        if matrix.ndim != 2 or bias.shape != matrix.shape[:1]:
            raise InputError(
                f"{layer} must have a matrix and one bias a row, "
                f"got shapes {matrix.shape} and {bias.shape}"
            )
        shape = self.shape or (matrix.shape[1],)
        if shape[-1] != matrix.shape[1]:
            raise InputError(
                f"{layer} must get {matrix.shape[1]} inputs, but its input has shape {shape}"
            )
        copies = prod(shape[:-1])
        block = repeat_blocks(matrix, copies, layer)
        self.append(AffineMap(block, np.tile(bias, copies), (*shape[:-1], len(matrix))), layer)

    def scale(self, factors: np.ndarray, shifts: np.ndarray, shape: Shape, layer: str) -> None:
        """Add x ↦ factors·x + shifts, entry by entry.

        Parameters
        ----------
        factors, shifts : ndarray
            They broadcast to ``shape``.
        shape : tuple of int
            Shape of a sample.
        layer : str
            What to call it in an error.

        Raises
        ------
        InputError
            If sizes do not fit.
        UnsupportedNetworkError
            If the diagonal matrix would be too large.
        """
        check_entries(prod(shape), prod(shape), prod(shape), layer)
        diagonal = diags_array(np.broadcast_to(factors, shape).ravel(), format="csr")
        moved = np.broadcast_to(shifts, shape).flatten()
        self.append(AffineMap(csr_array(diagonal), moved, shape), layer)

    def shift(self, shifts: np.ndarray, shape: Shape, layer: str) -> None:
        """Add x ↦ x + shifts; it becomes the bias of the layer before if that has none.

        Parameters
        ----------
        shifts : ndarray
            Broadcasts to ``shape``.
        shape : tuple of int
            Shape of a sample.
        layer : str
            What to call it in an error.

        Raises
        ------
        InputError
            If sizes do not fit.
        UnsupportedNetworkError
            If an identity matrix is needed and would be too large.
        """
        if self.weights and not self.pending and not np.any(self.biases[-1]):
            self.biases[-1] = np.broadcast_to(shifts, shape).flatten()
        else:
            self.scale(np.ones(()), shifts, shape, layer)

    def finish(self, name: str) -> Layers:
        """Return everything that was added.

        Parameters
        ----------
        name : str
            What to call the network in an error.

        Returns
        -------
        weights : list of ndarray or csr_array
        biases : list of ndarray
        activations : list of Activation
            One fewer. Activations after the last affine layer get an identity matrix
            after them.

        Raises
        ------
        UnsupportedNetworkError
            If the size of the network is unknown, for want of an affine layer.
        """
        if not self.weights and self.shape is None:
            raise UnsupportedNetworkError(
                f"{name} holds no Linear layer or other affine one, so its size is unknown; "
                "give one with at least one"
            )
        if not self.weights or self.pending:
            size = self.weights[-1].shape[0] if self.weights else prod(self.shape or ())
            matrix = identity_map(size, f"the identity at the end of {name}")
            self.append(AffineMap(matrix, np.zeros(size), self.shape or (size,)), name)
        return kept_forms(self.weights), self.biases, self.activations
