"""The numbers a margin depends on, and which methods they allow."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from harmonicvae.exceptions import InputError

#: Methods whose formula holds for one fixed σ only.
FIXED_ONLY = ("barrett_2", "barrett_2_root", "noncentral_chi2")


@dataclass(frozen=True)
class Setting:
    """The numbers a margin depends on, as exact rational numbers.

    Parameters
    ----------
    encoder, decoder : Fraction
        Upper bounds b of Lip(p) and a of Lip(g); a > 0.
    growth : Fraction
        Upper bound c of Lip(σ), 0 for a fixed σ.
    variances : tuple of Fraction
        σ(x)² of each latent unit.
    r : Fraction
        Allowed distance of the two reconstructions, in output units.
    """

    encoder: Fraction
    decoder: Fraction
    growth: Fraction
    variances: tuple[Fraction, ...]
    r: Fraction

    @property
    def latent_dim(self) -> int:
        """Number m of latent units."""
        return len(self.variances)

    @property
    def distance(self) -> Fraction:
        """Distance of two codes that keeps their reconstructions within r: r/a."""
        return self.r / self.decoder

    @property
    def fixed(self) -> bool:
        """Whether σ is one number, the same for every unit and input."""
        return self.growth == 0 and len(set(self.variances)) == 1


def check_method(method: str, setting: Setting) -> None:
    """Refuse a learned σ(x) where a method's formula needs one fixed number.

    Parameters
    ----------
    method : str
        Key of ``MARGINS``.
    setting : Setting
        What it is to be applied to.

    Raises
    ------
    InputError
        If σ is not one fixed number and the method needs it.

    Examples
    --------
    >>> check_method("barrett_1", Setting(*[Fraction(1)] * 3, (Fraction(1),), Fraction(1)))
    """
    if method in FIXED_ONLY and not setting.fixed:
        raise InputError(
            f"{method} needs one fixed encoder standard deviation: std must be a number (or equal "
            "in all units) and std_bound 0; use 'triangle_chi2', 'sharpened_1' or 'barrett_1'"
        )
