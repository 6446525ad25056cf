"""Affine maps of flat samples as dense or sparse matrices, and how large these may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, eye_array, kron

from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.matrices import Matrix, dense, is_sparse

#: Largest matrix of one layer, bytes (16,384 × 16,384 in float64).
MAX_MATRIX_BYTES = 2 * 2**30
#: Maps with mostly zero entries are kept dense if a side of each matrix is no longer, as in
#: networks of as many hidden neurons.
DENSE_SIDE = 4096

Shape = tuple[int, ...]


class AffineMap(NamedTuple):
    """x ↦ matrix·x + bias on flat samples, and the shape of its result.

    Parameters
    ----------
    matrix : ndarray or csr_array of shape (out, in), float64
    bias : ndarray of shape (out,), float64
    shape : tuple of int
        Shape of one output sample; its product is ``out``.
    """

    matrix: Matrix
    bias: np.ndarray
    shape: Shape


def check_matrix(rows: int, columns: int, layer: str) -> None:
    """Refuse a layer without outputs, or one whose dense matrix is too large.

    Parameters
    ----------
    rows, columns : int
        Size of the matrix.
    layer : str
        What to call it in the message.

    Raises
    ------
    InputError
        If a size is ≤ 0.
    UnsupportedNetworkError
        If the matrix would take more than :data:`MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> check_matrix(64, 3072, "Linear at '0'")
    """
    if rows <= 0 or columns <= 0:
        raise InputError(
            f"{layer} must have at least one input and one output, got {columns} and {rows}"
        )
    if 8 * rows * columns > MAX_MATRIX_BYTES:
        raise UnsupportedNetworkError(
            f"cannot read {layer}: as a dense matrix it is {rows} × {columns}, "
            f"{8 * rows * columns / 2**30:.3g} GiB, more than {MAX_MATRIX_BYTES / 2**30:.3g} GiB; "
            "use a smaller image or fewer channels"
        )


def check_entries(rows: int, columns: int, entries: int, layer: str) -> None:
    """Refuse a map without outputs, or one with too many entries ≠ 0.

    Parameters
    ----------
    rows, columns : int
        Size of its matrix.
    entries : int
        Entries that may be ≠ 0.
    layer : str
        What to call it in the message.

    Raises
    ------
    InputError
        If a size is ≤ 0.
    UnsupportedNetworkError
        If they would take more than :data:`MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> check_entries(64, 3072, 100, "Conv2d at '0'")
    """
    check_matrix(min(rows, 1), min(columns, 1), layer)
    if 16 * entries > MAX_MATRIX_BYTES:
        raise UnsupportedNetworkError(
            f"cannot read {layer}: its matrix of {rows} × {columns} has {entries} entries, "
            f"{16 * entries / 2**30:.3g} GiB, more than {MAX_MATRIX_BYTES / 2**30:.3g} GiB; "
            "use a smaller image or fewer channels; for the norm product of a torch module alone, "
            "harmonicvae.lipschitz.module_norm_product needs no matrix"
        )


def kept_forms(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Return the matrices of a network as they are to be kept: dense unless one is large.

    Parameters
    ----------
    matrices : sequence of ndarray or csr_array

    Returns
    -------
    list of ndarray or csr_array
        All dense if of each sparse one a side is at most :data:`DENSE_SIDE` and it would take
        at most :data:`MAX_MATRIX_BYTES`; else as they are.

    Examples
    --------
    >>> [type(item).__name__ for item in kept_forms([eye_array(2, format="csr"), np.eye(2)])]
    ['ndarray', 'ndarray']
    >>> kept_forms([eye_array(5000, format="csr")])[0].nnz
    5000
    """
    sizes = [matrix.shape for matrix in matrices if is_sparse(matrix)]
    small = all(min(m, n) <= DENSE_SIDE and 8 * m * n <= MAX_MATRIX_BYTES for m, n in sizes)
    return [dense(matrix) if small and is_sparse(matrix) else matrix for matrix in matrices]


def identity_map(size: int, layer: str) -> csr_array:
    """Return the identity matrix.

    Examples
    --------
    >>> identity_map(1, "ReLU").toarray()
    array([[1.]])
    """
    check_entries(size, size, size, layer)
    return csr_array(eye_array(size, format="csr"))


def repeat_sparse(block: csr_array, copies: int) -> csr_array:
    """Return the block-diagonal matrix with the same sparse block on the diagonal.

    Examples
    --------
    >>> repeat_sparse(csr_array([[2.0, 3.0]]), 2).toarray()
    array([[2., 3., 0., 0.],
           [0., 0., 2., 3.]])
    """
    return csr_array(kron(eye_array(copies, format="csr"), block, format="csr"))


def repeat_blocks(block: np.ndarray, copies: int, layer: str) -> np.ndarray:
    """Return the block-diagonal matrix with the same block on the diagonal.

    Parameters
    ----------
    block : ndarray of shape (out, in)
    copies : int
        ≥ 1.
    layer : str
        What to call it in an error.

    Returns
    -------
    ndarray of shape (copies·out, copies·in)

    Raises
    ------
    UnsupportedNetworkError
        If it would take more than :data:`MAX_MATRIX_BYTES`.

    Examples
    --------
    >>> repeat_blocks(np.array([[2.0, 3.0]]), 2, "Linear")
    array([[2., 3., 0., 0.],
           [0., 0., 2., 3.]])
    """
    rows, columns = block.shape
    check_matrix(copies * rows, copies * columns, layer)
    if copies == 1:
        return block
    matrix = np.zeros((copies, rows, copies, columns))
    numbers = np.arange(copies)
    matrix[numbers, :, numbers, :] = block
    return matrix.reshape(copies * rows, copies * columns)


def batch_norm(
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    layer: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of each channel of a normalisation with fixed statistics.

    Parameters
    ----------
    gamma, beta, mean, variance : ndarray of shape (channels,)
        γ·(x − mean) / √(variance + ε) + β.
    epsilon : float
        ε.
    layer : str
        What to call it in an error.

    Returns
    -------
    scale, shift : ndarray of shape (channels,)
        γ / √(variance + ε) and β − mean·scale.

    Raises
    ------
    InputError
        If shapes differ, variance + ε is not > 0, or a result is not finite.

    Notes
    -----
    Computed in float64: the scale has a relative error of at most 2⁻⁵¹, the shift an
    absolute one of at most 2⁻⁵¹·(|β| + 2·|mean·scale|). The network that is read is the
    one with these coefficients.

    Examples
    --------
    >>> ones = np.ones(1)
    >>> batch_norm(ones, 0 * ones, 2 * ones, 4 * ones, 0.0, "BatchNorm1d")
    (array([0.5]), array([-1.]))
    """
    shapes = {array.shape for array in (gamma, beta, mean, variance)}
    if shapes != {(gamma.size,)}:
        raise InputError(f"{layer} must have four vectors of one length, got {sorted(shapes)}")
    spread = variance + epsilon
    if not np.all(spread > 0):
        raise InputError(f"{layer} must have running variance + eps > 0, got {spread.min()}")
    with np.errstate(over="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(spread)
        shift = beta - mean * scale
    if not (np.all(np.isfinite(scale)) and np.all(np.isfinite(shift))):
        raise InputError(f"{layer} has a scale or shift that overflows float64")
    return scale, shift
