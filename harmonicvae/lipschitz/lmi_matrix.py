"""The matrix of the LipSDP inequality, dense, with bounds on all rounding errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.chain import Block, BlockChain
from harmonicvae.matrices import scaled
from harmonicvae.rounding import (
    UNIT,
    absolute_norm_squared,
    gamma,
    gram,
    inflate,
    proves_positive_semidefinite,
)

#: Nonzero multipliers must lie in 2**±this, ρ and the scalings in 2**±LARGEST_SHIFT.
_LARGEST_MULTIPLIER = 200
LARGEST_SHIFT = 300
#: Products of scale factors, and entries of scaled matrices, that are accepted at most. Within
#: these limits every underflow, 2⁻¹⁰⁷⁴ before scaling, stays far below UNDERFLOW after it.
_LARGEST_FACTOR = 2.0**500
_LARGEST_ENTRY = 2.0**100
UNDERFLOW = 2.0**-400
#: A matrix and a bound on the spectral norm of its error.
_Bounded = tuple[np.ndarray, float]


class Diagonals(Protocol):
    """Multipliers and scales, as :class:`harmonicvae.lipschitz.lmi.Multipliers` has them."""

    @property
    def values(self) -> tuple[np.ndarray, ...]:
        """Diagonal of each T_i."""

    @property
    def shifts(self) -> tuple[int, ...]:
        """Block i < L enters the inequality as ``matrix`` · 2**shifts[i]."""


class LmiMatrix:
    """The block-tridiagonal matrix of the inequality, with bounds on all rounding errors.

    Parameters
    ----------
    chain : BlockChain
        Any.
    multipliers : Diagonals
        Any; nothing about them is trusted.

    Raises
    ------
    InputError
        If the multipliers do not fit the chain, are negative, not finite or out of range.

    Notes
    -----
    Rows and columns are scaled by powers of two, which is exact, so that every diagonal
    entry lies in [½, 2): the rounding errors of a neuron are then relative to that
    neuron's own multiplier, whatever the others are. All that does not depend on ρ is
    computed once: O(Σ n_i³ + Gram products of the first and last block).
    """

    def __init__(self, chain: BlockChain, multipliers: Diagonals) -> None:
        hidden = len(chain.blocks) - 1
        self._chain = chain
        self._base, self._weights = checked_terms(chain, multipliers)
        self._blocks: list[_Bounded] = []
        self._links: list[_Bounded] = []
        self._scales: list[np.ndarray] = []
        with np.errstate(all="ignore"):  # what overflows is refused by is_moderate
            self._possible = all(self._add(i) for i in range(hidden))
        self._output = _OutputGram(chain.blocks[-1])

    def _add(self, i: int) -> bool:
        """Add the diagonal block before hidden layer i + 1 and the link to it."""
        half = _Half(
            self._weights[i], self._chain.alphas[i], self._chain.betas[i], self._base[i + 1]
        )
        scales = diagonal_scales(half.diagonal(self._base[i]))
        if scales is None:
            return False
        block = half.added_to(self._base[i], scales)
        if i > 0:
            self._links.append(self._link(i - 1, self._scales[i - 1], scales))
        self._scales.append(scales)
        self._blocks.append(block)
        return True

    def _link(self, i: int, before: np.ndarray, after: np.ndarray) -> _Bounded:
        """Return the scaled block −M T W below the diagonal, and a bound on its error."""
        weight = self._weights[i]
        middle = 0.5 * (self._chain.alphas[i] + self._chain.betas[i]) * self._base[i + 1]
        row, column = np.ldexp(middle, after)[:, None], np.ldexp(1.0, before)[None, :]
        link = -(row * weight.matrix) * column
        error = gamma(4) * math.sqrt(absolute_norm_squared(link)) + weight.underflow(row, column)
        if weight.error is not None:
            error += math.sqrt(absolute_norm_squared(np.abs(row) * weight.error * column))
        return link, inflate(error)

    def proves(self, rho: float) -> bool:
        """Prove the inequality for one ρ.

        Parameters
        ----------
        rho : float
            Squared bound of the scaled chain, > 0.

        Returns
        -------
        bool
            True is a proof that √ρ bounds the scaled chain; False says nothing.

        Notes
        -----
        Cost O(Σ n_i³).
        """
        if not self._possible or not 2.0**-LARGEST_SHIFT <= rho <= 2.0**LARGEST_SHIFT:
            return False
        with np.errstate(all="ignore"):  # what overflows is refused by is_moderate
            blocks, links = self._scaled(rho)
        if not blocks or not all(is_moderate(*item) for item in [*blocks, *links]):
            return False
        return proves_positive_semidefinite(
            [block for block, _ in blocks],
            [link for link, _ in links],
            [error for _, error in blocks],
            [error for _, error in links],
        )

    def _scaled(self, rho: float) -> tuple[list[_Bounded], list[_Bounded]]:
        """Return diagonal blocks and links with error bounds; none if ρ is surely too small."""
        base = self._base[-1]
        scales = diagonal_scales(base - self._output.diagonal / rho)
        if scales is None:
            return [], []
        blocks = [*self._blocks, self._output.subtracted_from(base, scales, rho)]
        links = list(self._links)
        if len(blocks) > 1:
            links.append(self._link(len(blocks) - 2, self._scales[-1], scales))
        return blocks, links


def checked_terms(
    chain: BlockChain, multipliers: Diagonals
) -> tuple[list[np.ndarray], list[Weight]]:
    """Return the diagonals 1, T_1 … T_L and the scaled weights W_0 … W_{L−1}.

    Raises
    ------
    InputError
        If the multipliers do not fit the chain, are negative, not finite or out of range.
    """
    hidden = len(chain.blocks) - 1
    if len(multipliers.values) != hidden or len(multipliers.shifts) != hidden:
        raise InputError(f"multipliers must be given for {hidden} hidden layers")
    if any(abs(shift) > LARGEST_SHIFT for shift in multipliers.shifts):
        raise InputError(f"shifts must lie within ±{LARGEST_SHIFT}")
    base = [np.ones(chain.blocks[0].matrix.shape[1])]
    base += [_vector(item, n) for item, n in zip(multipliers.values, chain.hidden_dims)]
    weights = [shifted_weight(*item) for item in zip(chain.blocks, multipliers.shifts)]
    return base, weights


@dataclass(frozen=True)
class Weight:
    """A block's matrix times 2**shift, with a bound on its error entry by entry.

    Parameters
    ----------
    matrix : ndarray or csr_array of shape (out, in)
    error : ndarray or csr_array of shape (out, in) or None
    shift : int
    """

    matrix: Any
    error: Any
    shift: int

    def underflow(self, row: np.ndarray, column: np.ndarray) -> float:
        """Bound the norm of what underflowed in matrix and product; ``inf`` beyond the limits."""
        factor = float(np.max(np.abs(row), initial=0.0) * np.max(column, initial=0.0))
        within = factor * math.ldexp(1.0, max(self.shift, 0)) <= _LARGEST_FACTOR
        return UNDERFLOW if within else math.inf


def shifted_weight(block: Block, shift: int) -> Weight:
    """Return a block, dense or sparse, times 2**shift."""
    error = None if block.error is None else scaled(block.error, shift)
    return Weight(scaled(block.matrix, shift), error, shift)


class _Half:
    """Half of the term WᵀPTW: H = √|P|T W, with H ᵀsign(P)H the term."""

    def __init__(
        self, weight: Weight, alpha: np.ndarray, beta: np.ndarray, values: np.ndarray
    ) -> None:
        product = alpha * beta * values
        self._present = bool(np.any(product))
        self._weight = weight
        self._signs = np.sign(product)[:, None]
        self._roots = np.sqrt(np.abs(product))[:, None]
        self._matrix = self._roots * weight.matrix if self._present else weight.matrix

    def diagonal(self, base: np.ndarray) -> np.ndarray:
        """Return the diagonal of diag(base) plus the term, roughly."""
        if not self._present:
            return base
        return base + np.sum(self._signs * self._matrix * self._matrix, axis=0)

    def added_to(self, base: np.ndarray, scales: np.ndarray) -> _Bounded:
        """Return diag(base) plus the term, scaled, and a bound on its error."""
        block = np.diag(np.ldexp(base, 2 * scales))
        if not self._present:
            return block, 0.0
        column = np.ldexp(1.0, scales)[None, :]
        half = self._matrix * column
        term = half.T @ (self._signs * half)
        block = block + 0.5 * (term + term.T)
        size = absolute_norm_squared(half)
        lost = self._weight.underflow(self._roots, column)
        if self._weight.error is not None:
            lost += math.sqrt(absolute_norm_squared(self._roots * self._weight.error * column))
        error = gamma(len(half) + 12) * size + (2.0 * math.sqrt(size) + lost) * lost
        error += 2.0 * UNIT * float(np.max(np.abs(np.diag(block)), initial=0.0))
        return block, inflate(error)


class _OutputGram:
    """W_LᵀW_L, computed once with columns scaled to order one."""

    def __init__(self, block: Block) -> None:
        self._columns = np.frexp(np.max(np.abs(block.matrix), axis=0))[1]
        self._columns = np.maximum(self._columns, -60)  # what underflowed stays below TINY
        error = 0.0
        if block.error is not None:
            error = math.sqrt(absolute_norm_squared(np.ldexp(block.error, -self._columns)))
        self._gram, self._error = gram(np.ldexp(block.matrix, -self._columns).T, error)

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of W_LᵀW_L, roughly."""
        return np.ldexp(np.diag(self._gram), 2 * self._columns)

    def subtracted_from(self, base: np.ndarray, scales: np.ndarray, rho: float) -> _Bounded:
        """Return diag(base) − W_LᵀW_L/ρ, scaled, and a bound on its error."""
        factors = np.ldexp(1.0, scales + self._columns)
        output = factors[:, None] * self._gram * factors[None, :] / rho
        block = np.diag(np.ldexp(base, 2 * scales)) - output
        largest = float(np.max(factors, initial=0.0))
        error = gamma(3) * math.sqrt(absolute_norm_squared(output))
        error += 2.0 * UNIT * float(np.max(np.abs(np.diag(block)), initial=0.0))
        error += self._error * (largest * largest / rho) + UNDERFLOW
        return block, inflate(error)


def diagonal_scales(diagonal: np.ndarray) -> np.ndarray | None:
    """Return exponents s with 4**s · diagonal in [½, 2), or None if an entry is not positive."""
    if not (np.all(diagonal > 0.0) and np.all(np.isfinite(diagonal))):
        return None
    scales = -(np.frexp(diagonal)[1] // 2)
    return scales if np.all(np.abs(scales) <= LARGEST_SHIFT) else None


def is_moderate(matrix: np.ndarray, error: float) -> bool:
    """Tell whether entries and error are finite and within the limits of the error analysis."""
    return error <= _LARGEST_ENTRY and bool(np.all(np.abs(matrix) <= _LARGEST_ENTRY))


def _vector(values: np.ndarray, size: int) -> np.ndarray:
    """Return multipliers as a vector, refusing negative and extreme ones."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape not in ((), (size,)):
        raise InputError(f"multipliers must be one number or {size}, got shape {vector.shape}")
    if not np.all(np.isfinite(vector)) or np.any(vector < 0):
        raise InputError("multipliers must be finite and >= 0")
    extremes = (vector > 2.0**_LARGEST_MULTIPLIER) | (vector < 2.0**-_LARGEST_MULTIPLIER)
    if np.any(extremes & (vector != 0)):
        raise InputError(f"multipliers other than 0 must lie in 2**±{_LARGEST_MULTIPLIER}")
    return np.broadcast_to(vector, (size,))
