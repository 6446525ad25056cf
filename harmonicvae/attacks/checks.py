"""What a reader of an attack's result should distrust, and what would disprove a bound."""

from __future__ import annotations

import math

import numpy as np

from harmonicvae.attacks.judge import Verdict
from harmonicvae.attacks.metrics import damage_bound_ratio
from harmonicvae.exceptions import InputError
from harmonicvae.records import AttackResult, Bound

#: Relative rise of the value over the last tenth of the steps that calls for more steps.
_LATE_GAIN = 1e-3
#: Rounding error of a damage in float64, relative to the size of the decodings.
_ROUNDING = 1e-12


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
        If a bound is a lower one.
    SoundnessError
        If both bounds are certified and global and a damage exceeds a·b·C by more than the
        rounding of the damage: a bound is wrong, or belongs to another model.

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
    both = (encoder_bound, decoder_bound)
    for record in both:
        if record.kind == "lower":
            raise InputError(f"the bounds must be upper bounds, got a lower one: {record!r}")
    scale = math.sqrt(result.perturbation.shape[1]) if result.norm == "linf" else 1.0
    shown = (result.decoding, result.attacked_decoding)
    sizes = sum(np.linalg.norm(decoding, axis=1) for decoding in shown)
    return damage_bound_ratio(
        result.damage,
        encoder_bound.value,
        decoder_bound.value,
        result.radius * scale,
        certified=all(r.status == "certified" and r.scope == "global" for r in both),
        rounding=_ROUNDING * float(np.max(sizes, initial=0.0)),
    )
