"""What an attack maximises: functions of the code or the decoding of a perturbed input."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from harmonicvae.attacks.frozen import Responder
from harmonicvae.attacks.inputs import check_integer, check_number
from harmonicvae.exceptions import InputError

#: Encoder standard deviation: a number, or a callable from inputs to one number a code unit.
Deviation: TypeAlias = "float | Callable[[Tensor], Tensor]"


class Objective(ABC):
    """Base class: an author says what is computed from an input and how it is compared.

    Attributes
    ----------
    name : str
        Key in ``harmonicvae.attacks.OBJECTIVES``.
    flat_at_zero : bool
        True if the gradient vanishes at δ = 0, so that a search must not start there.
    needs : tuple of str
        Arguments without which there is no such objective.
    compares_decodings : bool
        True if the features are g(p(x)) itself.
    """

    name: ClassVar[str]
    flat_at_zero: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    compares_decodings: ClassVar[bool] = False
    #: True if an encoder standard deviation of 0 has no meaning.
    positive_deviation: ClassVar[bool] = False

    @property
    def deviation(self) -> Deviation | None:
        """Encoder standard deviation, where the objective needs it."""
        return None

    @abstractmethod
    def features(self, respond: Responder, points: Tensor) -> Tensor:
        """Return what is compared, (rows, m), differentiable, of points of shape (rows, d)."""

    def reference(self, features: Tensor, images: Tensor) -> Tensor:
        """Return what the features of perturbed inputs are compared with, one row an input.

        Parameters
        ----------
        features : Tensor of shape (n, m)
            Features of the clean inputs ``images``.
        images : int64 Tensor of shape (n,)
            Which of all attacked inputs these are.
        """
        return features

    @abstractmethod
    def value(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return F of features (…, m); 0 at δ = 0, larger is worse for the model."""

    @abstractmethod
    def ascent(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the gradient, with respect to the features, of an increasing function of F.

        The function is so chosen that the gradient exists where F = 0.
        """

    def check(self, x: Tensor, outputs: int) -> None:  # noqa: B027 - most have nothing to check
        """Refuse options that do not fit n inputs whose decodings have ``outputs`` numbers."""


class Damage(Objective):
    """F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂: the change of the deterministic reconstruction.

    Notes
    -----
    In output units. The ascent is that of ½F².
    """

    name = "damage"
    compares_decodings = True

    def features(self, respond: Responder, points: Tensor) -> Tensor:
        """Return g(p(points))."""
        return respond(points)

    def value(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the ℓ2 distance."""
        return torch.linalg.vector_norm(features - reference, dim=-1)

    def ascent(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the gradient of ½F²."""
        return features - reference


class StochasticDamage(Damage):
    """Root mean square damage of a stochastic encoder, over a fixed bank of noise.

    F(δ)² = mean over k of ‖g(p(x+δ) + σ(x+δ)·ε_k) − g(p(x) + σ(x)·ε_k)‖₂².

    Parameters
    ----------
    encode_std : float or callable
        Encoder standard deviation σ ≥ 0, in code units: a number, or a callable (module)
        from inputs (rows, d) to (rows, latent_dim).
    n_noise : int, default=16
        Draws ε_k ~ N(0, I), ≥ 1, the same for all inputs and all perturbations.
    noise_seed : int, default=0
        Seed of the draws, ≥ 0.

    Notes
    -----
    In output units. With common noise the gradients are those of the mean, without further
    sampling error, and for constant σ the bound a·b·C of the damage holds for F too.  Costs
    ``n_noise`` decodings an evaluation, and as many times the memory.
    """

    name = "stochastic_damage"
    compares_decodings = False
    needs = ("encode_std",)

    def __init__(self, encode_std: Deviation, n_noise: int = 16, noise_seed: int = 0) -> None:
        self.encode_std = _checked_deviation(encode_std)
        check_integer("n_noise", n_noise, 1)
        check_integer("noise_seed", noise_seed, 0)
        if noise_seed >= 2**63:
            raise InputError(f"noise_seed must be < 2**63, got {noise_seed!r}")
        self.n_noise = n_noise
        self.noise_seed = noise_seed

    @property
    def deviation(self) -> Deviation:
        """The encoder standard deviation."""
        return self.encode_std

    def features(self, respond: Responder, points: Tensor) -> Tensor:
        """Return all decodings of every point in one row, divided by √n_noise."""
        code = respond.code(points)
        spread = respond.spread(points, code)
        generator = torch.Generator().manual_seed(self.noise_seed)
        shape = (self.n_noise, 1, *code.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(code)
        drawn = (code + spread * noise).flatten(0, 1)
        decoded = respond.decoding(drawn).unflatten(0, (self.n_noise, len(points)))
        return decoded.transpose(0, 1).flatten(1) / math.sqrt(self.n_noise)


class LatentDivergence(Objective):
    """F(δ) = KL(q(z|x+δ) ‖ q(z|x)) between the Gaussian codes: a latent attack.

    Parameters
    ----------
    encode_std : float or callable
        Encoder standard deviation σ > 0, in code units: a number, or a callable (module)
        from inputs (rows, d) to (rows, latent_dim).

    Notes
    -----
    In nats. For a constant σ it is ‖p(x+δ) − p(x)‖₂² / 2σ². The ascent is that of F.

    References
    ----------
    Gondim-Ribeiro et al., "Adversarial attacks on variational autoencoders",
    arXiv 1806.04646.
    """

    name = "latent"
    positive_deviation = True
    needs = ("encode_std",)

    def __init__(self, encode_std: Deviation) -> None:
        self.encode_std = _checked_deviation(encode_std)
        if isinstance(self.encode_std, float) and self.encode_std == 0:
            raise InputError("encode_std must be > 0 for a latent attack, got 0")

    @property
    def deviation(self) -> Deviation:
        """The encoder standard deviation."""
        return self.encode_std

    def features(self, respond: Responder, points: Tensor) -> Tensor:
        """Return mean and logarithm of the standard deviation of the code."""
        code = respond.code(points)
        spread = respond.spread(points, code).expand_as(code)
        both = (code.reshape(len(code), -1), spread.log().reshape(len(code), -1))
        return torch.cat(both, dim=-1)

    def value(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the divergence."""
        moved, shrunk = self._parts(features, reference)
        return 0.5 * (moved.square() + _exponential_remainder(2.0 * shrunk)).sum(dim=-1)

    def ascent(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the gradient of F."""
        moved, shrunk = self._parts(features, reference)
        spread = reference.chunk(2, dim=-1)[1].exp()
        return torch.cat([moved / spread, torch.expm1(2.0 * shrunk)], dim=-1)

    def _parts(self, features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return (μ′ − μ)/σ and log(σ′/σ)."""
        mean, log_spread = features.chunk(2, dim=-1)
        clean, clean_log = reference.chunk(2, dim=-1)
        return (mean - clean) / clean_log.exp(), log_spread - clean_log


def _exponential_remainder(u: Tensor) -> Tensor:
    """Return eᵘ − 1 − u ≥ 0 without cancellation, by its series near 0."""
    series = torch.zeros_like(u)
    for k in range(12, 1, -1):  # u²/2!·(1 + u/3·(1 + u/4·(…)))
        series = u / k * (1.0 + series) if k > 2 else 0.5 * u.square() * (1.0 + series)
    return torch.where(u.abs() < 0.5, series, torch.expm1(u) - u)


class TargetedDecoding(Objective):
    """F(δ) = ‖g(p(x)) − t‖₂ − ‖g(p(x+δ)) − t‖₂: how much nearer the decoding is to a target.

    Parameters
    ----------
    target : array-like of shape (m,) or (n, m)
        Decoding t to reach, in output units: one for all inputs or one for each.

    Notes
    -----
    In output units; at most the clean distance. The ascent is that of −½‖g(p(x+δ)) − t‖².
    """

    name = "targeted"
    flat_at_zero = False
    needs = ("target",)
    compares_decodings = True

    def __init__(self, target: Any) -> None:
        try:
            plain = target.detach().cpu().double().numpy() if _is_real(target) else target
            if np.iscomplexobj(plain):
                raise TypeError("complex")
            values = np.array(plain, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"target must be real, got {type(target).__name__}") from error
        if values.ndim not in (1, 2) or not np.isfinite(values).all():
            raise InputError(
                f"target must be finite and of shape (m,) or (n, m), got shape {values.shape}"
            )
        self.target = torch.from_numpy(values)

    def check(self, x: Tensor, outputs: int) -> None:
        """Refuse a target that does not have the decodings' shape."""
        shape = tuple(self.target.shape)
        if shape[-1] != outputs or (len(shape) == 2 and shape[0] != len(x)):
            raise InputError(
                f"target must have shape ({outputs},) or ({len(x)}, {outputs}), got {shape}"
            )

    def features(self, respond: Responder, points: Tensor) -> Tensor:
        """Return g(p(points))."""
        return respond(points)

    def reference(self, features: Tensor, images: Tensor) -> Tensor:
        """Return clean decodings and targets side by side."""
        target = (self.target if self.target.ndim == 1 else self.target[images]).to(features)
        return torch.cat([features, target.expand_as(features)], dim=-1)

    def value(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return how much nearer to the target the features are than the clean ones."""
        clean, target = reference.chunk(2, dim=-1)
        before = torch.linalg.vector_norm(clean - target, dim=-1)
        return before - torch.linalg.vector_norm(features - target, dim=-1)

    def ascent(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return the gradient of minus half the squared distance to the target."""
        return reference.chunk(2, dim=-1)[1] - features


def _is_real(value: Any) -> bool:
    """Return whether a value is a tensor of real numbers."""
    return isinstance(value, Tensor) and not value.is_complex()


def _checked_deviation(value: Any) -> Deviation:
    """Return a standard deviation as a float or a callable."""
    if callable(value):
        return value
    return check_number("encode_std", value, 0.0)


#: Every objective by its name.
OBJECTIVES: MappingProxyType[str, type[Objective]] = MappingProxyType(
    {item.name: item for item in (Damage, StochasticDamage, LatentDivergence, TargetedDecoding)}
)


def as_objective(
    objective: Objective | str, encode_std: Any = None, target: Any = None
) -> Objective:
    """Return an objective from its name and what it needs.

    Parameters
    ----------
    objective : Objective or str
        An instance, or a key of ``OBJECTIVES``.
    encode_std : float, callable or None, default=None
        For "stochastic_damage" and "latent".
    target : array-like or None, default=None
        For "targeted".

    Returns
    -------
    Objective

    Raises
    ------
    InputError
        If the name is unknown, or what is given is not what the objective needs.

    Examples
    --------
    >>> as_objective("latent", encode_std=0.5).name
    'latent'
    """
    given = {"encode_std": encode_std, "target": target}
    given = {key: value for key, value in given.items() if value is not None}
    if isinstance(objective, Objective):
        if given:
            raise InputError(f"{sorted(given)} must be given to the objective itself")
        return objective
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise InputError(f"objective must be one of {sorted(OBJECTIVES)}, got {objective!r}")
    needs = OBJECTIVES[objective].needs
    if tuple(given) != needs:
        raise InputError(
            f"objective {objective!r} needs {', '.join(needs) or 'no options'}, "
            f"got {', '.join(given) or 'none'}"
        )
    return OBJECTIVES[objective](**given)
