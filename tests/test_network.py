"""LayeredNetwork against torch, against difference quotients, and its refusals."""

import pickle

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae.activations import ACTIVATIONS, activation, elu, leaky_relu, softplus
from harmonicvae.exceptions import HarmonicVAEError, InputError, UnsupportedNetworkError
from harmonicvae.network import LayeredNetwork

TORCH_ACTIVATIONS = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.3),
    "leaky_relu_steep": nn.LeakyReLU(2.0),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(2.0),
    "elu": nn.ELU(),
    "elu_scaled": nn.ELU(1.7),
}

EVERY_ACTIVATION = [
    *(maker() for maker in ACTIVATIONS.values()),
    leaky_relu(-0.5),
    leaky_relu(3.0),
    softplus(4.0),
    elu(2.5),
    elu(-1.0),
]


def module_with(layer, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(6, 5), layer),
        nn.Dropout(0.5),
        nn.Sequential(nn.Sequential(nn.Linear(5, 7, bias=False), layer), nn.Identity()),
        nn.Linear(7, 4),
        nn.Unflatten(1, (2, 2)),
    ).eval()


@pytest.mark.parametrize("name", TORCH_ACTIVATIONS)
def test_values_and_jacobians_are_those_of_torch(name):
    module = module_with(TORCH_ACTIVATIONS[name]).double()
    network = LayeredNetwork.from_module(module)
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    expected = module(x).detach().reshape(3, -1).numpy()
    np.testing.assert_allclose(network(x.reshape(3, -1)), expected, rtol=1e-8)
    point = x[0].reshape(-1)
    jacobian = torch.func.jacrev(lambda v: module(v.reshape(1, 2, 3)).reshape(-1))(point)
    np.testing.assert_allclose(network.jacobian(point), jacobian.detach().numpy(), rtol=1e-7)
    assert (network.input_dim, network.hidden_dims, network.output_dim) == (6, (5, 7), 4)


def test_float32_weights_are_read_exactly():
    module = nn.Linear(3, 2)
    network = LayeredNetwork.from_module(module)
    assert network.weights[0].dtype == np.float64
    np.testing.assert_array_equal(network.weights[0].astype(np.float32), module.weight.detach())


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
        nn.Sequential(nn.Tanh(), nn.Linear(3, 4), nn.Sigmoid()),
        nn.Sequential(
            nn.Linear(3, 4), nn.ReLU(), nn.Sigmoid(), nn.Linear(4, 2), nn.Tanh(), nn.ELU()
        ),
        nn.Sequential(nn.Sigmoid(), nn.Tanh(), nn.Linear(3, 1)),
        nn.Linear(3, 2),
    ],
)
def test_unusual_orders_are_represented_exactly(module):
    module = module.double()
    x = torch.randn(5, 3, dtype=torch.float64)
    np.testing.assert_allclose(
        LayeredNetwork.from_module(module)(x), module(x).detach().numpy(), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("item", EVERY_ACTIVATION, ids=lambda item: f"{item.name}{item.parameters}")
@given(a=st.floats(-30, 30), b=st.floats(-30, 30))
@settings(max_examples=60, deadline=None)
def test_slope_ranges_hold_and_are_reached(item, a, b):
    values = item.function(np.array([a, b]))
    tolerance = 1e-13 * (1 + abs(a) + abs(b))
    low, high = sorted((item.alpha * (a - b), item.beta * (a - b)))
    assert low - tolerance <= values[0] - values[1] <= high + tolerance
    grid = item.derivative(np.concatenate([[-1e-12, 0.0, 1e-12], np.linspace(-60, 60, 60001)]))
    np.testing.assert_allclose([grid.min(), grid.max()], [item.alpha, item.beta], atol=1e-6)
    assert item.alpha - 1e-11 <= grid.min()
    assert grid.max() <= item.beta + 1e-11


@pytest.mark.parametrize("item", EVERY_ACTIVATION, ids=lambda item: f"{item.name}{item.parameters}")
@given(z=st.floats(-8, 8).filter(lambda z: abs(z) > 1e-3))
@settings(max_examples=60, deadline=None)
def test_derivatives_are_those_of_difference_quotients(item, z):
    step = 1e-5
    points = np.array([z - step, z + step])
    for function, derivative in (
        (item.function, item.derivative),
        (item.derivative, item.curvature),
    ):
        low, high = function(points)
        assert derivative(np.array([z]))[0] == pytest.approx((high - low) / (2 * step), abs=1e-7)


def test_sigmoid_slope_is_a_quarter():
    network = LayeredNetwork.from_module(
        nn.Sequential(nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 1))
    )
    assert (network.activations[0].alpha, network.activations[0].beta) == (0.0, 0.25)


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_at_a_kink_the_jacobian_is_that_of_a_neighbour(value):
    """f(x) = 3x − 2 relu(x) + 2 relu(−x) = x; with slope 0 at the kink it would be 3."""
    network = LayeredNetwork.from_arrays(
        [[[1.0], [1.0], [-1.0]], [[3.0, -2.0, 2.0]]],
        [[100.0, 0.0, 0.0], [-300.0]],
        activation="relu",
    )
    assert network([[0.0], [value]]).ravel() == pytest.approx([0.0, value])
    assert network.jacobian([0.0]) == pytest.approx(1.0)


def test_mat_files_go_around(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in [(4, 3), (4, 4), (1, 4)]]
    biases = [rng.standard_normal(len(array)) for array in arrays]
    network = LayeredNetwork.from_arrays(arrays, biases, "tanh")
    path = tmp_path / "weights.mat"
    network.to_mat(path)
    content = scipy.io.loadmat(path)
    assert content["weights"].shape == (1, 3)
    assert content["weights"].dtype == object
    assert content["bias"][0, 0].shape == (4, 1)
    assert LayeredNetwork.from_mat(path, "tanh").hash == network.hash
    assert LayeredNetwork.from_mat(path, "relu").hash != network.hash


def test_mat_file_with_weights_alone_has_zero_biases(tmp_path):
    cell = np.empty((3, 1), dtype=object)
    cell[0, 0], cell[1, 0], cell[2, 0] = np.ones((2, 3)), np.ones((2, 2)), np.ones((1, 2))
    scipy.io.savemat(tmp_path / "w.mat", {"weights": cell})
    network = LayeredNetwork.from_mat(tmp_path / "w.mat", "relu")
    assert network.n_layers == 3
    assert not any(np.any(bias) for bias in network.biases)


def test_mat_files_of_the_wrong_kind_are_refused(tmp_path):
    path = tmp_path / "w.mat"
    with pytest.raises(InputError, match="not a file"):
        LayeredNetwork.from_mat(path, "relu")
    path.write_text("no matlab here")
    with pytest.raises(InputError, match="another kind"):
        LayeredNetwork.from_mat(path, "relu")
    scipy.io.savemat(path, {"other": np.ones(2)})
    with pytest.raises(InputError, match=r"'weights', found \['other'\]"):
        LayeredNetwork.from_mat(path, "relu")
    scipy.io.savemat(path, {"weights": np.ones((2, 2))})
    with pytest.raises(InputError, match="must be a cell array"):
        LayeredNetwork.from_mat(path, "relu")
    network = LayeredNetwork.from_arrays([[[1.0]], [[1.0]], [[1.0]]], None, ["relu", "tanh"])
    with pytest.raises(InputError, match="one activation for all"):
        network.to_mat(path)


def test_truncated_mat_files_give_only_our_errors(tmp_path):
    """Every length."""
    path = tmp_path / "w.mat"
    LayeredNetwork.from_arrays([np.eye(3), np.ones((2, 3))], activation="relu").to_mat(path)
    content = path.read_bytes()
    whole = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            LayeredNetwork.from_mat(path, "relu")
        except HarmonicVAEError:
            continue
        whole += 1
    assert whole == 1  # the cut before the biases, which a file need not have


def test_files_are_told_apart_by_their_suffix(tmp_path):
    path = tmp_path / "Weights.MAT"
    network = LayeredNetwork.from_arrays([ONE, 2 * ONE], activation="tanh")
    network.to_mat(path)
    assert LayeredNetwork.from_file(path, "tanh").hash == network.hash
    with pytest.raises(InputError, match="activation must be given"):
        LayeredNetwork.from_file(path)
    with pytest.raises(InputError, match=r"end in \.mat or \.onnx"):
        LayeredNetwork.from_file(tmp_path / "weights.npz", "relu")
    with pytest.raises(InputError, match="activation must be None"):
        LayeredNetwork.from_file(tmp_path / "weights.onnx", "relu")


class Doubling(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.CELU())), r"CELU at '1.0'"),
        (nn.Conv2d(1, 1, 3), "Conv2d at the top"),
        (nn.Sequential(Doubling(2, 2)), "Doubling at '0'"),
        (nn.Sequential(hooked()), "Linear at '0': it has forward hooks"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)), r"Dropout at '0': .*\.eval"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)), "Flatten at '0'"),
        (nn.Sequential(nn.Linear(2, 4), nn.Unflatten(0, (2, 2))), "Unflatten at '1'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softplus(1, 5)), "Softplus at '1': threshold"),
        (nn.Sequential(nn.ReLU()), "no Linear layer"),
        (nn.Linear(2, 2, dtype=torch.complex64), "real floating point"),
        (nn.Linear, "LayeredNetwork or a torch module"),
    ],
)
def test_modules_without_exact_form_are_refused_by_name(module, message):
    from harmonicvae.lipschitz import bound

    kind = InputError if module is nn.Linear else UnsupportedNetworkError
    with pytest.raises(kind, match=message):
        bound(module)


ONE = np.ones((1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one weight"),
        (([ONE, np.ones((2, 3))],), r"weights\[1\] must have 1 columns"),
        (([[[np.nan]]],), r"weights\[0\] must be finite, got 1 NaN"),
        (([ONE], [[np.inf]]), r"biases\[0\] must be finite"),
        (([ONE], [[1.0, 2.0]]), r"biases\[0\] must have shape \(1,\)"),
        (([ONE, ONE], [[1.0]]), "biases must be as many"),
        (([[1.0, 2.0]],), r"weights\[0\] must be a matrix"),
        (([np.ones((0, 3))],), r"weights\[0\] must be a matrix"),
        (([[["a"]]],), "real numbers"),
        (([[[1.0], [1.0, 2.0]]],), "array of numbers"),
        (([ONE, ONE], None, ["relu", "relu"]), "activations must be one fewer"),
        ((5,), "weights must be a sequence"),
        (([ONE], 5), "biases must be a sequence"),
        (([ONE, ONE], None, 5), "activation must be a sequence"),
        (([torch.ones(1, 1, dtype=torch.bfloat16)],), "array of numbers"),
    ],
)
def test_arrays_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        LayeredNetwork.from_arrays(*arguments)


def test_unknown_activations_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="'mish'"):
        LayeredNetwork.from_arrays([ONE, ONE], activation="mish")
    for maker in (lambda: leaky_relu(np.nan), lambda: elu(np.inf), lambda: softplus(0.0)):
        with pytest.raises(InputError):
            maker()


def test_slope_overrides_must_contain_the_true_range():
    network = LayeredNetwork.from_arrays([ONE, ONE, ONE], activation=["sigmoid", "identity"])
    wider = network.with_slopes(0.0, 1.0)
    assert [(item.alpha, item.beta) for item in wider.activations] == [(0.0, 1.0), (1.0, 1.0)]
    assert wider.hash != network.hash
    for bad in ((0.0, 0.2), (0.1, 1.0), (1.0, 0.0)):
        with pytest.raises(InputError, match="must contain that of sigmoid"):
            network.with_slopes(*bad)


def test_hash_sees_every_part_and_survives_pickle():
    base = LayeredNetwork.from_arrays([ONE, 2 * ONE], [[1.0], [0.0]], leaky_relu(0.1))
    others = [
        LayeredNetwork.from_arrays([ONE, 3 * ONE], [[1.0], [0.0]], leaky_relu(0.1)),
        LayeredNetwork.from_arrays([ONE, 2 * ONE], [[1.0], [0.5]], leaky_relu(0.1)),
        LayeredNetwork.from_arrays([ONE, 2 * ONE], [[1.0], [0.0]], leaky_relu(0.2)),
        LayeredNetwork.from_arrays([ONE, 2 * ONE], [[1.0], [0.0]], "relu"),
    ]
    hashes = {base.hash, *(other.hash for other in others)}
    assert len(hashes) == 5
    assert pickle.loads(pickle.dumps(base)).hash == base.hash
    assert len(base.hash) == 64


def test_arrays_are_copied_and_read_only():
    weight = np.ones((1, 1))
    network = LayeredNetwork.from_arrays([weight])
    weight[0, 0] = 5.0
    assert network.weights[0][0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        network.weights[0][0, 0] = 2.0


def test_outputs_can_be_selected_and_combined():
    rng = np.random.default_rng(1)
    network = LayeredNetwork.from_arrays(
        [rng.standard_normal((4, 3)), rng.standard_normal((5, 4))],
        [rng.standard_normal(4), rng.standard_normal(5)],
        "tanh",
    )
    x = rng.standard_normal((6, 3))
    np.testing.assert_allclose(network.select_outputs(-1)(x), network(x)[:, [4]])
    np.testing.assert_allclose(network.select_outputs([3, 0])(x), network(x)[:, [3, 0]])
    matrix = rng.standard_normal((2, 5))
    np.testing.assert_allclose(network.select_outputs(matrix)(x), network(x) @ matrix.T)
    for bad in (5, [-6], [], [0.5], np.ones((1, 4)), "a", [[np.nan] * 5], [[1], [1, 2]]):
        with pytest.raises(InputError, match="selection"):
            network.select_outputs(bad)


@pytest.mark.parametrize(
    "x", [[1.0], [[1.0, 2.0, 3.0]], np.zeros((0, 2)), [[np.nan, 0.0]], 3.0, [["a", "b"]]]
)
def test_inputs_are_checked(x):
    network = LayeredNetwork.from_arrays([[[1.0, 2.0]]])
    with pytest.raises(InputError, match="x must"):
        network(x)


def test_jacobian_takes_one_point():
    with pytest.raises(InputError, match="one sample"):
        LayeredNetwork.from_arrays([ONE]).jacobian([[1.0], [2.0]])


def test_activation_by_name_or_object():
    item = leaky_relu(0.2)
    assert activation(item) is item
    assert activation("leaky_relu").alpha == 0.01
