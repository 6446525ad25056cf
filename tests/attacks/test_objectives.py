"""What the attacks maximise, against formulas in NumPy and brute force."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from harmonicvae.attacks import (
    ATTACKS,
    OBJECTIVES,
    Damage,
    LatentDivergence,
    StochasticDamage,
    TargetedDecoding,
    attack,
)
from harmonicvae.attacks.frozen import freeze
from harmonicvae.attacks.problem import Problem
from harmonicvae.exceptions import InputError

SMALL = {
    "best": {"n_restarts": 6, "n_steps": 6, "n_refined": 3, "n_refinements": 6, "n_power": 2},
    "apgd": {"n_steps": 8, "n_restarts": 5, "n_singular": 1, "n_power": 2},
    "pgd": {"n_steps": 8, "n_restarts": 5},
    "lbfgs": {"n_steps": 8, "n_restarts": 5, "n_singular": 1, "n_power": 2, "memory": 3},
    "power": {"n_steps": 8, "n_restarts": 5, "n_singular": 1, "n_power": 2},
    "random": {"n_restarts": 5},
    "linear": {"n_power": 2},
}
STOCHASTIC_SEED, DRAWS = 3, 5


class Model:
    """The same curved encoder, decoder and σ(x) in NumPy (by hand) and in torch."""

    def __init__(self, d, code=2, outputs=3, hidden=7, seed=0):
        rng = np.random.default_rng(seed)
        shapes = [(d, hidden), (hidden, code), (code, hidden), (hidden, outputs), (d, code)]
        self.matrices = [1.5 * rng.normal(size=s) / math.sqrt(s[0]) for s in shapes]
        self.offsets = [0.5 * rng.normal(size=s[1]) for s in shapes]
        self.outputs, self.latent = outputs, code
        layers = [self._layer(k) for k in range(5)]
        self.encode = nn.Sequential(layers[0], nn.Tanh(), layers[1]).eval()
        self.decode = nn.Sequential(layers[2], nn.Sigmoid(), layers[3]).eval()
        self.spread = nn.Sequential(layers[4], nn.Softplus()).eval()
        self.target = 2.0 * rng.normal(size=(8, outputs))

    def _layer(self, k):
        layer = nn.Linear(*self.matrices[k].shape).double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(self.matrices[k].T))
            layer.bias.copy_(torch.tensor(self.offsets[k]))
        return layer

    def _affine(self, k, v):
        return v @ self.matrices[k] + self.offsets[k]

    def code(self, x):
        return self._affine(1, np.tanh(self._affine(0, x)))

    def decoding(self, z):
        return self._affine(3, 1 / (1 + np.exp(-self._affine(2, z))))

    def std(self, x):
        return np.log1p(np.exp(self._affine(4, x)))


def size(v):
    return np.sqrt((v * v).sum(axis=-1))


def bank_of(seed, draws, width):
    """The noise bank, seen through an encoder that returns 0 and a decoder that does nothing."""
    objective = StochasticDamage(1.0, draws, seed)
    x = torch.zeros(1, width, dtype=torch.float64)
    pair = freeze(lambda v: 0 * v, lambda z: z, x, 1.0)
    return (objective.features(pair.exact, x) * math.sqrt(draws)).reshape(draws, width).numpy()


def stated(model, name, x, delta, target=None, std=None):
    """F(δ) as the issue states it, in NumPy; x and δ of shapes that broadcast to (…, d)."""
    moved, std = x + delta, std or model.std
    if name == "damage":
        return size(model.decoding(model.code(moved)) - model.decoding(model.code(x)))
    if name == "targeted":
        before = size(model.decoding(model.code(x)) - target)
        return before - size(model.decoding(model.code(moved)) - target)
    if name == "latent":
        first, second = (
            Independent(Normal(torch.tensor(model.code(v)), torch.tensor(std(v))), 1)
            for v in np.broadcast_arrays(moved, x)
        )
        return kl_divergence(first, second).numpy()
    squares = [
        size(
            model.decoding(model.code(moved) + std(moved) * noise)
            - model.decoding(model.code(x) + std(x) * noise)
        )
        ** 2
        for noise in bank_of(STOCHASTIC_SEED, DRAWS, model.latent)
    ]
    return np.sqrt(np.mean(squares, axis=0))


def objective_of(name, model, count=None):
    return {
        "damage": Damage,
        "stochastic_damage": lambda: StochasticDamage(model.spread, DRAWS, STOCHASTIC_SEED),
        "latent": lambda: LatentDivergence(model.spread),
        "targeted": lambda: TargetedDecoding(model.target[:count]),
    }[name]()


def test_every_objective_and_method_is_tried():
    assert set(OBJECTIVES) == {"damage", "stochastic_damage", "latent", "targeted"}
    assert set(SMALL) == set(ATTACKS)


# ---------------------------------------------------------------- values and gradients


def evaluated(objective, model, x, delta, max_batch=512):
    """Values (n, r) and gradients (n, r, d) of the ascent, by the package."""
    rows = torch.tensor(x)
    pair = freeze(model.encode, model.decode, rows, objective.deviation)
    options = {"objective": objective, "seeds": range(len(x)), "max_batch": max_batch}
    problem = Problem(pair.exact, rows, 1.0, **options)
    value, gradient = problem.value_and_gradient(torch.tensor(delta))
    torch.testing.assert_close(problem.value(torch.tensor(delta)), value)
    return value.numpy(), gradient.numpy()


def check_values(objective, name, model, x, delta, max_batch=512):
    value, _ = evaluated(objective, model, x, delta, max_batch)
    target = model.target[: len(x), None]
    by_hand = stated(model, name, x[:, None], delta, target)
    np.testing.assert_allclose(value, by_hand, rtol=1e-9, atol=1e-11)


@given(
    name=st.sampled_from(sorted(OBJECTIVES)),
    d=st.integers(1, 5),
    count=st.integers(1, 5),
    restarts=st.integers(1, 4),
    max_batch=st.integers(1, 9),
    scale=st.floats(-3, 1).map(lambda e: 10.0**e),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_values_are_those_stated(name, d, count, restarts, max_batch, scale, seed):
    model = Model(d, seed=seed)
    rng = np.random.default_rng(seed)
    x, delta = rng.normal(size=(count, d)), scale * rng.normal(size=(count, restarts, d))
    objective = objective_of(name, model, count)
    check_values(objective, name, model, x, delta, max_batch)


def stated_ascent(model, name, x, moved, target):
    """The function whose gradient the documentation states, in torch."""
    encode, decode, spread = model.encode, model.decode, model.spread
    if name == "damage":
        return 0.5 * (decode(encode(moved)) - decode(encode(x))).square().sum()
    if name == "targeted":
        return -0.5 * (decode(encode(moved)) - target).square().sum()
    if name == "latent":
        return kl_divergence(
            Independent(Normal(encode(moved), spread(moved)), 1),
            Independent(Normal(encode(x), spread(x)), 1),
        )
    noise = torch.tensor(bank_of(STOCHASTIC_SEED, DRAWS, model.latent))
    change = decode(encode(moved) + spread(moved) * noise) - decode(encode(x) + spread(x) * noise)
    return 0.5 * change.square().sum() / DRAWS


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("max_batch", [1, 4, 512])
def test_gradients_are_those_of_the_stated_function(name, max_batch):
    model = Model(4, seed=11)
    rng = np.random.default_rng(5)
    x, delta = rng.normal(size=(3, 4)), rng.normal(size=(3, 5, 4))
    _, gradient = evaluated(objective_of(name, model, 3), model, x, delta, max_batch)
    for i in range(3):
        for k in range(5):
            moved = torch.tensor(x[i] + delta[i, k], requires_grad=True)
            target = torch.tensor(model.target[i])
            value = stated_ascent(model, name, torch.tensor(x[i]), moved, target)
            (expected,) = torch.autograd.grad(value, moved)
            np.testing.assert_allclose(gradient[i, k], expected.numpy(), rtol=1e-9, atol=1e-12)


class HalfDamage(Damage):
    def value(self, features, reference):
        return 0.999 * super().value(features, reference)


class FreshNoise(StochasticDamage):
    """Draws other noise for every batch."""

    def features(self, respond, points):
        self.noise_seed += 1
        return super().features(respond, points)


class WrongDirection(LatentDivergence):
    """KL(q(z|x) ‖ q(z|x+δ))."""

    def value(self, features, reference):
        return super().value(reference, features)


class FirstTargets(TargetedDecoding):
    """Takes the targets of the first images for every block."""

    def reference(self, features, images):
        return super().reference(features, slice(0, len(features)))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("damage", lambda m: HalfDamage()),
        ("stochastic_damage", lambda m: FreshNoise(m.spread, DRAWS, STOCHASTIC_SEED)),
        ("stochastic_damage", lambda m: StochasticDamage(m.spread, DRAWS, STOCHASTIC_SEED + 1)),
        ("latent", lambda m: WrongDirection(m.spread)),
        ("targeted", lambda m: TargetedDecoding(m.target[:4][::-1].copy())),
    ],
)
def test_the_oracle_notices_a_wrong_objective(name, make):
    model = Model(3, seed=1)
    rng = np.random.default_rng(0)
    x, delta = rng.normal(size=(4, 3)), rng.normal(size=(4, 2, 3))
    check_values(objective_of(name, model, 4), name, model, x, delta, 4)
    with pytest.raises(AssertionError):
        check_values(make(model), name, model, x, delta, 4)


# ------------------------------------------------------------------------- closed forms


def test_the_noise_bank_is_standard_normal_and_decided_by_its_seed():
    bank = bank_of(0, 4000, 6)
    # 24,000 draws: mean within 5/√24000, variance within 5·√(2/24000), of a fixed seed.
    assert abs(bank.mean()) < 0.033
    assert abs(bank.var() - 1) < 0.046
    assert abs(np.corrcoef(bank.T) - np.eye(6)).max() < 0.1
    np.testing.assert_array_equal(bank_of(0, 4000, 6), bank)
    assert not np.isin(bank_of(1, 100, 6), bank).any()


@pytest.mark.parametrize("std", [0.0, 0])
def test_without_noise_the_stochastic_damage_is_the_damage(std):
    model = Model(4, seed=2)
    x = np.random.default_rng(0).normal(size=(3, 4))
    options = {"random_state": 0, **SMALL["best"]}
    plain = attack(model.encode, model.decode, x, 1.0, **options)
    noisy = attack(
        model.encode, model.decode, x, 1.0, objective="stochastic_damage", encode_std=std, **options
    )
    np.testing.assert_allclose(noisy.value, plain.value, rtol=1e-9)
    np.testing.assert_allclose(noisy.damage, noisy.value, rtol=1e-12)


@given(std=st.floats(0, 10), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_noise_of_constant_size_does_not_matter_to_a_linear_decoder(std, seed):
    rng = np.random.default_rng(seed)
    matrix = torch.tensor(rng.normal(size=(4, 5)))
    result = attack(
        nn.Identity(),
        lambda z: z @ matrix.to(z),
        rng.normal(size=(2, 4)),
        2.0,
        objective=StochasticDamage(std, 3, seed),
        random_state=0,
    )
    top = np.linalg.norm(matrix.numpy(), 2)
    np.testing.assert_allclose(result.value, 2 * top, rtol=1e-6)
    np.testing.assert_allclose(result.damage, result.value, rtol=1e-9)


def test_stochastic_damage_of_one_noise_draw_in_one_dimension():
    """p(x) = x, σ(x) = 1 + x, g(z) = 2z: F(δ) = 2·|δ|·√(mean (1 + ε)²)."""
    result = attack(
        lambda v: v,
        lambda z: 2 * z,
        np.array([[0.3]]),
        0.5,
        objective=StochasticDamage(lambda v: 1 + v, 7, 4),
        random_state=0,
    )
    expected = 2 * 0.5 * np.sqrt(np.mean((1 + bank_of(4, 7, 1)) ** 2))
    np.testing.assert_allclose(result.value, expected, rtol=1e-9)
    np.testing.assert_allclose(result.damage, 1.0, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "code"), [(1, 1), (3, 7), (20, 5)])
@pytest.mark.parametrize("std", [0.1, 0.5, 3.0])
def test_latent_optimum_of_a_linear_encoder(d, code, std, dtype):
    """KL = ‖Aδ‖²/2σ² has the optimum (C·‖A‖₂)²/2σ² in the ℓ2 ball."""
    encode, decode = nn.Linear(d, code).to(dtype), nn.Linear(code, d).to(dtype)
    source = torch.Generator().manual_seed(d)
    with torch.no_grad():
        encode.weight.copy_(torch.randn(code, d, generator=source))
    top = float(torch.linalg.matrix_norm(encode.weight.detach().double(), 2))
    x = np.random.default_rng(0).normal(size=(3, d))
    options = {"objective": "latent", "encode_std": std, "random_state": 0}
    radii = [0.01, 2.0] if dtype == torch.float64 else [2.0]
    for result in attack(encode, decode, x, radii, **options):
        expected = (result.radius * top) ** 2 / (2 * std**2)
        np.testing.assert_allclose(result.value, expected, rtol=1e-6)


@pytest.mark.parametrize("radius", [0.1, 1.0, 2.0])
def test_latent_optimum_where_only_the_spread_moves(radius):
    """p = 0, log σ(x) = ⟨s, x⟩: KL = ½(e²ᵘ − 1 − 2u), u = ⟨s, δ⟩, largest at u = C‖s‖."""
    s = torch.tensor([[0.6], [-0.8]], dtype=torch.float64)
    result = attack(
        lambda v: 0 * v[:, :1],
        lambda z: z,
        np.array([[0.3, 0.1], [-1.0, 2.0]]),
        radius,
        objective=LatentDivergence(lambda v: (v @ s.to(v)).exp()),
        random_state=0,
    )
    expected = 0.5 * (math.expm1(2 * radius) - 2 * radius)
    np.testing.assert_allclose(result.value, expected, rtol=1e-6)


def test_constant_and_learned_spread_of_one_value_agree():
    model = Model(4, seed=3)
    x = np.random.default_rng(0).normal(size=(3, 4))
    for name in ("latent", "stochastic_damage"):
        values = [
            attack(
                model.encode,
                model.decode,
                x,
                1.0,
                objective=name,
                encode_std=std,
                random_state=0,
            ).value
            for std in (0.4, lambda v: 0.4 + 0 * v[:, :1], lambda v: 0.4 + 0 * v[:, :2])
        ]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-6)
        np.testing.assert_allclose(values[2], values[0], rtol=1e-6)


@pytest.mark.parametrize("method", ["best", "apgd", "lbfgs", "pgd"])
def test_a_reachable_target_of_a_linear_model_is_reached(method):
    rng = np.random.default_rng(0)
    forward, backward = rng.normal(size=(6, 3)), rng.normal(size=(3, 5))
    x, wish = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    wish *= 0.9 / size(wish)[:, None]
    target = (x + wish) @ forward @ backward
    result = attack(
        lambda v: v @ torch.tensor(forward).to(v),
        lambda z: z @ torch.tensor(backward).to(z),
        x,
        1.0,
        method,
        objective="targeted",
        target=target,
        random_state=0,
    )
    before = size(x @ forward @ backward - target)
    left = size(result.attacked_decoding - target)
    assert (result.value <= before * (1 + 1e-12)).all()
    np.testing.assert_allclose(result.value, before - left, rtol=1e-9)
    # PGD has steps of constant length, 2.5 % of the radius, and stops beside the target.
    share = {"best": 1e-4, "lbfgs": 1e-4, "apgd": 0.01, "pgd": 0.1}[method]
    assert (left <= share * before).all()


def test_a_target_out_of_reach_is_neared_by_the_radius():
    """p = g = identity: the nearest decoding lies C nearer, straight ahead."""
    x, target = np.zeros((2, 3)), np.array([[3.0, 0, 4], [0, -7, 0]])
    same = nn.Identity()
    result = attack(same, same, x, 2.0, objective="targeted", target=target, random_state=0)
    np.testing.assert_allclose(result.value, 2.0, rtol=1e-9)
    np.testing.assert_allclose(result.perturbation, 2 * target / size(target)[:, None], atol=1e-4)


def test_a_target_that_is_already_decoded_leaves_nothing_to_gain():
    same = nn.Identity()
    x = np.random.default_rng(0).normal(size=(3, 2))
    result = attack(same, same, x, 1.0, objective="targeted", target=x, random_state=0)
    assert not result.value.any()
    assert not result.perturbation.any()
    assert set(result.best_restart) == {-1}


@pytest.mark.parametrize("max_batch", [1, 7, 20, 512])
@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_each_image_has_its_own_target_in_every_block(method, max_batch):
    """The i-th target is reached from the i-th image, however the images are cut up."""
    x = np.zeros((8, 8))
    target = 5 * np.eye(8)
    result = attack(
        lambda v: v,
        lambda z: z,
        x,
        1.0,
        method,
        objective=TargetedDecoding(target),
        random_state=0,
        max_batch=max_batch,
        **SMALL[method],
    )
    assert (result.value <= 1 + 1e-12).all()
    by_hand = 5 - size(x + result.perturbation - target)
    np.testing.assert_allclose(result.value, np.maximum(by_hand, 0), rtol=1e-9, atol=1e-12)
    if method not in ("random", "linear"):
        np.testing.assert_allclose(np.diag(result.perturbation), 1.0, atol=1e-2)


def test_the_check_of_blocks_notices_targets_of_other_images():
    x, target = np.zeros((8, 8)), 5 * np.eye(8)
    options = {"objective": FirstTargets(target), "random_state": 0, "max_batch": 20}
    result = attack(lambda v: v, lambda z: z, x, 1.0, "apgd", **options, **SMALL["apgd"])
    assert (np.diag(result.perturbation)[-4:] < 0.5).all()


def test_one_target_for_all_is_that_target_for_each():
    model = Model(4, seed=4)
    x = np.random.default_rng(0).normal(size=(3, 4))
    both = [
        attack(
            model.encode,
            model.decode,
            x,
            1.0,
            objective="targeted",
            target=target,
            random_state=0,
            **SMALL["best"],
        ).perturbation
        for target in (model.target[0], np.tile(model.target[0], (3, 1)))
    ]
    np.testing.assert_array_equal(*both)


# ------------------------------------------------------- every method, objective and set

RADIUS = 1.3
BOX = (np.array([-1.0, -0.9]), np.array([0.8, 1.2]))


@functools.cache
def plane():
    """A problem in two dimensions and four clean inputs, one on the edge of the box."""
    x = np.array([[0.1, 0.2], [0.8, -0.5], [-0.7, 1.1], [-1.0, -0.9]])
    return Model(2, seed=8), x


@functools.cache
def brute_force(name, norm, boxed):
    """Largest value over a grid that holds the boundary of the feasible set."""
    model, x = plane()
    if norm == "l2":
        length, angle = np.meshgrid(np.linspace(0, RADIUS, 161), np.linspace(0, 2 * np.pi, 1441))
        grid = np.stack([length * np.cos(angle), length * np.sin(angle)], -1).reshape(-1, 2)
    else:
        steps = np.linspace(-RADIUS, RADIUS, 401)
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    best = []
    for i, clean in enumerate(x):
        delta = grid
        if boxed:
            # Clipping towards 0 keeps the grid in the ball and puts points on the box's edge.
            delta = np.clip(grid, BOX[0] - clean, BOX[1] - clean)
        best.append(stated(model, name, clean, delta, model.target[i]).max())
    return np.array(best)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_feasible_true_and_never_above_the_optimum(method, name, norm, boxed):
    model, x = plane()
    result = attack(
        model.encode,
        model.decode,
        x,
        RADIUS,
        method,
        objective=objective_of(name, model, len(x)),
        norm=norm,
        box=BOX if boxed else None,
        random_state=0,
        **SMALL[method],
    )
    delta = result.perturbation
    assert delta.dtype == np.float64
    order = 2 if norm == "l2" else np.inf
    assert (np.linalg.norm(delta, ord=order, axis=1) <= RADIUS).all()
    if boxed:
        assert (x + delta >= BOX[0]).all()
        assert (x + delta <= BOX[1]).all()
    assert (result.value >= 0).all()
    by_hand = stated(model, name, x, delta, model.target[: len(x)])
    np.testing.assert_allclose(result.value, by_hand, rtol=1e-9, atol=1e-12)
    damage = stated(model, "damage", x, delta)
    np.testing.assert_allclose(result.damage, damage, rtol=1e-9, atol=1e-12)
    assert result.objective == name
    best = brute_force(name, norm, boxed)
    assert (result.value <= best * 1.001 + 1e-6).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_best_reaches_the_optimum_in_the_plane(name, norm, boxed):
    model, x = plane()
    result = attack(
        model.encode,
        model.decode,
        x,
        RADIUS,
        objective=objective_of(name, model, len(x)),
        norm=norm,
        box=BOX if boxed else None,
        random_state=0,
    )
    assert (result.value >= 0.999 * brute_force(name, norm, boxed) - 1e-9).all()


def test_the_brute_force_notices_values_that_are_too_large():
    model, x = plane()

    class Boasting(Damage):
        def value(self, features, reference):
            return 1.1 * super().value(features, reference)

    result = attack(model.encode, model.decode, x, RADIUS, objective=Boasting(), random_state=0)
    assert (result.value > brute_force("damage", "l2", False) * 1.001).any()


@given(
    name=st.sampled_from(sorted(OBJECTIVES)),
    method=st.sampled_from(sorted(ATTACKS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    d=st.integers(1, 5),
    count=st.integers(1, 4),
    radius=st.one_of(st.just(0.0), st.floats(-8, 6).map(lambda e: 10.0**e)),
    norm=st.sampled_from(["l2", "linf"]),
    boxed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None)
def test_no_objective_leads_out_of_ball_or_box(
    name, method, dtype, d, count, radius, norm, boxed, seed
):
    model, rng = Model(d, seed=seed), np.random.default_rng(seed)
    for module in (model.encode, model.decode, model.spread):
        module.to(dtype)
    x = rng.normal(size=(count, d)) * 10.0 ** rng.uniform(-2, 2)
    low = x.min(axis=0) - rng.exponential(size=d) * (rng.random(d) > 0.4)
    high = x.max(axis=0) + rng.exponential(size=d) * (rng.random(d) > 0.4)
    result = attack(
        model.encode,
        model.decode,
        x,
        radius,
        method,
        objective=objective_of(name, model, count),
        norm=norm,
        box=(low, high) if boxed else None,
        random_state=seed,
        **SMALL[method],
    )
    order = 2 if norm == "l2" else np.inf
    sizes = np.linalg.norm(result.perturbation, ord=order, axis=1)
    assert (sizes <= radius).all()
    assert (result.value >= 0).all()
    assert np.isfinite(result.value).all()
    if boxed:
        assert (x + result.perturbation >= low).all()
        assert (x + result.perturbation <= high).all()


# -------------------------------------------------------------------- seeds and batches


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_seed_decides_every_objective(name):
    model, x = plane()
    objective = objective_of(name, model, len(x))

    def run(seed, method="best", **more):
        options = {"objective": objective, "random_state": seed, **SMALL[method], **more}
        return attack(model.encode, model.decode, x, 1.0, method, **options)

    first = run(2**64 - 1)
    np.testing.assert_array_equal(first.perturbation, run(2**64 - 1).perturbation)
    random = run(2**64 - 1, "random").perturbation
    assert not np.array_equal(random, run(2**64 - 2, "random").perturbation)
    for max_batch in (1, 5, 13):
        parts = run(2**64 - 1, max_batch=max_batch)
        np.testing.assert_allclose(parts.value, first.value, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_other_images_do_not_matter(name):
    model, x = plane()

    def run(rows):
        objective = objective_of(name, model, rows)
        return attack(
            model.encode, model.decode, x[:rows], 1.0, objective=objective, random_state=7
        )

    np.testing.assert_allclose(run(2).value, run(4).value[:2], rtol=1e-6)


def test_the_noise_seed_decides_the_stochastic_damage():
    model, x = plane()

    def run(seed):
        objective = StochasticDamage(0.7, 2, seed)
        options = {"objective": objective, "random_state": 0, **SMALL["apgd"]}
        return attack(model.encode, model.decode, x, 1.0, "apgd", **options).value

    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).all()


# ------------------------------------------------------------------------------- errors


def test_modules_in_train_mode_are_attacked_in_eval_mode():
    model, x = plane()
    spread = nn.Sequential(nn.Dropout(0.9), model.spread).train()
    for name in ("latent", "stochastic_damage"):
        trained = attack(
            model.encode, model.decode, x, 1.0, objective=name, encode_std=spread, random_state=0
        )
        plain = attack(
            model.encode,
            model.decode,
            x,
            1.0,
            objective=name,
            encode_std=model.spread,
            random_state=0,
        )
        assert any("encode_std was in train mode" in warning for warning in trained.warnings)
        np.testing.assert_allclose(trained.value, plain.value, rtol=1e-9)
        assert spread[0].training


LATENT, NOISY = {"objective": "latent"}, {"objective": "stochastic_damage"}
AIMED = {"objective": "targeted"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode": None}, "decode is needed"),
        ({"decode": None, **LATENT, "encode_std": 1.0}, "decode is needed"),
        ({"encode": lambda v: (v, v)}, "encode must return a tensor, got tuple"),
        ({"x": np.full((4, 2), np.nan)}, "NaN or infinity in 4 of 4"),
        ({"x": np.array([[0, 0], [0, np.inf], [0, 1]])}, "NaN or infinity in 1 of 3"),
        ({"box": (-0.5, 0.5)}, "box must hold every clean input"),
        ({"radius": -1e-9}, "radius must be finite and >= 0"),
        ({"radius": [1.0, -2.0]}, "radius must be finite and >= 0"),
        ({"objective": "harm"}, "objective must be one of"),
        ({"objective": None}, "objective must be one of"),
        ({"objective": Damage}, "objective must be one of"),
        (LATENT, "'latent' needs encode_std, got none"),
        (NOISY, "'stochastic_damage' needs encode_std, got none"),
        (AIMED, "'targeted' needs target, got none"),
        ({"encode_std": 1.0}, "'damage' needs no options, got encode_std"),
        ({**LATENT, "encode_std": 1.0, "target": [0.0]}, "needs encode_std, got encode_std, ta"),
        ({"objective": Damage(), "target": [0.0]}, "must be given to the objective itself"),
        ({**LATENT, "encode_std": 0}, "encode_std must be > 0"),
        ({**LATENT, "encode_std": -0.1}, "encode_std must be a finite number >= 0, got -0.1"),
        ({**NOISY, "encode_std": -0.1}, "encode_std must be a finite number >= 0, got -0.1"),
        ({**NOISY, "encode_std": math.nan}, "encode_std must be a finite number"),
        ({**NOISY, "encode_std": math.inf}, "encode_std must be a finite number"),
        ({**NOISY, "encode_std": "wide"}, "encode_std must be"),
        ({**LATENT, "encode_std": nn.Linear(2, 5)}, r"one number a code unit"),
        ({**NOISY, "encode_std": lambda v: -v.exp()}, "encode_std must be >= 0"),
        ({**NOISY, "encode_std": lambda v: v / 0 * 0}, "encode_std must be >= 0"),
        ({**NOISY, "encode_std": lambda v: (v, v)}, "encode_std must return a tensor, got tuple"),
        ({**NOISY, "encode_std": lambda v: v.sum()}, "encode_std must return one row per input"),
        ({**LATENT, "encode_std": nn.Linear(7, 2)}, "got: mat1 and mat2"),
        ({**AIMED, "target": np.zeros(4)}, r"target must have shape \(3,\) or \(4, 3\), got \(4"),
        ({**AIMED, "target": np.zeros((1, 3))}, r"got \(1, 3\)"),
        ({**AIMED, "target": np.zeros((5, 3))}, r"got \(5, 3\)"),
        ({**AIMED, "target": np.zeros((4, 1, 3))}, r"got shape \(4, 1, 3\)"),
        ({**AIMED, "target": 0.0}, r"got shape \(\)"),
        ({**AIMED, "target": [np.nan, 0, 0]}, "target must be finite"),
        ({**AIMED, "target": ["a", "b", "c"]}, "target must be real"),
    ],
)
def test_bad_input_is_named(change, message):
    model, x = plane()
    call = {"encode": model.encode, "decode": model.decode, "x": x, "radius": 1.0}
    with pytest.raises(InputError, match=message):
        attack(**(call | change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_noise": 0}, "n_noise must be an integer >= 1"),
        ({"n_noise": 2.0}, "n_noise must be an integer"),
        ({"noise_seed": -1}, "noise_seed must be an integer >= 0"),
    ],
)
def test_bad_options_of_the_noise_are_named(options, message):
    with pytest.raises(InputError, match=message):
        StochasticDamage(1.0, **options)


# ---------------------------------------------------------------------- known defects


@pytest.mark.parametrize(
    ("dtype", "radius"),
    [(torch.float32, 0.01), (torch.float64, 1e-8), (torch.float64, 1e-7), (torch.float64, 1e-6)],
)
def test_latent_optimum_in_a_small_ball(dtype, radius):
    encode, decode = nn.Linear(3, 7).to(dtype), nn.Linear(7, 3).to(dtype)
    with torch.no_grad():
        encode.weight.copy_(torch.randn(7, 3, generator=torch.Generator().manual_seed(3)))
        encode.bias.zero_()
    top = float(torch.linalg.matrix_norm(encode.weight.detach().double(), 2))
    x = np.zeros((6, 3))
    options = {"objective": "latent", "encode_std": 3.0, "random_state": 0}
    result = attack(encode, decode, x, radius, **options)
    np.testing.assert_allclose(result.value, (radius * top) ** 2 / (2 * 3.0**2), rtol=1e-6)


@pytest.mark.parametrize("radius", [1e-9, 1e-8, 1e-7])
def test_divergence_of_nearly_equal_spreads(radius):
    """KL = ½(e²ᵘ − 1 − 2u) = u²(1 + 2u/3 + …)."""
    objective = LatentDivergence(lambda v: v.exp())
    options = {"objective": objective, "random_state": 0}
    result = attack(lambda v: 0 * v, lambda z: z, np.zeros((2, 1)), radius, **options)
    np.testing.assert_allclose(result.value, radius**2, rtol=1e-4)


@pytest.mark.parametrize("name", ["latent", "stochastic_damage"])
def test_codes_of_a_convolutional_encoder(name):
    """A code of shape (channels, width) is the flat code in other clothes."""
    matrix = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    x = np.random.default_rng(0).normal(size=(5, 6))
    options = {"objective": name, "encode_std": 0.5, "random_state": 0, **SMALL["best"]}
    flat = attack(lambda v: v @ matrix.to(v), lambda z: z.sin(), x, 1.0, **options)
    shaped = attack(
        lambda v: (v @ matrix.to(v)).reshape(-1, 3, 4),
        lambda z: z.flatten(1).sin(),
        x,
        1.0,
        **options,
    )
    np.testing.assert_allclose(shaped.value, flat.value, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": ["damage"]},
        {"method": ["best"]},
        {"bounds": (1.0, 1.0)},
        {"bounds": 1.0},
        {"objective": "latent", "encode_std": lambda v: v.square().sum(1) + 1},
        {"objective": "stochastic_damage", "encode_std": lambda v: v.square().sum(1) + 1},
        {"objective": "stochastic_damage", "encode_std": lambda v: v[:, :1] + 0.2},
        {"objective": "latent", "encode_std": lambda v: 0 * v},
        {"objective": "latent", "encode_std": lambda v: v[:, 0], "x": np.ones((2, 2))},
    ],
    ids=range(9),
)
def test_more_bad_input_is_named(change):
    model, x = plane()
    call = {"encode": model.encode, "decode": model.decode, "x": x, "radius": 1.0}
    with pytest.raises(InputError):
        attack(**(call | change))
