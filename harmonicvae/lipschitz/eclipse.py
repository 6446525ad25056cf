"""ECLipsE-Fast: one multiplier a layer in closed form, by a recursion over the layers."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import solve_triangular

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod
from harmonicvae.lipschitz.certificate import LayerNorms
from harmonicvae.lipschitz.chain import BlockChain, build_chain
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.network import LayeredNetwork

#: Keeps multipliers finite where a slope range is nearly a point.
_LARGEST = 1e6
#: Distance kept from singular blocks where slopes of both signs occur.
_SIGNED_MARGIN = 1e-6


class EclipseFast(LipschitzMethod):
    """Upper bound from the block Cholesky factorisation of the LipSDP inequality.

    Notes
    -----
    With X_0 = I, G = W X⁻¹Wᵀ and p = αβ, the next block is
    X = λ(I − d²λG)(I + pλG)⁻¹, d = (β−α)/2. λ = 2 / (max(|α|,|β|)·(β−α)·λmax(G))
    maximises its smallest eigenvalue; for α = 0 this is the published
    λ = 1 / (2m²λmax(G)), m = (α+β)/2. The bound is √λmax(W_L X⁻¹W_Lᵀ). For α ≠ 0
    the published recursion omits p, which is unsound where p < 0; here it is kept.
    Every layer is scaled by a power of two, so that depth does not under- or overflow.
    Never above the norm product. Cost O(Σ n³ + wide first and tall last Gram products).

    References
    ----------
    Y. Xu, S. Sivaranjani, "ECLipsE: efficient compositional Lipschitz constant estimation
    for deep neural networks", NeurIPS 2024, section 3 (closed-form variant).

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(EclipseFast().bound(network).value, 9)
    1.5
    """

    name = "eclipse_fast"

    def _bound(self, network: LayeredNetwork) -> Candidate:
        chain = build_chain(network)
        if not chain.alphas or chain.is_constant:
            norms = chain.layer_norms()
            return Candidate(value=chain.norm_product(norms), proposal=LayerNorms(norms))
        reduced = chain.with_square_input()
        multipliers = fast_multipliers(reduced)
        value = multipliers.bound(reduced, multipliers.rho)
        details = {"multipliers": [float(item) for item in multipliers.values]}
        return Candidate(value=value, proposal=multipliers, details=details)


def fast_multipliers(chain: BlockChain) -> Multipliers:
    """Compute ECLipsE-Fast's multipliers in float64.

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
    """
    state = np.eye(chain.blocks[0].matrix.shape[1])
    values, shifts = [], []
    for block, alpha, beta in zip(chain.blocks, chain.alphas, chain.betas):
        half = _half(block.matrix, state)
        eigenvalues, vectors = _eigen(half.T @ half)
        steepest = max(abs(alpha), abs(beta))
        shift = round(-0.5 * math.log2(eigenvalues[-1]) - math.log2(steepest))
        eigenvalues = np.ldexp(eigenvalues, 2 * shift)
        value = _step(alpha, beta) / eigenvalues[-1]
        spread = (0.5 * (beta - alpha)) ** 2
        shape = (1.0 - spread * value * eigenvalues) / (1.0 + alpha * beta * value * eigenvalues)
        state = (vectors * (value * shape)) @ vectors.T
        values.append(np.asarray(value))
        shifts.append(shift)
    half = _half(chain.blocks[-1].matrix, state)
    rho = _eigen(half @ half.T)[0][-1]
    return Multipliers(tuple(values), tuple(shifts), float(rho))


def _step(alpha: float, beta: float) -> float:
    """Return λ·λmax(G) that maximises the smallest eigenvalue of the next block."""
    steepest = max(abs(alpha), abs(beta))
    step = min(2.0 / (steepest * (beta - alpha)), _LARGEST / steepest**2)
    if alpha * beta < 0:
        step = min(step, (1.0 - _SIGNED_MARGIN) / abs(alpha * beta))
    return step


def _half(matrix: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return C⁻¹Mᵀ, with CCᵀ the state."""
    try:
        factor = np.linalg.cholesky(state)
        return solve_triangular(factor, matrix.T, lower=True)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise SolverError(f"the layer recursion broke down: {error}") from error


def _eigen(product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (ascending, ≥ 0, the last > 0) and eigenvectors."""
    try:
        eigenvalues, vectors = np.linalg.eigh(product)
    except np.linalg.LinAlgError as error:
        raise SolverError(f"the layer recursion broke down: {error}") from error
    if not eigenvalues[-1] > 0.0:
        raise SolverError("the layer recursion broke down: a product of layers is nearly zero")
    return np.maximum(eigenvalues, 0.0), vectors
