"""The driver's side of a sweep: jobs sent to workers, results registered and read back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.exceptions import StorageError
from harmonicvae.processes import this_process
from harmonicvae.tracking import groups, registry, runs, sessions
from harmonicvae.tracking.backends import Backend
from harmonicvae.tracking.jobs import (
    Evaluation,
    Outcome,
    evaluate_job,
    load_split,
    prepare_process,
)
from harmonicvae.tracking.keys import evaluation_key
from harmonicvae.tracking.outcomes import read_evaluated, read_trained
from harmonicvae.tracking.sessions import ModelRun
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of
from harmonicvae.tracking.training import Job, train_job

_LOST = "its worker process died (killed, or out of memory) several times; try n_jobs=1"
_ENDED = "the sweep ended before this run did"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How and where the models of a sweep are trained; decides nothing about the results.

    Parameters
    ----------
    backend : Backend
    device : str
        "auto", "cpu", "cuda".
    checkpoints : Path or None
        Folder of half-trained models; the same at every start, on all hosts.  None keeps
        none: a model that is interrupted begins anew.
    progress : Path or None
        Folder for progress files.
    together : {"auto", "true", "false"}
        Whether models of one shape are trained as one program; "auto" where it is faster.
    reuse : bool
        Whether models of other sweeps with the same content key are taken over.
    finished : callable
        Called with a model's name when it is trained or has failed.
    """

    backend: Backend = field(default_factory=Backend)
    device: str = "auto"
    checkpoints: Path | None = None
    progress: Path | None = None
    together: str = "auto"
    reuse: bool = True
    finished: Callable[[str], Any] = lambda model: None


def train_all(
    specs: Sequence[ModelSpec],
    keys: Sequence[str],
    data: DataSpec,
    store: StoreSpec,
    execution: Execution,
    *,
    settings: Sequence[str] | None = None,
    any_code: bool = False,
) -> tuple[list[ModelRun], list[Outcome]]:
    """Train all models that are not trained yet, and register each when it is done.

    Parameters
    ----------
    specs : sequence of ModelSpec
    keys : sequence of str
        Content key of each.
    data : DataSpec
    store : StoreSpec
        Its parent run becomes the parent of all.
    execution : Execution
    settings : sequence of str or None, default=None
    any_code : bool, default=False
        As for :func:`harmonicvae.tracking.sessions.model_runs`.

    Returns
    -------
    found : list of ModelRun
    outcomes : list of Outcome
        Of every model, in the order of the specs; ``model_uri`` is ``models:/name/version``.

    Raises
    ------
    StorageError
        As soon as disk or store fail; what is finished is registered.

    Notes
    -----
    Whatever happens, no run stays RUNNING or SCHEDULED: those are marked KILLED.
    """
    found: list[ModelRun] = []
    outcomes: dict[str, Outcome] = {}
    prepare_process(store, None)
    try:
        for name in sorted({spec.registered_name for spec in specs}):
            registry.ensure_registered_model(store, name)
        for item in sessions.model_runs(
            store,
            list(specs),
            list(keys),
            settings=None if settings is None else list(settings),
            reuse=execution.reuse,
            any_code=any_code,
        ):
            found.append(item)
        sessions.note_reused(store, found)
        by_run = {item.run_id: item for item in found}
        for item in found:
            if item.model_uri:
                outcome = Outcome(model=item.spec.name, run_id=item.run_id)
                outcomes[item.run_id] = _completed(store, item, outcome, execution)
        for outcome in _train(found, data, store, execution):
            item = by_run[outcome.run_id]
            item.model_uri = outcome.model_uri
            outcomes[outcome.run_id] = _completed(store, item, outcome, execution)
        groups.drop_finished(found, execution.checkpoints)
    finally:
        _close(store, [item.run_id for item in found if not item.foreign])
    return found, [outcomes[item.run_id] for item in found]


def _train(
    found: Sequence[ModelRun], data: DataSpec, store: StoreSpec, execution: Execution
) -> Iterator[Outcome]:
    """Train what is not trained yet, in groups where that pays, and yield each outcome."""
    jobs = [_job(item, data, store, execution) for item in found]
    n_features = load_split(data, "train").data.shape[1]
    together, singles = groups.plan_groups(
        found,
        jobs,
        execution.backend,
        execution.together,
        execution.checkpoints,
        n_features,
    )
    lost = partial(_lost, store)
    for result in execution.backend.run(_train_any, [*together, *singles], lost):
        yield from result


def _train_any(job: Job | groups.GroupJob) -> list[Outcome]:
    """Train a group or a single model; runs in a worker."""
    return groups.train_group(job) if isinstance(job, groups.GroupJob) else [train_job(job)]


def _job(item: ModelRun, data: DataSpec, store: StoreSpec, execution: Execution) -> Job:
    checkpoint = checkpoint_file(execution.checkpoints, item.key)
    return Job(
        spec=item.spec,
        data=data,
        store=store,
        run_id=item.run_id,
        progress=None if execution.progress is None else str(execution.progress),
        device=execution.device,
        threads=execution.backend.threads,
        checkpoint=None if checkpoint is None else str(checkpoint),
        owner=this_process(),
    )


def checkpoint_file(folder: Path | None, key: str) -> Path | None:
    """Return the checkpoint of a model, by its key."""
    return None if folder is None else folder / f"{key[:32]}.pt"


def _completed(store: StoreSpec, item: ModelRun, outcome: Outcome, execution: Execution) -> Outcome:
    """Register a trained model, read its results back and drop its checkpoint."""
    if outcome.fatal:
        raise StorageError(outcome.failure)
    outcome = registered(store, item, outcome)
    checkpoint = checkpoint_file(execution.checkpoints, item.key)
    if not outcome.failure and checkpoint is not None:
        for file in checkpoint.parent.glob(f"*{checkpoint.name}*"):  # half-written ones too
            with suppress(OSError):
                file.unlink()
    execution.finished(item.spec.name)
    return outcome


def registered(store: StoreSpec, item: ModelRun, outcome: Outcome) -> Outcome:
    """Register a trained model; a failed one is handed on as it is.

    Parameters
    ----------
    store : StoreSpec
    item : ModelRun
        With ``model_uri`` ``models:/m-…``.
    outcome : Outcome

    Returns
    -------
    Outcome
        With row, tables and ``models:/name/version``; or a failure, with the run marked
        FAILED.
    """
    if outcome.failure:
        return outcome
    spec = item.spec
    tags = {
        names.ENCODER_STD: spec.encoder_std,
        names.INPUT_NOISE_STD: spec.input_noise_std,
        names.SEED: spec.seed,
        names.EPOCHS: spec.epochs,
        names.TAG_STUDY_RUN: store.parent_run_id or "",
        names.TAG_VERSION: __version__,
    }
    try:
        uri = sessions.register(store, item, tags)
        complete = read_trained(store, item.run_id, spec)
    except StorageError:
        raise
    except Exception as error:
        outcome.failure = f"trained, but not registered: {type(error).__name__}: {error}"
        runs.end_run(store, item.run_id, "FAILED", outcome.failure)
        return outcome
    complete.model_uri = uri
    return complete


def _lost(store: StoreSpec, job: Job | groups.GroupJob) -> list[Outcome]:
    """Return the failures of a job whose process died again and again."""
    single = [job] if isinstance(job, Job) else job.todo
    return [_failed(store, item.run_id, item.spec.name) for item in single]


def _failed(store: StoreSpec, run_id: str, model: str) -> Outcome:
    runs.end_run(store, run_id, "FAILED", _LOST)
    return Outcome(model=model, run_id=run_id, failure=_LOST)


def _lost_evaluation(store: StoreSpec, job: Evaluation) -> Outcome:
    return _failed(store, job.run_id, job.model)


def _close(store: StoreSpec, run_ids: list[str]) -> None:
    """Mark what is still open as KILLED; where the store is gone, the next start does it."""
    with suppress(StorageError):
        runs.kill_unfinished(store, run_ids, _ENDED)


def evaluate_all(
    found: Sequence[ModelRun],
    outcomes: Sequence[Outcome],
    template: Evaluation,
    store: StoreSpec,
    execution: Execution,
) -> list[Outcome]:
    """Evaluate all trained models that are not evaluated yet.

    Parameters
    ----------
    found, outcomes
        From :func:`train_all`.
    template : Evaluation
        Evaluators, data, rows and threads; the rest is filled in for each model.
    store : StoreSpec
    execution : Execution

    Returns
    -------
    list of Outcome
        Of every trained model, in order.

    Raises
    ------
    StorageError
        As in :func:`train_all`.
    """
    done: dict[str, Outcome] = {}
    run_ids: list[str] = []
    jobs: list[Evaluation] = []
    trained = [(item, out) for item, out in zip(found, outcomes) if not out.failure]
    try:
        for item, outcome in trained:
            key = evaluation_key(item.key, template.evaluators, template.n_points)
            run_id, complete = sessions.evaluation_run(store, item, key)
            run_ids.append(run_id)
            job = template.of(item.spec.name, outcome.model_uri, run_id, key)
            if complete:
                done[run_id] = read_evaluated(run_id, job.model)
                execution.finished(job.model)
            else:
                jobs.append(job)
        for outcome in execution.backend.run(evaluate_job, jobs, partial(_lost_evaluation, store)):
            if outcome.fatal:
                raise StorageError(outcome.failure)
            if not outcome.failure:
                outcome = read_evaluated(outcome.run_id, outcome.model)
            done[outcome.run_id] = outcome
            execution.finished(outcome.model)
    finally:
        _close(store, run_ids)
    return [done[run_id] for run_id in run_ids]


def log_study_start(store: StoreSpec, described: dict[str, Any], data: tuple[Any, Any]) -> None:
    """Log a study's parameters, data sets and environment into its run."""
    if store.parent_run_id is None:
        return
    kept = (
        "dataset",
        "preset",
        "epochs",
        "seeds",
        "encoder_std",
        "input_noise_std",
        "radii",
        "n_images",
        "reproduction_errors",
    )
    runs.log_parameters(store, store.parent_run_id, {key: str(described[key]) for key in kept})
    for bunch, context in zip(data, ("training", "evaluation")):
        runs.log_dataset(store, store.parent_run_id, bunch, context)
    environment = runs.environment() | described["machine"]
    runs.log_json(store, store.parent_run_id, environment, "environment.json")


def log_study_end(
    store: StoreSpec, folder: Path, described: dict[str, Any], models: pd.DataFrame
) -> None:
    """Log a study's result folder as artifacts and its totals as metrics."""
    if store.parent_run_id is None:
        return
    client = client_of(store)
    client.log_artifacts(store.parent_run_id, str(folder), names.ARTIFACT_REPORT)
    totals = {
        "models": float(len(models)),
        "failures": float(len(described["failures"])),
        "wall_seconds": described["wall_seconds"],
    }
    runs.log_metrics(store, store.parent_run_id, totals)


def drop_checkpoints(folder: Path | None) -> None:
    """Remove the folder of checkpoints once nothing is left in it."""
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
