"""Plain values: what JSON and checkpoints read without unpickling code can hold."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_plain(value: Any) -> Any:
    """Turn NumPy scalars, arrays, paths and devices into plain Python values.

    Parameters
    ----------
    value : object
        Containers are converted with what they hold.

    Returns
    -------
    object
        None, bool, int, float, str, list, tuple or dict of such; anything of another
        type as it is.

    Examples
    --------
    >>> to_plain({"encoder_std": np.float64(0.5), "hidden_dims": (np.int64(8),)})
    {'encoder_std': 0.5, 'hidden_dims': (8,)}
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (str, torch.device)):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(to_plain, value))
    if isinstance(value, list):
        return list(map(to_plain, value))
    return value


def is_plain(value: Any) -> bool:
    """Tell whether a value is None or a number, bool or string of Python's own.

    Examples
    --------
    >>> is_plain(1.5), is_plain(np.float64(1.5)), is_plain([1.5])
    (True, False, False)
    """
    return value is None or type(value) in (bool, int, float, str)
