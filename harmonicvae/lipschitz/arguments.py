"""Checks of the methods' options, each with one clear error."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from harmonicvae.exceptions import InputError


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an integer of at least ``least``.

    Raises
    ------
    InputError
        If it is something else.

    Examples
    --------
    >>> whole_number("split", 2, 1)
    2
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def fraction(name: str, value: Any) -> float:
    """Return a number in (0, 1).

    Raises
    ------
    InputError
        If it is something else.

    Examples
    --------
    >>> fraction("gap", 1e-6)
    1e-06
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < 1.0:
        raise InputError(f"{name} must lie in (0, 1), got {value!r}")
    return float(value)


def device_name(value: Any) -> str:
    """Return the name of a torch device that can compute in float64 here.

    Raises
    ------
    InputError
        If torch does not know it or it is absent.

    Examples
    --------
    >>> device_name("cpu")
    'cpu'
    """
    import torch  # slow to import

    try:
        torch.zeros(1, dtype=torch.float64, device=torch.device(value))
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"device must be one that torch can use, got {value!r}: {reason}"
        ) from None
    return str(value)
