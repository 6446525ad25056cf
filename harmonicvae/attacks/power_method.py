"""The generalised power method: linearise, go to the farthest feasible point, repeat."""

from __future__ import annotations

import torch
from torch import Tensor

from harmonicvae.attacks.multistart import MultiStart
from harmonicvae.attacks.paths import BestOnPaths
from harmonicvae.attacks.problem import Candidates, Problem


class PowerMethod(MultiStart):
    """Generalised power method: δ ← argmax ⟨∇F²(δ), δ′⟩ over the feasible δ′.

    Parameters
    ----------
    n_steps : int, default=50
        Steps from each start, ≥ 1.
    n_restarts : int, default=10
        Starts for each input, ≥ 1.
    n_singular : int, default=3
        Of these, up to 2·``n_singular`` start at ± the leading singular vectors, ≥ 0.
    n_power : int, default=10
        Krylov blocks for the singular vectors, ≥ 1.
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1.

    Notes
    -----
    Without step size. For linear g∘p in the ℓ2 ball it is the power iteration for the top
    singular vector; where F² is convex it rises in every step; else the best point of the
    path is kept. Cost ``n_steps`` gradient evaluations a start, and the singular vectors.

    References
    ----------
    Journée et al., "Generalized Power Method for Sparse Principal Component Analysis",
    JMLR 11 (2010).

    Examples
    --------
    >>> halves = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = halves.weight.copy_(torch.tensor([[0.0, 0.5], [0.25, 0.0]]))
    >>> same = torch.nn.Identity()
    >>> result = PowerMethod().attack(halves, same, torch.zeros(1, 2), 2.0, random_state=0)
    >>> round(result.damage.item(), 6)
    1.0
    """

    name = "power"

    def __init__(
        self,
        *,
        n_steps: int = 50,
        n_restarts: int = 10,
        n_singular: int = 3,
        n_power: int = 10,
        max_batch: int = 512,
    ) -> None:
        super().__init__(n_steps, n_restarts, n_singular, n_power, max_batch)

    def _perturb(self, problem: Problem) -> Candidates:
        return power_steps(problem, self._starts(problem), self.n_steps).candidates()


def power_steps(problem: Problem, starts: Tensor, n_steps: int) -> BestOnPaths:
    """Run the generalised power method from feasible starting points.

    Parameters
    ----------
    problem : Problem
    starts : Tensor of shape (n, r, d)
        Feasible perturbations.
    n_steps : int
        Steps, ≥ 1.

    Returns
    -------
    BestOnPaths
        The best point of every path.
    """
    now = starts
    value, gradient = problem.value_and_gradient(now)
    best = BestOnPaths(now, value, n_steps)
    for step in range(1, n_steps + 1):
        still = (gradient == 0).all(dim=-1, keepdim=True)
        now = torch.where(still, now, problem.farthest(gradient))
        if step == n_steps:
            value = problem.value(now)
        else:
            value, gradient = problem.value_and_gradient(now)
        best.observe(step, now, value)
    return best
