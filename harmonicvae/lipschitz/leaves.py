"""Proofs that ‖f′‖ is bounded on segments that cover all inputs of a network with one input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.boxes import check_box
from harmonicvae.lipschitz.proofs import (
    Proof,
    Proposal,
    certificate_header,
    read_box,
    real_array,
    real_number,
)
from harmonicvae.lipschitz.segments import SegmentNetwork
from harmonicvae.lipschitz.slopes import SlopeRanges
from harmonicvae.network import LayeredNetwork
from harmonicvae.rounding import scale_up

#: Factor on a proved value, so that other summation orders prove it again.
_MARGIN = 1.0 + 1e-11


def proves_leaves(network: LayeredNetwork, breakpoints: Sequence[float], value: float) -> bool:
    """Prove that ‖f(a) − f(b)‖₂ ≤ value·|a − b| between the first and the last break point.

    Parameters
    ----------
    network : LayeredNetwork
        With one input.
    breakpoints : sequence of float
        At least two, ascending; the first may be −∞ and the last ∞.
    value : float
        The claimed bound, ≥ 0.

    Returns
    -------
    bool
        True is a proof, rounding errors included; False says nothing.

    Raises
    ------
    InputError
        If the network has more than one input or the break points are not ascending.

    Notes
    -----
    Bounds ‖f′‖ on each segment anew, independently of any search.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> proves_leaves(network, [-math.inf, 0.0, math.inf], 1.5 + 1e-9)
    True
    >>> proves_leaves(network, [-math.inf, 0.0, math.inf], 1.5 - 1e-9)
    False
    """
    return _leaf_bound(network, breakpoints) <= value


def _leaf_bound(network: LayeredNetwork, breakpoints: Sequence[float]) -> float:
    """Return the proved bound of ‖f′‖ between the first and the last break point."""
    points = np.asarray(breakpoints, dtype=np.float64)
    if network.input_dim != 1:
        raise InputError(f"network must have 1 input, got {network.input_dim}")
    if points.ndim != 1 or len(points) < 2 or not np.all(points[1:] > points[:-1]):
        raise InputError("breakpoints must be at least two numbers, ascending, none of them NaN")
    line = SegmentNetwork(network)
    largest = float(np.max(line.bounds(points[:-1], points[1:]).upper))
    if math.isnan(largest):
        return math.inf
    return scale_up(largest, line.exponent)


@dataclass(frozen=True)
class Leaves(Proposal):
    """Segments that cover the inputs, on each of which ‖f′‖ can be bounded.

    Parameters
    ----------
    breakpoints : tuple of float
        Inner ends of the segments, ascending and finite; the outer ends are those of the
        box, or ±∞.
    """

    breakpoints: tuple[float, ...]

    kind: ClassVar[str] = "interval"

    def prove(self, network: LayeredNetwork, slopes: SlopeRanges) -> Proof | None:
        """Bound ‖f′‖ on every segment; of ``slopes`` only the box is used.

        Examples
        --------
        >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
        >>> from harmonicvae.lipschitz.slopes import slope_ranges
        >>> proof = Leaves((-1.0, 0.0, 1.0)).prove(network, slope_ranges(network, "activation"))
        >>> round(proof.value, 9), Leaves.verify(proof.certificate, network)
        (1.5, True)
        """
        try:
            value = _leaf_bound(network, _covering(self.breakpoints, slopes.box)) * _MARGIN
        except InputError:
            return None
        if not math.isfinite(value):
            return None
        certificate = {
            **certificate_header(network, slopes),
            "kind": self.kind,
            "value": value,
            "breakpoints": [float(point) for point in self.breakpoints],
        }
        return Proof(value, certificate)

    @classmethod
    def verify(cls, certificate: Mapping[str, Any], network: LayeredNetwork) -> bool:
        """Prove a certificate of this kind again; see ``verify_certificate``."""
        claimed = real_number(certificate, "value")
        inner = real_array(list(certificate["breakpoints"]), "breakpoints")
        scope, box = certificate["scope"], read_box(certificate["slopes"].get("box"))
        if scope not in ("global", "box") or (scope == "box") != (box is not None):
            raise InputError(f"scope of the certificate must be 'box' with a box, got {scope!r}")
        ends = None if box is None else check_box(network, box, outwards=True)
        return proves_leaves(network, _covering(tuple(inner), ends), claimed)


def _covering(
    inner: tuple[float, ...], box: tuple[np.ndarray, np.ndarray] | None
) -> tuple[float, ...]:
    """Return break points from end to end."""
    low, high = (-math.inf, math.inf) if box is None else (float(end[0]) for end in box)
    return (low, *inner, high)
