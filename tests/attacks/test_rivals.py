"""The rivals of benchmarks/attacks.py are given our objective, and a fair chance."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import perceptron
from torch import nn

from harmonicvae.attacks import attack

FILE = Path(__file__).parents[2] / "benchmarks" / "attack_rivals.py"
if not FILE.exists():
    pytest.skip("the benchmarks are not part of this copy", allow_module_level=True)
_spec = importlib.util.spec_from_file_location("attack_rivals", FILE)
rivals = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = rivals
_spec.loader.exec_module(rivals)

#: Rivals that do not settle within 100 steps on a linear map: small steps, or Adam on a ball.
UNSETTLED = ("foolbox pgd 0.025", "art pgd 0.025", "foolbox adam 0.025", "foolbox adam 0.1")
BUDGET = rivals.Budget(n_restarts=3, n_steps=100)


def search(name):
    module, function = rivals.RIVALS[name]
    pytest.importorskip(module)
    return function


def some(name, x):
    """Return fewer inputs for the rivals that take them one by one."""
    return x[:1] if name.startswith("scipy") else x


@pytest.fixture(scope="module")
def curved():
    return perceptron(8, 12, 4, seed=3, gain=3.0), perceptron(4, 12, 8, seed=4, gain=4.0)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).uniform(-1, 1, size=(5, 8))


def damage_by_hand(encode, decode, x, delta):
    pair = nn.Sequential(encode, decode)
    weights = [(m.weight, m.bias) for part in pair for m in part if isinstance(m, nn.Linear)]
    arrays = [[value.detach().double().numpy() for value in layer] for layer in weights]

    def respond(rows):
        for i, (weight, bias) in enumerate(arrays):
            rows = rows @ weight.T + bias
            if i % 2 == 0:  # hidden layers alternate with linear outputs
                rows = 1 / (1 + np.exp(-rows))
        return rows

    return np.linalg.norm(respond(x + delta) - respond(x), axis=1)


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_exceeds_noise_within_its_budget(curved, x, name):
    x = some(name, x)
    run, target = search(name), rivals.Target(*curved, x, 1.5)
    proposals = run(target, BUDGET)
    assert proposals.shape[0] == len(x)
    assert proposals.shape[2] == x.shape[1]
    assert torch.linalg.vector_norm(proposals, dim=2).max() <= 1.5 * (1 + 1e-5)
    assert target.gradients == len(x) * BUDGET.evaluations
    noise = attack(*curved, x, 1.5, "random", n_restarts=3, random_state=0).damage
    damage = target.judge(proposals)
    assert (damage > noise).all()
    assert damage.mean() > 1.2 * noise.mean()


@pytest.mark.parametrize("name", [name for name in rivals.RIVALS if name not in UNSETTLED])
@pytest.mark.parametrize("radius", [0.01, 4.0])
def test_a_rival_reaches_the_optimum_of_a_linear_pair(x, name, radius):
    x = some(name, x)
    torch.manual_seed(0)
    encode, decode = nn.Linear(8, 5), nn.Linear(5, 8)
    product = decode.weight.double() @ encode.weight.double()
    best = radius * float(torch.linalg.matrix_norm(product.detach(), 2))
    target = rivals.Target(encode, decode, x, radius)
    damage = target.judge(search(name)(target, BUDGET))
    np.testing.assert_allclose(damage, best, rtol=1e-3)
    assert (damage <= best * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", rivals.RIVALS)
@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_ours_is_as_damaging_at_equal_gradient_evaluations(curved, x, name, radius):
    x = some(name, x)
    run, target = search(name), rivals.Target(*curved, x, radius)
    theirs = target.judge(run(target, rivals.Budget(n_restarts=6, n_steps=60)))
    ours = attack(*curved, x, radius, "apgd", n_restarts=6, n_steps=50, random_state=0)
    assert ours.gradient_evaluations <= target.gradients / len(x)
    assert ours.damage.mean() >= theirs.mean() * (1 - 1e-6)


def test_the_judge_projects_and_evaluates_in_float64(curved, x):
    target = rivals.Target(*curved, x, 0.7)
    far = torch.tensor(np.random.default_rng(1).normal(size=(5, 3, 8)))
    inside = 0.7 * far / torch.linalg.vector_norm(far, dim=2, keepdim=True)
    by_hand = [damage_by_hand(*curved, x, inside[:, k].numpy()) for k in range(3)]
    np.testing.assert_allclose(target.judge(far), np.max(by_hand, axis=0), rtol=1e-12)
    mine = attack(*curved, x, 0.7, "apgd", n_steps=5, n_restarts=2, random_state=0)
    again = target.judge(torch.tensor(mine.perturbation)[:, None])
    np.testing.assert_allclose(again, mine.damage, rtol=1e-12)


def test_time_limit_and_seed(curved, x):
    target = rivals.Target(*curved, x, 1.0)
    rivals.scipy_search(target, rivals.Budget(seconds=0.0))
    assert target.gradients == 0
    for name in ("foolbox pgd 0.1", "art pgd 0.333"):
        run = search(name)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        first, same, other = (run(target, rivals.Budget(2, 3, seed=k)) for k in (5, 5, 6))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])
