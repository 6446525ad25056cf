"""Lower bounds of the ℓ2 Lipschitz constant: the largest Jacobian norm among given inputs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.base import as_network
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import power_iteration, spectral_norm
from harmonicvae.records import Bound

#: Numbers held per chunk of inputs, for each of a handful of arrays.
_CHUNK_NUMBERS = 2_000_000
#: Jacobians with no more rows or columns are formed, larger ones go through power iteration.
_EXPLICIT_SIDE = 96


def sampled_jacobian_norm(
    network: Any,
    x: Any,
    n_steps: int = 0,
    n_starts: int = 8,
    tol: float = 1e-4,
    max_iter: int = 100,
) -> Bound:
    """Compute the largest Jacobian norm among given inputs, a lower bound of the constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...)
        Inputs, n ≥ 1; images are flattened.
    n_steps : int, default=0
        Steps of gradient ascent on ‖J(x)‖₂ from the best inputs; 0 means none. Piecewise
        linear networks have no such gradient, so that steps change nothing there.
    n_starts : int, default=8
        Number of best inputs from which to ascend, ≥ 1.
    tol : float, default=1e-4
        Relative growth per power iteration below which the search stops; it affects
        which input is found best, not the value there.
    max_iter : int, default=100
        Power iterations at most, ≥ 1.

    Returns
    -------
    Bound
        ``kind="lower"``, ``status="float64"``, in output units per input unit. ``details``:
        "index" (row of ``x`` that was best, or the ascent started from), "point" (the
        input, if ascent moved it), "median" (of the norms over ``x``, estimated), "n_points".

    Raises
    ------
    UnsupportedNetworkError
        If a layer has no exact form.
    InputError
        If ``x`` does not fit or a number is out of its range.
    SolverError
        If a Jacobian exceeds the largest float64.

    Notes
    -----
    All inputs are compared in chunks, after replacing a wide first and a tall last layer by
    its triangular factor: with at most 96 inputs or outputs through the eigenvalues of JJᵀ or
    JᵀJ, else by power iteration on products with the layers and their local slopes. The
    best input's Jacobian is then formed in float64 and its norm taken by SVD; the value is
    right up to the rounding of that. Cost O(n · s · Σ out·in), s the number of inputs,
    outputs or iterations.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> sampled_jacobian_norm(network, [[1.0], [0.0]]).value
    1.5
    """
    if n_steps < 0 or n_starts < 1:
        raise InputError(f"need n_steps >= 0 and n_starts >= 1, got {n_steps} and {n_starts}")
    started = time.perf_counter()
    network = as_network(network)
    points = network.check_points(x)
    search = _Search.of(network, tol, max_iter)
    norms = search.norms(points)
    order = np.argsort(-norms)[: min(n_starts, len(norms))]
    details: dict[str, Any] = {"median": float(np.median(norms)), "n_points": len(points)}
    best, index = points[order[0]], int(order[0])
    value = _jacobian_norm(network, best)
    if n_steps > 0:
        climbed, heights = _ascend(search, points[order], n_steps)
        top = int(np.argmax(heights))
        refined = _jacobian_norm(network, climbed[top])
        if refined > value:
            value, index = refined, int(order[top])
            details["point"] = climbed[top]
    return Bound(
        kind="lower",
        value=value,
        method="sampled_jacobian",
        status="float64",
        seconds=time.perf_counter() - started,
        network_hash=network.hash,
        details={"index": index, **details},
    )


def _jacobian_norm(network: LayeredNetwork, point: np.ndarray) -> float:
    """Return ‖J(x)‖₂ of one input by SVD of the whole Jacobian."""
    jacobian = network.jacobian(point)
    if not np.all(np.isfinite(jacobian)):
        raise SolverError("the Jacobian exceeds the largest float64; scale the network down")
    return spectral_norm(jacobian)


@dataclass(frozen=True)
class _Search:
    """Norms and gradients of norms of the Jacobian, for batches of inputs."""

    network: LayeredNetwork
    weights: tuple[np.ndarray, ...]  # first and last replaced by square factors where smaller
    tol: float
    max_iter: int

    @classmethod
    def of(cls, network: LayeredNetwork, tol: float, max_iter: int) -> _Search:
        """Reduce the outer layers: ‖J‖₂ is unchanged by orthogonal factors."""
        weights = list(network.weights)
        if weights[-1].shape[0] > weights[-1].shape[1]:
            weights[-1] = np.asarray(np.linalg.qr(weights[-1], mode="r"))
        if weights[0].shape[1] > weights[0].shape[0]:
            weights[0] = np.asarray(np.linalg.qr(weights[0].T, mode="r")).T
        return cls(network, tuple(weights), tol, max_iter)

    def norms(self, points: np.ndarray) -> np.ndarray:
        """Return ‖J(x)‖₂ of each input, to a relative 1e-6 or estimated from below."""
        side = min(self.weights[-1].shape[0], self.weights[0].shape[1])
        explicit = side <= _EXPLICIT_SIDE
        inner = max(weight.shape[0] for weight in self.weights) * side if explicit else 0
        size = max(1, _CHUNK_NUMBERS // max(inner, *map(max, self._shapes())))
        parts = []
        for i in range(0, len(points), size):
            slopes = self.network.local_slopes(points[i : i + size])
            count = len(points[i : i + size])
            parts.append(self._explicit(slopes, count) if explicit else self._singular(slopes)[0])
        return np.concatenate(parts)

    def _shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the network's matrices."""
        return [weight.shape for weight in self.network.weights]

    def _explicit(self, slopes: list[np.ndarray], count: int) -> np.ndarray:
        """Return ‖J(x)‖₂ from the Gram matrix of J, formed from its smaller side."""
        first, last = self.weights[0], self.weights[-1]
        if first.shape[1] <= last.shape[0]:
            product = np.broadcast_to(first.T, (count, *first.T.shape))  # Jᵀ, one row an input
            for slope, weight in zip(slopes, self.weights[1:]):
                product = _times(product * slope[:, None, :], weight.T)
        else:
            product = np.broadcast_to(last, (count, *last.shape))
            for slope, weight in zip(reversed(slopes), reversed(self.weights[:-1])):
                product = _times(product * slope[:, None, :], weight)
        scale = np.max(np.abs(product), axis=(1, 2), initial=0.0)
        scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
        product = product / scale[:, None, None]
        gram = product @ product.transpose(0, 2, 1)
        if not np.all(np.isfinite(gram)):
            raise SolverError("a Jacobian exceeds the largest float64; scale the network down")
        return scale * np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0.0))

    def forward(self, slopes: list[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Return J v for each input."""
        image = vectors @ self.weights[0].T
        for slope, weight in zip(slopes, self.weights[1:]):
            image = (slope * image) @ weight.T
        return image

    def backward(self, slopes: list[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Return Jᵀ u for each input."""
        image = vectors @ self.weights[-1]
        for slope, weight in zip(reversed(slopes), reversed(self.weights[:-1])):
            image = (slope * image) @ weight
        return image

    def _singular(self, slopes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return norm and right singular vector for each input."""
        count = len(slopes[0]) if slopes else 1
        dim = self.weights[0].shape[1]
        start = np.random.default_rng(0).standard_normal((1, dim))
        return power_iteration(
            lambda vectors: self.forward(slopes, vectors),
            lambda vectors: self.backward(slopes, vectors),
            np.repeat(start, count, axis=0),
            max_iter=self.max_iter,
            tol=self.tol,
        )

    def gradients(self, points: np.ndarray) -> np.ndarray:
        """Return the gradient of ‖J(x)‖₂ = uᵀJ(x)v with respect to x, for each input."""
        network = self.network
        slopes = network.local_slopes(points)
        _, right = self._singular(slopes)
        value = points @ network.weights[0].T + network.biases[0]
        tangent = right @ self.weights[0].T
        bends = []  # φ″ times the tangent before the activation
        for i, (item, slope) in enumerate(zip(network.activations, slopes)):
            bends.append(item.curvature(value) * tangent)
            tangent = (slope * tangent) @ self.weights[i + 1].T
            if i + 1 < len(slopes):
                value = item.function(value) @ network.weights[i + 1].T + network.biases[i + 1]
        size = np.linalg.norm(tangent, axis=1, keepdims=True)
        left = tangent / np.where(size > 0, size, 1.0)
        behind = left @ self.weights[-1]
        total = np.zeros_like(behind)
        for i in reversed(range(len(slopes))):
            at_value = slopes[i] * total + behind * bends[i]
            matrix = network.weights[i]
            total = at_value @ matrix
            if i > 0:
                behind = (slopes[i] * behind) @ matrix
        return total


def _times(batch: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return batch @ matrix as one matrix product."""
    count, rows, columns = batch.shape
    return (batch.reshape(-1, columns) @ matrix).reshape(count, rows, -1)


def _ascend(search: _Search, points: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Climb ‖J(x)‖₂ with normalised gradient steps that grow on success and shrink on failure."""
    points = np.array(points)
    heights = search.norms(points)
    lengths = np.linalg.norm(points, axis=1)
    steps = np.full(len(points), 0.1 * (float(np.median(lengths)) or 1.0))
    for _ in range(n_steps):
        gradients = search.gradients(points)
        size = np.linalg.norm(gradients, axis=1, keepdims=True)
        if not np.any(size > 0):
            break
        trial = points + steps[:, None] * gradients / np.where(size > 0, size, 1.0)
        reached = search.norms(trial)
        better = reached > heights
        points[better], heights[better] = trial[better], reached[better]
        steps *= np.where(better, 1.5, 0.5)
    return points, heights
