"""Decimal arithmetic with directed rounding, for proofs that float64 cannot give.

Every operation names its context, so that the caller's ``decimal.getcontext()`` has no say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

#: Decimal arithmetic that rounds towards −∞ and towards +∞.
DOWN = Context(prec=50, rounding=ROUND_FLOOR, Emin=MIN_EMIN, Emax=MAX_EMAX)
UP = Context(prec=50, rounding=ROUND_CEILING, Emin=MIN_EMIN, Emax=MAX_EMAX)


def rounded(value: Fraction, context: Context) -> Decimal:
    """Return a rational number as a Decimal, rounded in the context's direction.

    Examples
    --------
    >>> third = Fraction(1, 3)
    >>> Fraction(rounded(third, DOWN)) < third < Fraction(rounded(third, UP))
    True
    """
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def float_below(value: Decimal) -> float:
    """Return the largest finite float64 ≤ ``value``, which is ≥ 0.

    Examples
    --------
    >>> float_below(Decimal("0.1")) < 0.1 == math.nextafter(float_below(Decimal("0.1")), 1)
    True
    """
    nearest = float(value)
    if not math.isinf(nearest) and Decimal(nearest) <= value:
        return nearest
    return math.nextafter(nearest, 0.0)


def largest_below(candidate: float, holds: Callable[[float], bool]) -> float:
    """Return the proposal, or the nearest smaller number tried, at which a condition holds.

    Parameters
    ----------
    candidate : float
        Proposal, ≥ 0 and finite.
    holds : callable
        Proves the condition at a float, or returns False.

    Returns
    -------
    float
        0.0 if the condition was proved nowhere.

    Notes
    -----
    At most 53 trials, each twice as far below the proposal (relative) as the one before.

    Examples
    --------
    >>> largest_below(2.0, lambda value: value * value <= 2.0)
    1.0
    """
    if holds(candidate):
        return candidate
    for exponent in range(-52, 0):
        trial = candidate * (1.0 - 2.0**exponent)
        if holds(trial):
            return trial
    return 0.0
