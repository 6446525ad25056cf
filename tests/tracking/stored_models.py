"""Registered models without weights: what any version of harmonicvae may have left in a store."""

import json
import time

from mlflow import MlflowClient
from mlflow.entities import Metric

from harmonicvae import names
from harmonicvae.tracking import registry, runs, stores

NAME = "harmonicvae-sinc"
METRICS = {names.ELBO: -300.0, names.SQUARED_ERROR: 2.0, names.ACTIVE_UNITS: 1.0}
PARAMETERS = {
    names.DATASET: "sinc",
    names.ENCODER_STD: "0.5",
    names.INPUT_NOISE_STD: "0.0",
    names.EPOCHS: "3",
    "latent_dim": "1",
    "hidden_dims": "[8]",
    "activation": "sigmoid",
    "batch_size": "256",
    "lr": "0.001",
    "kl_weight": "1.0",
    "reproduction_errors": "none",
}


def bounds(value, ratio=1.25):
    """Metrics of the Lipschitz evaluator, the same for both sides."""
    found = {}
    for side in names.SIDES:
        found[names.lipschitz_upper(side)] = value
        found[names.lipschitz_lower(side)] = value / ratio
        found[names.lipschitz_ratio(side)] = ratio
    return found


def attacked(damage, radius=1.0, share=0.5):
    """Metrics of the max_damage evaluator."""
    return {
        names.attack_metric(names.DAMAGE, radius, "mean"): damage,
        names.attack_metric(names.DAMAGE, radius, "max"): 2 * damage,
        names.attack_metric(names.BOUND_RATIO, radius, "max"): 0.5,
        names.margin_metric(names.CERTIFIED_MARGIN, share): 1 / damage,
        names.margin_metric(names.FIRST_ORDER_MARGIN, share): 2 / damage,
    }


class Store:
    """Makes runs, logged models and versions by hand."""

    def __init__(self, experiment="by hand"):
        self.spec = stores.open_store(experiment)
        self.client = MlflowClient()

    def model(
        self,
        seed=1,
        *,
        metrics=METRICS,
        name=NAME,
        without=(),
        linked=True,
        tags=True,
        logged=True,
        **parameters,
    ):
        """Train nothing, but register a version; return it with ``trained`` and ``id``."""
        registry.ensure_registered_model(self.spec, name)
        params = {**PARAMETERS, names.SEED: str(seed), **{k: str(v) for k, v in parameters.items()}}
        params = {key: value for key, value in params.items() if key not in without}
        run_id = runs.create_run(self.spec, f"model s{seed}", "model")
        runs.log_parameters(self.spec, run_id, params)
        model_id = None
        if logged:
            model = self.client.create_logged_model(
                self.spec.experiment_id, "model", source_run_id=run_id, params=params
            )
            self.client.finalize_logged_model(model.model_id, "READY")
            model_id = model.model_id
        runs.log_metrics(self.spec, run_id, metrics, model_id=model_id if linked else None)
        self.client.set_terminated(run_id)
        keys = (names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, names.EPOCHS)
        version = self.client.create_model_version(
            name,
            f"models:/{model_id}" if model_id else f"runs:/{run_id}/model",
            run_id,
            tags={key: params[key] for key in keys if key in params} if tags else {},
        )
        version.trained, version.id = run_id, model_id
        version.uri = f"models:/{name}/{version.version}"
        version.label = f"{name}/{version.version}"
        time.sleep(0.002)  # creation times in milliseconds order the versions
        return version

    def evaluation(self, about, metrics, *, model_id=None, link=False, status="FINISHED"):
        """Evaluate nothing, but leave the run of an evaluation behind."""
        run_id = runs.create_run(self.spec, "evaluation", "evaluation", {names.TAG_MODEL: about})
        if model_id and not link:
            note = json.dumps([{"name": "dataset", "hash": "0" * 8, "model": model_id}])
            self.client.set_tag(run_id, "mlflow.datasets", note)
        runs.log_metrics(self.spec, run_id, metrics, model_id=model_id if link else None)
        if status:
            time.sleep(0.002)
            self.client.set_terminated(run_id, status)
        return run_id

    def link(self, run_id, model_id, key, value):
        """Log one metric into a run and link it to a model."""
        now = int(time.time() * 1000)
        metric = Metric(key, value, now, 0, model_id=model_id)
        self.client.log_batch(run_id, metrics=[metric])
