"""What is known of one stored model: parameters, and metrics with the run of each."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.report.metric_groups import evaluator_of
from harmonicvae.tracking.evaluation_runs import Evaluations, fixed_uris
from harmonicvae.tracking.model_parameters import read_parameters
from harmonicvae.tracking.model_uris import ModelReference


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
        parameters=read_parameters(reference, model, run),
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
