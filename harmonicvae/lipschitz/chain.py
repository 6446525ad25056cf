"""A network as Lipschitz methods see it: scaled affine blocks between nonlinear activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges
from harmonicvae.matrices import (
    columns_that_are_seen,
    dense,
    is_sparse,
    largest_entry,
    plus_constant,
    rows_that_see,
    rows_times,
    scaled,
    submatrix,
)
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import certified_spectral_norm, norm_is_at_most, power_iteration
from harmonicvae.rounding import (
    TINY,
    absolute_norm_squared,
    gamma,
    normalise,
    product_up,
    round_up,
    upper_gram_factor,
)

#: Slopes smaller than this fraction of their layer's largest are rounded outwards.
_SMALLEST_SLOPE = 2.0**-100
#: Largest slopes of a layer beyond 2**±this are multiplied into the next block.
_SLOPE_EXPONENT = 64
#: Added to every entry of an error bound: more than all underflows of entries of order one.
_UNDERFLOW = 2.0**-1000
#: Binary logarithm by which an estimate from below must exceed a value to be believed.
_DOUBT = 1e-6


@dataclass(frozen=True, eq=False)
class Block:
    """An affine map's matrix, scaled by a power of two.

    Parameters
    ----------
    matrix : ndarray or csr_array of shape (out, in)
        Largest entry in [½, 1), or all zero.
    exponent : int
        The true matrix is about ``matrix`` · 2**exponent.
    error : ndarray or csr_array of shape (out, in) or None
        Bound on |true matrix · 2**−exponent − matrix| entry by entry; None (no error)
        for one layer of the network, given where several were multiplied.
    """

    matrix: Any
    exponent: int
    error: Any = None

    @property
    def is_zero(self) -> bool:
        """True if the true matrix is exactly zero."""
        return self.error is None and largest_entry(self.matrix) == 0.0

    @property
    def error_norm(self) -> float:
        """Upper bound of ‖true matrix · 2**−exponent − matrix‖₂."""
        return 0.0 if self.error is None else round_up(math.sqrt(absolute_norm_squared(self.error)))


@dataclass(frozen=True, eq=False)
class BlockChain:
    """Affine blocks with slope ranges of the neurons between them.

    Parameters
    ----------
    blocks : tuple of Block
        L + 1 blocks.
    alphas, betas : tuple of ndarray of shape (n_i,)
        Slope ranges of the L hidden layers, neuron by neuron, after block i.
    layers : tuple of int
        The network's hidden layer that each hidden layer of the chain is.
    kept : tuple of ndarray of shape (n_i,)
        The numbers of the neurons that are kept, in the network's hidden layer.
    slope_exponents : tuple of int
        The neurons' true slopes are those given times 2**slope_exponents[i]; that power
        is part of the next block's exponent. 0 but for slopes of extreme magnitude.

    Notes
    -----
    Layers in which every neuron has a single slope (the identity between consecutive
    affine layers) are multiplied into the blocks, with a bound on the rounding error.
    Neurons that no input reaches or that reach no output, because their slope range is
    [0, 0] or all weights on the way are zero, are left out.
    """

    blocks: tuple[Block, ...]
    alphas: tuple[np.ndarray, ...]
    betas: tuple[np.ndarray, ...]
    layers: tuple[int, ...]
    kept: tuple[np.ndarray, ...]
    slope_exponents: tuple[int, ...]

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Number of neurons kept in each hidden layer of the chain."""
        return tuple(len(item) for item in self.alphas)

    @property
    def is_constant(self) -> bool:
        """True if a factor is exactly zero, so that outputs do not depend on inputs."""
        return any(block.is_zero for block in self.blocks)

    @property
    def is_sparse(self) -> bool:
        """True if a matrix is sparse."""
        return any(is_sparse(block.matrix) for block in self.blocks)

    @property
    def exponent(self) -> int:
        """Sum of the blocks' exponents."""
        return sum(block.exponent for block in self.blocks)

    @property
    def largest_slopes(self) -> tuple[float, ...]:
        """Largest magnitude of a slope in each hidden layer, > 0."""
        return tuple(
            float(np.max(np.maximum(np.abs(low), np.abs(high))))
            for low, high in zip(self.alphas, self.betas)
        )

    def layer_norms(self) -> tuple[float, ...]:
        """Return a proved upper bound of the spectral norm of each scaled matrix."""
        return tuple(certified_spectral_norm(block.matrix) for block in self.blocks)

    def norms_hold(self, norms: tuple[float, ...]) -> bool:
        """Prove that the scaled matrices have norms of at most the given values."""
        return len(norms) == len(self.blocks) and all(
            norm_is_at_most(block.matrix, norm) for block, norm in zip(self.blocks, norms)
        )

    def true_norms(self, norms: tuple[float, ...]) -> tuple[float, ...]:
        """Return bounds of the true blocks' norms, scaled, from those of the scaled matrices."""
        return tuple(
            norm if block.error is None else _steps_up(norm + block.error_norm, 4)
            for block, norm in zip(self.blocks, norms)
        )

    def true_norms_hold(self, norms: tuple[float, ...]) -> bool:
        """Prove that the true blocks · 2**−exponent have norms of at most the given values."""
        own = (
            norm if block.error is None else -round_up(block.error_norm - norm)
            for block, norm in zip(self.blocks, norms)
        )
        return self.norms_hold(tuple(own)) and len(norms) == len(self.blocks)

    def norm_product(self, norms: tuple[float, ...]) -> float:
        """Return the product of norms and largest slopes, each step rounded upwards."""
        if self.is_constant:
            return 0.0
        return product_up([*self.largest_slopes, *self.true_norms(norms)], self.exponent)

    def norm_product_exceeds(self, value: float) -> bool:
        """Return whether the norm product surely exceeds a value; False says nothing.

        A few steps of power iteration, O(Σ mn), save the proof of norms that are not wanted.
        """
        if self.is_constant:
            return False
        logarithm = float(self.exponent)
        for block in self.blocks:
            start = np.ones((1, block.matrix.shape[1]))
            norm, _ = power_iteration(*_products(block.matrix), start, 6, 0.0)
            if not norm[0] > 0.0:
                return False
            logarithm += math.log2(norm[0])
        logarithm += sum(map(math.log2, self.largest_slopes))
        return value == 0.0 or logarithm > math.log2(value) + _DOUBT

    def part(self, start: int, stop: int) -> BlockChain:
        """Return the chain of blocks start … stop − 1 and the hidden layers between them."""
        inner = slice(start, stop - 1)
        return BlockChain(
            self.blocks[start:stop],
            self.alphas[inner],
            self.betas[inner],
            self.layers[inner],
            self.kept[inner],
            self.slope_exponents[inner],
        )

    def with_dense_matrices(self) -> BlockChain:
        """Return the same chain with all matrices dense."""
        if not self.is_sparse:
            return self
        blocks = [
            replace(
                block,
                matrix=dense(block.matrix),
                error=None if block.error is None else dense(block.error),
            )
            for block in self.blocks
        ]
        return replace(self, blocks=tuple(blocks))

    def with_square_input(self) -> BlockChain:
        """Replace a wide first block by a square one that maps the unit ball onto no less.

        Raises
        ------
        SolverError
            If the factor cannot be proved.

        Notes
        -----
        Rows are first scaled to norms of order one, so that the rounding error of each
        row is relative to that row. Cost O(out²·in).
        """
        first = self.blocks[0]
        rows, columns = first.matrix.shape
        if columns <= rows or first.is_zero:
            return self
        shifts = -np.frexp(np.max(np.abs(first.matrix), axis=1))[1][:, None]
        shifts = np.minimum(shifts, 60)  # so that what underflowed before stays below TINY
        error = 0.0
        if first.error is not None:
            error = math.sqrt(absolute_norm_squared(np.ldexp(first.error, shifts)))
        factor = upper_gram_factor(np.ldexp(first.matrix, shifts), error)
        square = replace(first, matrix=np.ldexp(factor, -shifts), error=None)
        return replace(self, blocks=(square, *self.blocks[1:]))

    def reduced_matrices(self) -> list[np.ndarray]:
        """Return the scaled matrices in float64 for a solver, wide and tall ends made square.

        Returns
        -------
        list of ndarray
            A wide first matrix is replaced by its LQ factor L, a tall last one by its QR
            factor R: the same singular values and the same matrix inequality, up to
            rounding, which is not proved. A single block is made square once.

        Notes
        -----
        Cost O(rows · columns · min(rows, columns)) for each end.
        """
        return list(self._reduced)

    @cached_property
    def _reduced(self) -> tuple[np.ndarray, ...]:
        """The reduced matrices, computed once."""
        matrices = [block.matrix for block in self.blocks]
        if matrices[0].shape[1] > matrices[0].shape[0]:
            matrices[0] = np.asarray(np.linalg.qr(matrices[0].T, mode="r")).T
        if matrices[-1].shape[0] > matrices[-1].shape[1]:
            matrices[-1] = np.asarray(np.linalg.qr(matrices[-1], mode="r"))
        return tuple(matrices)


def _products(matrix: Any) -> tuple[Any, Any]:
    """Return a matrix and its transpose as functions of rows."""
    return lambda rows: rows @ matrix.T, lambda rows: rows @ matrix


def build_chain(network: LayeredNetwork, slopes: SlopeRanges | None = None) -> BlockChain:
    """Scale a network's layers and multiply those that no nonlinear activation separates.

    Parameters
    ----------
    network : LayeredNetwork
        Any network.
    slopes : SlopeRanges or None
        Slope ranges of its neurons, as from
        :func:`harmonicvae.lipschitz.slopes.slope_ranges`; None takes those of the
        activations.

    Returns
    -------
    BlockChain
        A single zero block if no input reaches an output.

    Raises
    ------
    InputError
        If the slope ranges do not fit the network, are empty or not finite.

    Notes
    -----
    Exact but for the products of consecutive layers, whose rounding error is bounded, and
    for slopes below 2⁻¹⁰⁰ times the largest of their layer, which are rounded outwards.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[4.0]], [[8.0]]], activation="relu")
    >>> build_chain(network).exponent
    9
    >>> network = LayeredNetwork.from_arrays([[[2.0], [0.0]], [[1.0, 1.0]]], activation="relu")
    >>> build_chain(network).kept
    (array([0]),)
    """
    if slopes is None:
        slopes = slope_ranges(network, "activation")
    alphas, betas = _checked(slopes, network)
    live = live_neurons(network.weights, alphas, betas)
    if not all(np.any(item) for item in live):
        return BlockChain((Block(np.zeros((network.output_dim, network.input_dim)), 0),), *[()] * 5)
    weights = [
        submatrix(w, after, before) for w, (before, after) in zip(network.weights, pairwise(live))
    ]
    builder = _Builder(Block(*normalise(weights[0])))
    for i, weight in enumerate(weights[1:]):
        chosen = np.flatnonzero(live[i + 1])
        builder.add(alphas[i][chosen], betas[i][chosen], Block(*normalise(weight)), i, chosen)
    return builder.chain()


def _steps_up(value: float, steps: int) -> float:
    """Return the float64 number the given number of steps above."""
    for _ in range(steps):
        value = round_up(value)
    return value


class _Builder:
    """Collects blocks from input to output."""

    def __init__(self, first: Block) -> None:
        self._current = first
        self._blocks: list[Block] = []
        self._layers: list[tuple[np.ndarray, np.ndarray, int, np.ndarray, int]] = []

    def add(
        self, low: np.ndarray, high: np.ndarray, block: Block, i: int, kept: np.ndarray
    ) -> None:
        """Add hidden layer i and the block that follows it."""
        low, high, exponent = round_slopes(low, high)
        block = replace(block, exponent=block.exponent + exponent)
        if np.array_equal(low, high):
            self._current = _multiply(block, low, self._current)
            return
        self._blocks.append(self._current)
        self._layers.append((low, high, i, kept, exponent))
        self._current = block

    def chain(self) -> BlockChain:
        """Return what was collected."""
        columns = [tuple(column) for column in zip(*self._layers)] or [()] * 5
        alphas, betas, layers, kept, exponents = columns
        return BlockChain((*self._blocks, self._current), alphas, betas, layers, kept, exponents)


def _checked(
    slopes: SlopeRanges, network: LayeredNetwork
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return slope ranges that fit the network, or refuse them."""
    shapes = tuple((n,) for n in network.hidden_dims)
    for name, vectors in (("alphas", slopes.alphas), ("betas", slopes.betas)):
        if tuple(np.shape(item) for item in vectors) != shapes:
            raise InputError(
                f"slopes.{name} must have one number for each of {network.hidden_dims} neurons, "
                f"got shapes {[np.shape(item) for item in vectors]}"
            )
        if not all(np.all(np.isfinite(item)) for item in vectors):
            raise InputError(f"slopes.{name} must be finite, got NaN or infinite entries")
    if any(np.any(low > high) for low, high in zip(slopes.alphas, slopes.betas)):
        raise InputError("slopes need alpha <= beta for every neuron")
    return slopes.alphas, slopes.betas


def live_neurons(
    weights: tuple[Any, ...], alphas: tuple[np.ndarray, ...], betas: tuple[np.ndarray, ...]
) -> list[np.ndarray]:
    """Find the neurons that some input reaches and that reach some output.

    Parameters
    ----------
    weights : tuple of L + 1 ndarrays or csr_arrays of shape (out, in)
        The network's matrices.
    alphas, betas : tuple of L ndarrays
        Slope ranges; [0, 0] lets nothing pass.

    Returns
    -------
    list of L + 2 boolean ndarrays
        Inputs (all True), the L hidden layers, outputs (all True). Leaving out the others
        changes no difference of outputs.
    """
    live = [np.ones(weights[0].shape[1], dtype=bool)]
    for weight, low, high in zip(weights, alphas, betas):
        passes = (low != 0.0) | (high != 0.0)
        live.append(passes & rows_that_see(weight, live[-1]))
    live.append(np.ones(weights[-1].shape[0], dtype=bool))
    for i in range(len(weights) - 1, 0, -1):
        live[i] &= columns_that_are_seen(weights[i], live[i + 1])
    return live


def round_slopes(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Round tiny slopes of a layer outwards, and take out a power of two if all are extreme.

    Parameters
    ----------
    low, high : ndarray of shape (n,)
        Slope ranges, not all zero.

    Returns
    -------
    low, high : ndarray of shape (n,)
        Ranges that contain the given ones times 2**−exponent; nonzero ends are no smaller
        than 2⁻¹⁰⁰ of the largest, and the largest lies in [2⁻⁶⁵, 2⁶⁴].
    exponent : int

    Examples
    --------
    >>> low, high, exponent = round_slopes(np.array([1e-40, 0.5]), np.array([1.0, 1.0]))
    >>> low.tolist(), exponent
    ([0.0, 0.5], 0)
    """
    largest = float(max(np.max(np.abs(low)), np.max(np.abs(high))))
    exponent = math.frexp(largest)[1]
    if abs(exponent) <= _SLOPE_EXPONENT:
        exponent = 0
    step = _SMALLEST_SLOPE * math.ldexp(1.0, math.frexp(largest)[1] - exponent)
    single = low == high
    low, high = np.ldexp(low, -exponent), np.ldexp(high, -exponent)
    lower = np.where(np.abs(low) < step, np.where(low < 0, -step, 0.0), low)
    upper = np.where(np.abs(high) < step, np.where(high > 0, step, 0.0), high)
    if np.all(single):
        return low, high, exponent
    return lower, upper, exponent


def _multiply(left: Block, slopes: np.ndarray, right: Block) -> Block:
    """Return left · diag(slopes) · right with a bound on the error; ``left`` has none itself."""
    middle, shift = normalise(slopes)
    inner = rows_times(middle, right.matrix)
    product = left.matrix @ inner
    size = abs(left.matrix)
    error = gamma(left.matrix.shape[1] + 4) * (size @ abs(inner))
    if right.error is not None:
        error = error + size @ rows_times(np.abs(middle), right.error)
    error = plus_constant(error * (1.0 + 2.0**-20), _UNDERFLOW)
    exponent = left.exponent + right.exponent + shift
    largest = math.frexp(largest_entry(product))[1]
    largest = max(largest, -500)
    error = plus_constant(scaled(error, -largest), TINY)
    return Block(scaled(product, -largest), exponent + largest, error)
