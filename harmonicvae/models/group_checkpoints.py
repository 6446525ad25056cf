"""Checkpoints of models trained together: one directory, committed as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from harmonicvae.exceptions import InputError
from harmonicvae.models.checkpoints import read_checkpoint

MANIFEST = "group.json"
FORMAT = 1
_COMMITTED = re.compile(r"epoch-\d{6,}")
_PARTIAL = re.compile(r"\.epoch-\d{6,}\.\d+\.part")


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a folder that can be written to; it is made.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        If it is no folder or cannot be written to.
    """
    try:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"checkpoint_dir must be a folder that can be written, got {folder!r}: {error}"
        ) from error
    if not os.access(path, os.W_OK):
        raise InputError(f"checkpoint_dir must be a folder that can be written, got {folder!r}")
    return path


def write_group(
    folder: Path, epoch: int, entries: Iterable[tuple[str, Mapping[str, Any] | str]]
) -> Path:
    """Write the states of all models after an epoch, then remove the older checkpoint.

    Parameters
    ----------
    folder : Path
        Of the group; holds at most one whole checkpoint between two calls.
    epoch : int
        Epochs trained.
    entries : iterable of (key, state or reason)
        A model's name and either what
        :func:`harmonicvae.models.checkpoints.read_checkpoint` returns, or why it failed.

    Returns
    -------
    pathlib.Path
        The committed directory, ``epoch-NNNNNN``.

    Notes
    -----
    Files are written and synced in a temporary sibling, which is then renamed: whenever
    the process is killed, the newest ``epoch-NNNNNN`` is whole.  Not for two processes
    writing to one folder.
    """
    target = folder / f"epoch-{epoch:06d}"
    partial = folder / f".epoch-{epoch:06d}.{os.getpid()}.part"
    _remove(folder, _PARTIAL)
    partial.mkdir()
    try:
        models = [_write_model(partial, index, *entry) for index, entry in enumerate(entries)]
        described = {"format": FORMAT, "epoch": epoch, "models": models}
        text = json.dumps(described, indent=1).encode()
        _write(partial / MANIFEST, lambda stream: stream.write(text))
        _sync_folder(partial)
        os.rename(partial, target)
        _sync_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove(folder, _COMMITTED, keep=target)
    return target


def _write_model(
    partial: Path, index: int, key: str, content: Mapping[str, Any] | str
) -> dict[str, Any]:
    """Write one model's file, if it has a state, and return its line of the manifest."""
    if isinstance(content, str):
        return {"key": key, "file": None, "sha256": None, "failure": content}
    file = f"model-{index:03d}.pt"
    _write(partial / file, lambda stream: torch.save(_owned(content), stream))
    return {"key": key, "file": file, "sha256": _digest(partial / file), "failure": None}


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _owned(value: Any) -> Any:
    """Copy tensors: a view would be saved with all that it is a part of."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _owned(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_owned, value))
    return value


def _write(path: Path, function: Callable[[BinaryIO], Any]) -> None:
    with open(path, "wb") as stream:
        function(stream)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names in a folder durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path, pattern: re.Pattern[str], keep: Path | None = None) -> None:
    """Remove checkpoints or leftovers of a killed process by the pattern of their names."""
    for path in folder.iterdir():
        if pattern.fullmatch(path.name) and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the committed checkpoint with the most epochs, or None."""
    found = [path for path in folder.iterdir() if _COMMITTED.fullmatch(path.name)]
    return max(found, key=lambda path: int(path.name.partition("-")[2]), default=None)


def read_group(path: Path, keys: Sequence[str]) -> dict[str, dict[str, Any] | str]:
    """Read the states of all models of a group.

    Parameters
    ----------
    path : Path
        From :func:`newest_checkpoint`.
    keys : sequence of str
        Names of the models of the present group, in any order.

    Returns
    -------
    dict
        Key ↦ state as of :func:`harmonicvae.models.checkpoints.read_checkpoint`, or the
        reason why the model failed.

    Raises
    ------
    InputError
        If the checkpoint is damaged, of a newer format or of other models.
    """
    remedy = f"delete {os.fspath(path)!r} to train anew, or give another checkpoint_dir"
    try:
        described = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        newer = described["format"] > FORMAT
        lines = {str(line["key"]): line for line in described["models"]}
        epoch = int(described["epoch"])
        files = {key: (line["file"], line["sha256"]) for key, line in lines.items()}
        reasons = {key: str(line["failure"]) for key, line in lines.items()}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"no readable checkpoint at {str(path)!r} ({error!r}); {remedy}"
        ) from error
    if newer:
        raise InputError(f"{str(path)!r} is of a newer format; update harmonicvae, or {remedy}")
    if set(files) != set(keys):
        raise InputError(
            f"{str(path)!r} is a checkpoint of other models: it has {sorted(files)}, this "
            f"group has {sorted(keys)}; {remedy}"
        )
    return {
        key: reasons[key] if file is None else _read_model(path / file, digest, epoch, remedy)
        for key, (file, digest) in files.items()
    }


def _read_model(path: Path, digest: str, epoch: int, remedy: str) -> dict[str, Any]:
    """Read one model's file after comparing its digest: torch checks no sums itself."""
    try:
        if path.exists() and _digest(path) != digest:
            raise InputError(f"{os.fspath(path)!r} is not as it was written")
        state = read_checkpoint(path)
    except (InputError, OSError) as error:
        raise InputError(f"damaged checkpoint: {error}; {remedy}") from error
    if len(state["history"]) != epoch:
        raise InputError(
            f"damaged checkpoint: {os.fspath(path)!r} is after {len(state['history'])} epochs, "
            f"its group after {epoch}; {remedy}"
        )
    return state
