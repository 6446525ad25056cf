"""Proved bounds on χ² probabilities: what the margins of a Gaussian code rest on.

SciPy proposes every root in float64; a proposal is used only after the inequality it has
to satisfy was proved in decimal arithmetic of 50 digits with directed rounding.
Logarithms and exponentials round to nearest; ``_LOG_ERROR`` and ``next_minus`` cover that.
Every operation names its context, so that the caller's ``decimal.getcontext()`` has no say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from scipy import optimize, stats

from harmonicvae.exceptions import SolverError
from harmonicvae.margins.decimals import DOWN, UP

#: Largest threshold that :func:`distribution_lower` is used for (0.2 s near the median).
LARGEST_THRESHOLD = 1e7

_HALF = Decimal("0.5")
_PI_UP = Decimal("3.14159265358979323846264338327950288419716939937511")
#: More than all roundings of a logarithm below 10¹⁶ that is evaluated with 50 digits.
_LOG_ERROR = Decimal("1e-30")
#: A number below −ln 2 that differs from it by less than 10⁻²⁹.
_LOG_HALF_DOWN = Decimal("-0.69314718055994530941723212146")
#: Stirling's series of ln Γ, cut behind a positive term, which makes it an upper bound.
_STIRLING = ((1, 12, 1), (-1, 360, 3), (1, 1260, 5), (-1, 1680, 7), (1, 1188, 9))


def _log_gamma_upper(z: Decimal) -> Decimal:
    """Return an upper bound of ln Γ(z) up to ``_LOG_ERROR``, close to it for z ≥ 100."""
    log_two_pi = UP.ln(UP.multiply(2, _PI_UP))
    total = UP.subtract(UP.multiply(UP.subtract(z, _HALF), UP.ln(z)), z)
    total = UP.add(total, UP.multiply(_HALF, log_two_pi))
    for sign, denominator, power in _STIRLING:
        term = UP.divide(Decimal(sign), denominator)
        for _ in range(power):
            term = UP.divide(term, z)
        total = UP.add(total, term)
    return total


def _poisson_lower(mean: Decimal, index: Decimal) -> Decimal:
    """Return a lower bound of e^(−mean)·mean^index / Γ(index + 1), index real and ≥ 100."""
    power = DOWN.multiply(index, DOWN.ln(mean))
    log = DOWN.subtract(power, mean)
    log = DOWN.subtract(log, _log_gamma_upper(DOWN.add(index, 1)))
    density = DOWN.next_minus(DOWN.exp(DOWN.subtract(log, _LOG_ERROR)))
    return max(density, Decimal(0))


def distribution_lower(threshold: Decimal, dof: int, noncentrality: Decimal) -> Decimal:
    """Return a proved lower bound of P(χ'²_dof(noncentrality) ≤ threshold).

    Parameters
    ----------
    threshold : Decimal
        t, ≥ 0, of at most 50 digits.
    dof : int
        Degrees of freedom m, ≥ 1.
    noncentrality : Decimal
        λ, ≥ 0, of at most 50 digits.

    Returns
    -------
    Decimal
        Within about 10⁻²⁰ of the probability.

    Notes
    -----
    With x = t/2 the probability is Σ_j w_j Σ_{i ≥ j} v_i, where w_j is the Poisson
    probability of j at mean λ/2 and v_i = e^(−x) x^(m/2+i) / Γ(m/2+i+1).  All terms are
    positive, the sums are cut at both ends where less than e^(−100) is left, and every
    operation rounds down.  Cost O(√t + |t − λ| + m) operations.

    References
    ----------
    Johnson, Kotz and Balakrishnan, "Continuous Univariate Distributions", volume 2,
    chapter 29 (Poisson mixture).  DLMF 8.7.1 (incomplete gamma function) and 5.11(ii)
    (the error of Stirling's series has the sign of the first term left out).

    Examples
    --------
    P(χ²₂ ≤ t) = 1 − e^(−t/2).

    >>> round(distribution_lower(Decimal(2), 2, Decimal(0)), 15)
    Decimal('0.632120558828558')
    """
    if threshold <= 0:
        return Decimal(0)
    x = DOWN.divide(threshold, 2)
    shape = DOWN.divide(dof, 2)
    last = max(100, math.ceil(float(x) - dof / 2 + 15 * math.sqrt(float(x)) + 200))
    term = _poisson_lower(x, DOWN.add(shape, last))
    if noncentrality == 0:
        return _weighted_tail(term, None, last, (shape, x), (0, Decimal(0)))
    mean = UP.divide(noncentrality, 2)
    centre = float(mean)
    first = max(0, math.floor(centre - 15 * math.sqrt(centre) - 200))
    weight = _poisson_lower(mean, Decimal(last))
    return _weighted_tail(term, weight, last, (shape, x), (first, mean))


def _weighted_tail(
    term: Decimal,
    weight: Decimal | None,
    last: int,
    gamma: tuple[Decimal, Decimal],
    poisson: tuple[int, Decimal],
) -> Decimal:
    """Return Σ_{first ≤ j ≤ last} w_j Σ_{j ≤ i ≤ last} v_i, rounded down; w_0 = 1 alone if None."""
    (shape, x), (first, mean) = gamma, poisson
    tail, total = Decimal(0), Decimal(0)
    for index in range(last, first - 1, -1):
        tail = DOWN.add(tail, term)
        term = DOWN.divide(DOWN.multiply(term, DOWN.add(shape, index)), x)
        if weight is not None:
            total = DOWN.fma(weight, tail, total)
            weight = DOWN.divide(DOWN.multiply(weight, index), mean)
    return tail if weight is None else total


def median_upper(dof: int) -> Fraction:
    """Return a number proved to be ≥ the median of χ² with ``dof`` degrees of freedom.

    Notes
    -----
    Within about 10⁻¹⁵ of the median, relative.  Cost as :func:`distribution_lower`.

    Examples
    --------
    >>> round(float(median_upper(2)), 12) == round(2 * math.log(2), 12)
    True
    """

    def proved(value: float) -> bool:
        return distribution_lower(Decimal(value), dof, Decimal(0)) >= _HALF

    return _smallest_above(float(stats.chi2.median(dof)), proved)


def tail_bound_root(dof: int) -> Fraction:
    """Return u, proved to satisfy B_m(u) ≤ ½ for the tail bound B_m(u) ≥ P(χ²_m ≥ u).

    Parameters
    ----------
    dof : int
        Degrees of freedom m, ≥ 2.

    Returns
    -------
    Fraction
        Within about 10⁻¹⁴ (relative) of the smallest such u > m − 2.

    Notes
    -----
    B_m(u) = C(m)·u^(m/2)·e^(−u/2) / (u − m + 2), C(m) = e^((m − (m−1)·ln m)/2) / √π.  It
    falls for u > m − 2, since the derivative of its logarithm has the sign of
    4 − 2m − (u − m + 2)².

    References
    ----------
    T. Inglot, "Inequalities for quantiles of the chi-square distribution", Probability and
    Mathematical Statistics 30 (2010), 339–351, for m ≥ 2 and u > m − 2.

    Examples
    --------
    For m = 2 the bound is e/√(2π) · e^(−u/2).

    >>> round(float(tail_bound_root(2)), 9) == round(2 - math.log(math.pi / 2), 9)
    True
    """

    def excess(value: float) -> float:
        log_constant = (dof - (dof - 1) * math.log(dof) - math.log(math.pi)) / 2
        log_bound = log_constant + (dof * math.log(value) - value) / 2
        return log_bound - math.log(value - dof + 2) + math.log(2)

    bracket = (dof - 2 + 1e-9, dof + 10 * math.sqrt(dof) + 20)
    return _smallest_above(
        float(optimize.brentq(excess, *bracket, xtol=1e-12)),
        lambda value: _log_tail_bound_upper(Decimal(value), dof) <= _LOG_HALF_DOWN,
    )


def _log_tail_bound_upper(u: Decimal, dof: int) -> Decimal:
    """Return an upper bound of ln B_m(u), u > m − 2; see :func:`tail_bound_root`."""
    shape = UP.divide(dof, 2)
    positive = [shape, UP.multiply(shape, UP.ln(u)), _LOG_ERROR]
    negative = [
        DOWN.multiply(DOWN.subtract(shape, _HALF), DOWN.ln(Decimal(dof))),
        DOWN.multiply(_HALF, DOWN.ln(DOWN.next_minus(_PI_UP))),
        DOWN.multiply(_HALF, u),
        DOWN.ln(DOWN.subtract(u, dof - 2)),
    ]
    total = Decimal(0)
    for term in positive:
        total = UP.add(total, term)
    for term in negative:
        total = UP.subtract(total, term)
    return total


def _smallest_above(candidate: float, proved: Callable[[float], bool]) -> Fraction:
    """Return the proposal, or the nearest larger number tried, at which a condition is proved."""
    for exponent in range(-52, 1):
        if proved(candidate):
            return Fraction(candidate)
        candidate *= 1.0 + 2.0**exponent
    raise SolverError(f"no quantile of χ² could be proved near {candidate!r}")


def noncentrality_candidate(threshold: float, dof: int) -> float:
    """Return λ with P(χ'²_dof(λ) ≤ threshold) = ½ in float64, a proposal without proof.

    Parameters
    ----------
    threshold : float
        t, in (0, ``LARGEST_THRESHOLD``].
    dof : int
        Degrees of freedom, ≥ 1.

    Returns
    -------
    float
        λ ≥ 0; 0 if the median of χ² exceeds ``threshold``.

    Examples
    --------
    >>> round(noncentrality_candidate(100.0, 1), 6)
    100.0
    """

    def excess(shift: float) -> float:
        if shift == 0:
            return float(stats.chi2.cdf(threshold, dof)) - 0.5
        return float(stats.ncx2.cdf(threshold, dof, shift * shift)) - 0.5

    if excess(0.0) <= 0:
        return 0.0
    largest = math.sqrt(threshold) + 1.0
    root = optimize.brentq(excess, 0.0, largest, xtol=1e-300, rtol=1e-15)
    return float(root) ** 2
