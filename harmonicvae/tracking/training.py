"""What one worker does to train one model: every step may be killed and done again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from harmonicvae import names
from harmonicvae.exceptions import CollapseWarning, InputError, StorageError
from harmonicvae.machine import machine
from harmonicvae.models import EpochHook, HarmonicVAE
from harmonicvae.models.checkpoints import read_checkpoint
from harmonicvae.tracking import registry, runs
from harmonicvae.tracking.artifacts import store_artifacts
from harmonicvae.tracking.jobs import Outcome, load_split, prepare_process
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of, in_clear_words

#: Seconds between two samples of processor and memory use in a model's run.
SYSTEM_METRICS_INTERVAL = 2
#: Seconds between two looks at whether a run still belongs to this start of the sweep.
_FENCE_SECONDS = 10.0


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
    progress : str or None
        Folder whose files grow by a byte an epoch; left alone where it does not exist.
    device : str
        "auto", "cpu", "cuda".
    threads : int or None
        Threads of torch; None leaves its own choice.
    checkpoint : str or None
        File that training is resumed from, if it exists, and that is written on the way.
    owner : str
        Driver that the run belongs to; a worker of an earlier start stops when it sees
        another one there.
    """

    spec: ModelSpec
    data: DataSpec
    store: StoreSpec
    run_id: str
    progress: str | None = None
    device: str = "auto"
    threads: int | None = None
    checkpoint: str | None = None
    owner: str = ""


class SupersededError(Exception):
    """Another start of the same sweep has taken this run over."""


def train_job(job: Job) -> Outcome:
    """Train one model and store it in its run.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Outcome
        With ``model_uri``, or with ``failure``, ``fatal`` where disk or store are to
        blame; the run ends as FINISHED or FAILED either way.

    Notes
    -----
    Killed at any moment and called again, it goes on from the checkpoint and leaves what
    one uninterrupted call leaves: each epoch once, one stored model.
    """
    prepare_process(job.store, job.threads)
    with outcome_of(job) as outcome, runs.finishing(job.store, job.run_id, SupersededError):
        client_of(job.store).update_run(job.run_id, status="RUNNING")
        outcome.model_uri = _train(job)
    return outcome


@contextmanager
def outcome_of(job: Job) -> Iterator[Outcome]:
    """Yield an outcome that takes up the failure, if any, of the block."""
    outcome = Outcome(model=job.spec.name, run_id=job.run_id)
    try:
        with in_clear_words():
            yield outcome
    except StorageError as error:
        outcome.failure, outcome.fatal = str(error), True
    except SupersededError:
        outcome.failure = "another start of this sweep went on with it"
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"


def _train(job: Job) -> str:
    train, validation = (load_split(job.data, split) for split in ("train", "validation"))
    describe(job, train)
    hooks = Hooks(job)
    restored = resumable(job.checkpoint)
    estimator = job.spec.estimator(
        train.image_shape,
        device=job.device,
        callbacks=[EpochHook(hooks)],
        checkpoint_path=job.checkpoint,
        checkpoint_every="auto",
    )
    hooks.progress.start(0 if restored is None else len(restored["history"]))
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(run_id=job.run_id, log_system_metrics=True):
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # it is a metric and in the table
            try:
                estimator.fit(train.data, resume_from=None if restored is None else job.checkpoint)
            finally:
                hooks.logger.flush()
        seconds = time.perf_counter() - started
        if restored is not None:
            seconds += sum(row[names.EPOCH_SECONDS] for row in restored["history"])
        return store_result(job, estimator, validation.data, seconds, hooks)


def resumable(checkpoint: str | None) -> dict[str, Any] | None:
    """Return the state in a checkpoint; None if there is none that can be read."""
    if checkpoint is None or not Path(checkpoint).exists():
        return None
    try:
        return read_checkpoint(checkpoint)
    except InputError:
        return None  # damaged by other hands: train anew


class Hooks:
    """What is done after every epoch of one model: log, show progress, look for a new owner.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.logger = runs.EpochLogger(job.store, job.run_id)
        self.progress = ProgressFile(job.progress, job.spec.name)
        self._looked = time.monotonic()

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take the figures of one epoch."""
        self.logger(row)
        self.progress.advance()
        if time.monotonic() - self._looked > _FENCE_SECONDS:
            self.check_owner()
            self._looked = time.monotonic()

    def check_owner(self) -> None:
        """Stop if the run belongs to another start of the sweep by now."""
        tags = client_of(self.job.store).get_run(self.job.run_id).data.tags
        if self.job.owner and tags.get(names.TAG_OWNER, self.job.owner) != self.job.owner:
            raise SupersededError


def describe(job: Job, train: Any) -> None:
    """Log parameters, data set and environment of a job into its run."""
    store, run_id = job.store, job.run_id
    runs.log_parameters(store, run_id, job.spec.parameters())
    client_of(store).set_tag(run_id, names.TAG_DATA, job.data.to_json())
    client_of(store).set_tag(run_id, names.TAG_DEVICE, machine(job.device)["device"])
    runs.log_dataset(store, run_id, train, "training")
    runs.log_json(store, run_id, runs.environment(), "environment.json")


def store_result(
    job: Job, estimator: HarmonicVAE, validation: Any, seconds: float, hooks: Hooks
) -> str:
    """Store model, metrics and artifacts of an estimator in the active run, its own.

    The tag "trained" comes last: what a killed worker left without it is done again.

    Returns
    -------
    str
        ``models:/m-…``.
    """
    store, run_id = job.store, job.run_id
    for row in estimator.history_.to_dict("records"):
        hooks.logger({str(key): value for key, value in row.items()})  # not logged before a kill
    hooks.logger.flush()
    hooks.check_owner()
    model_uri = stored_model(store, run_id) or _log_model(job, estimator)
    metrics = _model_metrics(estimator, validation) | {names.TRAIN_SECONDS: seconds}
    runs.log_metrics(store, run_id, metrics, model_id=model_uri.rpartition("/")[2])
    store_artifacts(
        run_id,
        {
            names.ARTIFACT_HISTORY: estimator.history_,
            names.ARTIFACT_RECONSTRUCTIONS: _reconstructions(estimator, validation),
        },
    )
    client_of(store).set_tag(run_id, names.TAG_TRAINED, model_uri)
    return model_uri


def _log_model(job: Job, estimator: HarmonicVAE) -> str:
    return registry.log_model(estimator, job.spec.parameters()).model_uri


def stored_model(store: StoreSpec, run_id: str) -> str | None:
    """Return the URI of the complete model stored by a run; half-stored ones are deleted."""
    client = client_of(store)
    found = client.search_logged_models([store.experiment_id], f"source_run_id = '{run_id}'")
    complete = [model for model in found if str(model.status) == "READY"]
    for model in found:
        if model not in complete[:1]:
            client.delete_logged_model(model.model_id)
    return complete[0].model_uri if complete else None


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


class ProgressFile:
    """Epochs done by one model, as the size of a file that the driver looks at.

    Parameters
    ----------
    folder : str or None
        Where the file lies; where there is no such folder (on another host) nothing is
        written.
    model : str
        Name of the model.
    """

    def __init__(self, folder: str | None, model: str) -> None:
        self.path = Path(folder) / model if folder and Path(folder).is_dir() else None

    def start(self, epochs: int) -> None:
        """Begin with epochs trained before."""
        if self.path is not None:
            self.path.write_bytes(b"." * epochs)

    def advance(self) -> None:
        """Count one epoch."""
        if self.path is not None:
            with open(self.path, "ab") as stream:
                stream.write(b".")
