"""Frozen results: what every computation returns, with the guarantee apart from the value.

Each record has ``to_dict`` (plain Python types, JSON-ready) and a list of them
becomes a DataFrame through :func:`to_frame`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae.exceptions import InputError, SoundnessError

#: What is known about a value: proved, rounding errors included; computed in
#: float64 and right up to rounding, which was not proved; or neither.
STATUSES = ("certified", "float64", "estimate")


def _plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays into plain Python values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Record:
    """Base of all records: conversion to plain dictionaries."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values (JSON-ready)."""
        return {key: _plain(value) for key, value in asdict(self).items()}  # type: ignore[call-overload]


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per record.

    Examples
    --------
    >>> to_frame([Bound(kind="upper", value=2.0, method="norm_product", status="certified")])[
    ...     ["kind", "value"]]
        kind  value
    0  upper    2.0
    """
    return pd.DataFrame([record.to_dict() for record in records])


@dataclass(frozen=True, kw_only=True)
class Bound(Record):
    """A bound on, or an estimate of, a Lipschitz constant.

    Parameters
    ----------
    kind : {"upper", "lower", "estimate"}
        Which side of the true constant ``value`` lies on; "estimate" promises neither.
    value : float
        The constant, output units per input unit, ≥ 0; ``inf`` is a valid upper bound.
    method : str
        Key in ``harmonicvae.lipschitz.METHODS``, or of a lower-bound method.
    status : {"certified", "float64", "estimate"}
        "certified": proved with all rounding errors; "float64": computed in
        float64, true up to rounding; "estimate": no guarantee.
    norm : str, default="l2"
        Norm on inputs and outputs.
    scope : str, default="global"
        "global" (all inputs) or "box" (inputs of a stated box only).
    seconds : float
        Wall time.
    network_hash : str
        SHA-256 of weights, biases and activations the bound belongs to.
    message : str
        What went other than planned, and what to try.
    details : mapping
        What the method reports beside (slopes, iterations, inflation …).
    certificate : mapping or None
        Data from which ``status="certified"`` can be checked again.
    """

    kind: str
    value: float
    method: str
    status: str
    norm: str = "l2"
    scope: str = "global"
    seconds: float = math.nan
    network_hash: str = ""
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("upper", "lower", "estimate"):
            raise InputError(f"kind must be 'upper', 'lower' or 'estimate', got {self.kind!r}")
        if self.status not in STATUSES:
            raise InputError(f"status must be one of {STATUSES}, got {self.status!r}")
        if not self.value >= 0:
            raise InputError(f"a Lipschitz constant is >= 0, got {self.value!r}")


@dataclass(frozen=True, kw_only=True)
class Bracket(Record):
    """A lower and an upper bound on the same constant.

    Raises
    ------
    SoundnessError
        If the lower bound exceeds the upper one by more than float64 rounding.
    """

    lower: Bound
    upper: Bound

    def __post_init__(self) -> None:
        if self.lower.kind != "lower" or self.upper.kind != "upper":
            raise InputError(
                f"a bracket needs a lower and an upper bound, got {self.lower.kind!r} "
                f"and {self.upper.kind!r}"
            )
        if self.lower.value > self.upper.value * (1 + 1e-9):
            raise SoundnessError(
                f"lower bound {self.lower.value!r} ({self.lower.method}) exceeds upper bound "
                f"{self.upper.value!r} ({self.upper.method}): one of them is wrong; "
                "please report the network"
            )

    @classmethod
    def joined(cls, lower: Bound, upper: Bound) -> Bracket:
        """Return the bracket of two bounds of one network that were computed apart.

        Where the upper bound's method attained more at an input of its own
        (``upper.details["attained"]``, as "interval" does), that is the lower bound.

        Examples
        --------
        >>> shared = {"status": "float64", "method": "interval"}
        >>> lower = Bound(kind="lower", value=1.0, **shared)
        >>> details = {"attained": 1.9, "point": [0.0]}
        >>> upper = Bound(kind="upper", value=2.0, details=details, **shared)
        >>> Bracket.joined(lower, upper).lower.value
        1.9
        """
        attained = upper.details.get("attained", 0.0)
        if attained > lower.value:
            count = upper.details.get("evaluated", 1)
            details = {"point": upper.details["point"], "n_points": count}
            lower = replace(lower, value=attained, method=upper.method, details=details)
        return cls(lower=lower, upper=upper)

    @property
    def ratio(self) -> float:
        """Upper over lower bound, ≥ 1; ``inf`` if the lower bound is 0, 1 if both are."""
        if self.lower.value == 0:
            return 1.0 if self.upper.value == 0 else math.inf
        return self.upper.value / self.lower.value

    def to_dict(self) -> dict[str, Any]:
        """Return lower, upper and ratio as plain values."""
        return {
            "lower": self.lower.to_dict(),
            "upper": self.upper.to_dict(),
            "ratio": self.ratio,
        }


@dataclass(frozen=True, kw_only=True)
class AttackResult(Record):
    """What an attack achieved on a batch of inputs at one radius.

    All arrays are float64; the base class of the attacks computed them, not the method.

    Parameters
    ----------
    method : str
        Key in ``harmonicvae.attacks.ATTACKS``.
    norm : str
        Norm of the ball, "l2" or "linf".
    radius : float
        Largest allowed norm of a perturbation, in input units.
    objective : str
        Key in ``harmonicvae.attacks.OBJECTIVES``: what was maximised.
    perturbation : ndarray of shape (n, d)
        Best feasible perturbation of each input.
    value : ndarray of shape (n,)
        The objective there, in its own unit, ≥ 0.
    damage : ndarray of shape (n,)
        ‖g(p(x+δ)) − g(p(x))‖₂, in output units.
    decoding, attacked_decoding : ndarray of shape (n, d)
        g(p(x)) and g(p(x+δ)).
    radius_used : ndarray of shape (n,)
        Norm of each perturbation, ≤ radius.
    box_violation : float
        Largest distance of x+δ outside the pixel box; 0 where a box is given.
    precision : mapping
        "unit_roundoff" of the evaluation, "largest_input" and "largest_code" (ℓ2 norms): what
        the rounding error of a damage depends on.
    restarts, steps, gradient_evaluations : int
        Budget used; gradient evaluations are counted per input.
    best_restart, best_step : ndarray of shape (n,)
        Where the best iterate was found.
    seconds : float
        Wall time of the whole call.
    warnings : tuple of str
        Findings of the self-audit.
    """

    method: str
    objective: str
    norm: str
    radius: float
    perturbation: np.ndarray = field(repr=False)
    value: np.ndarray
    damage: np.ndarray
    decoding: np.ndarray = field(repr=False)
    attacked_decoding: np.ndarray = field(repr=False)
    radius_used: np.ndarray = field(repr=False)
    box_violation: float
    precision: Mapping[str, float] = field(repr=False)
    restarts: int
    steps: int
    gradient_evaluations: int
    best_restart: np.ndarray = field(repr=False)
    best_step: np.ndarray = field(repr=False)
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row per input: image, radius, method, objective, value and damage."""
        count = len(self.damage)
        return pd.DataFrame(
            {
                "image": np.arange(count),
                "radius": np.full(count, self.radius),
                "method": self.method,
                "objective": self.objective,
                "value": self.value,
                "damage": self.damage,
                "radius_used": self.radius_used,
                "best_restart": self.best_restart,
                "best_step": self.best_step,
            }
        )


@dataclass(frozen=True, kw_only=True)
class CollapseDiagnostic(Record):
    """Whether the decoder of a trained model still listens to its code.

    Parameters
    ----------
    active_units : int
        Latent units whose posterior mean has variance > 0.01 over the data
        (Burda et al., arXiv 1509.00519, section 5.2).
    latent_dim : int
        Number of latent units.
    decoding_variance : float
        Variance over the data of the decoded means, summed over outputs.
    data_variance : float
        Variance of the data, summed over inputs.
    """

    active_units: int
    latent_dim: int
    decoding_variance: float
    data_variance: float

    @property
    def decoding_variance_ratio(self) -> float:
        """Share of the data's variance that the decodings show, ≥ 0; NaN for constant data."""
        if self.data_variance == 0:
            return math.nan
        return self.decoding_variance / self.data_variance

    @property
    def collapsed(self) -> bool:
        """True if no latent unit is active or the decodings vary by < 1 % of the data."""
        return self.active_units == 0 or self.decoding_variance_ratio < 0.01

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and the two derived values."""
        plain = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return plain | {
            "decoding_variance_ratio": self.decoding_variance_ratio,
            "collapsed": self.collapsed,
        }
