"""Damaged files and inputs made up at random: nothing but our own errors comes out."""

import warnings
from contextlib import suppress

import numpy as np
import pytest
import scipy.io
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from harmonicvae.exceptions import HarmonicVAEError
from harmonicvae.network import LayeredNetwork
from harmonicvae.readers import affine_maps, mat_reader

#: How many inputs each test below makes up; 6,600 in all.
N_MAT, N_ONNX, N_ARRAYS, N_MODULES = 2400, 2000, 1200, 1000


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    """Altered sizes may ask for GiB, which the guards allow; keep this fast."""
    monkeypatch.setattr(affine_maps, "MAX_MATRIX_BYTES", 2**18)
    monkeypatch.setattr(mat_reader, "MAX_BYTES", 2**18)


def altered(content, rng):
    """Return bytes with some of them changed, cut out, doubled, added or left off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind, place = rng.integers(6), int(rng.integers(len(data)))
        length = int(rng.integers(1, 9))
        if kind <= 1:
            data[place] = rng.integers(256)
        elif kind == 2:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            data[place : place + length] = rng.bytes(length)
        elif kind == 4:
            data[place:place] = data[place : place + length]
        else:
            data = data[: max(place, 1)] if rng.random() < 0.5 else data + rng.bytes(length)
    return bytes(data)


def read_all(reader, path, originals, count, rng):
    """Read altered files; count those that are read all the same, and distinct messages."""
    read, messages = 0, set()
    for i in range(count):
        path.write_bytes(altered(originals[i % len(originals)], rng))
        try:
            network = reader(path)
        except HarmonicVAEError as error:
            messages.add(str(error)[:200])
        else:
            assert all(np.all(np.isfinite(weight)) for weight in network.weights)
            read += 1
    return read, messages


def mat_files(tmp_path):
    rng = np.random.default_rng(0)
    cells = np.empty((1, 3), dtype=object)
    cells[0] = [rng.standard_normal((4, 3)), scipy.sparse.eye(4, format="csc"), np.ones((2, 4))]
    bias = np.empty((1, 3), dtype=object)
    bias[0] = [np.ones((4, 1)), np.arange(4, dtype=np.int8)[:, None], np.zeros((2, 1))]
    content = {"text": "abc", "weights": cells, "bias": bias, "s": {"a": 1.0}}
    for packed in (False, True):
        path = tmp_path / f"packed{packed}.mat"
        scipy.io.savemat(path, content, do_compression=packed)
        yield path.read_bytes()


def test_altered_mat_files(tmp_path):
    plain, packed = mat_files(tmp_path)
    read, messages = read_all(
        lambda path: LayeredNetwork.from_mat(path, "relu"),
        tmp_path / "fuzzed.mat",
        [plain, plain, packed],
        N_MAT,
        np.random.default_rng(1),
    )
    assert N_MAT / 20 < read < N_MAT
    assert len(messages) > 20


def onnx_files():
    rng = np.random.default_rng(0)
    constants = {
        "k": rng.standard_normal((2, 1, 2, 2)),
        "b": np.ones(2),
        "w": rng.standard_normal((3, 8)),
        "s": np.array([0, -1, 2]),
        "m": np.float32(rng.standard_normal((2, 2))),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], strides=[1, 1], pads=[0, 0, 1, 1]),
        helper.make_node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("BatchNormalization", ["p", "b", "b", "b", "b"], ["n"], epsilon=0.1),
        helper.make_node("Sigmoid", ["n"], ["i"]),
        helper.make_node("Mul", ["n", "i"], ["j"]),
        helper.make_node("Flatten", ["j"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["g"], transB=1, alpha=2.0),
        helper.make_node("LeakyRelu", ["g"], ["y"], alpha=0.1),
    ]
    short = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Elu", ["r"], ["e"], alpha=2.0),
        helper.make_node("MatMul", ["e", "m"], ["y"]),
    ]
    for chain, shape in ((nodes, ["N", 1, 3, 3]), (short, ["N", 6])):
        graph = helper.make_graph(
            chain,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        yield model.SerializeToString()


def test_altered_onnx_files(tmp_path):
    read, messages = read_all(
        LayeredNetwork.from_onnx,
        tmp_path / "fuzzed.onnx",
        list(onnx_files()),
        N_ONNX,
        np.random.default_rng(2),
    )
    assert N_ONNX / 20 < read < N_ONNX
    assert len(messages) > 20


class Hostile:
    """An object that fails in its own way when made into an array."""

    def __array__(self, *arguments, **keywords):
        raise ZeroDivisionError("no array here")


ODD = (
    None,
    "relu",
    b"bytes",
    3,
    2.5,
    1j,
    True,
    [],
    {},
    {"a": 1},
    [[1.0], [1.0, 2.0]],
    10**400,
    [10**400],
    [[None]],
    object(),
    Hostile(),
    np.zeros((2, 0)),
    np.array(["a"]),
    np.array([1, "b"], dtype=object),
    np.datetime64("2020-01-01"),
    np.longdouble("1e4000") * np.ones((2, 2)),
    np.ones((2, 2, 2)),
    torch.ones(2, 2, requires_grad=True),
    torch.ones(2, 2, dtype=torch.bfloat16),
    (x for x in [1.0]),
)


def some_array(rng):
    """Return a matrix or vector, now and then with something wrong."""
    if rng.random() < 0.2:
        return ODD[rng.integers(len(ODD))]
    shape = tuple(int(n) for n in rng.integers(0, 4, size=rng.integers(0, 4)))
    if rng.random() < 0.7:
        shape = [(2, 2), (2,)][rng.integers(2)]
    array = np.asarray(rng.standard_normal(shape))
    if array.size and rng.random() < 0.2:
        array.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e308])
    kind = rng.choice(["f8", "f8", "f4", "f2", "i8", "u1", "?", "c16", "O", "U4", "g"])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(kind)


def some_list(rng):
    if rng.random() < 0.08:
        return ODD[rng.integers(len(ODD))]
    return [some_array(rng) for _ in range(rng.integers(0, 4))]


def some_activation(rng):
    names = ["relu", "gelu", "silu", "tanh", "mish", "", None, 7, ["relu"], ["relu", "tanh"]]
    choice = int(rng.integers(len(names) + 1))
    return names[choice] if choice < len(names) else ["relu"] * int(rng.integers(4))


def test_random_arrays():
    rng = np.random.default_rng(3)
    read = 0
    for _ in range(N_ARRAYS):
        with suppress(HarmonicVAEError):
            network = LayeredNetwork.from_arrays(
                some_list(rng), some_list(rng) if rng.random() < 0.5 else None, some_activation(rng)
            )
            read += 1
            network(some_array(rng))
            network.select_outputs(some_array(rng))
    assert N_ARRAYS / 100 < read < N_ARRAYS


class Custom(nn.Module):
    def forward(self, x):
        return x


def some_layer(rng, depth):
    """Return a layer of any kind, with arguments that need not make sense together."""
    a, b, c = (int(n) for n in rng.integers(1, 5, size=3))
    makers = [
        lambda: nn.Linear(a, b, bias=bool(rng.integers(2))),
        lambda: nn.Linear(4, 4),
        lambda: nn.Linear(4, 4, dtype=rng.choice([torch.float64, torch.bfloat16, torch.complex64])),
        lambda: nn.Linear(4, 4, device="meta"),
        lambda: nn.Conv2d(a, b, c, stride=a, padding=b, padding_mode="circular"),
        lambda: nn.Conv2d(1, 1, c, padding="same"),
        lambda: nn.Conv1d(a, b, c, dilation=a),
        lambda: nn.Conv3d(a, b, c),
        lambda: nn.ConvTranspose2d(a, b, c, stride=5, output_padding=a),
        lambda: nn.AvgPool2d(a, b, ceil_mode=True, divisor_override=c),
        lambda: nn.MaxPool2d(a),
        lambda: nn.BatchNorm1d(a),
        lambda: nn.BatchNorm2d(b, track_running_stats=bool(rng.integers(2))),
        lambda: nn.Flatten(int(rng.integers(-2, 3)), int(rng.integers(-2, 3))),
        lambda: nn.Unflatten(int(rng.integers(-2, 3)), tuple(rng.integers(-1, 4, size=2).tolist())),
        lambda: nn.Dropout(rng.random()),
        lambda: nn.LSTM(a, b),
        lambda: nn.LazyLinear(a),
        lambda: nn.LeakyReLU(rng.choice([0.1, np.nan, np.inf])),
        lambda: nn.Softplus(rng.choice([1.0, -1.0, 0.0]), 20),
        lambda: nn.ELU(float(rng.standard_normal())),
        *(nn.ReLU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softmax, nn.Identity, nn.PReLU),
        *(Custom, nn.ModuleList, nn.Sequential),
    ]
    if depth > 0 and rng.random() < 0.4:
        return nn.Sequential(*(some_layer(rng, depth - 1) for _ in range(rng.integers(4))))
    layer = makers[rng.integers(len(makers))]()
    tensors = [
        t for t in layer.parameters(recurse=False) if not isinstance(t, nn.UninitializedParameter)
    ]
    if tensors and rng.random() < 0.1 and tensors[0].dtype.is_floating_point:
        with torch.no_grad():
            tensors[0].fill_(np.nan)
    if rng.random() < 0.02:
        layer.weight = None
    if rng.random() < 0.02:
        layer.stride = (0, 0)
    return layer


SHAPES = (
    None,
    None,
    4,
    (4,),
    (1, 4, 4),
    (2, 3, 3),
    (3, 4),
    (0,),
    "a",
    (1.5,),
    (-1, 2),
    (10**9,) * 3,
)


@pytest.mark.filterwarnings("ignore")
def test_random_modules():
    rng = np.random.default_rng(4)
    torch.manual_seed(0)
    read = 0
    for _ in range(N_MODULES):
        layers = [some_layer(rng, 2) for _ in range(rng.integers(1, 4))]
        module = nn.Sequential(*layers) if rng.random() < 0.9 else layers[0]
        with suppress(HarmonicVAEError):
            LayeredNetwork.from_module(
                module.train(bool(rng.integers(2))), SHAPES[rng.integers(12)]
            )
            read += 1
    assert N_MODULES / 100 < read < N_MODULES
