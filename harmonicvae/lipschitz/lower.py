"""Lower bounds of the ℓ2 Lipschitz constant: the largest Jacobian norm that a search finds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonicvae.lipschitz.arguments import whole_number
from harmonicvae.lipschitz.ascent import climb, polish, random_starts
from harmonicvae.lipschitz.attained import attained_norm
from harmonicvae.lipschitz.base import as_network
from harmonicvae.lipschitz.boxes import check_box
from harmonicvae.lipschitz.jacobians import JacobianSearch
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound

#: Of the ascent's best inputs, how many are recomputed from the whole Jacobian.
_FINALISTS = 3


def sampled_jacobian_norm(
    network: Any,
    x: Any = None,
    n_steps: int = 100,
    n_starts: int = 16,
    n_random: int = 32,
    random_state: int = 0,
    box: Sequence[Any] | None = None,
    tol: float = 1e-4,
    max_iter: int = 100,
) -> Bound:
    """Compute the largest Jacobian norm found among inputs, a lower bound of the constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...), default=None
        Inputs, n ≥ 1; images are flattened. None means random starts only.
    n_steps : int, default=100
        Steps of ascent on ‖J(x)‖₂, ≥ 0; 0 means none.
    n_starts : int, default=16
        Number of the best inputs in ``x`` from which to ascend, ≥ 1.
    n_random : int, default=32
        Random starts beside, ≥ 0, and ≥ 1 without ``x``: inputs where many first-layer
        neurons are steep or near a kink.
    random_state : int, default=0
        Seed ≥ 0 of the random starts; the same seed gives the same result.
    box : pair (low, high) of floats or array-likes of shape (input_dim,), default=None
        Inputs that count, low ≤ high; others are moved to the nearest point in it. The
        result bounds the constant on the box from below, hence also the global one.
    tol : float, default=1e-4
        Relative growth per power iteration below which the search stops; it affects
        which input is found best, not the value there.
    max_iter : int, default=100
        Power iterations at most, ≥ 1.

    Returns
    -------
    Bound
        ``kind="lower"``, ``status="float64"``, in output units per input unit; ``scope``
        "box" if one is given. ``details``: "point" (the input with that norm), "start"
        ("data" or "random": where the ascent to it started), "index" (row of ``x`` or number
        of the random start), "n_points" (inputs compared before the ascent), "median" (of
        the norms over ``x``, or over the random starts; estimated), "steps".

    Raises
    ------
    UnsupportedNetworkError
        If a layer has no exact form.
    InputError
        If ``x`` or ``box`` does not fit or a number is out of its range.
    SolverError
        If a Jacobian exceeds the largest float64.

    Notes
    -----
    At points: for no other inputs. Inputs are compared in chunks after replacing a wide
    first and a tall last layer by its triangular factor: with at most 96 inputs or outputs
    through the eigenvalues of JJᵀ or JᵀJ, else by power iteration. All starts then climb at
    once (:func:`harmonicvae.lipschitz.ascent.climb`), after a quarter of the steps only the
    best quarter of them; the best one is polished by L-BFGS-B. The Jacobian of the winner is
    formed in float64 and its norm taken by SVD; the value is right up to the rounding of
    that. Cost O((n·s + (n_starts + n_random)·n_steps) · Σ out·in), s the number of inputs,
    outputs or iterations.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> sampled_jacobian_norm(network, [[1.0], [0.0]]).value
    1.5
    >>> sampled_jacobian_norm(network, [[1.0]], n_steps=0, n_random=0).value < 0.7
    True
    >>> round(sampled_jacobian_norm(network, box=(1.0, 2.0)).value, 3)
    0.63
    """
    network = as_network(network)
    _check_numbers(x, n_steps, n_starts, n_random, max_iter, random_state)
    started = time.perf_counter()
    region = None if box is None else check_box(network, box, outwards=False)
    search = JacobianSearch.of(network, tol, max_iter, keep_inputs=region is not None)
    rng = np.random.default_rng(random_state)
    pool = _Pool.of(search, network, x, n_random, rng, region)
    norms = search.norms(pool.reduced)
    counted = norms[: pool.n_data] if pool.n_data else norms
    chosen = np.concatenate(
        [
            np.argsort(-norms[: pool.n_data], kind="stable")[:n_starts],
            np.arange(pool.n_data, len(norms)),
        ]
    )
    candidates = [(pool.point(int(i)), int(i)) for i in [np.argmax(norms)]]
    if n_steps > 0:
        candidates += _ascend(search, pool, chosen, n_steps, rng)
    reached = [attained_norm(network, point, region) for point, _ in candidates]
    top = int(np.argmax([height for height, _ in reached]))
    (value, point), index = reached[top], candidates[top][1]
    return Bound(
        kind="lower",
        value=value,
        method="sampled_jacobian",
        status="float64",
        scope="global" if region is None else "box",
        seconds=time.perf_counter() - started,
        network_hash=network.hash,
        details={
            "index": index if index < pool.n_data else index - pool.n_data,
            "start": "data" if index < pool.n_data else "random",
            "point": point,
            "n_points": len(norms),
            "median": float(np.median(counted)),
            "steps": n_steps,
        },
    )


def _check_numbers(
    x: Any, n_steps: int, n_starts: int, n_random: int, max_iter: int, random_state: int
) -> None:
    """Refuse numbers out of range."""
    whole_number("n_steps", n_steps, 0)
    whole_number("n_starts", n_starts, 1)
    whole_number("n_random", n_random, 1 if x is None else 0)
    whole_number("max_iter", max_iter, 1)
    whole_number("random_state", random_state, 0)


@dataclass(frozen=True)
class _Pool:
    """Starting inputs: data first, then random ones, all inside the box."""

    search: JacobianSearch
    data: np.ndarray
    reduced: np.ndarray
    region: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(
        cls,
        search: JacobianSearch,
        network: LayeredNetwork,
        x: Any,
        n_random: int,
        rng: np.random.Generator,
        region: tuple[np.ndarray, np.ndarray] | None,
    ) -> _Pool:
        """Collect the starting inputs."""
        data = np.empty((0, network.input_dim)) if x is None else network.check_points(x)
        drawn = random_starts(search, n_random, rng)
        if region is not None and np.all(np.isfinite(region)):
            half = n_random // 2
            drawn[n_random - half :] = rng.uniform(*region, (half, network.input_dim))
        if region is not None:
            data, drawn = np.clip(data, *region), np.clip(drawn, *region)
        return cls(search, data, np.concatenate([search.reduce(data), drawn]), region)

    @property
    def n_data(self) -> int:
        """Number of inputs that were given."""
        return len(self.data)

    def point(self, index: int, reduced: np.ndarray | None = None) -> np.ndarray:
        """Return a start, or the input near it whose reduced form is ``reduced``."""
        origin = self.data[index] if index < self.n_data else None
        if reduced is None and origin is not None:
            return origin
        target = self.reduced[index] if reduced is None else reduced
        return self.search.expand(target, origin)

    def project(self, reduced: np.ndarray) -> np.ndarray:
        """Return inputs moved into the box, if there is one."""
        return reduced if self.region is None else np.clip(reduced, *self.region)


def _ascend(
    search: JacobianSearch,
    pool: _Pool,
    chosen: np.ndarray,
    n_steps: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, int]]:
    """Climb from the chosen starts; return the best inputs with the numbers of their starts."""
    first = max(1, n_steps // 4)
    points, heights = climb(search, pool.reduced[chosen], first, rng, pool.project)
    kept = np.argsort(-heights, kind="stable")[: max(2 * _FINALISTS, len(chosen) // 4)]
    points, heights = climb(search, points[kept], n_steps - first, rng, pool.project)
    order = np.argsort(-heights, kind="stable")[:_FINALISTS]
    found = [(pool.point(int(chosen[kept[i]]), points[i]), int(chosen[kept[i]])) for i in order]
    better = polish(search, points[order[0]], n_steps, pool.region)
    number = found[0][1]
    return [*found, (pool.point(number, pool.project(better)), number)]
