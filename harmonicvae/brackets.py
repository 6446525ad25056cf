"""A lower and an upper bound that were computed apart, put together."""

from __future__ import annotations

from dataclasses import replace

from harmonicvae.records import Bound, Bracket


def joined(lower: Bound, upper: Bound) -> Bracket:
    """Return the bracket of two bounds of the same network.

    Parameters
    ----------
    lower, upper : Bound
        Of the same network, on the same inputs.

    Returns
    -------
    Bracket
        Where the upper bound's method attained more at an input of its own
        (``upper.details["attained"]``, as "interval" does), that is the lower bound.

    Raises
    ------
    InputError
        If one of them is of another kind.
    SoundnessError
        If the lower bound exceeds the upper one.

    Examples
    --------
    >>> shared = {"status": "float64", "method": "interval"}
    >>> lower = Bound(kind="lower", value=1.0, **shared)
    >>> upper = Bound(kind="upper", value=2.0, details={"attained": 1.9, "point": [0.0]}, **shared)
    >>> joined(lower, upper).lower.value
    1.9
    """
    attained = upper.details.get("attained", 0.0)
    if attained > lower.value:
        details = {"point": upper.details["point"], "n_points": upper.details.get("evaluated", 1)}
        lower = replace(lower, value=attained, method=upper.method, details=details)
    return Bracket(lower=lower, upper=upper)
