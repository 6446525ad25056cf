"""The best of several attacks: wide search, power method, and refinement of what they find."""

from __future__ import annotations

import torch
from torch import Tensor

from harmonicvae.attacks.apgd import climb
from harmonicvae.attacks.inputs import check_integer
from harmonicvae.attacks.lbfgs import refine
from harmonicvae.attacks.multistart import MultiStart
from harmonicvae.attacks.power_method import power_steps
from harmonicvae.attacks.problem import Candidates, Problem
from harmonicvae.attacks.starts import mixed_starts

#: First step of the refinement, in radii.
_SMALL_STEP = 0.05
#: Steps of L-BFGS from the single best point, and the curvature pairs it keeps.
_LAST_STEPS, _LAST_MEMORY = 60, 20
#: Starts that the power method is tried from, and its steps.
_POWER_STARTS, _POWER_STEPS = 4, 10


class Portfolio(MultiStart):
    """Maximum over a portfolio of attacks for each input; the default.

    Starts are ± the linearised attack, random noise, and perturbations that move the code in
    random directions; the generalised power method runs from the first of them, a short
    auto-PGD from all, and L-BFGS refines the best.

    Parameters
    ----------
    n_restarts : int, default=192
        Starts for each input, ≥ 1.
    n_steps : int, default=12
        Steps of auto-PGD from each start, ≥ 1.
    n_refined : int, default=12
        Best points that are refined, ≥ 1.
    n_refinements : int, default=30
        Steps of L-BFGS from each of these, ≥ 1.
    n_singular : int, default=3
        Up to 2·``n_singular`` starts are ± the leading singular vectors, ≥ 0.
    n_power : int, default=15
        Krylov blocks for the singular vectors, ≥ 1.
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1.

    Notes
    -----
    What decides is how many regions are searched, not how long: most of the steps of a long
    search from one start are lost on a local maximum. Cost by default about 2,950 gradient
    evaluations an input; ``best_restart`` is 0 for the point refined
    last, else one more than the rank among those refined before.

    Examples
    --------
    >>> same = torch.nn.Identity()
    >>> result = Portfolio().attack(same, same, torch.zeros(1, 3), 3.0, random_state=0)
    >>> round(result.damage.item(), 6)
    3.0
    """

    name = "best"

    def __init__(
        self,
        *,
        n_restarts: int = 192,
        n_steps: int = 12,
        n_refined: int = 12,
        n_refinements: int = 30,
        n_singular: int = 3,
        n_power: int = 15,
        max_batch: int = 512,
    ) -> None:
        super().__init__(n_steps, n_restarts, n_singular, n_power, max_batch)
        self.n_refined = n_refined
        self.n_refinements = n_refinements

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return self.n_steps + self.n_refinements + _LAST_STEPS

    @property
    def rows(self) -> int:
        """Points refined at once for each input; the wide search divides the inputs further."""
        return min(self.n_refined, self.n_restarts + _POWER_STARTS)

    def _check_options(self) -> None:
        super()._check_options()
        check_integer("n_refined", self.n_refined, 1)
        check_integer("n_refinements", self.n_refinements, 1)

    def _perturb(self, problem: Problem) -> Candidates:
        parts = [self._wide(part) for part in problem.parts(self.n_restarts)]
        point, step = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        refined = refine(problem, point, self.n_refinements, first=_SMALL_STEP)
        reached = torch.where(refined.step > 0, self.n_steps + refined.step, step)
        winner = refined.value.argmax(dim=1, keepdim=True)
        start = refined.point.gather(1, winner[..., None].expand(-1, -1, point.shape[-1]))
        last = refine(problem, start, _LAST_STEPS, _LAST_MEMORY, first=_SMALL_STEP / 10)
        before = reached.gather(1, winner)
        end = torch.where(last.step > 0, self.n_steps + self.n_refinements + last.step, before)
        return Candidates(
            torch.cat([last.point, refined.point], dim=1),
            torch.cat([end, reached], dim=1),
            torch.cat([last.late_gain, refined.late_gain], dim=1),
        )

    def _wide(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Search widely; return the best points of every input and the steps that found them."""
        through = max(0, (self.n_restarts - 2 * self.n_singular) // 2)
        rest = self.n_restarts - through
        starts = mixed_starts(problem, rest, self.n_singular, self.n_power)
        if through:
            moved = problem.project(problem.code_starts(through))
            starts = torch.cat([starts, moved], dim=1)
        power = power_steps(problem, starts[:, :_POWER_STARTS], _POWER_STEPS)
        wide = climb(problem, starts, self.n_steps)
        value = torch.cat([power.value, wide.value], dim=1)
        point = torch.cat([power.point, wide.point], dim=1)
        order = value.argsort(dim=1, descending=True, stable=True)[:, : self.n_refined]
        chosen = point.gather(1, order[..., None].expand(-1, -1, point.shape[-1]))
        return chosen, torch.cat([power.step, wide.step], dim=1).gather(1, order)
