"""What one worker process does to evaluate one model, and what every job returns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from harmonicvae import names
from harmonicvae.exceptions import StorageError
from harmonicvae.tracking import runs
from harmonicvae.tracking.specs import DataSpec, StoreSpec
from harmonicvae.tracking.storage import client_of, in_clear_words, say_it_once


@dataclass(kw_only=True)
class Outcome:
    """What became of a job: metrics and tables, or the reason of a failure.

    ``fatal`` says that disk or store are to blame, so that no other job can succeed.
    """

    model: str
    run_id: str
    row: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    model_uri: str = ""
    failure: str = ""
    fatal: bool = False


@lru_cache(maxsize=4)
def _load(name: str, data_dir: str | None, options: tuple[Any, ...], split: str) -> Any:
    """Load a split once a process."""
    return DataSpec(name=name, data_dir=data_dir, options=dict(options)).load(split)


def load_split(data: DataSpec, split: str) -> Any:
    """Return a split of a data set, kept for the next job of this process."""
    return _load(data.name, data.data_dir, tuple(sorted(data.options.items())), split)


def prepare_process(store: StoreSpec, threads: int | None) -> None:
    """Point MLflow and torch of this process to a job's store and thread count."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # one progress line, ours
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    mlflow.set_tracking_uri(store.tracking_uri)
    say_it_once()
    if threads is not None:
        torch.set_num_threads(threads)


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
    data : DataSpec
    store : StoreSpec
    run_id : str
        Exists already.
    key : str
        Content key, set as a tag of the run once the evaluation is complete.
    n_points : int
        Rows handed to the evaluators; see :func:`evaluation_rows`.
    threads : int or None
        Threads of torch; None leaves its own choice.
    """

    model: str
    model_uri: str
    evaluators: dict[str, dict[str, Any]]
    data: DataSpec
    store: StoreSpec
    run_id: str
    key: str = ""
    n_points: int = 1024
    threads: int | None = None

    def of(self, model: str, model_uri: str, run_id: str, key: str) -> Evaluation:
        """Return the same evaluation of another model."""
        return replace(self, model=model, model_uri=model_uri, run_id=run_id, key=key)


def evaluate_job(job: Evaluation) -> Outcome:
    """Evaluate one registered model through ``mlflow.models.evaluate``.

    Parameters
    ----------
    job : Evaluation

    Returns
    -------
    Outcome
        Without metrics and tables (:func:`harmonicvae.tracking.outcomes.read_evaluated`
        reads them from the run); or with ``failure``.
    """
    prepare_process(job.store, job.threads)
    outcome = Outcome(model=job.model, run_id=job.run_id, model_uri=job.model_uri)
    try:
        with in_clear_words():
            _evaluate(job)
    except KeyboardInterrupt:
        runs.end_run(job.store, job.run_id, "KILLED", "interrupted by the user")
        raise
    except StorageError as error:
        outcome.failure, outcome.fatal = str(error), True
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"
        runs.end_run(job.store, job.run_id, "FAILED", outcome.failure)
    return outcome


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


def _evaluate(job: Evaluation) -> None:
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
    row = {name: float(value) for name, value in result.metrics.items()}
    complete = {"metrics": row, "validation_rows": n_own}
    runs.log_json(job.store, job.run_id, complete, names.ARTIFACT_EVALUATION)
    client_of(job.store).set_tag(job.run_id, names.TAG_EVALUATED, job.key)


def _with_image_shape(job: Evaluation) -> dict[str, dict[str, Any]]:
    """Return the evaluators' options, those that need it with the shape of a sample."""
    config = {name: dict(options) for name, options in job.evaluators.items()}
    for name in {names.EVALUATOR_MAX_DAMAGE, names.EVALUATOR_HARMONICS} & set(config):
        shape = tuple(load_split(job.data, "validation").image_shape)
        config[name].setdefault("image_shape", shape)
    return config
