"""Proved spectral norms of sparse matrices, such as those of convolutions of any size.

The Gram matrix of a convolution couples neighbouring pixels only: with its rows in a
suitable order it is a band, and a band is block-tridiagonal, so that c·I − G ⪰ 0 is
proved like any block-tridiagonal inequality, at a cost linear in the number of pixels
along one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

from harmonicvae.rounding import (
    UNIT,
    absolute_norm_squared,
    gamma,
    inflate,
    proves_positive_semidefinite,
    round_up,
)

#: Blocks are at least this large, so that a narrow band does not fall into countless blocks.
_SMALLEST_BLOCK = 96
#: Multiplications and bytes of a factorisation beyond which no proof by it is tried.
_MOST_OPERATIONS = 4e13
_MOST_BYTES = 3 * 2**30
#: Relative distance of the first square that is tried from the estimated largest eigenvalue;
#: it grows tenfold.
_FIRST_MARGIN = 1e-9
_LAST_MARGIN = 2e-2
#: Sizes up to which eigenvalues are computed densely.
_DENSE_SIZE = 400


@dataclass(frozen=True, eq=False)
class BandedGram:
    """MMᵀ of a sparse matrix as a block-tridiagonal matrix, with a bound on its error.

    Parameters
    ----------
    gram : csr_array of shape (n, n)
        Symmetric, in float64.
    error : float
        Bound on ‖MMᵀ − gram‖₂.
    order : ndarray of int of shape (n,)
        Row of MMᵀ that comes first, second, …
    width : int
        Largest distance of an entry from the diagonal in that order.
    """

    gram: csr_array
    error: float
    order: np.ndarray
    width: int

    @classmethod
    def of(cls, matrix: csr_array) -> BandedGram:
        """Form MMᵀ and order its rows by reverse Cuthill–McKee.

        Each entry is a sum of at most k products, k the entries of a row, in some order, so
        that |MMᵀ − computed| ≤ γ_k|M||M|ᵀ; symmetrising rounds once more.
        """
        product = matrix @ matrix.T
        gram = csr_array(0.5 * (product + product.T))
        terms = int(np.max(np.diff(matrix.indptr), initial=0))
        error = inflate(gamma(terms + 4) * absolute_norm_squared(matrix))
        order = np.asarray(reverse_cuthill_mckee(csr_matrix(gram), symmetric_mode=True))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        entries = gram.tocoo()
        distances = np.abs(place[entries.row] - place[entries.col])
        return cls(gram, error, order, int(np.max(distances, initial=0)))

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.gram.shape[0])

    @property
    def block(self) -> int:
        """Number of rows of a block; entries lie in neighbouring blocks at most."""
        return min(self.size, max(self.width, _SMALLEST_BLOCK))

    @property
    def operations(self) -> float:
        """Multiplications of one factorisation, roughly."""
        return 6.0 * self.size * float(self.block) ** 2

    @property
    def is_affordable(self) -> bool:
        """True if a factorisation is short enough, and small enough in memory."""
        bytes_taken = 4 * 8.0 * self.size * self.block
        return self.operations <= _MOST_OPERATIONS and bytes_taken <= _MOST_BYTES

    @cached_property
    def largest_eigenvalue(self) -> float:
        """The largest eigenvalue, estimated from below in float64, ≥ the largest diagonal entry."""
        floor = float(np.max(self.gram.diagonal(), initial=0.0))
        if self.size <= _DENSE_SIZE:
            return max(floor, float(np.linalg.eigvalsh(self.gram.toarray())[-1]))
        start = np.random.default_rng(0).standard_normal(self.size)
        try:
            found = eigsh(self.gram, 1, v0=start, tol=1e-8, ncv=40, return_eigenvectors=False)
        except ArpackNoConvergence as failure:
            found = failure.eigenvalues
        except ArpackError:
            found = []
        return max([floor, *map(float, found)])

    @cached_property
    def blocks(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Dense blocks on the diagonal and below it."""
        ordered = csr_array(self.gram[self.order][:, self.order])
        starts = range(0, self.size, self.block)
        cuts = [slice(start, min(start + self.block, self.size)) for start in starts]
        diagonal = [ordered[cut, cut].toarray() for cut in cuts]
        lower = [ordered[after, before].toarray() for before, after in pairwise(cuts)]
        return diagonal, lower

    def is_below(self, square: float) -> bool:
        """Prove MMᵀ ⪯ square·I; False says nothing."""
        diagonal, lower = self.blocks
        shifted = [square * np.eye(len(block)) - block for block in diagonal]
        subtraction = 4.0 * UNIT * (square + self.largest_eigenvalue)
        # the error of the whole matrix bounds that of each of its blocks only if it is
        # counted once: as a multiple of the identity, taken off the square
        own = [inflate(self.error + subtraction)] * len(shifted)
        return proves_positive_semidefinite(shifted, [-block for block in lower], own)


def sparse_norm(matrix: csr_array, simple: float) -> float:
    """Compute a proved upper bound of the largest singular value of a sparse matrix.

    Parameters
    ----------
    matrix : csr_array of shape (m, n)
        Entries of order one.
    simple : float
        A bound that is known.

    Returns
    -------
    float
        ≥ ‖M‖₂, all rounding errors included, and ≤ ``simple``; as a rule within 1e-8 of
        ‖M‖₂. ``simple`` where the band of the Gram matrix is too wide.

    Notes
    -----
    G = MMᵀ on the side with the cheaper band; c² is raised from a Lanczos estimate of
    λmax(G) until c²I − G ⪰ 0 is proved. Cost O(n·w²), w the width of the band.

    Examples
    --------
    >>> value = sparse_norm(csr_array(np.diag([0.5, 0.75])), 1.0)
    >>> 0.75 <= value < 0.75 * (1 + 1e-8)
    True
    """
    gram = _cheaper_gram(matrix)
    if not gram.is_affordable:
        return simple
    top = gram.largest_eigenvalue
    rounding = 2.0 * gram.error + 64.0 * (gram.block + 8) * UNIT * top
    margin = max(_FIRST_MARGIN * top, rounding)
    while margin <= _LAST_MARGIN * top:
        value = round_up(math.sqrt(top + margin))
        if value >= simple:
            break
        if gram.is_below(float(np.nextafter(value * value, 0.0))):
            return value
        margin *= 10.0
    return simple


def sparse_norm_is_at_most(matrix: csr_array, value: float) -> bool:
    """Prove that a sparse matrix has spectral norm at most ``value``.

    Parameters
    ----------
    matrix : csr_array of shape (m, n)
        Entries of order one.
    value : float
        The claimed bound, ≥ 0.

    Returns
    -------
    bool
        True is a proof; False says nothing.

    Examples
    --------
    >>> matrix = csr_array([[0.5, 0.5]])
    >>> sparse_norm_is_at_most(matrix, 0.7072), sparse_norm_is_at_most(matrix, 0.7071)
    (True, False)
    """
    gram = _cheaper_gram(matrix)
    return gram.is_affordable and gram.is_below(float(np.nextafter(value * value, 0.0)))


def _cheaper_gram(matrix: csr_array) -> BandedGram:
    """Return the Gram matrix of rows or of columns, whichever takes fewer operations."""
    sides = [BandedGram.of(matrix), BandedGram.of(csr_array(matrix.T))]
    return min(sides, key=lambda side: side.operations)
