"""Elementwise activations with slope ranges that hold for every input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
from scipy.special import expit

from harmonicvae.exceptions import InputError, UnsupportedNetworkError

Elementwise = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Activation:
    """An elementwise function with bounds on its slope.

    Parameters
    ----------
    name : str
        Key in :data:`ACTIVATIONS`.
    alpha, beta : float
        (φ(a) − φ(b)) / (a − b) lies in [alpha, beta] for all a ≠ b; exact numbers, not rounded.
    function, derivative, curvature : callable
        φ, φ′ and φ″ on float64 arrays, elementwise.
    parameters : tuple of float, default=()
        What else the function depends on, for instance the slope of a leaky ReLU.
    kink : tuple of two floats or None, default=None
        Slopes left and right of 0 where φ has no derivative at 0.

    Examples
    --------
    >>> sigmoid = activation("sigmoid")
    >>> sigmoid.alpha, sigmoid.beta
    (0.0, 0.25)
    """

    name: str
    alpha: float
    beta: float
    function: Elementwise
    derivative: Elementwise
    curvature: Elementwise
    parameters: tuple[float, ...] = ()
    kink: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and math.isfinite(self.beta)):
            raise InputError(f"slopes of {self.name} must be finite, got {self.alpha}, {self.beta}")
        if self.alpha > self.beta:
            raise InputError(
                f"slopes of {self.name} need alpha <= beta, got [{self.alpha}, {self.beta}]"
            )

    @property
    def is_linear(self) -> bool:
        """True if the slope range is one number, so that the function is a scaling."""
        return self.alpha == self.beta

    def with_slopes(self, alpha: float, beta: float) -> Activation:
        """Return the same function with a wider slope range.

        Parameters
        ----------
        alpha, beta : float
            New range; must contain the present one.

        Returns
        -------
        Activation

        Raises
        ------
        InputError
            If the new range does not contain the present one.

        Examples
        --------
        >>> activation("sigmoid").with_slopes(0.0, 1.0).beta
        1.0
        """
        if not (alpha <= self.alpha and self.beta <= beta):
            raise InputError(
                f"slope range must contain that of {self.name}, "
                f"[{self.alpha}, {self.beta}], got [{alpha}, {beta}]"
            )
        return replace(self, alpha=float(alpha), beta=float(beta))


def _zero(z: np.ndarray) -> np.ndarray:
    return np.zeros_like(z)


def _one(z: np.ndarray) -> np.ndarray:
    return np.ones_like(z)


def _copy(z: np.ndarray) -> np.ndarray:
    return np.array(z)


def _leaky(z: np.ndarray, slope: float) -> np.ndarray:
    return np.where(z > 0, z, slope * z + 0.0)


def _leaky_derivative(z: np.ndarray, slope: float) -> np.ndarray:
    return np.where(z > 0, 1.0, slope)


def _sigmoid_derivative(z: np.ndarray) -> np.ndarray:
    return np.minimum(expit(z) * expit(-z), 0.25)  # rounding can lift it by one ulp


def _sigmoid_curvature(z: np.ndarray) -> np.ndarray:
    return _sigmoid_derivative(z) * (expit(-z) - expit(z))


def _tanh_derivative(z: np.ndarray) -> np.ndarray:
    return 4.0 * _sigmoid_derivative(2.0 * z)


def _tanh_curvature(z: np.ndarray) -> np.ndarray:
    return -2.0 * np.tanh(z) * _tanh_derivative(z)


def _softplus(z: np.ndarray, sharpness: float) -> np.ndarray:
    return np.logaddexp(0.0, sharpness * z) / sharpness


def _softplus_derivative(z: np.ndarray, sharpness: float) -> np.ndarray:
    return expit(sharpness * z)


def _softplus_curvature(z: np.ndarray, sharpness: float) -> np.ndarray:
    return sharpness * _sigmoid_derivative(sharpness * z)


def _elu(z: np.ndarray, scale: float) -> np.ndarray:
    return np.where(z > 0, z, scale * np.expm1(np.minimum(z, 0.0)))


def _elu_derivative(z: np.ndarray, scale: float) -> np.ndarray:
    return np.where(z > 0, 1.0, scale * np.exp(np.minimum(z, 0.0)))


def _elu_curvature(z: np.ndarray, scale: float) -> np.ndarray:
    return np.where(z > 0, 0.0, scale * np.exp(np.minimum(z, 0.0)))


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} must be finite, got {value!r}")
    return float(value)


def identity() -> Activation:
    """Return φ(z) = z, slope range [1, 1].

    Examples
    --------
    >>> identity().is_linear
    True
    """
    return Activation("identity", 1.0, 1.0, _copy, _one, _zero)


def relu() -> Activation:
    """Return φ(z) = max(z, 0), slope range [0, 1].

    Examples
    --------
    >>> relu().function(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    function, derivative = partial(_leaky, slope=0.0), partial(_leaky_derivative, slope=0.0)
    return Activation("relu", 0.0, 1.0, function, derivative, _zero, kink=(0.0, 1.0))


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """Return φ(z) = z for z > 0 and negative_slope·z below.

    Parameters
    ----------
    negative_slope : float, default=0.01
        Any finite number; the slope range is [min(1, it), max(1, it)].

    Returns
    -------
    Activation

    Raises
    ------
    InputError
        If ``negative_slope`` is not finite.

    Examples
    --------
    >>> leaky_relu(0.5).alpha
    0.5
    """
    slope = _finite("negative_slope", negative_slope)
    return Activation(
        "leaky_relu",
        min(slope, 1.0),
        max(slope, 1.0),
        partial(_leaky, slope=slope),
        partial(_leaky_derivative, slope=slope),
        _zero,
        parameters=(slope,),
        kink=(slope, 1.0),
    )


def sigmoid() -> Activation:
    """Return φ(z) = 1 / (1 + e^−z), slope range [0, ¼].

    Examples
    --------
    >>> sigmoid().derivative(np.array([0.0]))
    array([0.25])
    """
    return Activation("sigmoid", 0.0, 0.25, expit, _sigmoid_derivative, _sigmoid_curvature)


def tanh() -> Activation:
    """Return φ(z) = tanh z, slope range [0, 1].

    Examples
    --------
    >>> tanh().derivative(np.array([0.0]))
    array([1.])
    """
    return Activation("tanh", 0.0, 1.0, np.tanh, _tanh_derivative, _tanh_curvature)


def softplus(sharpness: float = 1.0) -> Activation:
    """Return φ(z) = log(1 + e^(sharpness·z)) / sharpness, slope range [0, 1].

    Parameters
    ----------
    sharpness : float, default=1.0
        > 0; torch calls it ``beta``.

    Returns
    -------
    Activation

    Raises
    ------
    InputError
        If ``sharpness`` is not finite and > 0.

    Examples
    --------
    >>> softplus().derivative(np.array([0.0]))
    array([0.5])
    """
    factor = _finite("sharpness", sharpness)
    if factor <= 0:
        raise InputError(f"sharpness of softplus must be > 0, got {sharpness!r}")
    return Activation(
        "softplus",
        0.0,
        1.0,
        partial(_softplus, sharpness=factor),
        partial(_softplus_derivative, sharpness=factor),
        partial(_softplus_curvature, sharpness=factor),
        parameters=(factor,),
    )


def elu(scale: float = 1.0) -> Activation:
    """Return φ(z) = z for z > 0 and scale·(e^z − 1) below.

    Parameters
    ----------
    scale : float, default=1.0
        Any finite number; torch calls it ``alpha``. The slope range is
        [min(0, scale), max(1, scale)].

    Returns
    -------
    Activation

    Raises
    ------
    InputError
        If ``scale`` is not finite.

    Examples
    --------
    >>> elu(2.0).beta
    2.0
    """
    factor = _finite("scale", scale)
    return Activation(
        "elu",
        min(factor, 0.0),
        max(factor, 1.0),
        partial(_elu, scale=factor),
        partial(_elu_derivative, scale=factor),
        partial(_elu_curvature, scale=factor),
        parameters=(factor,),
        kink=None if factor == 1.0 else (factor, 1.0),
    )


#: Functions that return an activation, by name.
ACTIVATIONS: MappingProxyType[str, Callable[..., Activation]] = MappingProxyType(
    {
        "identity": identity,
        "relu": relu,
        "leaky_relu": leaky_relu,
        "sigmoid": sigmoid,
        "tanh": tanh,
        "softplus": softplus,
        "elu": elu,
    }
)


def activation(name: str | Activation) -> Activation:
    """Return an activation by name, with its default parameters.

    Parameters
    ----------
    name : str or Activation
        Key in :data:`ACTIVATIONS`; an Activation is returned as it is.

    Returns
    -------
    Activation

    Raises
    ------
    UnsupportedNetworkError
        If the slope range of the named function is not known here.

    Examples
    --------
    >>> activation("tanh").beta
    1.0
    """
    if isinstance(name, Activation):
        return name
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedNetworkError(
            f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}: "
            "its slope range is not known, so no bound can be given"
        )
    return ACTIVATIONS[name]()
