"""One start of a sweep: what an earlier start left is found, taken over and gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from harmonicvae import names
from harmonicvae.exceptions import TrackingError
from harmonicvae.processes import describe, is_alive, this_process
from harmonicvae.tracking import registry, runs
from harmonicvae.tracking.keys import TRAINING_CODE, code_version
from harmonicvae.tracking.reaping import heartbeat, reap
from harmonicvae.tracking.specs import ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of
from harmonicvae.tracking.stores import outer_run_id

_OPEN = ("RUNNING", "SCHEDULED")


@contextmanager
def sweep_session(
    store: StoreSpec, key: str, name: str, role: str, *, reuse: bool = True
) -> Iterator[StoreSpec]:
    """Run a block inside the run of a sweep, that of an earlier start where there is one.

    Parameters
    ----------
    store : StoreSpec
    key : str
        Of the sweep, from :func:`harmonicvae.tracking.keys.sweep_key`.
    name, role : str
        Of the run.
    reuse : bool, default=True
        False begins a new run whatever there is.

    Yields
    ------
    StoreSpec
        With the sweep's run as parent.

    Raises
    ------
    TrackingError
        If another process is at the same sweep.
    StorageError
        If the store is locked for minutes, or gone.

    Notes
    -----
    Runs of dead processes in the experiment are marked KILLED first.  The sweep's run ends
    as FINISHED, FAILED or KILLED; if this process is killed, the next start sees to it.
    """
    reap(store)
    former = _former_run(store, key) if reuse else None
    run_id = runs.adopt_run(store, name, role, former.info.run_id if former else None)
    client = client_of(store)
    client.set_tag(run_id, names.TAG_KEY, key)
    sessions = 1
    if former is not None:
        sessions += int(former.data.tags.get(names.TAG_SESSIONS, 1))
        if former.info.run_id != run_id and former.info.status != "FINISHED":
            client.set_tag(former.info.run_id, names.TAG_CONTINUED_BY, run_id)
    client.set_tag(run_id, names.TAG_SESSIONS, str(sessions))
    inside = replace(store, parent_run_id=run_id)
    with runs.finishing(inside, run_id), heartbeat(inside, run_id):
        yield inside


def _former_run(store: StoreSpec, key: str) -> Any:
    """Return the newest run of the same sweep, None if there is none; refuse one that lives."""
    client = client_of(store)
    found = client.search_runs(
        [store.experiment_id], f"tags.`{names.TAG_KEY}` = '{key}'", order_by=["start_time DESC"]
    )
    for run in found:
        tags = run.data.tags
        owner = tags.get(names.TAG_OWNER, this_process())
        elsewhere = run.info.status in _OPEN and owner != this_process()
        if elsewhere and is_alive(owner, tags.get(names.TAG_HEARTBEAT)):
            raise TrackingError(
                f"the same sweep is running already ({describe(owner)}, run "
                f"{run.info.run_id}); wait for it or end it"
            )
    ours = [run for run in found if run.info.run_id != outer_run_id()]
    return ours[0] if ours else None


@dataclass(kw_only=True)
class ModelRun:
    """The run of one model of a sweep, and how far it is.

    Parameters
    ----------
    spec : ModelSpec
    key : str
        Content key of the model.
    run_id : str
    model_uri : str
        ``models:/m-…`` of the stored model; "" until it is trained.
    foreign : bool
        Whether the run belongs to another sweep, and only its model is used here.
    """

    spec: ModelSpec
    key: str
    run_id: str
    model_uri: str = ""
    foreign: bool = False


def model_runs(
    store: StoreSpec,
    specs: list[ModelSpec],
    keys: list[str],
    *,
    settings: list[str] | None = None,
    reuse: bool = True,
    any_code: bool = False,
) -> Iterator[ModelRun]:
    """Yield the run of every model: a finished one, one to go on with, or a new one.

    Parameters
    ----------
    store : StoreSpec
        With the sweep's run as parent.
    specs : list of ModelSpec
    keys : list of str
        Content key of each.
    settings : list of str or None, default=None
        Key of data and parameters of each, for a tag of new runs; needed with ``any_code``.
    reuse : bool, default=True
        False takes up only runs of this very sweep.
    any_code : bool, default=False
        Whether a model that other code or another device has trained with the same data and
        parameters is taken where there is none of ours.

    Yields
    ------
    ModelRun

    Notes
    -----
    Unfinished runs of earlier starts become runs of this sweep.  A run that only the
    answer of a dying server made twice is deleted.
    """
    for spec, key, setting in zip(specs, keys, settings or [""] * len(keys)):
        usable = _usable(store, names.TAG_KEY, key, reuse)
        if any_code and not any(map(_trained, usable)):
            others = _usable(store, names.TAG_SETTING, setting, reuse)
            usable = list(filter(_trained, others)) or usable
        if not usable:
            run_id = _scheduled_run(store, spec, key, setting)
            yield ModelRun(spec=spec, key=key, run_id=run_id)
            continue
        chosen = usable[0]
        key = chosen.data.tags[names.TAG_KEY]
        _delete_twins(store, chosen, usable[1:])
        trained = _trained(chosen)
        parent = chosen.data.tags.get(names.TAG_PARENT)
        foreign = bool(trained) and parent != store.parent_run_id and _is_settled(store, parent)
        run_id = chosen.info.run_id
        if not foreign:
            _take_over(store, chosen)
        yield ModelRun(spec=spec, key=key, run_id=run_id, model_uri=trained, foreign=foreign)


def _trained(run: Any) -> str:
    """Return the URI of a run's stored model; "" if there is none yet."""
    return run.data.tags.get(names.TAG_TRAINED, "")


def _usable(store: StoreSpec, tag: str, key: str, reuse: bool) -> list[Any]:
    """Return the runs of a model that nobody works on, trained ones first, new ones first."""
    found = client_of(store).search_runs(
        [store.experiment_id], f"tags.`{tag}` = '{key}'", order_by=["start_time DESC"]
    )
    usable = []
    for run in found:
        tags = run.data.tags
        ours = tags.get(names.TAG_PARENT) == store.parent_run_id
        busy = run.info.status in _OPEN and not ours  # the dead ones are reaped by now
        if not busy and (reuse or ours) and tags.get(names.TAG_ROLE) == "model":
            usable.append(run)
    return sorted(usable, key=lambda run: not _trained(run))


def _delete_twins(store: StoreSpec, chosen: Any, others: list[Any]) -> None:
    """Delete unfinished runs of the same model in the same sweep."""
    for run in others:
        same = run.data.tags.get(names.TAG_PARENT) == chosen.data.tags.get(names.TAG_PARENT)
        if same and not run.data.tags.get(names.TAG_TRAINED):
            client_of(store).delete_run(run.info.run_id)


def _is_settled(store: StoreSpec, run_id: str | None) -> bool:
    """Tell whether a sweep is complete or alive, so that its models stay with it."""
    return bool(run_id) and client_of(store).get_run(run_id).info.status in (*_OPEN, "FINISHED")


def _take_over(store: StoreSpec, run: Any) -> None:
    """Make a run one of this sweep, open again if its model is not trained."""
    tags, run_id = run.data.tags, run.info.run_id
    if not tags.get(names.TAG_TRAINED):
        runs.reopen(store, run_id, store.parent_run_id)
        return
    client = client_of(store)
    if tags.get(names.TAG_PARENT) != store.parent_run_id:
        client.set_tag(run_id, names.TAG_PARENT, store.parent_run_id)
    if run.info.status != "FINISHED":
        runs.finish(store, run_id)


def _scheduled_run(store: StoreSpec, spec: ModelSpec, key: str, setting: str = "") -> str:
    """Create a model's run in state SCHEDULED; the driver alone creates runs."""
    tags = {
        names.TAG_MODEL: spec.name,
        names.TAG_DATASET: spec.dataset,
        names.TAG_KEY: key,
        names.TAG_SETTING: setting,
        names.TAG_CODE: code_version(TRAINING_CODE),
    }
    run_id = runs.create_run(store, spec.name, "model", tags)
    client_of(store).update_run(run_id, status="SCHEDULED")
    return run_id


def evaluation_run(store: StoreSpec, found: ModelRun, key: str) -> tuple[str, bool]:
    """Return the run that a model's evaluation is logged to, and whether it is complete.

    Parameters
    ----------
    store : StoreSpec
    found : ModelRun
        Of a trained model.
    key : str
        Content key of the evaluation.

    Returns
    -------
    run_id : str
        The model's own run; for a model of another sweep a run of this one.
    complete : bool
    """
    client = client_of(store)
    if not found.foreign:
        tags = client.get_run(found.run_id).data.tags
        return found.run_id, tags.get(names.TAG_EVALUATED) == key
    others = client.search_runs(
        [store.experiment_id],
        f"tags.`{names.TAG_KEY}` = '{key}' and tags.`{names.TAG_PARENT}` = '{store.parent_run_id}'",
    )
    if others:
        run = others[0]
        complete = run.data.tags.get(names.TAG_EVALUATED) == key
        if not complete:
            runs.reopen(store, run.info.run_id)
        return run.info.run_id, complete
    tags = {names.TAG_MODEL: found.spec.name, names.TAG_KEY: key}
    return runs.create_run(store, found.spec.name, "evaluation", tags), False


def note_reused(store: StoreSpec, found: list[ModelRun]) -> None:
    """Write into the sweep's run which models come from other sweeps."""
    reused = {item.spec.name: item.run_id for item in found if item.foreign}
    if reused and store.parent_run_id:
        text = json.dumps(reused)[: runs.MAX_REASON]
        client_of(store).set_tag(store.parent_run_id, names.TAG_REUSED, text)


def register(store: StoreSpec, found: ModelRun, tags: dict[str, Any]) -> str:
    """Register a trained model, once, and return ``models:/name/version``."""
    spec = found.spec
    return registry.register(
        store, spec.registered_name, found.model_uri, found.run_id, spec.alias, tags
    )
