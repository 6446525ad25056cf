"""Sparse symmetric matrices as a chain of dense blocks with a border: factors and proofs.

Convolutions couple neighbouring pixels only. Rows that are ordered along the image fall into
blocks that couple to the next block and the one before; the few rows that couple to
everything, such as those of a linear layer, are put last, as a border. The factor of such a
matrix fills nothing but its blocks, so that its cost grows with the number of blocks times
the cube of their size, not with the cube of the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.rounding import TINY, UNIT, inflate, residual_norm

#: Blocks are at least this large, so that a narrow band does not fall into countless blocks.
_SMALLEST_BLOCK = 96
#: Rows with entries in more than one of these shares of all columns are tried as border.
_BORDER_SHARES = (math.inf, 0.3, 0.1, 0.03, 0.01)
#: Multiplications of a proof, and bytes of a factor, beyond which none is tried.
_MOST_OPERATIONS = 4e12
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True, eq=False)
class ArrowForm:
    """An order of the rows of a sparse symmetric matrix, cut into blocks and a border.

    Parameters
    ----------
    order : ndarray of int of shape (n,)
        Row that comes first, second, …; those of the border last.
    ends : tuple of int
        Where each block ends; the border begins at the last of them, or at 0 if there is none.

    Examples
    --------
    >>> band = csr_array(np.eye(300) + np.eye(300, k=1) + np.eye(300, k=-1))
    >>> form = ArrowForm.of(band)
    >>> np.diff([0, *form.ends]).tolist(), form.border
    ([96, 96, 96, 12], 0)
    """

    order: np.ndarray
    ends: tuple[int, ...]

    @classmethod
    def of(cls, matrix: csr_array) -> ArrowForm:
        """Find an order in which a factorisation takes few operations.

        Notes
        -----
        Reverse Cuthill–McKee of the rows outside the border; each block ends where the last
        neighbour of the block before lies. Of several borders the cheapest is taken. Cost
        O(entries) for each.
        """
        entries = np.diff(matrix.indptr)
        forms, seen = [], set()
        for share in _BORDER_SHARES:
            outside = entries <= share * len(entries)
            count = int(np.sum(outside))
            if count not in seen:
                seen.add(count)
                forms.append(cls._with_border(matrix, outside))
        return min(forms, key=lambda form: form.operations)

    @classmethod
    def _with_border(cls, matrix: csr_array, outside: np.ndarray) -> ArrowForm:
        """Order the rows outside a border that is given."""
        rows = np.flatnonzero(outside)
        if not len(rows):
            return cls(np.arange(len(outside)), ())
        inner = csr_array(matrix[rows][:, rows])
        order = np.asarray(reverse_cuthill_mckee(csr_matrix(inner), symmetric_mode=True))
        orders = [order, order[::-1]]
        forms = [
            cls(np.concatenate([rows[item], np.flatnonzero(~outside)]), _ends(inner, item))
            for item in orders
        ]
        return min(forms, key=lambda form: form.operations)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each block."""
        return tuple(end - start for start, end in pairwise([0, *self.ends]))

    @property
    def border(self) -> int:
        """Rows of the border."""
        return len(self.order) - (self.ends[-1] if self.ends else 0)

    @property
    def operations(self) -> float:
        """Multiplications of a proof, roughly: of the factor and of its residual."""
        border, total, before = float(self.border), 0.0, 0.0
        for size in map(float, self.sizes):
            total += 1.2 * size**3 + 2.0 * size * size * before + 1.5 * size * before * before
            total += border * size * (2.0 * before + 1.5 * size + 2.0 * border)
            before = size
        return total + 1.2 * border**3

    @property
    def bytes(self) -> float:
        """Bytes of a factor that is kept."""
        pairs = pairwise([0, *self.sizes])
        inner = sum(size * (size + before + self.border) for before, size in pairs)
        return 8.0 * (inner + self.border**2)

    @property
    def is_affordable(self) -> bool:
        """True if a factorisation is short enough, and small enough in memory."""
        return self.operations <= _MOST_OPERATIONS and self.bytes <= _MOST_BYTES


def _ends(matrix: csr_array, order: np.ndarray) -> tuple[int, ...]:
    """Return where blocks end, so that entries lie in neighbouring blocks at most."""
    size = len(order)
    place = np.empty(size, dtype=np.int64)
    place[order] = np.arange(size)
    entries = matrix.tocoo()
    reach = np.arange(size)
    np.maximum.at(reach, place[entries.row], place[entries.col])
    reach = np.maximum.accumulate(reach)
    ends = [min(size, _SMALLEST_BLOCK)]
    while ends[-1] < size:
        ends.append(min(size, max(int(reach[ends[-1] - 1]) + 1, ends[-1] + _SMALLEST_BLOCK)))
    return tuple(ends)


@dataclass(frozen=True, eq=False)
class ArrowMatrix:
    """A sparse symmetric matrix in its arrow form.

    Parameters
    ----------
    matrix : csr_array of shape (n, n)
        Symmetric, in float64.
    form : ArrowForm
        Of this matrix or of one with at least its entries.

    Raises
    ------
    InputError
        If an entry lies outside the form.
    """

    matrix: csr_array
    form: ArrowForm

    @classmethod
    def of(cls, matrix: csr_array) -> ArrowMatrix:
        """Bring a matrix into its form."""
        return cls(matrix, ArrowForm.of(matrix))

    def __post_init__(self) -> None:
        entries = self._ordered.tocoo()
        border = len(self.form.ends)
        blocks = np.searchsorted(self.form.ends, np.arange(len(self.form.order)), side="right")
        row, column = blocks[entries.row], blocks[entries.col]
        if np.any((abs(row - column) > 1) & (row < border) & (column < border)):
            raise InputError("an entry of the matrix lies outside its blocks")

    @cached_property
    def _ordered(self) -> csr_array:
        """The matrix with rows and columns in order."""
        return csr_array(self.matrix[self.form.order][:, self.form.order])

    @property
    def largest(self) -> float:
        """Largest magnitude of a diagonal entry."""
        return float(np.max(np.abs(self.matrix.diagonal()), initial=0.0))

    def rows(self, k: int) -> slice:
        """Return the rows of block k, of the border for k = number of blocks."""
        starts = [0, *self.form.ends, len(self.form.order)]
        return slice(starts[k], starts[k + 1])

    def block(self, i: int, j: int) -> np.ndarray:
        """Return block (i, j) as a dense array."""
        return np.asarray(self._ordered[self.rows(i), self.rows(j)].toarray())


@dataclass(frozen=True, eq=False)
class _Step:
    """What the factorisation of one block needed and found.

    The block minus the shift, the blocks left of it and below it in the border; the factor's
    blocks in the same places.
    """

    shifted: np.ndarray
    left: np.ndarray
    edge: np.ndarray
    link: np.ndarray
    factor: np.ndarray
    border: np.ndarray


def _steps(matrix: ArrowMatrix, shift: float) -> Iterator[_Step]:
    """Factorise A − shift·I block by block; the border comes last, as a block of its own.

    Raises
    ------
    LinAlgError
        Where the factorisation breaks down.
    """
    last = len(matrix.form.ends)
    factor: Any = np.zeros((0, 0))
    border: Any = np.zeros((matrix.form.border, 0))
    done = [border]
    for k in range(last):
        block, edge = matrix.block(k, k), matrix.block(last, k)
        block[np.diag_indices_from(block)] -= shift
        left = matrix.block(k, k - 1) if k else np.zeros((len(block), 0))
        link = _right_solve(factor, left)
        border = edge - border @ link.T if k else edge
        factor = np.linalg.cholesky(block - link @ link.T if k else block)
        border = _right_solve(factor, border)
        done.append(border)
        yield _Step(block, left, edge, link, factor, border)
    corner = matrix.block(last, last)
    corner[np.diag_indices_from(corner)] -= shift
    whole = np.hstack(done)
    factor = np.linalg.cholesky(corner - whole @ whole.T)
    nothing = np.zeros((len(corner), 0))
    yield _Step(corner, nothing, nothing, whole, factor, nothing)


def _right_solve(factor: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return B L⁻ᵀ."""
    if 0 in block.shape:
        return block
    return np.asarray(solve_triangular(factor, block.T, lower=True, check_finite=False)).T


def proves_sparse_semidefinite(matrix: ArrowMatrix, error: float = 0.0) -> bool:
    """Prove that a sparse symmetric matrix is positive semidefinite.

    Parameters
    ----------
    matrix : ArrowMatrix
        In float64, entries of order one.
    error : float, default=0.0
        Bound on the spectral norm of (true matrix − given matrix).

    Returns
    -------
    bool
        True is a proof, for every symmetric matrix within the error, rounding errors
        included. False says nothing.

    Notes
    -----
    As in :func:`harmonicvae.rounding.proves_positive_semidefinite`: with any computed L of
    the blocks' pattern and c at least the norm of A − c·I − LLᵀ plus the error,
    A ⪰ LLᵀ ⪰ 0. The residual is evaluated in float64 with its rounding error bounded, block
    by block; its norm is at most the largest sum of norms in a row of blocks, plus the root
    of the sum of squared norms of the border's blocks. Cost about
    :attr:`ArrowForm.operations`, a few blocks of memory.

    Examples
    --------
    >>> band = csr_array(2.0 * np.eye(3) - np.eye(3, k=1) - np.eye(3, k=-1))
    >>> proves_sparse_semidefinite(ArrowMatrix.of(band))
    True
    >>> proves_sparse_semidefinite(ArrowMatrix.of(csr_array(band - 0.6 * np.eye(3))))
    False
    """
    if not matrix.form.is_affordable:
        return False
    widest = max([*matrix.form.sizes, matrix.form.border])
    shift = 1.00001 * error + 16.0 * (widest + 8) * UNIT * matrix.largest + TINY
    for _ in range(4):
        try:
            needed = inflate(_residual(matrix, shift) + error)
        except np.linalg.LinAlgError:
            return False
        if not math.isfinite(needed):
            return False
        if shift >= needed:
            return True
        shift = max(shift, 1.5 * needed)
    return False


def _residual(matrix: ArrowMatrix, shift: float) -> float:
    """Return a bound on ‖A − shift·I − LLᵀ‖₂, the rounding of the shift included."""
    sums: list[float] = []
    squares, corner = 0.0, 0.0
    before: _Step | None = None
    for step in _steps(matrix, shift):
        own = residual_norm(step.shifted, [(step.link, step.link), (step.factor, step.factor)])
        own += 2.0 * UNIT * float(np.max(np.abs(np.diag(step.shifted)), initial=0.0))
        if len(sums) == len(matrix.form.ends):
            corner = own
            break
        if before is not None:
            left = residual_norm(step.left, [(step.link, before.factor)])
            sums[-1] += left
            own += left
        sums.append(own)
        if matrix.form.border:
            products = [(step.border, step.factor)]
            if before is not None:
                products.append((before.border, step.link))
            squares += residual_norm(step.edge, products) ** 2
        before = step
    return max([corner, *sums]) + math.sqrt(squares)


@dataclass(frozen=True, eq=False)
class ArrowFactor:
    """L with LLᵀ = A, in float64, rows in the form's order; nothing is proved.

    Parameters
    ----------
    form : ArrowForm
    links, factors, borders : tuple of ndarray
        Blocks of L left of the diagonal, on it and in the border.
    corner : ndarray
        The border's own factor.
    """

    form: ArrowForm
    links: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray, ...]
    borders: tuple[np.ndarray, ...]
    corner: np.ndarray

    @classmethod
    def of(cls, matrix: ArrowMatrix) -> ArrowFactor:
        """Factorise a matrix.

        Raises
        ------
        SolverError
            If it is too large, or not positive definite in float64.
        """
        if not matrix.form.is_affordable:
            raise SolverError(
                f"a factor of {len(matrix.form.order)} rows would take "
                f"{matrix.form.operations:.1e} multiplications and {matrix.form.bytes:.1e} bytes"
            )
        parts = []
        try:
            for step in _steps(matrix, 0.0):
                parts.append((step.link, step.factor, step.border))
        except np.linalg.LinAlgError as error:
            raise SolverError(f"the factorisation broke down: {error}") from error
        _, corner, _ = parts.pop()
        links, factors, borders = zip(*parts) if parts else ((), (), ())
        return cls(matrix.form, links, factors, borders, corner)

    def half(self, columns: np.ndarray) -> np.ndarray:
        """Return L⁻¹B, its rows in the form's order.

        Parameters
        ----------
        columns : ndarray of shape (n, k)
            B.
        """
        rest = np.array(columns[self.form.order], dtype=np.float64)
        start = len(rest) - self.form.border
        for k, rows in enumerate(self._rows()):
            if k:
                rest[rows] -= self.links[k] @ rest[self._rows()[k - 1]]
            rest[rows] = _solve(self.factors[k], rest[rows])
            rest[start:] -= self.borders[k] @ rest[rows]
        rest[start:] = _solve(self.corner, rest[start:])
        return rest

    def solve(self, columns: np.ndarray) -> np.ndarray:
        """Return A⁻¹B for B of shape (n, k)."""
        rest = self.half(columns)
        start = len(rest) - self.form.border
        rest[start:] = _solve(self.corner, rest[start:], transposed=True)
        rows = self._rows()
        for k in reversed(range(len(rows))):
            rest[rows[k]] -= self.borders[k].T @ rest[start:]
            if k + 1 < len(rows):
                rest[rows[k]] -= self.links[k + 1].T @ rest[rows[k + 1]]
            rest[rows[k]] = _solve(self.factors[k], rest[rows[k]], transposed=True)
        result = np.empty_like(rest)
        result[self.form.order] = rest
        return result

    def _rows(self) -> list[slice]:
        """Return the rows of each block."""
        return [slice(start, end) for start, end in pairwise([0, *self.form.ends])]


def _solve(factor: np.ndarray, columns: np.ndarray, transposed: bool = False) -> Any:
    """Return L⁻¹B or L⁻ᵀB."""
    if len(factor) == 0:
        return columns
    return solve_triangular(factor, columns, lower=True, trans=int(transposed), check_finite=False)
