"""Reading checkpoints and deciding whether training may continue from them."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import InputError


def content_digest(X: np.ndarray | ScaledImages) -> str:
    """Return a SHA-256 of shape, type and up to 1,024 evenly spaced rows.

    Parameters
    ----------
    X : ndarray of shape (n, d) or ScaledImages

    Returns
    -------
    str
        64 hexadecimal digits.  A change outside the rows looked at goes unseen.
    """
    stored = X.raw if isinstance(X, ScaledImages) else X
    rows = np.unique(np.linspace(0, len(stored) - 1, min(len(stored), 1024)).astype(np.int64))
    digest = hashlib.sha256(repr((stored.shape, str(stored.dtype))).encode())
    digest.update(np.ascontiguousarray(stored[rows]).tobytes())
    return digest.hexdigest()


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint without unpickling code.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict
        ``context``, ``module``, ``optimizer``, the generators' states and ``history``.

    Raises
    ------
    InputError
        If the file is missing, damaged or no checkpoint.
    """
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(
            f"no checkpoint at {os.fspath(path)!r}; leave resume_from away to start anew"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise InputError(f"{os.fspath(path)!r} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or not {"context", "module", "history"} <= set(state):
        raise InputError(f"{os.fspath(path)!r} is not a checkpoint of HarmonicVAE")
    return state


def check_resumable(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Refuse a checkpoint of other parameters, another seed or other data.

    Raises
    ------
    InputError
        With every parameter that differs.
    """
    differing = [
        f"{key} was {found['parameters'].get(key)!r}, is now {value!r}"
        for key, value in wanted["parameters"].items()
        if _comparable(found["parameters"].get(key)) != _comparable(value)
    ]
    if wanted["random_state"] is not None and wanted["random_state"] != found["seed"]:
        differing.append(f"seed was {found['seed']}, is now {wanted['random_state']}")
    if found["data"] != wanted["data"]:
        differing.append("X differs")
    if differing:
        raise InputError(
            f"cannot resume from {os.fspath(path)!r}: {'; '.join(differing)}; "
            "use the former values, or leave resume_from away to start anew"
        )


def _comparable(value: Any) -> Any:
    """Make 1 and 1.0, lists and tuples compare equal."""
    return list(value) if isinstance(value, (list, tuple)) else value
