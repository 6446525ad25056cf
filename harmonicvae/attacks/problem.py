"""The search problem an attack is given: values, gradients, Jacobian products, projection.

Everything is batched as (images, restarts, coordinates), in the dtype and on the device
of the attacked pair, and evaluated in blocks of at most ``max_batch`` rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonicvae.attacks.frozen import Responder
from harmonicvae.attacks.objectives import Damage, Objective
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
        Relative rise of the value over the last tenth of the steps, where the method
        knows it: tells whether more steps would have helped.
    """

    perturbation: Tensor
    step: Tensor
    late_gain: Tensor | None = None


class Problem:
    """Maximise an objective F(δ) over ‖δ‖ ≤ radius, x + δ in the box.

    Parameters
    ----------
    respond : Responder
        Encoder p and decoder g.
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
    objective : Objective, default=Damage()
        F.
    images : int64 Tensor of shape (n,) or None, default=None
        Which of all attacked inputs ``x`` holds; None: the first n.

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
        objective: Objective | None = None,
        images: Tensor | None = None,
    ) -> None:
        self.respond = respond
        self.objective = objective or Damage()
        self.x = x
        self.radius = radius
        self.norm = norm
        self.limits = limits
        self.max_batch = max_batch
        self._counts = [0]
        self.largest_gradient = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        zero = torch.zeros_like(x)[:, None]
        with torch.no_grad():
            clean = [self._features(self._points(zero, *block)) for block in self._blocks(1)]
            numbers = torch.arange(len(x)) if images is None else images
            self.reference = self.objective.reference(torch.cat(clean), numbers)[:, None]

    @property
    def evaluations(self) -> int:
        """Gradient evaluations so far."""
        return self._counts[0]

    def parts(self, restarts: int) -> Iterator[Problem]:
        """Yield the problems of a few inputs each, so that their restarts fill one evaluation.

        What they count and see of gradients is counted here too.
        """
        count = max(1, self.max_batch // restarts)
        for start in range(0, len(self.x), count):
            images = slice(start, start + count)
            part = copy.copy(self)
            part.x, part.reference = self.x[images], self.reference[images]
            part.largest_gradient = self.largest_gradient[images]
            part._generators = self._generators[images]
            if self.limits is not None:
                part.limits = (self.limits[0][images], self.limits[1][images])
            yield part

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

    def _features(self, points: Tensor) -> Tensor:
        """Return what the objective compares."""
        return self.objective.features(self.respond, points)

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest feasible perturbations of an (n, r, d) tensor."""
        return project(delta, self.radius, self.norm, self.limits)

    def farthest(self, direction: Tensor) -> Tensor:
        """Return the feasible perturbation with the largest product with ``direction``, nearly.

        Exact without a box; with one, coordinates 10⁶ times smaller than the norm of the
        direction may stop short of it. 0 stays 0.
        """
        if self.limits is None:
            return self.radius * self.steepest(direction)
        if self.norm == "linf":
            return self.project(self.radius * direction.sign())
        return self.project(1e6 * self.radius * self.steepest(direction))

    def tangent(self, delta: Tensor, gradient: Tensor) -> Tensor:
        """Return the part of a gradient along which a feasible ``delta`` can move.

        What points out of the box, or out of the ball on its sphere, is removed.
        """
        kept = gradient
        ends = self._ends()
        if ends is not None:
            low, high = ends
            near = 1e-6 * self.radius
            blocked = ((delta >= high - near) & (kept > 0)) | ((delta <= low + near) & (kept < 0))
            kept = torch.where(blocked, 0.0, kept)
            delta = torch.where(blocked, 0.0, delta)
        if self.norm == "linf":
            return kept
        size = delta.square().sum(dim=-1, keepdim=True)
        outward = (delta * kept).sum(dim=-1, keepdim=True)
        full = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
        return kept - delta * torch.where((outward > 0) & (full > 0), outward / size, 0.0)

    def _ends(self) -> Box | None:
        """Return the coordinates' limits, None for an ℓ2 ball without box."""
        if self.norm == "linf":
            ends = torch.full_like(self.x[:, None], self.radius)
            if self.limits is None:
                return -ends, ends
            return torch.maximum(-ends, self.limits[0]), torch.minimum(ends, self.limits[1])
        return self.limits

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

    def code_starts(self, count: int) -> Tensor:
        """Draw (n, count, d) perturbations that move the code in random directions.

        Random code directions, pulled back through the encoder at x and scaled to the radius:
        uniform directions of the input hardly move a code of few units. Counted as gradient
        evaluations.
        """
        with torch.no_grad():
            units = self.respond.code(self.x[:1])[0].numel()
        draws = [
            torch.randn(count, units, generator=source, dtype=torch.float64)
            for source in self._generators
        ]
        noise = torch.stack(draws).to(self.x)
        starts = torch.empty(len(self.x), count, self.x.shape[1]).to(self.x)
        for images, restarts in self._blocks(count):
            block = starts[images, restarts]
            points = self.x[images, None].expand_as(block).flatten(0, 1).requires_grad_()
            code = self.respond.code(points)
            pulled = _pull(code, points, noise[images, restarts].reshape(code.shape))
            starts[images, restarts] = pulled.view_as(block)
        self._counts[0] += len(self.x) * count
        starts = starts.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return self.radius * self.steepest(starts)

    def value(self, delta: Tensor) -> Tensor:
        """Return F(δ), shape (n, r), of an (n, r, d) tensor; −∞ where it is not finite."""
        value = delta.new_empty(delta.shape[:2])
        with torch.no_grad():
            for images, restarts in self._blocks(delta.shape[1]):
                features = self._features(self._points(delta, images, restarts))
                value[images, restarts] = self.objective.value(*self._pair(features, images))
        return _worst_where_not_finite(value)

    def value_and_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return F(δ), shape (n, r), and the gradient of its ascent, shape (n, r, d).

        The ascent is an increasing function of F with a gradient where F = 0: ½F² for the
        damage.  One forward and one backward pass over n·r rows; not finite values become −∞, not
        finite gradients 0.
        """
        value = delta.new_empty(delta.shape[:2])
        gradient = torch.empty_like(delta)
        for images, restarts in self._blocks(delta.shape[1]):
            points = self._points(delta, images, restarts).requires_grad_()
            output = self._features(points)
            features, reference = self._pair(output.detach(), images)
            value[images, restarts] = self.objective.value(features, reference)
            cotangent = self.objective.ascent(features, reference).flatten(0, 1)
            pulled = _pull(output, points, cotangent)
            gradient[images, restarts] = pulled.view_as(gradient[images, restarts])
        gradient = gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._count(gradient)
        return _worst_where_not_finite(value), gradient

    def push(self, direction: Tensor) -> Tensor:
        """Return J·v at δ = 0, shape (n, r, m), of an (n, r, d) tensor."""
        parts = []
        for images, restarts in self._blocks(direction.shape[1]):
            tangent = direction[images, restarts]
            points = self.x[images, None].expand_as(tangent).flatten(0, 1)
            product = _jvp(self._features, points, tangent.flatten(0, 1))
            parts.append(product.unflatten(0, tangent.shape[:2]))
        self._counts[0] += direction.shape[0] * direction.shape[1]
        return _join(parts, direction)

    def pull(self, cotangent: Tensor) -> Tensor:
        """Return Jᵀ·u at δ = 0, shape (n, r, d), of an (n, r, m) tensor."""
        shape = (*cotangent.shape[:2], self.x.shape[1])
        result = cotangent.new_empty(shape)
        for images, restarts in self._blocks(cotangent.shape[1]):
            block = result[images, restarts]
            points = self.x[images, None].expand_as(block).flatten(0, 1).requires_grad_()
            output = self._features(points)
            pulled = _pull(output, points, cotangent[images, restarts].flatten(0, 1))
            result[images, restarts] = pulled.view_as(block)
        result = result.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._count(result)
        return result

    def _pair(self, features: Tensor, images: slice) -> tuple[Tensor, Tensor]:
        """Return features as (images, restarts, m), and what they are compared with."""
        reference = self.reference[images]
        shaped = features.view(len(reference), -1, features.shape[-1])
        return shaped, reference

    def _count(self, gradient: Tensor) -> None:
        """Add to the budget and to the largest gradient of each input."""
        self._counts[0] += gradient.shape[0] * gradient.shape[1]
        largest = torch.linalg.vector_norm(gradient, dim=-1).amax(dim=1)
        torch.maximum(self.largest_gradient, largest, out=self.largest_gradient)


def _worst_where_not_finite(value: Tensor) -> Tensor:
    """Return values with −∞ for NaN and infinities, so that they are never the best."""
    return torch.where(torch.isfinite(value), value, -torch.inf)


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


def _jvp(respond: Callable[[Tensor], Tensor], points: Tensor, tangent: Tensor) -> Tensor:
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
