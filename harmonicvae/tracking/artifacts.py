"""Artifacts of an evaluation: tables as CSV, arrays as NPZ, plain values as JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models.evaluation import EvaluationArtifact


class TableArtifact(EvaluationArtifact):
    """A DataFrame, stored as CSV."""

    def _save(self, output_artifact_path: str) -> None:
        self._content.to_csv(output_artifact_path, index=False)

    def _load_content_from_file(self, local_artifact_path: str) -> pd.DataFrame:
        self._content = pd.read_csv(local_artifact_path)
        return self._content


class ArraysArtifact(EvaluationArtifact):
    """Named arrays, stored as NPZ."""

    def _save(self, output_artifact_path: str) -> None:
        np.savez_compressed(output_artifact_path, **self._content)

    def _load_content_from_file(self, local_artifact_path: str) -> dict[str, np.ndarray]:
        with np.load(local_artifact_path) as stored:
            self._content = dict(stored)
        return self._content


class JsonArtifact(EvaluationArtifact):
    """Plain values, stored as JSON."""

    def _save(self, output_artifact_path: str) -> None:
        Path(output_artifact_path).write_text(json.dumps(self._content), encoding="utf-8")

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        self._content = json.loads(Path(local_artifact_path).read_text(encoding="utf-8"))
        return self._content


def store_artifacts(run_id: str, contents: dict[str, Any]) -> dict[str, EvaluationArtifact]:
    """Write contents as artifacts of a run.

    Parameters
    ----------
    run_id : str
    contents : dict
        Artifact path, ending in .csv, .npz or .json, to DataFrame, dict of arrays or plain
        values.

    Returns
    -------
    dict of str to EvaluationArtifact
    """
    client, artifacts = MlflowClient(), {}
    kinds: dict[str, Any] = {".csv": TableArtifact, ".npz": ArraysArtifact, ".json": JsonArtifact}
    base = client.get_run(run_id).info.artifact_uri
    with tempfile.TemporaryDirectory() as folder:
        for path, content in contents.items():
            artifact = kinds[Path(path).suffix](f"{base}/{path}", content)
            local = Path(folder) / Path(path).name
            artifact._save(str(local))
            client.log_artifact(run_id, str(local), str(Path(path).parent))
            artifacts[path] = artifact
    return artifacts
