"""Norms of a network's Jacobian and their gradients, for batches of inputs, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from harmonicvae.exceptions import SolverError
from harmonicvae.matrices import dense, is_sparse
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import power_iteration

#: Numbers held per chunk of inputs, for each of a handful of arrays.
_CHUNK_NUMBERS = 2_000_000
#: Jacobians with no more rows or columns are formed, larger ones go through power iteration.
_EXPLICIT_SIDE = 96
#: Matrices of as many entries, of which no more than this share is ≠ 0, are multiplied as
#: sparse ones.
_SPARSE_SIZE, _SPARSE_SHARE = 100_000, 0.05


@dataclass(frozen=True)
class LocalState:
    """Pre-activations and slopes of all hidden neurons at a batch of inputs."""

    values: list[np.ndarray]
    slopes: list[np.ndarray]


@dataclass(frozen=True)
class JacobianSearch:
    """Norms ‖J(x)‖₂ of a network with its outer layers reduced to square ones.

    Parameters
    ----------
    network : LayeredNetwork
        W_L replaced by its triangular factor where it is tall, W_0 by its own where it is
        wide, unless they are sparse: W_0 = LQᵀ, so that inputs are y = Qᵀx. Orthogonal factors
        leave ‖J‖₂ alone. Large matrices of few entries ≠ 0 are made sparse.
    basis : ndarray of shape (input_dim, r) or None
        Q; None where inputs are kept.
    tol : float
        Relative growth per power iteration below which :meth:`norms` stops.
    max_iter : int
        Power iterations of :meth:`norms` at most.
    """

    network: LayeredNetwork
    basis: np.ndarray | None
    tol: float
    max_iter: int

    @classmethod
    def of(
        cls,
        network: LayeredNetwork,
        tol: float = 1e-4,
        max_iter: int = 100,
        keep_inputs: bool = False,
    ) -> JacobianSearch:
        """Reduce a network's outer layers; ``keep_inputs`` leaves the first one alone."""
        weights, biases = list(map(_lighter, network.weights)), list(network.biases)
        basis = None
        if weights[-1].shape[0] > weights[-1].shape[1] and not is_sparse(weights[-1]):
            weights[-1] = np.asarray(np.linalg.qr(weights[-1], mode="r"))
            biases[-1] = np.zeros(len(weights[-1]))
        wide = weights[0].shape[1] > weights[0].shape[0] and not is_sparse(weights[0])
        if wide and not keep_inputs:
            basis, factor = np.linalg.qr(weights[0].T)
            weights[0] = factor.T
        reduced = LayeredNetwork(tuple(weights), tuple(biases), network.activations)
        return cls(reduced, basis, tol, max_iter)

    def reduce(self, points: np.ndarray) -> np.ndarray:
        """Return y = Qᵀx of inputs in rows."""
        return points if self.basis is None else points @ self.basis

    def expand(self, reduced: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
        """Return inputs x with Qᵀx = y, those nearest to ``origin`` (default 0)."""
        if self.basis is None:
            return reduced
        if origin is None:
            return reduced @ self.basis.T
        return origin + (reduced - origin @ self.basis) @ self.basis.T

    def state(self, points: np.ndarray) -> LocalState:
        """Return pre-activations and slopes at reduced inputs."""
        network = self.network
        value = points @ network.weights[0].T + network.biases[0]
        values, slopes = [], []
        for i, item in enumerate(network.activations):
            values.append(value)
            slopes.append(item.derivative(value))
            if i + 1 < len(network.activations):
                value = item.function(value) @ network.weights[i + 1].T + network.biases[i + 1]
        kinked = [item.kink is not None for item in network.activations]
        if any(k and np.any(value == 0) for k, value in zip(kinked, values)):
            slopes = network.local_slopes(points)
        return LocalState(values, slopes)

    def norms(self, points: np.ndarray) -> np.ndarray:
        """Return ‖J‖₂ at each reduced input, to a relative 1e-6 or estimated from below."""
        side = min(self.network.input_dim, self.network.output_dim)
        widest = max(max(weight.shape) for weight in self.network.weights)
        explicit = side <= _EXPLICIT_SIDE
        size = max(1, _CHUNK_NUMBERS // (widest * (side if explicit else 1)))
        parts = []
        for i in range(0, len(points), size):
            chunk = points[i : i + size]
            slopes = self.state(chunk).slopes
            parts.append(
                self._explicit(slopes, len(chunk))
                if explicit
                else self.singular(slopes, self.starts(len(chunk)), self.max_iter, self.tol)[0]
            )
        return np.concatenate(parts)

    def _explicit(self, slopes: list[np.ndarray], count: int) -> np.ndarray:
        """Return ‖J(x)‖₂ from the Gram matrix of J, formed from its smaller side."""
        weights = self.network.weights
        first, last = weights[0], weights[-1]
        if first.shape[1] <= last.shape[0]:
            start = dense(first).T  # Jᵀ, one row an input
            product = np.broadcast_to(start, (count, *start.shape))
            for slope, weight in zip(slopes, weights[1:]):
                product = _times(product * slope[:, None, :], weight.T)
        else:
            product = np.broadcast_to(dense(last), (count, *last.shape))
            for slope, weight in zip(reversed(slopes), reversed(weights[:-1])):
                product = _times(product * slope[:, None, :], weight)
        scale = np.max(np.abs(product), axis=(1, 2), initial=0.0)
        scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
        product = product / scale[:, None, None]
        gram = product @ product.transpose(0, 2, 1)
        if not np.all(np.isfinite(gram)):
            raise SolverError("a Jacobian exceeds the largest float64; scale the network down")
        return scale * np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0.0))

    def starts(self, count: int) -> np.ndarray:
        """Return the same random start of the power iteration for ``count`` inputs."""
        start = np.random.default_rng(0).standard_normal((1, self.network.input_dim))
        return np.repeat(start, count, axis=0)

    def singular(
        self, slopes: list[np.ndarray], vectors: np.ndarray, max_iter: int, tol: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return norm, from below, and right singular vector for each input."""
        return power_iteration(
            lambda right: self.forward(slopes, right),
            lambda left: self.backward(slopes, left),
            vectors,
            max_iter=max_iter,
            tol=tol,
        )

    def forward(self, slopes: list[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Return J v for each input."""
        image = vectors @ self.network.weights[0].T
        for slope, weight in zip(slopes, self.network.weights[1:]):
            image = (slope * image) @ weight.T
        return image

    def backward(self, slopes: list[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Return Jᵀ u for each input."""
        weights = self.network.weights
        image = vectors @ weights[-1]
        for slope, weight in zip(reversed(slopes), reversed(weights[:-1])):
            image = (slope * image) @ weight
        return image

    def gradients(
        self, state: LocalState, vectors: np.ndarray, blur: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute ‖J(x)v‖₂ and its gradient with respect to x, for each input and its v.

        Parameters
        ----------
        state : LocalState
            At n reduced inputs.
        vectors : ndarray of shape (n, input_dim)
            Unit vectors v; at the right singular vector the result is that of ‖J(x)‖₂.
        blur : float, default=0.0
            At a kink φ″ is a point mass, which no gradient sees. With blur > 0 it is spread
            over pre-activations of about ``blur`` times their root mean square in the layer:
            then the gradient points to where flipping neurons raises the norm.

        Returns
        -------
        norms : ndarray of shape (n,)
        gradients : ndarray of shape (n, input_dim)

        Notes
        -----
        Exact but for rounding (blur = 0); cost of four passes through the network.
        """
        weights = self.network.weights
        tangent = vectors @ weights[0].T
        bends = []  # φ″ times the tangent before the activation
        for i, item in enumerate(self.network.activations):
            bend = item.curvature(state.values[i])
            if item.kink is not None and blur > 0:
                bend = bend + _blurred_kink(state.values[i], item.kink, blur)
            bends.append(bend * tangent)
            tangent = (state.slopes[i] * tangent) @ weights[i + 1].T
        norms = np.linalg.norm(tangent, axis=1)
        left = tangent / np.where(norms > 0, norms, 1.0)[:, None]
        behind = left @ weights[-1]
        total = np.zeros_like(behind)
        for i in reversed(range(len(bends))):
            total = (state.slopes[i] * total + behind * bends[i]) @ weights[i]
            if i > 0:
                behind = (state.slopes[i] * behind) @ weights[i]
        return norms, total


def _lighter(weight: Any) -> Any:
    """Return a matrix in the form that is multiplied faster: sparse if it is large and thin."""
    if is_sparse(weight) or weight.size < _SPARSE_SIZE:
        return weight
    thin = np.count_nonzero(weight) <= _SPARSE_SHARE * weight.size
    return csr_array(weight) if thin else weight


def _blurred_kink(values: np.ndarray, kink: tuple[float, float], blur: float) -> np.ndarray:
    """Return the jump of the slope at 0, spread over the width of a logistic density."""
    width = blur * np.sqrt(np.mean(values * values, axis=1, keepdims=True))
    width = np.where(width > 0, width, 1.0)
    decay = np.exp(-np.abs(values) / width)
    return (kink[1] - kink[0]) * decay / (width * (1.0 + decay) ** 2)


def _times(batch: np.ndarray, matrix: Any) -> np.ndarray:
    """Return batch @ matrix as one matrix product."""
    count, rows, columns = batch.shape
    return (batch.reshape(-1, columns) @ matrix).reshape(count, rows, -1)
