"""The caller's encoder and decoder as checked functions on float64 arrays."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, SolverError


def batched(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, size: int) -> Any:
    """Evaluate a function of rows in blocks of at most ``size`` rows.

    Examples
    --------
    >>> batched(np.negative, np.arange(3.0), 2)
    array([-0., -1., -2.])
    """
    return np.concatenate(
        [function(rows[start : start + size]) for start in range(0, len(rows), size)]
    )


def numeric(name: str, function: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return a callable on float64 arrays that checks what it gets back.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    function : callable
        torch modules and their bound methods are copied, put in eval mode and given tensors;
        anything else is given float64 arrays.

    Returns
    -------
    callable
        (rows, …) → float64 ndarray of as many rows; it raises ``InputError`` for another
        number of rows and ``SolverError`` for NaN or infinity.

    Raises
    ------
    InputError
        If it is not callable.

    Examples
    --------
    >>> numeric("decode", lambda codes: 2 * codes)(np.ones((1, 2)))
    array([[2., 2.]])
    """
    if not callable(function):
        raise InputError(
            f"{name} must be a torch module or a callable on arrays, got {type(function).__name__}"
        )
    run = _torch_runner(function) or function

    def checked(rows: np.ndarray) -> np.ndarray:
        output = run(rows)
        if isinstance(output, (tuple, list)):
            raise InputError(
                f"{name} must return one array, got a {type(output).__name__}; for a pair "
                f"(mean, std) pass e.g. lambda rows: {name}(rows)[0]"
            )
        plain = output.detach().cpu().numpy() if hasattr(output, "detach") else output
        values = np.asarray(plain, dtype=np.float64)
        if values.ndim == 0 or len(values) != len(rows):
            raise InputError(
                f"{name} must return one row per input, got {values.shape} for {len(rows)} rows"
            )
        if not np.isfinite(values).all():
            raise SolverError(f"{name} returned NaN or infinity for finite inputs; check the model")
        return values

    return checked


def _torch_runner(function: Any) -> Callable[[np.ndarray], Any] | None:
    """Return a copy of a module (or of its bound method) in eval mode, None for other callables."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    owner = function if isinstance(function, torch.nn.Module) else None
    owner = owner or getattr(function, "__self__", None)
    if not isinstance(owner, torch.nn.Module):
        return None
    module = copy.deepcopy(owner).eval()
    run = module if owner is function else getattr(module, function.__name__)
    example = next(module.parameters(), torch.zeros(0, dtype=torch.float64))

    def evaluate(rows: np.ndarray) -> Any:
        with torch.no_grad():
            output = run(torch.from_numpy(rows).to(example.device, example.dtype))
        return output.double() if isinstance(output, torch.Tensor) else output

    return evaluate
