"""The network with its steepest slopes everywhere: what no multipliers of LipSDP get below."""

from __future__ import annotations

import math

import numpy as np

from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.norms import power_iteration
from harmonicvae.rounding import absolute_norm_squared, normalise


def attained(chain: BlockChain) -> float:
    """Compute the norm of the product of all matrices and steepest slopes.

    Parameters
    ----------
    chain : BlockChain
        Any.

    Returns
    -------
    float
        In the network's units; ``inf`` beyond float64. See :func:`attained_log2`.
    """
    logarithm = attained_log2(chain) + chain.exponent
    return math.inf if logarithm > 1023 else 2.0**logarithm


def attained_log2(chain: BlockChain) -> float:
    """Compute log2 ‖W_L D_L ⋯ D_1 W_0‖₂ of the scaled matrices, each D the steepest slopes.

    Parameters
    ----------
    chain : BlockChain
        Any.

    Returns
    -------
    float
        −inf if the product is zero.

    Notes
    -----
    No multipliers prove less: this is LipSDP's value for one feasible point of its dual. Up to
    rounding for dense matrices, O(Σ n³); from below, by power iteration, where some are sparse.
    """
    if chain.is_sparse:
        return _estimated_log2(chain)
    matrices = chain.reduced_matrices()
    product, total = matrices[0], 0
    for matrix, low, high in zip(matrices[1:], chain.alphas, chain.betas):
        product, exponent = normalise(matrix @ (_steepest(low, high)[:, None] * product))
        total += exponent
    norm = float(np.linalg.norm(product, 2))
    return math.log2(norm) + total if norm > 0 else -math.inf


def _estimated_log2(chain: BlockChain) -> float:
    """Return the same logarithm, from below, without the product."""
    weights = [block.matrix for block in chain.blocks]
    slopes = [_steepest(low, high) for low, high in zip(chain.alphas, chain.betas)]
    sizes = [math.sqrt(absolute_norm_squared(weight)) or 1.0 for weight in weights]

    def forward(vectors: np.ndarray) -> np.ndarray:
        for weight, slope, size in zip(weights, [*slopes, 1.0], sizes):
            vectors = slope * (vectors @ weight.T / size)
        return vectors

    def backward(vectors: np.ndarray) -> np.ndarray:
        for weight, slope, size in zip(weights[::-1], [1.0, *slopes[::-1]], sizes[::-1]):
            vectors = (slope * vectors) @ weight / size
        return vectors

    start = np.random.default_rng(0).standard_normal((1, weights[0].shape[1]))
    norms, _ = power_iteration(forward, backward, start, tol=1e-8)
    norm = float(norms[0])
    return math.log2(norm) + sum(map(math.log2, sizes)) if norm > 0 else -math.inf


def _steepest(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the end of larger magnitude of every slope range."""
    return np.where(np.abs(high) >= np.abs(low), high, low)
