"""The base class of all attacks: it validates, calls the method, and does not believe it."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from torch import Tensor

from harmonicvae.attacks.checks import audit, check_bounds, check_damage
from harmonicvae.attacks.frozen import freeze
from harmonicvae.attacks.inputs import (
    check_box,
    check_inputs,
    check_integer,
    check_norm,
    check_radii,
    seeds_from,
)
from harmonicvae.attacks.judge import Judge, Verdict
from harmonicvae.attacks.objectives import Objective, as_objective
from harmonicvae.attacks.problem import Candidates, Problem
from harmonicvae.attacks.projections import row_norm
from harmonicvae.records import AttackResult, Bound

#: Encoder and decoder: callables on tensors.
Callables: TypeAlias = "Callable[[Tensor], Tensor]"


class Attack(abc.ABC):
    """Search for the perturbation that changes the reconstruction most.

    An author writes :meth:`_perturb`, which proposes perturbations; :meth:`attack`
    is final and judges them.

    Parameters
    ----------
    max_batch : int, default=512
        Most inputs × restarts that are evaluated at once, ≥ 1; bounds the memory and
        does not change the starting points.

    Attributes
    ----------
    name : str
        Key in ``harmonicvae.attacks.ATTACKS``.
    """

    name: str = "unnamed"

    def __init__(self, *, max_batch: int = 512) -> None:
        self.max_batch = max_batch

    @property
    def restarts(self) -> int:
        """Proposals the method makes for each input."""
        return 1

    @property
    def steps(self) -> int:
        """Steps the method takes from each start."""
        return 0

    @property
    def rows(self) -> int:
        """Perturbations held at once for each input; ``max_batch`` over it are attacked at once."""
        return self.restarts

    @abc.abstractmethod
    def _perturb(self, problem: Problem) -> Candidates:
        """Propose perturbations for the inputs of ``problem``; feasibility is checked later."""

    def _check_options(self) -> None:
        """Refuse constructor options out of range; called before each attack."""
        check_integer("max_batch", self.max_batch, 1)

    @final
    def attack(
        self,
        encode: Callables,
        decode: Callables,
        x: Any,
        radius: float | Sequence[float],
        *,
        objective: Objective | str = "damage",
        norm: str = "l2",
        box: tuple[Any, Any] | None = None,
        bounds: tuple[Bound, Bound] | None = None,
        random_state: Any = None,
    ) -> AttackResult | list[AttackResult]:
        """Maximise an objective F(δ) over ‖δ‖ ≤ radius for each input.

        Parameters
        ----------
        encode, decode : callable
            Encoder mean p: (rows, d) → codes and decoder g: codes → (rows, …); modules,
            bound methods of modules, or plain functions on tensors.  Modules are copied
            and run in eval mode; the originals are not touched.
        x : array, DataFrame or Tensor of shape (n, d)
            Clean inputs, finite.
        radius : float or sequence of float
            Radius of the ball, in input units, ≥ 0 and finite.
        objective : Objective or str, default="damage"
            What is maximised: "damage" is ‖g(p(x+δ)) − g(p(x))‖₂; for others see
            ``harmonicvae.attacks.OBJECTIVES``.
        norm : {"l2", "linf"}, default="l2"
            Norm of the ball; damage is always ℓ2.
        box : (low, high) or None, default=None
            Pixel box that x + δ stays in; numbers or arrays of shape (d,), in input
            units; must hold ``x``.
        bounds : (Bound, Bound) or None, default=None
            Upper bounds of the Lipschitz constants of p and g, to check the damage against.
        random_state : None, int, RandomState or Generator
            Seed of any size ≥ 0; None draws a new one.

        Returns
        -------
        AttackResult or list of AttackResult
            One for each radius if a sequence was given, each as if it were attacked
            alone.  ``best_restart`` is −1 where no proposal was better than δ = 0.
            ``seconds`` of the first holds the set-up.

        Raises
        ------
        InputError
            If an argument or an option of the method is out of range, the box does not
            hold an input, or the callables do not run on ``x``.
        SolverError
            If the reconstruction of a clean input is NaN or infinite.
        SoundnessError
            If the damage exceeds the product of certified ``bounds`` and radius: one is wrong.

        Notes
        -----
        Guarantee, whatever the method returns: ‖δ‖ ≤ radius and x + δ in the box in
        float64 arithmetic, and value and damage belong to that δ, evaluated in float64
        (with a warning where the callables refuse it).  The value is a lower bound on the
        largest one, and never below 0.  The method runs in the dtype of the
        parameters, or in float64 for inputs whose size, or whose decoding's, is so large
        beside the ball or its effect that float32 differences would be rounding.
        Memory is O(``max_batch``·d) beside the result.
        """
        started = time.perf_counter()
        self._check_options()
        check_norm(norm)
        inputs = check_inputs(x)
        limits = check_box(box, inputs)
        radii = check_radii(radius)
        seeds = seeds_from(random_state, len(inputs))
        goal = as_objective(objective)
        if bounds is not None:
            bounds = check_bounds(bounds)
        pair = freeze(encode, decode, inputs, goal.deviation)
        judge = Judge(pair, inputs, goal, norm, limits, self.max_batch)
        results = []
        for value in radii:
            verdict = self._search(judge, value, seeds)
            seconds = time.perf_counter() - started
            results.append(self._record(judge, value, verdict, seconds))
            if bounds is not None:
                check_damage(results[-1], *bounds)
            started = time.perf_counter()
        return results if np.ndim(radius) else results[0]

    def _search(self, judge: Judge, radius: float, seeds: Sequence[int]) -> Verdict:
        """Run the method on blocks of inputs, and judge what it proposes."""
        verdict = judge.nothing()
        if radius == 0:
            return verdict
        count = max(1, self.max_batch // max(1, self.rows))
        for group, respond in judge.groups(radius, seeds):
            for images in group.split(count):
                problem = judge.problem(images, respond, radius, seeds)
                candidates = self._perturb(problem)
                judge.judge(verdict, images, candidates, radius)
                verdict.evaluations += problem.evaluations
                silent = (problem.largest_gradient == 0).sum().item()
                verdict.without_gradient += int(silent) if problem.evaluations else 0
        return verdict

    def _record(
        self, judge: Judge, radius: float, verdict: Verdict, seconds: float
    ) -> AttackResult:
        """Put a verdict into the record."""
        delta = verdict.perturbation
        return AttackResult(
            method=self.name,
            objective=judge.objective.name,
            norm=judge.norm,
            radius=radius,
            perturbation=delta.numpy(),
            value=verdict.value.numpy(),
            damage=judge.damage(verdict).numpy(),
            decoding=judge.clean.numpy().copy(),
            attacked_decoding=verdict.attacked.numpy(),
            radius_used=row_norm(delta, judge.norm).squeeze(-1).numpy(),
            box_violation=judge.violation(delta),
            precision=dict(judge.precision),
            restarts=max(self.restarts, verdict.restarts) if verdict.restarts else 0,
            steps=self.steps if verdict.restarts else 0,
            gradient_evaluations=-(-verdict.evaluations // len(delta)),
            best_restart=verdict.restart.numpy(),
            best_step=verdict.step.numpy(),
            seconds=seconds,
            warnings=(*judge.pair.notes, *audit(verdict, self.steps)),
        )
