"""Values that a network's Jacobian truly attains, kinks and the edges of a box included."""

from __future__ import annotations

import numpy as np

from harmonicvae.exceptions import SolverError
from harmonicvae.matrices import rows_that_see
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import spectral_norm
from harmonicvae.rounding import UNIT

#: How often a point on a kink is moved, each time ten times farther.
_TRIES = 8


def attained_norm(
    network: LayeredNetwork,
    point: np.ndarray,
    region: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:
    """Compute ‖J‖₂ at an input, or right beside it where the sides of kinks are certain.

    Parameters
    ----------
    network : LayeredNetwork
        Any network.
    point : ndarray of shape (input_dim,)
        In the box, if there is one.
    region : pair of ndarray of shape (input_dim,) or None
        Box of inputs; inputs with equal ends do not count.

    Returns
    -------
    norm : float
        By SVD in float64: at most the Lipschitz constant (on the box), up to rounding.
        0 if the box is one point, or no point without doubt about a kink is found.
    point : ndarray of shape (input_dim,)
        Where it is attained.

    Raises
    ------
    SolverError
        If the Jacobian exceeds the largest float64.

    Notes
    -----
    A pre-activation that rounding errors could carry across a kink would combine slopes
    that no input has together; the point is then moved, inside the box.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]]], activation="relu")
    >>> box = np.array([-1.0]), np.array([0.0])
    >>> attained_norm(network, np.array([0.0]), box)[0], attained_norm(network, np.zeros(1))[0] >= 0
    (0.0, True)
    """
    free = np.ones(len(point), dtype=bool) if region is None else region[1] > region[0]
    if not np.any(free):
        return 0.0, point
    rng = np.random.default_rng(0)
    size = max(1.0, float(np.max(np.abs(point))))
    for attempt in range(_TRIES):
        moved = point
        if attempt > 0:
            moved = point + size * 10.0 ** (attempt - 12) * rng.standard_normal(len(point))
        if region is not None:
            moved = _inside(moved, region, attempt)
        if not _is_doubtful(network, moved):
            return _norm(network, moved, free), moved
    return 0.0, point


def _inside(point: np.ndarray, region: tuple[np.ndarray, np.ndarray], attempt: int) -> np.ndarray:
    """Return a point moved into the box, off its edges from the second attempt on."""
    low, high = region
    if attempt > 0:
        with np.errstate(invalid="ignore"):
            margin = np.where(np.isfinite(high - low), (high - low) * 10.0 ** (attempt - 10), 0.0)
        low, high = low + margin, high - margin
    return np.clip(point, low, high)


def _norm(network: LayeredNetwork, point: np.ndarray, free: np.ndarray) -> float:
    """Return the norm of the Jacobian's columns of the inputs that count."""
    with np.errstate(over="ignore", invalid="ignore"):
        jacobian = network.jacobian(point)[:, free]
    if not np.all(np.isfinite(jacobian)):
        raise SolverError("the Jacobian exceeds the largest float64; scale the network down")
    return spectral_norm(jacobian)


def _is_doubtful(network: LayeredNetwork, point: np.ndarray) -> bool:
    """Return whether rounding errors could carry a pre-activation across a kink."""
    if all(item.kink is None for item in network.activations):
        return False
    value, error = point, np.zeros(len(point))
    moving = np.ones(len(point), dtype=bool)  # what changes near the point at all
    with np.errstate(over="ignore", invalid="ignore"):
        for i, item in enumerate(network.activations):
            weight, bias = abs(network.weights[i]), network.biases[i]
            inner = network.weights[i] @ value + bias
            spread = weight @ np.abs(value) + np.abs(bias)
            doubt = (weight.shape[1] + 4) * UNIT * spread + weight @ error
            moving = rows_that_see(weight, moving)
            if item.kink is not None and np.any((np.abs(inner) <= doubt) & moving):
                return True
            value, slope = item.function(inner), np.abs(item.derivative(inner))
            error = 1.01 * slope * doubt + 8.0 * UNIT * np.abs(value)
            moving &= slope > 0
    return False
