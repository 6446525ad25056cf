"""Saving fitted estimators without pickle: tensors by state_dict, everything else as JSON."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harmonicvae._version import __version__
from harmonicvae.exceptions import InputError
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.records import CollapseDiagnostic

WEIGHTS_FILE = "weights.pt"
ESTIMATOR_FILE = "estimator.json"
FORMAT = 1
#: Parameters that mean something to one process only.
_PROCESS_PARAMETERS = ("callbacks", "checkpoint_path")


def save_estimator(estimator: HarmonicVAE, folder: str | os.PathLike[str]) -> Path:
    """Write a fitted estimator as ``weights.pt`` and ``estimator.json``.

    Parameters
    ----------
    estimator : HarmonicVAE
        Fitted.
    folder : path-like
        Created if need be.

    Returns
    -------
    pathlib.Path
        The folder.

    Notes
    -----
    Callbacks, the checkpoint's path and the optimiser's state are not kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = estimator.get_params(deep=False)
    params["hidden_dims"] = [int(width) for width in params["hidden_dims"]]
    params["reproduction_errors"] = sorted(params["reproduction_errors"] or ())
    params["random_state"] = estimator.seed_
    for key in _PROCESS_PARAMETERS:
        params.pop(key)
    described = {
        "format": FORMAT,
        "version": __version__,
        "parameters": {key: _plain(value) for key, value in params.items()},
        "n_features": int(estimator.n_features_in_),
        "feature_names": _plain(getattr(estimator, "feature_names_in_", None)),
        "seed": estimator.seed_,
        "history": json.loads(estimator.history_.to_json(orient="records", double_precision=15)),
        "collapse": {
            key: getattr(estimator.collapse_, key)
            for key in CollapseDiagnostic.__dataclass_fields__
        },
    }
    state = {key: value.cpu() for key, value in estimator.net_.module_.state_dict().items()}
    torch.save(state, folder / WEIGHTS_FILE)
    (folder / ESTIMATOR_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
    return folder


def load_estimator(folder: str | os.PathLike[str], *, device: str = "auto") -> HarmonicVAE:
    """Read an estimator written by :func:`save_estimator`.

    Parameters
    ----------
    folder : path-like
    device : str, default="auto"
        Where to put the modules.

    Returns
    -------
    HarmonicVAE
        Fitted: same transform, reconstruct and score.

    Raises
    ------
    InputError
        If a file is missing, damaged or of a newer format.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / ESTIMATOR_FILE).read_text(encoding="utf-8"))
        state = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"no readable HarmonicVAE in {str(folder)!r}: {error}") from error
    if described.get("format", 0) > FORMAT:
        raise InputError(
            f"{str(folder)!r} was written by harmonicvae {described.get('version')} in a newer "
            "format; update harmonicvae"
        )
    return _rebuild(described, state, device)


def _rebuild(described: dict[str, Any], state: dict[str, torch.Tensor], device: str) -> HarmonicVAE:
    """Return a fitted estimator with the given weights."""
    params = described["parameters"]
    params["hidden_dims"] = tuple(params["hidden_dims"])
    params["reproduction_errors"] = tuple(params["reproduction_errors"])
    estimator = HarmonicVAE(**params)
    estimator.set_params(device=device, random_state=described["seed"])
    estimator.n_features_in_ = described["n_features"]
    if described["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(described["feature_names"], dtype=object)
    estimator.restore(
        state,
        history=pd.DataFrame(described["history"]),
        collapse=CollapseDiagnostic(**described["collapse"]),
    )
    return estimator


def _plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays into JSON types."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
