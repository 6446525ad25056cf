"""What all evaluator plugins share: finding the estimator and storing what was measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import mlflow
import numpy as np
from mlflow.models.evaluation import EvaluationResult, ModelEvaluator

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.tracking.artifacts import store_artifacts
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
        # MLflow hands on no id for models:/name/1; the loaded model knows its own
        model_id = model_id or getattr(model, "model_id", None)
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
