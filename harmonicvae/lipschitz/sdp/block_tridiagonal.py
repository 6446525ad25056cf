"""Symmetric block-tridiagonal matrices in torch: factorisation, inverse, products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BlockFactor:
    """Block-bidiagonal Cholesky factor C of a positive definite matrix, A = CCᵀ.

    Parameters
    ----------
    diagonal : list of Tensor of shape (n_i, n_i)
        Lower triangular blocks of C.
    below : list of Tensor of shape (n_{i+1}, n_i)
        Blocks of C below them.
    """

    diagonal: list[Tensor]
    below: list[Tensor]

    def solve(self, vector: Tensor) -> Tensor:
        """Return C⁻¹ v for a matrix v of columns."""
        parts = list(torch.split(vector, [len(block) for block in self.diagonal]))
        for i, block in enumerate(self.diagonal):
            if i > 0:
                parts[i] = parts[i] - self.below[i - 1] @ parts[i - 1]
            parts[i] = torch.linalg.solve_triangular(block, parts[i], upper=False)
        return torch.cat(parts)

    def solve_transposed(self, vector: Tensor) -> Tensor:
        """Return C⁻ᵀ v for a matrix v of columns."""
        parts = list(torch.split(vector, [len(block) for block in self.diagonal]))
        for i in reversed(range(len(parts))):
            if i + 1 < len(parts):
                parts[i] = parts[i] - self.below[i].T @ parts[i + 1]
            parts[i] = torch.linalg.solve_triangular(self.diagonal[i].T, parts[i], upper=True)
        return torch.cat(parts)

    def inverse(self, result: Tensor) -> Tensor:
        """Write A⁻¹ as a dense matrix into ``result`` and return it.

        Notes
        -----
        S_ij = −H_i S_{i+1,j} for j > i, S_ii = F_i⁻¹ + H_i S_{i+1,i+1} H_iᵀ with
        H_i = C_ii⁻ᵀ C_{i+1,i}ᵀ. Cost O(size² · n).
        """
        sizes = [len(block) for block in self.diagonal]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        for i in reversed(range(len(sizes))):
            own = slice(ends[i] - sizes[i], ends[i])
            identity = torch.eye(sizes[i], dtype=result.dtype, device=result.device)
            root = torch.linalg.solve_triangular(self.diagonal[i], identity, upper=False)
            corner = root.T @ root
            if i + 1 < len(sizes):
                later = slice(ends[i], ends[-1])
                link = (self.below[i] @ root).T
                row = -(link @ result[slice(ends[i], ends[i + 1]), later])
                result[own, later] = row
                result[later, own] = row.T
                corner -= row[:, : sizes[i + 1]] @ link.T
            result[own, own] = 0.5 * (corner + corner.T)
        return result


def factorise(diagonal: Sequence[Tensor], below: Sequence[Tensor]) -> BlockFactor | None:
    """Factorise a symmetric block-tridiagonal matrix, or find that it is not positive definite.

    Parameters
    ----------
    diagonal : sequence of Tensor of shape (n_i, n_i)
        Symmetric blocks.
    below : sequence of Tensor of shape (n_{i+1}, n_i)
        Blocks below the diagonal.

    Returns
    -------
    BlockFactor or None
        None if a pivot is not positive.

    Notes
    -----
    Cost O(Σ n_i³).
    """
    factors: list[Tensor] = []
    links: list[Tensor] = []
    for i, block in enumerate(diagonal):
        if i > 0:
            link = torch.linalg.solve_triangular(
                factors[-1].T, below[i - 1], upper=True, left=False
            )
            links.append(link)
            block = block - link @ link.T
        factor, info = torch.linalg.cholesky_ex(block)
        if int(info) != 0 or not bool(torch.isfinite(factor[-1, -1])):
            return None
        factors.append(factor)
    return BlockFactor(factors, links)
