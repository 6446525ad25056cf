"""Cell arrays of matrices in MATLAB files, version 7 or older."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from harmonicvae.exceptions import InputError


def write_cells(path: str | Path, arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write one cell array a name; vectors become columns.

    Parameters
    ----------
    path : str or Path
        File to write.
    arrays : mapping of str to sequence of ndarray
        Variables and their cells.

    Examples
    --------
    See :func:`read_cells`.
    """
    cells = {}
    for key, items in arrays.items():
        cell = np.empty((1, len(items)), dtype=object)
        for i, item in enumerate(items):
            cell[0, i] = item[:, None] if item.ndim == 1 else item
        cells[key] = cell
    scipy.io.savemat(str(path), cells, appendmat=False)


def read_cells(
    path: str | Path, keys: Iterable[str], required: Iterable[str]
) -> dict[str, list[Any]]:
    """Read cell arrays.

    Parameters
    ----------
    path : str or Path
        A .mat file.
    keys : iterable of str
        Variables to read where present.
    required : iterable of str
        Those that must be there.

    Returns
    -------
    dict of str to list
        Cells in order; sparse matrices become dense.

    Raises
    ------
    InputError
        If the file is missing, truncated or of another kind, a required variable is
        missing, or a variable is not a cell array.

    Notes
    -----
    SciPy reads the file. Bytes altered at random inside one can crash SciPy itself.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "cells.mat")
    >>> write_cells(path, {"weights": [np.eye(2), np.ones(1)]})
    >>> read_cells(path, ["weights", "bias"], ["weights"])
    {'weights': [array([[1., 0.],
           [0., 1.]]), array([[1.]])]}
    >>> folder.cleanup()
    """
    content = _load(Path(path))
    for key in required:
        if key not in content:
            found = sorted(name for name in content if not name.startswith("__"))
            raise InputError(f"{path} must hold the cell array {key!r}, found {found}")
    return {key: _cells(content[key], key, path) for key in keys if key in content}


def _load(path: Path) -> dict[str, Any]:
    """Return the variables of a .mat file."""
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        return scipy.io.loadmat(str(path), appendmat=False)
    except NotImplementedError as error:
        raise InputError(f"cannot read {path}: {error}; in MATLAB, save it with -v7") from error
    except Exception as error:  # scipy raises many kinds for damaged files
        raise InputError(
            f"cannot read {path} as a MATLAB file ({type(error).__name__}: {error}); "
            "it may be truncated or of another kind"
        ) from error


def _cells(cell: Any, key: str, path: str | Path) -> list[Any]:
    """Return the entries of a cell array."""
    if not isinstance(cell, np.ndarray) or cell.dtype != object or max(cell.shape) != cell.size:
        raise InputError(f"{key!r} in {path} must be a cell array with one matrix a layer")
    return [item.toarray() if hasattr(item, "toarray") else item for item in cell.ravel()]
