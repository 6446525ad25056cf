"""Runs: creating them without races, filling them, and never leaving one in state RUNNING."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.exceptions import StorageError, TrackingError
from harmonicvae.processes import this_process
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.storage import client_of
from harmonicvae.tracking.stores import first_line, outer_run_id

T = TypeVar("T")

#: Reasons of failures are cut there; MLflow's stores allow a little more in a tag.
MAX_REASON = 5000
_DATASET_TRIES = 5
#: Metrics that MLflow takes in one call.
_METRICS_A_CALL = 1000
#: Packages that results depend on.
ENVIRONMENT_PACKAGES = (
    "torch",
    "torchvision",
    "skorch",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "mlflow",
)


def create_run(
    store: StoreSpec,
    name: str,
    role: str,
    tags: Mapping[str, str] | None = None,
    *,
    start_time: int | None = None,
) -> str:
    """Create a run in state RUNNING and return its id.

    Parameters
    ----------
    store : StoreSpec
        Its ``parent_run_id``, if any, becomes the parent.
    name : str
        Shown by MLflow.
    role : str
        "study", "model", "evaluation", "search" or "candidate".
    tags : mapping of str, optional
        Further tags.
    start_time : int or None, default=None
        Milliseconds since the epoch; None means now.

    Returns
    -------
    str
    """
    all_tags = {
        MLFLOW_RUN_NAME: name,
        names.TAG_ROLE: role,
        names.TAG_VERSION: __version__,
        names.TAG_OWNER: this_process(),
        "mlflow.source.name": "harmonicvae",
    }
    if store.parent_run_id:
        all_tags[MLFLOW_PARENT_RUN_ID] = store.parent_run_id
    all_tags |= dict(tags or {})
    client = client_of(store)
    run = client.create_run(store.experiment_id, start_time=start_time, tags=all_tags)
    return run.info.run_id


def adopt_run(store: StoreSpec, name: str, role: str, former: str | None = None) -> str:
    """Return the run of ``mlflow run`` if there is one in this experiment, else a new one.

    In place of a new one, ``former``, a run that ended, is opened again where it is given.
    """
    client = client_of(store)
    outer = outer_run_id()
    try:
        experiment_id = client.get_run(outer).info.experiment_id if outer else None
    except MlflowException as error:
        raise TrackingError(
            f"MLFLOW_RUN_ID names no run of this store: {first_line(error)}; unset it"
        ) from error
    if outer and experiment_id == store.experiment_id:
        client.set_tag(outer, names.TAG_ROLE, role)
        client.set_tag(outer, names.TAG_VERSION, __version__)
        client.set_tag(outer, names.TAG_OWNER, this_process())
        client.set_tag(outer, MLFLOW_RUN_NAME, name)
        return outer
    if former is None:
        run_id = create_run(store, name, role)
    else:
        run_id = former
        reopen(store, run_id)
        client.update_run(run_id, status="RUNNING")
    if outer:
        client.set_tag(outer, names.TAG_STUDY_RUN, run_id)
    return run_id


@contextmanager
def finishing(
    store: StoreSpec, run_id: str, leave: type[BaseException] | tuple[()] = ()
) -> Iterator[None]:
    """End a run whatever happens: FINISHED, FAILED with the reason as a tag, or KILLED.

    After an error of the type ``leave`` the run stays as it is.  Where the store itself is
    the trouble, the run stays open until the next start finds it.
    """
    try:
        yield
    except leave:
        raise
    except KeyboardInterrupt:
        with suppress(StorageError):
            end_run(store, run_id, "KILLED", "interrupted by the user")
        raise
    except BaseException as error:
        with suppress(StorageError):
            end_run(store, run_id, "FAILED", f"{type(error).__name__}: {error}")
        raise
    end_run(store, run_id, "FINISHED")


def end_run(
    store: StoreSpec,
    run_id: str,
    status: str,
    reason: str | None = None,
    *,
    end_time: int | None = None,
) -> None:
    """Set the final status of a run and, where there is one, the reason as a tag.

    ``end_time`` is in milliseconds since the epoch; None means now.
    """
    client = client_of(store)
    if reason:
        client.set_tag(run_id, names.TAG_FAILURE, reason[:MAX_REASON])
    client.set_terminated(run_id, status, end_time)


def reopen(store: StoreSpec, run_id: str, parent_run_id: str | None = None) -> None:
    """Take over a run that ended early: SCHEDULED again, ours, without its former failure.

    Parameters
    ----------
    store : StoreSpec
    run_id : str
    parent_run_id : str or None
        New parent; None keeps the former one.
    """
    client = client_of(store)
    tags = client.get_run(run_id).data.tags
    client.set_tag(run_id, names.TAG_OWNER, this_process())
    if parent_run_id and tags.get(MLFLOW_PARENT_RUN_ID) != parent_run_id:
        client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent_run_id)
    if names.TAG_FAILURE in tags:
        client.delete_tag(run_id, names.TAG_FAILURE)
    client.update_run(run_id, status="SCHEDULED")


def finish(store: StoreSpec, run_id: str) -> None:
    """Mark a run FINISHED that was complete before it was interrupted."""
    client = client_of(store)
    if names.TAG_FAILURE in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, names.TAG_FAILURE)
    client.set_terminated(run_id, "FINISHED")


def fail_outer_run(reason: str) -> None:
    """Mark the run of ``mlflow run`` FAILED with a reason; nothing without such a run."""
    run_id = outer_run_id()
    if run_id is None:
        return
    with suppress(Exception):  # the reason is on the screen already
        client = MlflowClient()
        client.set_tag(run_id, names.TAG_FAILURE, reason[:MAX_REASON])
        client.set_terminated(run_id, "FAILED")


def kill_unfinished(store: StoreSpec, run_ids: list[str], reason: str) -> list[str]:
    """Mark runs still RUNNING or SCHEDULED as KILLED and return their ids."""
    client = client_of(store)
    open_states = ("RUNNING", "SCHEDULED")
    left = [run_id for run_id in run_ids if client.get_run(run_id).info.status in open_states]
    for run_id in left:
        end_run(store, run_id, "KILLED", reason)
    return left


def log_parameters(store: StoreSpec, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log parameters in one call.

    A parameter that ``mlflow run`` has logged already as text keeps its value; where ours
    differs it is logged as ``harmonicvae.<name>`` beside it.
    """
    client = client_of(store)
    known = client.get_run(run_id).data.params
    params = [
        Param(key if key not in known else f"harmonicvae.{key}", str(value))
        for key, value in parameters.items()
        if known.get(key) != str(value)
    ]
    client.log_batch(run_id, params=params)


def log_metrics(
    store: StoreSpec,
    run_id: str,
    metrics: Mapping[str, float],
    *,
    step: int = 0,
    model_id: str | None = None,
) -> None:
    """Log metrics in one call, linked to a logged model where its id is given."""
    now = int(time.time() * 1000)
    entities = [
        Metric(key, float(value), now, step, model_id=model_id) for key, value in metrics.items()
    ]
    client_of(store).log_batch(run_id, metrics=entities)


def log_dataset(store: StoreSpec, run_id: str, data: Any, context: str) -> None:
    """Log a data set as an input of a run: name, digest, loader, shape.

    Parameters
    ----------
    data : Bunch
        As returned by ``harmonicvae.datasets.load_dataset``.
    context : str
        "training" or "evaluation".
    """
    tags = {
        "harmonicvae.loader": f"harmonicvae.datasets.load_{data.name}",
        "harmonicvae.split": data.split,
        "harmonicvae.rows": str(data.data.shape[0]),
        "harmonicvae.features": str(data.data.shape[1]),
        "harmonicvae.sha256": data.digest,
    }
    log_data_input(store, run_id, f"{data.name}-{data.split}", data.digest, tags, context)


def log_data_input(
    store: StoreSpec, run_id: str, name: str, digest: str, tags: Mapping[str, str], context: str
) -> None:
    """Log any data as an input of a run, by name, SHA-256 and tags of its source."""
    source = CodeDatasetSource(tags=dict(tags))
    dataset = MetaDataset(source=source, name=name, digest=digest[:32])
    entity = DatasetInput(
        dataset=dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", context)]
    )
    client = client_of(store)
    with_dataset_retries(lambda: client.log_inputs(run_id, datasets=[entity]))


def with_dataset_retries(function: Callable[[], T]) -> T:
    """Call a function that logs a data set, again if another process logs the same one.

    MLflow looks a data set up and then inserts it; of two processes that do so at once, one
    fails on the store's unique key, and finds the row at its next try.
    """
    for attempt in range(1, _DATASET_TRIES):
        try:
            return function()
        except MlflowException as error:
            text = str(error).lower()
            if "unique" not in text or "datasets" not in text:
                raise
        time.sleep(0.2 * attempt)
    return function()


def log_json(store: StoreSpec, run_id: str, value: Any, artifact: str) -> None:
    """Log a JSON file under an artifact path such as "folder/file.json"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(artifact).name
        path.write_text(json.dumps(value, indent=1), encoding="utf-8")
        parent = str(Path(artifact).parent)
        client_of(store).log_artifact(run_id, str(path), None if parent == "." else parent)


def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {package: metadata.version(package) for package in ENVIRONMENT_PACKAGES}
    return {
        "platform": platform.platform(),
        "python": sys.version,
        **versions,
        "harmonicvae": __version__,
    }


class EpochLogger:
    """Log the history's figures as metrics with the epoch as step, a few seconds at a time.

    Parameters
    ----------
    store : StoreSpec
    run_id : str
    seconds : float, default=5.0
        Time between two writes; each is one transaction whatever the number of epochs.

    Notes
    -----
    Epochs that the run has already are not logged again: a run that is continued from a
    checkpoint holds each epoch once.
    """

    def __init__(self, store: StoreSpec, run_id: str, seconds: float = 5.0) -> None:
        self.store, self.run_id, self.seconds = store, run_id, seconds
        self._waiting: list[list[Metric]] = []
        self._known = _logged_epochs(store, run_id)
        self._last = time.monotonic()

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take the figures of one epoch."""
        now, step = int(time.time() * 1000), int(row[names.EPOCH])
        if step in self._known:
            return
        self._known.add(step)
        self._waiting.append(
            [
                Metric(key, float(value), now, step)
                for key, value in row.items()
                if key != names.EPOCH
            ]
        )
        if time.monotonic() - self._last > self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting, whole epochs at a time, MLflow's limit at most."""
        client = client_of(self.store)
        while self._waiting:
            batch: list[Metric] = []
            rest = list(self._waiting)
            while rest and len(batch) + len(rest[0]) <= _METRICS_A_CALL:
                batch += rest.pop(0)
            client.log_batch(self.run_id, metrics=batch)
            self._waiting = rest
        self._last = time.monotonic()


def _logged_epochs(store: StoreSpec, run_id: str) -> set[int]:
    """Return the epochs whose figures a run holds."""
    history = client_of(store).get_metric_history(run_id, names.TRAIN_LOSS)
    return {metric.step for metric in history}
