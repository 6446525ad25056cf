"""Attacks that run one search from several starting points of every input."""

from __future__ import annotations

from torch import Tensor

from harmonicvae.attacks.base import Attack
from harmonicvae.attacks.inputs import check_integer
from harmonicvae.attacks.problem import Problem
from harmonicvae.attacks.starts import mixed_starts


class MultiStart(Attack):
    """Base of attacks from singular vectors and random points; authors write :meth:`_perturb`.

    Parameters
    ----------
    n_steps : int
        Steps from each start, ≥ 1.
    n_restarts : int
        Starts for each input, ≥ 1.
    n_singular : int
        Of these, up to 2·``n_singular`` are ± the leading right singular vectors of the
        Jacobian at x, ≥ 0; the rest is random on the sphere.
    n_power : int
        Krylov blocks for the singular vectors, ≥ 1.
    max_batch : int
        Most inputs × restarts that are evaluated at once, ≥ 1.
    """

    def __init__(
        self, n_steps: int, n_restarts: int, n_singular: int, n_power: int, max_batch: int
    ) -> None:
        super().__init__(max_batch=max_batch)
        self.n_steps = n_steps
        self.n_restarts = n_restarts
        self.n_singular = n_singular
        self.n_power = n_power

    @property
    def restarts(self) -> int:
        """Starts for each input."""
        return self.n_restarts

    @property
    def steps(self) -> int:
        """Steps from each start."""
        return self.n_steps

    def _check_options(self) -> None:
        super()._check_options()
        check_integer("n_steps", self.n_steps, 1)
        check_integer("n_restarts", self.n_restarts, 1)
        check_integer("n_singular", self.n_singular, 0)
        check_integer("n_power", self.n_power, 1)

    def _starts(self, problem: Problem) -> Tensor:
        """Return the feasible starting perturbations, (n, n_restarts, d)."""
        return mixed_starts(problem, self.n_restarts, self.n_singular, self.n_power)
