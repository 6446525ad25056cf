"""The margins as functions of the Lipschitz constants, the encoder's noise and r.

Every function returns a radius R, rounded down, such that P(‖g(z') − g(z)‖₂ ≤ r) > ½ for
z ~ N(p(x), σ(x)²), z' ~ N(p(x + δ), σ(x + δ)²) independent and every ‖δ‖₂ < R.  A float64
proposal for R is returned only after the inequality it has to satisfy was proved, in
rational arithmetic and with the proved quantiles of :mod:`harmonicvae.margins.chi_squared`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from harmonicvae.margins.chi_squared import (
    LARGEST_THRESHOLD,
    distribution_lower,
    median_upper,
    noncentrality_candidate,
    tail_bound_root,
)
from harmonicvae.margins.decimals import DOWN, UP, float_below, largest_below, rounded
from harmonicvae.margins.setting import Setting, check_method

#: Points on [0, r/(a·b)] at which Barrett et al.'s program evaluates bound 2.
GRID_POINTS = 200

_median = lru_cache(maxsize=256)(median_upper)
_tail_root = lru_cache(maxsize=256)(tail_bound_root)


def _root_up(square: Fraction) -> Decimal:
    """Return √square, rounded up."""
    if square == 0:
        return Decimal(0)
    return UP.next_plus(UP.sqrt(rounded(square, UP)))


def _smaller_root(square: Decimal, linear: Decimal, constant: Decimal) -> float:
    """Return the smallest positive root of square·R² + linear·R = constant > 0, in float64."""
    discriminant = DOWN.fma(DOWN.multiply(4, square), constant, DOWN.multiply(linear, linear))
    divisor = UP.add(linear, UP.sqrt(max(discriminant, Decimal(0))))
    if divisor == 0:
        return math.inf
    return float_below(DOWN.divide(DOWN.multiply(2, constant), divisor))


def _markov(setting: Setting, factor: int) -> float:
    """Solve (b² + c²)R² + factor·c·s·R + factor·s² ≤ r²/(2a²), s = ‖σ(x)‖₂."""
    total = sum(setting.variances, Fraction(0))
    room = setting.distance**2 / 2 - factor * total
    square = setting.encoder**2 + setting.growth**2
    if room <= 0:
        return 0.0
    if square == 0:
        return math.inf
    size = Fraction(_root_up(total))
    linear = factor * setting.growth * size

    def holds(radius: float) -> bool:
        exact = Fraction(radius)
        return square * exact**2 + linear * exact <= room

    coefficients = (rounded(square, UP), rounded(linear, UP), rounded(room, DOWN))
    return largest_below(_smaller_root(*coefficients), holds)


def barrett_1(setting: Setting) -> float:
    """Barrett et al.'s bound 1: Markov's inequality, for codes that may depend on each other.

    Parameters
    ----------
    setting : Setting
        Any.

    Returns
    -------
    float
        Largest R with (b² + c²)R² + 4csR + 4s² ≤ r²/(2a²), s = ‖σ(x)‖₂, rounded down.

    Notes
    -----
    E‖z' − z‖² ≤ b²R² + (2s + cR)² for any coupling of the two noises.  Cost O(m).

    References
    ----------
    Barrett, Camuto, Willetts and Rainforth, "Certifiably Robust Variational Autoencoders",
    arXiv 2102.07559.

    Examples
    --------
    >>> barrett_1(Setting(Fraction(2), Fraction(1), Fraction(0), (Fraction(0),), Fraction(4)))
    1.414213562373095
    """
    return _markov(setting, 4)


def sharpened_1(setting: Setting) -> float:
    """Bound 1 with the independence of the two noises used, never below it.

    Parameters
    ----------
    setting : Setting
        Any.

    Returns
    -------
    float
        Largest R with (b² + c²)R² + 2csR + 2s² ≤ r²/(2a²), s = ‖σ(x)‖₂, rounded down.

    Notes
    -----
    E‖z' − z‖² ≤ b²R² + s² + (s + cR)² for independent noises.  Cost O(m).

    Examples
    --------
    >>> noisy = Setting(Fraction(1), Fraction(1), Fraction(0), (Fraction(1),), Fraction(2))
    >>> barrett_1(noisy), sharpened_1(noisy)
    (0.0, 0.0)
    """
    return _markov(setting, 2)


def _triangle(setting: Setting, quantile: Fraction) -> float:
    """Solve bR + √(quantile·(γ² + (γ + cR)²)) ≤ r/a, γ the largest standard deviation."""
    distance, slope, growth = setting.distance, setting.encoder, setting.growth
    variance = max(setting.variances)
    std = Fraction(_root_up(variance))
    room = distance**2 - 2 * quantile * variance
    if room <= 0:
        return 0.0
    if slope == 0 and (growth == 0 or quantile == 0):
        return math.inf

    def holds(radius: float) -> bool:
        exact = Fraction(radius)
        left = distance - slope * exact
        spread = variance + variance + 2 * std * growth * exact + (growth * exact) ** 2
        return left >= 0 and quantile * spread <= left**2

    if growth == 0:
        spread_up = _root_up(2 * quantile * variance)
        gap = DOWN.subtract(rounded(distance, DOWN), spread_up)
        candidate = float_below(max(DOWN.divide(gap, rounded(slope, UP)), Decimal(0)))
        return largest_below(candidate, holds)
    square = rounded(quantile * growth**2 - slope**2, UP)
    linear = rounded(2 * distance * slope + 2 * quantile * std * growth, UP)
    return largest_below(_smaller_root(square, linear, rounded(room, DOWN)), holds)


def triangle_chi2(setting: Setting) -> float:
    """Margin from the triangle inequality and the median of χ²_m.

    Parameters
    ----------
    setting : Setting
        Any; for unequal σ(x) the largest one counts.

    Returns
    -------
    float
        Largest R with bR + √(q·(γ² + (γ + cR)²)) ≤ r/a, q the median of χ²_m and
        γ = max σ(x), rounded down; for a fixed σ this is (r/a − γ√(2q))/b.

    Notes
    -----
    z' − z = Δ + noise with ‖Δ‖ ≤ bR and a noise of which each unit's variance is at most
    γ² + (γ + cR)².  Cost O(m) after the quantile, which is kept.

    Examples
    --------
    >>> fixed = Setting(Fraction(5), Fraction(5), Fraction(0), (Fraction(1, 25),) * 10, Fraction(8))
    >>> round(triangle_chi2(fixed), 4)
    0.1471
    """
    return _triangle(setting, _median(setting.latent_dim))


def barrett_2_root(setting: Setting) -> float:
    """Barrett et al.'s bound 2: the triangle inequality and a tail bound of χ²_m.

    Parameters
    ----------
    setting : Setting
        With a fixed σ = γ; for m = 1 the tail bound is not valid, and R = 0.

    Returns
    -------
    float
        (r/a − γ√(2u))/b, rounded down, where u > m − 2 solves B_m(u) = ½.

    Raises
    ------
    InputError
        If σ is not one fixed number.

    Notes
    -----
    B_m(u) = C(m)·u^(m/2)·e^(−u/2)/(u − m + 2) ≥ P(χ²_m ≥ u) (Inglot, 2010), hence never
    above :func:`triangle_chi2`.

    References
    ----------
    Barrett et al., arXiv 2102.07559, the second margin bound.

    Examples
    --------
    >>> fixed = Setting(Fraction(5), Fraction(5), Fraction(0), (Fraction(1, 25),) * 10, Fraction(8))
    >>> round(barrett_2_root(fixed), 5), round(barrett_2(fixed), 5)
    (0.12892, 0.12864)
    """
    check_method("barrett_2", setting)
    if setting.latent_dim == 1:
        return 0.0
    return _triangle(setting, _tail_root(setting.latent_dim))


def barrett_2(setting: Setting) -> float:
    """Bound 2 as published: on the grid of 200 points that its authors evaluate.

    Parameters
    ----------
    setting : Setting
        With a fixed σ = γ; for m = 1 the tail bound is not valid, and R = 0.

    Returns
    -------
    float
        :func:`barrett_2_root`, rounded down to a multiple of r/(199·a·b).

    Raises
    ------
    InputError
        If σ is not one fixed number.

    Notes
    -----
    The authors' program tests 200 equidistant radii on [0, r/(ab)] and reports the last one
    that satisfies the bound; the published figures hold this rounding.  It costs up to
    0.5 % of r/(ab); use :func:`barrett_2_root` to compare methods.

    References
    ----------
    Barrett et al., arXiv 2102.07559, and their program FabianBarrett/Lipschitz_VAEs.
    """
    root = barrett_2_root(setting)
    if root == 0 or math.isinf(root):
        return root
    step = setting.distance / setting.encoder / (GRID_POINTS - 1)
    return float_below(rounded(Fraction(root) // step * step, DOWN))


def noncentral_chi2(setting: Setting) -> float:
    """Largest margin for a fixed σ that follows from a and b: exact for the Gaussian.

    Parameters
    ----------
    setting : Setting
        With a fixed σ = γ.

    Returns
    -------
    float
        Largest R with P(χ'²_m((bR)²/(2γ²)) ≤ (r/a)²/(2γ²)) ≥ ½, rounded down.

    Raises
    ------
    InputError
        If σ is not one fixed number.

    Notes
    -----
    z' − z ~ N(Δ, 2γ²I) with ‖Δ‖ ≤ bR.  Attained by p and g that are multiples of
    isometries.  Where (r/a)²/(2γ²) > 10⁷ the noise hardly matters, the proof would take
    seconds, and :func:`triangle_chi2` is returned.  Cost O(r/(aγ) + m) decimal operations.

    Examples
    --------
    >>> fixed = Setting(Fraction(5), Fraction(5), Fraction(0), (Fraction(1, 25),) * 10, Fraction(8))
    >>> round(noncentral_chi2(fixed), 4)
    0.271
    """
    check_method("noncentral_chi2", setting)
    variance, dof = setting.variances[0], setting.latent_dim
    distance = setting.distance
    if variance == 0 or distance**2 > 2 * variance * Fraction(LARGEST_THRESHOLD):
        return triangle_chi2(setting)
    threshold = rounded(distance**2 / (2 * variance), DOWN)
    if Fraction(threshold) <= _median(dof):
        return 0.0
    if setting.encoder == 0:
        return math.inf

    def holds(radius: float) -> bool:
        shift = (setting.encoder * Fraction(radius)) ** 2
        noncentrality = rounded(shift / (2 * variance), UP)
        return distribution_lower(threshold, dof, noncentrality) >= Decimal("0.5")

    root = Decimal(noncentrality_candidate(float(threshold), dof))
    spread = rounded(2 * variance / setting.encoder**2, DOWN)
    candidate = float_below(DOWN.sqrt(DOWN.multiply(root, spread)))
    return largest_below(candidate, holds)
