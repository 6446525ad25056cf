"""Read ONNX files into affine layers and activations, refusing what has no exact form."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from harmonicvae.activations import (
    Activation,
    elu,
    gelu,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from harmonicvae.exceptions import InputError, UnsupportedNetworkError
from harmonicvae.readers.affine_maps import Shape, batch_norm
from harmonicvae.readers.image_maps import Window, average_pool, convolution, transposed_convolution
from harmonicvae.readers.layer_stack import Layers, LayerStack
from harmonicvae.readers.onnx_graphs import Graph, Node, load_graph
from harmonicvae.readers.onnx_shapes import ShapeArithmetic


def _swish(node: Node) -> Activation:
    if node.take("alpha", float, 1.0) != 1.0:
        raise node.refuse("only alpha = 1 is known")
    return silu()


_ACTIVATION_READERS: dict[str, Callable[[Node], Activation]] = {
    "Relu": lambda node: relu(),
    "LeakyRelu": lambda node: leaky_relu(node.take("alpha", float, float(np.float32(0.01)))),
    "Sigmoid": lambda node: sigmoid(),
    "Tanh": lambda node: tanh(),
    "Softplus": lambda node: softplus(),
    "Elu": lambda node: elu(node.take("alpha", float, 1.0)),
    "Gelu": lambda node: gelu(node.take("approximate", str, "none")),
    "Swish": _swish,
}


def _same_pads(kernel: Shape, stride: Shape, dilation: Shape, sizes: Shape, mode: str) -> Shape:
    """Return the pads for ⌈size / stride⌉ outputs, an odd one at the end or the start."""
    Window(kernel, stride, dilation, (0,) * len(kernel), (0,) * len(kernel))  # checks numbers
    total = []
    for k, s, d, size in zip(kernel, stride, dilation, sizes):
        total.append(max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0))
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return tuple(less + more if mode == "SAME_UPPER" else more + less)


class ChainReader:
    """Walks from the input of a graph to its output, node by node.

    Parameters
    ----------
    graph : Graph
        What :func:`~harmonicvae.readers.onnx_graphs.load_graph` returns.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.stack = LayerStack(graph.shape)
        self.current = graph.input
        self.shapes = ShapeArithmetic(graph, {})
        self._handlers: dict[str, Callable[[Node], None]] = {
            "Gemm": self._read_gemm,
            "MatMul": self._read_matmul,
            "Add": self._read_sum,
            "Sub": self._read_sum,
            "Mul": self._read_product,
            "Div": self._read_product,
            "Conv": self._read_convolution,
            "ConvTranspose": self._read_transposed,
            "AveragePool": self._read_pool,
            "BatchNormalization": self._read_batch_norm,
            "Flatten": self._read_flatten,
            "Reshape": self._read_reshape,
            "Identity": lambda node: None,
            "Dropout": self._read_dropout,
        }

    def read(self) -> None:
        """Read the whole graph into ``stack``.

        Raises
        ------
        UnsupportedNetworkError
            If a node has no exact form here or the graph branches.
        InputError
            If sizes do not fit, or the output does not depend on the input.
        """
        seen = set()
        while self.current != self.graph.output:
            if self.current in seen:
                raise InputError(f"the graph goes round in a circle at {self.current!r}")
            seen.add(self.current)
            if self.stack.shape is not None:
                self.shapes.shapes[self.current] = (self.graph.batch, *self.stack.shape)
            nodes = self.graph.consumers.get(self.current, [])
            nodes = [node for node in nodes if node.op != "Shape"]  # see ShapeArithmetic
            if not nodes:
                raise InputError(f"the graph ends at {self.current!r}, not at its output")
            self.current = self._read_gate(nodes) if len(nodes) > 1 else self._read(nodes[0])

    def _read(self, node: Node) -> str:
        """Read a node and return the name of its result."""
        if node.inputs.count(self.current) != 1:
            raise node.refuse("it takes one value several times")
        if node.inputs[0] != self.current and node.op not in ("Add", "Sub", "Mul"):
            raise node.refuse(f"{self.current!r} must be its first input")
        if node.op in _ACTIVATION_READERS:
            self.stack.activate(_ACTIVATION_READERS[node.op](node))
        elif node.op in self._handlers:
            self._handlers[node.op](node)
        else:
            raise node.refuse("it is not among the operators that can be represented exactly")
        if node.attributes:
            raise node.refuse(f"its attributes {sorted(node.attributes)} are not known")
        return node.outputs[0]

    def _read_gate(self, nodes: list[Node]) -> str:
        """Read x·sigmoid(x) or x·(1 + erf(x/√2))·½ and return the name of the result."""
        gates = [node for node in nodes if node.op != "Mul"]
        products = [node for node in nodes if node.op == "Mul"]
        if len(gates) != 1 or len(products) != 1:
            labels = " and ".join(node.label for node in nodes)
            raise nodes[0].refuse(f"the graph branches, {self.current!r} goes to {labels}")
        gate, product = gates[0], products[0]
        item, end = silu(), gate
        if gate.op == "Div":
            item, end = gelu(), self._end_of_erf(gate)
        elif gate.op != "Sigmoid":
            raise gate.refuse(f"the graph branches, {self.current!r} goes to {product.label} too")
        if self._next(end) is not product or sorted(product.inputs) != sorted(
            (self.current, end.outputs[0])
        ):
            raise product.refuse("it must multiply the input and the output of a gate")
        if gate.op == "Div":
            product = self._scaled(product, "Mul", 0.5, 0.0)
        self.stack.activate(item)
        return product.outputs[0]

    def _next(self, node: Node) -> Node:
        """Return the only consumer of a node's only result."""
        nodes = self.graph.consumers.get(node.outputs[0], []) if len(node.outputs) == 1 else []
        if len(nodes) != 1 or node.outputs[0] == self.graph.output or node.attributes:
            raise node.refuse("the graph branches in a way that is not known")
        return nodes[0]

    def _scaled(self, node: Node, op: str, number: float, tolerance: float) -> Node:
        """Return the next node, which must combine the result with a known number."""
        result = self._next(node)
        other = [i for i, name in enumerate(result.inputs) if name != node.outputs[0]]
        if result.op != op or len(result.inputs) != 2 or len(other) != 1:
            raise result.refuse(f"after {node.label} only {op} with {number} is known")
        self._check_number(result, other[0], number, tolerance)
        return result

    def _check_number(self, node: Node, index: int, number: float, tolerance: float) -> None:
        value = self.graph.operand(node, index)
        if value.size != 1 or value.ndim > 1 or abs(float(value.ravel()[0]) - number) > tolerance:
            raise node.refuse(f"it must use the number {number}")

    def _end_of_erf(self, gate: Node) -> Node:
        """Return the node that ends 1 + erf(x/√2)."""
        if len(gate.inputs) != 2 or gate.inputs[0] != self.current:
            raise gate.refuse("it must divide by a constant")
        self._check_number(gate, 1, math.sqrt(2.0), 1e-7)  # float32
        erf = self._next(gate)
        if erf.op != "Erf":
            raise erf.refuse(f"the graph branches before {gate.label} in a way that is not known")
        return self._scaled(erf, "Add", 1.0, 0.0)

    def _read_gemm(self, node: Node) -> None:
        if self.stack.shape is not None and len(self.stack.shape) != 1:
            raise node.refuse(f"it must get flat samples, got shape {self.stack.shape}")
        if node.take("transA", int, 0) != 0:
            raise node.refuse("transA = 1 mixes samples")
        alpha, beta = node.take("alpha", float, 1.0), node.take("beta", float, 1.0)
        matrix = self.graph.operand(node, 1)
        if matrix.ndim != 2:
            raise InputError(f"{node.label} must have a matrix, got shape {matrix.shape}")
        matrix = matrix if node.take("transB", int, 0) else matrix.T
        bias = np.zeros(len(matrix))
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self._broadcast(self.graph.operand(node, 2), (len(matrix),), node)
        with np.errstate(over="ignore", invalid="ignore"):
            matrix, bias = alpha * matrix, beta * bias
        if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(bias))):
            raise InputError(f"{node.label} has weights times alpha or beta that are not finite")
        self.stack.linear(matrix, bias, node.label)

    def _read_matmul(self, node: Node) -> None:
        matrix = self.graph.operand(node, 1)
        if matrix.ndim != 2:
            raise node.refuse(f"only matrices are known, got shape {matrix.shape}")
        self.stack.linear(matrix.T, np.zeros(matrix.shape[1]), node.label)

    def _constant(self, node: Node) -> tuple[np.ndarray, Shape]:
        """Return the constant of a sum or product, and the shape of a sample."""
        if len(node.inputs) != 2:
            raise InputError(f"{node.label} must have two inputs, got {len(node.inputs)}")
        shape = self.stack.known_shape(node.label)
        value = self.graph.operand(node, 1 - node.inputs.index(self.current))
        return self._broadcast(value, shape, node), shape

    def _broadcast(self, value: np.ndarray, shape: Shape, node: Node) -> np.ndarray:
        """Return a constant spread over one sample; it must be the same for all samples."""
        try:
            return np.broadcast_to(value, (1, *shape))[0]
        except ValueError:
            raise node.refuse(
                f"a constant of shape {value.shape} must spread over samples of shape {shape}"
            ) from None

    def _read_sum(self, node: Node) -> None:
        value, shape = self._constant(node)
        if node.op == "Add":
            self.stack.shift(value, shape, node.label)
        elif node.inputs[0] == self.current:
            self.stack.shift(-value, shape, node.label)
        else:
            self.stack.scale(-np.ones(()), value, shape, node.label)

    def _read_product(self, node: Node) -> None:
        value, shape = self._constant(node)
        if node.op == "Div":
            with np.errstate(divide="ignore", over="ignore"):
                value = 1.0 / value
            if not np.all(np.isfinite(value)):
                raise InputError(f"{node.label} must not divide by 0 or a number close to it")
        self.stack.scale(value, np.zeros(()), shape, node.label)

    def _window(self, node: Node, kernel: Shape, sizes: Shape) -> Window:
        """Read how a kernel moves."""
        rank = len(kernel)
        if rank != len(sizes):
            raise InputError(f"{node.label} has kernels of shape {kernel} for images {sizes}")
        if node.take("kernel_shape", tuple, kernel) != kernel:
            raise InputError(f"kernel_shape of {node.label} must be that of its weights, {kernel}")
        stride = node.take("strides", tuple, (1,) * rank)
        dilation = node.take("dilations", tuple, (1,) * rank)
        pads = node.take("pads", tuple, (0,) * (2 * rank))
        mode = node.take("auto_pad", str, "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER") and node.op == "Conv" and not any(pads):
            pads = _same_pads(kernel, stride, dilation, sizes, mode)
        elif mode not in ("NOTSET", "VALID"):
            raise node.refuse(f"auto_pad {mode} is not known; export with explicit pads")
        if len(pads) != 2 * rank or (mode == "VALID" and any(pads)):
            raise InputError(f"pads of {node.label} must be {2 * rank} numbers, got {pads}")
        return Window(kernel, stride, dilation, pads[:rank], pads[rank:])

    def _kernels(self, node: Node) -> tuple[np.ndarray, Shape, Window, int]:
        """Read weights, shape of a sample, window and groups of a convolution."""
        weight = self.graph.operand(node, 1)
        if not 3 <= weight.ndim <= 5:
            raise node.refuse(f"kernels of shape {weight.shape} are not known")
        shape = self.stack.known_shape(node.label, [weight.ndim - 1])
        window = self._window(node, weight.shape[2:], shape[1:])
        return weight, shape, window, node.take("group", int, 1)

    def _channel_bias(self, node: Node, channels: int) -> np.ndarray:
        if len(node.inputs) < 3 or not node.inputs[2]:
            return np.zeros(channels)
        bias = self.graph.operand(node, 2)
        if bias.shape != (channels,):
            raise InputError(
                f"bias of {node.label} must have shape ({channels},), got {bias.shape}"
            )
        return bias

    def _read_convolution(self, node: Node) -> None:
        weight, shape, window, groups = self._kernels(node)
        bias = self._channel_bias(node, len(weight))
        affine = convolution(weight, bias, shape, window, groups, node.label)
        self.stack.append(affine, node.label)

    def _read_transposed(self, node: Node) -> None:
        weight, shape, window, groups = self._kernels(node)
        if "output_shape" in node.attributes:
            raise node.refuse("output_shape is not known; export with explicit pads")
        extra = node.take("output_padding", tuple, (0,) * len(window.kernel))
        bias = self._channel_bias(node, weight.shape[1] * max(groups, 0))
        affine = transposed_convolution(weight, bias, shape, window, extra, groups, node.label)
        self.stack.append(affine, node.label)

    def _read_pool(self, node: Node) -> None:
        kernel = node.attributes.get("kernel_shape", ())
        if not isinstance(kernel, tuple) or not kernel:
            raise InputError(f"{node.label} must have a kernel_shape")
        shape = self.stack.known_shape(node.label, [len(kernel) + 1])
        window = self._window(node, kernel, shape[1:])
        ceil = node.take("ceil_mode", int, 0) != 0
        count_padding = node.take("count_include_pad", int, 0) != 0
        if ceil and count_padding:
            raise node.refuse("ceil_mode with count_include_pad differs between versions")
        affine = average_pool(shape, window, node.label, ceil=ceil, count_padding=count_padding)
        self.stack.append(affine, node.label)

    def _read_batch_norm(self, node: Node) -> None:
        node.take("momentum", float, 0.9)
        training = node.take("training_mode", int, 0) or sum(map(bool, node.outputs)) > 1
        if training or node.take("spatial", int, 1) != 1:
            raise node.refuse("it uses the statistics of the batch; export it for inference")
        gamma, beta, mean, variance = (self.graph.operand(node, i) for i in range(1, 5))
        epsilon = node.take("epsilon", float, float(np.float32(1e-5)))
        scale, shift = batch_norm(gamma, beta, mean, variance, epsilon, node.label)
        shape = self.stack.known_shape(node.label)
        if shape[0] != len(scale):
            raise InputError(f"{node.label} must get {len(scale)} channels, got shape {shape}")
        column = (len(scale), *[1] * (len(shape) - 1))
        self.stack.scale(scale.reshape(column), shift.reshape(column), shape, node.label)

    def _read_flatten(self, node: Node) -> None:
        axis, shape = node.take("axis", int, 1), self.stack.shape
        if axis != 1 and (shape is None or axis != -len(shape)):
            raise node.refuse(f"axis must be 1, which keeps samples apart, got {axis}")
        if shape is not None:
            self.stack.shape = (prod(shape),)

    def _read_reshape(self, node: Node) -> None:
        if len(node.inputs) < 2:
            raise InputError(f"{node.label} must have two inputs, got {len(node.inputs)}")
        shape = self.stack.known_shape(node.label)
        first, *entries = self.shapes.entries(node.inputs[1], node) or (0,)
        zero_copies = node.take("allowzero", int, 0) == 0
        rest = [-2 if entry is None else entry for entry in entries]
        if zero_copies:
            rest = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(rest)]
        known = prod(n for n in rest if n != -1)
        if rest.count(-1) == 1 and first != -1 and known > 0 and prod(shape) % known == 0:
            rest[rest.index(-1)] = prod(shape) // known
        keeps = first in (None, -1, self.graph.batch) or (first == 0 and zero_copies)
        if not keeps or not rest or min(rest) < 1 or prod(rest) != prod(shape):
            raise node.refuse(
                f"its result ({first}, {', '.join(map(str, rest))}) must keep the batch and all "
                f"entries of samples of shape {shape}"
            )
        self.stack.shape = tuple(rest)

    def _read_dropout(self, node: Node) -> None:
        node.take("ratio", float, 0.5)
        node.take("seed", int, 0)
        if (
            len(node.inputs) > 2
            and node.inputs[2]
            and any(self.shapes.entries(node.inputs[2], node))
        ):
            raise node.refuse("it is random in training mode; export it for inference")


def read_onnx(path: str | Path) -> Layers:
    """Read an ONNX file into weights, biases and activations.

    Parameters
    ----------
    path : str or Path
        A .onnx file, operator set 7 or newer, whose graph is one chain from one input to
        one output, with a batch as the first dimension. Operators: Gemm, MatMul, Conv,
        ConvTranspose, AveragePool, BatchNormalization, Add, Sub, Mul and Div with
        constants, Flatten, Reshape, Identity, Dropout, Relu, LeakyRelu, Sigmoid, Tanh,
        Softplus, Elu, Gelu, Swish, and x·sigmoid(x) and x·(1 + erf(x/√2))·½ in parts.

    Returns
    -------
    weights, biases : list of ndarray of float64
        One (out, in) matrix and one (out,) vector an affine layer.
    activations : list of Activation
        One fewer.

    Raises
    ------
    InputError
        If the package onnx is missing, the file is missing, damaged, of another kind or
        refers to other files, a constant is not finite, or sizes do not fit.
    UnsupportedNetworkError
        If a node has no exact form here; the message names it.

    Notes
    -----
    Weights are copied exactly. Rounded once to float64 are alpha and beta of Gemm times
    its weights, where they are not 1, and reciprocals of divisors; pooling and batch
    normalisation as in :func:`harmonicvae.readers.torch_layers.read_module`. In the GELU written
    with Erf the divisor may be √2 rounded to float32: any divisor gives the same slope
    range, values differ by a relative 1e-7.

    Examples
    --------
    See :meth:`harmonicvae.network.LayeredNetwork.from_onnx`.
    """
    reader = ChainReader(load_graph(path))
    try:
        reader.read()
        return reader.stack.finish("the graph")
    except (InputError, UnsupportedNetworkError) as error:
        raise type(error)(f"{path}: {error}") from error
