"""Evaluations of a map on rings of correlated Gaussian points, summed in blocks.

A ring is a pair of independent normals (ε, ε') and the J points
z_j = μ + σ(cos θ_j·ε + sin θ_j·ε'), θ_j = 2πj/J.  Each point is N(μ, σ²I), and two of them are
ρ-correlated with ρ = cos(θ_j − θ_l): one ring holds all correlations cos(2πl/J), each J times,
with the same normals, and for even J with every point its antithetic one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harmonicvae.exceptions import InputError
from harmonicvae.harmonics.maps import DifferentiableMap

#: Most and fewest blocks of rings that sums are kept of.
MOST_BLOCKS, LEAST_BLOCKS = 64, 8
#: Jacobians are summed exactly if that takes at most this many products a point.
EXACT_PRODUCTS = 4
#: Points of each ring where derivatives are taken.
DERIVATIVE_POINTS = 4
_FLOAT_BYTES = 8
#: Copies of a chunk's values that are alive at once (values, Fourier sums, hidden layers).
_CHUNK_COPIES = 6


@dataclass(frozen=True)
class Plan:
    """How many rings are evaluated, and how many at once.

    Parameters
    ----------
    n_angles : int
        Points J on a ring, a multiple of 4.
    n_blocks, block_size : int
        Blocks, and rings in each.
    chunk_size : int
        Rings evaluated at once.
    """

    n_angles: int
    n_blocks: int
    block_size: int
    chunk_size: int

    @property
    def n_rings(self) -> int:
        """Rings in all."""
        return self.n_blocks * self.block_size

    def chunks(self) -> Iterator[tuple[slice, int]]:
        """Return which blocks are evaluated at once, and how many rings of each, in order."""
        together = self.chunk_size // self.block_size
        if together:
            for first in range(0, self.n_blocks, together):
                yield slice(first, min(first + together, self.n_blocks)), self.block_size
            return
        for block in range(self.n_blocks):
            for done in range(0, self.block_size, self.chunk_size):
                count = min(self.chunk_size, self.block_size - done)
                yield slice(block, block + 1), count

    @classmethod
    def within(cls, n_rings: int, n_angles: int, dims: tuple[int, int], max_memory: float) -> Plan:
        """Return the plan of at least ``n_rings`` rings in so many bytes.

        Half of the memory is for the first-degree sums of all blocks (d·m numbers each), half
        for the chunk.

        Raises
        ------
        InputError
            If not even a small plan fits.
        """
        latent, outputs = dims
        kept = latent * outputs * _FLOAT_BYTES
        ring = n_angles * (outputs + latent) * _FLOAT_BYTES * _CHUNK_COPIES
        most = int(max_memory / 2 / kept)
        if most < LEAST_BLOCKS or max_memory / 2 < ring:
            least = 2 * max(LEAST_BLOCKS * kept, ring)
            raise InputError(
                f"max_memory must be at least {math.ceil(least / 2**20)} MiB for "
                f"{latent} inputs and {outputs} outputs, got {max_memory / 2**20:g} MiB"
            )
        size = math.ceil(n_rings / min(MOST_BLOCKS, most))
        chunk = int(max_memory / 2 / ring)
        return cls(n_angles, math.ceil(n_rings / size), size, chunk)


@dataclass(frozen=True)
class RingSums:
    """Sums over the rings around one centre, by block.

    Parameters
    ----------
    power : ndarray of shape (B, J/2 + 1)
        Mean over rings of the power at each angular frequency, of g − c.
    mean_gram : ndarray of shape (B, B)
        Inner products of the blocks' means of g − c.
    shifted_mean : ndarray of shape (B,)
        2⟨c, mean of g − c⟩ + ‖c‖² of each block: what c takes away from ‖E g‖².
    first_gram : ndarray of shape (B, B)
        Inner products of the blocks' means of g(Z)εᵀ, (d, m) matrices.
    jacobian : ndarray of shape (B,)
        Mean of σ²‖J‖_F², exact or in random directions.
    size : float
        Mean of ‖g‖², for what counts as no variance.
    """

    power: np.ndarray
    mean_gram: np.ndarray
    shifted_mean: np.ndarray
    first_gram: np.ndarray
    jacobian: np.ndarray
    size: float


def sum_rings(
    function: DifferentiableMap,
    mean: np.ndarray,
    std: float,
    plan: Plan,
    generator: np.random.Generator,
) -> RingSums:
    """Evaluate a map on the rings around one centre.

    Parameters
    ----------
    function : DifferentiableMap
    mean : ndarray of shape (m,)
        Centre μ.
    std : float
        σ > 0.
    plan : Plan
    generator : Generator
        Of the normals; they do not depend on the chunks.

    Returns
    -------
    RingSums

    Raises
    ------
    SolverError
        If a value or a derivative is NaN or infinite.
    """
    work = _RingWork(function, mean, std, plan)
    for blocks, count in plan.chunks():
        shape = (blocks.stop - blocks.start, count, 2, len(mean))
        work.add(blocks, generator.standard_normal(shape))
    return work.sums()


class _RingWork:
    """Sums that grow chunk by chunk."""

    def __init__(
        self, function: DifferentiableMap, mean: np.ndarray, std: float, plan: Plan
    ) -> None:
        self._function, self._std, self._plan = function, std, plan
        self._options: dict[str, Any] = {"dtype": torch.float64, "device": function.device}
        self._mean = torch.as_tensor(mean, **self._options)
        angles = 2 * math.pi * torch.arange(plan.n_angles, **self._options) / plan.n_angles
        self._circle = torch.stack([angles.cos(), angles.sin()], 1)
        self._fourier = _fourier_rows(angles)
        shape = (plan.n_blocks, function.output_dim)
        self._shift: Tensor | None = None
        self._means = torch.zeros(shape, **self._options)
        self._first = torch.zeros((*shape, function.input_dim), **self._options)
        self._power = torch.zeros((plan.n_blocks, plan.n_angles // 2 + 1), **self._options)
        self._jacobian = torch.zeros(plan.n_blocks, **self._options)

    def add(self, blocks: slice, normals: np.ndarray) -> None:
        """Evaluate rings (blocks, count, 2, m) and add them to their blocks."""
        pair = torch.as_tensor(normals, **self._options)
        points = self._mean + self._std * (self._circle @ pair)
        values = self._function(points.flatten(0, 2)).unflatten(0, points.shape[:3])
        if self._shift is None:
            self._shift = values.mean((0, 1, 2))
        waves = self._fourier @ (values - self._shift)
        squares = waves.square().sum((1, 3))
        self._means[blocks] += waves[:, :, 0].sum(1)
        for order in (0, 1):  # cos θ and sin θ
            self._first[blocks] += waves[:, :, 1 + order].mT @ pair[:, :, order]
        # the rows: constant, cos and sin of each frequency in turn, the alternating one
        self._power[blocks, 0] += squares[:, 0]
        self._power[blocks, -1] += squares[:, -1]
        self._power[blocks, 1:-1] += 2 * squares[:, 1:-1].unflatten(1, (-1, 2)).sum(2)
        self._jacobian[blocks] += self._derivatives(points, pair)

    def _derivatives(self, points: Tensor, pair: Tensor) -> Tensor:
        """Return for each block the sum over rings of the mean of σ²‖J‖_F² over some points."""
        places = torch.arange(DERIVATIVE_POINTS) * (self._plan.n_angles // DERIVATIVE_POINTS)
        chosen = points[:, :, places].flatten(0, 2)
        function = self._function
        if uses_exact_jacobian(function):
            found = self._std**2 * function.squared_jacobian_norm(chosen)
        else:
            cosine, sine = self._circle[places].T
            across = torch.stack([-sine, cosine], 1) @ pair  # independent of the points
            directions = self._std * across.flatten(0, 2)
            found = function.directional(chosen, directions).square().sum(1)
        return found.unflatten(0, (len(points), -1)).sum(1) / DERIVATIVE_POINTS

    def sums(self) -> RingSums:
        """Return the means by block."""
        size = self._plan.block_size
        means, power = self._means / size, self._power / size
        first = (self._first / size).flatten(1)
        shift = self._shift if self._shift is not None else means[0]
        lost = 2 * means @ shift + shift @ shift
        return RingSums(
            power=power.cpu().numpy(),
            mean_gram=(means @ means.T).cpu().numpy(),
            shifted_mean=lost.cpu().numpy(),
            first_gram=(first @ first.T).cpu().numpy(),
            jacobian=(self._jacobian / size).cpu().numpy(),
            size=float(power.sum(1).mean() + lost.mean()),
        )


def uses_exact_jacobian(function: DifferentiableMap) -> bool:
    """Return whether ‖J‖_F is computed from all products along the smaller side."""
    return min(function.input_dim, function.output_dim) <= EXACT_PRODUCTS


def _fourier_rows(angles: Tensor) -> Tensor:
    """Return the rows 1, cos nθ, sin nθ (n = 1 … J/2 − 1), cos (J/2)θ, over J.

    Applied to a ring they give the real Fourier coefficients f̂_n; the mean square over the
    ring is f̂_0² + 2·Σ |f̂_n|² + f̂_{J/2}² (Parseval).
    """
    half = len(angles) // 2
    rows = [torch.ones_like(angles)]
    for order in range(1, half):
        rows += [(order * angles).cos(), (order * angles).sin()]
    return torch.stack([*rows, (half * angles).cos()]) / len(angles)
