"""Which CelebA images belong to a split, and which of them are there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harmonicvae.exceptions import DatasetCorruptError, DatasetNotFoundError, InputError

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"

#: A plain file name, so that a row cannot point outside the folder, and a split.
_ROW = re.compile(r"(?P<name>\w[\w.-]*)[ \t]+(?P<split>[012])[ \t]*", re.ASCII)


def select_images(
    root: Path,
    split: int,
    *,
    wanted: int | None,
    at_most: int | None,
    allow_missing: bool,
) -> tuple[list[str], int]:
    """Return the first images of a split by file name, and how many were passed over.

    Parameters
    ----------
    root : Path
        Folder with ``img_align_celeba/`` and ``list_eval_partition.txt``.
    split : {0, 1, 2}
        Train, validation, test.
    wanted : int or None
        How many images; the split must have as many rows.
    at_most : int or None
        How many images, if the split has as many; used where ``wanted`` is None.
    allow_missing : bool
        Whether rows without image are passed over.

    Returns
    -------
    (list of str, int)
        File names in the order of the list, and the number of rows passed over.

    Raises
    ------
    InputError
        If ``wanted`` exceeds the rows of the split.
    DatasetNotFoundError
        If a folder or the list is missing, or images are (unless ``allow_missing``),
        or no image of the split is there at all.
    DatasetCorruptError
        If a row of the list is malformed; the message names its line.
    """
    folder = root / IMAGES
    if not folder.is_dir():
        raise _not_found("folder", folder)
    if not (root / PARTITION).is_file():
        raise _not_found("file", root / PARTITION)
    listed = _read_partition(root / PARTITION)[split]
    if wanted is not None and wanted > len(listed):
        raise InputError(
            f"n_images must be <= {len(listed)}, the rows of this split in {root / PARTITION}, "
            f"got {wanted}"
        )
    count = wanted or min(at_most or len(listed), len(listed))
    present = set(os.listdir(folder))
    if allow_missing:
        return _first_present(listed, present, count, folder)
    absent = [name for name in listed[:count] if name not in present]
    if absent or not count:
        raise _missing_images(folder, absent, count)
    return listed[:count], 0


def _not_found(kind: str, path: Path) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f"CelebA was not found: there is no {kind} {path}; data_dir must hold {IMAGES}/ "
        f"and {PARTITION} of the aligned and cropped CelebA "
        "(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
    )


def _read_partition(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the file names of the three splits, in the order of the list."""
    splits: tuple[list[str], list[str], list[str]] = ([], [], [])
    seen: set[str] = set()
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            row = _ROW.fullmatch(line.rstrip("\r\n"))
            if row is None:
                raise _malformed(path, number, line, "'<file name> <0, 1 or 2>'")
            if row["name"] in seen:
                raise _malformed(path, number, line, "a file name that was not listed before")
            seen.add(row["name"])
            splits[int(row["split"])].append(row["name"])
    return splits


def _malformed(path: Path, number: int, line: str, expected: str) -> DatasetCorruptError:
    return DatasetCorruptError(
        f"line {number} of {path} must be {expected}, got {line.rstrip()[:80]!r}; "
        "restore the official list"
    )


def _first_present(
    listed: list[str], present: set[str], count: int, folder: Path
) -> tuple[list[str], int]:
    """Return the first ``count`` listed names that are present, and how many were not."""
    chosen: list[str] = []
    missing = 0
    for name in listed:
        if len(chosen) == count:
            break
        if name in present:
            chosen.append(name)
        else:
            missing += 1
    if not chosen:
        raise _missing_images(folder, listed, len(listed))
    return chosen, missing


def _missing_images(folder: Path, absent: list[str], count: int) -> DatasetNotFoundError:
    first = ", ".join(absent[:3]) or "the list has no row of this split"
    more = ", …" if len(absent) > 3 else ""
    return DatasetNotFoundError(
        f"{len(absent)} of {count} images are missing in {folder}: {first}{more}; restore them, "
        "or use allow_missing=True with those that are there"
    )
