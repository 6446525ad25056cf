"""What an attack did to a reconstruction, as numbers that can be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, SoundnessError

_LOG_TWO_PI = math.log(2 * math.pi)


def _rows(name: str, values: Any) -> np.ndarray:
    """Return a finite float64 (n, d) array."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"{name} must have shape (n, d), got {array.shape}; flatten the images")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return array


def _matching(**named: Any) -> list[np.ndarray]:
    """Return arrays of one common shape (n, d)."""
    arrays = {name: _rows(name, values) for name, values in named.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"shapes must agree, got {shapes}")
    return list(arrays.values())


def relative_damage(damage: Any, decoding: Any) -> np.ndarray:
    """Damage over the size of the clean decoding, F/‖g(p(x))‖₂.

    Parameters
    ----------
    damage : array of shape (n,)
        F, in output units, ≥ 0.
    decoding : array of shape (n, d)
        g(p(x)).

    Returns
    -------
    ndarray of shape (n,)
        No unit, ≥ 0; where the decoding is 0: ``inf``, or 0 if the damage is 0 too.

    Raises
    ------
    InputError
        If shapes do not match or values are not finite.

    Examples
    --------
    >>> relative_damage([1.0, 0.0], [[3.0, 4.0], [0.0, 0.0]])
    array([0.2, 0. ])
    """
    clean = _rows("decoding", decoding)
    values = np.asarray(damage, dtype=np.float64)
    if values.shape != (len(clean),):
        raise InputError(f"damage must have shape ({len(clean)},), got {values.shape}")
    size = np.linalg.norm(clean, axis=1)
    full = np.where(values > 0, np.inf, 0.0)
    return np.divide(values, size, out=full, where=size > 0)


def _log_likelihood(x: np.ndarray, decoding: np.ndarray) -> np.ndarray:
    """Log density of x under N(decoding, I), in nats."""
    return -0.5 * ((x - decoding) ** 2).sum(axis=1) - 0.5 * x.shape[1] * _LOG_TWO_PI


def log_likelihood_degradation(x: Any, decoding: Any, attacked_decoding: Any) -> np.ndarray:
    """Relative change of the clean input's likelihood, |log p(x|z*) − log p(x|z)| / log p(x|z).

    Parameters
    ----------
    x : array of shape (n, d)
        Clean inputs; the attacked input plays no part beyond its code z*.
    decoding : array of shape (n, d)
        g(z), z the code of x.
    attacked_decoding : array of shape (n, d)
        g(z*), z* the code of x + δ.

    Returns
    -------
    ndarray of shape (n,)
        No unit, ≤ 0; more negative is worse.

    Raises
    ------
    InputError
        If shapes do not match or values are not finite.

    Notes
    -----
    The decoder is Gaussian with unit variance, the constant included:
    log p(x|z) = −½‖x − g(z)‖² − (d/2)·log 2π.  It is negative for every x, so the ratio is
    never positive; it is −1 where the attack doubles |log p|.

    References
    ----------
    Camuto et al., "Towards a Theoretical Understanding of the Robustness of Variational
    Autoencoders", arXiv 2007.07365.

    Examples
    --------
    With d = 2 and a perfect reconstruction, log p = −log 2π ≈ −1.838; moving the
    decoding by 1 costs ½.

    >>> log_likelihood_degradation([[0.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]).round(4)
    array([-0.2721])
    """
    clean, before, after = _matching(x=x, decoding=decoding, attacked_decoding=attacked_decoding)
    base = _log_likelihood(clean, before)
    return np.abs(_log_likelihood(clean, after) - base) / base


def reproduction_log_ratio(decoding: Any, attacked_decoding: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2022 reproduction's "degradation", mean over pixels of log|a − b| / log|a|.

    Parameters
    ----------
    decoding : array of shape (n, d)
        a, the decodings before the attack.
    attacked_decoding : array of shape (n, d)
        b, the decodings after it.

    Returns
    -------
    mean : ndarray of shape (n,)
        No unit; NaN where every pixel was excluded.
    excluded : int ndarray of shape (n,)
        Pixels left out.

    Raises
    ------
    InputError
        If shapes do not match or values are not finite.

    Notes
    -----
    Kept to compare with the reproduction's table 4 only: it is no likelihood and depends
    on the unit of the pixels.  Pixels where it is not defined are excluded and counted:
    a = 0 and a = b (logarithm of 0) and |a| = 1 (division by 0).  Pixels near |a| = 1
    stay in and can dominate the mean.

    Examples
    --------
    >>> mean, excluded = reproduction_log_ratio([[0.1, 1.0, 0.0]], [[0.11, 2.0, 1.0]])
    >>> mean.round(6), excluded
    (array([2.]), array([2]))
    """
    before, after = _matching(decoding=decoding, attacked_decoding=attacked_decoding)
    difference, size = np.abs(before - after), np.abs(before)
    defined = (difference > 0) & (size > 0) & (size != 1)
    upper = np.log(np.where(defined, difference, 1.0))
    lower = np.log(np.where(defined, size, math.e))
    defined &= lower != 0
    count = defined.sum(axis=1)
    ratio = np.divide(upper, lower, out=np.zeros_like(upper), where=defined)
    mean = np.full(len(before), np.nan)
    np.divide(ratio.sum(axis=1), count, out=mean, where=count > 0)
    return mean, before.shape[1] - count


def damage_bound_ratio(
    damage: Any,
    encoder_bound: float,
    decoder_bound: float,
    radius: float,
    *,
    certified: bool = False,
    rounding: float = 0.0,
) -> np.ndarray:
    """Damage over its upper bound, F/(a·b·C).

    Parameters
    ----------
    damage : array of shape (n,)
        F, in output units, ≥ 0.
    encoder_bound, decoder_bound : float
        Upper bounds b and a on the ℓ2 Lipschitz constants of encoder mean and decoder, ≥ 0.
    radius : float
        C, the ℓ2 radius, in input units, ≥ 0; for an ℓ∞ ball give √d times its radius.
    certified : bool, default=False
        Whether both bounds are proved; then a ratio above 1 is an error.
    rounding : float, default=0
        Absolute error of the damage, in output units, ≥ 0, that is forgiven before a
        bound is called wrong.  In float64 about 10⁻¹⁵ of the decodings' size; it matters
        for radii near 10⁻⁸ of the inputs' size only.

    Returns
    -------
    ndarray of shape (n,)
        No unit; 0 where the damage is 0, ``inf`` where only the bound is 0.

    Raises
    ------
    InputError
        If a bound or the radius is negative or NaN, or the damage is negative or not finite.
    SoundnessError
        If ``certified`` and F − ``rounding`` exceeds (1 + 10⁻⁹)·a·b·C: it would disprove
        a bound.

    Examples
    --------
    >>> damage_bound_ratio([6.0, 0.0], encoder_bound=2.0, decoder_bound=3.0, radius=2.0)
    array([0.5, 0. ])
    """
    factors = {"encoder_bound": encoder_bound, "decoder_bound": decoder_bound, "radius": radius}
    for name, value in {**factors, "rounding": rounding}.items():
        if not value >= 0:
            raise InputError(f"{name} must be >= 0, got {value!r}")
    values = np.asarray(damage, dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise InputError(f"damage must be finite and >= 0, got {values!r}")
    bound = 0.0 if 0 in factors.values() else float(encoder_bound) * decoder_bound * radius
    full = np.where(values > 0, np.inf, 0.0)
    ratio = np.divide(values, bound, out=full, where=bound > 0)
    if certified and bool((values - rounding > bound * (1 + 1e-9)).any()):
        worst = int(ratio.argmax())
        raise SoundnessError(
            f"damage {values.flat[worst]!r} exceeds the certified bound {bound!r} "
            f"(encoder {encoder_bound!r} × decoder {decoder_bound!r} × radius {radius!r}): "
            "a bound is wrong or belongs to another model; please report it"
        )
    return ratio
