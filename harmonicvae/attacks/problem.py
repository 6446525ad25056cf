"""The search problem an attack is given: damage, gradients, Jacobian products, projection.

Everything is batched as (images, restarts, coordinates), in the dtype and on the device
of the attacked pair, and evaluated in blocks of at most ``max_batch`` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonicvae.attacks.frozen import Responder
from harmonicvae.attacks.projections import Box, project


@dataclass(frozen=True)
class Candidates:
    """What a method hands back: perturbations, which the base class will judge.

    Parameters
    ----------
    perturbation : Tensor of shape (n, r, d)
        r proposals for each of n inputs.
    step : int64 Tensor of shape (n, r)
        Step at which each was found; 0 is the start.
    late_gain : Tensor of shape (n, r) or None
        Relative rise of the damage over the last tenth of the steps, where the method
        knows it: tells whether more steps would have helped.
    """

    perturbation: Tensor
    step: Tensor
    late_gain: Tensor | None = None


class Problem:
    """Maximise F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂ over ‖δ‖ ≤ radius, x + δ in the box.

    Parameters
    ----------
    respond : Responder
        g∘p.
    x : Tensor of shape (n, d)
        Attacked inputs, in the dtype and on the device of ``respond``.
    radius : float
        Radius of the ball, in input units, > 0.
    norm : {"l2", "linf"}
        Norm of the ball.
    limits : (Tensor, Tensor) or None
        Box relative to ``x``, each of shape (n, 1, d).
    max_batch : int
        Most rows in one evaluation.
    seeds : sequence of int
        One seed for each input; an input's draws do not depend on the other inputs.

    Attributes
    ----------
    evaluations : int
        Gradient evaluations so far, in rows; a Jacobian product counts as one.
    largest_gradient : Tensor of shape (n,)
        Largest gradient norm seen for each input.
    """

    def __init__(
        self,
        respond: Responder,
        x: Tensor,
        radius: float,
        *,
        norm: str = "l2",
        limits: Box | None = None,
        max_batch: int = 512,
        seeds: Sequence[int] = (),
    ) -> None:
        self.respond = respond
        self.x = x
        self.radius = radius
        self.norm = norm
        self.limits = limits
        self.max_batch = max_batch
        self.evaluations = 0
        self.largest_gradient = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        zero = torch.zeros_like(x)[:, None]
        with torch.no_grad():
            self.reference = torch.cat(
                [respond(self._points(zero, *block)) for block in self._blocks(1)]
            )[:, None]

    def _blocks(self, restarts: int) -> Iterator[tuple[slice, slice]]:
        """Yield slices over images and restarts of at most ``max_batch`` rows."""
        images = max(1, self.max_batch // restarts)
        width = min(restarts, self.max_batch)
        for start in range(0, len(self.x), images):
            for first in range(0, restarts, width):
                yield slice(start, start + images), slice(first, first + width)

    def _points(self, delta: Tensor, images: slice, restarts: slice) -> Tensor:
        """Return x + δ of one block as rows."""
        return (self.x[images, None] + delta[images, restarts]).flatten(0, 1)

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest feasible perturbations of an (n, r, d) tensor."""
        return project(delta, self.radius, self.norm, self.limits)

    def steepest(self, direction: Tensor) -> Tensor:
        """Return the unit-norm perturbation with the largest product with ``direction``.

        For ℓ2 the normalised direction, for ℓ∞ its signs; 0 stays 0.
        """
        if self.norm == "linf":
            return direction.sign()
        size = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        return direction / size.clamp_min(torch.finfo(direction.dtype).tiny)

    def normal(self, count: int) -> Tensor:
        """Draw (n, count, d) standard normal numbers, each input from its own generator."""
        draws = [
            torch.randn(count, self.x.shape[1], generator=source, dtype=torch.float64)
            for source in self._generators
        ]
        return torch.stack(draws).to(self.x)

    def random_starts(self, count: int) -> Tensor:
        """Draw (n, count, d) perturbations on the sphere of the ball, before projection.

        ℓ2: uniform.  ℓ∞: signs of normal numbers, that is, uniform over the corners.
        """
        return self.radius * self.steepest(self.normal(count))

    def damage(self, delta: Tensor) -> Tensor:
        """Return F(δ), shape (n, r), of an (n, r, d) tensor; 0 where it is not finite."""
        value = delta.new_empty(delta.shape[:2])
        with torch.no_grad():
            for images, restarts in self._blocks(delta.shape[1]):
                change = self._change(self.respond(self._points(delta, images, restarts)), images)
                value[images, restarts] = torch.linalg.vector_norm(change, dim=-1)
        return value.nan_to_num(nan=0.0, posinf=0.0)

    def damage_and_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return F(δ), shape (n, r), and the gradient of ½F², shape (n, r, d).

        The gradient of ½F² has the direction of F's and, unlike it, exists where F = 0.
        One forward and one backward pass over n·r rows; not finite values become 0.
        """
        value = delta.new_empty(delta.shape[:2])
        gradient = torch.empty_like(delta)
        for images, restarts in self._blocks(delta.shape[1]):
            points = self._points(delta, images, restarts).requires_grad_()
            output = self.respond(points)
            change = self._change(output.detach(), images)
            value[images, restarts] = torch.linalg.vector_norm(change, dim=-1)
            gradient[images, restarts] = _pull(output, points, change.flatten(0, 1)).view_as(
                gradient[images, restarts]
            )
        gradient = gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._count(gradient)
        return value.nan_to_num(nan=0.0, posinf=0.0), gradient

    def push(self, direction: Tensor) -> Tensor:
        """Return J·v at δ = 0, shape (n, r, m), of an (n, r, d) tensor."""
        parts = []
        for images, restarts in self._blocks(direction.shape[1]):
            tangent = direction[images, restarts]
            points = self.x[images, None].expand_as(tangent).flatten(0, 1)
            product = _jvp(self.respond, points, tangent.flatten(0, 1))
            parts.append(product.unflatten(0, tangent.shape[:2]))
        self.evaluations += direction.shape[0] * direction.shape[1]
        return _join(parts, direction)

    def pull(self, cotangent: Tensor) -> Tensor:
        """Return Jᵀ·u at δ = 0, shape (n, r, d), of an (n, r, m) tensor."""
        shape = (*cotangent.shape[:2], self.x.shape[1])
        result = cotangent.new_empty(shape)
        for images, restarts in self._blocks(cotangent.shape[1]):
            block = result[images, restarts]
            points = self.x[images, None].expand_as(block).flatten(0, 1).requires_grad_()
            output = self.respond(points)
            pulled = _pull(output, points, cotangent[images, restarts].flatten(0, 1))
            result[images, restarts] = pulled.view_as(block)
        result = result.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._count(result)
        return result

    def _change(self, output: Tensor, images: slice) -> Tensor:
        """Return response minus reference as (images, restarts, outputs)."""
        reference = self.reference[images]
        return output.view(len(reference), -1, output.shape[-1]) - reference

    def _count(self, gradient: Tensor) -> None:
        """Add to the budget and to the largest gradient of each input."""
        self.evaluations += gradient.shape[0] * gradient.shape[1]
        largest = torch.linalg.vector_norm(gradient, dim=-1).amax(dim=1)
        self.largest_gradient = torch.maximum(self.largest_gradient, largest)


def _join(parts: list[Tensor], like: Tensor) -> Tensor:
    """Put the blocks of :meth:`Problem.push` together as (n, r, m)."""
    if parts[0].shape[1] == like.shape[1]:
        return torch.cat(parts)
    each = -(-like.shape[1] // parts[0].shape[1])
    rows = [torch.cat(parts[at : at + each], dim=1) for at in range(0, len(parts), each)]
    return torch.cat(rows)


def _pull(output: Tensor, points: Tensor, cotangent: Tensor) -> Tensor:
    """Return Jᵀ·u by one backward pass; 0 where the output does not depend on the input."""
    if not output.requires_grad:
        return torch.zeros_like(points)
    (result,) = torch.autograd.grad(output, points, cotangent, allow_unused=True)
    return torch.zeros_like(points) if result is None else result


def _jvp(respond: Responder, points: Tensor, tangent: Tensor) -> Tensor:
    """Return J·v by forward differentiation, or by two backward passes where it is missing."""
    try:
        return torch.func.jvp(respond, (points,), (tangent,))[1].detach()
    except (NotImplementedError, RuntimeError):
        leaf = points.detach().requires_grad_()
        output = respond(leaf)
    if not output.requires_grad:
        return torch.zeros_like(output)
    dummy = torch.zeros_like(output, requires_grad=True)
    (pulled,) = torch.autograd.grad(output, leaf, dummy, create_graph=True, allow_unused=True)
    if pulled is None:
        return torch.zeros_like(output)
    (pushed,) = torch.autograd.grad(pulled, dummy, tangent)
    return pushed
