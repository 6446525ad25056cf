"""Power spectra of a map along random straight lines."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from harmonicvae.exceptions import InputError
from harmonicvae.harmonics.arguments import (
    check_integer,
    check_points,
    check_positive,
    generator_from,
)
from harmonicvae.harmonics.maps import DifferentiableMap, as_map
from harmonicvae.harmonics.power import summarised
from harmonicvae.records import Spectrum

#: What is subtracted from every line before the window.
DETRENDS = ("none", "mean", "linear")
WINDOWS = ("hann", "none")
_FLOAT_BYTES = 8
#: Copies of a chunk's values that are alive at once.
_CHUNK_COPIES = 5


def slice_spectrum(
    function: Any,
    base: Any,
    length: float,
    *,
    n_points: int = 128,
    n_directions: int = 1,
    directions: Any = None,
    window: str = "hann",
    detrend: str = "mean",
    cutoff: float | None = None,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    max_memory: float = 256 * 2**20,
    random_state: Any = None,
) -> Spectrum:
    """Power spectrum of a map along 1-D slices t ↦ g(z0 + t·v), averaged over z0 and v.

    Parameters
    ----------
    function : callable
        g, as :func:`harmonicvae.hermite_spectrum` takes it; no derivative is needed.
    base : array of shape (m,) or (p, m)
        Points z0, independent draws; each is the middle of its slices.
    length : float
        L > 0, in input units: t runs over [−L/2, L/2).
    n_points : int, default=128
        Samples on a slice, ≥ 8, evenly spaced: frequencies up to n_points/(2·L).
    n_directions : int, default=1
        Slices through each base point, in directions uniform on the unit sphere.
    directions : array of shape (m,) or (q, m) or None, default=None
        Given directions through every base point instead; scaled to length 1.
    window : {"hann", "none"}, default="hann"
        Periodic Hann window against leakage; a line is then spread over three frequencies.
    detrend : {"mean", "none", "linear"}, default="mean"
        Subtracted from each output along each slice first: nothing, the mean, or the straight
        line, by least squares weighted with the window; the power at frequency 0 is then 0.
    cutoff : float or None, default=None
        Frequency above which the share is taken, > 0; None means 4/L (four cycles a slice).
    confidence, n_resamples, random_state
        As in :func:`harmonicvae.hermite_spectrum`.
    max_memory : float, default=256 MiB
        Bytes for the evaluations; does not change the result.

    Returns
    -------
    Spectrum
        "slice_power": power at k/L, k = 0 … n_points/2, in cycles per input unit.
        ``summaries``: "power" (the sum), "centroid" (mean frequency, weighted by power) and
        "high_frequency_share" (of the power above ``cutoff``); NaN where nothing varies.

    Raises
    ------
    InputError
        If an argument is out of range, or the function does not fit it.
    SolverError
        If a value is NaN or infinite.

    Notes
    -----
    One-sided and normalised so that the sum over frequencies is the windowed mean power
    (1/n)·Σ_t w_t²·‖g_t − trend‖² with (1/n)·Σ w² = 1 (Parseval, exact up to rounding): for a
    sinusoid of amplitude a and a whole number of cycles, a²/2 in all.  Frequencies above
    n_points/(2·L) are folded back.

    The mean over slices is unbiased for the windowed spectrum (leakage and folding included);
    centroid and share are ratios of means, bias O(1/p).  Errors shrink as p^{−1/2}.  Intervals
    and standard errors: expanded percentile bootstrap over base points, all slices of a point
    together; over the slices where there is one base point.

    Cost: p·n_directions·n_points evaluations and FFTs of d·n_points numbers each.

    References
    ----------
    Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform",
    Proc. IEEE 66 (1978), 51–83.

    Examples
    --------
    Three cycles per unit: nearly all power at 3 and beside it.

    >>> wave = lambda z: torch.sin(2 * torch.pi * 3 * z)
    >>> found = slice_spectrum(wave, [[0.0], [0.1]], 4.0, random_state=0)
    >>> round(found["centroid"].value, 6), round(found["power"].value, 6)
    (3.0, 0.5)
    """
    started = time.perf_counter()
    points = check_points("base", base)
    span = check_positive("length", length)
    count = check_integer("n_points", n_points, 8)
    level = check_positive("confidence", confidence, below=1.0)
    resamples = check_integer("n_resamples", n_resamples, 100)
    for name, value, allowed in (("window", window, WINDOWS), ("detrend", detrend, DETRENDS)):
        if value not in allowed:
            raise InputError(f"{name} must be one of {allowed}, got {value!r}")
    limit = 4.0 / span if cutoff is None else check_positive("cutoff", cutoff)
    generator = generator_from(random_state)
    unit = _directions(directions, n_directions, points.shape, generator)
    slices = len(points) * unit.shape[1]
    if slices < 2:
        raise InputError("base and directions must make at least 2 slices, got 1")
    g = as_map(function, torch.from_numpy(points[0]))
    line = _Line(g, span, count, window, detrend)
    memory = check_positive("max_memory", max_memory)
    power = line.powers(g.project(points), g.project(unit), memory)
    by_point = len(points) > 1
    power = power.mean(axis=1) if by_point else power[0]
    frequencies = np.arange(power.shape[1]) / span
    return summarised(
        power,
        frequencies,
        limit,
        line.size,
        name="slice_power",
        units="base points" if by_point else "slices",
        n_samples=slices,
        confidence=level,
        n_resamples=resamples,
        generator=generator,
        details={"length": span, "window": window, "detrend": detrend, "cutoff": limit},
        started=started,
    )


class _Line:
    """Slices through points, and their spectra."""

    def __init__(
        self, function: DifferentiableMap, length: float, count: int, window: str, detrend: str
    ) -> None:
        self._function, self._detrend, self._count = function, detrend, count
        steps = torch.arange(count, dtype=torch.float64, device=function.device)
        self.size = 0.0  # largest mean square of a chunk
        self._times = length * (steps / count - 0.5)
        weights = torch.sin(torch.pi * steps / count) ** 2
        weights = weights if window == "hann" else torch.ones_like(steps)
        self._window = weights / weights.square().mean().sqrt()
        bins = count // 2 + 1
        self._sides = torch.full((bins,), 2.0, dtype=torch.float64, device=function.device)
        self._sides[0] = 1.0
        if count % 2 == 0:
            self._sides[-1] = 1.0

    def powers(self, points: np.ndarray, units: np.ndarray, max_memory: float) -> np.ndarray:
        """Return the spectra (p, q, k) of the slices through p points in q directions each."""
        function = self._function
        wide = function.input_dim + 2 * function.output_dim
        slice_bytes = self._count * wide * _FLOAT_BYTES * _CHUNK_COPIES
        at_once = max(1, int(max_memory / slice_bytes))
        starts = np.broadcast_to(points[:, None], units.shape).reshape(-1, points.shape[1])
        ways = units.reshape(-1, points.shape[1])
        found = [
            self._spectra(starts[first : first + at_once], ways[first : first + at_once])
            for first in range(0, len(ways), at_once)
        ]
        return np.concatenate(found).reshape(*units.shape[:2], -1)

    def _spectra(self, starts: np.ndarray, ways: np.ndarray) -> np.ndarray:
        """Return one spectrum a slice, summed over outputs."""
        function = self._function
        first, way = (torch.tensor(part, device=function.device) for part in (starts, ways))
        lines = first[:, None] + self._times[:, None] * way[:, None]
        values = function(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
        self.size = max(self.size, float(values.square().sum(2).mean()))
        values = (values - self._trend(values)) * self._window[:, None]
        waves = torch.fft.rfft(values, dim=1) / self._count
        squares = waves.real.square() + waves.imag.square()
        return (squares.sum(2) * self._sides).cpu().numpy()

    def _trend(self, values: torch.Tensor) -> torch.Tensor | float:
        """Return what is subtracted, by least squares weighted with the window."""
        if self._detrend == "none":
            return 0.0
        columns = [torch.ones_like(self._times)]
        if self._detrend == "linear":
            columns.append(self._times)
        design = torch.stack(columns, 1)
        weighted = (self._window[:, None] * design).T
        return design @ torch.linalg.solve(weighted @ design, weighted @ values)


def _directions(
    given: Any, count: Any, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """Return unit directions (p, q, m), drawn or given."""
    points, width = shape
    if given is None:
        drawn = generator.standard_normal((points, check_integer("n_directions", count, 1), width))
        return drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
    rows = check_points("directions", given)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if rows.shape[1] != width or not (lengths > 0).all():
        raise InputError(
            f"directions must be non-zero and have {width} components, got shape {rows.shape}"
        )
    return np.broadcast_to(rows / lengths, (points, *rows.shape))
