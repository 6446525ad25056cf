"""Whole numbers that an ONNX graph computes from the shapes of its own values."""

from __future__ import annotations

import operator
from collections.abc import Callable

from harmonicvae.exceptions import InputError
from harmonicvae.readers.onnx_graphs import Graph, Node

#: Entries of a shape; None is the batch if that is not fixed.
Entries = tuple[int | None, ...]

#: Longer chains of arithmetic on shapes are taken for circles.
_MAX_DEPTH = 60
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.floordiv,
    "Mod": operator.mod,
}


class ShapeArithmetic:
    """Evaluates vectors such as the target of a Reshape, as exporters write them.

    Parameters
    ----------
    graph : Graph
        The graph.
    shapes : dict of str to tuple
        Shapes of values, with the batch first, as far as they are known; grows while
        the graph is read.

    Notes
    -----
    A scalar counts as a vector of one entry.

    Examples
    --------
    >>> import numpy as np
    >>> graph = Graph(20, "x", "y", None, (6,), {"tail": np.array([2, 3])}, {}, {})
    >>> graph.producers["s"] = Node("Shape", "Shape node 0", ("x",), ("s",), {"end": 1})
    >>> graph.producers["t"] = Node("Concat", "c", ("s", "tail"), ("t",), {"axis": 0})
    >>> ShapeArithmetic(graph, {"x": (None, 6)}).entries("t", graph.producers["t"])
    (None, 2, 3)
    """

    def __init__(self, graph: Graph, shapes: dict[str, Entries]) -> None:
        self.graph = graph
        self.shapes = shapes

    def entries(self, name: str, user: Node, depth: int = 0) -> Entries:
        """Return the entries of a vector.

        Parameters
        ----------
        name : str
            Its name.
        user : Node
            Who needs it, for messages.
        depth : int, default=0
            How many nodes lie between.

        Returns
        -------
        tuple of int or None

        Raises
        ------
        UnsupportedNetworkError
            If it depends on anything but constants and known shapes.
        InputError
            If it is damaged.
        """
        value = self.graph.constants.get(name)
        if value is not None:
            if value.dtype.kind not in "ib" or value.ndim > 1:
                raise InputError(f"{name!r} of {user.label} must be a vector of whole numbers")
            return tuple(int(number) for number in value.ravel())
        node = self.graph.producers.get(name)
        if node is None or not node.inputs or depth > _MAX_DEPTH:
            raise user.refuse(f"its input {name!r} must follow from constants and shapes")
        if node.op == "Shape":
            return self._shape(node)
        given = [self.entries(item, user, depth + 1) for item in node.inputs if item]
        attributes = dict(node.attributes)
        if node.op in ("Concat", "Gather") and attributes.pop("axis", 0) == 0 and not attributes:
            return sum(given, ()) if node.op == "Concat" else _gathered(node, given)
        if node.op in ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"):
            return given[0]
        if node.op == "Slice" and not attributes:
            return _sliced(node, given)
        if node.op in _ARITHMETIC and attributes.get("fmod", 0) == 0:
            return _combined(node, given)
        raise node.refuse("it is not known how to compute a shape with it")

    def _shape(self, node: Node) -> Entries:
        if node.inputs[0] not in self.shapes:
            raise node.refuse(f"the shape of {node.inputs[0]!r} is not known")
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        if not isinstance(start, int) or not isinstance(end, int | None):
            raise InputError(f"start and end of {node.label} must be whole numbers")
        return self.shapes[node.inputs[0]][start:end]


def _numbers(node: Node, entries: Entries) -> list[int]:
    """Return entries that must be known."""
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries):
        raise node.refuse("it computes with the batch, which is not fixed")
    return known


def _gathered(node: Node, given: list[Entries]) -> Entries:
    if len(given) != 2:
        raise InputError(f"{node.label} must have two inputs, got {len(given)}")
    source, places = given[0], _numbers(node, given[1])
    if any(not -len(source) <= place < len(source) for place in places):
        raise InputError(f"{node.label} takes entries {places} of {len(source)}")
    return tuple(source[place] for place in places)


def _sliced(node: Node, given: list[Entries]) -> Entries:
    limits = [_numbers(node, item) for item in given[1:]]
    if not 2 <= len(limits) <= 4 or any(len(item) != 1 for item in limits):
        raise InputError(f"{node.label} must have one start and one end")
    if [item[0] for item in limits[2:]] not in ([], [0], [0, 1]):
        raise node.refuse("only axis 0 and step 1 are known")
    return given[0][limits[0][0] : limits[1][0]]


def _combined(node: Node, given: list[Entries]) -> Entries:
    pairs = [_numbers(node, item) for item in given]
    if [len(item) for item in pairs] != [1, 1] or min(*pairs[0], *pairs[1]) < 0:
        raise node.refuse("only arithmetic with two numbers >= 0 is known")
    first, second = pairs[0][0], pairs[1][0]
    if second == 0 and node.op in ("Div", "Mod"):
        raise InputError(f"{node.label} divides by 0")
    return (_ARITHMETIC[node.op](first, second),)
