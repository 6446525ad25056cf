"""Single steps of a study as runs of their own: train one model, evaluate one, fetch a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.exceptions import InputError, StorageError, TrackingError
from harmonicvae.tracking import parallel, registry, runs, stores
from harmonicvae.tracking.jobs import Evaluation, Outcome, evaluate_job
from harmonicvae.tracking.outcomes import read_evaluated
from harmonicvae.tracking.reaping import reap
from harmonicvae.tracking.sessions import ModelRun
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of
from harmonicvae.tracking.training import Job, train_job


def train_one(
    spec: ModelSpec, data: DataSpec, *, experiment: str | None = None, device: str = "auto"
) -> Outcome:
    """Train one model in a run of its own and register it.

    Parameters
    ----------
    spec : ModelSpec
    data : DataSpec
    experiment : str or None
        Name; None as in :func:`harmonicvae.tracking.stores.open_store`.
    device : str

    Returns
    -------
    Outcome
        With ``model_uri`` ``models:/name/version``.

    Raises
    ------
    TrackingError
        If training or registration failed; the run says why.
    """
    store = stores.open_store(experiment)
    reap(store)
    run_id = runs.adopt_run(store, spec.name, "model")
    with runs.finishing(store, run_id):
        registry.ensure_registered_model(store, spec.registered_name)
        tags = {names.TAG_MODEL: spec.name, names.TAG_DATASET: spec.dataset}
        for key, value in tags.items():
            client_of(store).set_tag(run_id, key, value)
        outcome = train_job(Job(spec=spec, data=data, store=store, run_id=run_id, device=device))
        trained = ModelRun(spec=spec, key="", run_id=run_id, model_uri=outcome.model_uri)
        outcome = parallel.registered(store, trained, outcome)
        if outcome.failure:
            raise (StorageError if outcome.fatal else TrackingError)(outcome.failure)
    return outcome


def evaluate_one(
    model_uri: str,
    evaluators: dict[str, dict[str, Any]],
    *,
    data: DataSpec | None = None,
    experiment: str | None = None,
    store: StoreSpec | None = None,
) -> Outcome:
    """Evaluate one stored model in a run of its own, apart from its training.

    Parameters
    ----------
    model_uri : str
        ``models:/name/version``, ``models:/name@alias`` or ``runs:/id/model``.
    evaluators : dict
        Evaluator name to its ``evaluator_config``.
    data : DataSpec or None
        Data set; None means the one that the model was trained on.
    experiment : str or None
        As in :func:`train_one`.
    store : StoreSpec or None
        An open store, below whose parent run the evaluation's run is made; None opens one
        and uses the run of ``mlflow run`` if there is one.

    Returns
    -------
    Outcome
        Metrics in ``row``; or ``failure``.

    Raises
    ------
    TrackingError
        If there is no such model.
    """
    nested, store = store is not None, store or stores.open_store(experiment)
    if not nested:
        reap(store)
    data = data or trained_on(model_uri)
    name = f"{'+'.join(evaluators)} {model_uri}"
    run_id = (runs.create_run if nested else runs.adopt_run)(store, name, "evaluation")
    client_of(store).set_tag(run_id, names.TAG_MODEL, model_uri)
    job = Evaluation(
        model="model",
        model_uri=model_uri,
        evaluators=evaluators,
        data=data,
        store=store,
        run_id=run_id,
    )
    outcome = evaluate_job(job)  # ends the run if it fails
    if outcome.failure:
        return outcome
    runs.end_run(store, run_id, "FINISHED")
    return read_evaluated(run_id, job.model)


def trained_on(model_uri: str) -> DataSpec:
    """Return the data set that a model was trained on, from its run.

    Raises
    ------
    InputError
        If the run does not say.
    """
    described = registry.training_tags(model_uri).get(names.TAG_DATA)
    if described is None:
        raise InputError(
            f"the run that trained {model_uri!r} names no data set; give --dataset and --data-dir"
        )
    return DataSpec.from_json(described)


def fetch_study(run_id: str, folder: Path) -> Path:
    """Download the result files of a study's run and return their folder.

    Raises
    ------
    TrackingError
        If there is no such run or it holds no results.
    """
    run_id = run_id.removeprefix("runs:/").split("/")[0]
    try:
        run_id = _study_run(run_id)
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=names.ARTIFACT_REPORT, dst_path=str(folder)
        )
    except (MlflowException, OSError) as error:
        raise TrackingError(f"no study at run {run_id!r}: {error}") from error
    return Path(path)


def _study_run(run_id: str) -> str:
    """Follow the tag from the run of ``mlflow run`` to the study's own."""
    return MlflowClient().get_run(run_id).data.tags.get(names.TAG_STUDY_RUN, run_id)


def log_report(folder: Path) -> None:
    """Log a report's folder into the run of ``mlflow run``, if there is one."""
    run_id, client = stores.outer_run_id(), MlflowClient()
    if run_id is None:
        return
    client.log_artifact(run_id, str(folder / names.FILE_REPORT), names.ARTIFACT_REPORT)
    for part in ("tables", "figures"):
        client.log_artifacts(run_id, str(folder / part), f"{names.ARTIFACT_REPORT}/{part}")
