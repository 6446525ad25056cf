"""Attacks on the reconstruction of any encoder and decoder.

``ATTACKS`` maps method names to classes, ``OBJECTIVES`` what they maximise; :func:`attack`
runs one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from harmonicvae.attacks.apgd import APGD
from harmonicvae.attacks.base import Attack, Callables
from harmonicvae.attacks.baselines import LinearisedAttack, RandomNoise
from harmonicvae.attacks.checks import check_damage
from harmonicvae.attacks.lbfgs import LBFGS
from harmonicvae.attacks.metrics import (
    damage_bound_ratio,
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.attacks.objectives import (
    OBJECTIVES,
    Damage,
    LatentDivergence,
    Objective,
    StochasticDamage,
    TargetedDecoding,
    as_objective,
)
from harmonicvae.attacks.pgd import PGD
from harmonicvae.attacks.portfolio import Portfolio
from harmonicvae.attacks.power_method import PowerMethod
from harmonicvae.exceptions import InputError
from harmonicvae.records import AttackResult, Bound

__all__ = [
    "APGD",
    "ATTACKS",
    "LBFGS",
    "OBJECTIVES",
    "PGD",
    "Attack",
    "Damage",
    "LatentDivergence",
    "LinearisedAttack",
    "Objective",
    "Portfolio",
    "PowerMethod",
    "RandomNoise",
    "StochasticDamage",
    "TargetedDecoding",
    "attack",
    "check_damage",
    "damage_bound_ratio",
    "log_likelihood_degradation",
    "relative_damage",
    "reproduction_log_ratio",
]

#: Every attack by its name; "best" is the maximum over a portfolio of the others.
ATTACKS: MappingProxyType[str, type[Attack]] = MappingProxyType(
    {
        item.name: item
        for item in (Portfolio, APGD, PGD, LBFGS, PowerMethod, LinearisedAttack, RandomNoise)
    }
)


def attack(
    encode: Callables,
    decode: Callables,
    x: Any,
    radius: float | Sequence[float],
    method: str = "best",
    *,
    objective: Objective | str = "damage",
    encode_std: Any = None,
    target: Any = None,
    norm: str = "l2",
    box: tuple[Any, Any] | None = None,
    bounds: tuple[Bound, Bound] | None = None,
    random_state: Any = None,
    **options: Any,
) -> AttackResult | list[AttackResult]:
    """Maximise the damage of a perturbation, or another objective, over ‖δ‖ ≤ radius.

    Parameters
    ----------
    encode, decode : callable
        Encoder mean p and decoder g on tensors with one row per input.
    x : array, DataFrame or Tensor of shape (n, d)
        Clean inputs, finite.
    radius : float or sequence of float
        Radius of the ball, in input units, ≥ 0.
    method : str, default="best"
        Key of ``ATTACKS``.
    objective : Objective or str, default="damage"
        What is maximised, an instance or a key of ``OBJECTIVES``: "damage" is
        F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂, "stochastic_damage" its root mean square over a fixed
        bank of encoder noise, "latent" the divergence of the codes, "targeted" how much
        nearer the decoding is to a target.
    encode_std : float, callable or None, default=None
        Encoder standard deviation, for "stochastic_damage" and "latent".
    target : array-like of shape (m,) or (n, m) or None, default=None
        Decoding to reach, for "targeted".
    norm : {"l2", "linf"}, default="l2"
        Norm of the ball.
    box : (low, high) or None, default=None
        Pixel box that x + δ stays in.
    bounds : (Bound, Bound) or None, default=None
        Upper bounds of the Lipschitz constants of p and g; a damage above their product
        times the radius is an error.
    random_state : None, int, RandomState or Generator
        Seed.
    **options
        Options of the method's class, e.g. ``n_steps`` and ``n_restarts``.

    Returns
    -------
    AttackResult or list of AttackResult
        One for each radius if a sequence was given.

    Raises
    ------
    InputError
        If the method or an option is unknown, or an argument is out of range.
    SoundnessError
        If certified ``bounds`` are exceeded.

    See Also
    --------
    Attack.attack : What is guaranteed for the result.

    Examples
    --------
    >>> import torch
    >>> identity = torch.nn.Identity()
    >>> result = attack(identity, identity, torch.zeros(2, 3), 0.5, random_state=0)
    >>> result.damage.round(6)
    array([0.5, 0.5])
    """
    if not isinstance(method, str) or method not in ATTACKS:
        raise InputError(f"method must be one of {sorted(ATTACKS)}, got {method!r}")
    try:
        chosen = ATTACKS[method](**options)
    except TypeError as error:
        raise InputError(f"options of {method!r}: {error}") from error
    return chosen.attack(
        encode,
        decode,
        x,
        radius,
        objective=as_objective(objective, encode_std, target),
        norm=norm,
        box=box,
        bounds=bounds,
        random_state=random_state,
    )
