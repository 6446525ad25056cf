"""The stored model's code: MLflow runs this file when a model is loaded (models from code)."""

from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

from harmonicvae.models import load_estimator


class HarmonicVAEModel(PythonModel):
    """A fitted HarmonicVAE behind MLflow's generic interface."""

    estimator: Any = None
    # the signature describes the input; MLflow would warn that predict has no type hints
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Read the estimator from its weights and JSON; nothing is unpickled."""
        self.estimator = load_estimator(context.artifacts["estimator"])

    def predict(self, context, model_input, params=None):
        """Return reconstructions, or what ``params["output"]`` names.

        Parameters
        ----------
        context : PythonModelContext
        model_input : array or DataFrame of shape (n, d)
        params : dict, optional
            ``{"output": "reconstruct" | "transform" | "inverse_transform" |
            "score_samples"}``.

        Returns
        -------
        ndarray
        """
        output = (params or {}).get("output", "reconstruct")
        allowed = ("reconstruct", "transform", "inverse_transform", "score_samples")
        if output not in allowed:
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(
                f"output must be one of {list(allowed)}, got {output!r}"
            )
        return getattr(self.estimator, output)(np.asarray(model_input))


mlflow.models.set_model(HarmonicVAEModel())
