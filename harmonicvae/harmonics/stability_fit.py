"""Hermite weights from the noise-stability curve by non-negative least squares.

The curve S(ρ) = Σ ρ^k W_k is known at ρ = cos(2πl/J).  In the angle it is a cosine series whose
coefficient at frequency n is A_n = Σ_k X_nk·W_k with X_nk ≥ 0: the mean power of the rings at
that frequency.  Even frequencies know even degrees only, odd ones odd degrees.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from harmonicvae.exceptions import SolverError

#: A coefficient is never trusted more than this share of the largest one.
_FLOOR = 1e-9
#: Degrees beyond the reported ones are fitted up to this multiple of J/2, then as infinity.
_TAIL_REACH = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)


def ring_angles(max_degree: int) -> int:
    """Return how many points a ring needs for degrees up to ``max_degree``.

    Examples
    --------
    >>> ring_angles(8), ring_angles(1)
    (24, 12)
    """
    return 4 * -(-(2 * max_degree + 8) // 4)


def design_matrix(degrees: np.ndarray, n_angles: int) -> np.ndarray:
    """Return the cosine coefficients of cos^k θ on a ring.

    Parameters
    ----------
    degrees : ndarray of shape (q,)
        k ≥ 0; ``inf`` and ``-inf`` stand for an even and an odd degree beyond all.
    n_angles : int
        Points J, even.

    Returns
    -------
    ndarray of shape (J/2 + 1, q)
        X_nk ≥ 0, columns sum to 1; frequencies that the ring cannot tell apart are added.

    Examples
    --------
    cos² θ = ½ + ½ cos 2θ.

    >>> design_matrix(np.array([2.0]), 8).ravel().round(12)
    array([0.5, 0. , 0.5, 0. , 0. ])
    """
    angles = 2 * np.pi * np.arange(n_angles) / n_angles
    half = n_angles // 2
    cosines = np.cos(angles)
    powers = np.zeros((n_angles, len(degrees)))
    powers[0] = 1.0
    powers[half] = np.where(np.isinf(degrees), np.sign(degrees), 0.0)
    finite = np.isfinite(degrees)
    powers[:, finite] = cosines[:, None] ** degrees[finite]
    waves = np.cos(np.outer(np.arange(half + 1), angles)) * 2 / n_angles
    waves[[0, -1]] /= 2
    return np.maximum(waves @ powers, 0.0)


def fit_weights(
    coefficients: np.ndarray, errors: np.ndarray, max_degree: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit W_1 … W_K and the weight beyond K to cosine coefficients of the stability curve.

    Parameters
    ----------
    coefficients : ndarray of shape (r, J/2 + 1)
        A_n without ‖E g‖², one row a resample.
    errors : ndarray of shape (J/2 + 1,)
        Standard error of each coefficient: residuals are divided by it.
    max_degree : int
        K ≥ 1.

    Returns
    -------
    weights : ndarray of shape (r, K)
        ≥ 0.
    tail : ndarray of shape (r,)
        Σ_{k>K} W_k ≥ 0.

    Raises
    ------
    SolverError
        If least squares did not converge.

    Notes
    -----
    Degrees beyond K are further unknowns, so that they do not pass for K.  Two problems of
    about J/4 equations each (even and odd degrees), columns scaled to length 1.

    References
    ----------
    Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23.

    Examples
    --------
    >>> curve = design_matrix(np.array([1.0, 3.0]), 16) @ np.array([[2.0], [0.5]])
    >>> weights, tail = fit_weights(curve.T, np.ones(9), 4)
    >>> weights.round(6), tail.round(6)
    (array([[2. , 0. , 0.5, 0. ]]), array([0.]))
    """
    n_angles = 2 * (coefficients.shape[1] - 1)
    degrees = _fitted_degrees(max_degree, n_angles)
    design = design_matrix(degrees, n_angles)
    largest = float(np.abs(coefficients[0]).max())
    precision = 1.0 / np.maximum(errors, _FLOOR * largest) if largest > 0 else np.ones_like(errors)
    found = np.zeros((len(coefficients), len(degrees)))
    if largest > 0:
        even = np.array([k > 0 if np.isinf(k) else k % 2 == 0 for k in degrees])
        for parity, columns in ((0, even), (1, ~even)):
            rows = np.arange(len(errors)) % 2 == parity
            scaled = design[np.ix_(rows, columns)] * precision[rows, None]
            found[:, columns] = _solve(scaled, coefficients[:, rows] * precision[rows])
    return found[:, :max_degree], found[:, max_degree:].sum(axis=1)


def _fitted_degrees(max_degree: int, n_angles: int) -> np.ndarray:
    """Return 1 … K, then degrees that stand for the tail, of both parities."""
    half = n_angles / 2
    tail = {max_degree + 1, max_degree + 2}
    for reach in _TAIL_REACH:
        degree = int(reach * half)
        tail |= {degree, degree + 1}
    beyond = sorted(degree for degree in tail if degree > max_degree)
    return np.array([*range(1, max_degree + 1), *beyond, np.inf, -np.inf], dtype=np.float64)


def _solve(design: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Solve non-negative least squares for each row of data."""
    lengths = np.linalg.norm(design, axis=0)
    columns = design / lengths
    sizes = np.linalg.norm(data, axis=1)
    out = np.zeros((len(data), design.shape[1]))
    for row, (values, size) in enumerate(zip(data, sizes, strict=True)):
        if size > 0:
            try:
                out[row] = nnls(columns, values / size, maxiter=50 * len(lengths))[0] * size
            except RuntimeError as error:
                raise SolverError(f"non-negative least squares did not end: {error}") from error
    return out / lengths
