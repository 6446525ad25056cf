"""Where to look for a large Jacobian norm: starting inputs, and steps that climb from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import lsqr

from harmonicvae.lipschitz.jacobians import JacobianSearch
from harmonicvae.matrices import is_sparse

#: Power iterations per step, each from the singular vector of the step before.
_SWEEPS = 1
#: Largest change of a first-layer pre-activation in one step of a smooth network.
_REACH = 5.0
#: Widths over which kinks are spread, in turn, relative to the layer's pre-activations.
_BLURS = (1.0, 0.3, 0.1, 0.03)
#: A step may fall this many times in a row before it is taken back.
_PATIENCE = 4

Projection = Callable[[np.ndarray], np.ndarray]


def random_starts(search: JacobianSearch, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw inputs where many first-layer neurons are steep or near their kink.

    Parameters
    ----------
    search : JacobianSearch
        Of a network with d reduced inputs.
    count : int
        Number of inputs, ≥ 0.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (count, d)
        First the least-squares solution of W_0 x = −b_0 and 0, then solutions for random
        subsets of the neurons, moved at random so that pre-activations change by 0.1 to 10
        (relative to their size where the network is piecewise linear).

    Notes
    -----
    Cost O(count · d³), for a sparse W_0 O(count · entries).
    """
    weight, bias = search.network.weights[0], search.network.biases[0]
    rows, dim = weight.shape
    gain = np.sqrt((weight * weight).sum() / rows) or 1.0
    centre = _least_squares(weight, -bias, 1e-6)
    points = np.zeros((count, dim))
    points[:1] = centre
    unit = 1.0
    if is_piecewise_linear(search):
        unit = float(np.sqrt(np.mean(bias * bias))) or 1.0
    for i in range(2, count):
        size = int(rng.integers(1, min(rows, dim) + 1))
        chosen = rng.choice(rows, size, replace=False)
        base = _least_squares(weight[chosen], -bias[chosen], 1e-3)
        if i % 2 and np.linalg.norm(base) > 10.0 * (np.linalg.norm(centre) + unit / gain):
            base = centre
        points[i] = base + rng.standard_normal(dim) * unit / gain * 10.0 ** rng.uniform(-1, 1)
    return points


def _least_squares(weight: Any, target: np.ndarray, cut: float) -> np.ndarray:
    """Solve W x ≈ target; singular values below ``cut`` of the largest count as 0 if W is dense."""
    if is_sparse(weight):
        return np.asarray(lsqr(weight, target, atol=cut, btol=cut, iter_lim=100)[0])
    return np.asarray(np.linalg.lstsq(weight, target, rcond=cut)[0])


def is_piecewise_linear(search: JacobianSearch) -> bool:
    """Tell whether every activation is linear on both sides of 0."""
    names = {item.name for item in search.network.activations}
    return names <= {"relu", "leaky_relu", "identity"}


def climb(
    search: JacobianSearch,
    points: np.ndarray,
    n_steps: int,
    rng: np.random.Generator,
    project: Projection | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Climb ‖J(x)‖₂ from each of several inputs at once.

    Parameters
    ----------
    search : JacobianSearch
    points : ndarray of shape (n, d)
        Reduced inputs.
    n_steps : int
        Steps, ≥ 0.
    rng : numpy.random.Generator
        Used for networks with kinks only.
    project : callable, default=None
        Maps inputs into the allowed set.

    Returns
    -------
    points : ndarray of shape (n, d)
        The best input on each path.
    heights : ndarray of shape (n,)
        Norms there, estimated from below by power iteration.

    Notes
    -----
    Without kinks: spectral (Barzilai–Borwein) gradient steps, taken back where the norm
    stays below the best of the path for several steps. With kinks, where the norm jumps:
    steps along the gradient of the norm with blurred kinks, kept where the norm rises.
    Cost: eight passes through the network per input and step.

    References
    ----------
    M. Raydan, "The Barzilai and Borwein gradient method for the large scale unconstrained
    minimization problem", SIAM J. Optim. 7 (1997).
    """
    allowed = project or (lambda batch: batch)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN is never better, so never kept
        if has_kinks(search):
            return _climb_with_kinks(search, allowed(points), n_steps, rng, allowed)
        return _climb_smooth(search, allowed(points), n_steps, allowed)


def has_kinks(search: JacobianSearch) -> bool:
    """Tell whether some activation has no derivative at 0."""
    return any(item.kink is not None for item in search.network.activations)


def _finite_or(trial: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Return the rows of ``trial`` that are finite, others from ``instead``."""
    return np.where(np.all(np.isfinite(trial), axis=1, keepdims=True), trial, instead)


def _evaluate(
    search: JacobianSearch, points: np.ndarray, vectors: np.ndarray, blur: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return norms, gradients and right singular vectors, the latter from those given."""
    state = search.state(points)
    _, vectors = search.singular(state.slopes, vectors, _SWEEPS, 0.0)
    norms, gradients = search.gradients(state, vectors, blur)
    return norms, gradients, vectors


def _first_step(search: JacobianSearch, gradients: np.ndarray, reach: float) -> np.ndarray:
    """Return the multiple of each gradient that moves some first pre-activation by ``reach``."""
    moved = np.max(np.abs(gradients @ search.network.weights[0].T), axis=1, initial=0.0)
    return reach / np.where(moved > 0, moved, 1.0)


def _spectral_steps(moves: np.ndarray, changes: np.ndarray, even: bool) -> np.ndarray:
    """Return the Barzilai–Borwein step, long and short in turn; inf where undefined."""
    inner = np.abs(np.sum(moves * changes, axis=1))
    square = np.sum((moves if even else changes) ** 2, axis=1)
    top, bottom = (square, inner) if even else (inner, square)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.inf)


def _climb_smooth(
    search: JacobianSearch, points: np.ndarray, n_steps: int, allowed: Projection
) -> tuple[np.ndarray, np.ndarray]:
    """Climb where the norm has a gradient."""
    now = np.array(points)
    heights, gradients, vectors = _evaluate(search, now, search.starts(len(now)))
    best, top, slope_there, right_there = now, heights, gradients, vectors
    steps = _first_step(search, gradients, 0.04 * _REACH)
    back, failures = steps, np.zeros(len(now), dtype=int)
    for k in range(n_steps):
        longest = _first_step(search, gradients, _REACH)
        steps = np.minimum(steps, longest)
        trial = _finite_or(allowed(now + steps[:, None] * gradients), best)
        reached, following, vectors = _evaluate(search, trial, vectors)
        spectral = _spectral_steps(trial - now, following - gradients, k % 2 == 0)
        spectral = np.where(np.isfinite(spectral), spectral, 2.0 * steps)
        better = reached > top
        pick = better[:, None]
        best, slope_there = np.where(pick, trial, best), np.where(pick, following, slope_there)
        right_there = np.where(pick, vectors, right_there)
        back = np.where(better, np.maximum(spectral, 0.1 * steps), back)
        top = np.maximum(top, reached)
        failures = np.where(better, 0, failures + 1)
        lost = (failures >= _PATIENCE) | (reached < 0.9 * top)
        back = np.where(lost, 0.25 * np.minimum(back, longest), back)
        failures = np.where(lost, 0, failures)
        pick = lost[:, None]
        now, gradients = np.where(pick, best, trial), np.where(pick, slope_there, following)
        vectors = np.where(pick, right_there, vectors)
        steps = np.where(lost, back, spectral)
    return best, top


def _climb_with_kinks(
    search: JacobianSearch,
    points: np.ndarray,
    n_steps: int,
    rng: np.random.Generator,
    allowed: Projection,
) -> tuple[np.ndarray, np.ndarray]:
    """Climb where flipping a neuron makes the norm jump."""
    best, state = points, search.state(points)
    top, vectors = search.singular(state.slopes, search.starts(len(best)), 10, 0.0)
    size = np.sqrt(np.mean(state.values[0] ** 2, axis=1))
    unit = np.where(size > 0, size, 1.0)
    for k in range(n_steps):
        blur = _BLURS[k % len(_BLURS)]
        direction = search.gradients(search.state(best), vectors, blur)[1]
        if k % 3 == 2:
            length = np.linalg.norm(direction, axis=1, keepdims=True) / np.sqrt(best.shape[1])
            direction = direction + length * rng.standard_normal(best.shape)
        reach = unit * 10.0 ** rng.uniform(-2.0, 0.5, len(best))
        steps = _first_step(search, direction, 1.0) * reach
        trial = _finite_or(allowed(best + steps[:, None] * direction), best)
        slopes = search.state(trial).slopes
        reached, right = search.singular(slopes, vectors, _SWEEPS + 2, 0.0)
        better = reached > top
        top = np.where(better, reached, top)
        best = np.where(better[:, None], trial, best)
        vectors = np.where(better[:, None], right, vectors)
    return best, top


def polish(
    search: JacobianSearch,
    point: np.ndarray,
    max_iter: int,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Improve one input by L-BFGS-B with exact singular vectors.

    Parameters
    ----------
    search : JacobianSearch
    point : ndarray of shape (d,)
        Reduced input.
    max_iter : int
        Jacobians formed at most; 0 means none.
    bounds : pair of ndarray of shape (d,), default=None
        Box to stay in.

    Returns
    -------
    ndarray of shape (d,)
        ``point`` itself where the network has kinks or the norm there is 0 or not finite.
    """
    if has_kinks(search) or max_iter == 0:
        return point
    unit = _norm_and_gradient(search, point)[0]
    if not (np.isfinite(unit) and unit > 0):
        return point

    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        norm, gradient = _norm_and_gradient(search, x)
        return -norm / unit, -gradient / unit

    limits = None if bounds is None else list(zip(*bounds))
    options = {"maxiter": max_iter, "maxfun": max_iter}
    found = minimize(negative, point, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    return np.asarray(found.x) if np.all(np.isfinite(found.x)) else point


def _norm_and_gradient(search: JacobianSearch, point: np.ndarray) -> tuple[float, np.ndarray]:
    """Return ‖J(x)‖₂ and its gradient at one reduced input."""
    state = search.state(point[None])
    product = search.network.jacobian(point)
    if not np.all(np.isfinite(product)):
        return np.nan, np.zeros_like(point)
    scaled = product / (np.max(np.abs(product)) or 1.0)
    if product.shape[1] <= product.shape[0]:
        right = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    else:
        right = scaled.T @ np.linalg.eigh(scaled @ scaled.T)[1][:, -1]
    right = right / (np.linalg.norm(right) or 1.0)
    norms, gradients = search.gradients(state, right[None])
    return float(norms[0]), gradients[0]
