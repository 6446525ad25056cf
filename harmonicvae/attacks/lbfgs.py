"""Projected L-BFGS, for all inputs and starts at once."""

from __future__ import annotations

import torch
from torch import Tensor

from harmonicvae.attacks.inputs import check_integer
from harmonicvae.attacks.multistart import MultiStart
from harmonicvae.attacks.paths import BestOnPaths
from harmonicvae.attacks.problem import Candidates, Problem

#: First step, in radii.
_FIRST_STEP = 0.5
#: A step that does not rise is shortened by this factor and tried again …
_SHORTER = 0.25
#: … this many times before the curvature is forgotten.
_PATIENCE = 4
#: Least cosine between a step and the change of the gradient that counts as curvature.
_CURVED = 1e-6


class LBFGS(MultiStart):
    """Limited-memory BFGS with steps projected onto ball ∩ box.

    Parameters
    ----------
    n_steps : int, default=60
        Gradient evaluations from each start, ≥ 1; a rejected step counts.
    n_restarts : int, default=10
        Starts for each input, ≥ 1.
    n_singular : int, default=3
        Of these, up to 2·``n_singular`` start at ± the leading singular vectors, ≥ 0.
    n_power : int, default=10
        Krylov blocks for the singular vectors, ≥ 1.
    memory : int, default=8
        Steps that the curvature is estimated from, ≥ 1.
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1.

    Notes
    -----
    Curvature pairs are differences of perturbations and of gradients without the part that
    points out of the feasible set, so that on the sphere they see its curvature too. A step
    is taken only if F rises; else it is shortened. Converges fast near a smooth maximum;
    it is the local refinement of :class:`harmonicvae.attacks.portfolio.Portfolio`. Memory
    2·``memory`` perturbations a start; cost ``n_steps`` gradient evaluations a start.

    References
    ----------
    J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980).

    Examples
    --------
    >>> same = torch.nn.Identity()
    >>> result = LBFGS().attack(same, same, torch.zeros(1, 3), 3.0, random_state=0)
    >>> round(result.damage.item(), 6)
    3.0
    """

    name = "lbfgs"

    def __init__(
        self,
        *,
        n_steps: int = 60,
        n_restarts: int = 10,
        n_singular: int = 3,
        n_power: int = 10,
        memory: int = 8,
        max_batch: int = 512,
    ) -> None:
        super().__init__(n_steps, n_restarts, n_singular, n_power, max_batch)
        self.memory = memory

    def _check_options(self) -> None:
        super()._check_options()
        check_integer("memory", self.memory, 1)

    def _perturb(self, problem: Problem) -> Candidates:
        return refine(problem, self._starts(problem), self.n_steps, self.memory).candidates()


def refine(
    problem: Problem, starts: Tensor, n_steps: int, memory: int = 8, first: float = _FIRST_STEP
) -> BestOnPaths:
    """Climb from feasible points by projected L-BFGS.

    Parameters
    ----------
    problem : Problem
    starts : Tensor of shape (n, r, d)
        Feasible perturbations.
    n_steps : int
        Gradient evaluations from each start, ≥ 1.
    memory : int, default=8
        Curvature pairs, ≥ 1.
    first : float, default=0.5
        First step, in radii, > 0.

    Returns
    -------
    BestOnPaths
        The best point of every path, which is its last.
    """
    now = starts
    value, gradient = problem.value_and_gradient(now)
    slope = problem.tangent(now, gradient)
    history = _History(memory)
    best = BestOnPaths(now, value, n_steps)
    failures = torch.zeros_like(best.step)
    longest = length = _first_length(problem, slope, first)
    direction = length * slope
    for step in range(1, n_steps + 1):
        scale = torch.where(failures > 0, _SHORTER ** failures.double(), 1.0).to(now)
        trial = problem.project(now + scale[..., None] * direction)
        reached, following = problem.value_and_gradient(trial)
        better = best.observe(step, trial, reached)
        pick = better[..., None]
        turned = torch.where(pick, problem.tangent(trial, following), slope)
        trial = torch.where(pick, trial, now)
        history.remember(trial - now, slope - turned)
        now, slope = trial, turned
        failures = torch.where(better, 0, failures + 1)
        lost = failures >= _PATIENCE
        history.forget(lost)
        failures = torch.where(lost, 0, failures)
        shortened = torch.where(lost[..., None], _SHORTER**_PATIENCE * length, length)
        # a rise takes a shortening back: else a few of them would end the path for good
        regained = torch.minimum(length / _SHORTER**_PATIENCE, longest)
        length = torch.where(pick, regained, shortened)
        newton = history.times(slope, length)
        direction = torch.where(pick | lost[..., None], newton, direction)
    return best


def _first_length(problem: Problem, slope: Tensor, first: float) -> Tensor:
    """Return the multiple of the gradient that is a first step."""
    if problem.norm == "linf":
        size = slope.abs().amax(dim=-1, keepdim=True)
    else:
        size = torch.linalg.vector_norm(slope, dim=-1, keepdim=True)
    return first * problem.radius / size.clamp_min(torch.finfo(slope.dtype).tiny)


class _History:
    """Curvature pairs of every path and the two-loop recursion."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._moves: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._weights: list[Tensor] = []  # 1 / ⟨move, change⟩, 0 for pairs that do not count

    def remember(self, move: Tensor, change: Tensor) -> None:
        """Add a pair to every path; pairs without positive curvature do not count."""
        inner = (move * change).sum(dim=-1, keepdim=True)
        sizes = torch.linalg.vector_norm(move, dim=-1, keepdim=True)
        sizes = sizes * torch.linalg.vector_norm(change, dim=-1, keepdim=True)
        curved = (inner > _CURVED * sizes) & (inner > torch.finfo(inner.dtype).tiny)
        self._moves.append(move)
        self._changes.append(change)
        self._weights.append(torch.where(curved, 1.0 / inner, 0.0))
        if len(self._moves) > self._memory:
            for kept in (self._moves, self._changes, self._weights):
                del kept[0]

    def forget(self, lost: Tensor) -> None:
        """Drop all pairs of the given paths."""
        self._weights = [torch.where(lost[..., None], 0.0, weight) for weight in self._weights]

    def times(self, slope: Tensor, length: Tensor) -> Tensor:
        """Return the quasi-Newton step; ``length`` times the slope where nothing is known."""
        step, factors = slope, []
        pairs = list(zip(self._moves, self._changes, self._weights))
        scale = length
        for _, change, weight in pairs:  # the newest pair that counts sets the scale
            square = change.square().sum(dim=-1, keepdim=True)
            own = 1.0 / (weight * square).clamp_min(torch.finfo(square.dtype).tiny)
            scale = torch.where(weight > 0, own, scale)
        for move, change, weight in reversed(pairs):
            factors.append(weight * (move * step).sum(dim=-1, keepdim=True))
            step = step - factors[-1] * change
        step = scale * step
        for (move, change, weight), factor in zip(pairs, reversed(factors)):
            step = step + (factor - weight * (change * step).sum(dim=-1, keepdim=True)) * move
        return step
