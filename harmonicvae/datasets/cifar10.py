"""CIFAR-10: 32×32 colour images of ten classes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from harmonicvae.datasets.bunches import (
    TRAIN,
    VALIDATION,
    check_split,
    content_digest,
    image_bunch,
)
from harmonicvae.datasets.torchvision_import import import_torchvision
from harmonicvae.exceptions import DatasetCorruptError, DatasetNotFoundError, InputError
from harmonicvae.names import CIFAR10

_SPLITS = {TRAIN: TRAIN, VALIDATION: VALIDATION, "test": VALIDATION}
_IMAGE_SHAPE = (32, 32, 3)
_ADVICE = (
    "use download=True, or unpack cifar-10-python.tar.gz from "
    "https://www.cs.toronto.edu/~kriz/cifar.html there"
)


def load_cifar10(
    split: str = TRAIN,
    *,
    data_dir: str | os.PathLike[str],
    download: bool = False,
    as_array: bool = False,
) -> Bunch:
    """Read the CIFAR-10 images of one split, scaled to [−1, 1].

    Parameters
    ----------
    split : {"train", "validation", "test"}, default="train"
        50,000 training images, or the 10,000 test images; "validation" and "test"
        are the same split and are reported as "validation".
    data_dir : path
        The folder that contains ``cifar-10-batches-py``, or that folder itself.
    download : bool, default=False
        Whether torchvision may fetch the archive (170 MB) if the files are not there.
    as_array : bool, default=False
        Whether ``data`` is an ndarray of float32 (614 MB for "train") instead of a
        :class:`~harmonicvae.datasets.scaled.ScaledImages` over bytes.

    Returns
    -------
    Bunch
        data : ScaledImages or ndarray of float32, shape (n, 3072), values in [−1, 1]
            Flattened height × width × channels, so that
            ``data[0].reshape(image_shape)`` is an image with its channels last.
        target : ndarray of int64, shape (n,)
            Class, 0 to 9; ``target_names`` has the names.
        image_shape : tuple of int
            (32, 32, 3).
        scaling : dict
            minimum 0 and maximum 255: data = 2·(raw − minimum)/(maximum − minimum) − 1.
        name, split, layout, digest, DESCR : str
            The digest is the SHA-256 of the bytes.

    Raises
    ------
    InputError
        If ``split`` is unknown or ``data_dir`` is not a path.
    DatasetNotFoundError
        If the folder or one of its files is missing, or the download failed.
    DatasetCorruptError
        If a file is truncated or altered (its md5 is not the official one).

    Notes
    -----
    Read through ``torchvision.datasets.CIFAR10``, with its md5 check on: the pickles
    are opened only if they are the official ones.  O(n), about 2 s.

    References
    ----------
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Examples
    --------
    >>> load_cifar10("train", data_dir="/nowhere")
    Traceback (most recent call last):
    harmonicvae.exceptions.DatasetNotFoundError: CIFAR-10 was not found: there is no folder ...
    """
    split = _SPLITS[check_split(split, _SPLITS)]
    root = _root(data_dir)
    images = _read(root, split, download)
    raw = np.ascontiguousarray(images.data).reshape(-1, int(np.prod(_IMAGE_SHAPE)))
    raw.flags.writeable = False
    return image_bunch(
        raw,
        as_array=as_array,
        target=np.asarray(images.targets, dtype=np.int64),
        target_names=tuple(images.classes),
        image_shape=_IMAGE_SHAPE,
        name=CIFAR10,
        split=split,
        digest=content_digest(raw),
        DESCR=f"CIFAR-10, {split} split: 32×32 RGB images of ten classes (Krizhevsky 2009).",
    )


def _root(data_dir: str | os.PathLike[str]) -> Path:
    """Return the folder in which ``cifar-10-batches-py`` is to be found."""
    if not isinstance(data_dir, (str, os.PathLike)) or not os.fspath(data_dir):
        raise InputError(
            f"data_dir must be the folder that contains cifar-10-batches-py, got {data_dir!r}"
        )
    path = Path(os.path.abspath(Path(data_dir).expanduser()))
    return path.parent if path.name == "cifar-10-batches-py" else path


def _read(root: Path, split: str, download: bool) -> Any:
    """Return torchvision's data set, or say which file is at fault."""
    import_torchvision()
    from torchvision.datasets import CIFAR10 as Cifar10Files

    folder = root / Cifar10Files.base_folder
    if not download and not folder.is_dir():
        raise DatasetNotFoundError(
            f"CIFAR-10 was not found: there is no folder {folder}; {_ADVICE}"
        )
    try:
        return Cifar10Files(root, train=split == TRAIN, download=download)
    except (RuntimeError, OSError) as error:
        if not folder.is_dir():
            raise DatasetNotFoundError(
                f"CIFAR-10 could not be downloaded to {root} ({error}); {_ADVICE}"
            ) from error
        _name_culprit(folder, Cifar10Files)
        raise


def _name_culprit(folder: Path, files: Any) -> None:
    """Raise an error about the first file that is missing or not the official one."""
    listed = [*files.train_list, *files.test_list, (files.meta["filename"], files.meta["md5"])]
    for name, expected in listed:
        path = folder / name
        if not path.is_file():
            raise DatasetNotFoundError(f"CIFAR-10 is incomplete: {path} is missing; {_ADVICE}")
        found = _md5(path)
        if found != expected:
            raise DatasetCorruptError(
                f"{path} is truncated or altered: its md5 must be {expected}, got {found} "
                f"({path.stat().st_size} bytes); delete it, then {_ADVICE}"
            )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
