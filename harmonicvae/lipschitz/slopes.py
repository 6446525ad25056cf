"""Slope ranges of every hidden neuron, from its activation or tightened by interval arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harmonicvae.activations import Activation
from harmonicvae.enclosures.functions import affine_range, slope_range, value_range
from harmonicvae.enclosures.intervals import Ends, Interval, up
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.boxes import check_box
from harmonicvae.matrices import is_sparse
from harmonicvae.network import LayeredNetwork
from harmonicvae.rounding import TINY, UNIT, gamma

#: Narrower ranges are widened to this fraction of their layer's largest slope.
_NARROWEST = 1e-4
#: Rules from which slope ranges follow; "box" needs a box of inputs.
RULES = ("activation", "propagated", "box")
#: Parts into which an interval is cut to enclose φ(y) − m·y on it.
_PARTS = 16
#: Multiplications per layer beyond which affine forms are left out.
_FORM_LIMIT = 2e10
#: Affine forms carried at a time, in the values of the first layers with finite ranges.
_FORMS = 2


@dataclass(frozen=True, eq=False)
class SlopeRanges:
    """Range of the slope of every hidden neuron.

    Parameters
    ----------
    alphas, betas : tuple of ndarray of shape (hidden_dims[i],)
        (φ(a) − φ(b)) / (a − b) lies in [alpha, beta] for all reachable a ≠ b; rounded outwards.
    rule : {"activation", "propagated", "box"}
        What they follow from: the activation alone; the ranges that activations with bounded
        outputs leave for all inputs; or the inputs in ``box``.
    box : pair of ndarray of shape (input_dim,) or None
        Lower and upper ends of the box.
    """

    alphas: tuple[np.ndarray, ...]
    betas: tuple[np.ndarray, ...]
    rule: str
    box: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def scope(self) -> str:
        """What the ranges hold for, "box" or "global"."""
        return "box" if self.rule == "box" else "global"


def slope_ranges(
    network: LayeredNetwork,
    rule: str = "propagated",
    box: Sequence[Any] | None = None,
) -> SlopeRanges:
    """Compute rigorous slope ranges of every hidden neuron.

    Parameters
    ----------
    network : LayeredNetwork
        Any network.
    rule : {"activation", "propagated", "box"}, default="propagated"
        "activation": each activation's own range. "propagated": pre-activations are
        enclosed for all inputs, which tightens the ranges behind layers whose outputs are
        bounded (sigmoid, tanh) or bounded on one side (ReLU, softplus, ELU, SiLU, GELU).
        "box": the same for the inputs in ``box``, from the first layer on.
    box : pair (low, high), default=None
        Ends of the box, each a number or of shape (input_dim,), low ≤ high; may be
        infinite. Needed by the rule "box", refused by the others.

    Returns
    -------
    SlopeRanges
        Read-only arrays, one pair for each hidden layer.

    Raises
    ------
    InputError
        If the rule is unknown, a box is missing or not wanted, or the box has another
        shape, NaN, or low > high.

    Notes
    -----
    Guarantee: for every two inputs (of the box), the exact network with the given float64
    weights and biases has φ(a) − φ(b) = s·(a − b) with s in [alpha, beta] for each hidden neuron,
    a and b its two pre-activations: both lie in the enclosing interval, and so does the
    segment between them.

    Pre-activations are enclosed by W·(range of φ) + b and, behind the first two layers with
    finite ranges (the box, the outputs of sigmoids), also by affine forms in the n values of
    each: y = M·ξ + B, ‖ξ‖_∞ ≤ 1, B an interval, where φ(y) = m·y + e and e is enclosed piece by
    piece. The intersection counts, over a box also with the ranges for all inputs, so that
    "box" is never looser than "propagated". Everything is rounded outwards. Activations whose
    range was widened with ``with_slopes`` keep it.

    Cost O(n·Σ out·in) and memory O(n·max out); a form ends at a layer where n·out·in exceeds
    2·10¹⁰, or whose matrix is sparse.

    References
    ----------
    G. Singh, T. Gehr, M. Mirman, M. Püschel and M. Vechev, "Fast and effective robustness
    certification", NeurIPS 2018: affine forms of networks.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[1.0]], [[2.0]], [[1.0]]], activation="sigmoid")
    >>> [float(beta[0]) for beta in slope_ranges(network).betas]
    [0.25, 0.25]
    >>> round(float(slope_ranges(network).alphas[1][0]), 6)  # σ′(2), as inputs lie in [0, 2]
    0.104994
    >>> slope_ranges(network, "box", ([1.0], [2.0])).scope
    'box'
    """
    if rule not in RULES:
        raise InputError(f"rule must be one of {RULES}, got {rule!r}")
    if rule != "box" and box is not None:
        raise InputError(f"a box needs rule='box', got rule={rule!r}; leave the box out")
    if rule == "activation":
        pairs = list(zip(network.hidden_dims, network.activations))
        alphas = [np.full(size, item.alpha) for size, item in pairs]
        betas = [np.full(size, item.beta) for size, item in pairs]
        return SlopeRanges(_frozen(alphas), _frozen(betas), rule)
    if rule == "box" and box is None:
        raise InputError("rule='box' needs a box (low, high), got none; or use rule='propagated'")
    ends = check_box(network, box, outwards=True) if box is not None else None
    whole = np.full(network.input_dim, np.inf)
    ranges = _propagate(network, -whole, whole)
    if ends is not None:
        ranges = _propagate(network, *ends, within=ranges)
    slopes = [slope_range(a, *reached) for a, reached in zip(network.activations, ranges)]
    alphas, betas = [np.array(low) for low, _ in slopes], [np.array(high) for _, high in slopes]
    return SlopeRanges(_frozen(alphas), _frozen(betas), rule, ends and _frozen(ends))


def widened(slopes: SlopeRanges) -> SlopeRanges:
    """Widen slope ranges that are nearly points, for which optimal multipliers are huge.

    Parameters
    ----------
    slopes : SlopeRanges
        Of a network.

    Returns
    -------
    SlopeRanges
        Each range at least 1e-4 of its layer's largest slope wide, grown on the side of the
        smaller magnitude, so that largest slopes stay. Ranges [0, 0] stay, and layers in
        which every range is a point: both are removed exactly.

    Examples
    --------
    >>> ranges = SlopeRanges((np.array([1.0, 0.0]),), (np.array([1.0, 1.0]),), "activation")
    >>> widened(ranges).alphas[0].round(6)
    array([0.9999, 0.    ])
    """
    pairs = [_wide_enough(low, high) for low, high in zip(slopes.alphas, slopes.betas)]
    alphas, betas = _frozen([low for low, _ in pairs]), _frozen([high for _, high in pairs])
    return replace(slopes, alphas=alphas, betas=betas)


def _wide_enough(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranges of one layer, none nearly a point."""
    largest = np.maximum(np.abs(low), np.abs(high))
    least = _NARROWEST * float(np.max(largest))
    narrow = (high - low < least) & (largest > 0)
    if np.all(low == high) or not np.any(narrow):
        return np.array(low), np.array(high)
    falling = narrow & (np.abs(high) >= np.abs(low))
    below = np.where(falling, np.minimum(low, high - least), low)
    return below, np.where(narrow & ~falling, np.maximum(high, low + least), high)


def _frozen(arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """Return read-only arrays."""
    for array in arrays:
        array.flags.writeable = False
    return tuple(arrays)


def _propagate(
    network: LayeredNetwork, low: np.ndarray, high: np.ndarray, within: Sequence[Ends] | None = None
) -> list[Ends]:
    """Enclose the pre-activations for inputs in [low, high], known to lie in ``within``."""
    ranges: list[Ends] = []
    forms: list[_AffineForm] = []
    for i, item in enumerate(network.activations):
        if len(forms) < _FORMS:
            forms = [*forms, *_AffineForm.of(low, high)]
        low, high = affine_range(network.weights[i], network.biases[i], low, high)
        bounds = [Interval(low, high)] if within is None else [Interval(low, high), within[i]]
        forms = [
            after
            for form in forms
            for after in form.after_layer(network.weights[i], network.biases[i])
        ]
        bounds += [form.bounds() for form in forms]
        low = np.max([lower for lower, _ in bounds], axis=0)
        high = np.min([upper for _, upper in bounds], axis=0)
        ranges.append((low, high))
        forms = [after for form in forms for after in form.after_activation(item, low, high)]
        low, high = value_range(item, low, high)
    return ranges


@dataclass(frozen=True, eq=False)
class _AffineForm:
    """Values y = M·ξ + B with ‖ξ‖_∞ ≤ 1 the same for all neurons and B in an interval."""

    matrix: np.ndarray  # M, of shape (k, n); a vector stands for a diagonal matrix
    rest: Interval  # B, of shape (k,)

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray) -> list[_AffineForm]:
        """Return x = centre + radius·ξ, radius rounded upwards; [] unless all is finite."""
        if not np.all(np.isfinite(low) & np.isfinite(high)):
            return []
        centre = 0.5 * low + 0.5 * high
        radius = np.where(low < high, up(np.maximum(high - centre, centre - low)), 0.0)
        exact = np.where(low < high, centre, low)
        return cls._checked(radius, Interval(exact, exact))

    @classmethod
    def _checked(cls, matrix: np.ndarray, rest: Interval) -> list[_AffineForm]:
        finite = all(np.all(np.isfinite(part)) for part in (matrix, rest.lower, rest.upper))
        return [cls(matrix, rest)] if finite else []

    def _reach(self) -> np.ndarray:
        """Return the row sums of |M|, rounded upwards."""
        if self.matrix.ndim == 1:
            return self.matrix
        total = np.sum(np.abs(self.matrix), axis=1)
        return up(total * (1.0 + gamma(self.matrix.shape[1] + 2)))

    def bounds(self) -> Interval:
        """Enclose y."""
        reach = self._reach()
        return self.rest.plus(Interval(-reach, reach))

    def after_layer(self, weight: Any, bias: np.ndarray) -> list[_AffineForm]:
        """Return W y + b, or [] if it overflows or costs too much, as for sparse W.

        Each entry of the computed W M is off by at most γ_k(|W||M|), k the length of y.
        """
        costly = weight.size * self.matrix.shape[-1] > _FORM_LIMIT and self.matrix.ndim == 2
        if is_sparse(weight) or costly:
            return []
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            diagonal = self.matrix.ndim == 1
            matrix = weight * self.matrix if diagonal else weight @ self.matrix
            reach, size = self._reach(), np.abs(weight)
            underflow = TINY * (1.0 + np.max(size, initial=0.0))
            underflow *= 1.0 + np.max(reach, initial=0.0)
            error = up(gamma(weight.shape[1] + 8) * (size @ reach) * (1.0 + 1e-6) + underflow)
            error = np.where(reach.any(), error, 0.0)
            rest = Interval(*affine_range(weight, bias, *self.rest))
            return self._checked(matrix, rest.plus(Interval(-error, error)))

    def after_activation(
        self, item: Activation, low: np.ndarray, high: np.ndarray
    ) -> list[_AffineForm]:
        """Return φ(y) = m·y + e, y in [low, high], with m near the slope of the chord."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if not np.all(np.isfinite(high - low)):
                return []
            alpha, beta = slope_range(item, low, high)
            first, last = value_range(item, low, low)[0], value_range(item, high, high)[0]
            chord = (last - first) / np.where(low < high, high - low, 1.0)
            chord = np.where(np.isfinite(chord) & (low < high), chord, 0.5 * alpha + 0.5 * beta)
            slope = np.clip(chord, alpha, beta)
            rest = self.rest.times(Interval(slope, slope)).plus(_residue(item, slope, low, high))
            error = up(np.abs(slope) * (4.0 * UNIT * self._reach() + TINY))
            return self._checked(slope[:, None] * self.matrix, rest.plus(Interval(-error, error)))


def _residue(item: Activation, slope: np.ndarray, low: np.ndarray, high: np.ndarray) -> Interval:
    """Enclose φ(y) − m·y for y in [low, high], by the mean value theorem on each of its parts."""
    shares = np.linspace(0.0, 1.0, _PARTS + 1)[:, None]
    cuts = low + shares * (high - low)
    cuts[0], cuts[-1] = low, high
    cuts = np.clip(np.maximum.accumulate(cuts, axis=0), low, high)
    left, right = cuts[:-1], cuts[1:]
    centre = np.clip(0.5 * left + 0.5 * right, left, right)
    radius = up(np.maximum(right - centre, centre - left))
    line = Interval(centre, centre).times(Interval(slope, slope))
    steepness = Interval(*slope_range(item, left, right)).minus(Interval(slope, slope))
    value = Interval(*value_range(item, centre, centre)).minus(line)
    whole = value.plus(steepness.times(Interval(-radius, radius)))
    return Interval(np.min(whole.lower, axis=0), np.max(whole.upper, axis=0))
