"""The LipSDP matrix inequality of a network, rebuilt from its weights and proved.

With v_0 the difference of two inputs, v_i that of the outputs of hidden layer i and
neuron slopes in [α, β], (v − αw)·t·(v − βw) ≤ 0 for every neuron with t ≥ 0, w the
difference of its inputs. If the form ‖v_0‖² − ‖W_L v_L‖² / ρ plus these terms is
positive semidefinite, then √ρ is a Lipschitz constant. Its matrix is block-tridiagonal,
with diagonal matrices T_i of multipliers, M_i of (α+β)/2 and P_i of αβ:
diagonal I + W_0ᵀP_1T_1W_0, T_i + W_iᵀP_{i+1}T_{i+1}W_i, T_L − W_LᵀW_L / ρ; below it
−M_iT_iW_{i−1}.

References
----------
M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for
deep neural networks", NeurIPS 2019, theorem 2 (LipSDP-Neuron).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.chain import Block, BlockChain
from harmonicvae.lipschitz.proofs import (
    ChainProof,
    ChainProposal,
    real_array,
    real_number,
    whole_numbers,
)
from harmonicvae.rounding import (
    UNIT,
    absolute_norm_squared,
    gamma,
    gram,
    inflate,
    product_up,
    proves_positive_semidefinite,
    round_up,
)

#: ρ is raised by 1 + this · 8ᵏ, k ≤ LADDER_STEPS, until the inequality is proved.
SMALLEST_INFLATION = 1e-13
LADDER_STEPS = 12
#: A step that raises ρ by less than 1e-10 is taken without a search for a smaller one.
NEGLIGIBLE_STEP = 3
#: Nonzero multipliers must lie in 2**±this, ρ and the scalings in 2**±_LARGEST_SHIFT.
_LARGEST_MULTIPLIER = 200
_LARGEST_SHIFT = 300
#: Products of scale factors, and entries of scaled matrices, that are accepted at most. Within
#: these limits every underflow, 2⁻¹⁰⁷⁴ before scaling, stays far below _UNDERFLOW after it.
_LARGEST_FACTOR = 2.0**500
_LARGEST_ENTRY = 2.0**100
_UNDERFLOW = 2.0**-400
#: A matrix and a bound on the spectral norm of its error.
_Bounded = tuple[np.ndarray, float]
#: Exponents of a certificate beyond this are refused.
LARGEST_EXPONENT = 10**6


@dataclass(frozen=True)
class Multipliers(ChainProposal):
    """What a solver proposes: multipliers, scales and the squared bound.

    Parameters
    ----------
    values : tuple of ndarray of shape () or (n_i,)
        Diagonal of T_i ≥ 0, one number a layer or one for each neuron that the chain keeps;
        nonzero ones in [2⁻²⁰⁰, 2²⁰⁰].
    shifts : tuple of int
        Block i < L enters the inequality as ``matrix`` · 2**shifts[i]; so chosen that
        all multipliers are of moderate size, however deep the network.
    rho : float
        Proposed ρ > 0 of the scaled chain.

    Notes
    -----
    No multipliers at all propose the norm √ρ of a single block.
    """

    values: tuple[np.ndarray, ...]
    shifts: tuple[int, ...]
    rho: float

    kind: ClassVar[str] = "lmi"

    def bound(self, chain: BlockChain, rho: float) -> float:
        """Return √ρ in the units of the unscaled network, rounded upwards."""
        return product_up([round_up(math.sqrt(rho))], chain.exponent - sum(self.shifts))

    def prove_chain(self, chain: BlockChain) -> ChainProof | None:
        """Prove √ρ for the smallest ρ on a ladder above the proposed one.

        Notes
        -----
        ρ(1 + 1e-13 · 8ᵏ), k = 0 … 12, searched by doubling and bisection: at most seven
        attempts.
        """
        reduced = chain.with_square_input()
        matrix = LmiMatrix(reduced, self)
        step = _first_true(lambda k: matrix.proves(self._raised(k)))
        if step is None:
            return None
        rho = self._raised(step)
        exponents = [shift - block.exponent for shift, block in zip(self.shifts, chain.blocks)]
        content = {
            "rho": rho,
            "exponents": [*map(int, exponents), -chain.blocks[-1].exponent],
            "multipliers": [np.asarray(item).tolist() for item in self.values],
        }
        return ChainProof(self.bound(reduced, rho), content, SMALLEST_INFLATION * 8.0**step)

    def _raised(self, step: int) -> float:
        """Return the ρ of a step of the ladder."""
        return float(self.rho) * (1.0 + SMALLEST_INFLATION * 8.0**step)

    @classmethod
    def proved_value(cls, content: Mapping[str, Any], chain: BlockChain) -> float:
        """Return √ρ if a certificate's inequality is proved, else ``inf``."""
        values, exponents, rho = read_multipliers(content, len(chain.blocks))
        shifts = [e + block.exponent for e, block in zip(exponents, chain.blocks)]
        if abs(shifts[-1]) > _LARGEST_SHIFT or not rho <= 2.0**_LARGEST_SHIFT:
            return math.inf
        rho = math.ldexp(rho, -2 * shifts[-1])
        proposal = cls(values, tuple(shifts[:-1]), rho)
        reduced = chain.with_square_input()
        proved = LmiMatrix(reduced, proposal).proves(rho)
        return proposal.bound(reduced, rho) if proved else math.inf


def read_multipliers(
    content: Mapping[str, Any], blocks: int
) -> tuple[tuple[np.ndarray, ...], tuple[int, ...], float]:
    """Read multipliers, exponents and ρ from a certificate.

    Parameters
    ----------
    content : mapping
        With ``multipliers``, ``exponents`` and ``rho``. Block i, the product of the network's
        original matrices, enters the inequality times 2**exponents[i].
    blocks : int
        Number of blocks.

    Returns
    -------
    values : tuple of ndarray
    exponents : tuple of int
    rho : float

    Raises
    ------
    InputError
        If an entry is damaged.
    """
    values, exponents = content["multipliers"], content["exponents"]
    if not isinstance(values, (list, tuple)) or len(values) != blocks - 1:
        raise InputError(f"multipliers of the certificate must be given for {blocks - 1} layers")
    exponents = whole_numbers(exponents, "exponents", LARGEST_EXPONENT)
    if len(exponents) != blocks:
        raise InputError(f"exponents of the certificate must be {blocks}, got {len(exponents)}")
    arrays = tuple(real_array(item, "multipliers") for item in values)
    return arrays, exponents, real_number(content, "rho")


def _first_true(holds: Any) -> int | None:
    """Return a step of the ladder found to hold, the smallest unless a negligible one holds."""
    low, high = -1, 0
    while not holds(high):
        if high == LADDER_STEPS:
            return None
        low, high = high, min(max(NEGLIGIBLE_STEP, 2 * high), LADDER_STEPS)
    while high - low > 1 and high > NEGLIGIBLE_STEP:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class LmiMatrix:
    """The block-tridiagonal matrix of the inequality, with bounds on all rounding errors.

    Parameters
    ----------
    chain : BlockChain
        Any.
    multipliers : Multipliers
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

    def __init__(self, chain: BlockChain, multipliers: Multipliers) -> None:
        hidden = len(chain.blocks) - 1
        if len(multipliers.values) != hidden or len(multipliers.shifts) != hidden:
            raise InputError(f"multipliers must be given for {hidden} hidden layers")
        if any(abs(shift) > _LARGEST_SHIFT for shift in multipliers.shifts):
            raise InputError(f"shifts must lie within ±{_LARGEST_SHIFT}")
        sizes = [chain.blocks[0].matrix.shape[1], *chain.hidden_dims]
        self._chain = chain
        self._base = [np.ones(sizes[0])]
        self._base += [_vector(item, n) for item, n in zip(multipliers.values, sizes[1:])]
        self._weights = [
            _shifted(block, shift) for block, shift in zip(chain.blocks, multipliers.shifts)
        ]
        self._blocks: list[_Bounded] = []
        self._links: list[_Bounded] = []
        self._scales: list[np.ndarray] = []
        with np.errstate(all="ignore"):  # what overflows is refused by _is_moderate
            self._possible = all(self._add(i) for i in range(hidden))
        self._output = _OutputGram(chain.blocks[-1])

    def _add(self, i: int) -> bool:
        """Add the diagonal block before hidden layer i + 1 and the link to it."""
        half = _Half(
            self._weights[i], self._chain.alphas[i], self._chain.betas[i], self._base[i + 1]
        )
        scales = _scales(half.diagonal(self._base[i]))
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
        if not self._possible or not 2.0**-_LARGEST_SHIFT <= rho <= 2.0**_LARGEST_SHIFT:
            return False
        with np.errstate(all="ignore"):  # what overflows is refused by _is_moderate
            blocks, links = self._scaled(rho)
        if not blocks or not all(_is_moderate(*item) for item in [*blocks, *links]):
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
        scales = _scales(base - self._output.diagonal / rho)
        if scales is None:
            return [], []
        blocks = [*self._blocks, self._output.subtracted_from(base, scales, rho)]
        links = list(self._links)
        if len(blocks) > 1:
            links.append(self._link(len(blocks) - 2, self._scales[-1], scales))
        return blocks, links


@dataclass(frozen=True)
class _Weight:
    """A block's matrix times 2**shift, with a bound on its error entry by entry."""

    matrix: np.ndarray
    error: np.ndarray | None
    shift: int

    def underflow(self, row: np.ndarray, column: np.ndarray) -> float:
        """Bound the norm of what underflowed in matrix and product; ``inf`` beyond the limits."""
        factor = float(np.max(np.abs(row), initial=0.0) * np.max(column, initial=0.0))
        within = factor * math.ldexp(1.0, max(self.shift, 0)) <= _LARGEST_FACTOR
        return _UNDERFLOW if within else math.inf


def _shifted(block: Block, shift: int) -> _Weight:
    error = None if block.error is None else np.ldexp(block.error, shift)
    return _Weight(np.ldexp(block.matrix, shift), error, shift)


class _Half:
    """Half of the term WᵀPTW: H = √|P|T W, with H ᵀsign(P)H the term."""

    def __init__(
        self, weight: _Weight, alpha: np.ndarray, beta: np.ndarray, values: np.ndarray
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
        error += self._error * (largest * largest / rho) + _UNDERFLOW
        return block, inflate(error)


def _scales(diagonal: np.ndarray) -> np.ndarray | None:
    """Return exponents s with 4**s · diagonal in [½, 2), or None if an entry is not positive."""
    if not (np.all(diagonal > 0.0) and np.all(np.isfinite(diagonal))):
        return None
    scales = -(np.frexp(diagonal)[1] // 2)
    return scales if np.all(np.abs(scales) <= _LARGEST_SHIFT) else None


def _is_moderate(matrix: np.ndarray, error: float) -> bool:
    """Return True if entries and error are finite and within the limits of the error analysis."""
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
