"""Hermite weights from the noise-stability curve by non-negative least squares.

The curve S(ρ) = Σ ρ^k W_k is known at ρ = cos(2πl/J).  In the angle it is a cosine series whose
coefficient at frequency n is A_n = Σ_k X_nk·W_k with X_nk ≥ 0: the mean power of the rings at
that frequency.  Even frequencies know even degrees only, odd ones odd degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog, nnls

from harmonicvae.exceptions import SolverError

#: A coefficient is never trusted more than this share of the largest one.
_FLOOR = 1e-7
#: Relative rounding error of amplitudes: smaller coefficients are taken as 0.
_ROUNDING = 1e-13
#: Status of a linear program without a least value, and of one that may be such.
_UNBOUNDED, _UNCLEAR = 3, 4
#: Degrees beyond the reported ones are all fitted up to the first multiple of J, then a pair at
#: each of the others, then infinity.
_TAIL_REACH = (2, 3, 4, 6, 8, 16)


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


@dataclass(frozen=True)
class Fit:
    """Hermite weights fitted to the stability curve, and all that the curve allows.

    Parameters
    ----------
    weights : ndarray of shape (r, K)
        W_1 … W_K ≥ 0, one row a resample, the original sample first.
    tail : ndarray of shape (r,)
        Σ_{k>K} W_k ≥ 0.
    lower, upper : ndarray of shape (K + 1,)
        Ends of the intervals of W_1 … W_K and of the tail.
    """

    weights: np.ndarray
    tail: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def fit_weights(
    coefficients: np.ndarray, errors: np.ndarray, max_degree: int, confidence: float
) -> Fit:
    """Fit W_1 … W_K and the weight beyond K to cosine coefficients of the stability curve.

    Parameters
    ----------
    coefficients : ndarray of shape (r, J/2 + 1)
        A_n without ‖E g‖², one row a resample, the original sample first.
    errors : ndarray of shape (r, J/2 + 1)
        Their standard errors, as every resample states them: residuals are divided by those
        of the original sample.
    max_degree : int
        K ≥ 1.
    confidence : float
        Level of the intervals, in (0, 1).

    Returns
    -------
    Fit

    Raises
    ------
    SolverError
        If least squares or a linear program did not converge.

    Notes
    -----
    Degrees beyond K are further unknowns, so that they do not pass for K.  Two problems of
    about J/4 equations each (even and odd degrees), columns scaled to length 1.

    An interval is the range of a weight over all non-negative spectra whose coefficients lie in
    a joint band around the measured ones (bootstrap-t: quantiles of the largest deviation of a
    resample over all frequencies, in its own standard errors, of the logarithm for frequencies
    ≥ 1).
    It so covers what the curve leaves open as well as the sampling error, and is wider than the
    percentiles of the resampled fits; each end is one linear program.  Where resamples of a
    heavy-tailed map leave a frequency open above, so may be an interval: its upper end is ∞.

    References
    ----------
    Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23.

    Examples
    --------
    >>> curve = design_matrix(np.array([1.0, 3.0]), 16) @ np.array([[2.0], [0.5]])
    >>> found = fit_weights(np.repeat(curve.T, 2, axis=0), np.full((2, 9), 1e-6), 4, 0.95)
    >>> found.weights[0].round(6), found.tail.round(6)
    (array([2. , 0. , 0.5, 0. ]), array([0., 0.]))
    """
    n_angles = 2 * (coefficients.shape[1] - 1)
    degrees = _fitted_degrees(max_degree, n_angles)
    design = design_matrix(degrees, n_angles)
    found = np.zeros((len(coefficients), len(degrees)))
    lower, upper = np.zeros((2, max_degree + 1))
    largest = float(np.abs(coefficients[0]).max())
    if largest > 0:
        rounding = np.full(errors.shape[1], _ROUNDING**2 * largest)
        rounding[0] = _ROUNDING * largest  # a difference; the others are sums of squares
        data = np.where(np.abs(coefficients) > rounding, coefficients, 0.0)
        errors = np.maximum(errors, _FLOOR * largest)
        trust = 1.0 / errors[0]
        band = _joint_band(data, errors, confidence)
        even = np.array([k > 0 if np.isinf(k) else k % 2 == 0 for k in degrees])
        for parity, columns in ((0, even), (1, ~even)):
            rows = np.arange(len(trust)) % 2 == parity
            scaled = design[np.ix_(rows, columns)] * trust[rows, None]
            found[:, columns] = _solve(scaled, data[:, rows] * trust[rows])
            fitted = scaled @ found[0, columns]
            low = np.minimum(band[0, rows] * trust[rows], fitted)
            high = np.maximum(band[1, rows] * trust[rows], fitted)
            for place, goal in _goals(degrees[columns], max_degree):
                ends = _range(goal, scaled, low, high)
                lower[place] += ends[0]
                upper[place] += ends[1]
    return Fit(found[:, :max_degree], found[:, max_degree:].sum(axis=1), lower, upper)


def _goals(degrees: np.ndarray, max_degree: int) -> list[tuple[int, np.ndarray]]:
    """Return which unknowns make up each W_k, and the tail as the last."""
    kept = [int(degree) for degree in degrees if abs(degree) <= max_degree]
    goals = [(degree - 1, (degrees == degree).astype(float)) for degree in kept]
    return [*goals, (max_degree, (np.abs(degrees) > max_degree).astype(float))]


def _joint_band(data: np.ndarray, errors: np.ndarray, confidence: float) -> np.ndarray:
    """Return the ends (2, J/2 + 1) of a band that holds all true coefficients at once.

    Bootstrap-t: deviations of a resample over its own standard error.  Mean powers (frequencies
    ≥ 1) that exceed two standard errors are compared by their logarithm, which is less skewed.
    """
    estimate = data[0]
    powers = (estimate > 2 * errors[0]) & (np.arange(len(estimate)) > 0)
    positive = np.where(powers, np.maximum(data, 1e-9 * estimate), 1.0)
    scale = np.where(powers, errors / positive, errors)
    moved = np.where(powers, np.log(positive), data)
    deviations = (moved[1:] - moved[0]) / scale[1:]
    tail = (1 + confidence) / 2
    above = np.quantile(deviations.max(axis=1), tail)
    below = np.quantile(-deviations.min(axis=1), tail)
    ends = np.stack([moved[0] - above * scale[0], moved[0] + below * scale[0]])
    with np.errstate(over="ignore"):  # ∞: no upper end
        return np.where(powers, np.exp(np.where(powers, ends, 0.0)), ends)


def _range(
    goal: np.ndarray, design: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[float, float]:
    """Return least and largest goal·W over W ≥ 0 with low ≤ design·W ≤ high; ∞ where open."""
    limits = np.concatenate([high, -low])
    bounded = np.isfinite(limits)  # a resample may leave a coefficient open above
    unit = float(np.abs(limits[bounded]).max(initial=0.0))
    if not unit > 0 and bounded.all():  # nothing measured and nothing uncertain
        return 0.0, 0.0
    unit = unit if unit > 0 else 1.0
    scale = design.max(axis=0)
    rows = (np.vstack([design, -design]) / scale)[bounded]
    limits = limits[bounded] / unit
    weights = goal / scale
    ends = []
    for sign in (1.0, -1.0):
        problem = {"c": sign * weights / weights.max(), "A_ub": rows, "b_ub": limits}
        found = linprog(**problem, method="highs")
        if found.status == _UNCLEAR:
            found = linprog(**problem, method="highs", options={"presolve": False})
        if found.status == _UNBOUNDED:
            ends.append(np.inf)
            continue
        if found.status != 0:
            raise SolverError(f"the range of a Hermite weight was not found: {found.message}")
        ends.append(max(float(sign * found.fun), 0.0) * unit * weights.max())
    return ends[0], ends[1]


def _fitted_degrees(max_degree: int, n_angles: int) -> np.ndarray:
    """Return 1 … K, then degrees that stand for the tail, of both parities."""
    last = _TAIL_REACH[0] * n_angles
    beyond = list(range(max_degree + 1, last + 1))
    for reach in _TAIL_REACH[1:]:
        beyond += [reach * n_angles, reach * n_angles + 1]
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
