"""Auto-PGD from random points and singular vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonicvae.attacks.multistart import MultiStart
from harmonicvae.attacks.paths import BestOnPaths
from harmonicvae.attacks.problem import Candidates, Problem

#: Share of the new direction in a step; the rest is momentum (Croce & Hein, α).
_MOMENTUM = 0.75

#: Least share of rising steps between checkpoints (Croce & Hein, ρ).
_RISING = 0.75


class APGD(MultiStart):
    """Auto-PGD from random points and ± the top singular vectors of the Jacobian.

    Parameters
    ----------
    n_steps : int, default=100
        Gradient steps from each start, ≥ 1.
    n_restarts : int, default=10
        Starts for each input, ≥ 1.
    n_singular : int, default=3
        Of these, up to 2·``n_singular`` starts are ± the leading right singular vectors
        of the Jacobian of g∘p at x, ≥ 0; the rest is random on the sphere.
    n_power : int, default=10
        Krylov blocks for the singular vectors, ≥ 1.
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1.

    Notes
    -----
    The result is a lower bound on the largest value.  Only the direction of the objective's
    ascent is used.  Steps begin at 2·radius and are halved for each
    start alone, at the checkpoints of the source, when fewer than ¾ of the steps rose or
    neither step size nor best value changed; the search then restarts from the best
    point.  Cost: ``n_steps``·``n_restarts`` gradient evaluations an input, and
    ``n_singular``·(2·``n_power`` − 1) Jacobian products.

    Departure from the source: after a restart from the best point the momentum starts
    from zero.

    References
    ----------
    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020, arXiv 2003.01690, algorithm 1.

    Examples
    --------
    For a linear map the largest damage is radius times the largest singular value.

    >>> double = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = double.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> result = APGD().attack(double, torch.nn.Identity(), torch.zeros(1, 2), 3.0, random_state=0)
    >>> round(result.damage.item(), 6)
    6.0
    """

    name = "apgd"

    def __init__(
        self,
        *,
        n_steps: int = 100,
        n_restarts: int = 10,
        n_singular: int = 3,
        n_power: int = 10,
        max_batch: int = 512,
    ) -> None:
        super().__init__(n_steps, n_restarts, n_singular, n_power, max_batch)

    def _perturb(self, problem: Problem) -> Candidates:
        return climb(problem, self._starts(problem), self.n_steps).candidates()


def climb(problem: Problem, starts: Tensor, n_steps: int, size: float = 2.0) -> BestOnPaths:
    """Climb from feasible starting points by auto-PGD.

    Parameters
    ----------
    problem : Problem
    starts : Tensor of shape (n, r, d)
        Feasible perturbations.
    n_steps : int
        Gradient steps from each start, ≥ 1.
    size : float, default=2
        First step, in radii, > 0.

    Returns
    -------
    BestOnPaths
        The best point of every path.

    Notes
    -----
    Cost ``n_steps`` gradient evaluations a start.
    """
    path = _Climb(problem, starts, size, n_steps)
    marks = set(checkpoints(n_steps))
    for step in range(1, n_steps + 1):
        path.advance(first=step == 1)
        path.observe(step, last=step == n_steps)
        if step in marks:
            path.review(step)
    return path.best


def checkpoints(n_steps: int) -> list[int]:
    """Return the steps after which the step sizes are reviewed.

    Parameters
    ----------
    n_steps : int
        Number of steps, ≥ 1.

    Returns
    -------
    list of int
        ⌈p_j·n_steps⌉ with p_0 = 0, p_1 = 0.22 and intervals shrinking by 0.03 to 0.06.

    References
    ----------
    Croce & Hein, arXiv 2003.01690, equation 6 and the text below.

    Examples
    --------
    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    share, interval, marks = 0.22, 0.22, []
    while share < 1 - 1e-9:
        marks.append(math.ceil(share * n_steps - 1e-9))
        interval = max(interval - 0.03, 0.06)
        share += interval
    return [mark for mark in sorted(set(marks)) if mark < n_steps]


@dataclass
class _Review:
    """What was true at the last checkpoint, for each start."""

    step: int
    best_value: Tensor
    halved: Tensor


class _Climb:
    """State of auto-PGD for all inputs and starts at once."""

    def __init__(self, problem: Problem, start: Tensor, size: float, n_steps: int) -> None:
        self.problem = problem
        self.current, self.previous = start.clone(), start.clone()
        self.value, self.gradient = problem.value_and_gradient(start)
        self.best = BestOnPaths(start, self.value, n_steps)
        self.best_gradient = self.gradient.clone()
        self.rises = torch.zeros_like(self.value)
        self.size = torch.full_like(self.value, size * problem.radius)
        self.last = _Review(0, self.value.clone(), torch.zeros_like(self.value).bool())

    def advance(self, *, first: bool) -> None:
        """Take one projected step with momentum."""
        direction = self.problem.steepest(self.gradient)
        target = self.problem.project(self.current + self.size[..., None] * direction)
        if first:
            self.previous, self.current = self.current, target
            return
        rest = 1 - _MOMENTUM
        moved = target.mul_(_MOMENTUM).add_(self.current, alpha=2 * rest)
        moved = moved.sub_(self.previous, alpha=rest)
        self.previous, self.current = self.current, self.problem.project(moved)

    def observe(self, step: int, *, last: bool) -> None:
        """Evaluate the current points and keep the best of each start."""
        if last:
            value, gradient = self.problem.value(self.current), self.gradient
        else:
            value, gradient = self.problem.value_and_gradient(self.current)
        self.rises += value > self.value
        self.value, self.gradient = value, gradient
        better = self.best.observe(step, self.current, value)
        self.best_gradient[better] = gradient[better]

    def review(self, step: int) -> None:
        """Halve the step size of starts that no longer rise, and go back to their best."""
        stuck = self.rises < _RISING * (step - self.last.step)
        idle = ~self.last.halved & (self.best.value == self.last.best_value)
        halve = stuck | idle
        self.size[halve] /= 2
        self.current[halve] = self.best.point[halve]
        self.previous[halve] = self.best.point[halve]
        self.gradient[halve] = self.best_gradient[halve]
        self.value[halve] = self.best.value[halve]
        self.rises.zero_()
        self.last = _Review(step, self.best.value.clone(), halve)
