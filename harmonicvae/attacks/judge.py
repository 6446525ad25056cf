"""The verdict on what an attack proposes: projected and evaluated in float64.

Everything here is apart from what a method can reach: inputs, models and box are copies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from harmonicvae.attacks.frozen import FrozenPair, Responder
from harmonicvae.attacks.objectives import Objective
from harmonicvae.attacks.problem import Candidates, Problem
from harmonicvae.attacks.projections import Box, make_feasible
from harmonicvae.exceptions import InputError, SolverError

#: Below this ratio of ball to input size, or of damage to the decoding's, float32 is too coarse.
_SMALL_BALL, _SMALL_DAMAGE = 1e-4, 1e-3


@dataclass
class Verdict:
    """Best feasible perturbation of every input, judged in float64, and the budget used."""

    perturbation: Tensor
    value: Tensor
    attacked: Tensor
    restart: Tensor
    step: Tensor
    late_gain: Tensor
    restarts: int = 0
    evaluations: int = 0
    without_gradient: int = 0
    not_finite: int = 0


class Judge:
    """Float64 evaluation of what a method proposes, apart from everything it can reach."""

    def __init__(
        self,
        pair: FrozenPair,
        x: Tensor,
        objective: Objective,
        norm: str,
        box: Box | None,
        max_batch: int,
    ) -> None:
        self.pair = pair
        self.x = x
        self.objective = copy.deepcopy(objective)
        self.norm = norm
        self.box = box
        self.max_batch = max_batch
        if objective.deviation is not None:
            self._check_spread()
        self.clean, features = self._respond(x)
        if not bool(torch.isfinite(self.clean).all()):
            broken = int((~torch.isfinite(self.clean).all(dim=1)).sum())
            raise SolverError(
                f"decode(encode(x)) is NaN or infinite for {broken} of {len(x)} clean inputs; "
                "check the weights and the scale of x"
            )
        objective.check(x, self.clean.shape[1])
        self.reference = objective.reference(features, torch.arange(len(x)))
        if not bool(torch.isfinite(self.reference).all()):
            raise SolverError(f"the objective {objective.name!r} is not finite for clean inputs")

    def nothing(self) -> Verdict:
        """Return the verdict on δ = 0, from which every search starts."""
        count = len(self.x)
        return Verdict(
            perturbation=torch.zeros_like(self.x),
            value=torch.zeros(count, dtype=torch.float64),
            attacked=self.clean.clone(),
            restart=torch.full((count,), -1),
            step=torch.zeros(count, dtype=torch.int64),
            late_gain=torch.zeros(count, dtype=torch.float64),
        )

    def groups(self, radius: float, seeds: Sequence[int]) -> list[tuple[Tensor, Responder]]:
        """Return the inputs to search in each precision, and the pair to search with.

        float64 where the ball is small beside the input, or a random perturbation changes the
        decoding so little that differences in float32 would be mostly rounding. Every input
        is looked at alone.
        """
        extent = radius * (self.x.shape[1] ** 0.5 if self.norm == "linf" else 1.0)
        sizes = torch.linalg.vector_norm(self.x, dim=1).clamp_min(1.0)
        draws = [
            torch.randn(self.x.shape[1], generator=torch.Generator().manual_seed(seed)).double()
            for seed in seeds
        ]
        noise = torch.stack(draws)
        noise *= extent / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
        delta = make_feasible(noise, self.x, radius, self.norm, self.box)
        moved = torch.linalg.vector_norm(self._respond(self.x + delta)[0] - self.clean, dim=1)
        shown = torch.linalg.vector_norm(self.clean, dim=1)
        small = (extent < _SMALL_BALL * sizes) | ~(moved >= _SMALL_DAMAGE * shown)
        both = ((small, self.pair.fine), (~small, self.pair.search))
        return [(torch.nonzero(chosen)[:, 0], respond) for chosen, respond in both if chosen.any()]

    def problem(
        self, images: Tensor, respond: Responder, radius: float, seeds: Sequence[int]
    ) -> Problem:
        """Return the problem of some inputs, on tensors of its own."""
        x = self.x[images].to(respond.device, respond.dtype, copy=True)
        limits = None
        if self.box is not None:
            low, high = (end.to(x) for end in self.box)
            limits = ((low - x)[:, None].clamp_max(0), (high - x)[:, None].clamp_min(0))
        return Problem(
            respond,
            x,
            radius,
            norm=self.norm,
            limits=limits,
            max_batch=self.max_batch,
            seeds=[seeds[i] for i in images.tolist()],
            objective=copy.deepcopy(self.objective),
            images=images.clone(),
        )

    def judge(
        self, verdict: Verdict, images: Tensor, candidates: Candidates, radius: float
    ) -> None:
        """Project and evaluate every proposal in float64, and keep the best of each input."""
        x = self.x[images]
        _check_candidates(candidates, x)
        proposals = candidates.perturbation.detach().cpu().double()
        steps = candidates.step.cpu()
        gain = candidates.late_gain
        gains = torch.full(steps.shape, torch.inf) if gain is None else gain.cpu().double()
        verdict.restarts = max(verdict.restarts, proposals.shape[1])
        verdict.not_finite += int((~torch.isfinite(proposals).all(dim=2)).sum())
        width = max(1, self.max_batch // len(x))
        for start in range(0, proposals.shape[1], width):
            part = proposals[:, start : start + width]
            delta = make_feasible(part, x[:, None], radius, self.norm, self.box)
            attacked, value = self._evaluate(x[:, None] + delta, images)
            top, place = value.max(dim=1)
            better = torch.nonzero(top > verdict.value[images])[:, 0]
            chosen, restart = images[better], place[better]
            verdict.perturbation[chosen] = delta[better, restart]
            verdict.value[chosen] = top[better]
            verdict.attacked[chosen] = attacked[better, restart]
            verdict.restart[chosen] = start + restart
            verdict.step[chosen] = steps[better, start + restart]
            verdict.late_gain[chosen] = gains[better, start + restart].double()

    def _evaluate(self, points: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return decodings and values of (n, r, d) points; −1 for what is not finite."""
        decodings, features = self._respond(points.flatten(0, 1))
        decodings, features = (
            part.unflatten(0, points.shape[:2]) for part in (decodings, features)
        )
        value = self.objective.value(features, self.reference[images][:, None])
        sound = torch.isfinite(value) & torch.isfinite(decodings).all(dim=-1)
        return decodings, torch.where(sound, value, -1.0)

    def violation(self, delta: Tensor) -> float:
        """Return the largest distance of x + δ outside the box."""
        if self.box is None:
            return 0.0
        point = self.x + delta
        over = torch.maximum(point - self.box[1], self.box[0] - point)
        return float(over.clamp_min(0).max())

    def damage(self, verdict: Verdict) -> Tensor:
        """Return ‖g(p(x+δ)) − g(p(x))‖₂ of every input, whatever was maximised."""
        return torch.linalg.vector_norm(verdict.attacked - self.clean, dim=1)

    @cached_property
    def precision(self) -> dict[str, float]:
        """Return what the rounding error of a damage depends on."""
        exact, size = self.pair.exact, 0.0
        with torch.no_grad():
            for part in self.x.split(self.max_batch):
                code = exact.code(part.to(exact.device, exact.dtype)).reshape(len(part), -1)
                size = max(size, float(torch.linalg.vector_norm(code, dim=1).max()))
        return {
            "unit_roundoff": torch.finfo(exact.dtype).eps / 2,
            "largest_input": float(torch.linalg.vector_norm(self.x, dim=1).max()),
            "largest_code": size,
        }

    def _check_spread(self) -> None:
        """Refuse encoder standard deviations that are no numbers > 0, or ≥ 0 where 0 will do."""
        exact = self.pair.exact
        with torch.no_grad():
            for part in self.x.split(self.max_batch):
                rows = part.to(exact.device, exact.dtype)
                spread = exact.spread(rows, exact.code(rows))
                positive = self.objective.positive_deviation
                wrong = ~(spread > 0) if positive else ~(spread >= 0)
                if bool(wrong.any()):
                    raise InputError(
                        f"encode_std must be {'> 0' if positive else '>= 0'} for every input, "
                        f"got {float(spread[wrong].flatten()[0]):g}"
                    )

    def _respond(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return g(p(points)) and features as float64 on the CPU, ``max_batch`` rows at a time."""
        exact, objective = self.pair.exact, self.objective
        decodings, features = [], []
        with torch.no_grad():
            for part in points.split(self.max_batch):
                rows = part.to(exact.device, exact.dtype)
                features.append(objective.features(exact, rows).cpu().double())
                shown = features[-1] if objective.compares_decodings else exact(rows).cpu().double()
                decodings.append(shown)
        return torch.cat(decodings), torch.cat(features)


def _check_candidates(candidates: Candidates, x: Tensor) -> None:
    """Refuse proposals of the wrong shape; a mistake of the method's author."""
    shape, steps = tuple(candidates.perturbation.shape), tuple(candidates.step.shape)
    if len(shape) != 3 or shape[::2] != tuple(x.shape) or steps != shape[:2]:
        raise SolverError(
            f"_perturb must return perturbations of shape ({len(x)}, restarts, {x.shape[1]}) and "
            f"steps of shape ({len(x)}, restarts), got {shape} and {steps}"
        )
