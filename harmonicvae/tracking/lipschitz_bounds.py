"""Lipschitz bounds of one trained network: by each method, as metrics and as artifacts."""

from __future__ import annotations

import inspect
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.lipschitz import METHODS, bound, lower_bound
from harmonicvae.lipschitz.lipsdp import LARGEST_HIDDEN
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound, Bracket

#: What is computed by default: three published methods, and the best that is known.
DEFAULT_METHODS = ("norm_product", "eclipse_fast", "lipsdp_neuron", names.BEST)
#: Best bounds of the last networks of this process, by network and options.
_BEST_BOUNDS: OrderedDict[Any, Bound] = OrderedDict()
_BEST_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class SolverOptions:
    """How LipSDP is solved.

    Parameters
    ----------
    slopes : str or None, default=None
        Rule of the slope ranges of the best bound; None as in :func:`harmonicvae.lipschitz.bound`.
    gap : float, default=1e-6
        Relative duality gap at which to stop.
    max_size : int, default=4096
        Hidden neurons solved at once at most.
    device : str, default="cpu"
        Of torch.
    """

    slopes: str | None = None
    gap: float = 1e-6
    max_size: int = LARGEST_HIDDEN
    device: str = "cpu"

    def of_method(self, method: str) -> dict[str, Any]:
        """Return the options that one method takes."""
        known = inspect.signature(METHODS[method]).parameters
        return {key: value for key, value in asdict(self).items() if key in known}


#: The options of LipSDP where none are given.
DEFAULT_OPTIONS = SolverOptions()


@dataclass(frozen=True)
class SideBounds:
    """All bounds of one network.

    Parameters
    ----------
    network : LayeredNetwork
    uppers : dict of str to Bound
        By method; "best" for the smallest of several.
    lower : Bound
    errors : tuple of str
        Reproduction errors of the upper bounds.
    seconds : float
        Wall time of all of them.
    """

    network: LayeredNetwork
    uppers: Mapping[str, Bound]
    lower: Bound
    errors: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def bracket(self) -> Bracket | None:
        """The lower and the smallest certified bound; None if nothing was proved."""
        proved = [item for item in self.uppers.values() if item.status == "certified"]
        if not proved:
            return None
        return Bracket.joined(self.lower, min(proved, key=lambda item: item.value))

    def metrics(self, side: str) -> dict[str, float]:
        """Return the metrics; only proved values are called upper bounds.

        Parameters
        ----------
        side : {"encoder", "decoder"}

        Returns
        -------
        dict of str to float
        """
        metrics = {
            names.lipschitz_lower(side): self.lower.value,
            names.lipschitz_seconds(side): self.seconds,
        }
        for method, item in self.uppers.items():
            if item.status == "certified" and method != names.BEST:
                metrics[names.lipschitz_upper(side, method)] = item.value
        bracket = self.bracket
        if bracket is not None:
            metrics[names.lipschitz_lower(side)] = bracket.lower.value
            metrics[names.lipschitz_upper(side)] = bracket.upper.value
            metrics[names.lipschitz_ratio(side)] = bracket.ratio
        gap = self._gap()
        return metrics if gap is None else metrics | {names.lipschitz_gap(side): gap}

    def _gap(self) -> float | None:
        """Return the duality gap of the smallest bound that has one."""
        solved = [item for item in self.uppers.values() if "duality_gap" in item.details]
        if not solved:
            return None
        return min(solved, key=lambda item: item.value).details["duality_gap"]

    def rows(self, side: str) -> list[dict[str, Any]]:
        """Return the rows of bounds.csv, the same bound once.

        Parameters
        ----------
        side : {"encoder", "decoder"}

        Returns
        -------
        list of dict
        """
        bracket = self.bracket
        records = [self.lower if bracket is None else bracket.lower, *self.uppers.values()]
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for item in records:
            slopes = str(item.details.get("slopes", ""))
            key = (item.kind, item.method, slopes)
            found.setdefault(key, {names.SIDE: side, **item.to_dict(), "slopes": slopes})
        return list(found.values())


def measure_side(
    network: LayeredNetwork,
    points: np.ndarray,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    solver: SolverOptions = DEFAULT_OPTIONS,
    errors: tuple[str, ...] = (),
    n_steps: int = 100,
) -> SideBounds:
    """Bound one network's ℓ2 Lipschitz constant by several methods and from below.

    Parameters
    ----------
    network : LayeredNetwork
    points : ndarray of shape (n, input_dim)
        Where the lower bound starts, beside random inputs.
    methods : sequence of str
        Keys of ``METHODS``, with slopes from the activation alone, and "best"; those that do
        not apply to the network are left out.
    solver : SolverOptions
    errors : tuple of str
        Reproduction errors.
    n_steps : int
        Ascent steps of the lower bound.

    Returns
    -------
    SideBounds
    """
    started = time.perf_counter()
    uppers = {
        method: bound(network, method, errors, **solver.of_method(method))
        for method in methods
        if method != names.BEST and not METHODS[method]().unsuitable(network)
    }
    if names.BEST in methods:
        uppers[names.BEST] = best_bound(network, errors, solver, tuple(uppers.values()))
    lower = lower_bound(network, points, n_steps=n_steps)
    return SideBounds(network, uppers, lower, errors, time.perf_counter() - started)


def best_bound(
    network: LayeredNetwork,
    errors: tuple[str, ...] = (),
    solver: SolverOptions = DEFAULT_OPTIONS,
    known: Sequence[Bound] = (),
) -> Bound:
    """Return the smallest certified bound, computed once a process for the same network.

    Parameters
    ----------
    network : LayeredNetwork
    errors : tuple of str
        Reproduction errors.
    solver : SolverOptions
    known : sequence of Bound, default=()
        Bounds with these options that need not be computed again, where they are the same.

    Returns
    -------
    Bound

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> first = best_bound(network)
    >>> best_bound(LayeredNetwork.from_arrays([[[2.0]], [[3.0]]])) is first
    True
    """
    key = (network.hash, errors, solver)
    if key not in _BEST_BOUNDS:
        options = asdict(solver)
        slopes = options.pop("slopes")
        _BEST_BOUNDS[key] = bound(
            network, names.BEST, errors, slopes=slopes, known=known, **options
        )
    _BEST_BOUNDS.move_to_end(key)
    while len(_BEST_BOUNDS) > _BEST_KEPT:
        _BEST_BOUNDS.popitem(last=False)
    return _BEST_BOUNDS[key]


def lipschitz_artifacts(found: Mapping[str, SideBounds]) -> dict[str, Any]:
    """Return the contents of the artifacts by path.

    Parameters
    ----------
    found : mapping of str to SideBounds
        By side.

    Returns
    -------
    dict
        Table of bounds, certificates, weights, and what networks they are.
    """
    rows = [row for side, bounds in found.items() for row in bounds.rows(side)]
    columns = [column for column in names.BOUND_COLUMNS if column != names.MODEL]
    contents: dict[str, Any] = {
        names.ARTIFACT_BOUNDS: pd.DataFrame(rows, columns=columns),
        names.ARTIFACT_NETWORKS: {side: _described(side, item) for side, item in found.items()},
    }
    for side, bounds in found.items():
        network = bounds.network
        contents[names.weights_artifact(side)] = {
            "weights": list(network.weights),
            "bias": list(network.biases),
        }
        for method, item in bounds.uppers.items():
            if item.certificate is not None:
                contents[names.certificate_artifact(side, method)] = item.certificate
    return contents


def _described(side: str, bounds: SideBounds) -> dict[str, Any]:
    """Return what a network's weights file does not say."""
    network = bounds.network
    return {
        "weights": names.weights_artifact(side),
        "activations": [item.name for item in network.activations],
        "sizes": [network.input_dim, *network.hidden_dims, network.output_dim],
        "network_hash": network.hash,
        "certificates": {
            method: names.certificate_artifact(side, method)
            for method, item in bounds.uppers.items()
            if item.certificate is not None
        },
        "reproduction_errors": list(bounds.errors),
    }
