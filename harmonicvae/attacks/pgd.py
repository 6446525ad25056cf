"""Projected gradient steps of constant length, the common baseline."""

from __future__ import annotations

from harmonicvae.attacks.inputs import check_number
from harmonicvae.attacks.multistart import MultiStart
from harmonicvae.attacks.paths import BestOnPaths
from harmonicvae.attacks.problem import Candidates, Problem


class PGD(MultiStart):
    """Projected gradient ascent with normalised gradients and steps of constant length.

    Parameters
    ----------
    n_steps : int, default=100
        Steps from each start, ≥ 1.
    n_restarts : int, default=10
        Random starts on the sphere for each input, ≥ 1.
    relative_step : float or None, default=None
        Length of a step in radii, > 0; None is 2.5/``n_steps``, as in the source.
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1.

    Notes
    -----
    The best point of every path is kept. Cost ``n_steps``·``n_restarts`` gradient
    evaluations an input.

    References
    ----------
    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
    arXiv 1706.06083.

    Examples
    --------
    >>> import torch
    >>> same = torch.nn.Identity()
    >>> result = PGD().attack(same, same, torch.zeros(1, 3), 3.0, random_state=0)
    >>> round(result.damage.item(), 6)
    3.0
    """

    name = "pgd"

    def __init__(
        self,
        *,
        n_steps: int = 100,
        n_restarts: int = 10,
        relative_step: float | None = None,
        max_batch: int = 512,
    ) -> None:
        super().__init__(n_steps, n_restarts, 0, 1, max_batch)
        self.relative_step = relative_step

    def _check_options(self) -> None:
        super()._check_options()
        if self.relative_step is not None:
            check_number("relative_step", self.relative_step, 1e-12)

    def _perturb(self, problem: Problem) -> Candidates:
        relative = 2.5 / self.n_steps if self.relative_step is None else self.relative_step
        now = self._starts(problem)
        value, gradient = problem.value_and_gradient(now)
        best = BestOnPaths(now, value, self.n_steps)
        for step in range(1, self.n_steps + 1):
            now = problem.project(now + relative * problem.radius * problem.steepest(gradient))
            value, gradient = problem.value_and_gradient(now)
            best.observe(step, now, value)
        return best.candidates()
