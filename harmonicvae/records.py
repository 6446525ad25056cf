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
#: What kind of estimate a sampled number is; none of them is a bound.
ESTIMATE_KINDS = ("unbiased", "ratio", "least_squares")


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


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """A number estimated from random samples, with a confidence interval.

    Parameters
    ----------
    value : float
        The estimate; NaN where it is undefined (a degree without variance).
    lower, upper : float
        Ends of the interval.  It misses the truth in about 1 − confidence of all repetitions:
        they are no bounds.
    standard_error : float
        Of ``value``, ≥ 0.
    kind : {"unbiased", "ratio", "least_squares"}
        "unbiased": its mean over repetitions is the truth; "ratio": of two unbiased estimates,
        bias O(1/n); "least_squares": fitted, with a bias from truncation and constraints.
    """

    value: float
    lower: float
    upper: float
    standard_error: float
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ESTIMATE_KINDS:
            raise InputError(f"kind must be one of {ESTIMATE_KINDS}, got {self.kind!r}")


@dataclass(frozen=True, kw_only=True)
class Spectrum(Record):
    """A spectrum or curve estimated from random samples, with confidence intervals.

    Parameters
    ----------
    name : str
        What it is: "hermite" (weights over degrees), "noise_stability" (over correlations),
        "slice_power" or "radial_power" (over frequencies).
    abscissa : ndarray of shape (k,)
        Degrees, correlations, or frequencies (cycles per input unit, or per pixel).
    values, lower, upper : ndarray of shape (k,)
        Estimates and the ends of their intervals, each for itself; squared output units.
    kind : str
        As in :class:`Estimate`, of every value.
    status : {"estimate", "degenerate"}
        "degenerate": the function does not vary, so that ratios are NaN.  Never certified.
    confidence : float
        Level of the intervals, in (0, 1).
    summaries : mapping of str to Estimate
        Derived numbers such as "variance", "mean_degree" or "centroid".
    n_samples : int
        Independent samples that were drawn (not evaluations, of which there may be more).
    units, n_units : str, int
        What the bootstrap resampled, and how many there were.
    seconds : float
        Wall time.
    details : mapping
        How it was computed.
    stability : Spectrum or None
        The curve that a Hermite spectrum was fitted to.
    parts : tuple of Spectrum
        One for each centre of an average.
    """

    name: str
    abscissa: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    kind: str
    status: str = "estimate"
    confidence: float
    summaries: Mapping[str, Estimate] = field(default_factory=dict)
    n_samples: int
    units: str
    n_units: int
    seconds: float = math.nan
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    stability: Spectrum | None = field(default=None, repr=False)
    parts: tuple[Spectrum, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.status not in ("estimate", "degenerate"):
            raise InputError(f"status must be 'estimate' or 'degenerate', got {self.status!r}")
        if self.kind not in ESTIMATE_KINDS:
            raise InputError(f"kind must be one of {ESTIMATE_KINDS}, got {self.kind!r}")
        if not len(self.abscissa) == len(self.values) == len(self.lower) == len(self.upper):
            raise InputError("abscissa, values, lower and upper must have one length")

    def __getitem__(self, name: str) -> Estimate:
        """Return a derived number by its name."""
        if name not in self.summaries:
            raise InputError(f"name must be one of {sorted(self.summaries)}, got {name!r}")
        return self.summaries[name]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a point: spectrum, abscissa, value, lower, upper, kind."""
        return pd.DataFrame(
            {
                "spectrum": self.name,
                "abscissa": self.abscissa,
                "value": self.values,
                "lower": self.lower,
                "upper": self.upper,
                "kind": self.kind,
            }
        )

    def summary_frame(self) -> pd.DataFrame:
        """Return one row a derived number: spectrum, quantity and the fields of its estimate."""
        rows = [
            {"spectrum": self.name, "quantity": name, **item.to_dict()}
            for name, item in self.summaries.items()
        ]
        return pd.DataFrame(rows)
