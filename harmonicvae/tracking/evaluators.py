"""MLflow evaluator plugins: Lipschitz bounds and maximum damage of a registered model.

Used as ``mlflow.models.evaluate("models:/harmonicvae-cifar10/1", data,
model_type="vae", evaluators=["lipschitz", "max_damage"], evaluator_config={...})``.
"""

from harmonicvae.tracking.evaluator_base import VAEEvaluator
from harmonicvae.tracking.lipschitz_evaluator import LipschitzEvaluator
from harmonicvae.tracking.max_damage_evaluator import MaxDamageEvaluator

__all__ = ["LipschitzEvaluator", "MaxDamageEvaluator", "VAEEvaluator"]
