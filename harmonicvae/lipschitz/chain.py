"""A network as Lipschitz methods see it: scaled affine blocks between nonlinear activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import certified_spectral_norm, norm_is_at_most
from harmonicvae.rounding import (
    absolute_norm_squared,
    gamma,
    inflate,
    normalise,
    product_up,
    round_up,
    scale_up,
    upper_gram_factor,
)


@dataclass(frozen=True)
class Block:
    """An affine map's matrix, scaled by a power of two.

    Parameters
    ----------
    matrix : ndarray of shape (out, in)
        Largest entry in [½, 1), or all zero.
    exponent : int
        The true matrix is about ``matrix`` · 2**exponent.
    error : float
        Bound on ‖true matrix · 2**−exponent − matrix‖₂; 0 for one layer of the
        network, positive where several were multiplied.
    """

    matrix: np.ndarray
    exponent: int
    error: float = 0.0

    @property
    def is_zero(self) -> bool:
        """True if the true matrix is exactly zero."""
        return self.error == 0.0 and not np.any(self.matrix)


@dataclass(frozen=True)
class BlockChain:
    """Affine blocks with slope ranges of the nonlinear activations between them.

    Parameters
    ----------
    blocks : tuple of Block
        L + 1 blocks.
    alphas, betas : tuple of float
        Slope range after each block but the last, alpha < beta.

    Notes
    -----
    Activations with a single slope (the identity between consecutive affine layers)
    are multiplied into the blocks, with a bound on the rounding error.
    """

    blocks: tuple[Block, ...]
    alphas: tuple[float, ...]
    betas: tuple[float, ...]

    @property
    def is_constant(self) -> bool:
        """True if a factor is exactly zero, so that outputs do not depend on inputs."""
        flat = any(a == 0.0 == b for a, b in zip(self.alphas, self.betas))
        return flat or any(block.is_zero for block in self.blocks)

    @property
    def exponent(self) -> int:
        """Sum of the blocks' exponents."""
        return sum(block.exponent for block in self.blocks)

    def layer_norms(self) -> tuple[float, ...]:
        """Return a proved upper bound of the spectral norm of each scaled matrix."""
        return tuple(certified_spectral_norm(block.matrix) for block in self.blocks)

    def norms_hold(self, norms: tuple[float, ...]) -> bool:
        """Prove that the scaled matrices have norms of at most the given values."""
        return len(norms) == len(self.blocks) and all(
            norm_is_at_most(block.matrix, norm) for block, norm in zip(self.blocks, norms)
        )

    def norm_product(self, norms: tuple[float, ...]) -> float:
        """Return the product of norms and largest slopes, each step rounded upwards."""
        if self.is_constant:
            return 0.0
        factors = [max(abs(a), abs(b)) for a, b in zip(self.alphas, self.betas)]
        for block, norm in zip(self.blocks, norms):
            factors.append(round_up(norm + block.error) if block.error else norm)
        return product_up(factors, self.exponent)

    def with_square_input(self) -> BlockChain:
        """Replace a wide first block by a square one that maps the unit ball onto no less.

        Raises
        ------
        SolverError
            If the factor cannot be proved.
        """
        first = self.blocks[0]
        rows, columns = first.matrix.shape
        if columns <= rows:
            return self
        square = replace(first, matrix=upper_gram_factor(first.matrix, first.error), error=0.0)
        return replace(self, blocks=(square, *self.blocks[1:]))


def build_chain(network: LayeredNetwork) -> BlockChain:
    """Scale a network's layers and multiply those that no nonlinear activation separates.

    Parameters
    ----------
    network : LayeredNetwork
        Any network.

    Returns
    -------
    BlockChain

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[4.0]], [[8.0]]], activation="relu")
    >>> build_chain(network).exponent
    9
    """
    blocks: list[Block] = []
    alphas: list[float] = []
    betas: list[float] = []
    current = Block(*normalise(network.weights[0]))
    for item, weight in zip(network.activations, network.weights[1:]):
        following = Block(*normalise(weight))
        if item.is_linear:
            current = _multiply(following, item.alpha, current)
            continue
        blocks.append(current)
        alphas.append(item.alpha)
        betas.append(item.beta)
        current = following
    return BlockChain((*blocks, current), tuple(alphas), tuple(betas))


def _multiply(left: Block, slope: float, right: Block) -> Block:
    """Return left · slope · right with a bound on the error; ``left`` has none itself."""
    if slope == 0.0 or left.is_zero or right.is_zero:
        return Block(np.zeros((left.matrix.shape[0], right.matrix.shape[1])), 0)
    factor, slope_exponent = math.frexp(slope)
    product = left.matrix @ (factor * right.matrix)
    left_norm = math.sqrt(absolute_norm_squared(left.matrix))
    right_norm = math.sqrt(absolute_norm_squared(right.matrix))
    rounding = gamma(left.matrix.shape[1] + 3) * left_norm * right_norm
    error = inflate(rounding + left_norm * right.error)
    scaled, shift = normalise(product)
    exponent = left.exponent + right.exponent + slope_exponent + shift
    return Block(scaled, exponent, scale_up(error, -shift))
