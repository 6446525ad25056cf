"""Artifacts of an evaluation: tables, arrays, plain values, weights and certificates."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models.evaluation import EvaluationArtifact

from harmonicvae.lipschitz import load_certificate, save_certificate
from harmonicvae.readers.mat_files import read_cells, write_cells
from harmonicvae.report.figures import save


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


class CertificateArtifact(EvaluationArtifact):
    """A bound's certificate, in the format of ``harmonicvae verify``."""

    def _save(self, output_artifact_path: str) -> None:
        save_certificate(self._content, output_artifact_path)

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        self._content = load_certificate(local_artifact_path)
        return self._content


class CellsArtifact(EvaluationArtifact):
    """Weights and biases as cell arrays, stored as MATLAB LipSDP reads them."""

    def _save(self, output_artifact_path: str) -> None:
        write_cells(output_artifact_path, self._content)

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        cells = read_cells(local_artifact_path, ("weights", "bias"), ("weights", "bias"))
        cells["bias"] = [bias.reshape(-1) for bias in cells["bias"]]
        self._content = cells
        return self._content


class FigureArtifact(EvaluationArtifact):
    """A figure of :mod:`harmonicvae.report.figures`, stored as PNG; loaded as bytes."""

    def _save(self, output_artifact_path: str) -> None:
        figure: Any = self._content
        save(figure, Path(output_artifact_path).with_suffix(""))

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        self._content = Path(local_artifact_path).read_bytes()
        return self._content


#: Kinds of artifacts by the end of their path, special ones first.
_KINDS: dict[str, Any] = {
    ".certificate.json": CertificateArtifact,
    ".csv": TableArtifact,
    ".npz": ArraysArtifact,
    ".json": JsonArtifact,
    ".mat": CellsArtifact,
    ".png": FigureArtifact,
}


def store_artifacts(run_id: str, contents: dict[str, Any]) -> dict[str, EvaluationArtifact]:
    """Write contents as artifacts of a run.

    Parameters
    ----------
    run_id : str
    contents : dict
        Artifact path to content: a DataFrame for .csv, a dict of arrays for .npz, a certificate
        for .certificate.json, else plain values for .json, lists of arrays by name for .mat, a
        figure for .png.

    Returns
    -------
    dict of str to EvaluationArtifact
    """
    client, artifacts = MlflowClient(), {}
    base = client.get_run(run_id).info.artifact_uri
    with tempfile.TemporaryDirectory() as folder:
        for path, content in contents.items():
            kind = next(kind for end, kind in _KINDS.items() if path.endswith(end))
            artifact = kind(f"{base}/{path}", content)
            local = Path(folder) / Path(path).name
            artifact._save(str(local))
            client.log_artifact(run_id, str(local), str(Path(path).parent))
            artifacts[path] = artifact
    return artifacts
