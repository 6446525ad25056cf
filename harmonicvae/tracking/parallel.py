"""The driver's side of a study: runs created ahead, jobs sent to workers, results registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.tracking import registry, runs
from harmonicvae.tracking.jobs import Evaluation, Job, Outcome, evaluate_job, train_job
from harmonicvae.tracking.specs import ModelSpec, StoreSpec


def create_model_runs(store: StoreSpec, specs: Sequence[ModelSpec]) -> list[str]:
    """Create one SCHEDULED run a model, and the registered model; return the run ids."""
    client = MlflowClient(store.tracking_uri)
    for name in sorted({spec.registered_name for spec in specs}):
        registry.ensure_registered_model(store, name)
    run_ids = []
    for spec in specs:
        tags = {names.TAG_MODEL: spec.name, names.TAG_DATASET: spec.dataset}
        run_ids.append(runs.create_run(store, spec.name, "model", tags))
        client.update_run(run_ids[-1], status="SCHEDULED")
    return run_ids


def train_all(jobs: Sequence[Job], n_jobs: int, finished: Callable[[str], Any]) -> list[Outcome]:
    """Train all models and register them in the order of the jobs.

    Parameters
    ----------
    jobs : sequence of Job
    n_jobs : int
        Processes; 1 trains here.
    finished : callable
        Called with a model's name when it is trained or has failed.

    Returns
    -------
    list of Outcome
        In the order of the jobs; ``model_uri`` is ``models:/name/version``.
    """
    if not jobs:
        return []
    outcomes = _run_all(train_job, jobs, n_jobs, finished, [job.run_id for job in jobs])
    return [_registered(job, outcomes[job.spec.name]) for job in jobs]


def evaluate_all(
    jobs: Sequence[Evaluation], n_jobs: int, finished: Callable[[str], Any]
) -> list[Outcome]:
    """Evaluate all models; see :func:`train_all`."""
    if not jobs:
        return []
    outcomes = _run_all(evaluate_job, jobs, n_jobs, finished, [job.run_id for job in jobs])
    return [outcomes[job.model] for job in jobs]


def _run_all(
    function: Callable[[Any], Outcome],
    jobs: Sequence[Any],
    n_jobs: int,
    finished: Callable[[str], Any],
    run_ids: list[str],
) -> dict[str, Outcome]:
    """Run jobs in worker processes; whatever happens, no run stays open."""
    outcomes: dict[str, Outcome] = {}
    pool = Parallel(
        n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="all"
    )
    try:
        for outcome in pool(delayed(function)(job) for job in jobs):
            outcomes[outcome.model] = outcome
            finished(outcome.model)
    finally:
        runs.kill_unfinished(jobs[0].store, run_ids, "the study ended before this run did")
    return outcomes


def _registered(job: Job, outcome: Outcome) -> Outcome:
    """Register a trained model; a failed one is handed on as it is."""
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
    uri = registry.register(
        job.store,
        job.spec.registered_name,
        outcome.model_uri,
        outcome.run_id,
        job.spec.alias,
        tags,
    )
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
    runs.log_json(
        store, store.parent_run_id, runs.environment() | described["machine"], "environment.json"
    )


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
