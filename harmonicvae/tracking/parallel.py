"""The driver's side of a study: runs created ahead, jobs sent to workers, results registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from joblib.externals.loky import get_reusable_executor
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.tracking import registry, runs
from harmonicvae.tracking.jobs import Evaluation, Job, Outcome, evaluate_job, train_job
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec

#: One thread a worker in every library that counts threads by itself.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def train_all(
    specs: Sequence[ModelSpec],
    data: DataSpec,
    store: StoreSpec,
    *,
    folder: Path,
    device: str,
    n_jobs: int,
    finished: Callable[[str], Any],
) -> list[Outcome]:
    """Train all models, each in a run of its own, and register each when it is done.

    Parameters
    ----------
    specs : sequence of ModelSpec
    data : DataSpec
    store : StoreSpec
        Its parent run becomes the parent of all.
    folder : Path
        Result folder.
    device : str
    n_jobs : int
        Processes; 1 trains here, with all threads.
    finished : callable
        Called with a model's name when it is trained or has failed.

    Returns
    -------
    list of Outcome
        In the order of the specs; ``model_uri`` is ``models:/name/version``.

    Notes
    -----
    Whatever happens, no run stays RUNNING or SCHEDULED: those are marked KILLED.
    """
    outcomes: dict[str, Outcome] = {}
    run_ids: list[str] = []
    try:
        for name in sorted({spec.registered_name for spec in specs}):
            registry.ensure_registered_model(store, name)
        for spec in specs:
            run_ids.append(_scheduled_run(store, spec))
        jobs = [
            Job(
                spec=spec,
                data=data,
                store=store,
                run_id=run_id,
                folder=str(folder),
                device=device,
                threads=1 if n_jobs > 1 else None,
            )
            for spec, run_id in zip(specs, run_ids)
        ]
        by_run = {job.run_id: job for job in jobs}
        for outcome in run_jobs(train_job, jobs, n_jobs):
            outcomes[outcome.run_id] = registered(by_run[outcome.run_id], outcome)
            finished(outcome.model)
    finally:
        runs.kill_unfinished(store, run_ids, "the study ended before this run did")
    return [outcomes[run_id] for run_id in run_ids]


def _scheduled_run(store: StoreSpec, spec: ModelSpec) -> str:
    """Create a model's run in state SCHEDULED; the driver alone creates runs."""
    tags = {names.TAG_MODEL: spec.name, names.TAG_DATASET: spec.dataset}
    run_id = runs.create_run(store, spec.name, "model", tags)
    MlflowClient(store.tracking_uri).update_run(run_id, status="SCHEDULED")
    return run_id


def evaluate_all(
    jobs: Sequence[Evaluation], n_jobs: int, finished: Callable[[str], Any]
) -> list[Outcome]:
    """Evaluate all models; see :func:`train_all`."""
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in run_jobs(evaluate_job, jobs, n_jobs):
            outcomes[outcome.run_id] = outcome
            finished(outcome.model)
    finally:
        if jobs:
            run_ids = [job.run_id for job in jobs]
            runs.kill_unfinished(jobs[0].store, run_ids, "the study ended before this run did")
    return [outcomes[job.run_id] for job in jobs]


def run_jobs(
    function: Callable[[Any], Outcome], jobs: Sequence[Any], n_jobs: int
) -> Iterator[Outcome]:
    """Run jobs in worker processes and yield each outcome as it comes.

    Parameters
    ----------
    function : callable
        From a job to its Outcome; does not raise on failures of the job itself.
    jobs : sequence of Job or Evaluation
    n_jobs : int
        Processes; 1 runs everything in this one.

    Yields
    ------
    Outcome

    Notes
    -----
    A worker that dies (killed, out of memory) takes its pool along.  What was unfinished is
    then run again in one process at a time, and a job whose process dies even alone is
    yielded as a failure.
    """
    if n_jobs == 1 or len(jobs) == 1:
        yield from map(function, jobs)
        return
    left, workers = list(jobs), min(n_jobs, len(jobs))
    while left:
        done: list[Any] = []
        for job, outcome in _pool_outcomes(function, left, workers):
            done.append(job)
            yield outcome
        left = [job for job in left if job not in done]
        if left and workers == 1:
            yield _lost(left.pop(0))
        workers = 1


def _pool_outcomes(
    function: Callable[[Any], Outcome], jobs: Sequence[Any], workers: int
) -> Iterator[tuple[Any, Outcome]]:
    """Yield what one pool finishes before it ends or breaks."""
    pool = get_reusable_executor(max_workers=workers, env=_ONE_THREAD, reuse=False)
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenExecutor:
                continue
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _lost(job: Any) -> Outcome:
    """Return the failure of a job whose process died twice."""
    reason = "its worker process died (killed, or out of memory); try n_jobs=1"
    runs.end_run(job.store, job.run_id, "FAILED", reason)
    model = job.spec.name if isinstance(job, Job) else job.model
    return Outcome(model=model, run_id=job.run_id, failure=reason)


def registered(job: Job, outcome: Outcome) -> Outcome:
    """Register a trained model; a failed one is handed on as it is.

    Parameters
    ----------
    job : Job
    outcome : Outcome
        With ``model_uri`` ``models:/m-…``.

    Returns
    -------
    Outcome
        With ``models:/name/version``; or a failure, with the run marked FAILED.
    """
    if outcome.failure:
        return outcome
    tags = {
        names.ENCODER_STD: job.spec.encoder_std,
        names.INPUT_NOISE_STD: job.spec.input_noise_std,
        names.SEED: job.spec.seed,
        names.EPOCHS: job.spec.epochs,
        names.TAG_STUDY_RUN: job.store.parent_run_id or "",
        names.TAG_VERSION: __version__,
    }
    try:
        uri = registry.register(
            job.store,
            job.spec.registered_name,
            outcome.model_uri,
            outcome.run_id,
            job.spec.alias,
            tags,
        )
    except Exception as error:
        reason = f"trained, but not registered: {type(error).__name__}: {error}"
        runs.end_run(job.store, outcome.run_id, "FAILED", reason)
        return replace(outcome, failure=reason)
    return replace(outcome, model_uri=uri)


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
        "n_jobs",
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
    client = MlflowClient(store.tracking_uri)
    client.log_artifacts(store.parent_run_id, str(folder), names.ARTIFACT_REPORT)
    totals = {
        "models": float(len(models)),
        "failures": float(len(described["failures"])),
        "wall_seconds": described["wall_seconds"],
    }
    runs.log_metrics(store, store.parent_run_id, totals)
