"""A primal-dual interior-point method for LipSDP that never forms a constraint matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.sdp.block_tridiagonal import BlockFactor, factorise
from harmonicvae.lipschitz.sdp.neuron_problem import NeuronProblem, dual_start, primal_start
from harmonicvae.lipschitz.sdp.step_lengths import longest_step

#: ρ of the dual start over the smallest that its multipliers allow.
_SLACK = 1.5
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
        Relative duality gap of ρ at which to stop.
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
    layer; memory about 14 matrices of D × D float64 numbers.

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
        self._ops = _Operators(problem, per_layer, self._device)

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
            if best[0] - lower <= self.gap * best[0]:
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
            rho, self._ops.spread(y)[1].cpu().numpy(), max(lower, 0.0), iteration, message
        )


class _Operators:
    """The linear maps of the problem, as torch operations on whole blocks."""

    def __init__(self, problem: NeuronProblem, per_layer: bool, device: torch.device) -> None:
        def tensor(array: Any) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)

        self.problem = problem
        self.weights = [tensor(weight) for weight in problem.weights]
        self.alpha = tensor(np.concatenate(problem.alphas))
        self.beta = tensor(np.concatenate(problem.betas))
        self.plain = not bool(torch.any(self.alpha != 0))
        self.output = tensor(problem.last.T @ problem.last)
        ends = np.concatenate([[0], np.cumsum(problem.dims)]).tolist()
        self.blocks = [slice(a, b) for a, b in zip(ends, ends[1:])]
        self.first = problem.dims[0]
        self.all_hidden = slice(self.first, ends[-1])
        self.layers = [slice(b.start - self.first, b.stop - self.first) for b in self.blocks[1:]]
        self.patterns = [
            scale**2 if per_layer else (0.5 * (high - low)) ** -2.0
            for scale, low, high in zip(problem.scales, problem.alphas, problem.betas)
        ]
        self.ratio = tensor(np.concatenate(self.patterns))
        self.groups = torch.arange(len(self.alpha), device=device)
        if per_layer:
            counts = torch.as_tensor([len(pattern) for pattern in self.patterns])
            self.groups = torch.repeat_interleave(torch.arange(len(counts)), counts).to(device)
        self.per_layer = per_layer
        self.n_groups = int(self.groups[-1]) + 1
        signs = np.zeros(len(self.alpha), dtype=bool)
        products = [low * high for low, high in zip(problem.alphas, problem.betas)]
        for layer, following in zip(self.layers, products[1:]):
            signs[layer] = bool(np.any(following))
        self.signs = signs
        flags = torch.zeros(self.n_groups, dtype=torch.float64, device=device)
        self.signed = flags.index_fill(0, self.groups[torch.as_tensor(signs).to(device)], 1.0)
        self.objective = torch.zeros(self.n_groups + 1, dtype=torch.float64, device=device)
        self.objective[0] = 1.0
        self.degree = problem.size + float(self.signed.sum())

    # --- between variables y = (ρ, one number a group) and neurons ---

    def spread(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ρ and the multiplier of every neuron."""
        return y[0], y[1:][self.groups] * self.ratio

    def gather(self, rho: Tensor, t: Tensor) -> Tensor:
        """Return the adjoint of :meth:`spread`."""
        weighted = t * self.ratio
        if self.per_layer:
            zero = torch.zeros(self.n_groups, dtype=t.dtype, device=t.device)
            weighted = zero.index_add(0, self.groups, weighted)
        return torch.cat([rho.reshape(1), weighted])

    # --- P and its derivatives ---

    def pencil(self, y: Tensor, output: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """Return the blocks of P(y), or of its linear part."""
        rho, t = self.spread(y)
        diagonal = [rho * torch.eye(self.first, dtype=t.dtype, device=t.device)]
        below = []
        for i, (weight, layer) in enumerate(zip(self.weights, self.layers)):
            own, low, high = t[layer], self.alpha[layer], self.beta[layer]
            below.append(-(own * (low + high))[:, None] * weight)
            if not self.plain:
                diagonal[i] = diagonal[i] + weight.T @ ((2.0 * own * low * high)[:, None] * weight)
            diagonal.append(torch.diag(2.0 * own))
        if output:
            diagonal[-1] = diagonal[-1] - self.output
        return diagonal, below

    def columns(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return MA and MB for a matrix M of ``size`` columns."""
        image = torch.empty(
            (len(matrix), len(self.alpha)), dtype=matrix.dtype, device=matrix.device
        )
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            torch.mm(matrix[:, before], weight.T, out=image[:, layer])
        hidden = matrix[:, self.all_hidden]
        with_alpha = hidden if self.plain else hidden - image * self.alpha
        return with_alpha, torch.addcmul(hidden, image, self.beta, value=-1.0)

    def rows(self, matrix: Tensor, slopes: Tensor) -> Tensor:
        """Return AᵀM or BᵀM for the slopes α or β."""
        image = torch.empty(
            (len(self.alpha), matrix.shape[1]), dtype=matrix.dtype, device=matrix.device
        )
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            torch.mm(weight, matrix[before], out=image[layer])
        return torch.addcmul(matrix[self.all_hidden], image, slopes[:, None], value=-1.0)

    def times_step(self, matrix: Tensor, columns: tuple[Tensor, Tensor], dy: Tensor) -> Tensor:
        """Return M ΔP for the step dy, from M and (MA, MB)."""
        rho, t = self.spread(dy)
        with_alpha, with_beta = columns[0] * t, columns[1] * t
        result = torch.zeros_like(matrix)
        result[:, : self.first] = rho * matrix[:, : self.first]
        result[:, self.all_hidden] += with_alpha + with_beta
        moved = with_alpha * self.beta
        if not self.plain:
            moved = moved + with_beta * self.alpha
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            result[:, before] -= moved[:, layer] @ weight
        return result


@dataclass(frozen=True, eq=False)
class _Conjugated:
    """A symmetric matrix M seen through A and B."""

    columns: tuple[Tensor, Tensor]
    aa: Tensor
    ab: Tensor
    bb: Tensor

    @classmethod
    def of(cls, ops: _Operators, matrix: Tensor) -> _Conjugated:
        """Compute AᵀMA, AᵀMB and BᵀMB."""
        with_alpha, with_beta = ops.columns(matrix)
        aa = with_alpha[ops.all_hidden] if ops.plain else ops.rows(with_alpha, ops.alpha)
        ab = with_beta[ops.all_hidden] if ops.plain else ops.rows(with_beta, ops.alpha)
        return cls((with_alpha, with_beta), aa, ab, ops.rows(with_beta, ops.beta))


class _State:
    """One strictly feasible iterate."""

    def __init__(
        self,
        ops: _Operators,
        y: Tensor,
        factor: BlockFactor,
        x: Tensor,
        root: Tensor,
        slack: Tensor,
    ) -> None:
        self.ops = ops
        self.y = y
        self.factor = factor  # of P
        self.x = x  # dual matrix X
        self.root = root  # its Cholesky factor
        self.slack = slack  # dual numbers of the constraints t ≥ 0
        self.seen = _Conjugated.of(ops, x)

    @property
    def rho(self) -> float:
        """ρ."""
        return float(self.y[0])

    @classmethod
    def start(cls, ops: _Operators) -> _State:
        """Return the strictly feasible start."""
        matrix = torch.as_tensor(primal_start(ops.problem, ops.signs), device=ops.alpha.device)
        rho, t = dual_start(ops.problem, ops.patterns, _SLACK)
        first = torch.as_tensor(t, device=ops.alpha.device) / ops.ratio
        groups = first
        if ops.per_layer:
            groups = torch.stack([first[layer.start] for layer in ops.layers])
        y = torch.cat([first.new_tensor([rho]), groups])
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
        ops, inverse = self.ops, self.factor.inverse()
        other = _Conjugated.of(ops, inverse)
        gradient = ops.gather(
            torch.trace(inverse[: ops.first, : ops.first]), 2.0 * torch.diagonal(other.ab)
        )
        t = self.y[1:]
        gradient[1:] += ops.signed / t
        system = _Schur.of(self, other, inverse)
        if system is None:
            return None
        mu = self._complementarity()
        predictor = self._direction(system, -ops.objective, 0.0, inverse, None)
        steps = self._steps(predictor)
        sigma = self._centring(predictor, steps, mu)
        product = ops.times_step(predictor.x, ops.columns(predictor.x), predictor.y)
        correction = self._correction(predictor, product, other, inverse)
        right = sigma * mu * gradient - ops.objective - correction
        corrector = self._direction(system, right, sigma * mu, inverse, (product, predictor))
        steps = self._steps(corrector)
        damping = 0.8 + 0.19 * min(1.0, *steps)
        return self._moved(corrector, [min(1.0, damping * length) for length in steps])

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
        product = ops.times_step(self.x, self.seen.columns, dy)
        t = self.y[1:]
        slack = ops.signed * (target / t) - self.slack - self.slack / t * dy[1:]
        if second_order is not None:
            product += second_order[0]
            slack = slack - ops.signed * second_order[1].slack * second_order[1].y[1:] / t
        product = product @ inverse
        x = target * inverse - self.x - 0.5 * (product + product.T)
        return _Direction(dy, x, slack)

    def _correction(
        self, predictor: _Direction, product: Tensor, other: _Conjugated, inverse: Tensor
    ) -> Tensor:
        """Return tr(A_k ΔX ΔP S) for every variable, ΔX ΔP the given product."""
        ops = self.ops
        before = product if ops.plain else None
        with_alpha = (
            product[ops.all_hidden] if before is not None else ops.rows(product, ops.alpha)
        )
        with_beta = ops.rows(product, ops.beta)
        t = torch.sum(with_alpha * other.columns[1].T, dim=1)
        t += torch.sum(with_beta * other.columns[0].T, dim=1)
        rho = torch.sum(product[: ops.first] * inverse[: ops.first])
        correction = ops.gather(rho, t)
        correction[1:] += ops.signed * predictor.slack * predictor.y[1:] / self.y[1:]
        return correction

    def _steps(self, direction: _Direction) -> tuple[float, float]:
        """Return how far X and P may move before they become singular."""
        ops, root = self.ops, self.root
        dense = longest_step(
            lambda v: torch.linalg.solve_triangular(
                root,
                direction.x @ torch.linalg.solve_triangular(root.T, v, upper=True),
                upper=False,
            ),
            ops.problem.size,
            ops.alpha.device,
        )
        change = _BlockMatrix(*ops.pencil(direction.y, output=False), ops.blocks)
        sparse = longest_step(
            lambda v: self.factor.solve(change @ self.factor.solve_transposed(v)),
            ops.problem.size,
            ops.alpha.device,
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

    def _moved(self, direction: _Direction, steps: list[float]) -> _State | None:
        """Return the iterate after the steps, shortened until it is strictly feasible."""
        dual, primal = steps
        for _ in range(8):
            y = self.y + primal * direction.y
            factor = factorise(*self.ops.pencil(y))
            if factor is not None:
                break
            primal *= 0.7
        else:
            return None
        for _ in range(8):
            x = self.x + dual * direction.x
            root, info = torch.linalg.cholesky_ex(x)
            if int(info) == 0:
                break
            dual *= 0.7
        else:
            return None
        return _State(self.ops, y, factor, x, root, self.slack + dual * direction.slack)


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
class _BlockMatrix:
    """A symmetric block-tridiagonal matrix that is multiplied with columns."""

    diagonal: list[Tensor]
    below: list[Tensor]
    blocks: list[slice]

    def __matmul__(self, vector: Tensor) -> Tensor:
        parts = [block @ vector[rows] for block, rows in zip(self.diagonal, self.blocks)]
        for i, link in enumerate(self.below):
            parts[i + 1] = parts[i + 1] + link @ vector[self.blocks[i]]
            parts[i] = parts[i] + link.T @ vector[self.blocks[i + 1]]
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class _Schur:
    """The factorised Schur complement, scaled to unit diagonal."""

    factor: Tensor
    scale: Tensor

    @classmethod
    def of(cls, state: _State, other: _Conjugated, inverse: Tensor) -> _Schur | None:
        """Form and factorise M; None if it is not positive definite."""
        ops, seen = state.ops, state.seen
        n = len(ops.alpha)
        mixed = seen.ab * other.ab.T
        inner = torch.addcmul(mixed + mixed.T, seen.aa, other.bb)
        inner.addcmul_(seen.bb, other.aa)
        first = slice(0, ops.first)
        edge = torch.sum(
            seen.columns[0][first] * other.columns[1][first]
            + seen.columns[1][first] * other.columns[0][first],
            dim=0,
        )
        corner = torch.sum(state.x[first, first] * inverse[first, first])
        inner *= ops.ratio * ops.ratio[:, None]
        edge = edge * ops.ratio
        if ops.per_layer:
            zero = inner.new_zeros(ops.n_groups, n)
            rows = zero.index_add(0, ops.groups, inner)
            inner = zero.new_zeros(ops.n_groups, ops.n_groups).index_add(1, ops.groups, rows)
            edge = zero.new_zeros(ops.n_groups).index_add(0, ops.groups, edge)
        size = ops.n_groups + 1
        matrix = inner.new_empty(size, size)
        matrix[0, 0] = corner
        matrix[0, 1:] = edge
        matrix[1:, 0] = edge
        matrix[1:, 1:] = inner
        diagonal = torch.diagonal(matrix)
        diagonal[1:] += state.slack / state.y[1:]
        scale = torch.rsqrt(diagonal)
        factor, info = torch.linalg.cholesky_ex(matrix * scale * scale[:, None])
        if int(info) != 0 or not bool(torch.all(torch.isfinite(scale))):
            return None
        return cls(factor, scale)

    def solve(self, right: Tensor) -> Tensor:
        """Return M⁻¹ r."""
        solved = torch.cholesky_solve((self.scale * right)[:, None], self.factor)
        return self.scale * solved[:, 0]
