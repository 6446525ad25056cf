"""Seed and configuration of a stored model, from every place that may tell."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.report.comparison_tables import UNKNOWN
from harmonicvae.tracking.evaluation_runs import dataset_entries, quiet_downloads
from harmonicvae.tracking.model_uris import ModelReference
from harmonicvae.tracking.specs import short

#: Parameters besides the seed that make a configuration: equal ones are trained alike.
CONFIGURATION_PARAMETERS = (
    names.DATASET,
    names.ENCODER_STD,
    names.INPUT_NOISE_STD,
    names.EPOCHS,
    "latent_dim",
    "hidden_dims",
    "activation",
    "batch_size",
    "lr",
    "kl_weight",
    "reproduction_errors",
    "data_digest",
)
#: Names of parameters in the file of a stored estimator, where they differ.
_IN_ESTIMATOR = {names.EPOCHS: "max_epochs", names.SEED: "random_state"}


def read_parameters(reference: ModelReference, model: Any, run: Any) -> dict[str, str]:
    """Return seed and configuration as text, from all places that may tell."""
    places: list[Mapping[str, Any]] = [dict(run.data.params) if run else {}]
    places += [dict(model.params or {}) if model else {}, reference.tags]
    wanted = (names.SEED, *CONFIGURATION_PARAMETERS)
    found = {name: _first(name, places) for name in wanted}
    if not found[names.DATASET]:
        found[names.DATASET] = _dataset(reference, run)
    found["data_digest"] = found["data_digest"] or _training_digest(run)
    skipped = (names.DATASET, "data_digest")
    if not all(value for name, value in found.items() if name not in skipped):
        stored = _stored_parameters(reference, model)
        for name in wanted:
            found[name] = found[name] or stored.get(_IN_ESTIMATOR.get(name, name), "")
    return {name: normal(value) or UNKNOWN for name, value in found.items()}


def _first(name: str, places: list[Mapping[str, Any]]) -> str:
    """Return the first value; what ``mlflow run`` passed on as text gives way to ours."""
    values = (place.get(f"harmonicvae.{name}") or place.get(name) for place in places)
    return next((str(value) for value in values if value not in (None, "")), "")


def _dataset(reference: ModelReference, run: Any) -> str:
    """Return the data set by the run's tags or the registered model's name."""
    tags = run.data.tags if run else {}
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(tags[names.TAG_DATA])["name"])
    prefix = f"{names.REGISTERED_PREFIX}-"
    named = reference.name.removeprefix(prefix) if reference.name.startswith(prefix) else ""
    return tags.get(names.TAG_DATASET) or named


def _training_digest(run: Any) -> str:
    """Return the digest of the training data logged with the run."""
    for entry in dataset_entries(run):
        if str(entry.get("name", "")).endswith("-train"):
            return str(entry.get("hash", ""))
    return ""


def _stored_parameters(reference: ModelReference, model: Any) -> dict[str, str]:
    """Return the parameters in the estimator's file, {} if there is none."""
    roots = [model.artifact_location if model else "", reference.source, reference.stable_uri]
    for root in filter(None, roots):
        with (
            suppress(MlflowException, OSError, ValueError, TypeError),
            tempfile.TemporaryDirectory() as folder,
            quiet_downloads(),
        ):
            path = mlflow.artifacts.download_artifacts(
                f"{root.rstrip('/')}/artifacts/estimator/estimator.json", dst_path=folder
            )
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            parameters = {key: _text(value) for key, value in stored["parameters"].items()}
            return parameters | ({"random_state": str(stored["seed"])} if "seed" in stored else {})
    return {}


def _text(value: Any) -> str:
    """Return a stored parameter as :meth:`ModelSpec.parameters` would write it."""
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(part, int) for part in value):
            return str(list(value))
        return ",".join(map(str, value)) or "none"
    return "" if value is None else str(value)


def normal(text: str) -> str:
    """Return a number in its shortest form, other text as it is; digits of a seed are kept.

    Examples
    --------
    >>> normal("1.0"), normal("0.50"), normal("14609714069366804553"), normal("learned")
    ('1', '0.5', '14609714069366804553', 'learned')
    """
    text = str(text).strip()
    if text.isdigit():
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return short(number) if math.isfinite(number) else text
