"""MLflow evaluator plugins: Lipschitz bounds, maximum damage and spectra of a registered model.

Used as ``mlflow.models.evaluate("models:/harmonicvae-cifar10/1", data,
model_type="vae", evaluators=["lipschitz", "max_damage", "harmonics"],
evaluator_config={...})``.
"""

from harmonicvae.tracking.evaluator_base import VAEEvaluator
from harmonicvae.tracking.harmonics_evaluator import HarmonicsEvaluator
from harmonicvae.tracking.lipschitz_evaluator import LipschitzEvaluator
from harmonicvae.tracking.max_damage_evaluator import MaxDamageEvaluator

__all__ = ["HarmonicsEvaluator", "LipschitzEvaluator", "MaxDamageEvaluator", "VAEEvaluator"]
