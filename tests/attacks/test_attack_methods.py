import numpy as np
import pytest
import torch
from torch import nn

from harmonicvae.attacks import APGD, attack
from harmonicvae.attacks.apgd import checkpoints
from harmonicvae.attacks.frozen import freeze
from harmonicvae.attacks.problem import Problem
from harmonicvae.attacks.singular import top_singular_vectors

RADII = (1e-6, 1.0, 1e6)


def linear_pair(d, code, dtype, seed=0):
    source = torch.Generator().manual_seed(seed)
    encode, decode = nn.Linear(d, code).to(dtype), nn.Linear(code, d + 3).to(dtype)
    with torch.no_grad():
        for layer in (encode, decode):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source))
    top = torch.linalg.matrix_norm(decode.weight.double() @ encode.weight.double(), 2).item()
    return encode.eval(), decode.eval(), top


@pytest.mark.parametrize("method", ["apgd", "linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "code"), [(1, 1), (2, 3), (20, 5), (300, 1), (300, 64)])
def test_linear_networks_are_solved_exactly(method, dtype, d, code):
    encode, decode, top = linear_pair(d, code, dtype)
    x = np.random.default_rng(1).normal(size=(3, d))
    for result in attack(encode, decode, x, RADII, method, random_state=0):
        np.testing.assert_allclose(result.damage, result.radius * top, rtol=1e-6)


def test_random_starts_alone_solve_a_linear_network():
    encode, decode, top = linear_pair(30, 4, torch.float64)
    result = attack(encode, decode, np.zeros((3, 30)), 2.0, n_singular=0, random_state=0)
    np.testing.assert_allclose(result.damage, 2 * top, rtol=1e-6)


def test_corner_of_the_box_is_found_where_it_is_optimal():
    """For F = ‖δ‖ in a box smaller than the ball, the farthest corner is the optimum."""
    same = nn.Identity()
    x = np.array([[0.2, -0.3, 0.0]])
    result = attack(same, same, x, 10.0, box=(-1, 1), random_state=0)
    np.testing.assert_allclose(result.damage, np.linalg.norm([1.2, 1.3, 1.0]), rtol=1e-6)


def test_linf_optimum_of_a_row_vector():
    """F = |w·δ| over ‖δ‖∞ ≤ C has the optimum C·‖w‖₁."""
    weights = torch.tensor([[1.0, -2.0, 0.5, 4.0]], dtype=torch.float64).mT
    for method in ("apgd", "linear"):
        result = attack(
            lambda v: v @ weights, lambda z: z, np.ones((2, 4)), 0.3, method, norm="linf"
        )
        np.testing.assert_allclose(result.damage, 0.3 * 7.5, rtol=1e-6)


@pytest.mark.parametrize("radius", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("box", [None, (-1.5, 1.5)])
def test_apgd_beats_linear_beats_random(pair, radius, box):
    x = np.random.default_rng(3).uniform(-1, 1, size=(24, 20))
    damage = {
        method: attack(*pair, x, radius, method, box=box, random_state=0).damage.mean()
        for method in ("apgd", "linear", "random")
    }
    assert damage["apgd"] >= damage["linear"] >= damage["random"] > 0


def test_apgd_matches_a_grid_search_in_two_dimensions():
    from conftest import perceptron

    encode, decode = perceptron(2, 8, 2, seed=5, gain=5.0), perceptron(2, 8, 3, seed=6, gain=5.0)
    x = np.random.default_rng(0).normal(size=(5, 2))
    for radius in (0.5, 2.0):
        size, angle = np.meshgrid(np.linspace(0, radius, 201), np.linspace(0, 2 * np.pi, 721))
        grid = np.stack([size * np.cos(angle), size * np.sin(angle)], axis=-1).reshape(-1, 2)
        with torch.no_grad():
            joined = nn.Sequential(encode, decode).double()
            moved = joined(torch.tensor(x[:, None] + grid)) - joined(torch.tensor(x))[:, None]
            best = moved.norm(dim=-1).amax(dim=1).numpy()
        encode.float()
        decode.float()
        result = attack(encode, decode, x, radius, random_state=0)
        # A search from the sphere can miss a better point inside: a few per cent for one input.
        assert (result.damage >= 0.95 * best).all()
        assert result.damage.mean() >= 0.99 * best.mean()
        assert (result.damage <= 1.001 * best).all()


def test_step_sizes_shrink_to_an_optimum_inside_the_ball():
    """F(δ) = r·exp(−r²), r = ‖δ‖, is largest at r = 1/√2, far inside the ball of radius 5."""

    def bump(z):
        return z * torch.exp(-(z * z).sum(dim=1, keepdim=True))

    result = attack(lambda v: v, bump, np.zeros((4, 3)), 5.0, random_state=0)
    np.testing.assert_allclose(result.damage, np.exp(-0.5) / np.sqrt(2), rtol=1e-5)


def test_more_of_everything_does_no_harm(pair, images):
    small = attack(*pair, images, 2.0, n_steps=10, n_restarts=2, random_state=0).damage
    large = attack(*pair, images, 2.0, n_steps=100, n_restarts=20, random_state=0).damage
    assert large.mean() >= small.mean()
    assert (large >= 0.999 * small).all()


@pytest.mark.parametrize(("d", "code"), [(20, 5), (40, 40), (2, 7), (60, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_vectors_agree_with_a_dense_decomposition(d, code, dtype):
    encode, decode = nn.Linear(d, code).to(dtype), nn.Linear(code, 30).to(dtype)
    function = freeze(encode, lambda z: torch.tanh(decode(z)).to(z), torch.zeros(1, d)).search
    x = torch.randn(4, d, generator=torch.Generator().manual_seed(0)).to(dtype)
    problem = Problem(function, x, 1.0, seeds=range(4), max_batch=5)
    vectors, values = top_singular_vectors(problem, rank=3, n_iterations=14)
    rank = min(3, d)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-7
    for row, found, size in zip(x, vectors, values):
        jacobian = torch.func.jacrev(lambda v: function(v[None])[0])(row)
        _, true, _ = torch.linalg.svd(jacobian.detach(), full_matrices=False)
        scale = true[0].item()
        torch.testing.assert_close(size, true[:rank], atol=tolerance * scale, rtol=0)
        pushed = (jacobian @ found.mT).norm(dim=0)
        torch.testing.assert_close(pushed, true[:rank], atol=tolerance * scale, rtol=0)
        gram = found @ found.mT
        torch.testing.assert_close(gram, torch.eye(rank, dtype=dtype), atol=1e-5, rtol=0)


class NoForwardMode(torch.autograd.Function):
    """Squares its input; offers reverse differentiation only."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return v**2

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return 2 * v * grad


def test_jacobian_products_without_forward_differentiation():
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    function = freeze(lambda v: v, NoForwardMode.apply, x).search
    problem = Problem(function, x, 1.0, seeds=[0])
    direction = torch.tensor([[[1.0, 1.0, 0.5]]], dtype=torch.float64)
    expected = torch.tensor([[[2.0, -4.0, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(problem.push(direction), expected)
    torch.testing.assert_close(problem.pull(direction), expected)


def test_gradient_is_that_of_half_the_squared_damage(pair):
    x = torch.tensor(np.random.default_rng(0).normal(size=(3, 20)))
    problem = Problem(freeze(*pair, x).exact, x, 1.0, seeds=[0, 1, 2], max_batch=2)
    delta = problem.random_starts(4)
    value, gradient = problem.value_and_gradient(delta)
    torch.testing.assert_close(value, problem.value(delta))
    step = 1e-6 * problem.normal(4)
    rise = 0.5 * (problem.value(delta + step) ** 2 - problem.value(delta - step) ** 2)
    torch.testing.assert_close(rise, 2 * (gradient * step).sum(-1), rtol=1e-5, atol=0)
    assert problem.evaluations == 12


def test_random_noise_is_on_the_sphere_and_has_no_direction():
    same = nn.Identity()
    x = np.zeros((400, 3))
    result = attack(same, same, x, 2.0, "random", n_restarts=1, random_state=0)
    np.testing.assert_allclose(result.radius_used, 2.0, rtol=1e-6)
    # The mean of 400 uniform points on the sphere: each coordinate has deviation 2/√1200.
    assert (np.abs(result.perturbation.mean(axis=0)) < 5 * 2 / np.sqrt(1200)).all()
    second = (result.perturbation**2).mean(axis=0)
    np.testing.assert_allclose(second, 4 / 3, rtol=0.25)


def test_checkpoints_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    for n_steps in range(1, 50):
        marks = checkpoints(n_steps)
        assert marks == sorted(set(marks))
        assert all(0 < mark < n_steps for mark in marks)


def test_odd_and_single_restarts():
    encode, decode, top = linear_pair(10, 4, torch.float64)
    for count in (1, 3, 7):
        result = APGD(n_restarts=count).attack(encode, decode, np.zeros((2, 10)), 1.0)
        assert result.restarts == count
        np.testing.assert_allclose(result.damage, top, rtol=1e-6)
