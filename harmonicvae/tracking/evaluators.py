"""MLflow evaluator plugins: Lipschitz bounds and maximum damage of a registered model.

Used as ``mlflow.models.evaluate("models:/harmonicvae-cifar10/1", data,
model_type="vae", evaluators=["lipschitz", "max_damage"], evaluator_config={...})``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any, ClassVar

import mlflow
import numpy as np
import pandas as pd
from mlflow.models.evaluation import EvaluationResult, ModelEvaluator

from harmonicvae import names
from harmonicvae.attacks import ATTACKS, attack
from harmonicvae.attacks.metrics import (
    damage_bound_ratio,
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import METHODS
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import AttackResult, Bound
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors
from harmonicvae.tracking.artifacts import store_artifacts
from harmonicvae.tracking.lipschitz_bounds import (
    DEFAULT_METHODS,
    DEFAULT_OPTIONS,
    SolverOptions,
    best_bound,
    lipschitz_artifacts,
    measure_side,
)
from harmonicvae.tracking.runs import log_metrics
from harmonicvae.tracking.specs import StoreSpec


class VAEEvaluator(ModelEvaluator):
    """Base of the plugins: finds estimator and data, stores what the evaluation returns.

    The author of an evaluator writes ``_measure`` and the table ``OPTIONS`` of allowed
    options with their defaults.
    """

    OPTIONS: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **kwargs: Any) -> bool:
        """Accept models of type "vae" only; MLflow asks every plugin about every model."""
        return model_type == names.MODEL_TYPE

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: Any,
        model: Any = None,
        extra_metrics: Any = None,
        custom_artifacts: Any = None,
        predictions: Any = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Measure the model and log metrics and artifacts into the run.

        Raises
        ------
        InputError
            If the model is not one of harmonicvae's, or an option is unknown.
        """
        options = self._options(evaluator_config)
        estimator = _estimator(model)
        X = np.asarray(getattr(dataset.features_data, "values", dataset.features_data))
        metrics, contents = self._measure(estimator, X, options)
        store = StoreSpec(tracking_uri=mlflow.get_tracking_uri(), experiment_id="")
        finite = {key: value for key, value in metrics.items() if np.isfinite(value)}
        log_metrics(store, run_id, finite, model_id=model_id)
        return EvaluationResult(metrics, store_artifacts(run_id, contents))

    def _options(self, config: Any) -> dict[str, Any]:
        """Return the options with defaults filled in, refusing unknown ones."""
        given = dict(config or {})
        unknown = sorted(set(given) - set(self.OPTIONS))
        if unknown:
            raise InputError(
                f"evaluator_config may hold {sorted(self.OPTIONS)}, got {', '.join(unknown)}"
            )
        return {**self.OPTIONS, **given}

    @abstractmethod
    def _measure(
        self, estimator: Any, X: np.ndarray, options: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return metrics, and artifacts' contents by path."""


class LipschitzEvaluator(VAEEvaluator):
    """Bounds of the ℓ2 Lipschitz constants of encoder mean and decoder.

    Options (``evaluator_config``): ``sides`` (both); ``methods`` (("norm_product",
    "eclipse_fast", "lipsdp_neuron", "best"): keys of ``harmonicvae.lipschitz.METHODS``, as they
    are published, with slopes from the activation alone, and "best"; those that do not apply to
    a network are left out); ``slopes`` (None: "propagated"; rule of "best"); ``gap`` (1e-6),
    ``max_size`` (3200) and ``device`` ("cpu") of LipSDP; ``n_points`` (512 data points for the
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


class MaxDamageEvaluator(VAEEvaluator):
    """Maximum-damage attack on the deterministic reconstruction x ↦ g(p(x)).

    Options (``evaluator_config``): ``radii`` ((10.0, 20.0), ℓ2, in input units),
    ``n_images`` (16, evenly spaced rows of the data), ``method`` ("apgd"), ``n_steps``,
    ``n_restarts`` (None: the method's own), ``box`` (None, or (low, high) for x+δ),
    ``random_state`` (0) and ``n_panels`` (4 images kept as arrays for figure 9).

    Metrics at each radius, mean and maximum over images: ``damage``,
    ``relative_damage``, ``log_likelihood_degradation``, ``reproduction_log_ratio``,
    ``damage_bound_ratio`` (damage over radius times the smallest certified bounds of both
    networks, those of the evaluator "lipschitz" if it has just run); ``attack_seconds``.
    """

    name = names.EVALUATOR_MAX_DAMAGE
    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "radii": (10.0, 20.0),
        "n_images": 16,
        "method": "apgd",
        "n_steps": None,
        "n_restarts": None,
        "box": None,
        "random_state": 0,
        "n_panels": 4,
    }

    def _measure(
        self, estimator: Any, X: np.ndarray, options: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        if options["method"] not in ATTACKS:
            raise InputError(f"method must be one of {sorted(ATTACKS)}, got {options['method']!r}")
        images = np.unique(np.linspace(0, len(X) - 1, min(len(X), options["n_images"])).astype(int))
        x = X[images].astype(np.float64)
        started = time.perf_counter()
        budget = {
            key: options[key] for key in ("n_steps", "n_restarts") if options[key] is not None
        }
        results: Any = attack(
            estimator.encoder_,
            estimator.decoder_,
            x,
            _radii(options["radii"]),
            options["method"],
            box=options["box"],
            random_state=options["random_state"],
            **budget,
        )
        seconds = time.perf_counter() - started
        bounds = [
            best_bound(LayeredNetwork.from_module(getattr(estimator, f"{side}_")))
            for side in names.SIDES
        ]
        table = pd.concat(
            [_attack_table(result, images, x, bounds) for result in results], ignore_index=True
        )
        metrics = _attack_metrics(table) | {names.ATTACK_SECONDS: seconds}
        kept = min(options["n_panels"], len(images))
        return metrics, {
            names.ARTIFACT_ATTACKS: table,
            names.ARTIFACT_ATTACK_ARRAYS: _attack_arrays(results, images, x, kept),
        }


def _radii(values: Any) -> list[float]:
    """Return the radii as floats; the attack checks their range."""
    try:
        return [float(value) for value in np.atleast_1d(values)]
    except (TypeError, ValueError):
        raise InputError(f"radii must be numbers >= 0, got {values!r}") from None


def _attack_table(
    result: AttackResult, images: np.ndarray, x: np.ndarray, bounds: list[Bound]
) -> pd.DataFrame:
    """Return one row an image with all metrics at one radius."""
    encoder_bound, decoder_bound = bounds
    certified = all(record.status == "certified" for record in bounds)
    before, after = result.decoding, result.attacked_decoding
    return pd.DataFrame(
        {
            names.IMAGE: images,
            names.RADIUS: result.radius,
            "method": result.method,
            names.DAMAGE: result.damage,
            names.RELATIVE_DAMAGE: relative_damage(result.damage, before),
            names.DEGRADATION: log_likelihood_degradation(x, before, after),
            names.REPRODUCTION_DEGRADATION: reproduction_log_ratio(before, after)[0],
            names.BOUND_RATIO: damage_bound_ratio(
                result.damage,
                encoder_bound.value,
                decoder_bound.value,
                result.radius,
                certified=certified,
            ),
        }
    )


def _attack_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return mean and maximum over images at each radius."""
    columns = [column for column in names.ATTACK_COLUMNS if column in table.columns]
    measured = [c for c in columns if c not in (names.IMAGE, names.RADIUS, "method")]
    radii = [float(radius) for radius in table[names.RADIUS].unique()]
    return {
        names.attack_metric(column, radius, statistic): float(part[column].agg(statistic))
        for radius, part in ((r, table[table[names.RADIUS] == r]) for r in radii)
        for column in measured
        for statistic in ("mean", "max")
    }


def _attack_arrays(
    results: list[AttackResult], images: np.ndarray, x: np.ndarray, kept: int
) -> dict[str, np.ndarray]:
    """Return what figure 9 shows, for the first images."""
    arrays = {
        "attack_images": images[:kept],
        "attack_radii": np.array([result.radius for result in results]),
        "attack_originals": x[:kept],
        "attack_inputs": np.stack([x[:kept] + result.perturbation[:kept] for result in results]),
        "attack_decodings": np.stack([result.attacked_decoding[:kept] for result in results]),
        "decodings": results[0].decoding[:kept],
    }
    return {
        key: value.astype(np.float32) if value.ndim > 1 else value for key, value in arrays.items()
    }


def _estimator(model: Any) -> Any:
    """Return the estimator inside a pyfunc model."""
    try:
        estimator = model.unwrap_python_model().estimator
        estimator.encoder_  # noqa: B018 - a model of another kind has no encoder
    except Exception as error:
        raise InputError(
            "the evaluators need a model stored by harmonicvae, got "
            f"{type(model).__name__}; store it with harmonicvae.tracking.registry.log_model"
        ) from error
    return estimator
