"""Maximum-damage attacks on the reconstruction of any encoder and decoder.

``ATTACKS`` maps method names to classes; :func:`attack` runs one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from harmonicvae.attacks.base import Attack, Callables
from harmonicvae.attacks.baselines import LinearisedAttack, RandomNoise
from harmonicvae.attacks.max_damage import APGD
from harmonicvae.attacks.metrics import (
    damage_bound_ratio,
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.exceptions import InputError
from harmonicvae.records import AttackResult

__all__ = [
    "APGD",
    "ATTACKS",
    "Attack",
    "LinearisedAttack",
    "RandomNoise",
    "attack",
    "damage_bound_ratio",
    "log_likelihood_degradation",
    "relative_damage",
    "reproduction_log_ratio",
]

#: Every attack by its name.
ATTACKS: MappingProxyType[str, type[Attack]] = MappingProxyType(
    {"apgd": APGD, "random": RandomNoise, "linear": LinearisedAttack}
)


def attack(
    encode: Callables,
    decode: Callables,
    x: Any,
    radius: float | Sequence[float],
    method: str = "apgd",
    *,
    norm: str = "l2",
    box: tuple[Any, Any] | None = None,
    random_state: Any = None,
    **options: Any,
) -> AttackResult | list[AttackResult]:
    """Maximise F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂ over ‖δ‖ ≤ radius for each input.

    Parameters
    ----------
    encode, decode : callable
        Encoder mean p and decoder g on tensors with one row per input.
    x : array, DataFrame or Tensor of shape (n, d)
        Clean inputs, finite.
    radius : float or sequence of float
        Radius of the ball, in input units, ≥ 0.
    method : str, default="apgd"
        Key of ``ATTACKS``.
    norm : {"l2", "linf"}, default="l2"
        Norm of the ball.
    box : (low, high) or None, default=None
        Pixel box that x + δ stays in.
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
    if method not in ATTACKS:
        raise InputError(f"method must be one of {sorted(ATTACKS)}, got {method!r}")
    try:
        chosen = ATTACKS[method](**options)
    except TypeError as error:
        raise InputError(f"options of {method!r}: {error}") from error
    return chosen.attack(encode, decode, x, radius, norm=norm, box=box, random_state=random_state)
