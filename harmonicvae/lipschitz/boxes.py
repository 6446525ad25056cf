"""Boxes of inputs, as callers give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.network import LayeredNetwork


def check_box(network: LayeredNetwork, box: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of an input box as arrays.

    Parameters
    ----------
    network : LayeredNetwork
    box : pair (low, high) of floats or array-likes of shape (input_dim,)
        low ≤ high; infinite ends are allowed.

    Returns
    -------
    low, high : ndarray of shape (input_dim,)

    Raises
    ------
    InputError
        If the box has another form, is empty or holds NaN.

    Examples
    --------
    >>> check_box(LayeredNetwork.from_arrays([[[1.0, 1.0]]]), (-1, 1))
    (array([-1., -1.]), array([1., 1.]))
    """
    try:
        low, high = (
            np.broadcast_to(np.asarray(end, dtype=np.float64).reshape(-1), network.input_dim)
            for end in box
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"box must be a pair (low, high) of numbers or of {network.input_dim} numbers each: "
            f"{error}"
        ) from None
    if not np.all(low <= high) or np.any(low == np.inf) or np.any(high == -np.inf):
        raise InputError(f"box must have low <= high in every input, got {low} and {high}")
    return np.array(low), np.array(high)
