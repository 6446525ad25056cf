"""The LipSDP matrix inequality of a network, rebuilt from its weights and proved.

With v_0 the difference of two inputs, v_i that of the outputs of hidden layer i
and slopes in [α_i, β_i], (v_i − αW v_{i−1})ᵀ T_i (v_i − βW v_{i−1}) ≤ 0 for every
diagonal T_i ≥ 0. If the form ‖v_0‖² − ‖W_L v_L‖² / ρ plus these terms is positive
semidefinite, then √ρ is a Lipschitz constant. Its matrix is block-tridiagonal, with
m = (α+β)/2 and p = αβ:
diagonal I + pW_0ᵀT_1W_0, T_i + pW_iᵀT_{i+1}W_i, T_L − W_LᵀW_L / ρ; below it −mT_iW_{i−1}.

References
----------
M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for
deep neural networks", NeurIPS 2019, theorem 2 (LipSDP-Neuron).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.rounding import (
    UNIT,
    absolute_norm_squared,
    gamma,
    gram,
    inflate,
    product_up,
    proves_positive_semidefinite,
    round_up,
    scale_up,
)


@dataclass(frozen=True)
class Multipliers:
    """What a solver proposes: multipliers, scales and the squared bound.

    Parameters
    ----------
    values : tuple of ndarray of shape () or (n_i,)
        Diagonal of T_i ≥ 0, one number a layer or one a neuron.
    shifts : tuple of int
        Block i < L enters the inequality as ``matrix`` · 2**shifts[i]; so chosen that
        all multipliers are of order one, however deep the network.
    rho : float
        Proposed ρ > 0 of the scaled chain.
    """

    values: tuple[np.ndarray, ...]
    shifts: tuple[int, ...]
    rho: float

    def bound(self, chain: BlockChain, rho: float) -> float:
        """Return √ρ in the units of the unscaled network, rounded upwards."""
        return product_up([round_up(math.sqrt(rho))], chain.exponent - sum(self.shifts))


class LmiMatrix:
    """The block-tridiagonal matrix of the inequality, with bounds on all rounding errors.

    Parameters
    ----------
    chain : BlockChain
        With at least one nonlinear activation.
    multipliers : Multipliers
        Any; nothing about them is trusted.

    Raises
    ------
    InputError
        If the multipliers do not fit the chain, are negative or not finite.
    """

    def __init__(self, chain: BlockChain, multipliers: Multipliers) -> None:
        hidden = len(chain.blocks) - 1
        if len(multipliers.values) != hidden or len(multipliers.shifts) != hidden:
            raise InputError(f"multipliers must be given for {hidden} hidden layers")
        self._diagonal: list[np.ndarray] = [np.eye(chain.blocks[0].matrix.shape[1])]
        self._diagonal_error = [0.0]
        self._lower: list[np.ndarray] = []
        self._lower_error: list[float] = []
        for i in range(hidden):
            self._add_layer(chain, multipliers, i)
        last = chain.blocks[-1]
        self._gram, self._gram_error = gram(last.matrix.T, last.error)

    def _add_layer(self, chain: BlockChain, multipliers: Multipliers, i: int) -> None:
        """Add the terms of hidden layer i + 1, which follows block i."""
        block, shift = chain.blocks[i], multipliers.shifts[i]
        weight, error = np.ldexp(block.matrix, shift), scale_up(block.error, shift)
        values = _diagonal(multipliers.values[i], len(weight))
        alpha, beta = chain.alphas[i], chain.betas[i]
        size = math.sqrt(absolute_norm_squared(weight))

        middle = 0.5 * (alpha + beta) * values
        link = -middle[:, None] * weight
        rounding = gamma(4) * math.sqrt(absolute_norm_squared(link))
        self._lower.append(link)
        self._lower_error.append(inflate(rounding + np.max(np.abs(middle)) * error))

        product = alpha * beta * values
        if np.any(product):
            term = weight.T @ (product[:, None] * weight)
            self._diagonal[i] = self._diagonal[i] + 0.5 * (term + term.T)
            rounding = gamma(len(weight) + 6) * size * size + (2.0 * size + error) * error
            addition = 2.0 * UNIT * np.max(np.abs(np.diag(self._diagonal[i])))
            addition += 2.0 * UNIT * np.max(np.abs(product)) * size * size
            self._diagonal_error[i] = inflate(
                self._diagonal_error[i] + np.max(np.abs(product)) * rounding + addition
            )
        self._diagonal.append(np.diag(values))
        self._diagonal_error.append(0.0)

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
        if not 0.0 < rho < math.inf:
            return False
        output = self._gram / rho
        last = self._diagonal[-1] - output
        rounding = gamma(3) * math.sqrt(absolute_norm_squared(output))
        rounding += 2.0 * UNIT * np.max(np.abs(np.diag(last))) + self._gram_error / rho
        if not np.all(np.isfinite(last)):
            return False
        return proves_positive_semidefinite(
            [*self._diagonal[:-1], last],
            self._lower,
            [*self._diagonal_error[:-1], inflate(self._diagonal_error[-1] + rounding)],
            self._lower_error,
        )


def _diagonal(values: np.ndarray, size: int) -> np.ndarray:
    """Return multipliers as a vector, refusing negative ones."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape not in ((), (size,)):
        raise InputError(f"multipliers must be one number or {size}, got shape {vector.shape}")
    if not np.all(np.isfinite(vector)) or np.any(vector < 0):
        raise InputError("multipliers must be finite and >= 0")
    return np.broadcast_to(vector, (size,))
