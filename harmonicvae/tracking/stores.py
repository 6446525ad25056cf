"""The MLflow store and its experiment: opened by one process at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harmonicvae.exceptions import HarmonicVAEError, TrackingError
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.storage import say_it_once

DEFAULT_EXPERIMENT = "harmonicvae"


def outer_run_id() -> str | None:
    """Return the run that ``mlflow run`` created for this process, if any."""
    return os.environ.get("MLFLOW_RUN_ID") or None


def open_store(experiment: str | None = None, tracking_uri: str | None = None) -> StoreSpec:
    """Open the MLflow store and its experiment, both created by this one process.

    Parameters
    ----------
    experiment : str or None
        Name; None means that of the run started by ``mlflow run``, else "harmonicvae".
    tracking_uri : str or None
        Store; None means MLflow's own choice (``MLFLOW_TRACKING_URI``, else
        ``sqlite:///mlflow.db`` in the working folder).

    Returns
    -------
    StoreSpec
        Without a parent run.

    Raises
    ------
    TrackingError
        If the store cannot be reached.

    Notes
    -----
    Workers must never create a store or an experiment: two processes doing so at once
    lose runs into the "Default" experiment.
    """
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    uri = mlflow.get_tracking_uri()
    say_it_once()
    try:
        with _store_lock(uri) as database:
            if database is not None and not database.exists():
                _create_database(database)
            client = MlflowClient(uri)
            experiment_id = _experiment_id(client, experiment)
            name = client.get_experiment(experiment_id).name
    except HarmonicVAEError:
        raise
    except Exception as error:  # MLflow passes on what its store's driver raises
        raise TrackingError(
            f"cannot open the MLflow store {public_uri(uri)!r}: "
            f"{first_line(error)}; set MLFLOW_TRACKING_URI to a store that can be written"
        ) from error
    return StoreSpec(tracking_uri=uri, experiment_id=experiment_id, experiment=name)


@contextmanager
def _store_lock(uri: str) -> Iterator[Path | None]:
    """Let one process at a time open a sqlite store: two creating its tables break.

    Yields its file; None for a store of another kind.
    """
    if not uri.startswith("sqlite:///") or ":memory:" in uri:
        yield None
        return
    path = Path(uri.removeprefix("sqlite:///").split("?")[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=300):
        yield path


def _create_database(path: Path) -> None:
    """Create a store's tables aside, then put the file in place.

    MLflow creates them in many steps and cannot go on with a file that holds only some: a
    process killed half-way would leave a store that nobody can open.
    """
    for former in path.parent.glob(f".{path.name}.*.new*"):
        former.unlink(missing_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    MlflowClient(f"sqlite:///{aside.absolute()}").search_experiments()
    os.replace(aside, path)


def public_uri(uri: str) -> str:
    """Return a URI without user name and password.

    Examples
    --------
    >>> public_uri("postgresql://user:secret@host/db")
    'postgresql://host/db'
    """
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def first_line(error: BaseException) -> str:
    """Return the type and first line of an error, without credentials."""
    lines = str(error).strip().splitlines() or [""]
    return public_uri(f"{type(error).__name__}: {lines[0]}")


def _experiment_id(client: MlflowClient, name: str | None) -> str:
    """Return the experiment's id, creating it where there is none."""
    if not name and outer_run_id():
        return client.get_run(outer_run_id()).info.experiment_id
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"experiment {name!r} is deleted; restore it in MLflow or choose another name"
        )
    return found.experiment_id
