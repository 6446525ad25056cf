"""Exact projections onto ℓ2 and ℓ∞ balls and onto their intersections with a box.

All functions act on the last axis of tensors of any shape and dtype, and return new
tensors.  The ball is centred at 0 (a perturbation), the box is given relative to the
attacked input: ``lower ≤ 0 ≤ upper``, so that 0 always lies in the intersection.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from harmonicvae.exceptions import InputError

#: Norms that an attack can be constrained in.
NORMS = ("l2", "linf")

#: Lower and upper end of the pixel box, each a number or of shape (d,).
Box: TypeAlias = "tuple[Tensor, Tensor]"


def row_norm(delta: Tensor, norm: str) -> Tensor:
    """Norm of every row, without overflow or underflow of the squares.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
    norm : {"l2", "linf"}

    Returns
    -------
    Tensor of shape (..., 1)
        In the units and dtype of ``delta``.

    Examples
    --------
    >>> row_norm(torch.tensor([[3e-200, 4e-200]], dtype=torch.float64), "l2").item() / 1e-200
    5.0
    """
    largest = delta.abs().amax(dim=-1, keepdim=True)
    if norm == "linf":
        return largest
    tiny = torch.finfo(delta.dtype).tiny
    scaled = torch.linalg.vector_norm(delta / largest.clamp_min(tiny), dim=-1, keepdim=True)
    return scaled * largest


def _shrink(delta: Tensor) -> float:
    """Factor just below 1 that absorbs every rounding error of a float64 norm of d terms."""
    if delta.dtype != torch.float64:
        return 1.0
    return 1.0 - (delta.shape[-1] + 8) * torch.finfo(torch.float64).eps


def project_l2(delta: Tensor, radius: float) -> Tensor:
    """Nearest point of the ℓ2 ball, for every row.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
        Points to project.
    radius : float
        Radius of the ball, in input units, ≥ 0.

    Returns
    -------
    Tensor of shape (..., d)

    Notes
    -----
    In float64 the radius is reduced by the relative amount (d + 8)·2⁻⁵², so that the
    norm of the result is ≤ ``radius`` in whatever order its squares are summed.  In
    lower precision it may exceed the radius by rounding.  Cost O(d) a row.

    Examples
    --------
    >>> project_l2(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    size = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
    if not bool(torch.isfinite(size).all()) or radius < 1e-12:
        size = row_norm(delta, "l2")
    return delta * (radius * _shrink(delta) / size).clamp(max=1.0).nan_to_num(nan=1.0)


def project_linf(delta: Tensor, radius: float) -> Tensor:
    """Nearest point of the ℓ∞ ball, for every row.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
        Points to project.
    radius : float
        Radius of the ball, in input units, ≥ 0.

    Returns
    -------
    Tensor of shape (..., d)
        Cost O(d) a row.

    Examples
    --------
    >>> project_linf(torch.tensor([3.0, -0.5]), 1.0)
    tensor([ 1.0000, -0.5000])
    """
    return delta.clamp(-radius, radius)


def project_linf_box(delta: Tensor, radius: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Nearest point of the intersection of the ℓ∞ ball and a box, for every row.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
        Points to project.
    radius : float
        Radius of the ball, in input units, ≥ 0.
    lower, upper : Tensor broadcastable to (..., d)
        Ends of the box, ``lower ≤ 0 ≤ upper``; infinite ends are allowed.

    Returns
    -------
    Tensor of shape (..., d)
        The two sets are boxes, so clipping to both is exact.  Cost O(d) a row.

    Raises
    ------
    InputError
        If 0 lies outside the box.

    Examples
    --------
    >>> project_linf_box(torch.tensor([3.0, -3.0]), 1.0, torch.tensor(-9.0), torch.tensor(0.5))
    tensor([ 0.5000, -1.0000])
    """
    _check_box(lower, upper)
    return torch.minimum(torch.maximum(delta.clamp(-radius, radius), lower), upper)


def project_l2_box(delta: Tensor, radius: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Nearest point of the intersection of the ℓ2 ball and a box, for every row.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
        Points to project.
    radius : float
        Radius of the ball, in input units, ≥ 0.
    lower, upper : Tensor broadcastable to (..., d)
        Ends of the box, ``lower ≤ 0 ≤ upper``; infinite ends are allowed.

    Returns
    -------
    Tensor of shape (..., d)

    Raises
    ------
    InputError
        If 0 lies outside the box.

    Notes
    -----
    The Karush–Kuhn–Tucker conditions give y(s) = clip(s·δ, lower, upper) with one
    factor s ∈ [0, 1] a row, s = 1 if that lies in the ball and else ‖y(s)‖ = radius.
    In u = s² the squared norm Σ min(limit², u·δ²) is concave, increasing and piecewise
    linear, so Newton's method from u = radius²/‖δ‖² (where nothing is clipped: too
    small) increases monotonically and ends at the root after finitely many steps, when
    the set of clipped coordinates no longer grows.  Exact up to rounding; in float64
    never outside the ball (see :func:`project_l2`).  Cost O(d) a row and step, usually
    2 to 8 steps, at most d.

    Examples
    --------
    The first coordinate stops at the box; the second takes what the ball leaves.

    >>> free = torch.tensor(9.0)
    >>> project_l2_box(torch.tensor([4.0, 3.0]), 1.0, -free, torch.tensor([0.6, 9.0]))
    tensor([0.6000, 0.8000])
    """
    _check_box(lower, upper)
    clipped = torch.minimum(torch.maximum(delta, lower), upper)
    limit = row_norm(clipped, "l2")
    outside = (limit > radius * _shrink(delta)).squeeze(-1)
    if not bool(outside.any()):
        return clipped
    reach = torch.where(delta > 0, upper, -lower)[outside]
    clipped[outside] = _shrunk(delta[outside], radius * _shrink(delta), reach)
    return clipped


def _check_box(lower: Tensor, upper: Tensor) -> None:
    """Refuse a box that does not hold 0."""
    if bool((lower > 0).any()) or bool((upper < 0).any()):
        raise InputError(
            "the box must hold 0 (lower <= 0 <= upper), got "
            f"lower up to {float(lower.max()):g} and upper down to {float(upper.min()):g}; "
            "give the box relative to the attacked input"
        )


def _shrunk(delta: Tensor, radius: float, reach: Tensor) -> Tensor:
    """Return sign(δ)·min(s·|δ|, reach) of norm ``radius``; rows whose s is below 1 only."""
    largest = delta.abs().amax(dim=-1, keepdim=True)
    size, bound = delta.abs() / largest, reach / largest
    square, cap = size * size, bound * bound
    goal = (radius / largest) ** 2
    factor = goal / square.sum(dim=-1, keepdim=True)
    count = torch.full_like(factor, -1.0)
    for _ in range(delta.shape[-1] + 1):
        fixed = cap <= factor * square
        now = fixed.sum(dim=-1, keepdim=True)
        if bool((now == count).all()):
            break
        count = now.to(factor.dtype)
        taken = torch.where(fixed, cap, 0.0).sum(dim=-1, keepdim=True)
        free = torch.where(fixed, 0.0, square).sum(dim=-1, keepdim=True)
        root = ((goal - taken) / free).nan_to_num(nan=1.0, posinf=1.0, neginf=0.0)
        factor = torch.maximum(factor, root).clamp(max=1.0)
    return torch.minimum(factor.sqrt() * delta.abs(), reach).copysign(delta)


def project(delta: Tensor, radius: float, norm: str, limits: Box | None = None) -> Tensor:
    """Nearest point of the ball, or of ball ∩ box, for every row.

    Parameters
    ----------
    delta : Tensor of shape (..., d)
        Points to project.
    radius : float
        Radius of the ball, in input units, ≥ 0.
    norm : {"l2", "linf"}
        Norm of the ball.
    limits : (Tensor, Tensor) or None
        Lower and upper end of the box relative to the attacked input; None is no box.

    Returns
    -------
    Tensor of shape (..., d)

    Raises
    ------
    InputError
        If the norm is unknown or 0 lies outside the box.

    Examples
    --------
    >>> project(torch.tensor([3.0, 4.0]), 1.0, "l2")
    tensor([0.6000, 0.8000])
    """
    if norm not in NORMS:
        raise InputError(f"norm must be one of {NORMS}, got {norm!r}")
    if limits is None:
        return project_l2(delta, radius) if norm == "l2" else project_linf(delta, radius)
    inside = project_l2_box if norm == "l2" else project_linf_box
    return inside(delta, radius, *limits)


def make_feasible(
    delta: Tensor, x: Tensor, radius: float, norm: str, box: Box | None = None
) -> Tensor:
    """Project in float64 so that no rounding leaves the ball, nor x + δ the box.

    Parameters
    ----------
    delta : float64 Tensor of shape (..., d)
        Perturbations; rows that are not finite become 0.
    x : float64 Tensor broadcastable to (..., d)
        Attacked inputs, inside the box.
    radius : float
        Radius of the ball, in input units, ≥ 0.
    norm : {"l2", "linf"}
        Norm of the ball.
    box : (Tensor, Tensor) or None
        Lower and upper end of the pixel box, in input units.

    Returns
    -------
    float64 Tensor of shape (..., d)
        ‖δ‖ ≤ radius and box[0] ≤ x + δ ≤ box[1], as computed in float64.

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> make_feasible(5 * one, 0.25 * one, 2.0, "l2", (0 * one, one))
    tensor([0.7500], dtype=torch.float64)
    """
    finite = torch.isfinite(delta).all(dim=-1, keepdim=True)
    delta = torch.where(finite, delta, torch.zeros_like(delta))
    limits = None if box is None else (box[0] - x, box[1] - x)
    delta = project(delta, radius, norm, limits)
    if box is not None:
        delta = _inside_box(delta, x, box)
    return torch.where(row_norm(delta, norm) <= radius, delta, 0.0)


def _inside_box(delta: Tensor, x: Tensor, box: Box) -> Tensor:
    """Move coordinates toward 0 until x + δ, rounded to float64, lies in the box."""
    for _ in range(2):
        over, under = x + delta > box[1], x + delta < box[0]
        toward = torch.nextafter(delta, torch.zeros_like(delta))
        delta = torch.where(over | under, toward, delta)
    over, under = x + delta > box[1], x + delta < box[0]
    return torch.where(over | under, 0.0, delta)
