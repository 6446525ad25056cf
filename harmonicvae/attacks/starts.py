"""Where searches begin: singular vectors of the Jacobian, the first gradient, random points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harmonicvae.attacks.problem import Problem
from harmonicvae.attacks.singular import top_singular_vectors


def mixed_starts(problem: Problem, count: int, n_singular: int, n_power: int) -> Tensor:
    """Compute feasible starting perturbations of every input.

    Parameters
    ----------
    problem : Problem
    count : int
        Starts for each input, ≥ 1.
    n_singular : int
        Of these, up to 2·``n_singular`` are ± radius times the leading right singular
        vectors of the Jacobian at x, ≥ 0; at most half of ``count``, rounded up.
    n_power : int
        Krylov blocks for the singular vectors, ≥ 1.

    Returns
    -------
    Tensor of shape (n, count, d)
        First the direction of the gradient at δ = 0 where the objective has one, then
        singular vectors, then random points on the sphere; all projected.

    Notes
    -----
    Cost ``n_singular``·(2·``n_power`` − 1) Jacobian products an input.
    """
    starts = []
    if not problem.objective.flat_at_zero:
        _, gradient = problem.value_and_gradient(torch.zeros_like(problem.x)[:, None])
        starts.append(problem.radius * problem.steepest(gradient))
    missing = count - len(starts)
    pairs = min(n_singular, math.ceil(missing / 2), problem.x.shape[1])
    if pairs:
        vectors, _ = top_singular_vectors(problem, pairs, n_power)
        towards = problem.radius * problem.steepest(vectors)
        starts.append(torch.stack([towards, -towards], dim=2).flatten(1, 2))
        missing -= 2 * pairs
    if missing > 0:
        starts.append(problem.random_starts(missing))
    return problem.project(torch.cat(starts, dim=1)[:, :count])
