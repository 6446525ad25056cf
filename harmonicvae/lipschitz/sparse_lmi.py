"""The LipSDP inequality of networks with sparse matrices, as one sparse matrix.

The matrix of :mod:`harmonicvae.lipschitz.lmi` couples a neuron to those of the layers beside
it only. Ordered by place in the image instead of by layer, the neurons of all layers fall into
narrow blocks (:mod:`harmonicvae.arrow_matrices`), and the inequality of a convolutional network
is proved, exactly as it stands, at the cost of a band.

Inputs and outputs enter by their Gram matrices, as in the dense form, or, where that couples
more, as rows of their own: I or ρI on the diagonal and the links −M_1T_1W_0 or W_L beside it,
whose Schur complement is the same inequality. A code of 64 numbers then is a border of 64 rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import block_array, csr_array, diags_array, eye_array
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from harmonicvae.arrow_matrices import (
    ArrowFactor,
    ArrowForm,
    ArrowMatrix,
    proves_sparse_semidefinite,
)
from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.chain import Block, BlockChain
from harmonicvae.lipschitz.lmi_matrix import (
    LARGEST_SHIFT,
    Diagonals,
    Weight,
    checked_terms,
    diagonal_scales,
    is_moderate,
    shifted_weight,
)
from harmonicvae.matrices import columns_times, is_sparse, rows_times
from harmonicvae.rounding import absolute_norm_squared, gamma, inflate

#: Dense blocks with fewer rows in all, or a larger share of entries ≠ 0, are not taken for sparse.
_SPARSE_ROWS, _SPARSE_SHARE = 1500, 0.05
#: Products of entries beyond which a Gram matrix is not formed.
_MOST_PRODUCTS = 1e8
#: Up to this many outputs the largest eigenvalue is computed densely.
_DENSE_SIZE = 256


def sparse_form(chain: BlockChain) -> BlockChain | None:
    """Return a chain with all matrices sparse, None where dense ones serve it better.

    Parameters
    ----------
    chain : BlockChain
        Dense and sparse blocks.

    Returns
    -------
    BlockChain or None
        None if all blocks are dense and the chain is small, or its matrices are full, or a
        block is a product of layers.

    Examples
    --------
    >>> from harmonicvae.lipschitz.chain import build_chain
    >>> from harmonicvae.network import LayeredNetwork
    >>> small = [csr_array(np.eye(2)), csr_array(np.eye(2))]
    >>> network = LayeredNetwork.from_arrays(small, activation="relu")
    >>> sparse_form(build_chain(network)) is None
    False
    >>> network = LayeredNetwork.from_arrays([np.eye(2), np.eye(2)], activation="relu")
    >>> sparse_form(build_chain(network)) is None
    True
    """
    if not any(is_sparse(block.matrix) for block in chain.blocks):
        entries = sum(np.count_nonzero(block.matrix) for block in chain.blocks)
        rows = sum(len(block.matrix) for block in chain.blocks)
        size = sum(block.matrix.size for block in chain.blocks)
        products = any(block.error is not None for block in chain.blocks)
        if rows <= _SPARSE_ROWS or products or entries > _SPARSE_SHARE * size:
            return None
    return replace(chain, blocks=tuple(map(_sparse_block, chain.blocks)))


def _sparse_block(block: Block) -> Block:
    error = None if block.error is None else csr_array(block.error)
    return replace(block, matrix=csr_array(block.matrix), error=error)


@dataclass(frozen=True, eq=False)
class _Term:
    """A sparse matrix and bounds: on the norm of its error, and of what its sums rounded off."""

    matrix: csr_array
    error: float
    size: float = 0.0


@dataclass(frozen=True, eq=False)
class _Assembled:
    """The scaled matrix, the bound on its error, and the scales of the last hidden layer."""

    matrix: csr_array
    error: float
    last: slice
    scales: np.ndarray


class SparseLmi:
    """The matrix of the inequality as one sparse matrix, with a bound on all rounding errors.

    Parameters
    ----------
    chain : BlockChain
        With sparse matrices, as from :func:`sparse_form`.
    multipliers : Diagonals
        Any; nothing about them is trusted.

    Raises
    ------
    InputError
        If the multipliers do not fit the chain, are negative, not finite or out of range.

    Notes
    -----
    Rows are scaled by powers of two as in
    :class:`harmonicvae.lipschitz.lmi_matrix.LmiMatrix`. Whether inputs and outputs are rows of
    their own is decided by the operations that a factorisation takes. For a convolutional VAE
    of 64 × 64 × 3 pixels with 14,336 hidden neurons (channels 8, 16, 32, kernel 3, stride 2,
    code 64) the blocks have at most 1,752 rows, Σ n³ = 2.2·10¹⁰: 2·10¹¹ operations a proof and
    0.3 GB a factor, where the layers' dense blocks would take Σ n³ = 6·10¹¹ and 1.2 GB. Both
    grow with the pixels squared and to the power 3/2.
    """

    def __init__(self, chain: BlockChain, multipliers: Diagonals) -> None:
        self._chain = chain
        self._base, self._weights = checked_terms(chain, multipliers)
        self._slopes = list(zip(chain.alphas, chain.betas))

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
        Cost Σ n³ over the blocks of the ordered matrix, times about 10.
        """
        if not 2.0**-LARGEST_SHIFT <= rho <= 2.0**LARGEST_SHIFT:
            return False
        with np.errstate(all="ignore"):  # what overflows is refused by is_moderate
            whole = self._assembled(rho)
        if whole is None or not is_moderate(whole.matrix.data, whole.error):
            return False
        return proves_sparse_semidefinite(ArrowMatrix.of(whole.matrix), whole.error)

    def gain(self) -> float:
        """Compute λmax(W_L X⁻¹W_Lᵀ), X the last block's Schur complement; not proved.

        Returns
        -------
        float
            The smallest ρ that the multipliers allow, to about 1e-9.

        Raises
        ------
        SolverError
            If a block breaks down or the factor is too large.

        Notes
        -----
        The factor of the matrix without outputs, and a Lanczos iteration with it.
        """
        whole = self._assembled(None)
        if whole is None:
            raise SolverError("the layer recursion broke down: a diagonal entry is not positive")
        factor = ArrowFactor.of(ArrowMatrix.of(whole.matrix))
        size = whole.matrix.shape[0]
        outputs = csr_array(columns_times(self._output.matrix, np.ldexp(1.0, whole.scales)))

        def padded(columns: Any) -> np.ndarray:
            full = np.zeros((size, columns.shape[1]))
            full[whole.last] = outputs.T @ columns
            return full

        if outputs.shape[0] <= _DENSE_SIZE:
            half = factor.half(padded(np.eye(outputs.shape[0])))
            return _positive(np.linalg.eigvalsh(half.T @ half)[-1])

        def applied(vector: np.ndarray) -> np.ndarray:
            return outputs @ factor.solve(padded(vector.reshape(-1, 1)))[whole.last, 0]

        return largest_eigenvalue(applied, outputs.shape[0])

    @property
    def _output(self) -> Weight:
        """W_L."""
        return shifted_weight(self._chain.blocks[-1], 0)

    @cached_property
    def _signed(self) -> list[bool]:
        """Whether a hidden layer has slopes of both signs or above 0, so that P ≠ 0."""
        return [
            bool(np.any(low * high * own)) for (low, high), own in zip(self._slopes, self._base[1:])
        ]

    def _own_rows(self, with_output: bool) -> tuple[bool, bool]:
        """Decide whether inputs and outputs are rows of their own."""
        first = [True]
        if self._weights and not self._signed[0]:
            first = [True, False] if _products(self._weights[0].matrix.T) else [True]
        last = [False]
        if with_output:
            last = [True, False] if _products(self._output.matrix) else [True]
        choices = [(a, b) for a in first for b in last]
        if len(choices) == 1:
            return choices[0]
        return min(choices, key=lambda choice: self._form(*choice, with_output).operations)

    def _form(self, inputs: bool, outputs: bool, with_output: bool) -> ArrowForm:
        """Return the form that the matrix would have."""
        ones = [_pattern(weight.matrix) for weight in [*self._weights, self._output]]
        blocks: dict[tuple[int, int], Any] = {}
        for i, base in enumerate(self._base):
            blocks[i, i] = eye_array(len(base), format="csr")
        for i, present in enumerate(self._signed):
            blocks[i + 1, i] = ones[i]
            if present:
                blocks[i, i] = blocks[i, i] + ones[i].T @ ones[i]
        last = len(self._base) - 1
        if outputs:
            blocks[last + 1, last] = ones[-1]
            blocks[last + 1, last + 1] = eye_array(ones[-1].shape[0], format="csr")
        elif with_output:
            blocks[last, last] = blocks[last, last] + ones[-1].T @ ones[-1]
        if not inputs:
            blocks[1, 1] = blocks[1, 1] + ones[0] @ ones[0].T
            blocks = {key: item for key, item in blocks.items() if 0 not in key}
        return ArrowForm.of(_joined(blocks))

    def _assembled(self, rho: float | None) -> _Assembled | None:
        """Return the scaled matrix, without outputs if ρ is None; None if surely not definite."""
        inputs, outputs = self._own_rows(rho is not None)
        lifts = self._lifts(inputs, rho if not outputs else None)
        scales: list[np.ndarray] = []
        for base, own in zip(self._base, lifts):
            diagonal = base + sum((sign * lift.diagonal for lift, sign in own), np.zeros(1))
            found = diagonal_scales(diagonal)
            if found is None:
                return None
            scales.append(found)
        if not inputs:
            scales[0] = np.zeros_like(scales[0])
        blocks: dict[tuple[int, int], csr_array] = {}
        errors: dict[tuple[int, int], float] = {}
        for i, base in enumerate(self._base):
            term = _sum(np.ldexp(base, 2 * scales[i]), own=lifts[i], scales=scales[i])
            blocks[i, i], errors[i, i] = term.matrix, term.error
        for i in range(len(self._weights)):
            row = np.ldexp(self._middle(i), scales[i + 1])
            term = _sided(self._weights[i], -row, np.ldexp(1.0, scales[i]))
            blocks[i + 1, i], errors[i + 1, i] = term.matrix, term.error
        if outputs and rho is not None:
            ends = np.full(self._output.matrix.shape[0], rho)
            own = -(math.frexp(rho)[1] // 2)
            last = len(self._base)
            row = np.full(len(ends), math.ldexp(1.0, own))
            term = _sided(self._output, row, np.ldexp(1.0, scales[-1]))
            blocks[last, last - 1], errors[last, last - 1] = term.matrix, term.error
            blocks[last, last] = csr_array(diags_array(np.ldexp(ends, 2 * own)))
        if not inputs:
            blocks = {key: item for key, item in blocks.items() if 0 not in key}
            errors = {key: item for key, item in errors.items() if 0 not in key}
        start = sum(map(len, self._base[0 if inputs else 1 : -1]))
        where = slice(start, start + len(self._base[-1]))
        return _Assembled(_joined(blocks), _norm_of_sums(errors), where, scales[-1])

    def _middle(self, i: int) -> np.ndarray:
        """Return the diagonal of M T of hidden layer i, counted from 0."""
        low, high = self._slopes[i]
        return 0.5 * (low + high) * self._base[i + 1]

    def _lifts(self, inputs: bool, rho: float | None) -> list[list[tuple[_Lift, float]]]:
        """Return for every layer the terms HᵀSH that are added to its diagonal matrix."""
        lifts: list[list[tuple[_Lift, float]]] = [[] for _ in self._base]
        for i, ((low, high), weight) in enumerate(zip(self._slopes, self._weights)):
            if self._signed[i]:
                product = low * high * self._base[i + 1]
                lifts[i].append((_Lift(weight, np.sqrt(np.abs(product)), np.sign(product)), 1.0))
        if not inputs:
            lifts[1].append((_Lift.transposed(self._weights[0], self._middle(0)), -1.0))
        if rho is not None:
            ones = np.ones(self._output.matrix.shape[0])
            lifts[-1].append((_Lift(self._output, ones, ones, rho), -1.0))
        return lifts


class _Lift:
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
    def transposed(cls, weight: Weight, rows: np.ndarray) -> _Lift:
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

    def term(self, scales: np.ndarray) -> _Term:
        """Return the term with rows and columns times 2**scales."""
        half = _sided(self._weight, self._roots, np.ldexp(self._columns, scales))
        matrix = half.matrix.T @ rows_times(self._signs, half.matrix)
        count = int(np.max(np.bincount(half.matrix.indices), initial=0))
        size = absolute_norm_squared(half.matrix)
        error = gamma(count + 6) * size + (2.0 * math.sqrt(size) + half.error) * half.error
        matrix = csr_array(0.5 * (matrix + matrix.T)) / self._divisor
        return _Term(csr_array(matrix), error / self._divisor, size / self._divisor)


def _sum(base: np.ndarray, own: Sequence[tuple[_Lift, float]], scales: np.ndarray) -> _Term:
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
    return _Term(csr_array(matrix), inflate(error))


def _sided(weight: Weight, row: np.ndarray, column: np.ndarray) -> _Term:
    """Return diag(row) · W · diag(column) and a bound on its error.

    Covers three roundings in the entries of ``row`` and ``column`` together.
    """
    matrix = columns_times(rows_times(row, weight.matrix), column)
    error = gamma(5) * math.sqrt(absolute_norm_squared(matrix))
    error += weight.underflow(row, np.abs(column))
    if weight.error is not None:
        lost = columns_times(rows_times(np.abs(row), weight.error), np.abs(column))
        error += math.sqrt(absolute_norm_squared(lost))
    return _Term(matrix, inflate(error))


def _products(matrix: csr_array) -> bool:
    """Tell whether MᵀM is cheap enough to be formed."""
    entries = np.diff(csr_array(matrix).indptr).astype(np.float64)
    return bool(np.sum(entries * entries) <= _MOST_PRODUCTS)


def _pattern(matrix: csr_array) -> csr_array:
    """Return ones where a matrix has entries."""
    ones = np.ones(len(matrix.data))
    return csr_array((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def _joined(blocks: dict[tuple[int, int], csr_array]) -> csr_array:
    """Return the symmetric matrix of blocks on and below the diagonal."""
    keys = sorted({i for key in blocks for i in key})
    rows: list[list[Any]] = [[None] * len(keys) for _ in keys]
    for (i, j), block in blocks.items():
        row, column = keys.index(i), keys.index(j)
        rows[row][column] = block
        rows[column][row] = block.T if row != column else block
    return csr_array(block_array(rows))


def _norm_of_sums(errors: dict[tuple[int, int], float]) -> float:
    """Return the largest sum of a row of blocks, of which those above the diagonal are alike."""
    sums: dict[int, float] = {}
    for (i, j), error in errors.items():
        for key in {i, j}:
            sums[key] = sums.get(key, 0.0) + error
    return inflate(max(sums.values()))


def _positive(value: float) -> float:
    """Return an eigenvalue that must be > 0."""
    if not 0.0 < value < math.inf:
        raise SolverError("the layer recursion broke down: a product of layers is nearly zero")
    return float(value)


def largest_eigenvalue(applied: Any, size: int) -> float:
    """Estimate the largest eigenvalue of a positive semidefinite operator by Lanczos' method.

    Parameters
    ----------
    applied : callable
        Maps an ndarray of shape (size,) to the operator's value.
    size : int
        ≥ 3.

    Returns
    -------
    float
        From below, to about 1e-10, relatively.

    Raises
    ------
    SolverError
        If it is not > 0.
    """
    operator = LinearOperator((size, size), matvec=applied, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        found = eigsh(
            operator, 1, v0=start, tol=1e-10, ncv=min(size, 40), return_eigenvectors=False
        )
    except ArpackNoConvergence as failure:
        found = failure.eigenvalues
    except ArpackError as error:
        raise SolverError(f"the layer recursion broke down: {error}") from error
    return _positive(max(map(float, found), default=0.0))
