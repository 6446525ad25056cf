"""Read MATLAB level 5 files (versions 5 to 7) without trusting a byte of them.

Every length is checked before it is used, so a damaged file gives an error and never
more: no crash, no read past the end, no memory beyond :data:`MAX_BYTES`.

References
----------
The MathWorks, "MAT-File Format", the chapter on level 5 files.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from harmonicvae.exceptions import InputError
from harmonicvae.matrices import Matrix

#: Most bytes that one variable may take, unpacked and as dense float64.
MAX_BYTES = 2 * 2**30
#: Numeric types of stored numbers, by their code, without byte order.
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _SPARSE, _OPAQUE = 1, 5, 17
#: As many times the positions of a dense array may a sparse one have.
_SPARSE_FACTOR = 64
_CLASS_NAMES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_FIRST_NUMERIC, _LAST_NUMERIC = 6, 15
_COMPLEX, _LOGICAL = 0x08, 0x02
#: Enough of a packed variable to read its name.
_HEAD_BYTES = 4096


@dataclass
class Elements:
    r"""Data elements one after the other in a piece of memory.

    Parameters
    ----------
    data : memoryview
        The piece.
    order : str
        Byte order, "<" or ">".
    position : int, default=0
        Where the next element begins.

    Examples
    --------
    >>> data = memoryview(b"\x05\x00\x04\x00\x07\x00\x00\x00")
    >>> Elements(data, "<").numbers()
    array([7], dtype=int32)
    """

    data: memoryview
    order: str
    position: int = 0

    def next(self) -> tuple[int, memoryview]:
        """Return type and content of the next element.

        Returns
        -------
        kind : int
        content : memoryview

        Raises
        ------
        InputError
            If it does not lie within the data.
        """
        start = self.position
        kind, size = self._word(start), self._word(start + 4)
        if kind >> 16:  # a small element: type, size and at most four bytes in one tag
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise InputError(f"a small data element must have at most 4 bytes, got {size}")
            content, self.position = self.data[start + 4 : start + 4 + size], start + 8
        else:
            content = self.data[start + 8 : start + 8 + size]
            padded = size if kind == _COMPRESSED else -(-size // 8) * 8
            self.position = start + 8 + padded
        if len(content) < size:
            raise InputError(
                f"it is truncated or damaged, as a data element must have {size} bytes, "
                f"found {len(content)}"
            )
        return kind, content

    def _word(self, start: int) -> int:
        if start + 4 > len(self.data):
            raise InputError("it is truncated or damaged, as a data element is cut off")
        return struct.unpack(self.order + "I", self.data[start : start + 4])[0]

    def numbers(self) -> np.ndarray:
        """Return the next element as numbers in the type in which they are stored.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        InputError
            If it does not lie within the data, is not numeric or has a broken number.
        """
        kind, content = self.next()
        if kind not in _NUMBERS:
            raise InputError(f"a data element must hold numbers, got type {kind}")
        stored = np.dtype(self.order + _NUMBERS[kind])
        if len(content) % stored.itemsize:
            raise InputError(f"{len(content)} bytes are no whole number of {stored} entries")
        return np.frombuffer(content, stored).astype(stored.newbyteorder("="))

    @property
    def at_end(self) -> bool:
        """True if nothing is left."""
        return self.position >= len(self.data)


@dataclass(frozen=True)
class Header:
    """What the content of a matrix element says before its numbers.

    Parameters
    ----------
    kind : int
        Class: 1 cell, 5 sparse, 6 to 15 numeric.
    flags : int
        Bits for complex and logical.
    shape : tuple of int
        Dimensions.
    name : str
        Empty within a cell.
    """

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str

    @property
    def label(self) -> str:
        """The class in words."""
        return _CLASS_NAMES.get(self.kind, f"class {self.kind}")


def _header(elements: Elements) -> Header:
    """Read the header of a matrix element."""
    words = elements.numbers()
    if words.dtype != np.uint32 or len(words) < 1:
        raise InputError("array flags must be two whole numbers of 32 bits")
    kind, flags = int(words[0]) & 0xFF, (int(words[0]) >> 8) & 0xFF
    shape: tuple[int, ...] = ()
    if kind != _OPAQUE:
        sizes = elements.numbers()
        shape = tuple(int(size) for size in sizes)
        if sizes.dtype != np.int32 or len(shape) < 2 or min(shape) < 0:
            raise InputError(f"an array must have at least two dimensions >= 0, got {shape}")
    _, name = elements.next()
    return Header(kind, flags, shape, bytes(name).decode("latin-1"))


def _numeric(header: Header, elements: Elements) -> Matrix:
    """Read the numbers of a full or sparse matrix."""
    if header.flags & _COMPLEX:
        raise InputError("numbers must be real, got complex ones")
    bytes_taken = 8 * prod(header.shape)
    if bytes_taken > (_SPARSE_FACTOR * MAX_BYTES if header.kind == _SPARSE else MAX_BYTES):
        raise InputError(f"an array must take at most {MAX_BYTES} bytes, got shape {header.shape}")
    if header.kind == _SPARSE:
        return _sparse(header, elements)
    if not _FIRST_NUMERIC <= header.kind <= _LAST_NUMERIC:
        raise InputError(f"a matrix of numbers is needed, got {header.label}")
    values = elements.numbers()
    if len(values) != prod(header.shape):
        raise InputError(f"an array of shape {header.shape} cannot hold {len(values)} entries")
    return values.reshape(header.shape, order="F")


def _sparse(header: Header, elements: Elements) -> csr_array:
    """Read a sparse matrix, column by column."""
    if len(header.shape) != 2:
        raise InputError(f"a sparse array must have two dimensions, got shape {header.shape}")
    rows, starts, values = elements.numbers(), elements.numbers(), elements.numbers()
    if rows.dtype != np.int32 or starts.dtype != np.int32 or len(starts) != header.shape[1] + 1:
        raise InputError("a sparse array must have one index an entry and one start a column")
    counts = starts[1:].astype(np.int64) - starts[:-1]
    if starts[0] != 0 or np.any(counts < 0) or starts[-1] > min(len(rows), len(values)):
        raise InputError("the columns of a sparse array must follow each other")
    rows, values = rows[: starts[-1]], values[: starts[-1]]
    if np.any(rows < 0) or np.any(rows >= header.shape[0]):
        raise InputError(f"row numbers of a sparse array must lie in [0, {header.shape[0] - 1}]")
    columns = np.repeat(np.arange(header.shape[1]), counts)
    numbers = values.astype(np.float64)
    return csr_array((numbers, (rows, columns)), shape=header.shape)


def _cells(header: Header, elements: Elements) -> list[Matrix]:
    """Read the matrices in a cell array, in column order."""
    count = prod(header.shape)
    if count not in (0, max(header.shape)):
        raise InputError(f"cells must be in one row or column, got shape {header.shape}")
    if 8 * count > len(elements.data):  # each cell has a tag
        raise InputError(f"a cell array of shape {header.shape} is longer than its data")
    found = []
    for _ in range(count):
        kind, content = elements.next()
        if kind != _MATRIX:
            raise InputError(f"a cell must hold an array, got a data element of type {kind}")
        inner = Elements(content, elements.order)
        found.append(_numeric(_header(inner), inner) if len(content) else np.zeros((0, 0)))
    return found


def _unpack(content: memoryview, most: int) -> memoryview:
    """Return at most the given number of bytes of a compressed element, checked if complete."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(content, most)
    except zlib.error as error:
        raise InputError(f"compressed data are damaged ({error})") from error
    if len(data) < most and not unpacker.eof:
        raise InputError("compressed data end too early")
    return memoryview(data)


def _matrix(kind: int, content: memoryview, order: str, most: int) -> tuple[memoryview, bool]:
    """Return the content of a top-level matrix element, or its beginning, and whether it is one."""
    if kind != _COMPRESSED:
        return content, kind == _MATRIX
    data = _unpack(content, most)
    if len(data) < 8:
        raise InputError(f"compressed data must hold a data element, got {len(data)} bytes")
    inner, size = struct.unpack(order + "II", data[:8])
    if len(data) == most and 8 + size > most > _HEAD_BYTES:
        raise InputError(f"a variable must take at most {most} bytes, this one is larger")
    if len(data) < min(most, 8 + size):
        raise InputError(f"a variable must have {size} bytes, found {len(data) - 8}")
    return data[8 : 8 + size], inner == _MATRIX


def _byte_order(start: bytes, path: Path) -> str:
    """Check the first 128 bytes of a file and return its byte order."""
    if start[:8] == b"\x89HDF\r\n\x1a\n" or start[:10] == b"MATLAB 7.3":
        raise InputError(f"{path} is a MATLAB 7.3 (HDF5) file; in MATLAB, save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(start[126:128])
    if order is not None and struct.unpack(order + "H", start[124:126])[0] >> 8 == 1:
        return order
    if len(start) >= 20 and 0 in start[:4]:
        raise InputError(
            f"{path} may be a MATLAB file of version 4, which is not read; in MATLAB, "
            "save it with -v7"
        )
    raise InputError(
        f"{path} is not a MATLAB file of version 5 to 7; it may be truncated or of another kind"
    )


def read_variables(
    path: str | Path, names: frozenset[str]
) -> dict[str, Matrix | list[Matrix] | None]:
    """Read the chosen variables of a MATLAB file, version 5 to 7.

    Parameters
    ----------
    path : str or Path
        A .mat file.
    names : frozenset of str
        Variables to read: matrices of numbers and cell arrays of them.

    Returns
    -------
    dict of str to ndarray, list of ndarray or None
        All variables in the file; None for those that were not chosen, which may be of
        any kind, a list in column order for a cell array. Numbers come in the type in
        which they are stored, sparse matrices as float64.

    Raises
    ------
    InputError
        If the file is missing, truncated, altered so that it contradicts itself, of
        another version, or a chosen variable holds something else than real numbers.

    Notes
    -----
    O(file size) time. Memory: the file, and one unpacked variable of at most
    :data:`MAX_BYTES`, which also guards against compressed data that swell.

    Examples
    --------
    See :func:`harmonicvae.readers.mat_files.read_cells`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    elements = Elements(memoryview(data), _byte_order(data[:128], path), 128)
    found: dict[str, Matrix | list[Matrix] | None] = {}
    try:
        while not elements.at_end:
            _read_variable(elements, names, found)
    except InputError as error:
        raise InputError(f"cannot read {path} as a MATLAB file: {error}") from error
    return found


def _read_variable(
    elements: Elements,
    names: frozenset[str],
    found: dict[str, Matrix | list[Matrix] | None],
) -> None:
    """Read the next variable into ``found``; pass over other data."""
    kind, content = elements.next()
    head, is_matrix = _matrix(kind, content, elements.order, _HEAD_BYTES)
    if not is_matrix:
        return
    header = _header(Elements(head, elements.order))
    if header.name in found and header.name in names:
        raise InputError(f"there are two variables {header.name!r}")
    if header.name not in names:
        found[header.name] = None
        return
    whole, _ = _matrix(kind, content, elements.order, MAX_BYTES)
    body = Elements(whole, elements.order)
    header = _header(body)
    try:
        reader = _cells if header.kind == _CELL else _numeric
        found[header.name] = reader(header, body)
    except InputError as error:
        raise InputError(f"variable {header.name!r}: {error}") from error
