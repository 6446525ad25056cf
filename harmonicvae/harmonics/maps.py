"""The caller's function as a checked map on float64 tensors, with its derivatives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.harmonics.shortening import shortened

_REFUSALS = (RuntimeError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class DifferentiableMap:
    """A map R^m → R^d on rows of float64 tensors.

    Parameters
    ----------
    run : callable
        (n, m) → (n, …), each row for itself.
    device : torch.device
        Where it runs.
    input_dim, output_dim : int
        Of ``run``: m and d, or fewer where wide layers were shortened.
    basis : Tensor of shape (input_dim, m) or None
        What inputs are multiplied with before ``run``; orthonormal rows.
    """

    run: Callable[[Tensor], Any]
    device: torch.device
    input_dim: int
    output_dim: int
    basis: Tensor | None = None

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return points (…, m) as ``run`` takes them, (…, input_dim)."""
        return points if self.basis is None else points @ self.basis.cpu().numpy().T

    def __call__(self, points: Tensor) -> Tensor:
        """Return values of shape (n, d), finite."""
        with torch.no_grad():
            return _finite(self._flat(points), "values")

    def _flat(self, points: Tensor) -> Tensor:
        output = self.run(points)
        if not isinstance(output, Tensor):
            raise InputError(
                f"function must return a tensor, got {type(output).__name__}; for a pair "
                "(mean, std) pass e.g. lambda z: function(z)[0]"
            )
        if output.ndim == 0 or len(output) != len(points):
            raise InputError(
                "function must return one row per input, got shape "
                f"{tuple(output.shape)} for {len(points)} rows"
            )
        return output.double().reshape(len(points), -1)

    def directional(self, points: Tensor, directions: Tensor) -> Tensor:
        """Return J(z)·v for each row, (n, d): one forward-mode product."""
        try:
            with torch.no_grad():
                product = jvp(self._flat, (points,), (directions,))[1]
        except _REFUSALS as error:
            raise InputError(
                f"function must allow forward-mode derivatives (torch.func.jvp), got: {error}"
            ) from error
        return _finite(product, "derivatives")

    def squared_jacobian_norm(self, points: Tensor) -> Tensor:
        """Return ‖J(z)‖_F² for each row, exactly, by min(m, d) products."""
        if self.input_dim <= self.output_dim:
            total = torch.zeros(len(points), dtype=torch.float64, device=self.device)
            for unit in torch.eye(self.input_dim, dtype=torch.float64, device=self.device):
                total += self.directional(points, unit.expand_as(points)).square().sum(1)
            return total
        try:
            with torch.enable_grad():
                values, pull = vjp(self._flat, points)[:2]
                units = torch.eye(self.output_dim, dtype=torch.float64, device=self.device)
                rows = [pull(unit.expand_as(values).contiguous())[0] for unit in units]
        except _REFUSALS as error:
            raise InputError(
                f"function must allow reverse-mode derivatives (torch.func.vjp), got: {error}"
            ) from error
        parts = [row.detach().square().sum(1) for row in rows]
        return _finite(torch.stack(parts).sum(0), "derivatives")


def _finite(values: Tensor, what: str) -> Tensor:
    """Return the tensor, refusing NaN and infinity."""
    if not bool(torch.isfinite(values).all()):
        raise SolverError(
            f"function has {what} that are NaN or infinite at finite inputs; check the model"
        )
    return values


def as_map(function: Any, point: Tensor) -> DifferentiableMap:
    """Return a function as a map on float64 tensors.

    Parameters
    ----------
    function : callable
        torch modules and their bound methods are copied in float64 and eval mode, and stay on
        their device; other callables are given float64 tensors on the CPU.
    point : float64 Tensor of shape (m,)
        Where it is tried.

    Returns
    -------
    DifferentiableMap

    Raises
    ------
    InputError
        If it is not callable, cannot be copied, or does not take such points.
    SolverError
        If it returns NaN or infinity there.

    Examples
    --------
    >>> as_map(torch.nn.Linear(3, 2), torch.zeros(3, dtype=torch.float64)).output_dim
    2
    """
    if not callable(function):
        raise InputError(
            "function must be a torch module or a callable on tensors of shape (n, m), "
            f"got {type(function).__name__}"
        )
    run, device = _copied(function)
    first = point.to(device)[None]
    try:
        DifferentiableMap(run, device, len(point), 0)(first)
        basis = None
        if isinstance(run, nn.Module):
            run, basis = shortened(run)
        first = first if basis is None else first @ basis.T
        values = DifferentiableMap(run, device, first.shape[1], 0)(first)
    except _REFUSALS as error:
        if isinstance(error, (InputError, SolverError)):
            raise
        raise InputError(
            f"function must take float64 tensors of shape (n, {len(point)}), got: {error}"
        ) from error
    if values.shape[1] == 0:
        raise InputError("function must return at least one output, got none")
    return DifferentiableMap(run, device, first.shape[1], values.shape[1], basis)


def _copied(function: Any) -> tuple[Callable[[Tensor], Any], torch.device]:
    """Return a float64 copy in eval mode of a module or of its bound method, and its device."""
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if not isinstance(owner, nn.Module):
        return function, torch.device("cpu")
    try:
        frozen = copy.deepcopy(owner).double().eval().requires_grad_(False)
    except Exception as error:
        raise InputError(
            f"{type(owner).__name__} must be copyable with copy.deepcopy, got: {error}; "
            "pass a function such as lambda z: module(z)"
        ) from error
    device = next((value.device for value in frozen.parameters()), torch.device("cpu"))
    return frozen if owner is function else getattr(frozen, function.__name__), device
