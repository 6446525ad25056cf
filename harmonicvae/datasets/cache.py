"""A cache file of image bytes that is either complete or not there.

The file is a plain ``.npy`` array (``np.load`` opens it) followed by one JSON
object that names the inputs it was made from.  It is written under another name,
flushed to the disc, and then moved into place, so neither an interrupted nor a
simultaneous second run can leave a partial file under the final name.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil

from harmonicvae.datasets.bunches import start_digest

_DAY = 86_400.0
_BYTE = np.dtype(np.uint8)
_PARTIAL = re.compile(r"\.(?P<host>[0-9A-Za-z-]*)_(?P<process>\d+)_[0-9a-f]+\.partial$")


def read_cache(path: Path, *, key: str, shape: tuple[int, int]) -> tuple[np.memmap, str] | None:
    """Map a cache file, if it is complete and belongs to ``key``.

    Parameters
    ----------
    path : Path
        The file, which may be absent.
    key : str
        What the file must have been made from.
    shape : (int, int)
        Number of images and of bytes per image.

    Returns
    -------
    (memmap of uint8, str) or None
        The read-only array and the digest of its content; None if there is no file,
        or it is truncated, extended, or made from something else.

    Notes
    -----
    O(1): the content is not read.  Bytes changed in place, at equal size, go unnoticed.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            found, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            if found != shape or fortran_order or dtype != _BYTE:
                return None
            file.seek(offset + shape[0] * shape[1])
            record = json.loads(file.read().decode("ascii"))
        if not isinstance(record, dict) or record.get("key") != key:
            return None
        return np.memmap(path, _BYTE, mode="r", offset=offset, shape=shape), record["digest"]
    except (OSError, ValueError, KeyError):
        return None


def write_cache(
    path: Path, *, key: str, shape: tuple[int, int], blocks: Iterable[np.ndarray]
) -> None:
    """Write a cache file in one step, as other processes see it.

    Parameters
    ----------
    path : Path
        The final name; its folder exists.
    key : str
        What the content is made from.
    shape : (int, int)
        Number of images and of bytes per image.
    blocks : iterable of ndarray of uint8, shape (m, shape[1])
        The images in order, ``shape[0]`` together.

    Raises
    ------
    OSError
        If the file cannot be written, or ``blocks`` do not add up to ``shape``.

    Notes
    -----
    O(bytes), one block in memory.  What killed runs left behind is removed first.
    """
    _remove_abandoned(path)
    host = _host()
    partial = path.with_name(f"{path.name}.{host}_{os.getpid()}_{uuid.uuid4().hex}.partial")
    try:
        _write(partial, key, shape, blocks)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^0-9A-Za-z-]", "", platform.node())


def _write(partial: Path, key: str, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> None:
    digest = start_digest(shape, _BYTE)
    header = {"descr": _BYTE.str, "fortran_order": False, "shape": shape}
    with partial.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        remaining = shape[0]
        for block in blocks:
            remaining -= len(block)
            digest.update(block)
            file.write(block.data)
        if remaining:
            raise OSError(f"{shape[0] - remaining} of {shape[0]} images arrived for {partial}")
        record = {"key": key, "digest": digest.hexdigest()}
        file.write(json.dumps(record).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def _remove_abandoned(path: Path) -> None:
    """Remove partial files of this cache whose writer is gone."""
    host = _host()
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        match = _PARTIAL.search(partial.name)
        if match and _is_abandoned(partial, match, host):
            partial.unlink(missing_ok=True)


def _is_abandoned(partial: Path, match: re.Match[str], host: str) -> bool:
    if match["host"] == host:
        return not psutil.pid_exists(int(match["process"]))
    try:
        return time.time() - partial.stat().st_mtime > _DAY
    except FileNotFoundError:
        return False
