"""Top right singular vectors of the Jacobian of g∘p, without forming it."""

from __future__ import annotations

import torch
from torch import Tensor

from harmonicvae.attacks.problem import Problem


def top_singular_vectors(
    problem: Problem, rank: int = 3, n_iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Right singular vectors of the Jacobian of g∘p at every input, largest first.

    Parameters
    ----------
    problem : Problem
        Supplies Jacobian products and the random initial directions.
    rank : int, default=3
        Number of vectors, ≥ 1; at most d are returned.
    n_iterations : int, default=10
        Blocks of the Krylov space, ≥ 1.

    Returns
    -------
    vectors : Tensor of shape (n, rank, d)
        Orthonormal.
    values : Tensor of shape (n, rank)
        Singular value estimates ‖J·v‖, output units per input unit, descending; each is
        at most the true one, up to rounding.

    Notes
    -----
    Block Krylov iteration with full reorthogonalisation and one Rayleigh–Ritz step: an
    estimate.  Exact up to rounding where ``n_iterations``·``rank`` reaches d or the
    number of distinct singular values.  Cost: at most (2·``n_iterations`` − 1)·rank
    Jacobian products an input; memory O(n·``n_iterations``·rank·d).  Vectors that belong
    to singular value 0 are arbitrary.

    References
    ----------
    Musco & Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate
    Singular Value Decomposition", NeurIPS 2015, arXiv 1504.05477, algorithm 2.
    """
    width = problem.x.shape[1]
    rank = min(rank, width)
    basis = _orthonormal(problem.normal(rank))
    images = _finite(problem.push(basis))
    for _ in range(n_iterations - 1):
        missing = min(rank, width - basis.shape[1])
        if missing == 0:
            break
        block = _extend(problem, basis, images[:, -rank:], missing)
        basis = torch.cat([basis, block], dim=1)
        images = torch.cat([images, _finite(problem.push(block))], dim=1)
    return _ritz(basis, images, rank)


def _finite(values: Tensor) -> Tensor:
    """Replace NaN and infinities by 0, so that the decompositions do not fail."""
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _orthonormal(rows: Tensor) -> Tensor:
    """Orthonormalise the rows of every (rank, d) matrix."""
    return torch.linalg.qr(rows.mT).Q.mT.contiguous()


def _extend(problem: Problem, basis: Tensor, images: Tensor, count: int) -> Tensor:
    """Return ``count`` new orthonormal directions, from Jᵀ of the last images.

    Rows that lie in the span of ``basis`` up to rounding (the Krylov space is exhausted,
    or the Jacobian is 0) become random: their rounding errors are not new directions.
    """
    size = torch.linalg.vector_norm(images, dim=(1, 2), keepdim=True)
    scaled = images / size.clamp_min(torch.finfo(images.dtype).tiny)
    block = problem.pull(scaled)[:, :count]
    before = torch.linalg.vector_norm(block, dim=-1, keepdim=True)
    block = block - (block @ basis.mT) @ basis
    left = torch.linalg.vector_norm(block, dim=-1, keepdim=True)
    spent = left <= torch.finfo(block.dtype).eps ** 0.5 * before
    block = torch.where(spent, problem.normal(count), block)
    for _ in range(2):  # the first removal leaves a part where little was left of a row
        block = _orthonormal(block - (block @ basis.mT) @ basis)
    return block


def _ritz(basis: Tensor, images: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the leading singular vectors within the span of an orthonormal basis."""
    exact = images.double()
    squares, rotation = torch.linalg.eigh(exact @ exact.mT)
    leading = rotation[..., -rank:].flip(-1).mT.to(basis.dtype)
    values = squares[..., -rank:].flip(-1).clamp_min(0).sqrt()
    return leading @ basis, values.to(basis.dtype)
