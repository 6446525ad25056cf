"""MLflow evaluator plugin "lipschitz": bounds of a registered model's encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar

import numpy as np

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import METHODS
from harmonicvae.network import LayeredNetwork
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors
from harmonicvae.tracking.evaluator_base import VAEEvaluator
from harmonicvae.tracking.lipschitz_bounds import (
    DEFAULT_METHODS,
    DEFAULT_OPTIONS,
    SolverOptions,
    lipschitz_artifacts,
    measure_side,
)


class LipschitzEvaluator(VAEEvaluator):
    """Bounds of the ℓ2 Lipschitz constants of encoder mean and decoder.

    Options (``evaluator_config``): ``sides`` (both); ``methods`` (("norm_product",
    "eclipse_fast", "lipsdp_neuron", "best"): keys of ``harmonicvae.lipschitz.METHODS``, as they
    are published, with slopes from the activation alone, and "best"; those that do not apply to
    a network are left out); ``slopes`` (None: "propagated"; rule of "best"); ``gap`` (1e-6),
    ``max_size`` (4096) and ``device`` ("cpu") of LipSDP; ``n_points`` (512 data points for the
    lower bound), ``n_steps`` (100 ascent steps from the best of them), ``random_state`` (0, of
    the sampled codes) and ``reproduction_errors`` (()).

    Metrics: ``lipschitz_upper_l2_{side}`` (smallest certified bound),
    ``lipschitz_upper_l2_{side}_{method}``, ``lipschitz_lower_l2_{side}``,
    ``lipschitz_ratio_l2_{side}``, ``lipschitz_gap_l2_{side}`` (relative duality gap of LipSDP),
    ``lipschitz_seconds_{side}``.  A value without proof is logged in the table only, as an
    estimate.

    Artifacts in ``lipschitz/``: ``bounds.csv``; a certificate each side and method, and the
    weights as ``{side}.mat``, which ``harmonicvae verify`` takes; ``networks.json`` with
    activations and hashes.
    """

    name = names.EVALUATOR_LIPSCHITZ
    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "sides": names.SIDES,
        "methods": DEFAULT_METHODS,
        **asdict(DEFAULT_OPTIONS),
        "n_points": 512,
        "n_steps": 100,
        "random_state": 0,
        "reproduction_errors": (),
    }

    def _measure(
        self, estimator: Any, X: np.ndarray, options: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        solver, errors = _checked(options)
        found = {
            side: measure_side(
                LayeredNetwork.from_module(getattr(estimator, f"{side}_")),
                _points(estimator, side, X, options),
                options["methods"],
                solver=solver,
                errors=errors,
                n_steps=options["n_steps"],
            )
            for side in options["sides"]
        }
        metrics: dict[str, float] = {}
        for side, bounds in found.items():
            metrics |= bounds.metrics(side)
        return metrics, lipschitz_artifacts(found)


def _checked(options: dict[str, Any]) -> tuple[SolverOptions, tuple[str, ...]]:
    """Return the solver's options and the reproduction errors; refuse unknown words."""
    for key, allowed in (("sides", names.SIDES), ("methods", (*METHODS, names.BEST))):
        unknown = sorted(set(options[key]) - set(allowed))
        if unknown:
            raise InputError(f"{key} must be among {sorted(allowed)}, got {', '.join(unknown)}")
    errors = check_reproduction_errors(options["reproduction_errors"], LIPSCHITZ_ERRORS)
    solver = SolverOptions(**{item.name: options[item.name] for item in fields(SolverOptions)})
    return solver, tuple(sorted(errors))


def _points(estimator: Any, side: str, X: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Return where the lower bound starts: data; for the decoder mean codes and the prior."""
    count = options["n_points"]
    points = X[np.linspace(0, len(X) - 1, min(len(X), count)).astype(int)]
    if side == "encoder":
        return points
    draw = np.random.default_rng(options["random_state"])
    prior = draw.standard_normal((count, estimator.latent_dim))
    return np.concatenate([estimator.transform(points.astype(np.float64)), prior])
