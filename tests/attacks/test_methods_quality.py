"""How near the attacks come to the optimum, where it is known or can be searched for."""

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from harmonicvae.attacks import ATTACKS, Attack, attack, portfolio
from harmonicvae.attacks.problem import Candidates
from harmonicvae.datasets import load_sinc
from harmonicvae.models import HarmonicVAE


def linear(matrix, dtype=torch.float64):
    """Return a module that multiplies rows by the transpose of ``matrix``."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(matrix))
    return layer.eval()


def norm_of(*layers):
    product = functools.reduce(lambda a, b: b @ a, [m.weight.detach().double() for m in layers])
    return float(torch.linalg.matrix_norm(product, 2))


# ----------------------------------------------------------------------- linear networks


def check_linear_optimum(method, encode, decode, x, radius, **options):
    result = attack(encode, decode, x, radius, method, **options)
    best = radius * norm_of(encode, decode)
    np.testing.assert_allclose(result.damage, best, rtol=1e-6, atol=1e-12)


@given(
    d=st.integers(1, 30),
    code=st.integers(1, 12),
    outputs=st.integers(1, 30),
    rank=st.integers(0, 12),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    radius=st.sampled_from([1e-8, 1e-4, 0.3, 3.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_best_solves_linear_networks_of_any_shape_and_rank(
    d, code, outputs, rank, dtype, radius, seed
):
    rng = np.random.default_rng(seed)
    thin = rng.normal(size=(code, rank)) @ rng.normal(size=(rank, d))
    encode, decode = linear(thin, dtype), linear(rng.normal(size=(outputs, code)), dtype)
    check_linear_optimum("best", encode, decode, np.zeros((3, d)), radius, random_state=seed)


@pytest.mark.parametrize("d", [1, 2, 7, 40])
@pytest.mark.parametrize("copies", [1, 2, 7, 40])
@pytest.mark.parametrize("method", ["best", "apgd", "linear"])
def test_equal_singular_values(method, copies, d):
    """The first ``copies`` singular values are equal, the others three quarters of them."""
    rng = np.random.default_rng(copies)
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
    values = np.where(np.arange(d) < copies, 2.0, 1.5)
    encode, decode = linear(left * values @ right), linear(np.eye(d))
    check_linear_optimum(method, encode, decode, rng.normal(size=(2, d)), 1.5, random_state=0)


def clustered(gap, d):
    """Return a linear pair with d singular values spread evenly over [1 − gap, 1]."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
    return linear(left * np.linspace(1, 1 - gap, d) @ right), linear(np.eye(d))


@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("d", [5, 25])
def test_nearly_equal_singular_values(gap, d):
    check_linear_optimum("best", *clustered(gap, d), np.zeros((2, d)), 2.0, random_state=0)


class Halfway(Attack):
    """Stops a little before the optimum of a linear network."""

    name = "halfway"

    def _perturb(self, problem):
        found = ATTACKS["apgd"]()._perturb(problem)
        return Candidates(found.perturbation * (1 - 1e-5), found.step)


def test_the_comparison_notices_a_shortfall(monkeypatch):
    from harmonicvae import attacks

    monkeypatch.setattr(attacks, "ATTACKS", {"best": Halfway})
    encode, decode = linear(np.diag([2.0, 1.0])), linear(np.eye(2))
    with pytest.raises(AssertionError):
        check_linear_optimum("best", encode, decode, np.zeros((1, 2)), 1.0, random_state=0)


@pytest.mark.parametrize("shape", [(2, 3, 4), (9, 5, 9), (10, 2, 3), (10, 10, 10)])
def test_linf_optimum_of_linear_networks_by_all_corners(shape):
    """A convex function is largest at a corner of the cube."""
    rng = np.random.default_rng(sum(shape))
    d, code, outputs = shape
    encode, decode = linear(rng.normal(size=(code, d))), linear(rng.normal(size=(outputs, code)))
    product = (decode.weight @ encode.weight).detach().numpy()
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=d)))
    optimum = 0.7 * np.linalg.norm(corners @ product.T, axis=1).max()
    x = rng.normal(size=(4, d))
    found = {
        method: attack(encode, decode, x, 0.7, method, norm="linf", random_state=0).damage
        for method in ATTACKS
    }
    np.testing.assert_allclose(found["best"], optimum, rtol=1e-6)
    for method, damage in found.items():
        assert (damage <= optimum * (1 + 1e-12)).all(), method
        assert (found["best"] >= damage * (1 - 1e-9)).all(), method


def directions(d):
    """Unit vectors that cover the sphere in one to three dimensions, the axes among them."""
    if d == 1:
        return np.array([[1.0], [-1.0]])
    around = np.linspace(0, 2 * np.pi, 1441 if d == 2 else 361)
    if d == 2:
        return np.stack([np.cos(around), np.sin(around)], axis=1)
    around, polar = np.meshgrid(around, np.linspace(0, np.pi, 181))
    parts = [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)]
    return np.stack(parts, axis=-1).reshape(-1, 3)


def boundary(x, radius, low, high):
    """Points of ball ∩ box around x that cover its boundary, and the corners of the box."""
    scale = radius * np.array([1, 1.1, 1.3, 1.6, 2, 3, 5, 20])[:, None, None]
    points = np.clip(scale * directions(len(x)), low - x, high - x).reshape(-1, len(x))
    corners = np.array(list(itertools.product(*zip(low - x, high - x))))
    points = np.concatenate([points, corners])
    # The box holds 0, so shrinking a point towards it keeps the point in the box.
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return points * np.minimum(1, radius / np.maximum(length, 1e-300))


@given(
    d=st.integers(1, 3),
    code=st.integers(1, 3),
    radius=st.sampled_from([0.2, 0.7, 1.2, 2.0, 9.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_best_in_ball_and_box_against_brute_force(d, code, radius, seed):
    """The largest ‖Aδ‖ lies on the boundary; that is searched on a grid of directions."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(code, d))
    low, high = -rng.exponential(size=d), rng.exponential(size=d)
    x = rng.uniform(low, high, size=(3, d))
    x[0] = np.where(rng.random(d) < 0.5, low, high)  # a corner
    encode, decode = linear(matrix), linear(np.eye(code))
    result = attack(encode, decode, x, radius, box=(low, high), random_state=seed)
    for i, clean in enumerate(x):
        delta = boundary(clean, radius, low, high)
        optimum = np.linalg.norm(delta @ matrix.T, axis=1).max()
        assert result.damage[i] >= 0.999 * optimum
        assert result.damage[i] <= 1.005 * optimum + 1e-12


@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_no_method_beats_best_in_ball_and_box(method):
    rng = np.random.default_rng(1)
    encode, decode = linear(rng.normal(size=(6, 12))), linear(rng.normal(size=(12, 6)))
    x = rng.uniform(-1, 1, size=(8, 12))
    options = {"box": (-1, 1), "random_state": 0}
    for radius in (0.3, 1.0, 3.0):
        best = attack(encode, decode, x, radius, **options).damage
        other = attack(encode, decode, x, radius, method, **options).damage
        assert (best / np.maximum(best, other)).mean() >= 0.9999


# ------------------------------------------------------------------------ trained models


@pytest.fixture(scope="module")
def digits():
    """A trained model of scikit-learn's digits and its data."""
    data = (load_digits().data / 8 - 1).astype(np.float32)
    options = {"latent_dim": 8, "hidden_dims": (128, 128), "encoder_std": 0.5, "lr": 3e-3}
    model = HarmonicVAE(max_epochs=100, random_state=0, **options).fit(data)
    assert not model.collapse_.collapsed
    return model, data


@pytest.fixture(scope="module")
def sinc():
    """A small model of sinc curves and its data."""
    data = load_sinc(n_samples=2048).data
    options = {"latent_dim": 2, "hidden_dims": (64, 64), "encoder_std": 0.1, "lr": 3e-3}
    model = HarmonicVAE(max_epochs=40, random_state=0, **options).fit(data)
    assert not model.collapse_.collapsed
    return model, data


def ten_times(method):
    """Options of a method with ten times its budget."""
    if method == "linear":
        return {"n_power": 150}
    return {"n_restarts": 10 * ATTACKS[method]().restarts}


def ratio_to_the_best_found(model, x, radius, **options):
    """Damage of "best" over the largest damage of any method with ten times its budget."""
    pair = (model.encoder_, model.decoder_)
    damage = attack(*pair, x, radius, random_state=0, **options).damage
    found = [
        attack(*pair, x, radius, method, random_state=1, **ten_times(method)).damage
        for method in ATTACKS
    ]
    return damage / np.maximum(damage, np.max(found, axis=0))


@pytest.mark.parametrize("radius", [1.0, 3.0, 6.0])
def test_best_on_digits(digits, radius):
    model, data = digits
    ratio = ratio_to_the_best_found(model, data[::75][:24], radius)
    assert ratio.mean() >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1.0, 3.0, 6.0])
def test_best_on_more_digits(digits, radius):
    model, data = digits
    ratio = ratio_to_the_best_found(model, data[::28][:64], radius)
    assert ratio.mean() >= 0.999
    assert np.quantile(ratio, 0.1) >= 0.999


@pytest.mark.parametrize("radius", [0.5, 2.0, 10.0])
def test_best_on_sinc(sinc, radius):
    model, data = sinc
    ratio = ratio_to_the_best_found(model, data[:6], radius)
    assert ratio.mean() >= 0.999


def test_the_comparison_notices_a_small_portfolio(digits, monkeypatch):
    monkeypatch.setattr(portfolio, "_LAST_STEPS", 1)
    model, data = digits
    few = {"n_restarts": 1, "n_steps": 1, "n_refined": 1, "n_refinements": 1, "n_singular": 0}
    assert ratio_to_the_best_found(model, data[:4], 6.0, **few).mean() < 0.999


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_best_is_at_least_every_other_method(digits, norm, boxed):
    model, data = digits
    x, radius = data[:12], 3.0 if norm == "l2" else 0.4
    options = {"norm": norm, "box": (-1, 1) if boxed else None, "random_state": 0}
    pair = (model.encoder_, model.decoder_)
    best = attack(*pair, x, radius, **options).damage
    others = [attack(*pair, x, radius, method, **options).damage for method in ATTACKS]
    assert (best / np.max(others, axis=0)).mean() >= 0.999


def test_best_does_not_depend_on_blocks_or_neighbours(digits):
    model, data = digits
    pair = (model.encoder_, model.decoder_)
    whole = attack(*pair, data[:8], 3.0, random_state=3).damage
    np.testing.assert_array_equal(attack(*pair, data[:8], 3.0, random_state=3).damage, whole)
    for max_batch in (1000, 96, 50):
        parts = attack(*pair, data[:8], 3.0, random_state=3, max_batch=max_batch).damage
        np.testing.assert_allclose(parts, whole, rtol=1e-4)
    np.testing.assert_allclose(
        attack(*pair, data[:3], 3.0, random_state=3).damage, whole[:3], rtol=1e-4
    )
    others = np.concatenate([data[:4], data[900:904]])
    mixed = attack(*pair, others, 3.0, random_state=3).damage
    np.testing.assert_allclose(mixed[:4], whole[:4], rtol=1e-4)


# ------------------------------------------------------------------------- known defects


class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(6, 12, generator=source) / 6**0.5)
        self.outer = nn.Parameter(torch.randn(12, 6, generator=source) / 12**0.5)

    def forward(self, v):
        return torch.sin(v @ self.inner) @ self.outer


def test_a_large_input_among_small_ones_is_attacked_as_if_alone():
    x = np.random.default_rng(0).normal(size=(5, 6))
    x[0] *= 1e6
    model, same = Waves(), nn.Identity()
    alone = attack(model, same, x[:1], 0.1, random_state=0).damage[0]
    among = attack(model, same, x, 0.1, random_state=0).damage[0]
    assert among == pytest.approx(alone, rel=1e-3)


def test_linear_network_with_a_large_offset_in_single_precision():
    rng = np.random.default_rng(0)
    encode, decode = linear(rng.normal(size=(5, 20)), torch.float32), nn.Linear(5, 20)
    with torch.no_grad():
        decode.weight.copy_(torch.tensor(rng.normal(size=(20, 5))))
        decode.bias.fill_(1000.0)
    check_linear_optimum("best", encode, decode, np.zeros((8, 20)), 1e-3, random_state=0)


@pytest.mark.parametrize(("gap", "d"), [(0.3, 200), (0.1, 200), (0.01, 200)])
def test_many_nearly_equal_singular_values(gap, d):
    check_linear_optimum("best", *clustered(gap, d), np.zeros((4, d)), 2.0, random_state=0)


@pytest.mark.parametrize("method", ["lbfgs", "linear"])
def test_best_of_a_linear_network_is_at_least_every_method(method):
    pair, x = clustered(0.03, 60), np.zeros((4, 60))
    best = attack(*pair, x, 2.0, random_state=0).damage
    other = attack(*pair, x, 2.0, method, random_state=0).damage
    assert (best >= other * (1 - 1e-7)).all()
