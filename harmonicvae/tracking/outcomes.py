"""Results read back from the runs they were logged to: the only way they reach a table.

What was trained by this start of a sweep and what an earlier one had finished is read the
same way, so a table does not depend on how often a sweep was interrupted.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from harmonicvae import names
from harmonicvae.tracking.jobs import Outcome
from harmonicvae.tracking.specs import ModelSpec, StoreSpec
from harmonicvae.tracking.storage import client_of

#: Metrics of a trained model, in the order of models.csv.
TRAINED_METRICS = (
    names.ELBO,
    names.SQUARED_ERROR,
    names.ACTIVE_UNITS,
    names.DECODING_VARIANCE_RATIO,
    names.COLLAPSED,
    names.TRAIN_SECONDS,
)
#: Tables that evaluations leave in a run, and the files they are collected in.
EVALUATION_TABLES = {
    names.ARTIFACT_BOUNDS: names.FILE_BOUNDS,
    names.ARTIFACT_ATTACKS: names.FILE_ATTACKS,
    names.ARTIFACT_MARGINS: names.FILE_MARGINS,
    names.ARTIFACT_SPECTRA: names.FILE_SPECTRA,
    names.ARTIFACT_HARMONICS: names.FILE_HARMONICS,
}
#: What makes pandas read the very float that was written; later versions always do.
_EXACT: dict[str, Any] = {} if pd.__version__ >= "3.1" else {"float_precision": "round_trip"}
#: Values of the column "split" of attacks.csv.
_SPLITS = ("validation", "train")


def read_trained(store: StoreSpec, run_id: str, spec: ModelSpec) -> Outcome:
    """Return what the training of a model left in its run.

    Parameters
    ----------
    store : StoreSpec
    run_id : str
        Tagged as trained.
    spec : ModelSpec

    Returns
    -------
    Outcome
        Row of models.csv, history, first reconstructions; without ``model_uri``.
    """
    logged = client_of(store).get_run(run_id).data
    parameters = spec.parameters()
    row = {key: parameters[key] for key in names.PARAMETER_COLUMNS}
    row |= {key: logged.metrics[key] for key in TRAINED_METRICS}
    row |= {names.CODE: logged.tags.get(names.TAG_CODE, "")}
    row |= {names.DEVICE: logged.tags.get(names.TAG_DEVICE, "")}
    paths = (names.ARTIFACT_HISTORY, names.ARTIFACT_RECONSTRUCTIONS)
    with tempfile.TemporaryDirectory() as folder:
        history, arrays = (_content(run_id, path, folder) for path in paths)
    table = history.assign(**{names.MODEL: spec.name})[[names.MODEL, *history.columns]]
    return Outcome(
        model=spec.name,
        run_id=run_id,
        row=row,
        tables={names.FILE_HISTORY: table},
        arrays=arrays,
    )


def read_evaluated(run_id: str, model: str) -> Outcome:
    """Return what the last complete evaluation left in a run.

    Parameters
    ----------
    run_id : str
        Tagged as evaluated.
    model : str
        Name in the tables.

    Returns
    -------
    Outcome
        Metrics in ``row``, tables by file name, arrays of the attacks.
    """
    with tempfile.TemporaryDirectory() as folder:
        complete = _content(run_id, names.ARTIFACT_EVALUATION, folder)
        n_own = complete["validation_rows"]
        tables = {}
        for path, file in EVALUATION_TABLES.items():
            table = _content(run_id, path, folder)
            if table is None:
                continue
            if names.IMAGE in table:
                table = table.assign(split=np.where(table[names.IMAGE] < n_own, *_SPLITS))
            tables[file] = table.assign(**{names.MODEL: model})[[names.MODEL, *table.columns]]
        arrays = _content(run_id, names.ARTIFACT_ATTACK_ARRAYS, folder)
    return Outcome(
        model=model, run_id=run_id, row=complete["metrics"], tables=tables, arrays=arrays or {}
    )


def _content(run_id: str, path: str, folder: str) -> Any:
    """Return an artifact as table, arrays or plain values; None if there is none."""
    try:
        local = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=folder
        )
    except (MlflowException, OSError):
        return None
    if path.endswith(".csv"):
        return pd.read_csv(local, **_EXACT)
    if path.endswith(".npz"):
        with np.load(local) as stored:
            return dict(stored)
    return json.loads(Path(local).read_text(encoding="utf-8"))
