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

#: What reading a damaged file of tensors may raise.
DAMAGE = (
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
)
#: Parts of a checkpoint and their types.
_PARTS = {
    "context": dict,
    "module": dict,
    "frozen": list,
    "optimizer": dict,
    "order_generator": torch.Tensor,
    "noise_generator": torch.Tensor,
    "global_generator": torch.Tensor,
    "history": list,
    "callbacks": dict,
    "stopped_by": list,
}
_CONTEXT = {"parameters", "random_state", "seed", "data"}


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
        ``context`` and what :func:`harmonicvae.models.resuming.training_state` returns.

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
    except DAMAGE as error:
        raise InputError(f"{os.fspath(path)!r} is not a readable checkpoint: {error}") from error
    whole = isinstance(state, dict) and all(
        isinstance(state.get(part), kind) for part, kind in _PARTS.items()
    )
    if not whole or not set(state["context"]) >= _CONTEXT:
        raise InputError(f"{os.fspath(path)!r} is not a checkpoint of HarmonicVAE")
    return state


def check_resumable(
    state: Mapping[str, Any],
    wanted: Mapping[str, Any],
    max_epochs: int,
    path: str | os.PathLike[str],
) -> None:
    """Refuse a checkpoint of other parameters, another seed or other data, or a longer one.

    Parameters
    ----------
    state : mapping
        From :func:`read_checkpoint`.
    wanted : mapping
        ``parameters``, ``random_state`` and ``data`` of the present fit.
    max_epochs : int
        Epochs of the present fit.
    path : path-like
        For the message.

    Raises
    ------
    InputError
        With every parameter that differs.
    """
    found = state["context"]
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
    if max_epochs < len(state["history"]):
        raise InputError(
            f"max_epochs must be >= {len(state['history'])}, the epochs already trained in "
            f"{os.fspath(path)!r}, got {max_epochs}; raise it, or leave resume_from away"
        )


def _comparable(value: Any) -> Any:
    """Make 1 and 1.0, lists and tuples compare equal."""
    return list(value) if isinstance(value, (list, tuple)) else value
