"""Monte Carlo of the r-robustness probability, with an exact binomial interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from harmonicvae.attacks.inputs import seeds_from
from harmonicvae.exceptions import InputError
from harmonicvae.margins.arguments import (
    as_array,
    check_number,
    check_positive_integer,
    check_stds,
)
from harmonicvae.margins.callables import batched, numeric
from harmonicvae.records import Record


@dataclass(frozen=True, kw_only=True)
class RobustnessProbability(Record):
    """Monte Carlo estimate of P(‖g(z') − g(z)‖₂ ≤ r) for each input, with its interval.

    Parameters
    ----------
    count : int ndarray of shape (n,)
        Draws within r.
    n_samples : int
        Draws for each input.
    probability : ndarray of shape (n,)
        count / n_samples.
    lower, upper : ndarray of shape (n,)
        Clopper–Pearson interval: for each input, it misses the probability with probability
        at most 1 − ``confidence``.
    confidence : float
        Level of the interval, in (0, 1).
    r : float or ndarray of shape (n,)
        Allowed distance, in output units.
    """

    count: np.ndarray
    n_samples: int
    probability: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    confidence: float
    r: float | np.ndarray


def clopper_pearson(count: Any, n_samples: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided Clopper–Pearson interval of a binomial probability.

    Parameters
    ----------
    count : int array
        Successes, 0 … ``n_samples``.
    n_samples : int
        Trials, ≥ 1.
    confidence : float
        Level, in (0, 1).

    Returns
    -------
    lower, upper : ndarray
        Ends in [0, 1], of the shape of ``count``; each side misses with probability at most
        (1 − ``confidence``)/2.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
    the binomial", Biometrika 26 (1934), 404–413.

    Examples
    --------
    With no success in n trials the upper end is 1 − (α/2)^(1/n).

    >>> lower, upper = clopper_pearson([0], 10, 0.95)
    >>> lower, upper.round(6)
    (array([0.]), array([0.308497]))
    """
    trials = check_positive_integer("n_samples", n_samples)
    if not 0 < check_number("confidence", confidence) < 1:
        raise InputError(f"confidence must lie strictly between 0 and 1, got {confidence!r}")
    hits = as_array("count", count)
    if ((hits < 0) | (hits > trials) | (hits != np.floor(hits))).any():
        raise InputError(f"count must hold integers from 0 to {trials}, got {count!r}")
    tail = (1.0 - confidence) / 2.0
    misses = trials - hits
    lower = stats.beta.ppf(tail, np.maximum(hits, 1), misses + 1)
    upper = stats.beta.isf(tail, hits + 1, np.maximum(misses, 1))
    return np.where(hits == 0, 0.0, lower), np.where(misses == 0, 1.0, upper)


def robustness_probability(
    encode: Callable[..., Any],
    decode: Callable[..., Any],
    std: Any,
    x: Any,
    delta: Any,
    r: Any,
    n_samples: int = 10_000,
    confidence: float = 0.999,
    random_state: Any = None,
    *,
    max_batch: int = 4096,
) -> RobustnessProbability:
    """Monte Carlo of P(‖g(z') − g(z)‖₂ ≤ r) for given perturbations, with an interval.

    Parameters
    ----------
    encode, decode : callable
        Encoder mean p: (rows, d) → (rows, latent_dim) and decoder g: codes → (rows, …).
        torch modules and their bound methods are copied, run in eval mode and given tensors;
        other callables are given float64 NumPy arrays.
    std : float, array of shape (latent_dim,) or (n, latent_dim), or callable
        Encoder standard deviation, ≥ 0: the same at x and x + δ, or a function σ of the
        inputs, given arrays or tensors as ``encode`` is.
    x : array of shape (n, d)
        Inputs, finite.
    delta : array of shape (d,) or (n, d)
        Perturbation of each input, in input units, finite.
    r : float or array of shape (n,)
        Allowed distance, in output units, ≥ 0: one for all inputs or one for each.
    n_samples : int, default=10000
        Independent pairs (z, z') for each input, ≥ 1.
    confidence : float, default=0.999
        Level of the interval, in (0, 1).
    random_state : None, int, RandomState or Generator
        Seed; None draws a new one.
    max_batch : int, default=4096
        Most codes that are decoded at once, ≥ 2; does not change which noise is drawn.

    Returns
    -------
    RobustnessProbability

    Raises
    ------
    InputError
        If an argument is out of range, shapes do not match, or a callable is missing.
    SolverError
        If an encoding or a reconstruction is NaN or infinite.

    Notes
    -----
    z ~ N(p(x), σ(x)²) and z' ~ N(p(x + δ), σ(x + δ)²), independent.  The interval holds for
    one input at a time and for the given δ: it says nothing about other perturbations.
    Distances are computed in float64 from what the decoder returns.  Memory
    O(``max_batch``·d) beside the inputs; the noise of an input depends on the seed and its
    row only.

    Examples
    --------
    Without a perturbation, z' − z ~ N(0, 2) has |z' − z| ≤ √2·0.6745 with probability ½.

    >>> same = lambda values: values
    >>> found = robustness_probability(same, same, 1.0, [[0.0]], [0.0], 0.953873, random_state=0)
    >>> bool(found.lower[0] < 0.5 < found.upper[0])
    True
    """
    inputs, moved = _inputs_and_moved(x, delta)
    allowed = _distances(r, len(inputs))
    draws = check_positive_integer("n_samples", n_samples)
    clopper_pearson(0, draws, confidence)
    if check_positive_integer("max_batch", max_batch) < 2:
        raise InputError("max_batch must be >= 2: a pair of codes is decoded at once, got 1")
    encoder, decoder = numeric("encode", encode), numeric("decode", decode)
    means = np.stack([batched(encoder, rows, max_batch) for rows in (inputs, moved)], axis=1)
    if means.ndim != 3:
        raise InputError(f"encode must return codes of shape (n, latent_dim), got {means.shape}")
    stds = _stds(std, (inputs, moved), means.shape, max_batch)
    seeds = seeds_from(random_state, len(inputs))
    generators = [np.random.default_rng(seed) for seed in seeds]
    count = np.array(
        [
            _count(decoder, mean, spread, distance, draws, max_batch // 2, generator)
            for mean, spread, distance, generator in zip(
                means, stds, allowed, generators, strict=True
            )
        ]
    )
    lower, upper = clopper_pearson(count, draws, confidence)
    return RobustnessProbability(
        count=count,
        n_samples=draws,
        probability=count / draws,
        lower=lower,
        upper=upper,
        confidence=float(confidence),
        r=allowed if np.ndim(r) else float(allowed[0]),
    )


def _distances(r: Any, count: int) -> np.ndarray:
    """Return the allowed distance of every input."""
    if np.ndim(r) == 0:
        return np.full(count, check_number("r", r))
    given = as_array("r", r)
    if given.shape != (count,) or not (given >= 0).all():
        raise InputError(
            f"r must be a number >= 0 or {count} of them, one for each input, got {r!r:.80}"
        )
    return given


def _inputs_and_moved(x: Any, delta: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return x and x + δ as (n, d) arrays."""
    inputs, change = as_array("x", x), as_array("delta", delta)
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise InputError(f"x must have shape (n, d) with n, d >= 1, got {inputs.shape}")
    if change.shape not in (inputs.shape, inputs.shape[1:]):
        raise InputError(
            f"delta must have shape {inputs.shape[1:]} or {inputs.shape}, got {change.shape}"
        )
    return inputs, inputs + change


def _stds(
    std: Any, points: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...], max_batch: int
) -> np.ndarray:
    """Return σ at x and x + δ, of shape (n, 2, latent_dim)."""
    if not callable(std):
        stds = check_stds(std, shape[2])
        if stds.ndim == 2 and len(stds) != shape[0]:
            raise InputError(
                f"std must have one row for each of {shape[0]} inputs, got {len(stds)}"
            )
        return np.broadcast_to(stds[:, None] if stds.ndim == 2 else stds, shape)
    spread = numeric("std", std)
    stds = np.stack([batched(spread, rows, max_batch) for rows in points], axis=1)
    if stds.shape != shape:
        raise InputError(f"std must return shape {(shape[0], shape[2])}, got {stds[:, 0].shape}")
    if (stds < 0).any():
        raise InputError(f"std must be >= 0, got {float(stds.min())!r}")
    return stds


def _count(
    decoder: Callable[[np.ndarray], np.ndarray],
    mean: np.ndarray,
    std: np.ndarray,
    r: float,
    draws: int,
    pairs: int,
    generator: np.random.Generator,
) -> int:
    """Count draws (z, z') of one input whose decodings differ by at most r."""
    inside = 0
    for start in range(0, draws, pairs):
        size = min(pairs, draws - start)
        noise = generator.standard_normal((size, *mean.shape))
        codes = (mean + std * noise).reshape(2 * size, -1)
        decoded = decoder(codes).reshape(size, 2, -1)
        distance = np.linalg.norm(decoded[:, 1] - decoded[:, 0], axis=1)
        inside += int((distance <= r).sum())
    return inside
