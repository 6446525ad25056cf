"""Proofs in float64: a priori rounding errors, upward rounding, positive semidefiniteness.

The proofs assume IEEE 754 double precision with rounding to nearest, and matrix
products that sum ordinary products in any order, with or without fused
multiply-add (every ordinary BLAS; not Strassen's algorithm). Underflow and
flush-to-zero are covered by :data:`TINY`, because every matrix is first scaled
by a power of two to entries of order one.

References
----------
N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections
3.1 and 3.5. S. M. Rump, "Verification of positive definiteness", BIT 46 (2006),
433–452.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.matrices import largest_entry, scaled

#: Unit roundoff of float64.
UNIT = 2.0**-53
#: Added to every error bound: more than all underflows of a matrix with entries of order one.
TINY = 1e-290
#: Covers the rounding of an error bound's own evaluation, up to 2**32 operations on terms ≥ 0.
_SLACK = 1.0 + 2.0**-20


def inflate(value: float) -> float:
    """Return an upper bound of a sum of terms ≥ 0 that was evaluated in float64.

    Parameters
    ----------
    value : float
        Result of at most 2**32 float64 operations (+, ×, ÷, √) on terms ≥ 0.

    Returns
    -------
    float
        ``value`` times 1 + 2⁻²⁰, plus :data:`TINY`.

    Examples
    --------
    >>> inflate(1.0) > 1.0
    True
    """
    return float(value) * _SLACK + TINY


def gamma(count: int) -> float:
    """Return an upper bound of γ_n = n·u / (1 − n·u), u = 2⁻⁵³.

    Parameters
    ----------
    count : int
        Number n of roundings in a row, ≥ 0.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If n·u ≥ ½: no error bound exists for such long sums.

    Examples
    --------
    >>> 2**-53 <= gamma(1) < 1.2e-16
    True
    """
    if count * UNIT >= 0.5:
        raise InputError(f"rounding errors of {count} operations cannot be bounded in float64")
    return inflate(count * UNIT / (1.0 - count * UNIT))


def round_up(value: float) -> float:
    """Return the next float64 above ``value``: an upper bound of one rounded operation.

    Examples
    --------
    >>> round_up(1.0) == 1.0 + 2**-52
    True
    """
    return float(np.nextafter(value, math.inf))


def scale_up(value: float, exponent: int) -> float:
    """Return ``value``·2**exponent, rounded upwards where it under- or overflows.

    Examples
    --------
    >>> scale_up(0.75, 4), scale_up(0.75, -5000), scale_up(0.75, 5000)
    (12.0, 5e-324, inf)
    """
    if value == 0.0 or not math.isfinite(value):
        return value
    mantissa, own = math.frexp(value)
    if own + exponent > 1024:
        return math.inf
    if own + exponent < -1021:  # the result may be subnormal, so that the scaling itself rounds
        return round_up(math.ldexp(mantissa, max(own + exponent, -1100)))
    return math.ldexp(mantissa, own + exponent)


def product_up(factors: Iterable[float], exponent: int = 0) -> float:
    """Return an upper bound of 2**exponent · Π factors, without premature over- or underflow.

    Parameters
    ----------
    factors : iterable of float
        Factors, each ≥ 0; an infinite factor gives ``inf`` unless another one is 0.
    exponent : int, default=0
        Power of two that multiplies the product.

    Returns
    -------
    float
        Each multiplication is followed by one step to the next float64 above.

    Examples
    --------
    >>> 6.0 <= product_up([2.0, 3.0]) < 6.0 + 1e-14
    True
    >>> 1.0 <= product_up([1e300, 1e300, 1e-300, 1e-300]) * (1 + 1e-12) < 1 + 1e-11
    True
    >>> product_up([0.0, 7.0])
    0.0
    """
    values = [float(factor) for factor in factors]
    if 0.0 in values:
        return 0.0
    mantissa = 1.0
    for value in values:
        if math.isinf(value):
            return math.inf
        part, own = math.frexp(value)
        mantissa, shift = math.frexp(round_up(mantissa * part))
        exponent += own + shift
    return scale_up(mantissa, exponent)


def normalise(matrix: Any) -> tuple[Any, int]:
    """Scale a matrix by a power of two so that its largest entry lies in [½, 1).

    Parameters
    ----------
    matrix : ndarray or csr_array of float64
        Finite entries.

    Returns
    -------
    scaled : ndarray or csr_array
        ``matrix`` · 2**−exponent; exact but for entries that become subnormal, whose
        error is below :data:`TINY` in any norm used here.
    exponent : int
        0 for a zero or empty matrix.

    Examples
    --------
    >>> normalise(np.array([[8.0, 2.0]]))
    (array([[0.5  , 0.125]]), 4)
    """
    exponent = math.frexp(largest_entry(matrix))[1]
    if exponent == 0:
        return matrix, 0
    return scaled(matrix, -exponent), exponent


def absolute_norm_squared(matrix: Any) -> float:
    """Return an upper bound of ‖ |M| ‖₂², |M| the matrix of absolute values.

    Parameters
    ----------
    matrix : ndarray or csr_array of shape (m, n)
        Entries of order one.

    Returns
    -------
    float
        min(‖M‖_F², ‖M‖₁‖M‖_∞), rounded upwards; also bounds ‖M‖₂².

    Notes
    -----
    Cost O(mn).
    """
    absolute = abs(matrix)
    frobenius = float((absolute * absolute).sum())
    columns = float(np.max(absolute.sum(axis=0), initial=0.0))
    rows = float(np.max(absolute.sum(axis=1), initial=0.0))
    return inflate(min(frobenius, columns * rows))


def gram(matrix: np.ndarray, error: float = 0.0) -> tuple[np.ndarray, float]:
    """Return M Mᵀ in float64 and a bound on its error in the spectral norm.

    Parameters
    ----------
    matrix : ndarray of shape (m, n)
        Float64 matrix M, entries of order one.
    error : float, default=0.0
        Bound on the spectral norm of (true matrix − M).

    Returns
    -------
    product : ndarray of shape (m, m)
    product_error : float
        Bound on ‖true M Mᵀ − product‖₂: γ_r ‖|M|‖₂² + 2‖M‖₂·error + error², r as in
        :func:`product_in_parts`.

    Notes
    -----
    Cost O(m²n). Higham, equation (3.13).
    """
    size = absolute_norm_squared(matrix)
    product, roundings = product_in_parts(matrix, matrix)
    bound = gamma(roundings + 1) * size + (2.0 * math.sqrt(size) + error) * error
    return product, inflate(bound)


def product_in_parts(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, int]:
    """Return A Bᵀ in float64, summed in parts, and the number of roundings in a row.

    Parameters
    ----------
    left, right : ndarray of shape (m, k) and (n, k)
        Float64 matrices A and B.

    Returns
    -------
    product : ndarray of shape (m, n)
    roundings : int
        r with |A Bᵀ − product| ≤ γ_r |A||B|ᵀ entry by entry, underflow apart.

    Notes
    -----
    Parts of c ≥ 64 of the k terms are summed by the matrix product, in whatever order, with
    error γ_c, and the ⌈k/c⌉ results one after the other: r = c + ⌈k/c⌉ − 1 grows with √k
    instead of k. Higham, section 4.2. Cost O(mnk).

    Examples
    --------
    >>> product, roundings = product_in_parts(np.ones((1, 10000)), np.ones((1, 10000)))
    >>> float(product[0, 0]), roundings
    (10000.0, 199)
    """
    terms = left.shape[1]
    size = max(64, math.ceil(math.sqrt(terms)))
    if terms <= 2 * size:
        return left @ right.T, terms
    total = left[:, :size] @ right[:, :size].T
    for start in range(size, terms, size):
        part = slice(start, start + size)
        total += left[:, part] @ right[:, part].T
    return total, size + math.ceil(terms / size) - 1


def proves_positive_semidefinite(
    diagonal: Sequence[np.ndarray],
    lower: Sequence[np.ndarray] = (),
    diagonal_error: Sequence[float] | None = None,
    lower_error: Sequence[float] | None = None,
) -> bool:
    """Prove that a symmetric block-tridiagonal matrix is positive semidefinite.

    Parameters
    ----------
    diagonal : sequence of k ndarrays of shape (n_i, n_i)
        Symmetric diagonal blocks in float64.
    lower : sequence of k − 1 ndarrays of shape (n_{i+1}, n_i)
        Blocks below the diagonal.
    diagonal_error, lower_error : sequence of float, default=None
        Bounds on the spectral norm of (true block − given block); None means 0.

    Returns
    -------
    bool
        True is a proof, for every matrix within the given errors, rounding errors
        included. False says nothing: the matrix may be indefinite or too close to singular.

    Notes
    -----
    With any computed block-bidiagonal L and shifts c_i, A = LLᵀ + (C + A − C − LLᵀ)
    and LLᵀ ⪰ 0, so that A ⪰ 0 if c_i is at least the sum of the norms of the
    residual's blocks in row i. The residual is evaluated in float64 and its own
    rounding error bounded with γ_n, so nothing is assumed about the Cholesky
    factorisation or the triangular solves; in this it differs from Rump (2006),
    who bounds the factorisation a priori. Cost O(Σ n_i³), memory O(Σ n_i²).

    Examples
    --------
    >>> proves_positive_semidefinite([np.array([[2.0, 1.0], [1.0, 2.0]])])
    True
    >>> proves_positive_semidefinite([np.array([[1.0, 2.0], [2.0, 1.0]])])
    False
    >>> proves_positive_semidefinite([np.eye(2), np.eye(2)], [1.001 * np.eye(2)])
    False
    """
    count = len(diagonal)
    own = np.array(diagonal_error if diagonal_error is not None else [0.0] * count)
    links = np.array(lower_error if lower_error is not None else [0.0] * (count - 1))
    largest = np.array([np.max(np.abs(np.diag(block)), initial=0.0) for block in diagonal])
    sizes = np.array([len(block) for block in diagonal])
    neighbours = np.concatenate([[0.0], links]) + np.concatenate([links, [0.0]])
    shifts = 1.00001 * (own + neighbours) + 16.0 * (sizes + 8) * UNIT * largest + TINY
    for _ in range(4):
        needed = _residual_norms(diagonal, lower, own, links, shifts)
        if needed is None:
            return False
        if np.all(shifts >= needed):
            return True
        shifts = np.maximum(shifts, 1.5 * needed)
    return False


def _residual_norms(
    diagonal: Sequence[np.ndarray],
    lower: Sequence[np.ndarray],
    diagonal_error: np.ndarray,
    lower_error: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray | None:
    """Return the shift that each block row needs, or None if the factorisation breaks down."""
    needed = np.zeros(len(diagonal))
    factor = np.zeros((0, 0))
    for i, block in enumerate(diagonal):
        shifted = block - shifts[i] * np.eye(len(block))
        link = np.zeros((len(block), 0))
        if i > 0:
            link = solve_triangular(factor, lower[i - 1].T, lower=True, check_finite=False).T
            off_residual = residual_norm(lower[i - 1], [(link, factor)]) + lower_error[i - 1]
            needed[i - 1 : i + 1] += off_residual
        try:
            factor = np.linalg.cholesky(shifted - link @ link.T)
        except np.linalg.LinAlgError:
            return None
        residual = residual_norm(shifted, [(link, link), (factor, factor)])
        subtraction = 2.0 * UNIT * float(np.max(np.abs(np.diag(shifted)), initial=0.0))
        needed[i] += residual + subtraction + diagonal_error[i]
    needed = needed * _SLACK + TINY
    return needed if np.all(np.isfinite(needed)) else None


def residual_norm(target: np.ndarray, products: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return a proved upper bound of ‖T − Σ A Bᵀ‖₂.

    Parameters
    ----------
    target : ndarray of shape (m, n)
        T in float64.
    products : sequence of (A, B)
        Pairs of float64 matrices of shapes (m, k) and (n, k).

    Returns
    -------
    float
        Norm of the computed residual, plus γ_r ‖|A|‖₂‖|B|‖₂ for each product (r as in
        :func:`product_in_parts`), plus γ_{k+2} (‖|T|‖₂ + Σ ‖|A|‖₂‖|B|‖₂) for k subtractions.

    Notes
    -----
    Cost O(mnk).

    Examples
    --------
    >>> residual_norm(np.eye(2), [(np.eye(2), np.eye(2))]) < 1e-14
    True
    """
    value = target
    magnitude = math.sqrt(absolute_norm_squared(target))
    bound = 0.0
    for left, right in products:
        product, roundings = product_in_parts(left, right)
        value = value - product
        both = math.sqrt(absolute_norm_squared(left) * absolute_norm_squared(right))
        magnitude += both
        bound += gamma(roundings) * both
    bound += gamma(len(products) + 2) * magnitude
    return inflate(math.sqrt(absolute_norm_squared(value)) + bound)


def upper_gram_factor(matrix: np.ndarray, error: float = 0.0) -> np.ndarray:
    """Compute a square R with RRᵀ ⪰ MMᵀ, proved, and nearly equal.

    Parameters
    ----------
    matrix : ndarray of shape (m, n)
        Float64 matrix M, entries of order one.
    error : float, default=0.0
        Bound on the spectral norm of (true matrix − M); R holds for the true one.

    Returns
    -------
    ndarray of shape (m, m)
        Lower triangular.

    Raises
    ------
    SolverError
        If no factor passes the proof.

    Notes
    -----
    As {Mv : ‖v‖ ≤ 1} ⊆ {Rw : ‖w‖ ≤ 1}, a Lipschitz bound that holds with R as the first
    layer holds with M. Cost O(m²n).

    Examples
    --------
    >>> upper_gram_factor(np.array([[0.6, 0.8]])).round(6)
    array([[1.]])
    """
    product, product_error = gram(matrix, error)
    largest = float(np.max(np.diag(product), initial=0.0))
    shift = 1.00001 * product_error + 16.0 * (len(product) + 8) * UNIT * largest
    for _ in range(4):
        shifted = product + shift * np.eye(len(product))
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            break
        residual = residual_norm(shifted, [(factor, factor)])
        needed = inflate(residual + product_error + 4.0 * UNIT * (largest + shift))
        if shift >= needed:
            return factor
        shift = 1.5 * needed
    raise SolverError("the first layer's Gram matrix could not be factorised")
