"""Images kept as bytes and converted to float32 in [−1, 1] only where they are read."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from harmonicvae.exceptions import DatasetCorruptError, DatasetNotFoundError, InputError

#: Half of the byte range: data = (raw − 127.5) / 127.5.
_HALF = np.float32(127.5)
#: Bytes converted at a time, so that a block stays in the processor's cache.
_BLOCK_BYTES = 2**18


class ScaledImages:
    """Rows of bytes, presented as a float32 matrix with values in [−1, 1].

    Behaves as a read-only array of shape (n, d): indexing and ``np.asarray``
    convert what is asked for, the rest stays bytes, a quarter of float32's memory.

    Parameters
    ----------
    raw : ndarray or memmap of uint8, shape (n, d), C-contiguous
        Pixel values, 0 to 255.  Not copied.

    Raises
    ------
    InputError
        If ``raw`` is not a C-contiguous two-dimensional array of uint8.

    Notes
    -----
    data = (raw − 127.5) / 127.5.  The difference is exact in float32, so each
    value is the float32 nearest to 2·raw/255 − 1, and the same by whichever way it
    is read.  An array over a memory-mapped file is pickled by path, not by content,
    so worker processes share one copy.

    Examples
    --------
    >>> images = ScaledImages(np.array([[0, 255], [51, 204]], dtype=np.uint8))
    >>> images.shape, images.dtype, images.nbytes
    ((2, 2), dtype('float32'), 4)
    >>> images[0]
    array([-1.,  1.], dtype=float32)
    >>> np.asarray(images).tolist() == images.take([0, 1]).tolist()
    True
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: np.ndarray) -> None:
        if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8 or raw.ndim != 2:
            found = f"{getattr(raw, 'dtype', type(raw).__name__)} of shape {np.shape(raw)}"
            raise InputError(f"raw must be a uint8 array of shape (n, d), got {found}")
        if not raw.flags.c_contiguous:
            raise InputError("raw must be C-contiguous, got a strided view; np.ascontiguousarray")
        self._raw = raw

    @property
    def raw(self) -> np.ndarray:
        """The bytes themselves, uint8 of shape (n, d), not copied."""
        return self._raw

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of values per row."""
        return self._raw.shape[0], self._raw.shape[1]

    @property
    def ndim(self) -> int:
        """Number of axes, 2."""
        return 2

    @property
    def size(self) -> int:
        """Number of values, n × d."""
        return self._raw.size

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Type of the values as they are read, float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that the storage takes, one per value."""
        return self._raw.nbytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._raw.shape[0]

    def __repr__(self) -> str:
        """Return shape and storage in one line."""
        storage = "memory" if _file_location(self._raw) is None else "file"
        return f"ScaledImages(shape={self.shape}, dtype=float32, storage={storage})"

    def __getitem__(self, key: Any) -> Any:
        """Return the values at ``key`` (any NumPy index) as float32."""
        picked = self._raw[key]
        if isinstance(picked, np.ndarray):
            return _convert(picked, np.empty(picked.shape, dtype=np.float32))
        return (np.float32(picked) - _HALF) / _HALF

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all values as a new array; see ``np.asarray``."""
        if copy is False:
            raise ValueError("the values are converted when read: an array without copy is none")
        values = np.empty(self.shape, dtype=np.float32)
        block = self._rows_per_block()
        for start in range(0, len(self), block):
            _convert(self._raw[start : start + block], values[start : start + block])
        return values if dtype is None else values.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path if the rows lie in a memory-mapped file, else by content."""
        location = _file_location(self._raw)
        if location is None:
            return type(self), (np.asarray(self._raw),)
        return _open_rows, (*location, self.shape)

    def rows(self, span: slice) -> ScaledImages:
        """Return a range of rows without converting or copying them.

        Parameters
        ----------
        span : slice
            Range of rows, with step 1.

        Returns
        -------
        ScaledImages
            Of the same storage.

        Raises
        ------
        InputError
            If ``span`` is not a slice with step 1.

        Examples
        --------
        >>> images = ScaledImages(np.zeros((5, 3), dtype=np.uint8))
        >>> images.rows(slice(1, 4)).shape
        (3, 3)
        """
        if not isinstance(span, slice) or span.step not in (None, 1):
            raise InputError(f"span must be a slice with step 1, got {span!r}; X[span] takes any")
        return ScaledImages(self._raw[span])

    def take(self, indices: ArrayLike | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Gather rows and convert them, for one batch of training.

        Parameters
        ----------
        indices : array-like of int, shape (m,)
            Rows to take, −n ≤ index < n, in any order, repeats allowed.
        out : ndarray of float32, shape (m, d), default=None
            Where to write the values; None allocates.

        Returns
        -------
        ndarray of float32, shape (m, d)
            ``out`` if it was given.

        Raises
        ------
        InputError
            If an index is out of range or not an integer, or ``out`` does not fit.

        Notes
        -----
        O(m·d), limited by memory; a scratch block of 256 KiB beside ``out``.

        Examples
        --------
        >>> images = ScaledImages(np.array([[0], [255]], dtype=np.uint8))
        >>> images.take([1, 0, -1]).ravel().tolist()
        [1.0, -1.0, 1.0]
        """
        chosen = self._checked_indices(indices)
        values = self._checked_out(out, len(chosen))
        block = self._rows_per_block()
        scratch = np.empty((min(block, len(chosen)), self.shape[1]), dtype=np.uint8)
        for start in range(0, len(chosen), block):
            part = chosen[start : start + block]
            gathered = scratch[: len(part)]
            # "wrap" writes straight into out= ("raise" buffers) and resolves negative indices.
            np.take(self._raw, part, axis=0, out=gathered, mode="wrap")
            _convert(gathered, values[start : start + block])
        return values

    def _rows_per_block(self) -> int:
        return max(1, _BLOCK_BYTES // max(1, self.shape[1]))

    def _checked_indices(self, indices: ArrayLike | Sequence[int]) -> np.ndarray:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise InputError(
                f"indices must be integers of shape (m,), got {chosen.dtype} of shape "
                f"{chosen.shape}; X[mask] takes a mask"
            )
        count = len(self)
        if chosen.size and (chosen.min() < -count or chosen.max() >= count):
            raise InputError(
                f"indices must lie in [{-count}, {count}), got {chosen.min()} to {chosen.max()}"
            )
        return chosen.astype(np.intp, copy=False)

    def _checked_out(self, out: np.ndarray | None, count: int) -> np.ndarray:
        expected = (count, self.shape[1])
        if out is None:
            return np.empty(expected, dtype=np.float32)
        if out.shape != expected or out.dtype != np.float32 or not out.flags.writeable:
            raise InputError(
                f"out must be a writeable float32 array of shape {expected}, got {out.dtype} "
                f"of shape {out.shape}"
            )
        return out


def _convert(raw: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write (raw − 127.5) / 127.5 into ``out`` (float32) and return it."""
    np.copyto(out, raw)
    np.subtract(out, _HALF, out=out)
    np.divide(out, _HALF, out=out)
    return out


def _file_location(raw: np.ndarray) -> tuple[str, int] | None:
    """Return path and offset (bytes) of rows that lie in a mapped file, else None."""
    mapped = getattr(raw, "_mmap", None)
    if not isinstance(raw, np.memmap) or mapped is None or raw.filename is None:
        return None
    if raw.mode == "c" or raw.size == 0:  # private changes would be lost; nothing to locate
        return None
    # A slice of a memmap keeps its parent's offset: locate it by address instead.
    first = np.frombuffer(mapped, dtype=np.uint8).ctypes.data
    start = raw.offset - raw.offset % mmap.ALLOCATIONGRANULARITY
    return str(raw.filename), start + raw.ctypes.data - first


def _open_rows(path: str, offset: int, shape: tuple[int, int]) -> ScaledImages:
    """Map rows of a file again, in the process that unpickles them."""
    try:
        return ScaledImages(np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape))
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"the images were pickled by path, but {path} is gone; load the data set again"
        ) from error
    except ValueError as error:
        raise DatasetCorruptError(
            f"{path} is shorter than the images pickled from it; load the data set again"
        ) from error
