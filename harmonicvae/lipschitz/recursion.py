"""Forward recursion over the layers of the LipSDP inequality, and multipliers in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import solve_triangular

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.lipschitz.sparse_lmi import SparseLmi, sparse_form

#: Keeps multipliers finite where a slope range is nearly a point.
_LARGEST = 1e6
#: Distance kept from singular blocks where slopes of both signs occur.
_SIGNED_MARGIN = 1e-6
#: Smallest entry of a Perron vector, relative to its largest.
_FAINTEST = 2.0**-60
#: Steps of the power iteration at most.
_POWER_STEPS = 1000


@dataclass
class Recursion:
    """Block Cholesky factorisation of the inequality, layer by layer, in float64.

    With X_0 = I, multipliers T of a layer with weights W and slopes [α, β],
    m = (α+β)/2, p = αβ, the next block is X = T − mTW(X + WᵀpTW)⁻¹WᵀTm.

    Parameters
    ----------
    chain : BlockChain
        The network; wide first and tall last matrices are made square.

    Raises
    ------
    SolverError
        If the chain has no hidden layer or a block breaks down.
    """

    chain: BlockChain
    matrices: list[np.ndarray] = field(init=False)
    state: np.ndarray = field(init=False)
    values: list[np.ndarray] = field(default_factory=list)
    shifts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matrices = self.chain.reduced_matrices()
        self.state = np.eye(self.matrices[0].shape[1])

    def half(self, layer: int) -> np.ndarray:
        """Return C⁻¹W_iᵀ, with CCᵀ the present block, W_i the layer's weights."""
        try:
            factor = np.linalg.cholesky(self.state)
            return solve_triangular(factor, self.matrices[layer].T, lower=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise SolverError(f"the layer recursion broke down: {error}") from error

    def gain(self, layer: int) -> float:
        """Return λmax(W_iX⁻¹W_iᵀ)."""
        half = self.half(layer)
        wide = half.shape[0] < half.shape[1]
        return float(eigenvalues(half @ half.T if wide else half.T @ half)[-1])

    def advance(self, layer: int, values: np.ndarray, shift: int) -> None:
        """Go on to the next block with multipliers for W_i · 2**shift."""
        weight = np.ldexp(self.matrices[layer], shift)
        alpha, beta = self.chain.alphas[layer], self.chain.betas[layer]
        own = np.broadcast_to(np.asarray(values, dtype=np.float64), alpha.shape)
        inner = self.state
        if np.any(alpha * beta):
            inner = inner + weight.T @ ((alpha * beta * own)[:, None] * weight)
        try:
            factor = np.linalg.cholesky(inner)
            half = solve_triangular(factor, weight.T * (0.5 * (alpha + beta) * own), lower=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise SolverError(f"the layer recursion broke down: {error}") from error
        self.state = np.diag(own) - half.T @ half
        self.values.append(np.asarray(values))
        self.shifts.append(shift)

    def finish(self) -> Multipliers:
        """Return all multipliers with the smallest ρ = λmax(W_L X⁻¹W_Lᵀ) that they allow."""
        rho = self.gain(len(self.matrices) - 1)
        return Multipliers(tuple(self.values), tuple(self.shifts), rho)


@dataclass
class SparseRecursion:
    """The same for sparse matrices: every block anew, from the inequality of the layers before.

    Parameters
    ----------
    chain : BlockChain
        As from :func:`harmonicvae.lipschitz.sparse_lmi.sparse_form`.

    Raises
    ------
    SolverError
        If a block breaks down, or a factor of the inequality would be too large.

    Notes
    -----
    X is the Schur complement of the inequality of the layers up to its own, so that
    W_iX⁻¹W_iᵀ is applied to a vector by one solve with that inequality's factor.
    """

    chain: BlockChain
    values: list[np.ndarray] = field(default_factory=list)
    shifts: list[int] = field(default_factory=list)

    def gain(self, layer: int) -> float:
        """Return λmax(W_iX⁻¹W_iᵀ), by Lanczos' method."""
        multipliers = Multipliers(tuple(self.values), tuple(self.shifts), 1.0)
        return SparseLmi(self.chain.part(0, layer + 1), multipliers).gain()

    def advance(self, layer: int, values: np.ndarray, shift: int) -> None:
        """Go on to the next block with multipliers for W_i · 2**shift."""
        self.values.append(np.asarray(values))
        self.shifts.append(shift)

    def finish(self) -> Multipliers:
        """Return all multipliers with the smallest ρ that they allow."""
        rho = self.gain(len(self.chain.blocks) - 1)
        return Multipliers(tuple(self.values), tuple(self.shifts), rho)


def eigenvalues(product: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a Gram matrix, ascending, ≥ 0.

    Raises
    ------
    SolverError
        If the largest is not > 0.
    """
    try:
        values = np.linalg.eigvalsh(product)
    except np.linalg.LinAlgError as error:
        raise SolverError(f"the layer recursion broke down: {error}") from error
    if not values[-1] > 0.0:
        raise SolverError("the layer recursion broke down: a product of layers is nearly zero")
    return np.maximum(values, 0.0)


def fast_multipliers(chain: BlockChain) -> Multipliers:
    """Compute ECLipsE-Fast's multipliers, one a layer, in closed form.

    Parameters
    ----------
    chain : BlockChain
        With at least one activation and no zero block.

    Returns
    -------
    Multipliers
        Of order one; not proved.

    Raises
    ------
    SolverError
        If the recursion breaks down.

    Notes
    -----
    λ = 2 / (max(|α|,|β|)·(β−α)·λmax(G)), G = WX⁻¹Wᵀ, maximises the smallest eigenvalue of
    the next block when all neurons of a layer have the slope range [α, β], here the
    smallest range that contains theirs. The multipliers stay feasible for narrower ranges
    after division as in :func:`for_narrower_slopes`.
    """
    sparse = sparse_form(chain)
    recursion = Recursion(chain) if sparse is None else SparseRecursion(sparse)
    for layer in range(len(chain.alphas)):
        fast_step(recursion, layer)
    return recursion.finish()


def fast_step(recursion: Recursion | SparseRecursion, layer: int) -> None:
    """Go on by one layer with ECLipsE-Fast's multiplier.

    Parameters
    ----------
    recursion : Recursion or SparseRecursion
        Is advanced.
    layer : int
        The hidden layer, from 0, that comes next.

    Raises
    ------
    SolverError
        If the recursion breaks down.
    """
    low, high = recursion.chain.alphas[layer], recursion.chain.betas[layer]
    alpha, beta = float(np.min(low)), float(np.max(high))
    largest = recursion.gain(layer)
    steepest = max(abs(alpha), abs(beta))
    shift = round(-0.5 * math.log2(largest) - math.log2(steepest))
    value = _step(alpha, beta) / math.ldexp(largest, 2 * shift)
    factors = for_narrower_slopes(low, high, alpha, beta)
    uniform = bool(np.all(factors == factors[0]))
    recursion.advance(layer, np.asarray(value) if uniform else value * factors, shift)


def _step(alpha: float, beta: float) -> float:
    """Return λ·λmax(G) that maximises the smallest eigenvalue of the next block."""
    steepest = max(abs(alpha), abs(beta))
    step = min(2.0 / (steepest * max(beta - alpha, 1e-300)), _LARGEST / steepest**2)
    if alpha * beta < 0:
        step = min(step, (1.0 - _SIGNED_MARGIN) / abs(alpha * beta))
    return step


def for_narrower_slopes(low: np.ndarray, high: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Compute factors that make a layer's common multiplier feasible for narrower slope ranges.

    Parameters
    ----------
    low, high : ndarray of shape (n,)
        Each neuron's range, inside [alpha, beta].
    alpha, beta : float or ndarray of shape (n,)
        The range for which the multiplier was chosen.

    Returns
    -------
    ndarray of shape (n,)
        Factors f with f(v − low·y)(v − high·y) ≥ (v − alpha·y)(v − beta·y) for all v, y, up
        to rounding: f = (d² + d′² − (m − m′)²) / 2d², d and m the neuron's half width and
        middle, d′ and m′ those of [alpha, beta], halfway between the ends of what is allowed.

    Examples
    --------
    >>> for_narrower_slopes(np.array([0.0, 0.25]), np.array([1.0, 0.75]), 0.0, 1.0)
    array([1. , 2.5])
    """
    middle, half = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    own_middle, own_half = 0.5 * (low + high), np.maximum(0.5 * (high - low), 1e-6 * half)
    distance = (middle - own_middle) ** 2
    return np.maximum((own_half**2 + half**2 - distance) / (2.0 * own_half**2), 1.0)


def perron_multipliers(chain: BlockChain, largest_log2: float = math.inf) -> Multipliers:
    """Compute multipliers c/v from the Perron vectors of the absolute weights, in closed form.

    Parameters
    ----------
    chain : BlockChain
        With at least one activation and no zero block.
    largest_log2 : float, default=inf
        Binary logarithm of the largest ‖B_L⋯B_0‖₂, of the scaled chain, that is of interest.

    Returns
    -------
    Multipliers
        One a neuron; not proved.

    Raises
    ------
    SolverError
        If the recursion breaks down or ‖B_L⋯B_0‖₂ is larger than wanted.

    Notes
    -----
    With B = max(|α|,|β|)·|W|, v_0 the largest right singular vector of B_L⋯B_0,
    v_{i+1} = B_i v_i and c_i = B_iᵀc_{i+1} backwards, T = c/v gives the matrix of the
    inequality P v = 0 at ρ = ‖B_L⋯B_0‖₂² if α = 0 and all weights are ≥ 0. Its entries off the
    diagonal are then ≤ 0, so that P ⪰ 0; weights of any sign are dominated by it. So the
    bound is at most ‖B_L⋯B_0‖₂ where α = 0, which for nonnegative weights is the exact
    constant of a ReLU network. Cost O(Σ n³).
    """
    recursion = Recursion(chain)
    steep = [np.maximum(np.abs(a), np.abs(b)) for a, b in zip(chain.alphas, chain.betas)]
    matrices = [np.abs(block.matrix) for block in chain.blocks]
    forwards, backwards, logarithm = _perron_vectors(matrices, steep)
    if logarithm > largest_log2:
        raise SolverError("the product of the absolute weights is larger than wanted")
    for layer, ((v, shift), c) in enumerate(zip(forwards, backwards)):
        values = 2.0 * c / v / float(c @ v)
        recursion.advance(layer, np.clip(values, 2.0**-150, 2.0**150), shift)
    return recursion.finish()


def _perron_vectors(
    matrices: Sequence[np.ndarray], steep: Sequence[np.ndarray]
) -> tuple[list[tuple[np.ndarray, int]], list[np.ndarray], float]:
    """Return v and the shift that scales it to order one, c up to scale, and log2 ‖B_L⋯B_0‖₂."""
    start = np.ones(matrices[0].shape[1]) / math.sqrt(matrices[0].shape[1])
    for _ in range(_POWER_STEPS):
        forwards, v = [], start
        for matrix, slope in zip(matrices[:-1], steep):
            v = slope * (matrix @ v)
            shift = -math.frexp(float(np.max(v)))[1]
            v = np.ldexp(v, shift)
            v = np.maximum(v, _FAINTEST)
            forwards.append((v, shift))
        last = matrices[-1] @ v
        c = matrices[-1].T @ last
        backwards = []
        for matrix, slope in zip(reversed(matrices[:-1]), reversed(steep)):
            c = np.maximum(c / np.max(c), _FAINTEST)
            backwards.append(c)
            c = matrix.T @ (slope * c)
        following = c / np.linalg.norm(c)
        change = float(np.linalg.norm(following - start))
        start = following
        if change <= 1e-14:
            break
    norm = float(np.linalg.norm(last))
    logarithm = math.log2(norm) - sum(shift for _, shift in forwards) if norm > 0 else -math.inf
    return forwards, backwards[::-1], logarithm
