"""Models that were trained elsewhere, stored and registered like those trained here."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import mlflow

from harmonicvae import names
from harmonicvae.exceptions import InputError, StorageError, TrackingError
from harmonicvae.models import ConvHarmonicVAE, HarmonicVAE
from harmonicvae.models.persistence import ESTIMATOR_FILE, WEIGHTS_FILE, load_estimator
from harmonicvae.tracking import parallel, registry, runs, sessions, stores
from harmonicvae.tracking.jobs import Outcome, load_split, prepare_process
from harmonicvae.tracking.keys import content_key, setting_key
from harmonicvae.tracking.reaping import reap
from harmonicvae.tracking.sessions import ModelRun
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of
from harmonicvae.tracking.training import Hooks, Job, outcome_of, store_result

#: File beside an estimator that may tell how it was trained: seconds, digest, machine.
TRAINED_FILE = "trained.json"
#: Parameters of an estimator that do not decide what is trained.
_NEUTRAL = frozenset(
    {"device", "callbacks", "checkpoint_path", "checkpoint_every", "verbose", "elbo_samples"}
)


def adopt(
    folder: str | os.PathLike[str], data: DataSpec, *, experiment: str | None = None
) -> Outcome:
    """Store and register a model that was fitted elsewhere and saved as a folder.

    Parameters
    ----------
    folder : path-like
        Written by :func:`harmonicvae.models.save_estimator`; a ``trained.json`` beside the
        weights may say "seconds", "digest" (SHA-256 of the training data) and "machine".
    data : DataSpec
        What it was trained on.
    experiment : str or None
        As in :func:`harmonicvae.tracking.stores.open_store`.

    Returns
    -------
    Outcome
        With ``model_uri`` ``models:/name/version``.

    Raises
    ------
    InputError
        If the folder holds no readable estimator, or one of other data, or one with
        parameters that no model of a study has.
    TrackingError
        If it could not be stored or registered.

    Notes
    -----
    Its run is that of a trained model with the same metrics, but for the tags
    ``harmonicvae.code`` and ``harmonicvae.device``, which say where it comes from, so that
    ``harmonicvae study --reuse any`` takes it over.  Called again it stores nothing twice.
    """
    folder = Path(folder)
    estimator = load_estimator(folder, device="cpu")
    train, validation = (load_split(data, split) for split in ("train", "validation"))
    told = _told(folder)
    _check_data(estimator, told, train, folder)
    spec = _spec(estimator, data.name, train, folder)
    setting = setting_key(spec, {"train": train.digest, "validation": validation.digest})
    weights = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    key = content_key({"setting": setting, "weights": weights})
    store = stores.open_store(experiment)
    prepare_process(store, None)
    reap(store)
    registry.ensure_registered_model(store, spec.registered_name)
    item = _run_of(store, spec, key, setting)
    outcome = Outcome(model=spec.name, run_id=item.run_id, model_uri=item.model_uri)
    if not item.model_uri:
        outcome = _store(store, item, data, train, validation, estimator, folder, told)
        item.model_uri = outcome.model_uri
    outcome = parallel.registered(store, item, outcome)
    if outcome.failure:
        raise (StorageError if outcome.fatal else TrackingError)(outcome.failure)
    return outcome


def _told(folder: Path) -> dict[str, Any]:
    """Return what the file beside the estimator tells of its training."""
    path = folder / TRAINED_FILE
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if "seconds" in told:
            told["seconds"] = float(told["seconds"])
            if not 0 <= told["seconds"] < math.inf:
                raise ValueError(f"seconds must be >= 0 and finite, got {told['seconds']}")
        if not isinstance(told.get("machine", {}), dict):
            raise ValueError(f"machine must be an object, got {told['machine']!r}")
        return dict(told)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} does not tell how a model was trained: {error!r}"
        ) from error


def _check_data(estimator: HarmonicVAE, told: dict[str, Any], train: Any, folder: Path) -> None:
    """Refuse an estimator that was fitted on other data."""
    if estimator.n_features_in_ != train.data.shape[1]:
        raise InputError(
            f"{str(folder)!r} was fitted on {estimator.n_features_in_} features, but "
            f"{train.name} has {train.data.shape[1]}"
        )
    if told.get("digest", train.digest) != train.digest:
        raise InputError(
            f"{str(folder)!r} was fitted on other data than this {train.name}: digest "
            f"{told['digest']}, here {train.digest}"
        )


def _spec(estimator: HarmonicVAE, dataset: str, train: Any, folder: Path) -> ModelSpec:
    """Return the estimator as a model of a study; refuse one that is none."""
    params = estimator.get_params(deep=False)
    conv = isinstance(estimator, ConvHarmonicVAE)
    named = {key: key for key in ModelSpec.__dataclass_fields__} | {"epochs": "max_epochs"}
    fields = {field: params[name] for field, name in named.items() if name in params}
    for field in ("encoder_std", "input_noise_std", "lr", "kl_weight"):
        if not isinstance(fields[field], str):
            fields[field] = float(fields[field])  # 1 and 1.0 are one setting
    fields["seed"] = estimator.seed_
    fields["reproduction_errors"] = tuple(fields["reproduction_errors"] or ())
    if conv:
        fields = {key: fields[key] for key in fields if key not in ("hidden_dims", "activation")}
    spec = ModelSpec(dataset=dataset, model="conv" if conv else "mlp", **fields)
    wanted = spec.estimator(tuple(train.image_shape)).get_params(deep=False)
    other = [key for key in wanted if key not in _NEUTRAL and not _equal(wanted[key], params[key])]
    if other:
        raise InputError(
            f"{str(folder)!r} is no model of a study: its {', '.join(other)} cannot be told in a "
            "study's parameters; log it with mlflow instead"
        )
    return spec


def _equal(first: Any, second: Any) -> bool:
    """Compare parameters; lists and tuples of the same content are equal."""
    if isinstance(first, (list, tuple)) or isinstance(second, (list, tuple)):
        return list(first or ()) == list(second or ())
    return bool(first == second)


def _run_of(store: StoreSpec, spec: ModelSpec, key: str, setting: str) -> ModelRun:
    """Return the run of this very model: that of an earlier call, or a new one."""
    (item,) = sessions.model_runs(store, [spec], [key], settings=[setting])
    return item


def _store(
    store: StoreSpec,
    item: ModelRun,
    data: DataSpec,
    train: Any,
    validation: Any,
    estimator: HarmonicVAE,
    folder: Path,
    told: dict[str, Any],
) -> Outcome:
    """Fill the run as training would have."""
    run_id, client = item.run_id, client_of(store)
    job = Job(spec=item.spec, data=data, store=store, run_id=run_id)
    with outcome_of(job) as outcome, runs.finishing(store, run_id):
        client.update_run(run_id, status="RUNNING")
        version = json.loads((folder / ESTIMATOR_FILE).read_text(encoding="utf-8"))["version"]
        machine = told.get("machine", {})
        tags = {
            names.TAG_DATA: data.to_json(),
            names.TAG_CODE: f"{version}, trained elsewhere",
            names.TAG_DEVICE: str(machine.get("device", "unknown")),
        }
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        runs.log_parameters(store, run_id, item.spec.parameters())
        runs.log_dataset(store, run_id, train, "training")
        runs.log_json(store, run_id, told, TRAINED_FILE)
        seconds = told.get("seconds", float(estimator.history_[names.EPOCH_SECONDS].sum()))
        with mlflow.start_run(run_id=run_id):
            outcome.model_uri = store_result(job, estimator, validation.data, seconds, Hooks(job))
    return outcome
