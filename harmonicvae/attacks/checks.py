"""What a reader of an attack's result should distrust, and what would disprove a bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harmonicvae.attacks.judge import Verdict
from harmonicvae.attacks.metrics import damage_bound_ratio
from harmonicvae.exceptions import InputError
from harmonicvae.records import AttackResult, Bound

#: Relative rise of the value over the last tenth of the steps that calls for more steps.
_LATE_GAIN = 1e-3
#: Rounding errors of a damage, in unit roundoffs of the sizes that are rounded.
_ROUNDINGS = 8192


def audit(verdict: Verdict, steps: int) -> list[str]:
    """Return what makes a result doubtful, as sentences that say what to try.

    Parameters
    ----------
    verdict : Verdict
        What was found.
    steps : int
        Steps the method took from each start; 0 for methods without steps.

    Returns
    -------
    list of str
        Inputs without gradient, values still rising at the last step, proposals that were
        dropped. Modules in train mode are found when they are copied
        (:func:`harmonicvae.attacks.frozen.freeze`).
    """
    count = len(verdict.value)
    found = []
    if verdict.without_gradient:
        found.append(
            f"the gradient is zero at every start for {verdict.without_gradient} of {count} "
            "inputs: the decoder ignores its code (collapsed), an activation saturates, or "
            "the callables are not differentiable; the damage there says nothing"
        )
    rising = (verdict.step == steps) & (verdict.late_gain > _LATE_GAIN)
    late = int(rising.sum()) if steps else 0
    if 2 * late > count:
        found.append(
            f"the best point was found at the last step, and still rising, for {late} of "
            f"{count} inputs; increase n_steps (now {steps})"
        )
    if verdict.not_finite:
        found.append(f"{verdict.not_finite} proposals were NaN or infinite and were dropped")
    return found


def check_damage(result: AttackResult, encoder_bound: Bound, decoder_bound: Bound) -> np.ndarray:
    """Compare an attack with the upper bound a·b·C that Lipschitz constants give.

    Parameters
    ----------
    result : AttackResult
        Of the attack, in the ℓ2 or ℓ∞ ball.
    encoder_bound, decoder_bound : Bound
        Upper bounds b and a of the ℓ2 Lipschitz constants of p and g.

    Returns
    -------
    ndarray of shape (n,)
        Damage over a·b·C, no unit; C is √d times the radius of an ℓ∞ ball.

    Raises
    ------
    InputError
        If one is no record of a bound, or a lower one.
    SoundnessError
        If both bounds are certified and global and a damage exceeds a·b·C by more than the
        rounding of inputs, codes and decodings: a bound is wrong, or belongs to another model.

    Examples
    --------
    >>> import torch
    >>> from harmonicvae.attacks.apgd import APGD
    >>> double = lambda z: 2 * z
    >>> result = APGD().attack(double, double, torch.zeros(1, 2), 1.0, random_state=0)
    >>> two = Bound(kind="upper", value=2.0, method="norm_product", status="certified")
    >>> check_damage(result, two, two).round(6)
    array([1.])
    """
    both = check_bounds((encoder_bound, decoder_bound))
    b, a = encoder_bound.value, decoder_bound.value
    scale = math.sqrt(result.perturbation.shape[1]) if result.norm == "linf" else 1.0
    shown = (result.decoding, result.attacked_decoding)
    size = sum(float(np.linalg.norm(decoding, axis=1).max(initial=0.0)) for decoding in shown)
    rounded = (
        size + a * result.precision["largest_code"] + a * b * result.precision["largest_input"]
    )
    rounding = _ROUNDINGS * result.precision["unit_roundoff"] * rounded
    return damage_bound_ratio(
        result.damage,
        b,
        a,
        result.radius * scale,
        certified=math.isfinite(rounding) and all(map(_is_certified, both)),
        rounding=rounding if math.isfinite(rounding) else 0.0,
    )


def check_bounds(bounds: Any) -> tuple[Bound, Bound]:
    """Refuse what is no pair of upper bounds.

    Parameters
    ----------
    bounds : (Bound, Bound)
        Of encoder mean and decoder.

    Returns
    -------
    (Bound, Bound)

    Raises
    ------
    InputError
        If it is no pair of records, or one is a lower bound.
    """
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(record, Bound) for record in pair):
        raise InputError(
            "bounds must be a pair of Bound records (encoder, decoder), as from "
            f"harmonicvae.bound, got {type(bounds).__name__}"
        )
    for record in pair:
        if record.kind == "lower":
            raise InputError(f"bounds must be upper bounds, got a lower one: {record!r}")
    return pair


def _is_certified(record: Bound) -> bool:
    """Return whether a record proves a bound for all inputs in the ℓ2 norm."""
    proved = record.kind == "upper" and record.status == "certified"
    return proved and record.scope == "global" and record.norm == "l2"
