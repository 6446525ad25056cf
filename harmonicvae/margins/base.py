"""One margin, with what is known about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.margins import formulas
from harmonicvae.margins.arguments import check_number, check_positive_integer, check_stds
from harmonicvae.margins.setting import Setting, check_method
from harmonicvae.records import STATUSES, Bound, Record

#: Every margin by its name, as a function of :class:`harmonicvae.margins.setting.Setting`.
MARGINS: MappingProxyType[str, Callable[[Setting], float]] = MappingProxyType(
    {
        "barrett_1": formulas.barrett_1,
        "sharpened_1": formulas.sharpened_1,
        "barrett_2": formulas.barrett_2,
        "barrett_2_root": formulas.barrett_2_root,
        "triangle_chi2": formulas.triangle_chi2,
        "noncentral_chi2": formulas.noncentral_chi2,
    }
)


@dataclass(frozen=True, kw_only=True)
class Margin(Record):
    """A radius within which no perturbation makes the reconstruction leave r, in probability.

    Parameters
    ----------
    value : float
        R, in input units, ≥ 0; ``inf`` where no perturbation matters, 0 where nothing is
        promised.
    method : str
        Key in ``harmonicvae.margins.MARGINS``, or "first_order".
    status : {"certified", "float64", "estimate"}
        "certified": proved, since both constants are; "float64": true if the constants
        are; "estimate": no guarantee.
    r : float
        Allowed distance ‖g(z') − g(z)‖₂, in output units.
    encoder_bound, decoder_bound : float
        Constants used, b of the encoder mean and a of the decoder; NaN where none was.
    std : float or ndarray of shape (latent_dim,)
        Encoder standard deviation used.
    latent_dim : int
        Number of latent units.
    std_bound : float, default=0
        Lipschitz constant c of σ(x) used.
    message : str
        What limits the guarantee, or makes the value 0.
    """

    value: float
    method: str
    status: str
    r: float
    encoder_bound: float
    decoder_bound: float
    std: float | np.ndarray = field(compare=False)
    latent_dim: int
    std_bound: float = 0.0
    message: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(f"status must be one of {STATUSES}, got {self.status!r}")
        if not self.value >= 0:
            raise InputError(f"a margin is >= 0, got {self.value!r}")


def _constant(name: str, bound: Any) -> tuple[float, str, str]:
    """Return a Lipschitz constant, the status it lends to a margin, and why."""
    if not isinstance(bound, Bound):
        return check_number(name, bound, infinite=True), "float64", ""
    if bound.norm != "l2":
        raise InputError(f"{name} must be a bound in the l2 norm, got norm={bound.norm!r}")
    if bound.kind != "upper":
        return bound.value, "estimate", f"{name} is no upper bound (kind {bound.kind!r})"
    if bound.scope != "global":
        return bound.value, "estimate", f"{name} holds on a box only (scope {bound.scope!r})"
    return bound.value, bound.status, ""


def _joint_status(statuses: Iterable[str]) -> str:
    """Return the weakest status."""
    return max(statuses, key=STATUSES.index)


def margin(
    encoder_bound: float | Bound,
    decoder_bound: float | Bound,
    std: Any,
    r: float,
    *,
    latent_dim: int,
    std_bound: float | Bound = 0.0,
    method: str = "noncentral_chi2",
) -> Margin:
    """Radius R of input perturbations that keep the reconstruction within r, in probability.

    Parameters
    ----------
    encoder_bound, decoder_bound : float or Bound
        Upper bounds b on Lip(p) of the encoder mean and a on Lip(g) of the decoder, ℓ2,
        ≥ 0; ``inf`` is allowed.
    std : float or array of shape (latent_dim,)
        Encoder standard deviation, ≥ 0, in latent units: a number γ that holds for every
        input, or σ(x) of one input (then 'barrett_1', 'sharpened_1' or 'triangle_chi2').
    r : float
        Allowed distance ‖g(z') − g(z)‖₂, in output units, ≥ 0.
    latent_dim : int
        Number m of latent units, ≥ 1.
    std_bound : float or Bound, default=0
        Upper bound c on Lip(σ), ≥ 0; must be given where σ depends on the input.
    method : str, default="noncentral_chi2"
        Key of ``MARGINS``.

    Returns
    -------
    Margin
        ``value`` in input units.

    Raises
    ------
    InputError
        If an argument is out of range, a bound is not in the ℓ2 norm, or the method needs a
        fixed σ.

    Notes
    -----
    Guarantee, if the constants are upper bounds: P(‖g(z') − g(z)‖₂ ≤ r) > ½ for every
    ‖δ‖₂ < R, where z ~ N(p(x), σ(x)²) and z' ~ N(p(x + δ), σ(x + δ)²) are independent
    ('barrett_1': of any dependence).  It holds for every input x; with σ(x) given, for that
    input.  R is rounded down: the inequality was proved at the R returned, which
    is about 10⁻¹⁵ (relative) below the root, for noncentral_chi2 near R = 0 up to
    10⁻⁷·r/(ab).

    Status: "certified" only if every constant is a certified, global upper bound and σ is
    one fixed number; "float64" for plain numbers and for an array σ(x), which a network
    computed in float64; "estimate" where a constant is no upper bound, or holds on a box
    only (codes are unbounded, and x + δ may leave the box).

    A constant decoder (a = 0) gives ``inf``.  A constant encoder mean (b = 0, c = 0) gives
    ``inf`` if the noise alone keeps the reconstruction within r, else 0.  An infinite
    constant gives 0.

    Order where several apply: barrett_1 ≤ sharpened_1, barrett_2 ≤ barrett_2_root ≤
    triangle_chi2, and for a fixed σ all of them ≤ noncentral_chi2.

    References
    ----------
    Barrett et al., "Certifiably Robust Variational Autoencoders", arXiv 2102.07559.

    Examples
    --------
    >>> found = margin(5.0, 5.0, 0.2, 8.0, latent_dim=10)
    >>> round(found.value, 4), found.status
    (0.271, 'float64')
    """
    if method not in MARGINS:
        raise InputError(f"method must be one of {sorted(MARGINS)}, got {method!r}")
    size = check_positive_integer("latent_dim", latent_dim)
    stds = check_stds(std, size)
    if stds.ndim > 1:
        raise InputError(
            f"std must be a number or have shape ({size},), got {stds.shape}; "
            "use margin_frame for one row per image"
        )
    radius = check_number("r", r)
    named = {"encoder_bound": encoder_bound, "decoder_bound": decoder_bound}
    constants = {name: _constant(name, bound) for name, bound in named.items()}
    constants["std_bound"] = _constant("std_bound", std_bound)
    statuses = [constants[name][1] for name in named]
    if stds.ndim:
        statuses.append("float64")
    if isinstance(std_bound, Bound) or constants["std_bound"][0] > 0:
        statuses.append(constants["std_bound"][1])
    encoder, decoder, growth = (value for value, _, _ in constants.values())
    value = _value(method, (encoder, decoder, growth), stds, radius, size)
    notes = [note for _, _, note in constants.values() if note]
    if method.startswith("barrett_2") and size == 1:
        notes.append("bound 2 says nothing for latent_dim 1: its tail bound needs latent_dim >= 2")
    return Margin(
        value=value,
        method=method,
        status=_joint_status(statuses),
        r=radius,
        encoder_bound=encoder,
        decoder_bound=decoder,
        std=stds if stds.ndim else float(stds),
        latent_dim=size,
        std_bound=growth,
        message="; ".join(notes),
    )


def _value(
    method: str, constants: tuple[float, float, float], stds: np.ndarray, r: float, size: int
) -> float:
    """Return R for numbers that have been checked; the constants are b, a and c."""
    encoder, decoder, growth = constants
    setting = Setting(
        encoder=_finite_fraction(encoder),
        decoder=_finite_fraction(decoder),
        growth=_finite_fraction(growth),
        variances=tuple(Fraction(float(s)) ** 2 for s in np.broadcast_to(stds, size)),
        r=Fraction(r),
    )
    if decoder == 0 or math.isinf(max(encoder, decoder, growth)):
        check_method(method, setting)
        return math.inf if decoder == 0 else 0.0
    return MARGINS[method](setting)


def _finite_fraction(value: float) -> Fraction:
    """Return an exact rational number, 1 in place of infinity (which is handled apart)."""
    return Fraction(1) if math.isinf(value) else Fraction(value)
