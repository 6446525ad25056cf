"""Open ONNX files: constants, nodes and who consumes what, every part checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, UnsupportedNetworkError

#: A protobuf message cannot be larger.
_MAX_FILE_BYTES = 2**31
#: First version in which operators broadcast as NumPy does.
_FIRST_OPSET = 7
_DOMAINS = ("", "ai.onnx")
_OPERAND_TYPES = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_TENSOR_TYPES = (*_OPERAND_TYPES, "INT32", "INT64", "BOOL")


@dataclass
class Node:
    """One operator of a graph.

    Parameters
    ----------
    op : str
        Operator, for instance "Gemm".
    label : str
        Operator and name, for messages.
    inputs, outputs : tuple of str
        Names of values; empty for one that is left out.
    attributes : dict of str to int, float, str, tuple of int or TensorProto
        Those not taken yet.

    Examples
    --------
    >>> node = Node("Gemm", "Gemm node 'a'", ("x", "w"), ("y",), {"transB": 1})
    >>> node.take("transB", int, 0), node.take("transA", int, 0)
    (1, 0)
    """

    op: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def take(self, name: str, kind: type, default: Any) -> Any:
        """Return an attribute and strike it off.

        Parameters
        ----------
        name : str
        kind : type
            What it must be an instance of.
        default : object
            Returned if there is none.

        Returns
        -------
        object

        Raises
        ------
        InputError
            If it is of another type.
        """
        value = self.attributes.pop(name, default)
        if value is not default and not isinstance(value, kind):
            raise InputError(
                f"attribute {name} of {self.label} must be {kind.__name__}, "
                f"got {type(value).__name__}"
            )
        return value

    def refuse(self, reason: str) -> UnsupportedNetworkError:
        """Return the error that refuses this node.

        Parameters
        ----------
        reason : str

        Returns
        -------
        UnsupportedNetworkError
        """
        return UnsupportedNetworkError(f"cannot read {self.label}: {reason}")


@dataclass
class Graph:
    """What a reader needs of an ONNX graph with one input and one output.

    Parameters
    ----------
    opset : int
        Version of the operators.
    input, output : str
        Names of the two values.
    batch : int or None
        First dimension of the input if it is fixed.
    shape : tuple of int or None
        The others, None if any is not fixed.
    constants : dict of str to ndarray
        Values known beforehand.
    consumers : dict of str to list of Node
        Nodes by the values that go into them, once each.
    producers : dict of str to Node
        Nodes by the values that come out of them.
    """

    opset: int
    input: str
    output: str
    batch: int | None
    shape: tuple[int, ...] | None
    constants: dict[str, np.ndarray]
    consumers: dict[str, list[Node]]
    producers: dict[str, Node]

    def operand(self, node: Node, index: int) -> np.ndarray:
        """Return a constant input of a node as finite float64, exactly.

        Parameters
        ----------
        node : Node
        index : int
            Which input.

        Returns
        -------
        ndarray

        Raises
        ------
        UnsupportedNetworkError
            If it is not a constant.
        InputError
            If it is missing, not floating point or not finite.
        """
        name = self._input(node, index)
        value = self.constants[name]
        if value.dtype.kind in "iub":
            raise InputError(f"{name!r} of {node.label} must be floating point, got {value.dtype}")
        with np.errstate(invalid="ignore"):  # a signalling NaN is found below
            value = value.astype(np.float64)
        if not np.all(np.isfinite(value)):
            count = int(np.sum(~np.isfinite(value)))
            raise InputError(
                f"{name!r} of {node.label} must be finite, got {count} NaN or infinite entries"
            )
        return value

    def _input(self, node: Node, index: int) -> str:
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            raise InputError(f"{node.label} must have input number {index}")
        if name not in self.constants:
            raise node.refuse(f"its input {name!r} must be a constant")
        return name


def load_graph(path: str | Path) -> Graph:
    """Read an ONNX file.

    Parameters
    ----------
    path : str or Path
        A .onnx file with all weights inside.

    Returns
    -------
    Graph

    Raises
    ------
    InputError
        If the package onnx is missing, or the file is missing, larger than 2 GiB,
        damaged, of another kind or keeps weights in other files.
    UnsupportedNetworkError
        If the graph has several inputs or outputs, or is of an unknown version.

    Examples
    --------
    ``load_graph("encoder.onnx").opset``
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            "reading ONNX files needs the package onnx: pip install harmonicvae[onnx]"
        ) from error
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    model = onnx.ModelProto()
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError("it is larger than 2 GiB")
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # each protobuf library has its own
        raise InputError(
            f"cannot read {path} as an ONNX file ({error}); it may be truncated or of another kind"
        ) from error
    if len(model.graph.node) == 0:
        raise InputError(f"{path} holds no graph with nodes; it may be of another kind")
    return _build(model, onnx)


def _build(model: Any, onnx: Any) -> Graph:
    """Check the parts of a model and put them in order."""
    opset = _opset(model, onnx.defs.onnx_opset_version())
    if model.graph.sparse_initializer:
        raise UnsupportedNetworkError("cannot read the graph: it has sparse initializers")
    constants = {item.name: _array(item, onnx) for item in model.graph.initializer}
    nodes = [_node(item, i, onnx) for i, item in enumerate(model.graph.node)]
    inputs = [item for item in model.graph.input if item.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UnsupportedNetworkError(
            "cannot read the graph: it must have one input and one output, "
            f"got {len(inputs)} and {len(model.graph.output)}"
        )
    names = [inputs[0].name, *constants, *(name for node in nodes for name in node.outputs)]
    _check_unique([item.name for item in model.graph.initializer])
    _check_unique([name for name in names if name])
    batch, shape = _input_shape(inputs[0], onnx)
    rest = [node for node in nodes if not _fold(node, constants, onnx)]
    consumers: dict[str, list[Node]] = {}
    for node in rest:
        for name in dict.fromkeys(node.inputs):
            consumers.setdefault(name, []).append(node)
    producers = {name: node for node in rest for name in node.outputs}
    output = model.graph.output[0].name
    return Graph(opset, inputs[0].name, output, batch, shape, constants, consumers, producers)


def _check_unique(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"the graph defines the value {name!r} twice")
        seen.add(name)


def _opset(model: Any, newest: int) -> int:
    """Return the version of the standard operators."""
    versions = [item.version for item in model.opset_import if item.domain in _DOMAINS]
    if len(versions) != 1 or not _FIRST_OPSET <= versions[0] <= newest:
        raise UnsupportedNetworkError(
            f"cannot read the graph: it must name one operator set from {_FIRST_OPSET} to {newest} "
            f"(what the installed onnx knows), got {versions}"
        )
    if any(item.domain in _DOMAINS for item in model.functions):
        raise UnsupportedNetworkError("cannot read the graph: it redefines standard operators")
    return versions[0]


def _array(tensor: Any, onnx: Any) -> np.ndarray:
    """Return a tensor as an array."""
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InputError(
            f"tensor {tensor.name!r} lies in another file; save the model in one file, with "
            "onnx.save(onnx.load(path), path, save_as_external_data=False)"
        )
    allowed = {getattr(onnx.TensorProto, name): name for name in _TENSOR_TYPES}
    if tensor.data_type not in allowed:
        raise UnsupportedNetworkError(
            f"cannot read tensor {tensor.name!r}: its type must be one of {_TENSOR_TYPES}, "
            f"got number {tensor.data_type}"
        )
    try:
        if min(tensor.dims, default=0) < 0:
            raise ValueError(f"dimensions {list(tensor.dims)}")
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise InputError(f"tensor {tensor.name!r} is damaged: {error}") from error


def _node(proto: Any, number: int, onnx: Any) -> Node:
    """Return a node with its attributes as Python values."""
    op = proto.op_type if proto.domain in _DOMAINS else f"{proto.domain}.{proto.op_type}"
    label = f"{op} node {proto.name!r}" if proto.name else f"{op} node {number}"
    if not proto.output or not proto.output[0]:
        raise InputError(f"{label} must have an output")
    attributes = {item.name: _attribute(item, onnx) for item in proto.attribute}
    return Node(op, label, tuple(proto.input), tuple(proto.output), attributes)


def _attribute(item: Any, onnx: Any) -> Any:
    """Return an attribute as a Python value, the message itself if of another type."""
    if item.ref_attr_name:
        return item
    kinds = onnx.AttributeProto
    readers = {
        kinds.INT: lambda: int(item.i),
        kinds.FLOAT: lambda: float(item.f),
        kinds.STRING: lambda: item.s.decode("latin-1"),
        kinds.INTS: lambda: tuple(int(number) for number in item.ints),
        kinds.FLOATS: lambda: np.array(item.floats, dtype=np.float32),
        kinds.TENSOR: lambda: item.t,
    }
    return readers.get(item.type, lambda: item)()


def _input_shape(value: Any, onnx: Any) -> tuple[int | None, tuple[int, ...] | None]:
    """Return the batch size and the shape of one sample, None where they are not fixed."""
    tensor = value.type.tensor_type
    allowed = [getattr(onnx.TensorProto, name) for name in _OPERAND_TYPES]
    if tensor.elem_type not in allowed:
        raise UnsupportedNetworkError(
            f"cannot read the graph: its input {value.name!r} must be of type "
            f"{', '.join(_OPERAND_TYPES)}, got number {tensor.elem_type}"
        )
    if not tensor.HasField("shape"):
        return None, None
    sizes = [item.dim_value if item.HasField("dim_value") else None for item in tensor.shape.dim]
    if len(sizes) < 2 or any(size is not None and size < 1 for size in sizes[1:]):
        raise UnsupportedNetworkError(
            f"cannot read the graph: its input {value.name!r} must have a batch and at least one "
            f"more dimension >= 1, got {sizes}"
        )
    batch = sizes[0] if sizes[0] is not None and sizes[0] > 0 else None
    fixed = tuple(size for size in sizes[1:] if size is not None)
    return batch, fixed if len(fixed) == len(sizes) - 1 else None


def _fold(node: Node, constants: dict[str, np.ndarray], onnx: Any) -> bool:
    """Compute a node without inputs, or one that only moves a constant; True if done."""
    if node.op == "Constant":
        value = _constant(node, onnx)
    elif node.op in ("Identity", "Transpose") and node.inputs[:1] and node.inputs[0] in constants:
        value = constants[node.inputs[0]]
        if node.op == "Transpose":
            value = _transposed(node, value)
    else:
        return False
    if len(node.outputs) != 1:
        raise InputError(f"{node.label} must have one output, got {len(node.outputs)}")
    constants[node.outputs[0]] = value
    return True


def _constant(node: Node, onnx: Any) -> np.ndarray:
    """Return the value of a Constant node."""
    names = list(node.attributes)
    value = node.attributes[names[0]] if len(names) == 1 else None
    if names == ["value"] and isinstance(value, onnx.TensorProto):
        return _array(value, onnx)
    kinds = {
        "value_float": (float, np.float32),
        "value_floats": (np.ndarray, np.float32),
        "value_int": (int, np.int64),
        "value_ints": (tuple, np.int64),
    }
    kind, dtype = kinds.get(names[0] if names else "", (type(None), None))
    if value is None or not isinstance(value, kind):
        raise node.refuse(f"its value must be one tensor of numbers, got {names}")
    return np.array(value, dtype=dtype)


def _transposed(node: Node, value: np.ndarray) -> np.ndarray:
    axes = node.take("perm", tuple, tuple(reversed(range(value.ndim))))
    if sorted(axes) != list(range(value.ndim)):
        raise InputError(f"perm of {node.label} must order {value.ndim} axes, got {axes}")
    return value.transpose(axes)
