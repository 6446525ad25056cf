"""The common form in which all data sets are returned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import InputError

TRAIN = "train"
VALIDATION = "validation"


def check_split(split: str, allowed: Mapping[str, Any]) -> str:
    """Return ``split`` if it is among the names that a data set knows.

    Parameters
    ----------
    split : str
        Name of a split.
    allowed : mapping
        Known names.

    Returns
    -------
    str

    Raises
    ------
    InputError
        If ``split`` is not in ``allowed``.

    Examples
    --------
    >>> check_split("train", {"train": 0, "validation": 1})
    'train'
    """
    if not isinstance(split, str) or split not in allowed:
        raise InputError(f"split must be one of {', '.join(allowed)}, got {split!r}")
    return split


def start_digest(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return a SHA-256 that has taken type and shape of an array; its bytes come next.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Type of its values.

    Returns
    -------
    hashlib object

    Examples
    --------
    >>> digest = start_digest((2,), np.dtype(np.uint8))
    >>> digest.update(bytes([1, 2]))
    >>> digest.hexdigest() == content_digest(np.array([1, 2], dtype=np.uint8))
    True
    """
    return hashlib.sha256(f"{dtype.str} {tuple(map(int, shape))}\n".encode())


def content_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and values, as hexadecimal digits.

    Parameters
    ----------
    array : ndarray
        Any shape and plain type.

    Returns
    -------
    str of 64 digits

    Notes
    -----
    O(bytes): around a second per GiB.

    Examples
    --------
    >>> content_digest(np.zeros(2)) == content_digest(np.zeros((1, 2)))
    False
    """
    digest = start_digest(array.shape, array.dtype)
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def image_bunch(raw: np.ndarray, *, as_array: bool, **fields: Any) -> Bunch:
    """Return bytes of images as a Bunch with ``data``, ``scaling`` and ``layout``.

    Parameters
    ----------
    raw : ndarray of uint8, shape (n, height × width × channels)
        Pixels, channels last.
    as_array : bool
        Whether ``data`` is an ndarray of float32 instead of a :class:`ScaledImages`.
    **fields
        What else the Bunch holds.

    Returns
    -------
    Bunch

    Examples
    --------
    >>> image_bunch(np.zeros((1, 3), dtype=np.uint8), as_array=True).data
    array([[-1., -1., -1.]], dtype=float32)
    """
    data = ScaledImages(raw)
    return Bunch(
        data=np.asarray(data) if as_array else data,
        scaling={"minimum": 0.0, "maximum": 255.0},
        layout="height, width, channels",
        **fields,
    )
