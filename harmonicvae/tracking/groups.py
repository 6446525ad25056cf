"""Models of a sweep trained as one batched program: one job, a run for each model."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow

from harmonicvae import names
from harmonicvae.exceptions import CollapseWarning
from harmonicvae.models import fit_together
from harmonicvae.models.groups import pays_together, together_groups
from harmonicvae.tracking import runs
from harmonicvae.tracking.backends import Backend
from harmonicvae.tracking.jobs import Outcome, load_split, prepare_process
from harmonicvae.tracking.keys import content_key
from harmonicvae.tracking.sessions import ModelRun
from harmonicvae.tracking.storage import client_of, in_clear_words
from harmonicvae.tracking.training import (
    Hooks,
    Job,
    SupersededError,
    describe,
    outcome_of,
    store_result,
)

#: Choices of the option "together".
TOGETHER = ("auto", "true", "false")
#: Seconds between two checkpoints of a group at least.
CHECKPOINT_SECONDS = 5.0
_MEMBERS = "members.json"


@dataclass(frozen=True, kw_only=True)
class GroupJob:
    """Models to train as one program, each in a run of its own.

    Parameters
    ----------
    jobs : tuple of Job
        On the same data, device and number of threads.
    done : tuple of bool
        Which of them are stored already: they are only computed with the others, so that
        the others' results do not depend on when a sweep was interrupted.
    checkpoint : str or None
        Folder of the group's checkpoint.
    """

    jobs: tuple[Job, ...]
    done: tuple[bool, ...]
    checkpoint: str | None = None

    @property
    def todo(self) -> list[Job]:
        """Jobs that are not done."""
        return [job for job, done in zip(self.jobs, self.done) if not done]


def train_group(group: GroupJob) -> list[Outcome]:
    """Train models as one program and store each in its run.

    Parameters
    ----------
    group : GroupJob

    Returns
    -------
    list of Outcome
        Of the jobs that were not done, as :func:`harmonicvae.tracking.training.train_job`
        returns them.

    Notes
    -----
    As robust as single jobs: killed and called again, it goes on from the last checkpoint.
    """
    todo = group.todo
    first = group.jobs[0]
    prepare_process(first.store, first.threads)
    outcomes = {job.run_id: Outcome(model=job.spec.name, run_id=job.run_id) for job in todo}
    results: list[Any]
    try:
        with in_clear_words():
            results = _fit(group, todo)
    except Exception as error:  # of all models alike: data, store, disk
        results = [error] * len(todo)
    for job, result in zip(todo, results):
        with outcome_of(job) as outcome, runs.finishing(job.store, job.run_id, SupersededError):
            if isinstance(result, Exception):
                raise result
            outcome.model_uri = result(job)
        outcomes[job.run_id] = outcome
    return list(outcomes.values())


def _fit(group: GroupJob, todo: Sequence[Job]) -> list[Any]:
    """Fit all models; return for each one to store a function that does, or why not."""
    first = group.jobs[0]
    train, validation = (load_split(first.data, split) for split in ("train", "validation"))
    hooks: dict[str, Hooks] = {}
    for job in todo:
        client_of(job.store).update_run(job.run_id, status="RUNNING")
        describe(job, train)
        hooks[job.run_id] = Hooks(job)
        hooks[job.run_id].progress.start(0)  # hooks are told of restored epochs by the history
    estimators = [job.spec.estimator(train.image_shape, device=job.device) for job in group.jobs]
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # it is a metric and in the table
            failures = fit_together(
                estimators,
                train.data,
                hooks=[hooks.get(job.run_id) for job in group.jobs],
                keys=[job.spec.name for job in group.jobs],
                checkpoint_dir=group.checkpoint,
                checkpoint_seconds=CHECKPOINT_SECONDS,
                on_error="return",
            )
    finally:
        for hook in hooks.values():
            hook.logger.flush()
    seconds = (time.perf_counter() - started) / len(estimators)

    by_run: dict[str, Any] = {}
    for job, estimator, failure in zip(group.jobs, estimators, failures):
        if failure is None and job.run_id in hooks:
            # of a model that went on from a checkpoint: what its epochs took, all together
            taken = max(seconds, float(estimator.history_[names.EPOCH_SECONDS].sum()))
            stored = partial(_store, estimator, validation.data, taken, hooks[job.run_id])
            by_run[job.run_id] = stored
        else:
            by_run[job.run_id] = failure
    return [by_run[job.run_id] for job in todo]


def _store(estimator: Any, validation: Any, seconds: float, hooks: Hooks, job: Job) -> str:
    """Store one trained model in its run."""
    with mlflow.start_run(run_id=job.run_id):
        return store_result(job, estimator, validation, seconds, hooks)


def plan_groups(
    found: Sequence[ModelRun],
    jobs: Sequence[Job],
    backend: Backend,
    together: str,
    checkpoints: Path | None,
    n_features: int,
) -> tuple[list[GroupJob], list[Job]]:
    """Decide which models are trained together.

    Parameters
    ----------
    found : sequence of ModelRun
        Of the whole sweep.
    jobs : sequence of Job
        One for each of ``found``.
    backend : Backend
        A group is cut into as many parts as there are workers.
    together : {"auto", "true", "false"}
        "auto" groups where :func:`harmonicvae.models.pays_together` says so, and not on a
        Dask cluster, where single models are moved more easily.
    checkpoints : Path or None
    n_features : int

    Returns
    -------
    groups : list of GroupJob
        At least two models each.
    singles : list of Job
        The others that are not trained yet.

    Notes
    -----
    A group begun by an earlier start keeps its members, trained or not.
    """
    left = [index for index, item in enumerate(found) if not item.model_uri]
    if together == "false" or (together == "auto" and backend.name == "dask"):
        return [], [jobs[index] for index in left]
    groups: list[GroupJob] = []
    for members in _begun(found, checkpoints):
        if set(members) & set(left):
            groups.append(_group(found, jobs, members, checkpoints))
            left = [index for index in left if index not in members]
    estimators = [jobs[index].spec.estimator(device=jobs[index].device) for index in left]
    singles = list(left)
    for part in together_groups(estimators):
        for chunk in _chunks([left[i] for i in part], backend.n_jobs):
            wanted = together == "true" or _pays(jobs[chunk[0]], len(chunk), n_features)
            if len(chunk) > 1 and wanted:
                groups.append(_group(found, jobs, chunk, checkpoints))
                singles = [index for index in singles if index not in chunk]
    return groups, [jobs[index] for index in singles]


def _pays(job: Job, count: int, n_features: int) -> bool:
    spec = job.spec
    return pays_together(
        count,
        n_features,
        latent_dim=spec.latent_dim,
        hidden_dims=spec.hidden_dims,
        batch_size=spec.batch_size,
        device=job.device,
    )


def _chunks(members: list[int], parts: int) -> list[list[int]]:
    """Cut a list into so many parts of nearly equal size.

    Examples
    --------
    >>> _chunks([1, 2, 3, 4, 5], 2)
    [[1, 3, 5], [2, 4]]
    """
    return [members[start::parts] for start in range(min(parts, len(members)))]


def _group(
    found: Sequence[ModelRun], jobs: Sequence[Job], members: Sequence[int], folder: Path | None
) -> GroupJob:
    keys = [found[index].key for index in members]
    checkpoint = None
    if folder is not None:
        checkpoint = folder / f"group-{content_key(keys)[:16]}"
        _write_members(checkpoint, keys)
    return GroupJob(
        jobs=tuple(jobs[index] for index in members),
        done=tuple(bool(found[index].model_uri) for index in members),
        checkpoint=None if checkpoint is None else str(checkpoint / "epochs"),
    )


def _write_members(folder: Path, keys: list[str]) -> None:
    """Write down, once and atomically, which models a group consists of."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _MEMBERS).exists():
        partial = folder / f".{_MEMBERS}.part"
        partial.write_text(json.dumps(keys), encoding="utf-8")
        os.replace(partial, folder / _MEMBERS)


def _begun(found: Sequence[ModelRun], folder: Path | None) -> list[list[int]]:
    """Return the members of groups that an earlier start of this sweep began."""
    index_of = {item.key: index for index, item in enumerate(found)}
    begun = []
    for group in sorted(folder.glob("group-*")) if folder is not None else ():
        with suppress(OSError, ValueError):
            keys = json.loads((group / _MEMBERS).read_text(encoding="utf-8"))
            members = [index_of[key] for key in keys if key in index_of]
            if len(members) == len(keys):
                begun.append(members)
    return begun


def drop_finished(found: Sequence[ModelRun], folder: Path | None) -> None:
    """Remove the checkpoints of groups whose models are all stored."""
    stored = {item.key for item in found if item.model_uri}
    for group in sorted(folder.glob("group-*")) if folder is not None else ():
        try:
            keys = json.loads((group / _MEMBERS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            keys = []
        if set(keys) <= stored:
            shutil.rmtree(group, ignore_errors=True)
