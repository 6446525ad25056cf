"""The stored model's code: MLflow runs this file when a model is loaded (models from code)."""

from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

from harmonicvae.models import load_estimator


class HarmonicVAEModel(PythonModel):
    """A fitted HarmonicVAE behind MLflow's generic interface."""

    estimator: Any = None

    def load_context(self, context: Any) -> None:
        """Read the estimator from its weights and JSON; nothing is unpickled."""
        self.estimator = load_estimator(context.artifacts["estimator"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
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
