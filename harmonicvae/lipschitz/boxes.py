"""Boxes of inputs, as callers give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.network import LayeredNetwork


def check_box(
    network: LayeredNetwork, box: Sequence[Any], outwards: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of an input box as arrays.

    Parameters
    ----------
    network : LayeredNetwork
    box : pair (low, high) of floats or array-likes of shape (input_dim,)
        low ≤ high; infinite ends are allowed.
    outwards : bool
        Ends that are no float64 numbers move to the next one outside, so that what holds
        in the result holds in the box; False moves them inside.

    Returns
    -------
    low, high : ndarray of shape (input_dim,)

    Raises
    ------
    InputError
        If the box has another form, is empty or holds NaN.

    Examples
    --------
    >>> check_box(LayeredNetwork.from_arrays([[[1.0, 1.0]]]), (-1, 1), outwards=True)
    (array([-1., -1.]), array([1., 1.]))
    """
    if isinstance(box, (str, bytes)) or not hasattr(box, "__len__") or len(box) != 2:
        raise InputError(f"box must be a pair (low, high), got {type(box).__name__}: {box!r:.80}")
    size = network.input_dim
    low = _end(box[0], "low", size, -np.inf if outwards else np.inf)
    high = _end(box[1], "high", size, np.inf if outwards else -np.inf)
    empty = (low > high) | (low == np.inf) | (high == -np.inf)
    if np.any(empty):
        i = int(np.argmax(empty))
        raise InputError(
            f"box must have low <= high and hold numbers, got [{low[i]}, {high[i]}] at input {i}"
        )
    return low, high


def _end(value: Any, name: str, size: int, towards: float) -> np.ndarray:
    """Return one end of a box as a float64 array of shape (size,), refusing NaN."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"box must hold numbers, its {name} end does not: {error}") from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"box must hold real numbers, its {name} end has dtype {array.dtype}")
    if array.shape not in ((), (size,)):
        raise InputError(
            f"box must have a number or {size} of them for its {name} end, got {array.shape}"
        )
    if np.any(np.isnan(array)):
        raise InputError(f"box must not hold NaN, its {name} end does; use inf for no limit")
    return np.array(np.broadcast_to(_converted(array, towards), (size,)))


def _converted(array: np.ndarray, towards: float) -> np.ndarray:
    """Convert to float64; what is no float64 number moves to a neighbour on the given side."""
    numbers = array.astype(np.float64)
    large = np.abs(numbers) >= 2.0**53  # integers round, as do floats of more than 64 bits
    rounded = numbers != array if array.dtype.kind == "f" else large
    return np.where(rounded, np.nextafter(numbers, towards), numbers)
