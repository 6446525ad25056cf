"""Feed-forward networks as float64 affine layers and activations with slope ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from harmonicvae.activations import Activation, activation, identity
from harmonicvae.exceptions import InputError
from harmonicvae.matrices import dense, is_sparse
from harmonicvae.readers.mat_files import read_cells, write_cells

if TYPE_CHECKING:
    from torch import nn


def _real_array(value: Any, name: str) -> np.ndarray:
    """Return a finite, read-only float64 copy."""
    try:
        array = np.asarray(value)
    except Exception as error:  # objects may define __array__ as they like
        raise InputError(f"{name} must be an array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # long doubles may overflow, which is found below
        array = np.array(array, dtype=np.float64, order="C")
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise InputError(f"{name} must be finite, got {count} NaN or infinite entries")
    array.flags.writeable = False
    return array


def _real_matrix(value: Any, name: str) -> Any:
    """Return a finite, read-only float64 copy of a matrix, sparse if it is."""
    if not is_sparse(value):
        return _real_array(value, name)
    matrix = csr_array(value, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    entries = _real_array(matrix.data, name)
    matrix = csr_array((entries, matrix.indices, matrix.indptr), shape=matrix.shape)
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.flags.writeable = False
    return matrix


def _listed(value: Any, name: str) -> list[Any]:
    """Return the items of a sequence, or of anything else that can be iterated."""
    try:
        return list(value)
    except Exception as error:
        raise InputError(
            f"{name} must be a sequence, one item a layer, got {type(value).__name__}"
        ) from error


@dataclass(frozen=True, eq=False)
class LayeredNetwork:
    """x ↦ W_L φ_L(… φ_1(W_0 x + b_0) …) + b_L, exactly, in float64.

    Parameters
    ----------
    weights : sequence of array-like or csr_array of shape (out, in)
        W_0 … W_L, at least one, finite; sparse ones stay sparse.
    biases : sequence of array-like of shape (out,)
        b_0 … b_L.
    activations : sequence of Activation
        φ_1 … φ_L, one between each two affine layers; the identity where two affine
        layers follow each other.

    Raises
    ------
    InputError
        If shapes do not fit, an entry is NaN or infinite, or there is no layer; the
        message names the layer.

    Notes
    -----
    Arrays are copied and read-only. The network may be pickled.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> network([[1.0], [-1.0]])
    array([[6.],
           [0.]])
    """

    weights: tuple[Any, ...]
    biases: tuple[np.ndarray, ...]
    activations: tuple[Activation, ...]

    def __post_init__(self) -> None:
        for name in ("weights", "biases", "activations"):
            object.__setattr__(self, name, tuple(_listed(getattr(self, name), name)))
        if len(self.weights) == 0:
            raise InputError("a network needs at least one weight matrix, got none")
        if len(self.biases) != len(self.weights):
            raise InputError(
                f"biases must be as many as weights, {len(self.weights)}, got {len(self.biases)}"
            )
        if len(self.activations) != len(self.weights) - 1:
            raise InputError(
                f"activations must be one fewer than weights, {len(self.weights) - 1}, "
                f"got {len(self.activations)}"
            )
        weights = tuple(_real_matrix(w, f"weights[{i}]") for i, w in enumerate(self.weights))
        biases = tuple(_real_array(b, f"biases[{i}]") for i, b in enumerate(self.biases))
        _check_shapes(weights, biases)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    @classmethod
    def from_module(cls, module: nn.Module, input_shape: Any = None) -> LayeredNetwork:
        """Read a torch module.

        Parameters
        ----------
        module : torch.nn.Module
            Sequential, nested at will, of Linear, Conv1d, Conv2d, ConvTranspose1d,
            ConvTranspose2d, AvgPool1d, AvgPool2d, BatchNorm1d, BatchNorm2d, Dropout (the
            last three in eval mode), Flatten, Unflatten, Identity, ReLU, LeakyReLU,
            Sigmoid, Tanh, Softplus, ELU, SiLU and GELU.
        input_shape : int, tuple of int or None, default=None
            Shape of one input without the batch, for instance (3, 32, 32). Needed where
            images come in before any Unflatten.

        Returns
        -------
        LayeredNetwork
            Inputs and outputs are flat vectors, images in the order of Flatten. Weights
            are those of the module as float64, exactly; a convolution becomes a matrix
            with the weights as entries. Those of all convolutions, poolings and scalings are
            sparse if one of them has both sides longer than 4,096 or would take more than
            2 GiB, else dense.

        Raises
        ------
        UnsupportedNetworkError
            If a layer has no exact form here, its image size is unknown, or the entries
            of its matrix would take more than 2 GiB; the message says which layer and where.
        InputError
            If a weight or bias is NaN or infinite, or sizes do not fit.

        Notes
        -----
        Average pooling is represented with 1/count rounded once to float64, batch
        normalisation with scale γ/√(var + ε) and shift computed in float64 (relative
        error of the scale at most 2⁻⁵¹). Padding modes other than zeros become a matrix of
        their own before the convolution. Memory is 8 bytes × inputs × outputs of a dense
        layer, half as much again while it is copied, and 16 bytes an entry of a sparse one.

        Examples
        --------
        >>> from torch import nn
        >>> module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 2))
        >>> LayeredNetwork.from_module(module).hidden_dims
        (4,)
        >>> module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
        >>> LayeredNetwork.from_module(module, (1, 4, 4)).hidden_dims
        (8,)
        """
        from harmonicvae.readers.torch_layers import read_module  # torch is slow to import

        weights, biases, activations = read_module(module, input_shape)
        return cls(tuple(weights), tuple(biases), tuple(activations))

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[Any],
        biases: Sequence[Any] | None = None,
        activation: str | Activation | Sequence[str | Activation] = "sigmoid",
    ) -> LayeredNetwork:
        """Build a network from weight matrices.

        Parameters
        ----------
        weights : sequence of array-like of shape (out, in)
            W_0 … W_L.
        biases : sequence of array-like of shape (out,), default=None
            None means zero; they do not change global Lipschitz bounds.
        activation : str, Activation or sequence of them, default="sigmoid"
            One for all hidden layers, or one for each.

        Returns
        -------
        LayeredNetwork

        Raises
        ------
        InputError
            If shapes do not fit or an entry is not finite.
        UnsupportedNetworkError
            If an activation is not known.

        Examples
        --------
        >>> LayeredNetwork.from_arrays([[[1.0, 1.0]], [[2.0]]]).output_dim
        1
        """
        items = _listed(weights, "weights")
        arrays = [_real_matrix(weight, f"weights[{i}]") for i, weight in enumerate(items)]
        if biases is None:
            biases = [np.zeros(array.shape[0] if array.ndim else 0) for array in arrays]
        count = max(len(arrays) - 1, 0)
        if isinstance(activation, (str, Activation)):
            chosen = (_activation(activation),) * count
        else:
            chosen = tuple(_activation(item) for item in _listed(activation, "activation"))
        return cls(tuple(arrays), tuple(_listed(biases, "biases")), chosen)

    @classmethod
    def from_mat(
        cls, path: str | Path, activation: str | Activation | Sequence[str | Activation]
    ) -> LayeredNetwork:
        """Read a MATLAB file as MATLAB LipSDP reads it.

        Parameters
        ----------
        path : str or Path
            A .mat file (version 7 or older) with the cell array ``weights``, each
            matrix out × in, and, if there are biases, the cell array ``bias``.
        activation : str, Activation or sequence of them
            The file does not say which.

        Returns
        -------
        LayeredNetwork

        Raises
        ------
        InputError
            If the file is missing, of another kind, truncated, or holds other things.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "weights.mat")
        >>> LayeredNetwork.from_arrays([[[1.0, 2.0]], [[3.0]]], activation="relu").to_mat(path)
        >>> LayeredNetwork.from_mat(path, "relu").weights[0]
        array([[1., 2.]])
        >>> folder.cleanup()
        """
        content = read_cells(path, ("weights", "bias"), required=("weights",))
        biases = content.get("bias")
        if biases is not None:
            biases = [cell.reshape(-1) for cell in biases]
        return cls.from_arrays(content["weights"], biases, activation)

    @classmethod
    def from_onnx(cls, path: str | Path) -> LayeredNetwork:
        """Read an ONNX file whose graph is one chain of layers.

        Parameters
        ----------
        path : str or Path
            A .onnx file with all weights inside; needs ``pip install harmonicvae[onnx]``.

        Returns
        -------
        LayeredNetwork
            Inputs and outputs are flat vectors, without the batch.

        Raises
        ------
        InputError
            If the file is missing, damaged or of another kind, keeps weights in other
            files, holds a weight that is not finite, or the package onnx is missing.
        UnsupportedNetworkError
            If a node has no exact form here or the graph branches; the message names it.

        Notes
        -----
        See :func:`harmonicvae.readers.onnx_files.read_onnx` for the operators and what is rounded.

        Examples
        --------
        ``LayeredNetwork.from_onnx("encoder.onnx").input_dim``
        """
        from harmonicvae.readers.onnx_files import read_onnx

        weights, biases, activations = read_onnx(path)
        return cls(tuple(weights), tuple(biases), tuple(activations))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        activation: str | Activation | Sequence[str | Activation] | None = None,
    ) -> LayeredNetwork:
        """Read a .mat or .onnx file, whichever the suffix says.

        Parameters
        ----------
        path : str or Path
            Ends in .mat or .onnx, in capitals or not.
        activation : str, Activation or sequence of them, default=None
            Needed for .mat, which does not hold it; must be None for .onnx, which does.

        Returns
        -------
        LayeredNetwork

        Raises
        ------
        InputError
            If the suffix is another, ``activation`` is missing or there should be none,
            or for the reasons of :meth:`from_mat` and :meth:`from_onnx`.
        UnsupportedNetworkError
            If a layer or activation has no exact form here.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "weights.mat")
        >>> LayeredNetwork.from_arrays([[[1.0, 2.0]]]).to_mat(path)
        >>> LayeredNetwork.from_file(path, "relu").input_dim
        2
        >>> folder.cleanup()
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (".mat", ".onnx"):
            raise InputError(f"a network file must end in .mat or .onnx, got {str(path)!r}")
        if suffix == ".onnx" and activation is not None:
            raise InputError(
                f"activation must be None for {path}, as an ONNX file names its own; "
                f"got {activation!r}"
            )
        if suffix == ".onnx":
            return cls.from_onnx(path)
        if activation is None:
            raise InputError(
                f"activation must be given for {path}, as a .mat file does not name it; "
                "try activation='relu'"
            )
        return cls.from_mat(path, activation)

    def to_mat(self, path: str | Path) -> None:
        """Write the cell arrays ``weights`` and ``bias`` that MATLAB LipSDP loads.

        Parameters
        ----------
        path : str or Path
            File to write; its folder must exist.

        Raises
        ------
        InputError
            If hidden layers have different activations, as LipSDP takes one for all, a
            matrix is sparse, or the file cannot be written.

        Examples
        --------
        See :meth:`from_mat`.
        """
        if self.is_sparse:
            raise InputError("a LipSDP file holds dense matrices; this network is too large for it")
        kinds = {(item.name, item.parameters) for item in self.activations}
        if len(kinds) > 1:
            raise InputError(
                "a LipSDP file has one activation for all hidden layers, got "
                + ", ".join(item.name for item in self.activations)
            )
        write_cells(path, {"weights": self.weights, "bias": self.biases})

    @property
    def input_dim(self) -> int:
        """Number of inputs."""
        return self.weights[0].shape[1]

    @property
    def output_dim(self) -> int:
        """Number of outputs."""
        return self.weights[-1].shape[0]

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Number of neurons of each hidden layer."""
        return tuple(weight.shape[0] for weight in self.weights[:-1])

    @property
    def n_layers(self) -> int:
        """Number of affine layers, ≥ 1."""
        return len(self.weights)

    @property
    def is_sparse(self) -> bool:
        """True if a matrix is kept sparse: then the network is too large for dense methods."""
        return any(is_sparse(weight) for weight in self.weights)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over shapes, weights, biases and activations, as 64 hexadecimal digits."""
        digest = hashlib.sha256(b"harmonicvae network 1")
        for weight, bias in zip(self.weights, self.biases):
            digest.update(repr(weight.shape).encode())
            if is_sparse(weight):
                digest.update(b"sparse" + weight.indptr.astype("<i8").tobytes())
                digest.update(weight.indices.astype("<i8").tobytes())
                weight = weight.data
            digest.update(weight.astype("<f8").tobytes() + bias.astype("<f8").tobytes())
        for item in self.activations:
            numbers = (item.alpha, item.beta, *item.parameters)
            digest.update(repr((item.name, [float(n).hex() for n in numbers])).encode())
        return digest.hexdigest()

    def __call__(self, x: Any) -> np.ndarray:
        """Evaluate the network.

        Parameters
        ----------
        x : array-like of shape (n, input_dim) or (input_dim,)
            Finite inputs.

        Returns
        -------
        ndarray of shape (n, output_dim) or (output_dim,)

        Raises
        ------
        InputError
            If ``x`` has another shape or is not finite.
        """
        points = self.check_points(x)
        value = points @ self.weights[0].T + self.biases[0]
        for i, item in enumerate(self.activations):
            value = item.function(value) @ self.weights[i + 1].T + self.biases[i + 1]
        return value[0] if np.ndim(x) == 1 else value

    def check_points(self, x: Any) -> np.ndarray:
        """Return inputs as a finite float64 array of shape (n, input_dim).

        Parameters
        ----------
        x : array-like of shape (n, ...) or (input_dim,)
            Samples in rows; further dimensions (images) are flattened.

        Returns
        -------
        ndarray of shape (n, input_dim)

        Raises
        ------
        InputError
            If the size per sample is not ``input_dim``, there is no sample, or an
            entry is not finite.

        Examples
        --------
        >>> LayeredNetwork.from_arrays([[[1.0, 1.0]]]).check_points([3.0, 4.0])
        array([[3., 4.]])
        """
        points = _real_array(x, "x")
        if points.ndim == 1:
            points = points[None, :]
        if points.ndim == 0 or len(points) == 0 or points[0].size != self.input_dim:
            raise InputError(
                f"x must hold at least one sample of {self.input_dim} values, "
                f"got shape {np.shape(x)}"
            )
        return points.reshape(len(points), -1)

    def local_slopes(self, x: Any) -> list[np.ndarray]:
        """Compute the derivative of every hidden neuron at given inputs.

        Parameters
        ----------
        x : array-like of shape (n, input_dim)
            Inputs.

        Returns
        -------
        list of ndarray of shape (n, hidden_dims[i])
            φ′ at the pre-activations, layer by layer.

        Raises
        ------
        InputError
            As for :meth:`check_points`.

        Notes
        -----
        Where a pre-activation is exactly 0 and φ has a kink there, the slope of the
        side is taken that x enters when it moves along one fixed random direction.
        So the Jacobian built from the slopes is a limit of Jacobians at points where
        the network is differentiable, and its norm never exceeds the Lipschitz constant.

        Examples
        --------
        >>> LayeredNetwork.from_arrays([[[1.0]], [[1.0]]]).local_slopes([[0.0]])
        [array([[0.25]])]
        """
        points = self.check_points(x)
        value = points @ self.weights[0].T + self.biases[0]
        direction = np.random.default_rng(0).standard_normal(self.input_dim)
        tangent = np.broadcast_to(self.weights[0] @ direction, value.shape)
        slopes = []
        for i, item in enumerate(self.activations):
            slope = item.derivative(value)
            if item.kink is not None:
                side = np.where(tangent > 0, item.kink[1], item.kink[0])
                slope = np.where(value == 0, side, slope)
            slopes.append(slope)
            if i + 1 < len(self.activations):
                tangent = (slope * tangent) @ self.weights[i + 1].T
                value = item.function(value) @ self.weights[i + 1].T + self.biases[i + 1]
        return slopes

    def jacobian(self, x: Any) -> np.ndarray:
        """Compute the Jacobian at one input.

        Parameters
        ----------
        x : array-like of shape (input_dim,)
            One input.

        Returns
        -------
        ndarray of shape (output_dim, input_dim)
            In float64; at a kink see :meth:`local_slopes`.

        Raises
        ------
        InputError
            If ``x`` is not one finite sample.

        Examples
        --------
        >>> LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu").jacobian([1.0])
        array([[6.]])
        """
        points = self.check_points(x)
        if len(points) != 1:
            raise InputError(f"x must be one sample, got {len(points)}")
        slopes = [slope[0] for slope in self.local_slopes(points)]
        if self.is_sparse and self.output_dim < self.input_dim:
            product = dense(self.weights[-1])
            for slope, weight in zip(reversed(slopes), reversed(self.weights[:-1])):
                product = (product * slope) @ weight
            return product
        product = dense(self.weights[0])
        for slope, weight in zip(slopes, self.weights[1:]):
            product = weight @ (slope[:, None] * product)
        return product

    def with_slopes(self, alpha: float, beta: float) -> LayeredNetwork:
        """Return the network with one slope range for all activations.

        Parameters
        ----------
        alpha, beta : float
            The range; must contain every activation's own. The identity between
            consecutive affine layers is left alone.

        Returns
        -------
        LayeredNetwork

        Raises
        ------
        InputError
            If the range does not contain an activation's own.

        Examples
        --------
        >>> network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation="sigmoid")
        >>> network.with_slopes(0.0, 1.0).activations[0].beta
        1.0
        """
        chosen = tuple(
            item if item.name == "identity" else item.with_slopes(alpha, beta)
            for item in self.activations
        )
        return replace(self, activations=chosen)

    def select_outputs(self, selection: Any) -> LayeredNetwork:
        """Return the network with outputs selected or combined.

        Parameters
        ----------
        selection : int, sequence of int or array-like of shape (k, output_dim)
            Output numbers (negative ones count from the end), or a matrix that
            multiplies the outputs, for instance [[1, −1, 0]] for a difference.

        Returns
        -------
        LayeredNetwork
            A matrix becomes one more affine layer, so that nothing is rounded.

        Raises
        ------
        InputError
            If an output does not exist or the matrix has another width.

        Examples
        --------
        >>> network = LayeredNetwork.from_arrays([[[1.0], [2.0], [4.0]]])
        >>> network.select_outputs([2, 0])([1.0])
        array([4., 1.])
        >>> network.select_outputs([[-1.0, 1.0, 0.0]])([1.0])
        array([1.])
        """
        try:
            chosen = np.atleast_1d(np.asarray(selection))
        except Exception as error:  # ragged lists, objects with their own __array__
            raise InputError(f"selection must be an array of numbers: {error}") from error
        if chosen.ndim == 2:
            matrix = _real_array(chosen, "selection")
            if matrix.shape[1] != self.output_dim:
                raise InputError(
                    f"selection must have {self.output_dim} columns, got shape {matrix.shape}"
                )
            return LayeredNetwork(
                (*self.weights, matrix),
                (*self.biases, np.zeros(len(matrix))),
                (*self.activations, identity()),
            )
        if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
            raise InputError(
                f"selection must be an output number, a list of them or a matrix, got {selection!r}"
            )
        if np.any(chosen < -self.output_dim) or np.any(chosen >= self.output_dim):
            raise InputError(
                f"selection must lie in [-{self.output_dim}, {self.output_dim - 1}], "
                f"got {chosen.tolist()}"
            )
        return LayeredNetwork(
            (*self.weights[:-1], self.weights[-1][chosen]),
            (*self.biases[:-1], self.biases[-1][chosen]),
            self.activations,
        )


#: The lookup under another name: ``activation`` is a parameter of the methods above.
_activation = activation


def _check_shapes(weights: tuple[np.ndarray, ...], biases: tuple[np.ndarray, ...]) -> None:
    """Refuse layers that do not fit, naming the layer."""
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        if weight.ndim != 2 or 0 in weight.shape:
            raise InputError(
                f"weights[{i}] must be a matrix (out, in) with at least one entry, "
                f"got shape {weight.shape}"
            )
        if bias.shape != (weight.shape[0],):
            raise InputError(
                f"biases[{i}] must have shape ({weight.shape[0]},) as weights[{i}] has "
                f"{weight.shape[0]} rows, got {bias.shape}"
            )
        if i > 0 and weight.shape[1] != weights[i - 1].shape[0]:
            raise InputError(
                f"weights[{i}] must have {weights[i - 1].shape[0]} columns, the outputs of "
                f"weights[{i - 1}], got shape {weight.shape}; matrices are (out, in)"
            )
