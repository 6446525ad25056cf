"""Bootstrap over independent units: weights, products of distinct units, intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from harmonicvae.records import Estimate


def resampling_weights(
    n_units: int, n_resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Return how often each unit is drawn in each resample.

    Parameters
    ----------
    n_units : int
        Independent units, ≥ 2.
    n_resamples : int
        Resamples.
    generator : Generator

    Returns
    -------
    ndarray of shape (1 + n_resamples, n_units), float64
        The first row is the original sample (all 1); each row sums to ``n_units``.

    Examples
    --------
    >>> weights = resampling_weights(5, 3, np.random.default_rng(0))
    >>> weights.sum(axis=1)
    array([5., 5., 5., 5.])
    """
    drawn = generator.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples)
    return np.vstack([np.ones(n_units), drawn])


def distinct_products(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of ⟨u_b, u_b'⟩ over pairs of distinct units, for each resample.

    Parameters
    ----------
    gram : ndarray of shape (B, B)
        Inner products of independent, identically distributed vectors u_b, B ≥ 2.
    weights : ndarray of shape (r, B)
        From :func:`resampling_weights`.

    Returns
    -------
    ndarray of shape (r,)

    Notes
    -----
    For the original sample this is the U-statistic, unbiased for ‖E u‖² (all ways of splitting
    the sample in two at once).  In a resample, copies of one unit are not paired with each
    other: E ‖u‖² would enter, and the resamples would not be centred at the estimate.

    Examples
    --------
    >>> vectors = np.array([[1.0], [2.0], [3.0]])
    >>> distinct_products(vectors @ vectors.T, np.ones((1, 3)))  # (2 + 3 + 6) / 3
    array([3.66666667])
    """
    squares = weights**2
    total = np.einsum("rb,bc,rc->r", weights, gram, weights, optimize=True)
    pairs = weights.sum(axis=1) ** 2 - squares.sum(axis=1)
    return (total - squares @ np.diag(gram)) / pairs


def standard_errors(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean that each resample itself would state.

    Parameters
    ----------
    values : ndarray of shape (B, k)
        Of every unit, B ≥ 2.
    weights : ndarray of shape (r, B)
        From :func:`resampling_weights`.

    Returns
    -------
    ndarray of shape (r, k)

    Examples
    --------
    >>> standard_errors(np.array([[1.0], [3.0]]), np.ones((1, 2)))
    array([[1.]])
    """
    count = len(values)
    centred = values - values.mean(axis=0)
    mean = weights @ centred / count
    variance = np.maximum(weights @ centred**2 / count - mean**2, 0.0)
    return np.sqrt(variance / (count - 1))


def expanded_levels(n_units: int, confidence: float) -> tuple[float, float]:
    """Return the quantiles of the resamples that make an interval of a given level.

    Parameters
    ----------
    n_units : int
        Units resampled, ≥ 2.
    confidence : float
        Level in (0, 1).

    Returns
    -------
    lower, upper : float

    Notes
    -----
    Resampling n units underestimates the variance by (n − 1)/n and knows no Student quantile;
    the levels are moved out so that for a mean the interval has the length of Student's.

    References
    ----------
    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69
    (2015), 371–386, section 3.3 (expanded percentile interval).

    Examples
    --------
    >>> [round(level, 4) for level in expanded_levels(10, 0.95)]
    [0.0086, 0.9914]
    """
    quantile = stats.t.ppf((1 - confidence) / 2, n_units - 1)
    tail = float(stats.norm.cdf(quantile * math.sqrt(n_units / (n_units - 1))))
    return tail, 1 - tail


def percentile_interval(
    resamples: np.ndarray, n_units: int, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ends of the expanded percentile interval and the standard error.

    Parameters
    ----------
    resamples : ndarray of shape (r, ...)
        The statistic of every resample.
    n_units : int
    confidence : float

    Returns
    -------
    lower, upper, standard_error : ndarray of shape (...)
        NaN where a resample is NaN.
    """
    lower, upper = np.quantile(resamples, expanded_levels(n_units, confidence), axis=0)
    scale = math.sqrt(n_units / (n_units - 1))
    return lower, upper, scale * resamples.std(axis=0, ddof=1)


def estimate(values: np.ndarray, n_units: int, confidence: float, kind: str) -> Estimate:
    """Return the record of a statistic whose first value is that of the original sample."""
    ends: Any = percentile_interval(values[1:], n_units, confidence)
    lower, upper, error = map(float, ends)
    return Estimate(
        value=float(values[0]), lower=lower, upper=upper, standard_error=error, kind=kind
    )
