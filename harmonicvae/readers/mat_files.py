"""Cell arrays of matrices in MATLAB files, version 7 or older."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.sparse import csc_matrix

from harmonicvae.exceptions import InputError
from harmonicvae.matrices import is_sparse
from harmonicvae.readers.affine_maps import kept_forms
from harmonicvae.readers.mat_reader import read_variables


def write_cells(path: str | Path, arrays: Mapping[str, Sequence[Any]]) -> None:
    """Write one cell array a name; vectors become columns.

    Parameters
    ----------
    path : str or Path
        File to write.
    arrays : mapping of str to sequence of ndarray or csr_array
        Variables and their cells; sparse ones are written as MATLAB's.

    Raises
    ------
    InputError
        If the file cannot be written.

    Examples
    --------
    See :func:`read_cells`.
    """
    cells = {}
    for key, items in arrays.items():
        cell = np.empty((1, len(items)), dtype=object)
        for i, item in enumerate(items):
            column = item[:, None] if item.ndim == 1 else item
            cell[0, i] = csc_matrix(column) if is_sparse(column) else column
        cells[key] = cell
    try:
        scipy.io.savemat(str(path), cells, appendmat=False)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; its folder must exist") from error


def read_cells(
    path: str | Path, keys: Iterable[str], required: Iterable[str]
) -> dict[str, list[Any]]:
    """Read cell arrays.

    Parameters
    ----------
    path : str or Path
        A .mat file, version 5 to 7.
    keys : iterable of str
        Variables to read where present; others are passed over, whatever they hold.
    required : iterable of str
        Those that must be there.

    Returns
    -------
    dict of str to list of ndarray or csr_array
        Cells in order; sparse matrices become dense unless one is large, see
        :func:`harmonicvae.readers.affine_maps.kept_forms`.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged or of another kind, a required
        variable is missing, or a variable is not a cell array of real matrices.

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
    keys = list(keys)
    content = read_variables(path, frozenset(keys))
    for key in required:
        if key not in content:
            raise InputError(f"{path} must hold the cell array {key!r}, found {sorted(content)}")
    cells: dict[str, list[Any]] = {}
    for key in keys:
        value = content.get(key)
        if isinstance(value, list):
            cells[key] = kept_forms(value)
        elif value is not None:
            raise InputError(f"{key!r} in {path} must be a cell array with one matrix a layer")
    return cells
