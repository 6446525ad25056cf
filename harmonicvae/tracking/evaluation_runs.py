"""Evaluation runs of a store: which model each is about, and whether its numbers count."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.tracking.model_uris import ModelReference

#: Tag in which MLflow notes the data sets of a run, and the model evaluated on each.
_DATASETS = "mlflow.datasets"
_FINISHED = "FINISHED"


def dataset_entries(run: Any) -> list[dict[str, Any]]:
    """Return name, hash and model of every data set logged with a run; [] if none is told."""
    entries: list[dict[str, Any]] = []
    if run is None:
        return entries
    with suppress(ValueError, TypeError):
        told = json.loads(run.data.tags.get(_DATASETS, "[]"))
        entries += [item for item in told if isinstance(item, dict)]
    for item in (run.inputs.dataset_inputs if run.inputs else None) or []:
        entries.append({"name": item.dataset.name, "hash": item.dataset.digest})
    return entries


def fixed_uris(reference: ModelReference) -> set[str]:
    """Return the URIs that always mean this model; an alias may have meant another one."""
    uris = {reference.stable_uri}
    if reference.model_id:
        uris.add(f"models:/{reference.model_id}")
    if reference.run_id:
        uris |= {f"runs:/{reference.run_id}", f"runs:/{reference.run_id}/{names.ARTIFACT_MODEL}"}
    return uris


class Evaluations:
    """The store's runs as far as they were looked at, each read once.

    Parameters
    ----------
    client : MlflowClient
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._runs: dict[str, Any] = {}
        self._settings: dict[str, dict[str, Any]] = {}

    def run(self, run_id: str | None) -> Any:
        """Return a run, None if it is not there."""
        if not run_id:
            return None
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self._client.get_run(run_id)
            except MlflowException:
                self._runs[run_id] = None
        return self._runs[run_id]

    @cached_property
    def _all(self) -> list[Any]:
        """Runs of role "evaluation" in all experiments."""
        experiments = [item.experiment_id for item in self._client.search_experiments()]
        condition = f"tags.`{names.TAG_ROLE}` = 'evaluation'"
        found: list[Any] = []
        token: str | None = None
        while experiments:
            page = self._client.search_runs(
                experiments, condition, ViewType.ACTIVE_ONLY, page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        self._runs.update({run.info.run_id: run for run in found})
        return found

    def naming(self, model_id: str, uris: Iterable[str]) -> list[Any]:
        """Return the evaluation runs of one model.

        Parameters
        ----------
        model_id : str
            ``m-…`` or "".
        uris : iterable of str
            That always mean this model.

        Returns
        -------
        list of Run
            MLflow's own note of the evaluated model decides; where there is none, the tag
            with the URI.
        """
        wanted = set(uris)
        found = []
        for run in self._all:
            noted = {entry["model"] for entry in dataset_entries(run) if entry.get("model")}
            linked = run.inputs.model_inputs if run.inputs else None
            noted |= {item.model_id for item in linked or []}
            about = run.data.tags.get(names.TAG_MODEL, "")
            if noted == {model_id} or (not noted and about in wanted):
                found.append(run)
        return found

    def refusal(self, run_id: str, trained: str | None = None) -> str:
        """Return why the metrics of a run do not count, "" if they do.

        Parameters
        ----------
        run_id : str
        trained : str or None
            Run that trained the model: its metrics count whatever its state.
        """
        run = self.run(run_id)
        if run is None or run_id == trained:
            return ""
        about = f"run {run_id[:8]} left out: "
        if run.info.lifecycle_stage == "deleted":
            return about + "it is deleted"
        if run.info.status != _FINISHED:
            return about + f"its state is {run.info.status}"
        return ""

    def wrong_bounds(self, run_id: str) -> str:
        """Return why the Lipschitz bounds of a run do not count, "" if they do."""
        errors = self.settings(run_id).get("reproduction_errors")
        if not errors:
            return ""
        return (
            f"Lipschitz bounds of run {run_id[:8]} left out: made with the reproduction's "
            f"errors ({', '.join(errors)})"
        )

    def settings(self, run_id: str) -> dict[str, Any]:
        """Return how a run evaluated, from its artifacts.

        Returns
        -------
        dict
            bounds (methods with a certificate) and reproduction_errors, of the Lipschitz
            evaluator; methods and images of the attacks; rows (digest of the evaluated rows).
            What there is of them.
        """
        if run_id not in self._settings:
            self._settings[run_id] = self._read_settings(run_id)
        return self._settings[run_id]

    def _read_settings(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        rows = [item for item in dataset_entries(self.run(run_id)) if item.get("model")]
        if rows:
            found["rows"] = str(rows[-1].get("hash", ""))
        with tempfile.TemporaryDirectory() as folder:
            networks = self._artifact(run_id, names.ARTIFACT_NETWORKS, folder)
            attacks = self._artifact(run_id, names.ARTIFACT_ATTACKS, folder)
            with suppress(OSError, ValueError, TypeError, AttributeError):
                sides = json.loads(Path(networks).read_text(encoding="utf-8")) if networks else {}
                errors = [side.get("reproduction_errors") or [] for side in sides.values()]
                methods = {name for side in sides.values() for name in side.get("certificates", {})}
                found["bounds"] = sorted(methods)
                found["reproduction_errors"] = sorted({name for part in errors for name in part})
            with suppress(OSError, ValueError, KeyError):
                table = pd.read_csv(attacks) if attacks else pd.DataFrame()
                if len(table):
                    found["methods"] = sorted(map(str, table["method"].unique()))
                    found["images"] = int(table[names.IMAGE].nunique())
        return found

    def _artifact(self, run_id: str, path: str, folder: str) -> str:
        """Download one artifact of a run; "" if it is not there."""
        parent = path.rpartition("/")[0]
        with suppress(MlflowException, OSError):
            if path in {item.path for item in self._client.list_artifacts(run_id, parent)}:
                with quiet_downloads():
                    return mlflow.artifacts.download_artifacts(
                        run_id=run_id,
                        artifact_path=path,
                        dst_path=folder,
                        tracking_uri=self._client.tracking_uri,
                    )
        return ""


@contextmanager
def quiet_downloads() -> Iterator[None]:
    """Keep MLflow from drawing a progress bar for every small file."""
    key = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    former = os.environ.get(key)
    os.environ[key] = "false"
    try:
        yield
    finally:
        if former is None:
            del os.environ[key]
        else:
            os.environ[key] = former
