"""Matrices that may be dense or sparse: the few operations that both need under one name."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from scipy.sparse import csr_array, issparse

Matrix = np.ndarray | csr_array


def is_sparse(matrix: Any) -> TypeGuard[csr_array]:
    """Tell whether a matrix is kept as its nonzero entries alone.

    Examples
    --------
    >>> is_sparse(csr_array(np.eye(2))), is_sparse(np.eye(2))
    (True, False)
    """
    return bool(issparse(matrix))


def dense(matrix: Any) -> np.ndarray:
    """Return a new dense array.

    Examples
    --------
    >>> dense(csr_array(np.eye(1)))
    array([[1.]])
    """
    return matrix.toarray() if is_sparse(matrix) else np.array(matrix)


def largest_entry(matrix: Any) -> float:
    """Return the largest absolute value of an entry, 0 for an empty matrix.

    Examples
    --------
    >>> largest_entry(csr_array(-np.eye(2)))
    1.0
    """
    entries = matrix.data if is_sparse(matrix) else matrix
    return float(np.max(np.abs(entries), initial=0.0))


def scaled(matrix: Any, exponent: int) -> Any:
    """Return matrix · 2**exponent, dense or sparse as it was.

    Examples
    --------
    >>> float(scaled(csr_array(np.eye(2)), 3).max())
    8.0
    """
    return _with_entries(matrix, np.ldexp(matrix.data if is_sparse(matrix) else matrix, exponent))


def _with_entries(matrix: Any, entries: np.ndarray) -> Any:
    """Return the entries in the pattern of a sparse matrix, or as they are.

    The pattern is copied: SciPy sorts the indices of a matrix in place, with its own entries
    only, when an operation needs them sorted.
    """
    if not is_sparse(matrix):
        return entries
    pattern = (entries, matrix.indices.copy(), matrix.indptr.copy())
    return csr_array(pattern, shape=matrix.shape)


def ones_like(matrix: csr_array) -> csr_array:
    """Return ones where a sparse matrix has entries.

    Examples
    --------
    >>> ones_like(csr_array([[3.0, 0.0]])).toarray()
    array([[1., 0.]])
    """
    return _with_entries(matrix, np.ones(len(matrix.data)))


def plus_constant(matrix: Any, value: float) -> Any:
    """Add a number to every entry that is kept.

    Examples
    --------
    >>> plus_constant(csr_array(np.eye(2)), 1.0).toarray()
    array([[2., 0.],
           [0., 2.]])
    """
    return _with_entries(matrix, (matrix.data if is_sparse(matrix) else matrix) + value)


def rows_times(factors: np.ndarray, matrix: Any) -> Any:
    """Return diag(factors) · matrix.

    Examples
    --------
    >>> rows_times(np.array([2.0, 3.0]), csr_array(np.eye(2))).toarray()
    array([[2., 0.],
           [0., 3.]])
    """
    if not is_sparse(matrix):
        return factors[:, None] * matrix
    return _with_entries(matrix, np.repeat(factors, np.diff(matrix.indptr)) * matrix.data)


def submatrix(matrix: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    """Return the rows and columns where boolean arrays are true.

    Examples
    --------
    >>> submatrix(csr_array(np.eye(2)), np.array([True, False]), np.array([True, True])).shape
    (1, 2)
    """
    if not is_sparse(matrix):
        return matrix[np.ix_(rows, columns)]
    return csr_array(matrix[np.flatnonzero(rows)][:, np.flatnonzero(columns)])


def rows_that_see(matrix: Any, columns: np.ndarray) -> np.ndarray:
    """Tell which rows have an entry ≠ 0 in a column where a boolean array is true.

    Examples
    --------
    >>> rows_that_see(np.eye(2), np.array([True, False]))
    array([ True, False])
    """
    if not is_sparse(matrix):
        return np.any(matrix[:, columns] != 0.0, axis=1)
    seen = (matrix.data != 0.0) & columns[matrix.indices]
    numbers = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(numbers[seen], minlength=matrix.shape[0]) > 0


def columns_that_are_seen(matrix: Any, rows: np.ndarray) -> np.ndarray:
    """Tell which columns have an entry ≠ 0 in a row where a boolean array is true.

    Examples
    --------
    >>> columns_that_are_seen(csr_array(np.eye(2)), np.array([True, False]))
    array([ True, False])
    """
    if not is_sparse(matrix):
        return np.any(matrix[rows] != 0.0, axis=0)
    chosen = np.repeat(rows, np.diff(matrix.indptr)) & (matrix.data != 0.0)
    return np.bincount(matrix.indices[chosen], minlength=matrix.shape[1]) > 0


def columns_times(matrix: Any, factors: np.ndarray) -> Any:
    """Return matrix · diag(factors).

    Examples
    --------
    >>> columns_times(csr_array(np.eye(2)), np.array([2.0, 3.0])).toarray()
    array([[2., 0.],
           [0., 3.]])
    """
    if not is_sparse(matrix):
        return matrix * factors
    return _with_entries(matrix, matrix.data * factors[matrix.indices])
