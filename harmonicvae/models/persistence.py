"""Saving fitted estimators without pickle: tensors by state_dict, everything else as JSON."""

from __future__ import annotations

import json
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from harmonicvae._version import __version__
from harmonicvae.exceptions import InputError
from harmonicvae.models.checkpoints import DAMAGE
from harmonicvae.models.conv_estimator import ConvHarmonicVAE
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.fitting import history_frame
from harmonicvae.models.parameters import check_device, check_integer
from harmonicvae.models.plain import to_plain
from harmonicvae.records import CollapseDiagnostic

WEIGHTS_FILE = "weights.pt"
ESTIMATOR_FILE = "estimator.json"
#: Estimators by name, with the first format of the files in which they can be described.
ESTIMATORS: dict[str, tuple[type[HarmonicVAE], int]] = {
    "HarmonicVAE": (HarmonicVAE, 1),
    "ConvHarmonicVAE": (ConvHarmonicVAE, 2),
}
FORMAT = 2


def save_estimator(estimator: HarmonicVAE, folder: str | os.PathLike[str]) -> Path:
    """Write a fitted estimator as ``weights.pt`` and ``estimator.json``.

    Parameters
    ----------
    estimator : HarmonicVAE or ConvHarmonicVAE
        Fitted.
    folder : path-like
        Created if need be.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        If the estimator is of another class.

    Notes
    -----
    Callbacks, the checkpoint's path and the optimiser's state are not kept.  Parameters
    are those of the fit, whatever was set since, but for ``elbo_samples``.
    """
    name = type(estimator).__name__
    if name not in ESTIMATORS:
        raise InputError(f"estimator must be one of {sorted(ESTIMATORS)}, got {name}")
    check_is_fitted(estimator)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = estimator._fitted_params | {"elbo_samples": estimator.elbo_samples}
    params["hidden_dims"] = list(params["hidden_dims"])
    params["reproduction_errors"] = sorted(params["reproduction_errors"] or ())
    params["random_state"] = estimator.seed_
    described = {
        "format": ESTIMATORS[name][1],
        "estimator": name,
        "version": __version__,
        "parameters": to_plain(params),
        "n_features": int(estimator.n_features_in_),
        "feature_names": to_plain(getattr(estimator, "feature_names_in_", None)),
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
    HarmonicVAE or ConvHarmonicVAE
        Fitted: same transform, reconstruct and score.

    Raises
    ------
    InputError
        If a file is missing, damaged or of a newer format, or if weights and parameters
        do not belong together.
    """
    check_device(device)
    folder = Path(folder)
    try:
        described = json.loads((folder / ESTIMATOR_FILE).read_text(encoding="utf-8"))
        state = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        newer = described["format"] > FORMAT
        if not newer:
            return _rebuild(described, state, device)
    except DAMAGE as error:
        raise InputError(
            f"no readable HarmonicVAE in {str(folder)!r}: {error!r}; save it again"
        ) from error
    raise InputError(
        f"{str(folder)!r} was written by harmonicvae {described.get('version')} in a newer "
        "format; update harmonicvae"
    )


def _rebuild(described: dict[str, Any], state: dict[str, torch.Tensor], device: str) -> HarmonicVAE:
    """Return a fitted estimator with the given weights."""
    params = described["parameters"]
    params |= {key: tuple(item) for key, item in params.items() if isinstance(item, list)}
    params["device"] = device
    params["random_state"] = described["seed"]
    estimator = ESTIMATORS[described.get("estimator", "HarmonicVAE")][0](**params)
    estimator.n_features_in_ = check_integer("n_features", described["n_features"], 1)
    if described["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(described["feature_names"], dtype=object)
    collapse = described["collapse"]
    if not all(isinstance(value, numbers.Real) for value in collapse.values()):
        raise InputError(f"collapse must hold numbers, got {collapse!r}")
    if not all(isinstance(row, dict) for row in described["history"]):
        raise InputError("history must be a list of objects, one an epoch")
    estimator.restore(
        state,
        history=history_frame(described["history"]),
        collapse=CollapseDiagnostic(**collapse),
    )
    return estimator
