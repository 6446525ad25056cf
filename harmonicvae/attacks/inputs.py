"""Validation of what callers give to an attack."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harmonicvae.attacks.projections import NORMS, Box
from harmonicvae.exceptions import InputError


def check_norm(norm: Any) -> None:
    """Refuse a norm that is not in ``NORMS``.

    Parameters
    ----------
    norm : str
        Name to check.

    Raises
    ------
    InputError
        If it is unknown.

    Examples
    --------
    >>> check_norm("l2")
    """
    if norm not in NORMS:
        raise InputError(f"norm must be one of {NORMS}, got {norm!r}")


def check_integer(name: str, value: Any, least: int) -> None:
    """Refuse what is not an integer ≥ ``least``.

    Parameters
    ----------
    name : str
        Name of the option, for the message.
    value : object
        What was given.
    least : int
        Smallest allowed value.

    Raises
    ------
    InputError
        If it is not an integer, is a bool, or is too small.

    Examples
    --------
    >>> check_integer("n_steps", 100, 1)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be an integer >= {least}, got {value!r}")


def check_number(name: str, value: Any, least: float) -> float:
    """Return a finite number ≥ ``least`` as a float.

    Parameters
    ----------
    name : str
        Name of the option, for the message.
    value : object
        What was given.
    least : float
        Smallest allowed value.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If it is no real number, not finite or too small.

    Examples
    --------
    >>> check_number("encode_std", 1, 0.0)
    1.0
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or value < least:
        raise InputError(f"{name} must be a finite number >= {least:g}, got {value!r}")
    return float(value)


def check_inputs(x: Any) -> Tensor:
    """Return the attacked inputs as a float64 copy on the CPU.

    Parameters
    ----------
    x : array, DataFrame or Tensor of shape (n, d)
        Clean inputs.

    Returns
    -------
    float64 Tensor of shape (n, d)

    Raises
    ------
    InputError
        If it is no numeric (n, d) array with n, d ≥ 1, or not finite.

    Examples
    --------
    >>> check_inputs([[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    try:
        plain = x.detach().cpu().double().numpy() if isinstance(x, Tensor) else x
        values = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"x must be numeric, got {type(x).__name__}: {error}") from error
    if values.ndim != 2:
        raise InputError(
            f"x must have shape (n, d), got {values.shape}; flatten images with "
            "x.reshape(len(x), -1)"
        )
    if 0 in values.shape:
        raise InputError(f"x must hold at least one input and one feature, got {values.shape}")
    broken = int((~np.isfinite(values)).any(axis=1).sum())
    if broken:
        raise InputError(
            f"x must be finite, got NaN or infinity in {broken} of {len(values)} rows; "
            "drop or impute them"
        )
    return torch.from_numpy(values)


def check_radii(radius: Any) -> list[float]:
    """Return the radii as a list of floats.

    Parameters
    ----------
    radius : float or sequence of float
        Radii, in input units.

    Returns
    -------
    list of float

    Raises
    ------
    InputError
        If there is none, or one is negative, NaN, infinite or no number.

    Examples
    --------
    >>> check_radii([10, 20])
    [10.0, 20.0]
    """
    try:
        values = np.asarray(radius, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"radius must be a number >= 0 or a list of them, got {radius!r}"
        ) from error
    if values.ndim > 1 or values.size == 0:
        raise InputError(f"radius must be a number or a non-empty list, got {radius!r}")
    for value in values.ravel():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"radius must be finite and >= 0, got {float(value)!r}")
    return [float(value) for value in values.ravel()]


def check_box(box: Any, x: Tensor) -> Box | None:
    """Return the ends of the pixel box as float64 tensors.

    Parameters
    ----------
    box : (low, high) or None
        Numbers or arrays of shape (d,); infinite ends are allowed.
    x : float64 Tensor of shape (n, d)
        Inputs that must lie inside.

    Returns
    -------
    (Tensor, Tensor) of shape (d,), or None

    Raises
    ------
    InputError
        If it is not a pair, an end is NaN or has the wrong shape, or an input is outside.

    Examples
    --------
    >>> check_box((-1, 1), torch.zeros(1, 2, dtype=torch.float64))[1]
    tensor([1., 1.], dtype=torch.float64)
    """
    if box is None:
        return None
    if not isinstance(box, (tuple, list)) or len(box) != 2:
        raise InputError(f"box must be a pair (low, high) or None, got {box!r}")
    low, high = (_end(end, x.shape[1]) for end in box)
    excess = float(torch.maximum(x - high, low - x).max())
    if excess > 0:
        raise InputError(
            f"box must hold every clean input, got one that is {excess:.3g} outside; "
            "widen the box or clip x to it"
        )
    return low, high


def _end(end: Any, width: int) -> Tensor:
    """Return one end of the box as a float64 tensor of shape (d,)."""
    try:
        plain = end.detach().cpu().numpy() if isinstance(end, Tensor) else end
        value = np.broadcast_to(np.asarray(plain, dtype=np.float64), (width,)).copy()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"box ends must be numbers or arrays of shape ({width},), got {end!r}"
        ) from error
    if np.isnan(value).any():
        raise InputError(f"box ends must not be NaN, got {end!r}; use None for no box")
    return torch.from_numpy(value)


def seeds_from(random_state: Any, count: int) -> list[int]:
    """Return one 64-bit seed for each input.

    Parameters
    ----------
    random_state : None, int, RandomState or Generator
        None draws from the operating system; a NumPy generator is advanced.
    count : int
        Number of inputs.

    Returns
    -------
    list of int
        Seed i does not depend on ``count``.

    Raises
    ------
    InputError
        If it is of another type or a negative integer.

    Examples
    --------
    >>> seeds_from(0, 3)[:2] == seeds_from(0, 2)
    True
    """
    if isinstance(random_state, np.random.RandomState):
        entropy: Any = random_state.randint(0, 2**32, size=4, dtype=np.uint64).tolist()
    elif isinstance(random_state, np.random.Generator):
        entropy = random_state.integers(0, 2**32, size=4).tolist()
    elif random_state is None:
        entropy = None
    else:
        if isinstance(random_state, bool) or not isinstance(random_state, numbers.Integral):
            raise InputError(
                "random_state must be None, an integer >= 0, a RandomState or a Generator, "
                f"got {random_state!r}"
            )
        check_integer("random_state", random_state, 0)
        entropy = int(random_state)
    sequence = np.random.SeedSequence(entropy)
    return [int(seed) for seed in sequence.generate_state(count, np.uint64)]
