"""Proved bounds of ‖f′(z)‖₂ of networks with one input over segments of the line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harmonicvae.activations import ACTIVATIONS
from harmonicvae.enclosures.elementary import Interval, down, up
from harmonicvae.enclosures.functions import affine_range, slope_range
from harmonicvae.lipschitz.jets import Jet, Sides, activate, is_zero, meet, one_sided, thin, times
from harmonicvae.network import LayeredNetwork
from harmonicvae.rounding import TINY, gamma, normalise

#: Numbers of one array in a chunk of segments; about forty such arrays are held at once.
_CHUNK_NUMBERS = 250_000
#: A segment with at most this many neurons that change side is bounded for each combination.
_MOST_FLIPS = 5


class SegmentBounds(NamedTuple):
    """Bounds on segments of the line.

    Parameters
    ----------
    upper : ndarray of shape (n,)
        At least ‖f′(z)‖₂ wherever f is differentiable in the segment; proved.
    point : ndarray of shape (n,)
        An input in each segment.
    norm : ndarray of shape (n,)
        ‖f′(point)‖₂ in float64, not proved; 0 where a neuron may have its kink at the point.
    """

    upper: np.ndarray
    point: np.ndarray
    norm: np.ndarray


@dataclass(frozen=True)
class _Segments:
    """Segments [anchor + before, anchor + after], before ≤ 0 ≤ after, perhaps infinite."""

    low: np.ndarray
    high: np.ndarray
    anchor: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray) -> _Segments:
        """Choose 0 where it is in the segment, else the middle or the finite end."""
        middle = 0.5 * low + 0.5 * high
        anchor = np.where(np.isfinite(low), low, high)
        anchor = np.where(np.isfinite(low) & np.isfinite(high), middle, anchor)
        anchor = np.where((low <= 0) & (high >= 0), 0.0, anchor)
        before = np.where(anchor == low, 0.0, down(low - anchor))
        after = np.where(anchor == high, 0.0, up(high - anchor))
        return cls(low, high, anchor, before, after)

    @property
    def bounded(self) -> np.ndarray:
        """True for segments of finite length."""
        return np.isfinite(self.before) & np.isfinite(self.after)

    def moved(self, start: Interval, rate: Interval) -> Interval:
        """Enclose start + ∫ rate over any part of the segment that begins at the anchor."""
        before, after = self.before[:, None], self.after[:, None]
        rise = np.maximum(_exactly(after, rate.upper), _exactly(before, rate.lower))
        fall = np.minimum(_exactly(after, rate.lower), _exactly(before, rate.upper))
        # decided by signs, as a product may underflow
        grows = ((after == 0) | (rate.lower >= 0)) & ((before == 0) | (rate.upper <= 0))
        shrinks = ((after == 0) | (rate.upper <= 0)) & ((before == 0) | (rate.lower >= 0))
        return Interval(
            np.where(grows, start.lower, down(start.lower + down(fall))),
            np.where(shrinks, start.upper, up(start.upper + up(rise))),
        )


def _exactly(length: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the product, with 0·∞ = 0."""
    return np.where((length == 0) | (rate == 0), 0.0, length * rate)


class SegmentNetwork:
    """A network with one input, ready to be bounded on segments.

    Parameters
    ----------
    network : LayeredNetwork
        With ``input_dim`` 1.
    """

    def __init__(self, network: LayeredNetwork) -> None:
        last, self.exponent = normalise(network.weights[-1])
        self.weights = (*network.weights[:-1], last)
        self.biases = network.biases
        self.activations = tuple(
            ACTIVATIONS[item.name](*item.parameters) if item.name in ACTIVATIONS else item
            for item in network.activations
        )  # with their own slopes, should others have been set
        self.kinked = tuple(item.kink is not None for item in self.activations)
        self._chunk_size = max(1, _CHUNK_NUMBERS // max(max(w.shape) for w in self.weights))

    def bounds(self, low: np.ndarray, high: np.ndarray) -> SegmentBounds:
        """Bound ‖f′(z)‖₂ · 2**−exponent over each segment [low, high].

        Parameters
        ----------
        low, high : ndarray of shape (n,)
            Ends, low < high; may be infinite.

        Returns
        -------
        SegmentBounds

        Notes
        -----
        f and its first two derivatives are enclosed layer by layer, both directly and by
        the mean value theorem from the anchor point, then
        ‖f′(z)‖ ≤ max over t of ‖f′(c) + t·e‖ + |t|·‖r‖, where f″ lies in e ± r: the excess
        shrinks with the square of the length. Where neurons with a kink change side, f′
        is enclosed for each combination of sides. All roundings outwards. Cost of about ten
        passes through the network for each segment.
        """
        size = self._chunk_size
        with np.errstate(all="ignore"):  # overflows end as infinite bounds
            parts = [
                self._chunk(low[i : i + size], high[i : i + size]) for i in range(0, len(low), size)
            ]
        return SegmentBounds(*(np.concatenate(item) for item in zip(*parts)))

    def _affine(self, i: int, value: Interval, biased: bool = True) -> Interval:
        """Enclose W_i x (+ b_i); exact where all x are exactly 0."""
        weight = self.weights[i]
        bias = self.biases[i] if biased else np.zeros(len(weight))
        lower, upper = affine_range(weight, bias, value.lower, value.upper)
        still = np.all(is_zero(value), axis=1)[:, None] | ~np.any(weight, axis=1)[None, :]
        return Interval(np.where(still, bias, lower), np.where(still, bias, upper))

    def _start(self, segments: _Segments) -> Interval:
        """Enclose the first pre-activations at the anchors; exact at 0."""
        weight, bias = self.weights[0], self.biases[0]
        anchor = segments.anchor[:, None]
        lower, upper = affine_range(weight, bias, anchor, anchor)
        exact = (anchor == 0) | (weight.T == 0)
        return Interval(np.where(exact, bias, lower), np.where(exact, bias, upper))

    def _chunk(self, low: np.ndarray, high: np.ndarray) -> SegmentBounds:
        """Bound one chunk of segments; ``here`` is at the anchor, ``over`` on the segment."""
        segments = _Segments.of(low, high)
        start, rate = self._start(segments), self._first_rates(len(low))
        here, over = Jet(start, rate, None), Jet(segments.moved(start, rate), rate, None)
        smooth, vague = np.ones(len(low), dtype=bool), np.zeros(len(low), dtype=bool)
        ranges = []
        for i, item in enumerate(self.activations):
            ranges.append(over.value)
            sides = Sides.of(over.value) if self.kinked[i] else None
            if sides is not None:
                at_kink = (here.value.lower <= 0) & (here.value.upper >= 0)
                smooth &= ~np.any(sides.flips, axis=1)
                vague |= np.any(sides.flips & at_kink, axis=1)
            after = activate(item, here, sides, curved=False)
            over = _tighten(segments, after, activate(item, over, sides, curved=True), smooth)
            here, over = self._next(i + 1, after), self._next(i + 1, over)
            over = _tighten(segments, here, over, smooth)
        upper = _largest(over.first)
        centred = np.where(smooth & segments.bounded, _centred(segments, here, over), np.inf)
        upper = np.where(np.isnan(upper), np.inf, np.minimum(upper, centred))
        self._flip(ranges, ~smooth, upper)
        norm = np.linalg.norm(0.5 * here.first.lower + 0.5 * here.first.upper, axis=1)
        return SegmentBounds(upper, segments.anchor, np.where(vague, 0.0, norm))

    def _first_rates(self, count: int) -> Interval:
        """Return the derivatives of the first pre-activations, ``count`` times."""
        return thin(np.broadcast_to(self.weights[0].T, (count, len(self.weights[0]))))

    def _next(self, i: int, jet: Jet) -> Jet:
        """Push a jet through affine layer i; without value through the last."""
        value = jet.value if i + 1 == len(self.weights) else self._affine(i, jet.value)
        second = None if jet.second is None else self._affine(i, jet.second, False)
        return Jet(value, self._affine(i, jet.first, False), second)

    def _flip(self, ranges: list[Interval], which: np.ndarray, upper: np.ndarray) -> None:
        """Lower the bounds of segments where few neurons change side, in place."""
        rows, sides = self._combinations(ranges, which)
        best = np.zeros(len(upper))
        for i in range(0, len(rows), self._chunk_size):
            part = slice(i, i + self._chunk_size)
            norms = self._one_combination(ranges, rows[part], [side[part] for side in sides])
            np.maximum.at(best, rows[part], norms)
        met = np.unique(rows)
        upper[met] = np.fmin(upper[met], best[met])

    def _one_combination(
        self, ranges: list[Interval], rows: np.ndarray, sides: list[np.ndarray]
    ) -> np.ndarray:
        """Bound ‖f′‖ for given sides of all neurons, on segments given by number."""
        first = self._first_rates(len(rows))
        for i, item in enumerate(self.activations):
            value = Interval(ranges[i].lower[rows], ranges[i].upper[rows])
            if self.kinked[i]:
                slope = one_sided(slope_range, item, value, sides[i])
            else:
                slope = Interval(*slope_range(item, value.lower, value.upper))
            first = self._affine(i + 1, times(slope, first), False)
        norms = _largest(first)
        return np.where(np.isnan(norms), np.inf, norms)

    def _combinations(
        self, ranges: list[Interval], which: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return for each combination of sides its segment, and the side of each neuron."""
        flips = [
            (item.lower < 0) & (item.upper > 0) & which[:, None] & kinked
            for item, kinked in zip(ranges, self.kinked)
        ]
        counts = np.zeros(len(which), dtype=int)
        for item in flips:
            counts += np.sum(item, axis=1)
        chosen_rows = np.flatnonzero(which & (counts <= _MOST_FLIPS))
        if len(chosen_rows) == 0:
            return chosen_rows, []
        copies = 2 ** counts[chosen_rows]
        row = np.repeat(chosen_rows, copies)
        code = np.concatenate([np.arange(count) for count in copies])
        sides, seen = [], np.zeros(len(row), dtype=int)
        for values, flip in zip(ranges, flips):
            flipped = flip[row]
            order = seen[:, None] + np.cumsum(flipped, axis=1) - 1
            chosen = (code[:, None] >> np.maximum(order, 0)) & 1
            sides.append(np.where(flipped, chosen == 1, values.lower[row] >= 0))
            seen = seen + np.sum(flipped, axis=1)
        return row, sides


def _tighten(segments: _Segments, here: Jet, over: Jet, smooth: np.ndarray) -> Jet:
    """Intersect enclosures over the segments with those of the mean value theorem."""
    second = over.second or thin(np.zeros_like(over.first.lower))
    moved = meet(over.first, segments.moved(here.first, second))
    first = moved.choose(smooth[:, None], over.first)
    if over.value.lower.shape != first.lower.shape:
        return Jet(over.value, first, over.second)  # behind the last layer, without value
    value = meet(over.value, segments.moved(here.value, first))
    return Jet(value, first, over.second)


def _norm_up(rows: np.ndarray) -> np.ndarray:
    """Return upper bounds of the Euclidean norms of rows."""
    peak = np.max(np.abs(rows), axis=1, initial=0.0)
    safe = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)
    length = np.sqrt(np.sum((rows / safe[:, None]) ** 2, axis=1)) * peak
    return np.where(peak > 0, length * (1.0 + gamma(rows.shape[1] + 8)) + TINY, 0.0)


def _largest(first: Interval) -> np.ndarray:
    """Return upper bounds of the norms of all vectors between two ends."""
    return _norm_up(np.maximum(np.abs(first.lower), np.abs(first.upper)))


def _halves(a: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Return midpoint and radius, the latter rounded upwards."""
    middle = 0.5 * a.lower + 0.5 * a.upper
    return middle, np.maximum(up(a.upper - middle), up(middle - a.lower))


def _centred(segments: _Segments, here: Jet, over: Jet) -> np.ndarray:
    """Return upper bounds of ‖f′‖ from f′ at the anchor and f″ over the segment."""
    start, off = _halves(here.first)
    rest = _norm_up(off)
    if over.second is None:
        return up(_norm_up(start) + rest)
    bend, spread = _halves(over.second)
    size = np.maximum(-segments.before, segments.after)
    tilted = [up(_norm_up(start + t[:, None] * bend)) for t in (segments.before, segments.after)]
    rounding = 8.0 * gamma(1) * (_norm_up(start) + size * _norm_up(bend))
    total = np.maximum(*tilted) + rest + size * _norm_up(spread) + rounding
    return np.where(np.isnan(total), np.inf, total * (1.0 + 16.0 * gamma(1)))
