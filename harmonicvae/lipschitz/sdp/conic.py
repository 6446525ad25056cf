"""LipSDP as published, solved by a general conic solver through CVXPY: the oracle of the tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Task, layer_norms
from harmonicvae.lipschitz.lipsdp import polished
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.network import LayeredNetwork
from harmonicvae.rounding import normalise, scale_up

#: The tolerances of each solver that can be asked for.
_TOLERANCES = {
    "CLARABEL": ("tol_gap_abs", "tol_gap_rel", "tol_feas"),
    "CVXOPT": ("abstol", "reltol", "feastol"),
    "SCS": ("eps_abs", "eps_rel"),
}
#: Multipliers that a solver rounds to 0 are raised to this fraction of their layer's largest.
_SMALLEST = 2.0**-100
#: ρ is raised by these fractions until its multipliers leave the inequality positive definite.
_MARGINS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
#: What CVXPY calls a solution of full and of lower accuracy.
_SOLVED = ("optimal", "optimal_inaccurate")


class LipSDPConic(LipschitzMethod):
    """Upper bound by LipSDP as published, with a solver that CVXPY calls; for small networks.

    Parameters
    ----------
    solver : {"CLARABEL", "SCS", "CVXOPT"}, default="CLARABEL"
        Must be installed.
    per_layer : bool, default=False
        One multiplier a layer (LipSDP-Layer) instead of one a neuron (LipSDP-Neuron).
    limit : int, default=128
        Inputs and hidden neurons at most, ≥ 2; more are refused.
    tolerance : float or None, default=None
        Absolute and relative tolerances of the solver, in (0, 1); None leaves them as they are.

    Notes
    -----
    An independent check of "lipsdp_neuron" and "lipsdp_layer", which are faster by orders
    of magnitude and need no such limit. The matrix inequality is posed dense, with all
    multipliers, from the network's weights; each layer is divided by a power of two. Neurons
    are not scaled one by one: weights of very different size make a solver inaccurate. What
    the solver claims is not believed: its multipliers are proved like those of any method,
    with the smallest ρ that they allow. ``details``: "solver", "solver_status" and
    "solver_value", the solver's own value, an estimate that may lie below the constant. It
    cannot be stopped once it runs. Cost O(D⁶) at worst and O(D⁴) bytes, D inputs and neurons.

    References
    ----------
    M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for
    deep neural networks", NeurIPS 2019, theorem 2.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> weights = [[[1.0, 2.0], [3.0, 1.0]], [[1.0, -1.0]]]
    >>> network = LayeredNetwork.from_arrays(weights, activation="relu")
    >>> result = LipSDPConic().bound(network)
    >>> round(result.value, 4), result.status, result.details["solver_status"]
    (3.1623, 'certified', 'optimal')
    """

    name = "lipsdp_cvxpy"

    def __init__(
        self,
        solver: str = "CLARABEL",
        per_layer: bool = False,
        limit: int = 128,
        tolerance: float | None = None,
    ) -> None:
        self.solver = solver
        self.per_layer = per_layer
        self.limit = limit
        self.tolerance = tolerance

    def unsuitable(self, network: LayeredNetwork) -> str:
        """Refuse networks that are too large."""
        rows = network.input_dim + sum(network.hidden_dims)
        if rows > self.limit:
            return f"takes limit={self.limit} inputs and neurons, got {rows}; try lipsdp_neuron"
        return super().unsuitable(network)

    def _bound(self, task: Task) -> Candidate:
        options = self._options()
        if task.is_trivial:
            return layer_norms(task)
        if task.report("CVXPY", neurons=sum(task.chain.hidden_dims)):
            raise SolverError("stopped on request before the solver ran")
        problem = _pose(task)
        rho, t, status = _solve(problem, self.solver, self.per_layer, options)
        best = _feasible(task, problem, rho, t)
        return Candidate(
            value=best.bound(task.chain, best.rho),
            proposal=best,
            details={
                "solver": self.solver,
                "solver_status": status,
                "solver_value": scale_up(math.sqrt(rho), problem.exponents[-1]),
            },
            message="" if status == "optimal" else f"{self.solver} reports {status}",
        )

    def _options(self) -> dict[str, Any]:
        """Refuse parameters out of range; return the solver's own options."""
        import cvxpy

        installed = sorted(set(_TOLERANCES).intersection(cvxpy.installed_solvers()))
        if self.solver not in installed:
            raise InputError(f"solver must be one of {installed}, got {self.solver!r}")
        if self.tolerance is None:
            return {}
        if not 0.0 < self.tolerance < 1.0:
            raise InputError(f"tolerance must lie in (0, 1) or be None, got {self.tolerance!r}")
        return dict.fromkeys(_TOLERANCES[self.solver], self.tolerance)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Weights W_0 … W_L and slope ranges of the nonlinear layers, in a moderate scale.

    The layer's vector i + 1 is that of the network, divided by 2**exponents[i].
    """

    weights: list[np.ndarray]
    alphas: list[np.ndarray]
    betas: list[np.ndarray]
    exponents: list[int]

    def multipliers(self, task: Task, rho: float, t: np.ndarray) -> Multipliers:
        """Return a solution in the units of the task's chain."""
        own = np.cumsum([block.exponent for block in task.chain.blocks])
        totals = [int(total) - mine for total, mine in zip(own, self.exponents)]
        values = []
        for part in np.split(t, np.cumsum([len(low) for low in self.alphas])[:-1]):
            scaled = 2.0 * part / rho
            values.append(np.maximum(scaled, _SMALLEST * np.max(scaled)))
        shifts = np.diff([0, *totals[:-1]]).tolist()
        rho = math.ldexp(rho, 2 * (totals[-2] - totals[-1]))
        return Multipliers(tuple(values), tuple(shifts), rho)


def _feasible(task: Task, problem: _Problem, rho: float, t: np.ndarray) -> Multipliers:
    """Move a solver's solution, which lies on the boundary or outside, inside by a small margin.

    The multipliers are 2t/ρ: a larger ρ makes them smaller, and all blocks more definite. The
    ρ that belongs to them is then computed anew. Without success they are left as they are.
    """
    for margin in _MARGINS:
        least = problem.multipliers(task, rho * (1.0 + margin), t)
        if math.isinf(polished(task.chain, replace(least, rho=math.inf)).rho):
            continue
        inside = problem.multipliers(task, rho * (1.0 + 2.0 * margin), t)
        return polished(task.chain, replace(inside, rho=math.inf))
    return problem.multipliers(task, rho, t)


def _pose(task: Task) -> _Problem:
    """Multiply layers that no nonlinear activation separates and scale those that remain."""
    chain, slopes = task.chain, task.slopes
    chosen = dict(zip(chain.layers, zip(chain.kept, chain.slope_exponents)))
    ranges = [
        (np.ldexp(slopes.alphas[i][kept], -power), np.ldexp(slopes.betas[i][kept], -power))
        for i, (kept, power) in chosen.items()
    ]
    weights: list[np.ndarray] = []
    powers: list[int] = []
    product, power = normalise(task.network.weights[0])
    for i, weight in enumerate(task.network.weights[1:]):
        weight, own = normalise(weight)
        if i not in chosen:
            product, gained = normalise(weight @ (slopes.alphas[i][:, None] * product))
            power += own + gained
            continue
        kept, slope_power = chosen[i]
        weights.append(product[kept])
        powers.append(power)
        product, power = weight[:, kept], own + slope_power
    alphas, betas = [low for low, _ in ranges], [high for _, high in ranges]
    return _scaled([*weights, product], alphas, betas, [*powers, power])


def _scaled(
    weights: Sequence[np.ndarray],
    alphas: list[np.ndarray],
    betas: list[np.ndarray],
    powers: Sequence[int],
) -> _Problem:
    """Divide each layer by a power of two, so that random slopes keep vectors of order one."""
    covariance = np.eye(weights[0].shape[1])
    scaled, exponents, total = [], [], 0
    for i, (weight, power) in enumerate(zip(weights, powers)):
        inner = weight @ covariance @ weight.T
        size = math.sqrt(float(np.trace(inner)))
        if not 0.0 < size < math.inf:
            raise SolverError("a layer of the network has no finite, positive scale")
        shift = math.frexp(size)[1]
        total += power + shift
        scaled.append(np.ldexp(weight, -shift))
        exponents.append(total)
        if i < len(alphas):
            middle, half = 0.5 * (alphas[i] + betas[i]), 0.5 * (betas[i] - alphas[i])
            inner = np.ldexp(inner, -2 * shift)
            covariance = middle[:, None] * inner * middle + np.diag(half**2 * np.diag(inner))
    return _Problem(scaled, alphas, betas, exponents)


def _solve(
    problem: _Problem, solver: str, per_layer: bool, options: dict[str, Any]
) -> tuple[float, np.ndarray, str]:
    """Minimise ρ with CVXPY; return ρ, the neurons' multipliers and the solver's status."""
    import cvxpy

    sizes = [len(low) for low in problem.alphas]
    first, hidden = problem.weights[0].shape[1], sum(sizes)
    before, after, gram = _stacked(problem, first, hidden)
    start = np.diag(np.repeat([1.0, 0.0], [first, hidden]))
    groups = np.repeat(np.eye(len(sizes)), sizes, axis=0) if per_layer else np.eye(hidden)
    rho = cvxpy.Variable(nonneg=True)
    variables = cvxpy.Variable(groups.shape[1], nonneg=True)
    t = groups @ variables
    low, high = np.concatenate(problem.alphas), np.concatenate(problem.betas)
    cross = before.T @ cvxpy.diag(cvxpy.multiply(low + high, t)) @ after
    form = cross + cross.T - 2.0 * after.T @ cvxpy.diag(t) @ after
    if np.any(low * high):
        form -= 2.0 * before.T @ cvxpy.diag(cvxpy.multiply(low * high, t)) @ before
    stated = cvxpy.Problem(cvxpy.Minimize(rho), [form - rho * start + gram << 0])
    try:
        stated.solve(solver=solver, **options)
    except cvxpy.SolverError as error:
        raise SolverError(f"{solver} failed: {error}") from error
    status = str(stated.status)
    if status not in _SOLVED or not 0.0 < float(rho.value) < math.inf:
        raise SolverError(f"{solver} found no solution and reports {status}")
    return float(rho.value), np.maximum(groups @ variables.value, 0.0), status


def _stacked(
    problem: _Problem, first: int, hidden: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A and B, which take all vectors to inputs and outputs of the neurons, and W_LᵀW_L."""
    before = np.zeros((hidden, first + hidden))
    after = np.hstack([np.zeros((hidden, first)), np.eye(hidden)])
    row, column = 0, 0
    for weight in problem.weights[:-1]:
        rows, columns = weight.shape
        before[row : row + rows, column : column + columns] = weight
        row, column = row + rows, column + columns
    gram = np.zeros((first + hidden, first + hidden))
    gram[column:, column:] = problem.weights[-1].T @ problem.weights[-1]
    return before, after, gram
