"""A primal-dual interior-point method for LipSDP that never forms a constraint matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.sdp.block_tridiagonal import BlockFactor, factorise
from harmonicvae.lipschitz.sdp.neuron_problem import NeuronProblem, dual_start, primal_start
from harmonicvae.lipschitz.sdp.operators import BlockMatrix, Conjugated, NeuronOperators
from harmonicvae.lipschitz.sdp.step_lengths import longest_step

#: ρ of the dual start over the smallest that its multipliers allow.
_SLACK = 1.5
#: The first steps go towards the central path only: without a predictor, at this fraction of μ.
_CENTRING_STEPS, _CENTRING = 2, 0.3
#: Called after every iteration with (iteration, bound, dual bound); True stops the solver.
Progress = Callable[[int, float, float], bool]


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found, in the problem's scale.

    Parameters
    ----------
    rho : float
        Smallest ρ for the multipliers found: an upper end, up to rounding.
    t : ndarray of shape (N,)
        Multipliers.
    lower : float
        Objective of the dual point: a lower end of the optimal ρ, up to rounding.
    iterations : int
    message : str
        Empty if the gap is closed.
    """

    rho: float
    t: np.ndarray
    lower: float
    iterations: int
    message: str

    @property
    def gap(self) -> float:
        """Relative duality gap of the bound √ρ, in [0, 1]."""
        return max(0.0, 1.0 - math.sqrt(max(self.lower, 0.0) / self.rho))


class StructuredSolver:
    """Solve LipSDP-Neuron or LipSDP-Layer of a whole network.

    Parameters
    ----------
    problem : NeuronProblem
        The scaled problem.
    per_layer : bool, default=False
        One multiplier a layer instead of one a neuron.
    gap : float, default=1e-6
        Relative duality gap of the bound √ρ at which to stop.
    max_iterations : int, default=100
        Iterations at most.
    device : str, default="cpu"
        Where torch computes, in float64.

    Notes
    -----
    Mehrotra's predictor-corrector method in the HKM direction. P is block-tridiagonal and
    every constraint matrix a_k b_kᵀ + b_k a_kᵀ has rank two, so that with S = P⁻¹ and the
    dual point X the Schur complement is a sum of four Hadamard products,
    M = (AᵀXA)∘(BᵀSB) + (AᵀXB)∘(BᵀSA) + (BᵀXA)∘(AᵀSB) + (BᵀXB)∘(AᵀSA).
    Both starts are strictly feasible and in closed form (:func:`primal_start`,
    :func:`dual_start`), so that every iterate gives a bound and a dual bound. An
    iteration costs about 4D³ + N³/3 + O(D²n) operations, D = n_0 + N, n the widest
    layer; memory about 25 matrices of D × D float64 numbers.

    References
    ----------
    M. Fazlyab et al., NeurIPS 2019. C. Helmberg et al., SIAM J. Optim. 6 (1996), 342–361.
    S. Mehrotra, SIAM J. Optim. 2 (1992), 575–601.
    """

    def __init__(
        self,
        problem: NeuronProblem,
        per_layer: bool = False,
        gap: float = 1e-6,
        max_iterations: int = 100,
        device: str = "cpu",
    ) -> None:
        self.problem = problem
        self.gap = gap
        self.max_iterations = max_iterations
        self._device = torch.device(device)
        self._ops = NeuronOperators(problem, per_layer, self._device)

    def solve(self, progress: Progress | None = None) -> Solution:
        """Run the method.

        Parameters
        ----------
        progress : callable or None
            See :data:`Progress`.

        Returns
        -------
        Solution
            The best point met; ``message`` says why the gap is not closed, if it is not.

        Raises
        ------
        SolverError
            If no strictly feasible start is found.
        """
        state = _State.start(self._ops)
        best: tuple[float, Tensor] = (math.inf, state.y)
        lower, message, iteration = -math.inf, "", 0
        for iteration in range(self.max_iterations + 1):
            if state.rho < best[0]:
                best = (state.rho, state.y)
            lower = max(lower, state.lower())
            if lower >= (1.0 - self.gap) ** 2 * best[0]:
                break
            if progress is not None and progress(iteration, best[0], lower):
                message = "stopped on request"
                break
            if iteration == self.max_iterations:
                message = f"stopped after {iteration} iterations"
                break
            following = state.step()
            if following is None:
                message = "stopped where rounding errors leave no further step"
                break
            state = following
        rho, y = best
        return Solution(
            rho, self._ops.multipliers(y).cpu().numpy(), max(lower, 0.0), iteration, message
        )


class _State:
    """One strictly feasible iterate."""

    def __init__(
        self,
        ops: NeuronOperators,
        y: Tensor,
        factor: BlockFactor,
        x: Tensor,
        root: Tensor,
        slack: Tensor,
        age: int = 0,
    ) -> None:
        self.ops = ops
        self.y = y
        self.factor = factor  # of P
        self.x = x  # dual matrix X
        self.root = root  # its Cholesky factor
        self.slack = slack  # dual numbers of the constraints t ≥ 0
        self.age = age  # steps made
        self.seen = Conjugated.of(ops, x, "X")

    @property
    def rho(self) -> float:
        """ρ."""
        return float(self.y[0])

    @classmethod
    def start(cls, ops: NeuronOperators) -> _State:
        """Return the strictly feasible start."""
        matrix = torch.as_tensor(primal_start(ops.problem, ops.signs), device=ops.device)
        rho, t = dual_start(ops.problem, ops.patterns, _SLACK)
        y = ops.variables(rho, t)
        factor = factorise(*ops.pencil(y))
        root, info = torch.linalg.cholesky_ex(matrix)
        if factor is None or int(info) != 0:
            raise SolverError("the start is not strictly feasible in float64")
        state = cls(ops, y, factor, matrix, root, torch.zeros_like(ops.signed))
        state.slack = torch.where(
            ops.signed > 0, torch.clamp(-state.constraints()[1:], min=1e-300), 0.0
        )
        return state

    def constraints(self) -> Tensor:
        """Return tr(A_k X) for every variable."""
        trace = torch.trace(self.x[: self.ops.first, : self.ops.first])
        return self.ops.gather(trace, 2.0 * torch.diagonal(self.seen.ab))

    def lower(self) -> float:
        """Return the objective of X, less what its rounding errors may have added."""
        last = self.ops.blocks[-1]
        objective = torch.sum(self.ops.output * self.x[last, last])
        residual = self.constraints()
        residual[1:] += self.slack
        missing = torch.sum(torch.abs(residual[1:] * self.y[1:]))
        return float((objective - missing) / residual[0])

    def step(self) -> _State | None:
        """Return the next iterate, or None if none is found."""
        ops = self.ops
        inverse = self.factor.inverse(ops.square("S"))
        other = Conjugated.of(ops, inverse, "S")
        gradient = ops.gather(
            torch.trace(inverse[: ops.first, : ops.first]), 2.0 * torch.diagonal(other.ab)
        )
        t = self.y[1:]
        gradient[1:] += ops.signed / t
        system = _Schur.of(self, other, inverse)
        if system is None:
            return None
        mu = self._complementarity()
        if self.age < _CENTRING_STEPS:
            target = _CENTRING * mu
            right = target * gradient - ops.objective
            return self._moved(self._direction(system, right, target, inverse, None))
        predictor = self._direction(system, -ops.objective, 0.0, inverse, None)
        steps = self._steps(predictor, accuracy=0.5)
        sigma = self._centring(predictor, steps, mu)
        columns = ops.columns(predictor.x, "ΔX")
        product = ops.times_step(predictor.x, columns, predictor.y, "ΔXΔP")
        correction = self._correction(predictor, product, other, inverse)
        right = sigma * mu * gradient - ops.objective - correction
        corrector = self._direction(system, right, sigma * mu, inverse, (product, predictor))
        return self._moved(corrector)

    def _complementarity(self) -> float:
        """Return μ = tr(XP) over the barrier's degree."""
        constraints = self.constraints() @ self.y
        last = self.ops.blocks[-1]
        product = constraints - torch.sum(self.ops.output * self.x[last, last])
        return float(product + self.slack @ self.y[1:]) / self.ops.degree

    def _direction(
        self,
        system: _Schur,
        right: Tensor,
        target: float,
        inverse: Tensor,
        second_order: tuple[Tensor, _Direction] | None,
    ) -> _Direction:
        """Solve for Δy and return it with ΔX."""
        ops = self.ops
        dy = system.solve(right)
        product = ops.times_step(self.x, self.seen.columns, dy, "XΔP")
        t = self.y[1:]
        slack = ops.signed * (target / t) - self.slack - self.slack / t * dy[1:]
        if second_order is not None:
            product += second_order[0]
            slack = slack - ops.signed * second_order[1].slack * second_order[1].y[1:] / t
        product = torch.mm(product, inverse, out=ops.square("XΔPS"))
        x = ops.square("ΔX" if second_order is None else "ΔX corrected")
        torch.add(product, product.T, out=x)
        x.mul_(-0.5).sub_(self.x).add_(inverse, alpha=target)
        return _Direction(dy, x, slack)

    def _correction(
        self, predictor: _Direction, product: Tensor, other: Conjugated, inverse: Tensor
    ) -> Tensor:
        """Return tr(A_k ΔX ΔP S) for every variable, ΔX ΔP the given product."""
        ops = self.ops
        with_alpha = product[ops.all_hidden]
        if not ops.plain:
            with_alpha = ops.rows(product, ops.alpha, "AΔXΔP")
        with_beta = ops.rows(product, ops.beta, "BΔXΔP")
        t = torch.sum(with_alpha * other.columns[1].T, dim=1)
        t += torch.sum(with_beta * other.columns[0].T, dim=1)
        rho = torch.sum(product[: ops.first] * inverse[: ops.first])
        correction = ops.gather(rho, t)
        correction[1:] += ops.signed * predictor.slack * predictor.y[1:] / self.y[1:]
        return correction

    def _steps(self, direction: _Direction, accuracy: float) -> tuple[float, float]:
        """Return how far X and P may move before they become singular."""
        ops, root = self.ops, self.root
        dense = longest_step(
            lambda v: torch.linalg.solve_triangular(
                root,
                direction.x @ torch.linalg.solve_triangular(root.T, v, upper=True),
                upper=False,
            ),
            ops.problem.size,
            ops.device,
            accuracy,
        )
        change = BlockMatrix(*ops.pencil(direction.y, output=False), ops.blocks)
        sparse = longest_step(
            lambda v: self.factor.solve(change @ self.factor.solve_transposed(v)),
            ops.problem.size,
            ops.device,
            accuracy,
        )
        return (
            min(dense, _ratio(self.slack, direction.slack, ops.signed)),
            min(sparse, _ratio(self.y[1:], direction.y[1:], ops.signed)),
        )

    def _centring(self, predictor: _Direction, steps: tuple[float, float], mu: float) -> float:
        """Return Mehrotra's centring parameter from the predictor's steps."""
        ops = self.ops
        dual, primal = (min(1.0, length) for length in steps)
        y = self.y + primal * predictor.y
        last = ops.blocks[-1]
        x = self.x[last, last] + dual * predictor.x[last, last]
        moved = self.constraints() + dual * (-self.constraints_of_step(predictor))
        product = moved @ y - torch.sum(ops.output * x)
        product = product + (self.slack + dual * predictor.slack) @ y[1:]
        ratio = max(float(product), 0.0) / ops.degree / mu
        sigma = min(1.0, max(ratio**2, 1e-6))
        return max(sigma, 0.3) if min(dual, primal) < 0.1 else sigma

    def constraints_of_step(self, direction: _Direction) -> Tensor:
        """Return −tr(A_k ΔX), which a Newton step knows: it leads to tr(A_k X) = c_k."""
        target = self.ops.objective.clone()
        target[1:] -= self.slack + direction.slack
        return self.constraints() - target

    def _moved(self, direction: _Direction) -> _State | None:
        """Return the iterate after a step each, shortened until it is strictly feasible."""
        ops = self.ops
        steps = self._steps(direction, accuracy=0.05)
        damping = 0.8 + 0.19 * min(1.0, *steps)
        dual, primal = (min(1.0, damping * length) for length in steps)
        following = "X odd" if self.x is not ops.square("X odd") else "X even"
        for _ in range(8):
            y = self.y + primal * direction.y
            factor = factorise(*ops.pencil(y))
            if factor is not None:
                break
            primal *= 0.7
        else:
            return None
        for _ in range(8):
            x = torch.add(self.x, direction.x, alpha=dual, out=ops.square(following))
            root, info = torch.linalg.cholesky_ex(x)
            if int(info) == 0:
                break
            dual *= 0.7
        else:
            return None
        slack = self.slack + dual * direction.slack
        return _State(ops, y, factor, x, root, slack, self.age + 1)


@dataclass(frozen=True, eq=False)
class _Direction:
    """A Newton direction: Δy, ΔX and the change of the numbers dual to t ≥ 0."""

    y: Tensor
    x: Tensor
    slack: Tensor


def _ratio(value: Tensor, change: Tensor, signed: Tensor) -> float:
    """Return how far positive numbers may move before one becomes 0."""
    falling = (signed > 0) & (change < 0)
    if not bool(torch.any(falling)):
        return math.inf
    return float(torch.min(-value[falling] / change[falling]))


@dataclass(frozen=True, eq=False)
class _Schur:
    """The factorised Schur complement, scaled to unit diagonal."""

    factor: Tensor
    scale: Tensor

    @classmethod
    def of(cls, state: _State, other: Conjugated, inverse: Tensor) -> _Schur | None:
        """Form and factorise M; None if it is not positive definite."""
        ops, seen = state.ops, state.seen
        count = len(ops.alpha)
        mixed = torch.mul(seen.ab, other.ab.T, out=ops.scratch("mixed", count, count))
        inner = torch.add(mixed, mixed.T, out=ops.scratch("inner", count, count))
        inner.addcmul_(seen.aa, other.bb).addcmul_(seen.bb, other.aa)
        first = slice(0, ops.first)
        edge = torch.sum(seen.columns[0][first] * other.columns[1][first], dim=0)
        edge += torch.sum(seen.columns[1][first] * other.columns[0][first], dim=0)
        column = ops.gather(torch.sum(state.x[first, first] * inverse[first, first]), edge)
        matrix = ops.scratch("Schur complement", len(column), len(column))
        matrix[0] = column
        matrix[:, 0] = column
        matrix[1:, 1:] = ops.gather_square(inner)
        diagonal = torch.diagonal(matrix)
        diagonal[1:] += state.slack / state.y[1:]
        scale = torch.rsqrt(diagonal)
        matrix.mul_(scale).mul_(scale[:, None])
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) != 0 or not bool(torch.all(torch.isfinite(scale))):
            return None
        return cls(factor, scale)

    def solve(self, right: Tensor) -> Tensor:
        """Return M⁻¹ r."""
        solved = torch.cholesky_solve((self.scale * right)[:, None], self.factor)
        return self.scale * solved[:, 0]
