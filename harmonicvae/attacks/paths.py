"""The best point on each of many search paths, and how it was still rising at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harmonicvae.attacks.problem import Candidates


class BestOnPaths:
    """Best point, value and step of every path.

    Parameters
    ----------
    start : Tensor of shape (n, r, d)
        Where the paths begin; kept by reference, not changed.
    value : Tensor of shape (n, r)
        F there.
    n_steps : int
        Steps that will be observed, ≥ 1.

    Attributes
    ----------
    point, value, step : Tensor of shape (n, r, d), (n, r), (n, r)
        Best point of every path, F there, and the step that found it; 0 is the start.
    """

    def __init__(self, start: Tensor, value: Tensor, n_steps: int) -> None:
        self.point = start.clone()
        self.value = value.clone()
        self.step = torch.zeros(value.shape, dtype=torch.int64, device=value.device)
        self._late = n_steps - math.ceil(n_steps / 10)
        self._before = self.value.clone()

    def observe(self, step: int, points: Tensor, value: Tensor) -> Tensor:
        """Take the points of a step where they are better; return where, shape (n, r)."""
        better = value > self.value
        self.point[better] = points[better]
        self.value[better] = value[better]
        self.step[better] = step
        if step == self._late:
            self._before = self.value.clone()
        return better

    @property
    def late_gain(self) -> Tensor:
        """Relative rise of the value over the last tenth of the steps, (n, r)."""
        gain = (self.value - self._before) / self.value.abs()
        return gain.nan_to_num(nan=0.0, posinf=0.0)

    def candidates(self) -> Candidates:
        """Return the best points as a method's proposals."""
        return Candidates(self.point, self.step, self.late_gain)
