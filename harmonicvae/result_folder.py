"""A study's result folder: built aside, put in place at the end, other people's files kept."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.processes import is_alive, this_process

#: Everything a study writes.
FILES = (
    names.FILE_STUDY,
    names.FILE_MODELS,
    names.FILE_SWEEP,
    names.FILE_HISTORY,
    names.FILE_BOUNDS,
    names.FILE_ATTACKS,
    names.FILE_MARGINS,
    names.FILE_SPECTRA,
    names.FILE_HARMONICS,
    names.FILE_LOAD,
    names.FILE_REPORT,
)
FOLDERS = (names.FOLDER_ARRAYS, "tables", "figures")
#: File that names the process that builds a folder.
_OWNER = ".owner"
#: Value of "written_by" in study.json, by which a folder is known to be a study's.
WRITTEN_BY = "harmonicvae"


def check_output(folder: str | os.PathLike[str]) -> Path:
    """Refuse a result folder that cannot be written or that holds something else.

    Parameters
    ----------
    folder : path-like
        New, empty, or a former study's.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    InputError
        Naming what is in the way.
    """
    path = Path(folder).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"output must be a folder, got the file {str(folder)!r}")
    if path.is_dir() and any(path.iterdir()) and not _is_ours(path):
        first = sorted(item.name for item in path.iterdir())[0]
        raise InputError(
            f"output folder {str(folder)!r} holds something else ({first}, ...); choose an "
            "empty or new one"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {str(folder)!r} cannot be made: {error}") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"output folder {str(folder)!r} cannot be made: no write permission")
    return path


def check_report_output(folder: str | os.PathLike[str]) -> Path:
    """Refuse a report's folder that is a file.

    Raises
    ------
    InputError
        If it is.
    """
    path = Path(folder).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"output must be a folder, got the file {str(folder)!r}")
    return path


def _is_ours(folder: Path) -> bool:
    """Tell whether a former study wrote the folder."""
    try:
        study = json.loads((folder / names.FILE_STUDY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(study, dict) and study.get("written_by") == WRITTEN_BY


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder`` that takes its place if the block succeeds.

    A former study's files are replaced then and not before; after an error or Ctrl-C they
    are still there.  Two studies at once do not meet: the later one to end stays.
    """
    _remove_abandoned(folder)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    aside.mkdir(parents=True)
    (aside / _OWNER).write_text(this_process(), encoding="utf-8")
    try:
        yield aside
        (aside / _OWNER).unlink()
        folder.mkdir(exist_ok=True)
        for name in (*FILES, *FOLDERS):
            _remove(folder / name)
        for item in aside.iterdir():
            os.replace(item, folder / item.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Delete what processes that were killed had built aside."""
    for aside in folder.parent.glob(f".{folder.name}.*.partial"):
        try:
            owner = (aside / _OWNER).read_text(encoding="utf-8")
        except OSError:
            continue
        if owner and not is_alive(owner):
            shutil.rmtree(aside, ignore_errors=True)


def _remove(path: Path) -> None:
    """Delete one file or folder of a former study."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
