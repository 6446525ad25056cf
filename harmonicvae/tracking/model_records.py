"""What is known of one stored model: parameters, and metrics with the run of each."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.report.comparison_tables import UNKNOWN
from harmonicvae.report.metric_groups import evaluator_of
from harmonicvae.tracking.evaluation_runs import (
    Evaluations,
    dataset_entries,
    fixed_uris,
    quiet_downloads,
)
from harmonicvae.tracking.model_uris import ModelReference
from harmonicvae.tracking.specs import short

#: Parameters besides the seed that make a configuration: equal ones are trained alike.
CONFIGURATION_PARAMETERS = (
    names.DATASET,
    names.ENCODER_STD,
    names.INPUT_NOISE_STD,
    names.EPOCHS,
    "latent_dim",
    "hidden_dims",
    "activation",
    "batch_size",
    "lr",
    "kl_weight",
    "reproduction_errors",
    "data_digest",
)
#: Names of parameters in the file of a stored estimator, where they differ.
_IN_ESTIMATOR = {names.EPOCHS: "max_epochs", names.SEED: "random_state"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of a model, and where it was measured.

    Parameters
    ----------
    value : float
    run_id : str
    time : int
        Milliseconds since 1970 at which the run ended.
    """

    value: float
    run_id: str
    time: int


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """One model of a comparison.

    Parameters
    ----------
    reference : ModelReference
    parameters : dict
        Seed and configuration as text; "not recorded" where nothing tells.
    measurements : dict
        Metric name to Measurement: of several, that of the run that ended last.
    compared : bool
        False for a seed sibling.
    notes : tuple of str
        What was left out, and why.
    """

    reference: ModelReference
    parameters: dict[str, str]
    measurements: dict[str, Measurement] = field(default_factory=dict)
    compared: bool = True
    notes: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return its row of the table of models."""
        reference = self.reference
        return {
            names.MODEL: reference.label,
            "compared": self.compared,
            "order": (reference.created, int(reference.version or 0)),
            "uri": reference.uri,
            "model_uri": reference.stable_uri,
            "model_id": reference.model_id,
            "run_id": reference.run_id,
            **self.parameters,
            **{key: item.value for key, item in self.measurements.items()},
        }


def read_record(
    client: MlflowClient,
    reference: ModelReference,
    evaluations: Evaluations,
    *,
    compared: bool = True,
) -> ModelRecord:
    """Collect what a store knows of a model.

    Parameters
    ----------
    client : MlflowClient
    reference : ModelReference
    evaluations : Evaluations
        Runs of the store, read once for all models.
    compared : bool, default=True
        False for a seed sibling.

    Returns
    -------
    ModelRecord

    Notes
    -----
    Metrics come from the training run, from runs linked to the logged model, and from
    evaluation runs that name it (earlier versions linked none).  An evaluation counts if its
    run is FINISHED; the run that ended last wins.  Parameters come from the training run, the
    logged model, the version's tags and, for what is missing there, the estimator's file.
    """
    model = _logged_model(client, reference)
    run = evaluations.run(reference.run_id or (model and model.source_run_id))
    found: dict[str, Measurement] = {}
    notes: list[str] = []
    for measurements, note in (
        ([] if run is None else _metrics_of(run), []),  # whatever became of evaluations in it
        _of_logged_model(client, model, evaluations),
        _of_evaluations(reference, evaluations),
    ):
        notes += note
        for key, item in measurements:
            wrong = _wrong(key, item, evaluations)
            if wrong:
                notes.append(wrong)
            elif key not in found or item.time >= found[key].time:
                found[key] = item
    return ModelRecord(
        reference=reference,
        parameters=_parameters(reference, model, run),
        measurements={key: item for key, item in found.items() if not math.isnan(item.value)},
        compared=compared,
        notes=tuple(dict.fromkeys(notes)),
    )


def _logged_model(client: MlflowClient, reference: ModelReference) -> Any:
    """Return the logged model, None where an earlier version or MLflow 2 stored none."""
    with suppress(MlflowException):
        return client.get_logged_model(reference.model_id) if reference.model_id else None
    return None


def _wrong(metric: str, item: Measurement, evaluations: Evaluations) -> str:
    """Return why a metric does not count although its run does."""
    if evaluator_of(metric) != names.EVALUATOR_LIPSCHITZ:
        return ""
    return evaluations.wrong_bounds(item.run_id)


def _metrics_of(run: Any) -> list[tuple[str, Measurement]]:
    time = int(run.info.end_time or run.info.start_time or 0)
    return [
        (key, Measurement(value=_finite_range(value), run_id=run.info.run_id, time=time))
        for key, value in run.data.metrics.items()
        if not key.startswith("system/")
    ]


def _of_logged_model(
    client: MlflowClient, model: Any, evaluations: Evaluations
) -> tuple[list[tuple[str, Measurement]], list[str]]:
    """Return the metrics linked to a logged model, from runs that ended well."""
    found: list[tuple[str, Measurement]] = []
    notes: list[str] = []
    latest: dict[tuple[str, str], Any] = {}
    for metric in (model.metrics or []) if model is not None else []:
        key = (metric.key, metric.run_id)
        if not metric.key.startswith("system/") and (
            key not in latest
            or (metric.step, metric.timestamp) >= (latest[key].step, latest[key].timestamp)
        ):
            latest[key] = metric
    for metric in latest.values():
        reason = evaluations.refusal(metric.run_id, trained=model.source_run_id)
        if reason:
            notes.append(reason)
            continue
        run = evaluations.run(metric.run_id)
        time = int(run.info.end_time or metric.timestamp) if run else int(metric.timestamp)
        value = _finite_range(metric.value)
        if value == 0.0 and run and _was_nan(client, metric):
            value = math.nan
        found.append((metric.key, Measurement(value=value, run_id=metric.run_id, time=time)))
    return found, notes


def _was_nan(client: MlflowClient, metric: Any) -> bool:
    """Tell a NaN from a zero: MLflow's SQL stores hold 0 for a NaN linked to a model."""
    with suppress(MlflowException):
        history = client.get_metric_history(metric.run_id, metric.key)
        same = [m for m in history if (m.step, m.timestamp) == (metric.step, metric.timestamp)]
        return bool(same) and all(math.isnan(item.value) for item in same)
    return False


def _of_evaluations(
    reference: ModelReference, evaluations: Evaluations
) -> tuple[list[tuple[str, Measurement]], list[str]]:
    """Return the metrics of evaluation runs that name the model."""
    found: list[tuple[str, Measurement]] = []
    notes: list[str] = []
    for run in evaluations.naming(reference.model_id, fixed_uris(reference)):
        reason = evaluations.refusal(run.info.run_id)
        if reason:
            notes.append(reason)
        else:
            found += _metrics_of(run)
    return found, notes


def _finite_range(value: float) -> float:
    """Return what was logged: MLflow's SQL stores hold the largest float for infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else float(value)


def _parameters(reference: ModelReference, model: Any, run: Any) -> dict[str, str]:
    """Return seed and configuration as text, from all places that may tell."""
    places: list[Mapping[str, Any]] = [dict(run.data.params) if run else {}]
    places += [dict(model.params or {}) if model else {}, reference.tags]
    wanted = (names.SEED, *CONFIGURATION_PARAMETERS)
    found = {name: _first(name, places) for name in wanted}
    if not found[names.DATASET]:
        found[names.DATASET] = _dataset(reference, run)
    found["data_digest"] = found["data_digest"] or _training_digest(run)
    skipped = (names.DATASET, "data_digest")
    if not all(value for name, value in found.items() if name not in skipped):
        stored = _stored_parameters(reference, model)
        for name in wanted:
            found[name] = found[name] or stored.get(_IN_ESTIMATOR.get(name, name), "")
    return {name: normal(value) or UNKNOWN for name, value in found.items()}


def _first(name: str, places: list[Mapping[str, Any]]) -> str:
    """Return the first value; what ``mlflow run`` passed on as text gives way to ours."""
    values = (place.get(f"harmonicvae.{name}") or place.get(name) for place in places)
    return next((str(value) for value in values if value not in (None, "")), "")


def _dataset(reference: ModelReference, run: Any) -> str:
    """Return the data set by the run's tags or the registered model's name."""
    tags = run.data.tags if run else {}
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(tags[names.TAG_DATA])["name"])
    prefix = f"{names.REGISTERED_PREFIX}-"
    named = reference.name.removeprefix(prefix) if reference.name.startswith(prefix) else ""
    return tags.get(names.TAG_DATASET) or named


def _training_digest(run: Any) -> str:
    """Return the digest of the training data logged with the run."""
    for entry in dataset_entries(run):
        if str(entry.get("name", "")).endswith("-train"):
            return str(entry.get("hash", ""))
    return ""


def _stored_parameters(reference: ModelReference, model: Any) -> dict[str, str]:
    """Return the parameters in the estimator's file, {} if there is none."""
    roots = [model.artifact_location if model else "", reference.source, reference.stable_uri]
    for root in filter(None, roots):
        with (
            suppress(MlflowException, OSError, ValueError, TypeError),
            tempfile.TemporaryDirectory() as folder,
            quiet_downloads(),
        ):
            path = mlflow.artifacts.download_artifacts(
                f"{root.rstrip('/')}/artifacts/estimator/estimator.json", dst_path=folder
            )
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            parameters = {key: _text(value) for key, value in stored["parameters"].items()}
            return parameters | ({"random_state": str(stored["seed"])} if "seed" in stored else {})
    return {}


def _text(value: Any) -> str:
    """Return a stored parameter as :meth:`ModelSpec.parameters` would write it."""
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(part, int) for part in value):
            return str(list(value))
        return ",".join(map(str, value)) or "none"
    return "" if value is None else str(value)


def normal(text: str) -> str:
    """Return a number in its shortest form, other text as it is; digits of a seed are kept.

    Examples
    --------
    >>> normal("1.0"), normal("0.50"), normal("14609714069366804553"), normal("learned")
    ('1', '0.5', '14609714069366804553', 'learned')
    """
    text = str(text).strip()
    if text.isdigit():
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return short(number) if math.isfinite(number) else text
