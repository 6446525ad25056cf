"""Best-first branch and bound over the inputs of a network with one input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.attained import attained_norm
from harmonicvae.lipschitz.segments import SegmentNetwork
from harmonicvae.network import LayeredNetwork
from harmonicvae.rounding import scale_up

#: Segments split at once; those with the largest bounds come first.
_BATCH = 512
#: Break points before the first split, at most, beside the ends.
_FIRST_POINTS = 128
#: How far around a first-layer neuron's zero it bends, in units of its pre-activation.
_BEND = 4.0

Progress = Callable[[float, float, int], bool | None]


class LineSearch:
    """Best-first branch and bound on segments that cover the line or a box."""

    def __init__(self, network: LayeredNetwork, ends: tuple[float, float], rtol: float) -> None:
        self.network = network
        self.line = SegmentNetwork(network)
        self.rtol = rtol
        points, self.spread = _first_points(network, ends)
        self.low, self.high = points[:-1], points[1:]
        first = self.line.bounds(self.low, self.high)
        self.upper = first.upper
        self.stuck = np.zeros(len(self.low), dtype=bool)
        self.evaluated = len(self.low)
        self.candidates = np.zeros(0), np.zeros(0)
        self._remember(first.point, first.norm)

    @property
    def breakpoints(self) -> np.ndarray:
        """Inner ends of the segments, ascending."""
        return np.sort(self.low)[1:]

    def _remember(self, points: np.ndarray, norms: np.ndarray) -> None:
        """Keep the inputs with the largest norms."""
        points = np.concatenate([self.candidates[0], points])
        norms = np.concatenate([self.candidates[1], np.nan_to_num(norms, nan=0.0, posinf=0.0)])
        order = np.argsort(-norms, kind="stable")[:5]
        self.candidates = points[order], norms[order]

    def run(self, max_boxes: int, progress: Progress | None) -> str:
        """Split until both sides meet; return what went other than planned."""
        splittable = self._above()
        while len(splittable) > 0 and self.evaluated < max_boxes:
            if progress is not None and progress(*self._reached()):
                return "stopped on request; the bounds are those reached by then"
            self._split(splittable, max_boxes)
            splittable = self._above()
        if len(splittable) > 0:
            return f"stopped after {self.evaluated} segments; try a larger max_boxes or rtol"
        if np.any(self.upper > self._threshold()):
            return "some segments cannot be split further: kinks of several neurons may meet there"
        return ""

    def _threshold(self) -> float:
        """Return the bound below which a segment need not be split."""
        return float(self.candidates[1][0]) * (1.0 + 0.9 * self.rtol)

    def _reached(self) -> tuple[float, float, int]:
        """Return lower bound, upper bound and the number of segments evaluated."""
        lower, upper = float(self.candidates[1][0]), float(np.max(self.upper))
        exponent = self.line.exponent
        return scale_up(lower, exponent), scale_up(upper, exponent), self.evaluated

    def _above(self) -> np.ndarray:
        """Return the segments that are to be split."""
        return np.flatnonzero((self.upper > self._threshold()) & ~self.stuck)

    def _split(self, splittable: np.ndarray, max_boxes: int) -> None:
        """Halve the segments with the largest bounds."""
        count = min(_BATCH, max(1, (max_boxes - self.evaluated) // 2))
        chosen = splittable[np.argsort(-self.upper[splittable], kind="stable")[:count]]
        low, high = self.low[chosen], self.high[chosen]
        middle = self._middle(low, high)
        inside = (low < middle) & (middle < high)
        self.stuck[chosen[~inside]] = True
        chosen, low, high, middle = chosen[inside], low[inside], high[inside], middle[inside]
        if len(chosen) == 0:
            return
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        halves = self.line.bounds(low, high)
        self._remember(halves.point, halves.norm)
        self.evaluated += len(low)
        kept = np.ones(len(self.low), dtype=bool)
        kept[chosen] = False
        self.low = np.concatenate([self.low[kept], low])
        self.high = np.concatenate([self.high[kept], high])
        self.upper = np.concatenate([self.upper[kept], halves.upper])
        self.stuck = np.concatenate([self.stuck[kept], np.zeros(len(low), dtype=bool)])

    def _middle(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return where to split: in the middle, at 0, or farther out by a growing step."""
        middle = 0.5 * low + 0.5 * high
        left, right = np.isneginf(low), np.isposinf(high)
        with np.errstate(over="ignore", invalid="ignore"):
            middle = np.where(left, high - 4.0 * np.maximum(self.spread, np.abs(high)), middle)
            middle = np.where(right, low + 4.0 * np.maximum(self.spread, np.abs(low)), middle)
        return np.where(left & right, 0.0, middle)

    def _leaf(self, point: float) -> tuple[float, float]:
        """Return the ends of a segment with the point in it."""
        leaf = int(np.argmax((self.low <= point) & (point <= self.high)))
        return float(self.low[leaf]), float(self.high[leaf])

    def _around(self, point: float) -> np.ndarray:
        """Return the point and its surroundings, as f′ may jump there."""
        low, high = self._leaf(point)
        length = high - low if math.isfinite(high - low) else 1.0
        steps = length * np.array([0.0, 1e-8, -1e-8, 1e-12, -1e-12])
        return np.clip(point + steps, np.min(self.low), np.max(self.high))

    def _norm_at(self, point: float) -> tuple[float, float]:
        """Return ‖f′‖ in float64 at one input or right beside it, and where; 0 if uncertain."""
        region = np.array([np.min(self.low)]), np.array([np.max(self.high)])
        try:
            value, place = attained_norm(self.network, np.array([point]), region)
        except SolverError:
            return 0.0, point
        return value, float(place[0])

    def largest_norm(self) -> tuple[float, float]:
        """Return the largest ‖f′‖ near the best inputs, and where it is."""
        value, point = max(
            self._norm_at(float(z))
            for candidate in self.candidates[0]
            for z in self._around(float(candidate))
        )
        low, high = self._leaf(point)
        if not (value > 0 and math.isfinite(low) and math.isfinite(high)):
            return value, point
        refined = minimize_scalar(
            lambda z: -self._norm_at(float(z))[0] / value,
            bounds=(low, high),
            method="bounded",
            options={"maxiter": 30, "xatol": 1e-3 * (high - low)},
        )
        return max((value, point), self._norm_at(float(refined.x)))


def _first_points(network: LayeredNetwork, ends: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Return break points near the zeros of first-layer neurons, and how far these spread."""
    weight, bias = network.weights[0][:, 0], network.biases[0]
    used = weight != 0 if network.n_layers > 1 else np.zeros(len(weight), dtype=bool)
    with np.errstate(over="ignore", divide="ignore"):
        zeros, widths = -bias[used] / weight[used], _BEND / np.abs(weight[used])
    points = np.concatenate([zeros, zeros - widths, zeros + widths])
    points = np.unique(points[np.isfinite(points)])
    if len(points) > _FIRST_POINTS:
        points = points[np.linspace(0, len(points) - 1, _FIRST_POINTS).astype(int)]
    spread = float(points[-1] - points[0]) if len(points) > 1 else 1.0
    inner = points[(points > ends[0]) & (points < ends[1])]
    return np.array([ends[0], *inner, ends[1]]), spread if math.isfinite(spread) else 1.0
