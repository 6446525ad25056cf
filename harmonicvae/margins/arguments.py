"""Validation of what callers give to the margins."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError


def check_number(name: str, value: Any, *, infinite: bool = False) -> float:
    """Return a number ≥ 0 as a float.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : float
        Number, ≥ 0.
    infinite : bool, default=False
        Whether ``inf`` is allowed.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If it is no real number, negative, NaN, or infinite where that is not allowed.

    Examples
    --------
    >>> check_number("r", 8)
    8.0
    """
    plain = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise InputError(f"{name} must be a number >= 0, got {value!r}")
    number = float(plain)
    if not number >= 0 or (math.isinf(number) and not infinite):
        allowed = ">= 0" if infinite else "finite and >= 0"
        raise InputError(f"{name} must be {allowed}, got {number!r}")
    return number


def check_positive_integer(name: str, value: Any) -> int:
    """Return an integer ≥ 1.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int
        Integer, ≥ 1.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If it is not an integer, is a bool, or is below 1.

    Examples
    --------
    >>> check_positive_integer("latent_dim", 64)
    64
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)


def as_array(name: str, value: Any) -> np.ndarray:
    """Return finite numbers as a float64 array; tensors are moved to the CPU.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : array or Tensor of any shape
        Finite numbers.

    Returns
    -------
    float64 ndarray

    Raises
    ------
    InputError
        If they are not numeric or not finite.

    Examples
    --------
    >>> as_array("std", [1, 2])
    array([1., 2.])
    """
    try:
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        array = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numeric, got {type(value).__name__}: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return array


def check_stds(std: Any, latent_dim: int) -> np.ndarray:
    """Return encoder standard deviations as a float64 array.

    Parameters
    ----------
    std : float, or array of shape (latent_dim,) or (n, latent_dim)
        Standard deviations, finite and ≥ 0.
    latent_dim : int
        Number of latent units.

    Returns
    -------
    float64 ndarray of shape (), (latent_dim,) or (n, latent_dim)

    Raises
    ------
    InputError
        If one is negative, NaN or infinite, or the shape is another.

    Examples
    --------
    >>> check_stds(0.5, 3)
    array(0.5)
    """
    stds = as_array("std", std)
    if stds.ndim > 2 or (stds.ndim and (stds.shape[-1] != latent_dim or stds.size == 0)):
        raise InputError(
            f"std must be a number or have shape ({latent_dim},) or (n, {latent_dim}), "
            f"got {stds.shape}"
        )
    if (stds < 0).any():
        raise InputError(f"std must be >= 0, got {float(stds.min())!r}")
    return stds
