"""Spectral norms: in float64, by power iteration, and as a proved upper bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from harmonicvae.exceptions import InputError
from harmonicvae.matrices import is_sparse, largest_entry
from harmonicvae.rounding import (
    UNIT,
    gamma,
    gram,
    normalise,
    product_up,
    proves_positive_semidefinite,
    round_up,
    scale_up,
)
from harmonicvae.sparse_norms import sparse_norm, sparse_norm_is_at_most

#: Dense matrices with more rows and columns, and no larger share of entries ≠ 0, are taken for
#: sparse ones.
_SPARSE_SIDE, _SPARSE_SHARE = 256, 0.05


def _as_matrix(matrix: Any) -> Any:
    """Return a finite, two-dimensional float64 array, sparse if it is."""
    if is_sparse(matrix):
        sparse = csr_array(matrix, dtype=np.float64, copy=True)
        sparse.sum_duplicates()
        _as_matrix(sparse.data[None, :])
        return sparse
    array = np.asarray(matrix)
    if array.dtype.kind not in "fiub":
        raise InputError(f"matrix must hold real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    if array.ndim != 2:
        raise InputError(f"matrix must have 2 dimensions, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InputError("matrix must be finite, got NaN or infinite entries")
    return array


def spectral_norm(matrix: np.ndarray) -> float:
    """Compute the largest singular value of a matrix in float64.

    Parameters
    ----------
    matrix : array-like of shape (m, n)
        Finite real entries.

    Returns
    -------
    float
        ‖M‖₂, right up to rounding (not proved; see :func:`certified_spectral_norm`).

    Raises
    ------
    InputError
        If the matrix is not two-dimensional, real and finite.

    Notes
    -----
    Singular value decomposition after scaling by a power of two; cost O(mn·min(m, n)).

    Examples
    --------
    >>> spectral_norm([[3.0, 0.0], [0.0, -4.0]])
    4.0
    """
    scaled, exponent = normalise(_as_matrix(matrix))
    if scaled.size == 0:
        return 0.0
    return scale_up(float(np.linalg.svd(scaled, compute_uv=False)[0]), exponent)


def power_iteration(
    matvec: Callable[[np.ndarray], np.ndarray],
    rmatvec: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    max_iter: int = 200,
    tol: float = 1e-10,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the spectral norms of a batch of linear operators from below.

    Parameters
    ----------
    matvec : callable
        Maps an ndarray of shape (k, n), row i a vector for operator i, to (k, m).
    rmatvec : callable
        The transposed operators, (k, m) to (k, n).
    start : ndarray of shape (k, n)
        Starting vectors, not orthogonal to the wanted singular vectors.
    max_iter : int, default=200
        Iterations at most, ≥ 1.
    tol : float, default=1e-10
        Stop once no estimate grows by more than this fraction.

    Returns
    -------
    norms : ndarray of shape (k,)
        ‖A_i v_i‖₂ at the last vectors: at most ‖A_i‖₂, up to rounding.
    vectors : ndarray of shape (k, n)
        The unit vectors v_i.

    Raises
    ------
    InputError
        If ``max_iter`` < 1.

    Notes
    -----
    An estimate, never an upper bound. Each iteration costs one matvec and one rmatvec.

    Examples
    --------
    >>> scale = np.array([[3.0], [5.0]])
    >>> norms, _ = power_iteration(lambda v: scale * v, lambda u: scale * u, np.ones((2, 4)))
    >>> norms
    array([3., 5.])
    """
    if max_iter < 1:
        raise InputError(f"max_iter must be >= 1, got {max_iter}")
    vectors = _unit_rows(start)[0]
    norms = np.zeros(len(start))
    for _ in range(max_iter):
        images, grown = _unit_rows(matvec(vectors))
        settled = np.all(grown <= norms * (1.0 + tol))
        if settled:
            return np.maximum(norms, grown), vectors
        norms = grown
        pulled, size = _unit_rows(rmatvec(images))
        vectors = np.where(size[:, None] > 0, pulled, vectors)
    return np.linalg.norm(matvec(vectors), axis=1), vectors


def _unit_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows scaled to unit length, and their lengths; zero rows stay zero."""
    peak = np.max(np.abs(rows), axis=1, initial=0.0)
    safe = np.where(peak > 0, peak, 1.0)
    scaled = rows / safe[:, None]
    length = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(length > 0, length, 1.0)[:, None], length * peak


def certified_spectral_norm(matrix: np.ndarray) -> float:
    """Compute a proved upper bound of the largest singular value of a matrix.

    Parameters
    ----------
    matrix : array-like or csr_array of shape (m, n)
        Finite real entries of any magnitude.

    Returns
    -------
    float
        A float64 number ≥ ‖M‖₂, all rounding errors included; as a rule within
        1e-9 of it, relatively. 0 exactly if the matrix is zero; ``inf`` if the norm
        exceeds the largest float64.

    Raises
    ------
    InputError
        If the matrix is not two-dimensional, real and finite.

    Notes
    -----
    The matrix is scaled by a power of two, G = MMᵀ formed on its short side with
    an error bound, and c raised from √λmax(G) until c²I − G ⪰ 0 is proved
    (:func:`harmonicvae.rounding.proves_positive_semidefinite`). c² is rounded
    downwards, error bounds upwards. Where min(‖M‖_F, √(‖M‖₁‖M‖_∞)) is as
    good, or no c passes, that value is returned, rounded upwards. Cost
    O(mn·min(m, n)). For sparse matrices, and large dense ones with few entries ≠ 0, see
    :func:`harmonicvae.sparse_norms.sparse_norm`.

    References
    ----------
    S. M. Rump, "Verification of positive definiteness", BIT 46 (2006).

    Examples
    --------
    >>> value = certified_spectral_norm([[3.0, 0.0], [0.0, 4.0]])
    >>> 4.0 <= value <= 4.0 * (1 + 1e-9)
    True
    >>> certified_spectral_norm([[0.0, 0.0]])
    0.0
    """
    scaled, exponent = normalise(_as_matrix(matrix))
    if largest_entry(scaled) == 0.0:
        return 0.0
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    simple = _simple_norm(short)
    longest_row = math.sqrt(float(np.max((scaled * scaled).sum(axis=1))))
    longest_column = math.sqrt(float(np.max((scaled * scaled).sum(axis=0))))
    if simple <= max(longest_row, longest_column) * (1.0 + 1e-11):
        return scale_up(simple, exponent)
    entries = _as_sparse(scaled)
    if entries is not None:
        value = sparse_norm(entries, simple)
        if value < simple or is_sparse(scaled):
            return scale_up(value, exponent)
    return scale_up(min(simple, _verified_norm(short)), exponent)


def _as_sparse(matrix: Any) -> csr_array | None:
    """Return a matrix as a sparse one, None if it is not large with few entries ≠ 0."""
    if is_sparse(matrix):
        return matrix
    limit = _SPARSE_SHARE * matrix.size
    few = min(matrix.shape) > _SPARSE_SIDE and np.count_nonzero(matrix) <= limit
    return csr_array(matrix) if few else None


def _simple_norm(matrix: Any) -> float:
    """Return min(‖M‖_F, √(‖M‖₁‖M‖_∞)) rounded upwards, for entries of order one."""
    absolute = abs(matrix)
    widening = 1.0 + gamma(matrix.size + 4)
    frobenius = math.sqrt(float((absolute * absolute).sum()))
    columns = float(np.max(absolute.sum(axis=0)))
    rows = float(np.max(absolute.sum(axis=1)))
    narrow = 1.0 + gamma(max(matrix.shape) + 4)
    mixed = product_up([math.sqrt(columns * rows), narrow])
    return round_up(min(product_up([frobenius, widening]), mixed))


def _verified_norm(short: np.ndarray) -> float:
    """Return the smallest tried c with c²I − MMᵀ ⪰ 0 proved; inf if none is."""
    product, product_error = gram(short)
    size = len(short)
    try:
        top = float(np.linalg.eigvalsh(product)[-1])
    except np.linalg.LinAlgError:
        return math.inf
    top = max(top, float(np.max(np.diag(product))))
    margin = 1.1 * product_error + 32.0 * (size + 8) * UNIT * top
    while margin < 1e-3 * top:
        value = round_up(math.sqrt(top + margin))
        square = float(np.nextafter(value * value, 0.0))
        error = product_error + 4.0 * UNIT * square
        if proves_positive_semidefinite([square * np.eye(size) - product], (), [error]):
            return value
        margin *= 2.0
    return math.inf


def norm_is_at_most(matrix: np.ndarray, value: float) -> bool:
    """Prove that a matrix has spectral norm at most ``value``.

    Parameters
    ----------
    matrix : array-like or csr_array of shape (m, n)
        Finite real entries.
    value : float
        The claimed bound, ≥ 0.

    Returns
    -------
    bool
        True is a proof; False says nothing.

    Notes
    -----
    Cost O(mn·min(m, n)).

    Examples
    --------
    >>> norm_is_at_most([[1.0, 1.0]], 1.4143), norm_is_at_most([[1.0, 1.0]], 1.4142)
    (True, False)
    """
    scaled, exponent = normalise(_as_matrix(matrix))
    if largest_entry(scaled) == 0.0:
        return value >= 0.0
    if value == math.inf or value <= 0.0:
        return value == math.inf
    claimed = math.frexp(value)
    if claimed[1] - exponent > 500:
        return True  # the entries are below 1 and far fewer than 2**500
    bound = math.ldexp(claimed[0], max(claimed[1] - exponent, -1000))
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    if _simple_norm(short) <= bound:
        return True
    entries = _as_sparse(scaled)
    if entries is not None:
        proved = sparse_norm_is_at_most(entries, bound)
        if proved or is_sparse(scaled):
            return proved
    product, product_error = gram(short)
    square = float(np.nextafter(bound * bound, 0.0))
    error = product_error + 4.0 * UNIT * square
    return proves_positive_semidefinite([square * np.eye(len(short)) - product], (), [error])
