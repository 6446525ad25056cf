"""The run of a comparison: what was compared, its folder, and who was promoted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.tracking import runs
from harmonicvae.tracking.specs import StoreSpec

#: What a comparison writes beside its figure.
FILES = (
    names.FILE_COMPARISON,
    names.FILE_COMPARED_MODELS,
    names.FILE_CONFIGURATIONS,
    names.FILE_DIFFERENCES,
    names.FILE_SOURCES,
    names.FILE_DECISIONS,
)


def describe_run(store: StoreSpec, uris: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Note in a comparison's run what is compared, and by which options."""
    run_id = store.parent_run_id
    if run_id is None:
        return
    told = json.dumps(list(uris))
    if len(told) > runs.MAX_REASON:
        told = json.dumps(list(uris)[:50])
    MlflowClient(store.tracking_uri).set_tag(run_id, names.TAG_COMPARED, told)
    runs.log_parameters(store, run_id, {k: v for k, v in parameters.items() if v != ""})


def log_comparison(store: StoreSpec, folder: Path, promoted: str) -> None:
    """Log a comparison's folder and the promoted version, if any, into its run."""
    run_id = store.parent_run_id
    if run_id is None:
        return
    client = MlflowClient(store.tracking_uri)
    for name in FILES:
        client.log_artifact(run_id, str(folder / name), names.ARTIFACT_COMPARISON)
    for path in sorted((folder / "figures").glob("comparison.*")):
        client.log_artifact(run_id, str(path), f"{names.ARTIFACT_COMPARISON}/figures")
    if promoted:
        client.set_tag(run_id, names.TAG_PROMOTED, promoted)
