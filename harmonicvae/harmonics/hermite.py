"""Hermite spectrum of a differentiable map under a Gaussian, by Monte Carlo in any dimension."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from harmonicvae.harmonics.arguments import (
    check_integer,
    check_points,
    check_positive,
    generator_from,
)
from harmonicvae.harmonics.estimation import Setting, average, resample, to_spectrum
from harmonicvae.harmonics.maps import as_map
from harmonicvae.harmonics.rings import Plan, sum_rings, uses_exact_jacobian
from harmonicvae.harmonics.stability_fit import ring_angles
from harmonicvae.records import Spectrum


def hermite_spectrum(
    function: Any,
    mean: Any,
    std: float,
    *,
    max_degree: int = 8,
    n_samples: int = 10_000,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    max_memory: float = 512 * 2**20,
    random_state: Any = None,
) -> Spectrum:
    """Hermite spectrum of a map g under N(mean, std²·I), with confidence intervals.

    With ε ~ N(0, I) and degree-k weights W_k = σ^{2k}/k!·‖E ∇^k g(μ + σε)‖² the variance is
    Σ_{k≥1} W_k, and σ²·E‖J‖_F² = Σ k·W_k: their ratio is the mean Hermite degree, 1 for an
    affine map and larger the more g oscillates on the scale σ.

    Parameters
    ----------
    function : callable
        g: (n, m) → (n, d) or (n,), each row for itself, differentiable.  torch modules and
        their bound methods are copied in float64 and eval mode and stay on their device; other
        callables are given float64 tensors on the CPU.
    mean : array of shape (m,) or (p, m)
        Centre μ, or several: then results are averaged over them, and ``parts`` holds each.
    std : float
        σ > 0, in input units.
    max_degree : int, default=8
        K ≥ 1: weights are reported up to here, the rest as "tail".
    n_samples : int, default=10000
        Independent pairs of normals ≥ 32 in all, divided evenly among the centres (at least 32
        each, rounded up to equal blocks).  Each makes a ring of 2K + 8 evaluations (rounded up
        to a multiple of 4) and 4 derivatives.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    n_resamples : int, default=1000
        Bootstrap resamples, ≥ 100.
    max_memory : float, default=512 MiB
        Bytes for evaluations and sums.  Fewer bytes may mean fewer blocks and so slightly
        other numbers; the normals stay the same.
    random_state : None, int, RandomState or Generator
        Seed; None draws a new one.

    Returns
    -------
    Spectrum
        ``values`` = W_0 … W_K ("hermite"); ``stability`` holds E⟨g(Z), g(Z_ρ)⟩ over ρ;
        ``summaries``: "variance", "squared_mean" (‖E g‖², may come out below 0),
        "first_weight" (W_1), "first_weight_share" (W_1/variance), "jacobian_energy"
        (E‖J‖_F²), "mean_degree", "tail" (Σ_{k>K} W_k), "tail_share", "fitted_first_share" (of
        the fitted W_1; in many dimensions and with few samples it errs less than
        "first_weight_share", which may exceed 1).

    Raises
    ------
    InputError
        If an argument is out of range, or the function does not fit it.
    SolverError
        If a value or a derivative is NaN or infinite.

    Notes
    -----
    *Estimators.*  All from the same rings (see :mod:`harmonicvae.harmonics.rings`).  Variance,
    ‖E g‖², W_1 = ‖E g(Z)εᵀ‖_F² (Stein) and the stability curve are unbiased; squares of means
    are means of products of distinct blocks.  E‖J‖_F² is exact for each point where min(m, d)
    ≤ 4 (that many products), else ‖J·v‖² in the direction v of the ring, which is N(0, I) and
    independent of the point.  Such directions have the variance 2‖JᵀJ‖_F² on either side of J;
    those of the ring cancel most of the error of the variance in the mean degree.  W_k are
    fitted by non-negative least squares to the stability curve, in its cosine coefficients,
    weighted by precision; "first_weight" does not use the fit.  High degrees of small weight
    are badly determined, as their intervals show; the values there depend on the fit.

    *Rate.*  Errors shrink as n_samples^{−1/2} (centres fixed).

    *Intervals.*  Expanded percentile bootstrap over at most 64 blocks of rings; for 10 or more
    centres over the centres, as a sample from their population.  For 2 to 9 centres the blocks
    of each centre are resampled: the interval is for the average over just these.  Those of W_k
    (k ≥ 1) and of the tail are ranges over all spectra that stay in a joint bootstrap band of
    the curve, and wider; see :func:`harmonicvae.harmonics.stability_fit.fit_weights`. For
    heavy-tailed maps, whose moments rare samples decide, intervals cover less than their level
    where n_samples is small: 84 to 90 % were observed for a nominal 95 %.

    *Cost.*  n_samples·(J + 4·2) evaluations of g in float64 and O(n_samples·J²·d) beside, J =
    2K + 8; memory ``max_memory`` and what g itself needs for a chunk.  Wide first and last
    layers of an ``nn.Sequential`` are replaced by narrow ones, without changing a spectrum (see
    :mod:`harmonicvae.harmonics.shortening`).

    References
    ----------
    O'Donnell, "Analysis of Boolean Functions", 2014, chapter 11 (noise stability and Hermite
    weights); Camuto and Willetts, arXiv 2105.14866.

    Examples
    --------
    z² = (z² − 1) + 1 under N(0, 1): W_0 = 1, W_2 = 2, variance 2, mean degree 2.

    >>> found = hermite_spectrum(lambda z: z**2, [0.0], 1.0, random_state=0, max_degree=3)
    >>> found.values.round(1)
    array([1. , 0. , 2.1, 0. ])
    >>> found["mean_degree"].lower < 2 < found["mean_degree"].upper
    True
    """
    started = time.perf_counter()
    centres = check_points("mean", mean)
    sigma = check_positive("std", std)
    setting = Setting(
        check_integer("max_degree", max_degree, 1),
        check_positive("confidence", confidence, below=1.0),
        check_integer("n_resamples", n_resamples, 100),
    )
    count = check_integer("n_samples", n_samples, 32)
    memory = check_positive("max_memory", max_memory)
    generators = generator_from(random_state).spawn(len(centres) + 1)
    g = as_map(function, torch.from_numpy(centres[0]))
    each = max(32, -(-count // len(centres)))
    plan = Plan.within(each, ring_angles(setting.max_degree), (g.input_dim, g.output_dim), memory)
    samples = [
        resample(sum_rings(g, centre, sigma, plan, generator), setting, generator)
        for centre, generator in zip(g.project(centres), generators, strict=False)
    ]
    blocks = ("blocks", plan.n_blocks)
    parts = [to_spectrum(sample, setting, sigma, *blocks, plan.n_rings) for sample in samples]
    found = parts[0]
    if len(parts) > 1:
        mixed, units, n_units = average(samples, setting, generators[-1], plan.n_blocks)
        found = to_spectrum(mixed, setting, sigma, units, n_units, plan.n_rings * len(parts))
    details = {
        "std": sigma,
        "jacobian": "exact" if uses_exact_jacobian(g) else "random directions",
        "rings_per_centre": plan.n_rings,
        "angles": plan.n_angles,
        "computed_dims": [g.input_dim, g.output_dim],
    }
    return replace(
        found,
        seconds=time.perf_counter() - started,
        details=details,
        parts=tuple(parts) if len(parts) > 1 else (),
    )
