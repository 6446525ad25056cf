"""The exact constant of networks with one input, by branch and bound with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harmonicvae.enclosures.functions import is_widened
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.arguments import fraction, whole_number
from harmonicvae.lipschitz.attained import attained_norm
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Task, as_network, layer_norms
from harmonicvae.lipschitz.boxes import check_box
from harmonicvae.lipschitz.branching import LineSearch, Progress
from harmonicvae.lipschitz.leaves import Leaves
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bracket


def exact_constant(
    network: Any,
    rtol: float = 1e-4,
    box: Sequence[Any] | None = None,
    max_boxes: int = 200_000,
    progress: Progress | None = None,
) -> Bracket:
    """Compute the ℓ2 Lipschitz constant of a network with one input, from both sides.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        With one input, for instance the decoder of a one-dimensional latent.
    rtol : float, default=1e-4
        Upper over lower bound − 1 at which the search stops, in [1e-9, 1).
    box : pair (low, high) of floats, default=None
        Interval of inputs, low < high; None means the whole line.
    max_boxes : int, default=200000
        Segments evaluated at most, ≥ 2; the search may stop a few above.
    progress : callable, default=None
        Called as ``progress(lower, upper, evaluated)`` before each batch; True ends the
        search with what is proved so far.

    Returns
    -------
    Bracket
        ``upper``: ``status="certified"``, its certificate the break points of segments that
        cover the line (or box). ``lower``: ‖f′‖ at one input, ``status="float64"``.
        ``upper.message`` says if ``rtol`` was not reached, and what to try.

    Raises
    ------
    InputError
        If the network has more than one input or an argument is out of its range.
    UnsupportedNetworkError
        If a layer has no exact form.

    Notes
    -----
    f is absolutely continuous, so that its constant is the supremum of ‖f′(z)‖₂ over the
    points where it is differentiable. Segments are bounded by
    :meth:`harmonicvae.lipschitz.segments.SegmentNetwork.bounds` and those above the best
    lower bound halved, largest first; at ±∞ by segments with an infinite end. Where many
    neurons have their kink at the same input, other than 0, the bound there may stay above
    the constant: the ratio says so.
    Cost of about ten passes through the network for each segment; smooth networks take
    hundreds to thousands of segments, piecewise linear ones a few for each kink.

    References
    ----------
    R. E. Moore, R. B. Kearfott, M. J. Cloud, "Introduction to Interval Analysis" (2009),
    chapters 6 and 9.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> result = exact_constant(network)
    >>> round(result.lower.value, 4), result.upper.status, result.ratio <= 1.0001
    (1.5, 'certified', True)
    """
    network = as_network(network)
    _checked_ends(network, rtol, box, max_boxes)

    def report(what: str, numbers: Mapping[str, float]) -> bool:
        if progress is None or "segments" not in numbers:
            return False
        return bool(progress(numbers["lower"], numbers["bound"], int(numbers["segments"])))

    method = IntervalBranchAndBound(rtol, max_boxes)
    upper = method.bound(network, box=box, progress=report)
    if "attained" in upper.details:
        value, point = upper.details["attained"], upper.details["point"]
    else:  # affine or constant: the same everywhere
        region = None if box is None else check_box(network, box, outwards=False)
        value, point = attained_norm(network, np.zeros(1), region)
    if not upper.message and upper.value > value * (1.0 + rtol) + 1e-300:
        upper = replace(upper, message="the two sides did not meet; try a smaller rtol")
    lower = replace(
        upper,
        kind="lower",
        value=value,
        status="float64",
        details={"point": list(point)},
        certificate=None,
        message="",
    )
    return Bracket(lower=lower, upper=upper)


def _checked_ends(
    network: LayeredNetwork, rtol: float, box: Sequence[Any] | None, max_boxes: int
) -> tuple[float, float]:
    """Refuse arguments out of range; return the ends of the line."""
    if network.input_dim != 1:
        raise InputError(
            f"network must have 1 input, got {network.input_dim}; "
            "try bracket(network), whose two sides need not meet"
        )
    if fraction("rtol", rtol) < 1e-9:
        raise InputError(f"rtol must be in [1e-9, 1), got {rtol!r}")
    whole_number("max_boxes", max_boxes, 2)
    if box is None:
        return -math.inf, math.inf
    low, high = (float(end[0]) for end in check_box(network, box, outwards=True))
    if low == high:
        raise InputError(f"box must have low < high for the method 'interval', got {low} twice")
    return low, high


class IntervalBranchAndBound(LipschitzMethod):
    """The exact constant of a network with one input, up to ``rtol``.

    Parameters
    ----------
    rtol : float, default=1e-4
        Upper over lower bound − 1 at which the search stops, in [1e-9, 1).
    max_boxes : int, default=200000
        Segments evaluated at most, ≥ 2.

    Notes
    -----
    See :func:`exact_constant`, which returns the lower bound as well; here it is
    ``details["attained"]``. Slope ranges are not used, only the box.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(IntervalBranchAndBound().bound(network).value, 4)
    1.5
    """

    name = "interval"

    def __init__(self, rtol: float = 1e-4, max_boxes: int = 200_000) -> None:
        self.rtol = rtol
        self.max_boxes = max_boxes

    def unsuitable(self, network: LayeredNetwork) -> str:
        """Refuse networks with several inputs or with slope ranges that were widened."""
        if network.input_dim != 1:
            return f"needs a network with 1 input, got {network.input_dim}; try lipsdp_neuron"
        if any(is_widened(item) for item in network.activations):
            return "does not use slope ranges, so that wider ones have no effect"
        return super().unsuitable(network)

    def _bound(self, task: Task) -> Candidate:
        box = task.slopes.box
        if task.is_trivial or (box is not None and float(box[0][0]) == float(box[1][0])):
            return layer_norms(task)
        ends = _checked_ends(task.network, self.rtol, box, self.max_boxes)
        search = LineSearch(task.network, ends, self.rtol)

        def report(lower: float, upper: float, evaluated: int) -> bool:
            return task.report("branch and bound", lower=lower, bound=upper, segments=evaluated)

        message = search.run(self.max_boxes, report)
        value, point = search.largest_norm()
        details = {
            "attained": value,
            "point": [point],
            "evaluated": search.evaluated,
            "leaves": len(search.upper),
            "rtol": self.rtol,
        }
        return Candidate(
            value=value,
            proposal=Leaves(tuple(search.breakpoints)),
            details=details,
            message=message,
        )
