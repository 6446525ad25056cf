"""Elementwise activations with slope ranges that hold for every input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
from scipy.special import expit, ndtr

from harmonicvae.exceptions import InputError, UnsupportedNetworkError

Elementwise = Callable[[np.ndarray], np.ndarray]

#: Largest slopes of SiLU, GELU and GELU with tanh, rounded upwards: where φ″ = 0, at
#: z = 2.3993572805154…, √2 and 1.4185040087908…. As φ(z) − φ(−z) = z for all three,
#: φ′(z) + φ′(−z) = 1 and the smallest slope is 1 − the largest, rounded downwards.
_SILU_SLOPES = (-0.09983932012886693, 1.099839320128867)
_GELU_SLOPES = (-0.1289041451851548, 1.128904145185155)
_GELU_TANH_SLOPES = (-0.12899306865877178, 1.128993068658772)
#: GELU with tanh is z·σ(c·(z + κz³)), c = 2√(2/π).
_GELU_TANH_FACTOR, _GELU_TANH_CUBIC = 1.5957691216057308, 0.044715
#: Where the gates of SiLU and GELU are 0 or 1 to far more than 53 bits.
_GATE_END = 800.0


@dataclass(frozen=True)
class Activation:
    """An elementwise function with bounds on its slope.

    Parameters
    ----------
    name : str
        Key in :data:`ACTIVATIONS`.
    alpha, beta : float
        (φ(a) − φ(b)) / (a − b) lies in [alpha, beta] for all a ≠ b; the exact range, or
        where its ends are no float64 numbers the next ones outside it.
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

    def __str__(self) -> str:
        """Return the name, with parameters where there are any."""
        parameters = ", ".join(f"{value:g}" for value in self.parameters)
        return f"{self.name}({parameters})" if parameters else self.name

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


def _silu(z: np.ndarray) -> np.ndarray:
    return z * expit(z)


def _silu_derivative(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    return np.clip(expit(z) + inside * _sigmoid_derivative(inside), *_SILU_SLOPES)


def _silu_curvature(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    return _sigmoid_derivative(inside) * (2.0 - inside * np.tanh(0.5 * inside))


def _normal_density(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _gelu(z: np.ndarray) -> np.ndarray:
    return z * ndtr(z)


def _gelu_derivative(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    return np.clip(ndtr(z) + inside * _normal_density(inside), *_GELU_SLOPES)


def _gelu_curvature(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    return _normal_density(inside) * (2.0 - inside * inside)


def _gelu_tanh(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    return z * expit(_gelu_tanh_argument(inside)[0])


def _gelu_tanh_derivative(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    argument, rate, _ = _gelu_tanh_argument(inside)
    slope = expit(argument) + inside * rate * _sigmoid_derivative(argument)
    return np.clip(slope, *_GELU_TANH_SLOPES)


def _gelu_tanh_curvature(z: np.ndarray) -> np.ndarray:
    inside = np.clip(z, -_GATE_END, _GATE_END)
    argument, rate, bend = _gelu_tanh_argument(inside)
    gate = 2.0 * rate + inside * bend - inside * rate * rate * np.tanh(0.5 * argument)
    return _sigmoid_derivative(argument) * gate


def _gelu_tanh_argument(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return c·(z + κz³) and its first two derivatives."""
    square = _GELU_TANH_CUBIC * z * z
    factor = _GELU_TANH_FACTOR
    argument = factor * z * (1.0 + square)
    return argument, factor * (1.0 + 3.0 * square), 6.0 * factor * _GELU_TANH_CUBIC * z


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


def silu() -> Activation:
    """Return φ(z) = z / (1 + e^−z), slope range [−0.09984, 1.09984].

    Notes
    -----
    Also called swish. φ″(z) = σ′(z)·(2 − z·tanh(z/2)) has the zeros ±2.39936 alone, as
    z·tanh(z/2) is even and grows for z > 0; there the slope is smallest and largest. Both
    numbers are rounded outwards, to the next float64.

    Examples
    --------
    >>> round(silu().beta, 6), round(silu().alpha, 6)
    (1.099839, -0.099839)
    """
    return Activation("silu", *_SILU_SLOPES, _silu, _silu_derivative, _silu_curvature)


def gelu(approximate: str = "none") -> Activation:
    """Return φ(z) = z·Φ(z), Φ the normal distribution function, slope range [−0.129, 1.129].

    Parameters
    ----------
    approximate : {"none", "tanh"}, default="none"
        "tanh" is φ(z) = z·(1 + tanh(√(2/π)·(z + 0.044715·z³)))/2 as in torch, named
        "gelu_tanh" in :data:`ACTIVATIONS`.

    Returns
    -------
    Activation

    Raises
    ------
    InputError
        If ``approximate`` is something else.

    Notes
    -----
    φ″ has two zeros: ±√2 for "none", where φ″ = Φ′(z)·(2 − z²). For "tanh", with v the
    argument of the gate σ(v) and κ = 0.044715, φ″ = 0 where
    z·tanh(v/2)·(1 + 9κ²z⁴/(1 + 6κz²)) is the constant 2/v′(0), and the left side is even
    and grows for z > 0: ±1.41850. The slopes there are rounded outwards, to the next float64.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", arXiv 1606.08415.

    Examples
    --------
    >>> round(gelu().beta, 6), round(gelu("tanh").beta, 6)
    (1.128904, 1.128993)
    """
    if approximate == "none":
        return Activation("gelu", *_GELU_SLOPES, _gelu, _gelu_derivative, _gelu_curvature)
    if approximate == "tanh":
        return Activation(
            "gelu_tanh",
            *_GELU_TANH_SLOPES,
            _gelu_tanh,
            _gelu_tanh_derivative,
            _gelu_tanh_curvature,
        )
    raise InputError(f"approximate must be 'none' or 'tanh', got {approximate!r}")


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
        "silu": silu,
        "gelu": gelu,
        "gelu_tanh": partial(gelu, "tanh"),
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
