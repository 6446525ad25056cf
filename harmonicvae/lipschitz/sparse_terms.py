"""Terms of a sparse inequality: scaled matrices with bounds on all that was rounded off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import block_array, csr_array, diags_array

from harmonicvae.lipschitz.lmi_matrix import Weight
from harmonicvae.matrices import columns_times, rows_times
from harmonicvae.rounding import absolute_norm_squared, gamma, inflate

# Blocks on and below the diagonal, by their place.
Blocks = dict[tuple[int, int], Any]


@dataclass(frozen=True, eq=False)
class Term:
    """A sparse matrix and bounds: on the norm of its error, and of what its sums rounded off."""

    matrix: csr_array
    error: float
    size: float = 0.0


class Lift:
    """A term HᵀSH / ρ, H = RWC with W a weight and R, S, C diagonal."""

    def __init__(
        self,
        weight: Weight,
        roots: np.ndarray,
        signs: np.ndarray,
        divisor: float = 1.0,
        columns: np.ndarray | None = None,
    ) -> None:
        self._weight = weight
        self._roots = roots
        self._signs = signs
        self._divisor = divisor
        self._columns = np.ones(weight.matrix.shape[1]) if columns is None else columns

    @classmethod
    def transposed(cls, weight: Weight, rows: np.ndarray) -> Lift:
        """Return the term RWWᵀR."""
        error = None if weight.error is None else csr_array(weight.error.T)
        turned = Weight(csr_array(weight.matrix.T), error, weight.shift)
        ones = np.ones(weight.matrix.shape[1])
        return cls(turned, ones, ones, columns=rows)

    @property
    def diagonal(self) -> np.ndarray:
        """The term's diagonal, roughly."""
        half = columns_times(rows_times(self._roots, self._weight.matrix), self._columns)
        return np.asarray((half * half).T @ self._signs) / self._divisor

    def term(self, scales: np.ndarray) -> Term:
        """Return the term with rows and columns times 2**scales."""
        half = sided(self._weight, self._roots, np.ldexp(self._columns, scales))
        matrix = half.matrix.T @ rows_times(self._signs, half.matrix)
        count = int(np.max(np.bincount(half.matrix.indices), initial=0))
        size = absolute_norm_squared(half.matrix)
        error = gamma(count + 6) * size + (2.0 * math.sqrt(size) + half.error) * half.error
        matrix = csr_array(0.5 * (matrix + matrix.T)) / self._divisor
        return Term(csr_array(matrix), error / self._divisor, size / self._divisor)


def summed(base: np.ndarray, own: Sequence[tuple[Lift, float]], scales: np.ndarray) -> Term:
    """Return diag(base) plus signed terms, and a bound on its error."""
    matrix = csr_array(diags_array(base))
    error, size = 0.0, float(np.max(base, initial=0.0))
    for lift, sign in own:
        term = lift.term(scales)
        matrix = matrix + sign * term.matrix
        error += term.error
        size += term.size
    if own:
        error += gamma(len(own) + 4) * size
    return Term(csr_array(matrix), inflate(error))


def sided(weight: Weight, row: np.ndarray, column: np.ndarray) -> Term:
    """Return diag(row) · W · diag(column) and a bound on its error.

    Covers three roundings in the entries of ``row`` and ``column`` together.
    """
    matrix = columns_times(rows_times(row, weight.matrix), column)
    error = gamma(5) * math.sqrt(absolute_norm_squared(matrix))
    error += weight.underflow(row, np.abs(column))
    if weight.error is not None:
        lost = columns_times(rows_times(np.abs(row), weight.error), np.abs(column))
        error += math.sqrt(absolute_norm_squared(lost))
    return Term(matrix, inflate(error))


def joined(blocks: Blocks) -> csr_array:
    """Return the symmetric matrix of blocks on and below the diagonal."""
    keys = sorted({i for key in blocks for i in key})
    rows: list[list[Any]] = [[None] * len(keys) for _ in keys]
    for (i, j), block in blocks.items():
        row, column = keys.index(i), keys.index(j)
        rows[row][column] = block
        rows[column][row] = block.T if row != column else block
    return csr_array(block_array(rows))


def norm_of_sums(errors: dict[tuple[int, int], float]) -> float:
    """Return the largest sum of a row of blocks, of which those above the diagonal are alike."""
    sums: dict[int, float] = {}
    for (i, j), error in errors.items():
        for key in {i, j}:
            sums[key] = sums.get(key, 0.0) + error
    return inflate(max(sums.values()))
