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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
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
from harmonicvae.lipschitz.sparse_terms import (
    Blocks,
    Lift,
    Term,
    joined,
    norm_of_sums,
    sided,
    summed,
)
from harmonicvae.matrices import columns_times, ones_like

#: Dense chains with fewer neurons, or a larger share of entries ≠ 0, are not taken for sparse.
_SPARSE_ROWS, _SPARSE_SHARE = 1500, 0.05
#: Products of entries beyond which a Gram matrix is not formed.
_MOST_PRODUCTS = 5e7
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
        block is a product of layers, or the order of the neurons makes no narrow band.

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
    if not chain.is_sparse:
        size = sum(block.matrix.size for block in chain.blocks)
        entries = sum(np.count_nonzero(block.matrix) for block in chain.blocks)
        products = any(block.error is not None for block in chain.blocks)
        small = sum(chain.hidden_dims) <= _SPARSE_ROWS
        if small or products or entries > _SPARSE_SHARE * size:
            return None
    sparse = replace(chain, blocks=tuple(map(_sparse_block, chain.blocks)))
    if chain.is_sparse:
        return sparse
    dims = [min(chain.blocks[0].matrix.shape), *chain.hidden_dims]
    layers = ArrowForm(np.arange(sum(dims)), tuple(np.cumsum(dims).tolist()))
    ones = _Ones((np.ones(()),) * len(chain.alphas), (0,) * len(chain.alphas))
    return sparse if SparseLmi(sparse, ones).operations < layers.operations else None


@dataclass(frozen=True)
class _Ones:
    """Multipliers of which only the number matters."""

    values: tuple[np.ndarray, ...]
    shifts: tuple[int, ...]


def _sparse_block(block: Block) -> Block:
    error = None if block.error is None else csr_array(block.error)
    return replace(block, matrix=csr_array(block.matrix), error=error)


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
        if not 2.0**-LARGEST_SHIFT <= rho <= 2.0**LARGEST_SHIFT or not self._is_formed:
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
        if not self._is_formed:
            raise SolverError("a layer's Gram matrix has too many entries")
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
    def operations(self) -> float:
        """Multiplications of a proof, roughly; ``inf`` if a matrix would have too many entries."""
        return self._form(self._own_rows(True), True).operations if self._is_formed else math.inf

    @property
    def _is_formed(self) -> bool:
        """Tell whether the terms WᵀPTW that are needed have few enough entries."""
        weights = zip(self._weights, self._signed)
        return all(_products(weight.matrix) for weight, present in weights if present)

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
        first, last = [True], [False]
        if self._weights and not self._signed[0] and _products(self._weights[0].matrix.T):
            first = [True, False]
        if with_output:
            last = [True, False] if _products(self._output.matrix) else [True]
        choices = [(a, b) for a in first for b in last]
        if len(choices) == 1:
            return choices[0]
        return min(choices, key=lambda own: self._form(own, with_output).operations)

    def _form(self, own_rows: tuple[bool, bool], with_output: bool) -> ArrowForm:
        """Return the form that the matrix would have."""
        inputs, outputs = own_rows
        ones = [ones_like(weight.matrix) for weight in [*self._weights, self._output]]
        last = len(self._weights)
        blocks: Blocks = {
            (i, i): eye_array(len(base), format="csr") for i, base in enumerate(self._base)
        }
        for i, present in enumerate(self._signed):
            blocks[i + 1, i] = ones[i]
            if present:
                blocks[i, i] = blocks[i, i] + ones[i].T @ ones[i]
        if outputs:
            blocks[last + 1, last] = ones[-1]
            blocks[last + 1, last + 1] = eye_array(ones[-1].shape[0], format="csr")
        elif with_output:
            blocks[last, last] = blocks[last, last] + ones[-1].T @ ones[-1]
        if not inputs:
            blocks[1, 1] = blocks[1, 1] + ones[0] @ ones[0].T
        return ArrowForm.of(joined(_kept(blocks, inputs)))

    def _assembled(self, rho: float | None) -> _Assembled | None:
        """Return the scaled matrix, without outputs if ρ is None; None if surely not definite."""
        inputs, outputs = self._own_rows(rho is not None)
        lifts = self._lifts(inputs, rho if not outputs else None)
        scales = self._scales(lifts, inputs)
        if scales is None:
            return None
        terms: dict[tuple[int, int], Term] = {}
        for i, base in enumerate(self._base):
            terms[i, i] = summed(np.ldexp(base, 2 * scales[i]), lifts[i], scales[i])
        for i, weight in enumerate(self._weights):
            row = -np.ldexp(self._middle(i), scales[i + 1])
            terms[i + 1, i] = sided(weight, row, np.ldexp(1.0, scales[i]))
        if outputs and rho is not None:
            self._add_outputs(terms, rho, scales[-1])
        start = sum(map(len, self._base[0 if inputs else 1 : -1]))
        kept = _kept(terms, inputs)
        return _Assembled(
            joined({place: term.matrix for place, term in kept.items()}),
            norm_of_sums({place: term.error for place, term in kept.items()}),
            slice(start, start + len(self._base[-1])),
            scales[-1],
        )

    def _scales(
        self, lifts: list[list[tuple[Lift, float]]], inputs: bool
    ) -> list[np.ndarray] | None:
        """Return the binary logarithms of the rows' factors; None if surely not definite."""
        scales = []
        for base, own in zip(self._base, lifts):
            added = (sign * lift.diagonal for lift, sign in own)
            found = diagonal_scales(base + sum(added, np.zeros(1)))
            if found is None:
                return None
            scales.append(found)
        if not inputs:
            scales[0] = np.zeros_like(scales[0])
        return scales

    def _add_outputs(
        self, terms: dict[tuple[int, int], Term], rho: float, scales: np.ndarray
    ) -> None:
        """Add outputs as rows of their own."""
        last, count = len(self._base), self._output.matrix.shape[0]
        own = -(math.frexp(rho)[1] // 2)
        row = np.full(count, math.ldexp(1.0, own))
        terms[last, last - 1] = sided(self._output, row, np.ldexp(1.0, scales))
        terms[last, last] = summed(np.full(count, math.ldexp(rho, 2 * own)), [], row)

    def _middle(self, i: int) -> np.ndarray:
        """Return the diagonal of M T of hidden layer i, counted from 0."""
        low, high = self._slopes[i]
        return 0.5 * (low + high) * self._base[i + 1]

    def _lifts(self, inputs: bool, rho: float | None) -> list[list[tuple[Lift, float]]]:
        """Return for every layer the terms HᵀSH that are added to its diagonal matrix."""
        lifts: list[list[tuple[Lift, float]]] = [[] for _ in self._base]
        for i, (weight, (low, high)) in enumerate(zip(self._weights, self._slopes)):
            if self._signed[i]:
                product = low * high * self._base[i + 1]
                lifts[i].append((Lift(weight, np.sqrt(np.abs(product)), np.sign(product)), 1.0))
        if not inputs:
            lifts[1].append((Lift.transposed(self._weights[0], self._middle(0)), -1.0))
        if rho is not None:
            ones = np.ones(self._output.matrix.shape[0])
            lifts[-1].append((Lift(self._output, ones, ones, rho), -1.0))
        return lifts


def _products(matrix: csr_array) -> bool:
    """Tell whether MᵀM is cheap enough to be formed."""
    entries = np.diff(csr_array(matrix).indptr).astype(np.float64)
    return bool(np.sum(entries * entries) <= _MOST_PRODUCTS)


def _kept(blocks: dict[tuple[int, int], Any], inputs: bool) -> dict[tuple[int, int], Any]:
    """Return the blocks that are left if inputs are no rows of their own."""
    return {place: block for place, block in blocks.items() if inputs or 0 not in place}


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
