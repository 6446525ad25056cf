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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.lipschitz.lmi_matrix import LARGEST_SHIFT, LmiMatrix
from harmonicvae.lipschitz.proofs import (
    ChainProof,
    ChainProposal,
    real_array,
    real_number,
    whole_numbers,
)
from harmonicvae.lipschitz.sparse_lmi import SparseLmi, sparse_form
from harmonicvae.rounding import product_up, round_up

#: ρ is raised by 1 + this · 8ᵏ, k ≤ LADDER_STEPS, until the inequality is proved.
SMALLEST_INFLATION = 1e-13
LADDER_STEPS = 12
#: A step that raises ρ by less than 1e-10 is taken without a search for a smaller one.
NEGLIGIBLE_STEP = 3
#: The same where a proof of the sparse form takes long: less than 4e-9.
SPARSE_NEGLIGIBLE_STEP = 5
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
        attempts. Of a chain with a sparse form from k = 5 on, so that one attempt is the rule.
        """
        sparse = sparse_form(chain)
        if sparse is None:
            reduced = chain.with_square_input()
            matrix: LmiMatrix | SparseLmi = LmiMatrix(reduced, self)
            start, negligible = 0, NEGLIGIBLE_STEP
        else:
            reduced, matrix = sparse, SparseLmi(sparse, self)
            start = negligible = SPARSE_NEGLIGIBLE_STEP
        step = _first_true(lambda k: matrix.proves(self._raised(k)), start, negligible)
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
        if abs(shifts[-1]) > LARGEST_SHIFT or not rho <= 2.0**LARGEST_SHIFT:
            return math.inf
        rho = math.ldexp(rho, -2 * shifts[-1])
        proposal = cls(values, tuple(shifts[:-1]), rho)
        sparse = sparse_form(chain)
        if sparse is not None and SparseLmi(sparse, proposal).proves(rho):
            return proposal.bound(sparse, rho)
        if chain.is_sparse:
            return math.inf
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


def _first_true(holds: Callable[[int], bool], start: int, negligible: int) -> int | None:
    """Return a step of the ladder found to hold, the smallest unless a negligible one holds."""
    low, high = start - 1, start
    while not holds(high):
        if high == LADDER_STEPS:
            return None
        low, high = high, min(max(negligible, 2 * high), LADDER_STEPS)
    while high - low > 1 and high > negligible:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
