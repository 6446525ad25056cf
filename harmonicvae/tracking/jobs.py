"""What one worker process does: train and log one model, or evaluate one model."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.exceptions import CollapseWarning
from harmonicvae.models import EpochHook, HarmonicVAE
from harmonicvae.tracking import registry, runs
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec

#: Values of the column "split" of attacks.csv.
_SPLITS = ("validation", "train")
#: Seconds between two samples of processor and memory use in a model's run.
SYSTEM_METRICS_INTERVAL = 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to train in one run that exists already.

    Parameters
    ----------
    spec : ModelSpec
    data : DataSpec
    store : StoreSpec
    run_id : str
        Created by the driver, so that no two processes create experiments.
    folder : str
        The study's result folder; arrays and progress go there.
    device : str
        "auto", "cpu", "cuda".
    threads : int or None
        Threads of torch; None leaves its own choice.
    """

    spec: ModelSpec
    data: DataSpec
    store: StoreSpec
    run_id: str
    folder: str
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: metrics and tables, or the reason of a failure."""

    model: str
    run_id: str
    row: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    model_uri: str = ""
    failure: str = ""


@lru_cache(maxsize=4)
def _load(name: str, data_dir: str | None, options: tuple[Any, ...], split: str) -> Any:
    """Load a split once a process."""
    return DataSpec(name=name, data_dir=data_dir, options=dict(options)).load(split)


def load_split(data: DataSpec, split: str) -> Any:
    """Return a split of a data set, kept for the next job of this process."""
    return _load(data.name, data.data_dir, tuple(sorted(data.options.items())), split)


def train_job(job: Job) -> Outcome:
    """Train one model and store it in its run.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Outcome
        With ``model_uri`` and a row for models.csv, or with ``failure``; the run ends
        as FINISHED or FAILED either way.
    """
    _prepare_process(job)
    MlflowClient(job.store.tracking_uri).update_run(job.run_id, status="RUNNING")
    try:
        with runs.finishing(job.store, job.run_id):
            return _train(job)
    except Exception as error:
        return Outcome(
            model=job.spec.name, run_id=job.run_id, failure=f"{type(error).__name__}: {error}"
        )


def _prepare_process(job: Job | Evaluation) -> None:
    """Point MLflow and torch of this process to the job's store and thread count."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # one progress line, ours
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    mlflow.set_tracking_uri(job.store.tracking_uri)
    if job.threads is not None:
        torch.set_num_threads(job.threads)


def _train(job: Job) -> Outcome:
    spec, store, run_id = job.spec, job.store, job.run_id
    train, validation = (load_split(job.data, split) for split in ("train", "validation"))
    runs.log_parameters(store, run_id, spec.parameters())
    MlflowClient(store.tracking_uri).set_tag(run_id, names.TAG_DATA, job.data.to_json())
    runs.log_dataset(store, run_id, train, "training")
    runs.log_json(store, run_id, runs.environment(), "environment.json")
    logger = runs.EpochLogger(store, run_id)
    progress = ProgressFile(job.folder, spec.name)
    estimator = spec.estimator(
        device=job.device, callbacks=[EpochHook(logger), EpochHook(progress.advance)]
    )
    started = time.perf_counter()
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(run_id=run_id, log_system_metrics=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # it is a metric and in the table
            try:
                estimator.fit(train.data)
            finally:
                logger.flush()
        seconds = time.perf_counter() - started
        model_uri = registry.log_model(estimator, spec.parameters()).model_uri
        metrics = _model_metrics(estimator, validation.data) | {names.TRAIN_SECONDS: seconds}
        model_id = model_uri.rpartition("/")[2]
        runs.log_metrics(store, run_id, metrics, model_id=model_id)
        save_arrays(job.folder, spec.name, _reconstructions(estimator, validation.data))
    row = {key: spec.parameters()[key] for key in names.PARAMETER_COLUMNS} | metrics
    history = estimator.history_.assign(**{names.MODEL: spec.name})
    tables = {names.FILE_HISTORY: history[[names.MODEL, *estimator.history_.columns]]}
    return Outcome(model=spec.name, run_id=run_id, row=row, tables=tables, model_uri=model_uri)


def _model_metrics(estimator: HarmonicVAE, X: Any) -> dict[str, float]:
    """Return validation ELBO, reconstruction error and collapse figures."""
    total, count = 0.0, X.shape[0]
    for start in range(0, count, 1024):
        rows = np.asarray(X[start : start + 1024])
        total += float(((estimator.reconstruct(rows).astype(np.float64) - rows) ** 2).sum())
    return {
        names.ELBO: estimator.score(X),
        names.SQUARED_ERROR: total / count,
        names.ACTIVE_UNITS: float(estimator.collapse_.active_units),
        names.DECODING_VARIANCE_RATIO: estimator.collapse_.decoding_variance_ratio,
        names.COLLAPSED: float(estimator.collapse_.collapsed),
    }


def _reconstructions(estimator: HarmonicVAE, X: Any, count: int = 4) -> dict[str, np.ndarray]:
    """Return the first samples and their reconstructions through the mean code."""
    rows = np.asarray(X[:count])
    return {"originals": rows, "reconstructions": estimator.reconstruct(rows)}


def save_arrays(folder: str, model: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of one model beside those already there."""
    path = Path(folder) / names.FOLDER_ARRAYS / f"{model}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = {}
    if path.exists():
        with np.load(path) as former:
            stored = dict(former)
    np.savez_compressed(path, **(stored | dict(arrays)))


class ProgressFile:
    """Epochs done by one model, as the size of a file that the driver looks at.

    Parameters
    ----------
    folder : str
        Result folder.
    model : str
        Name of the model.
    """

    def __init__(self, folder: str, model: str) -> None:
        self.path = Path(folder) / "progress" / model
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def advance(self, row: Mapping[str, float] | None = None) -> None:
        """Count one epoch."""
        with open(self.path, "ab") as stream:
            stream.write(b".")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One registered model to evaluate, into a run that exists already.

    Parameters
    ----------
    model : str
        Name in the result tables.
    model_uri : str
        ``models:/…`` or ``runs:/…``.
    evaluators : dict
        Evaluator name to its ``evaluator_config``.
    data, store, run_id, folder, threads
        As in :class:`Job`.
    n_points : int
        Rows handed to the evaluators; see :func:`evaluation_rows`.
    """

    model: str
    model_uri: str
    evaluators: dict[str, dict[str, Any]]
    data: DataSpec
    store: StoreSpec
    run_id: str
    folder: str
    n_points: int = 1024
    threads: int | None = None


def evaluate_job(job: Evaluation) -> Outcome:
    """Evaluate one registered model through ``mlflow.models.evaluate``.

    Parameters
    ----------
    job : Evaluation

    Returns
    -------
    Outcome
        Metrics in ``row``, tables by file name; or ``failure``.
    """
    _prepare_process(job)
    try:
        return _evaluate(job)
    except KeyboardInterrupt:
        runs.end_run(job.store, job.run_id, "KILLED", "interrupted by the user")
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        runs.end_run(job.store, job.run_id, "FAILED", reason)
        return Outcome(model=job.model, run_id=job.run_id, failure=reason)


def evaluation_rows(data: DataSpec, count: int) -> tuple[np.ndarray, int]:
    """Return validation rows, filled up with training rows where they are too few.

    Parameters
    ----------
    data : DataSpec
    count : int
        Rows wanted; fewer only if both splits together hold fewer.

    Returns
    -------
    rows : ndarray of shape (≤ count, d), float32
        Evenly spaced rows; those of the validation split first (sinc has just one).
    n_validation : int
        How many of them are validation rows.
    """
    validation, train = (load_split(data, split).data for split in ("validation", "train"))
    first = _evenly(validation, count)
    rest = count - len(first)
    rows = np.concatenate([first, _evenly(train, rest)]) if rest else first
    return rows, len(first)


def _evenly(X: Any, count: int) -> np.ndarray:
    """Return at most ``count`` evenly spaced rows as float32."""
    rows = np.linspace(0, X.shape[0] - 1, min(X.shape[0], count)).astype(int)
    return np.asarray(X[np.unique(rows)])


def _evaluate(job: Evaluation) -> Outcome:
    X, n_own = evaluation_rows(job.data, job.n_points)
    config = _with_image_shape(job)
    with mlflow.start_run(run_id=job.run_id):
        result = runs.with_dataset_retries(
            lambda: mlflow.models.evaluate(
                job.model_uri,
                X,
                model_type=names.MODEL_TYPE,
                evaluators=list(config),
                evaluator_config=config,
            )
        )
    tables = {}
    for path, file in (
        (names.ARTIFACT_BOUNDS, names.FILE_BOUNDS),
        (names.ARTIFACT_ATTACKS, names.FILE_ATTACKS),
        (names.ARTIFACT_MARGINS, names.FILE_MARGINS),
        (names.ARTIFACT_SPECTRA, names.FILE_SPECTRA),
        (names.ARTIFACT_HARMONICS, names.FILE_HARMONICS),
    ):
        if path in result.artifacts:
            table = result.artifacts[path].content
            if names.IMAGE in table:
                table = table.assign(split=np.where(table[names.IMAGE] < n_own, *_SPLITS))
            tables[file] = table.assign(**{names.MODEL: job.model})[[names.MODEL, *table.columns]]
    if names.ARTIFACT_ATTACK_ARRAYS in result.artifacts:
        save_arrays(job.folder, job.model, result.artifacts[names.ARTIFACT_ATTACK_ARRAYS].content)
    return Outcome(model=job.model, run_id=job.run_id, row=dict(result.metrics), tables=tables)


def _with_image_shape(job: Evaluation) -> dict[str, dict[str, Any]]:
    """Return the evaluators' options, those that need it with the shape of a sample."""
    config = {name: dict(options) for name, options in job.evaluators.items()}
    for name in {names.EVALUATOR_MAX_DAMAGE, names.EVALUATOR_HARMONICS} & set(config):
        shape = tuple(load_split(job.data, "validation").image_shape)
        config[name].setdefault("image_shape", shape)
    return config
