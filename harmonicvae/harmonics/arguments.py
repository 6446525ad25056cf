"""Validation of what callers give to the harmonic analysis."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError


def check_integer(name: str, value: Any, least: int) -> int:
    """Return an integer ≥ ``least``.

    Raises
    ------
    InputError
        If it is not an integer, is a bool, or is too small.

    Examples
    --------
    >>> check_integer("n_samples", 100, 32)
    100
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def check_positive(name: str, value: Any, *, below: float = math.inf) -> float:
    """Return a finite number in (0, below).

    Raises
    ------
    InputError
        If it is no real number or outside.

    Examples
    --------
    >>> check_positive("std", 0.5)
    0.5
    """
    plain = value.item() if hasattr(value, "item") and np.size(value) == 1 else value
    real = isinstance(plain, numbers.Real) and not isinstance(plain, bool)
    if not real or not 0 < float(plain) < below:
        upper = "finite" if below == math.inf else f"< {below:g}"
        raise InputError(f"{name} must be > 0 and {upper}, got {value!r}")
    return float(plain)


def check_points(name: str, value: Any) -> np.ndarray:
    """Return points as a float64 array of shape (p, m).

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : array or Tensor of shape (m,) or (p, m)
        Finite numbers.

    Returns
    -------
    float64 ndarray of shape (p, m), p, m ≥ 1

    Raises
    ------
    InputError
        If they are not numeric, not finite, or of another shape.

    Examples
    --------
    >>> check_points("mean", [0.0, 1.0])
    array([[0., 1.]])
    """
    try:
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        array = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numeric, got {type(value).__name__}: {error}") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(f"{name} must have shape (m,) or (p, m), got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return np.atleast_2d(array)


def generator_from(random_state: Any) -> np.random.Generator:
    """Return a generator of its own for a seed.

    Parameters
    ----------
    random_state : None, int ≥ 0, RandomState or Generator
        None draws from the operating system; a NumPy generator is advanced.

    Returns
    -------
    Generator
        It can spawn others.

    Raises
    ------
    InputError
        If it is of another type or negative.

    Examples
    --------
    >>> generator_from(0).random() == generator_from(0).random()
    True
    """
    if isinstance(random_state, np.random.RandomState):
        entropy: Any = random_state.randint(0, 2**32, size=4, dtype=np.uint64).tolist()
    elif isinstance(random_state, np.random.Generator):
        entropy = random_state.integers(0, 2**32, size=4).tolist()
    elif random_state is None:
        entropy = None
    else:
        entropy = check_integer("random_state", random_state, 0)
    return np.random.default_rng(np.random.SeedSequence(entropy))
