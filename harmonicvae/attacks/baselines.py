"""Attacks to compare with: random noise, the floor, and the linearised attack."""

from __future__ import annotations

import torch

from harmonicvae.attacks.base import Attack
from harmonicvae.attacks.inputs import check_integer
from harmonicvae.attacks.problem import Candidates, Problem
from harmonicvae.attacks.singular import top_singular_vectors


class RandomNoise(Attack):
    """Best of some random perturbations on the sphere: what an attack must exceed.

    Parameters
    ----------
    n_restarts : int, default=10
        Draws for each input, ≥ 1.
    max_batch : int, default=512
        Most inputs × draws that are handled at once, ≥ 1.

    Notes
    -----
    ℓ2: uniform on the sphere of the given radius; ℓ∞: uniform over its corners.  Then
    projected onto ball ∩ box.  No gradients are used; cost ``n_restarts`` forward passes.

    Examples
    --------
    >>> same = torch.nn.Identity()
    >>> result = RandomNoise().attack(same, same, torch.zeros(1, 5), 3.0, random_state=0)
    >>> round(result.damage.item(), 6), result.gradient_evaluations
    (3.0, 0)
    """

    name = "random"

    def __init__(self, *, n_restarts: int = 10, max_batch: int = 512) -> None:
        super().__init__(max_batch=max_batch)
        self.n_restarts = n_restarts

    @property
    def restarts(self) -> int:
        """Draws for each input."""
        return self.n_restarts

    def _check_options(self) -> None:
        super()._check_options()
        check_integer("n_restarts", self.n_restarts, 1)

    def _perturb(self, problem: Problem) -> Candidates:
        draws = problem.project(problem.random_starts(self.n_restarts))
        return Candidates(draws, torch.zeros(draws.shape[:2], dtype=torch.int64))


class LinearisedAttack(Attack):
    """The better of ± radius times the top singular vector of the Jacobian at x.

    Parameters
    ----------
    n_power : int, default=15
        Krylov blocks, ≥ 1.
    max_batch : int, default=512
        Most rows that are evaluated at once, ≥ 1.

    Notes
    -----
    Optimal for linear g∘p with ℓ2 and no box, and for any smooth g∘p in the limit of
    small radii.  For ℓ∞ the signs of the vector are used, which is a heuristic even for
    linear maps.  Cost 3·(2·``n_power`` − 1) Jacobian products an input.

    Examples
    --------
    >>> sheared = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = sheared.weight.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    >>> same = torch.nn.Identity()
    >>> result = LinearisedAttack().attack(sheared, same, torch.zeros(1, 2), 3.0, random_state=0)
    >>> round(result.damage.item(), 6)
    6.0
    """

    name = "linear"

    def __init__(self, *, n_power: int = 15, max_batch: int = 512) -> None:
        super().__init__(max_batch=max_batch)
        self.n_power = n_power

    @property
    def restarts(self) -> int:
        """One for each sign."""
        return 2

    def _check_options(self) -> None:
        super()._check_options()
        check_integer("n_power", self.n_power, 1)

    def _perturb(self, problem: Problem) -> Candidates:
        vectors, _ = top_singular_vectors(problem, 3, self.n_power)
        towards = problem.radius * problem.steepest(vectors[:, :1])
        both = problem.project(torch.cat([towards, -towards], dim=1))
        return Candidates(both, torch.zeros(both.shape[:2], dtype=torch.int64))
