"""The ONNX reader against ONNX's own reference evaluator, and what is refused."""

import sys

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from harmonicvae.exceptions import HarmonicVAEError, InputError, UnsupportedNetworkError
from harmonicvae.network import LayeredNetwork

FEW = settings(max_examples=50, deadline=None)
OPSET = 21
RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], name=f"{op.lower()}_{output}", **attributes)


def model_of(nodes, constants, shape, opset=OPSET, kind=TensorProto.DOUBLE, output=None):
    """A model from "x" of the shape to the output of the last node."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output or nodes[-1].output[0], kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def read(model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return LayeredNetwork.from_onnx(path)


def evaluate(model, x):
    """Return the value of the reference evaluator, with groups one by one.

    Its transposed convolution is wrong for groups > 1 (onnx 1.23).
    """
    first = model.graph.node[0]
    groups = [item for item in first.attribute if item.name == "group"]
    if first.op_type != "ConvTranspose" or not groups or groups[0].i == 1:
        return ReferenceEvaluator(model).run(None, {"x": x})[0]
    count = groups[0].i
    single = onnx.ModelProto()
    single.CopyFrom(model)
    weight, bias = (numpy_helper.to_array(item) for item in model.graph.initializer)
    next(item for item in single.graph.node[0].attribute if item.name == "group").i = 1
    parts = []
    for piece in zip(np.split(x, count, 1), np.split(weight, count), np.split(bias, count)):
        del single.graph.initializer[:]
        single.graph.initializer.append(numpy_helper.from_array(piece[1], "w"))
        single.graph.initializer.append(numpy_helper.from_array(piece[2], "b"))
        parts += ReferenceEvaluator(single).run(None, {"x": piece[0]})
    return np.concatenate(parts, axis=1)


def assert_same(model, tmp_path, shape, tolerance=1e-12):
    """The network computes what the reference evaluator computes, on random inputs."""
    network = read(model, tmp_path)
    for _ in range(3):
        x = RNG.standard_normal((1, *shape))
        expected = evaluate(model, x)
        found = network(x.reshape(1, -1))
        assert found.size == expected.size
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=0, atol=tolerance * scale)
    return network


@given(
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25]),
    turned=st.booleans(),
    bias=st.sampled_from([None, (), (1,), (4,), (1, 4)]),
)
@FEW
def test_gemm(tmp_path_factory, alpha, beta, turned, bias):
    constants = {"w": normal(4, 3) if turned else normal(3, 4)}
    inputs = ["x", "w"]
    if bias is not None:
        constants["c"] = normal(*bias)
        inputs.append("c")
    gemm = node("Gemm", inputs, "y", alpha=alpha, beta=beta, transB=int(turned))
    network = assert_same(
        model_of([gemm], constants, ["batch", 3]), tmp_path_factory.mktemp("onnx"), (3,)
    )
    if alpha == 1.0:
        expected = constants["w"] if turned else constants["w"].T
        np.testing.assert_array_equal(network.weights[0], expected)


def test_products_and_sums_with_constants_become_few_layers(tmp_path):
    nodes = [
        node("Sub", ["x", "mean"], "a"),
        node("Div", ["a", "std"], "b"),
        node("Flatten", ["b"], "c"),
        node("MatMul", ["c", "w"], "d"),
        node("Add", ["bias", "d"], "e"),
        node("Relu", ["e"], "f"),
        node("MatMul", ["f", "v"], "g"),
        node("Sub", ["g", "bias2"], "h"),
        node("Mul", ["three", "h"], "i"),
        node("Sub", ["one", "i"], "j"),
        node("Add", ["j", "one"], "k"),
    ]
    constants = {
        "mean": normal(2, 1, 1),
        "std": np.array([0.5, 3.0]).reshape(1, 2, 1, 1),
        "w": normal(12, 5),
        "bias": normal(5),
        "v": normal(5, 4),
        "bias2": normal(1, 4),
        "three": np.array(3.0),
        "one": np.ones(1),
    }
    network = assert_same(model_of(nodes, constants, ["N", 2, 2, 3]), tmp_path, (2, 2, 3))
    assert network.hidden_dims == (12, 12, 5, 4, 4, 4)
    np.testing.assert_array_equal(network.weights[2], constants["w"].T)
    np.testing.assert_array_equal(network.biases[2], constants["bias"])


def test_a_sum_after_an_activation_stays_after_it(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("Relu", ["a"], "b"),
        node("Add", ["b", "c"], "y"),
    ]
    model = model_of(nodes, {"w": normal(4, 4), "c": normal(4)}, ["N", 4])
    assert assert_same(model, tmp_path, (4,)).hidden_dims == (4,)


def test_matmul_acts_on_the_last_dimension(tmp_path):
    model = model_of([node("MatMul", ["x", "w"], "y")], {"w": normal(3, 2)}, [1, 4, 3])
    assert assert_same(model, tmp_path, (4, 3)).weights[0].shape == (8, 12)


@st.composite
def windows(draw, rank):
    small = st.integers(1, 3)
    lists = {
        "strides": [draw(small) for _ in range(rank)],
        "dilations": [draw(small) for _ in range(rank)],
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * rank)],
    }
    return {name: value for name, value in lists.items() if draw(st.booleans())}


@st.composite
def convolutions(draw, op):
    rank = draw(st.sampled_from([1, 2]))
    groups, per_in, per_out = (draw(st.integers(1, 2)) for _ in range(3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    into, out = groups * per_in, groups * per_out
    weight = normal(out, per_in, *kernel) if op == "Conv" else normal(into, per_out, *kernel)
    attributes = {"group": groups, **draw(windows(rank))}
    if op == "ConvTranspose" and draw(st.booleans()):
        strides = attributes.get("strides", [1] * rank)
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    constants = {"w": weight, "b": normal(out)}
    inputs = ["x", "w", "b"][: draw(st.integers(2, 3))]
    shape = (into, *(draw(st.integers(3, 6)) for _ in range(rank)))
    return model_of([node(op, inputs, "y", **attributes)], constants, ["N", *shape]), shape, weight


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@given(data=st.data())
@FEW
def test_convolutions(tmp_path_factory, op, data):
    model, shape, weight = data.draw(convolutions(op))
    folder = tmp_path_factory.mktemp("onnx")
    try:
        network = read(model, folder)
    except InputError:
        with pytest.raises(InputError, match="no outputs"):
            read(model, folder)
        return
    assert_same(model, folder, shape)
    matrix = network.weights[0]
    assert set(matrix[matrix != 0].tolist()) <= set(weight.ravel().tolist())


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
)
@FEW
def test_convolutions_that_keep_the_size(tmp_path_factory, kernel, stride, dilation, mode):
    strides, dilations = [stride, 1], [1, dilation]
    conv = node("Conv", ["x", "w"], "y", auto_pad=mode, strides=strides, dilations=dilations)
    model = model_of([conv], {"w": normal(2, 1, *kernel)}, ["N", 1, 7, 8])
    assert_same(model, tmp_path_factory.mktemp("onnx"), (1, 7, 8))


@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    window=windows(2),
    count=st.integers(0, 1),
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
)
@FEW
def test_average_pools(tmp_path_factory, kernel, window, count, size):
    pads, dilations = window.get("pads", [0] * 4), window.get("dilations", [1, 1])
    assume(all(pads[i] < kernel[i] and pads[i + 2] < kernel[i] for i in range(2)))
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    assume(all(s <= n + pads[i] + pads[i + 2] for i, (s, n) in enumerate(zip(spans, size))))
    assume(all(s == k or not any(pads) for s, k in zip(spans, kernel)))
    pool = node("AveragePool", ["x"], "y", kernel_shape=kernel, count_include_pad=count, **window)
    model = model_of([pool], {}, ["N", 2, *size])
    assert_same(model, tmp_path_factory.mktemp("onnx"), (2, *size))


def test_average_pools_that_round_up(tmp_path):
    pool = node("AveragePool", ["x"], "y", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)
    assert_same(model_of([pool], {}, ["N", 2, 6, 5]), tmp_path, (2, 6, 5))


def test_batch_normalisation_in_inference(tmp_path):
    names = ["scale", "b", "mean", "var"]
    constants = {name: normal(3) for name in names[:3]} | {"var": np.array([0.5, 2.0, 1e-3])}
    norm = node("BatchNormalization", ["x", *names], "y", epsilon=1e-3)
    for shape in ((3,), (3, 2), (3, 2, 2)):
        network = assert_same(model_of([norm], constants, ["N", *shape]), tmp_path, shape)
        assert np.count_nonzero(network.weights[0]) == np.prod(shape)


ACTIVATION_NODES = [
    [node("Relu", ["x"], "y")],
    [node("LeakyRelu", ["x"], "y")],
    [node("LeakyRelu", ["x"], "y", alpha=0.25)],
    [node("Sigmoid", ["x"], "y")],
    [node("Tanh", ["x"], "y")],
    [node("Softplus", ["x"], "y")],
    [node("Elu", ["x"], "y", alpha=1.5)],
    [node("Gelu", ["x"], "y")],
    [node("Gelu", ["x"], "y", approximate="tanh")],
    [node("Sigmoid", ["x"], "s"), node("Mul", ["x", "s"], "y")],
    [node("Sigmoid", ["x"], "s"), node("Mul", ["s", "x"], "y")],
    [
        node("Div", ["x", "root"], "a"),
        node("Erf", ["a"], "b"),
        node("Add", ["b", "one"], "c"),
        node("Mul", ["x", "c"], "d"),
        node("Mul", ["d", "half"], "y"),
    ],
]
NUMBERS = {"root": np.array(np.sqrt(2.0)), "one": np.array(1.0), "half": np.array(0.5)}


@pytest.mark.parametrize(
    "nodes", ACTIVATION_NODES, ids=lambda nodes: "-".join(n.op_type for n in nodes)
)
def test_activations(tmp_path, nodes):
    nodes = [*nodes, node("Gemm", ["y", "w"], "z")]
    model = model_of(nodes, {"w": normal(4, 2), **NUMBERS}, ["N", 4])
    network = assert_same(model, tmp_path, (4,), tolerance=1e-6)  # Gelu: float32 inside
    assert [item.name for item in network.activations] != ["identity"]
    assert network.n_layers == 2


def test_a_whole_chain_with_reshapes_and_dropout(tmp_path):
    nodes = [
        node("Constant", [], "shape", value_ints=[0, 2, -1]),
        node("Reshape", ["x", "flat"], "a"),
        node("Transpose", ["w"], "wt", perm=[1, 0]),
        node("MatMul", ["a", "wt"], "b"),
        node("Dropout", ["b"], "c"),
        node("Identity", ["c"], "d"),
        node("Tanh", ["d"], "e"),
        node("Reshape", ["e", "shape"], "f"),
        node("Conv", ["f", "k"], "g"),
        node("Flatten", ["g"], "h", axis=-2),
        node("Elu", ["h"], "i"),
        node("Flatten", ["i"], "y"),
    ]
    constants = {"flat": np.array([-1, 6]), "w": normal(8, 6), "k": normal(3, 2, 2)}
    network = assert_same(model_of(nodes, constants, ["N", 2, 3]), tmp_path, (2, 3))
    assert [item.name for item in network.activations] == ["tanh", "elu"]


def test_a_fixed_batch_may_be_named_in_a_reshape(tmp_path):
    nodes = [node("Reshape", ["x", "s"], "a"), node("MatMul", ["a", "w"], "y")]
    constants = {"s": np.array([1, 6]), "w": normal(6, 2)}
    assert_same(model_of(nodes, constants, [1, 2, 3]), tmp_path, (2, 3))
    with pytest.raises(UnsupportedNetworkError, match="must keep the batch"):
        read(model_of(nodes, constants, ["N", 2, 3]), tmp_path)


def shape_nodes():
    """A Reshape to sizes taken from a shape, as torch exports Unflatten and view."""
    nodes = [
        node("Shape", ["x"], "s"),
        node("Mod", ["three", "two"], "one"),
        node("Slice", ["s", "zero", "one"], "batch"),
        node("Gather", ["s", "second"], "size"),
        node("Unsqueeze", ["size", "zero"], "sizes"),
        node("Div", ["sizes", "three"], "parts"),
        node("Concat", ["batch", "three", "parts"], "target", axis=0),
        node("Reshape", ["x", "target"], "r"),
        node("Conv", ["r", "k"], "y"),
    ]
    numbers = {"zero": 0, "two": 2, "three": 3}
    constants = {name: np.array([value]) for name, value in numbers.items()}
    return nodes, {"k": normal(2, 3, 2), "second": np.array(1), **constants}


@pytest.mark.parametrize("batch", ["N", 1])
def test_reshapes_may_compute_their_sizes(tmp_path, batch):
    nodes, constants = shape_nodes()
    assert_same(model_of(nodes, constants, [batch, 12]), tmp_path, (12,))


@pytest.mark.parametrize(
    ("number", "name", "value", "message"),
    [
        (0, "input", "far", "'far' is not known"),
        (1, "op_type", "Pow", "Pow node 'mod_one': it is not known how"),
        (3, "op_type", "Softmax", "Softmax node 'gather_size': it is not known"),
        (5, "input", "batch", "computes with the batch"),
        (6, "input", "target", "follow from constants"),
        (6, "input", "parts", "must keep the batch"),
        (6, "input", "k", "must be a vector of whole numbers"),
    ],
)
def test_sizes_that_cannot_be_computed_are_refused(tmp_path, number, name, value, message):
    nodes, constants = shape_nodes()
    if name == "input":
        nodes[number].input[0] = value
    else:
        setattr(nodes[number], name, value)
    with pytest.raises(HarmonicVAEError, match=message):
        read(model_of(nodes, constants, ["N", 12]), tmp_path)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_weights_of_lower_precision_are_copied_exactly(tmp_path, kind):
    weight = normal(3, 2).astype(kind)
    code = helper.np_dtype_to_tensor_dtype(weight.dtype)
    model = model_of([node("MatMul", ["x", "w"], "y")], {"w": weight}, ["N", 3], kind=code)
    np.testing.assert_array_equal(read(model, tmp_path).weights[0].T, weight.astype(float))


def test_the_suffix_chooses_the_reader(tmp_path):
    path = tmp_path / "model.onnx"
    model = model_of([node("MatMul", ["x", "w"], "y")], {"w": normal(3, 2)}, ["N", 3])
    path.write_bytes(model.SerializeToString())
    assert LayeredNetwork.from_file(path).input_dim == 3


def chain(*nodes, shape=("N", 4), opset=OPSET, kind=TensorProto.DOUBLE, output=None, **constants):
    return model_of(list(nodes), constants, list(shape), opset, kind, output)


W, EYE = normal(4, 4), np.eye(4)
MATMUL = node("MatMul", ["x", "w"], "y")

UNSUPPORTED = [
    (chain(node("HardSigmoid", ["x"], "y")), "HardSigmoid node 'hardsigmoid_y': it is not among"),
    (chain(node("Softmax", ["x"], "y")), "Softmax node 'softmax_y'"),
    (chain(helper.make_node("Selu", ["x"], ["y"])), "Selu node 0: "),
    (chain(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")), "com.microsoft.Gelu"),
    (chain(node("Add", ["x", "x"], "y")), "takes one value several times"),
    (chain(node("Relu", ["x"], "a"), node("Add", ["x", "a"], "y")), "Relu node 'relu_a'"),
    (chain(node("Relu", ["x"], "a"), node("Mul", ["x", "a"], "y")), "the graph branches"),
    (chain(node("Relu", ["x"], "a"), node("Tanh", ["x"], "y")), "goes to Relu node .* and Tanh"),
    (chain(MATMUL, node("Sigmoid", ["x"], "s"), node("Mul", ["x", "s"], "z"), w=W), "branches"),
    (chain(node("MatMul", ["w", "x"], "y"), w=W), "must be its first input"),
    (chain(node("Div", ["w", "x"], "y"), w=W), "must be its first input"),
    (chain(node("MatMul", ["x", "w"], "y"), w=np.ones(4)), "only matrices are known"),
    (chain(node("Gemm", ["x", "w"], "y", transA=1), w=W), "mixes samples"),
    (chain(node("Gemm", ["x", "w", "c"], "y"), w=W, c=np.ones((2, 4))), "must spread over"),
    (chain(node("Add", ["x", "w"], "y"), w=W), "must spread over samples"),
    (chain(node("Add", ["x", "w"], "y"), shape=("N", 1), w=np.ones(3)), "must spread over samples"),
    (
        chain(node("Conv", ["x", "k"], "y"), shape=("N", 1, "H", 4), k=np.ones((1, 1, 1, 1))),
        "unknown",
    ),
    (chain(node("Conv", ["x", "k"], "y"), k=np.ones((1, 1, 1, 1))), "takes samples of 3 dim"),
    (
        chain(
            node("ConvTranspose", ["x", "k"], "y", auto_pad="SAME_UPPER"),
            shape=("N", 1, 4),
            k=np.ones((1, 1, 1)),
        ),
        "auto_pad SAME_UPPER",
    ),
    (
        chain(
            node("ConvTranspose", ["x", "k"], "y", output_shape=[4]),
            shape=("N", 1, 4),
            k=np.ones((1, 1, 1)),
        ),
        "output_shape",
    ),
    (
        chain(
            node("AveragePool", ["x"], "y", kernel_shape=[2], ceil_mode=1, count_include_pad=1),
            shape=("N", 1, 4),
        ),
        "ceil_mode with count_include_pad",
    ),
    (
        chain(
            node("BatchNormalization", ["x", "o", "o", "o", "o"], "y", training_mode=1),
            o=np.ones(4),
        ),
        "statistics of the batch",
    ),
    (
        chain(node("Dropout", ["x", "r", "t"], "y"), r=np.array(0.5), t=np.array(True)),
        "random in training",
    ),
    (chain(node("Flatten", ["x"], "y", axis=0)), "keeps samples apart"),
    (chain(node("Reshape", ["x", "s"], "y"), s=np.array([4, -1])), "must keep the batch"),
    (chain(node("Reshape", ["x", "s"], "y"), s=np.array([-1])), "must keep the batch"),
    (chain(node("Swish", ["x"], "y", alpha=2.0), opset=24), "only alpha = 1"),
    (chain(node("Relu", ["x"], "y", novel=3)), r"attributes \['novel'\] are not known"),
    (chain(node("Relu", ["x"], "y"), opset=6), "operator set from 7"),
    (chain(node("Relu", ["x"], "y"), kind=TensorProto.INT64), "must be of type"),
    (chain(node("Relu", ["x"], "y"), shape=(4,)), "must have a batch"),
    (chain(node("Add", ["x", "z"], "y"), node("Shape", ["x"], "z")), "must be a constant"),
    (chain(MATMUL, w=np.array([[b"a"]], dtype=object)), "its type must be one of"),
    (chain(MATMUL, w=np.ones((4, 4), dtype=complex)), "its type must be one of"),
    (chain(node("Relu", ["x"], "y")), None),
]


@pytest.mark.parametrize(("model", "message"), UNSUPPORTED)
def test_graphs_without_exact_form_are_refused_by_name(tmp_path, model, message):
    if message is None:  # the pattern works: a chain that is fine is read
        assert read(model, tmp_path).input_dim == 4
        return
    with pytest.raises(UnsupportedNetworkError, match=message):
        read(model, tmp_path)


NAN = np.where(np.eye(4) == 1, np.nan, 1.0)

WRONG = [
    (chain(MATMUL, w=NAN), "'w' of MatMul node 'matmul_y' must be finite, got 4 NaN"),
    (chain(node("Gemm", ["x", "w", "c"], "y"), w=W, c=np.full(4, np.inf)), "'c' of Gemm .* finite"),
    (chain(MATMUL, w=np.ones((3, 4))), "must get 3 inputs, but its input has shape"),
    (chain(MATMUL, w=np.ones((4, 4), dtype=np.int64)), "must be floating point"),
    (chain(node("Div", ["x", "w"], "y"), w=np.zeros(1)), "must not divide by 0"),
    (chain(node("Gemm", ["x"], "y")), "must have input number 1"),
    (chain(node("Gemm", ["x", "w"], "y", alpha=1), w=W), "must be float, got int"),
    (chain(MATMUL, helper.make_node("Relu", ["y"], []), w=W, output="z"), "Relu node 1 must have"),
    (chain(MATMUL, w=W, output="other"), "ends at 'y', not at its output"),
    (chain(MATMUL, MATMUL, w=W), "defines the value 'y' twice"),
    (chain(node("Relu", ["x"], "x")), "defines the value 'x' twice"),
    (
        chain(node("Conv", ["x", "k"], "y", group=0), shape=("N", 1, 4), k=np.ones((1, 1, 1))),
        "into 0 groups",
    ),
    (
        chain(node("Conv", ["x", "k"], "y", strides=[0]), shape=("N", 1, 4), k=np.ones((1, 1, 1))),
        "stride must be 1 whole numbers >= 1",
    ),
    (
        chain(node("Conv", ["x", "k"], "y", pads=[1]), shape=("N", 1, 4), k=np.ones((1, 1, 1))),
        "pads of Conv",
    ),
    (
        chain(node("Conv", ["x", "k"], "y"), shape=("N", 1, 4), k=np.ones((1, 1, 5))),
        "has no outputs",
    ),
]


@pytest.mark.parametrize(("model", "message"), WRONG)
def test_sizes_and_numbers_are_checked(tmp_path, model, message):
    with pytest.raises(InputError, match=message):
        read(model, tmp_path)


def test_two_inputs_or_outputs_are_refused(tmp_path):
    for field in ("input", "output"):
        model = chain(MATMUL, w=W)
        extra = helper.make_tensor_value_info("extra", TensorProto.DOUBLE, ["N", 4])
        getattr(model.graph, field).append(extra)
        with pytest.raises(UnsupportedNetworkError, match="one input and one output"):
            read(model, tmp_path)


def test_weights_in_other_files_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(chain(MATMUL, w=W), path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(InputError, match="'w' lies in another file"):
        LayeredNetwork.from_onnx(path)


def test_circles_are_refused(tmp_path):
    model = chain(node("Relu", ["x"], "a"), node("Relu", ["b"], "c"), node("Relu", ["c"], "b"))
    model.graph.node[0].output[0] = "b2"
    model.graph.output[0].name = "far"
    with pytest.raises(HarmonicVAEError, match="ends at"):
        read(model, tmp_path)


def test_files_of_the_wrong_kind_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="is not a file"):
        LayeredNetwork.from_onnx(path)
    for content in (
        b"no graph here",
        b"",
        b"\x00" * 100,
        chain(MATMUL, w=W).SerializeToString()[:-9],
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match="of another kind"):
            LayeredNetwork.from_onnx(path)


def test_damaged_tensors_are_refused(tmp_path):
    for dims in ([4, 5], [-1, 4], [2**40, 2**40]):
        model = chain(MATMUL, w=W)
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        with pytest.raises(InputError, match="tensor 'w' is damaged"):
            read(model, tmp_path)


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(MATMUL, w=W).SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install harmonicvae\[onnx\]"):
        LayeredNetwork.from_onnx(path)
