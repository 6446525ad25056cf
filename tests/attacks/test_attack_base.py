import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae.attacks import ATTACKS, Attack, attack
from harmonicvae.attacks.problem import Candidates
from harmonicvae.exceptions import InputError, SolverError

SMALL = {
    "best": {"n_restarts": 3, "n_steps": 3, "n_refined": 2, "n_refinements": 3, "n_power": 2},
    "apgd": {"n_steps": 5, "n_restarts": 3, "n_singular": 1, "n_power": 2},
    "pgd": {"n_steps": 5, "n_restarts": 3},
    "lbfgs": {"n_steps": 5, "n_restarts": 3, "n_singular": 1, "n_power": 2, "memory": 2},
    "power": {"n_steps": 5, "n_restarts": 3, "n_singular": 1, "n_power": 2},
    "random": {"n_restarts": 3},
    "linear": {"n_power": 2},
}


def test_every_method_is_tried():
    assert set(SMALL) == set(ATTACKS)


def damage_by_hand(encode, decode, x, delta):
    with torch.no_grad():
        pair = nn.Sequential(encode, decode).double()
        change = pair(torch.tensor(x + delta)) - pair(torch.tensor(x))
    return np.linalg.norm(change.numpy(), axis=1)


class Cheat(Attack):
    """Proposes perturbations far outside, and spoils what it was given."""

    name = "cheat"

    def _perturb(self, problem):
        problem.x += 1
        problem.reference -= 1
        problem.radius = 100.0
        n, d = problem.x.shape
        far = torch.full((n, 3, d), 50.0)
        far[:, 1] = torch.linspace(-90, 70, d)
        far[:, 2, 0] = float("nan")
        return Candidates(far, torch.full((n, 3), 7))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("box", [None, (-1, 1.5)])
def test_a_cheating_method_is_projected_and_judged(pair, images, norm, box):
    encode, decode = pair
    result = Cheat().attack(encode, decode, images, 0.7, norm=norm, box=box)
    order = 2 if norm == "l2" else np.inf
    assert (np.linalg.norm(result.perturbation, ord=order, axis=1) <= 0.7).all()
    assert result.radius_used.max() > 0.3
    assert result.box_violation == 0
    if box:
        assert (images + result.perturbation <= 1.5).all()
        assert (images + result.perturbation >= -1).all()
    by_hand = damage_by_hand(*pair, images, result.perturbation)
    np.testing.assert_allclose(result.damage, by_hand, rtol=1e-12)
    assert set(result.best_step) == {7}
    assert "6 proposals were NaN" in " ".join(result.warnings)


class Worse(Attack):
    """Puts the worst proposal first; the last is 0."""

    name = "worse"

    def _perturb(self, problem):
        draws = problem.random_starts(8) * torch.linspace(0.01, 1, 8)[:, None]
        draws[:, -1] = 0
        return Candidates(draws, torch.zeros(draws.shape[:2], dtype=torch.int64))


def test_the_best_proposal_of_each_input_is_kept(pair, images):
    result = Worse().attack(*pair, images, 1.0, random_state=0)
    assert (result.best_restart < 7).all()
    assert (result.best_restart > 0).any()
    by_hand = damage_by_hand(*pair, images, result.perturbation)
    np.testing.assert_allclose(result.damage, by_hand, rtol=1e-12)
    with torch.no_grad():
        moved = nn.Sequential(*pair).double()(torch.tensor(images + result.perturbation))
    np.testing.assert_allclose(result.attacked_decoding, moved.numpy(), rtol=1e-12)


class WrongShape(Attack):
    name = "wrong"

    def _perturb(self, problem):
        return Candidates(problem.x, torch.zeros(len(problem.x)))


def test_a_wrong_shape_is_named(pair, images):
    with pytest.raises(SolverError, match=r"perturbations of shape \(6, restarts, 20\)"):
        WrongShape().attack(*pair, images, 1.0)


@given(
    method=st.sampled_from(sorted(ATTACKS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    radius=st.one_of(st.just(0.0), st.floats(-8, 6).map(lambda e: 10.0**e)),
    norm=st.sampled_from(["l2", "linf"]),
    boxed=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_no_attack_leaves_its_ball_or_box(method, dtype, shape, radius, norm, boxed, seed):
    d = shape[1]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 3)
    if dtype == torch.float32:
        x = x.astype(np.float32).astype(np.float64)
    box = None
    if boxed:
        low = x.min(axis=0) - rng.exponential(size=d) * (rng.random(d) > 0.4)
        high = x.max(axis=0) + rng.exponential(size=d) * (rng.random(d) > 0.4)
        box = (low, high)
    encode = nn.Sequential(nn.Linear(d, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype).eval()
    decode = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, d)).to(dtype).eval()
    result = attack(
        encode, decode, x, radius, method, norm=norm, box=box, random_state=seed, **SMALL[method]
    )
    sizes = np.linalg.norm(result.perturbation, ord=2 if norm == "l2" else np.inf, axis=1)
    assert result.perturbation.shape == shape
    assert result.perturbation.dtype == np.float64
    assert (sizes <= radius).all()
    assert (result.radius_used <= radius).all()
    assert (result.damage >= 0).all()
    assert result.box_violation == 0
    if boxed:
        assert (x + result.perturbation >= low).all()
        assert (x + result.perturbation <= high).all()
    by_hand = damage_by_hand(encode, decode, x, result.perturbation)
    np.testing.assert_allclose(result.damage, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_seed_decides_and_nothing_else(pair, images, method):
    first = attack(*pair, images, 1.0, method, random_state=14609714069366804553)
    again = attack(*pair, images, 1.0, method, random_state=14609714069366804553)
    np.testing.assert_array_equal(first.perturbation, again.perturbation)
    few = attack(*pair, images[:2], 1.0, method, random_state=14609714069366804553)
    np.testing.assert_allclose(few.damage, first.damage[:2], rtol=1e-3)
    other = attack(*pair, images, 1.0, "random", random_state=1)
    assert not np.array_equal(other.perturbation, first.perturbation)


def test_random_state_types(pair, images):
    def draw(state):
        return attack(*pair, images, 1.0, "random", random_state=state).perturbation

    seed = np.random.RandomState
    np.testing.assert_array_equal(draw(seed(3)), draw(seed(3)))
    source = seed(3)
    assert not np.array_equal(draw(source), draw(source))
    generator = np.random.default_rng
    np.testing.assert_array_equal(draw(generator(3)), draw(generator(3)))
    assert not np.array_equal(draw(None), draw(None))


@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_chunking_does_not_change_the_draws(pair, images, method):
    whole = attack(*pair, images, 1.0, method, random_state=5)
    parts = attack(*pair, images, 1.0, method, random_state=5, max_batch=3)
    # Equal up to the rounding of float32 sums in another order.
    tolerance = 1e-12 if method == "random" else 1e-3
    np.testing.assert_allclose(parts.damage, whole.damage, rtol=tolerance)
    assert parts.gradient_evaluations == whole.gradient_evaluations


class Recorder(nn.Module):
    def __init__(self, inner, rows):
        super().__init__()
        self.inner, self.rows = inner, rows

    def __deepcopy__(self, memo):
        import copy

        return Recorder(copy.deepcopy(self.inner, memo), self.rows)

    def forward(self, points):
        self.rows.append(len(points))
        return self.inner(points)


@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_no_evaluation_exceeds_max_batch(pair, images, method):
    rows = []
    attack(Recorder(pair[0], rows), pair[1], images, 1.0, method, max_batch=4, random_state=0)
    assert max(rows) == 4


@pytest.mark.parametrize("method", sorted(ATTACKS))
def test_global_generators_and_modules_are_untouched(images, method):
    encode = nn.Sequential(nn.Linear(20, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    encode[1].eval()
    decode = nn.Linear(5, 20)
    before = [p.clone() for p in [*encode.state_dict().values(), *decode.state_dict().values()]]
    modes = [m.training for m in encode.modules()]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    copy = images.copy()
    result = attack(encode, decode, images, 1.0, method, random_state=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    np.testing.assert_array_equal(images, copy)
    assert [m.training for m in encode.modules()] == modes
    after = [*encode.state_dict().values(), *decode.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert all(p.requires_grad and p.grad is None for p in encode.parameters())
    assert sum("train mode" in warning for warning in result.warnings) == 2
    # Dropout was off: the verdict is reproduced in eval mode.
    by_hand = damage_by_hand(encode.eval(), decode.eval(), images, result.perturbation)
    np.testing.assert_allclose(result.damage, by_hand, rtol=1e-12)


def test_several_radii_are_several_attacks(pair, images):
    both = attack(*pair, images, [0.5, 2.0], random_state=0)
    alone = attack(*pair, images, 2.0, random_state=0)
    assert [result.radius for result in both] == [0.5, 2.0]
    np.testing.assert_array_equal(both[1].perturbation, alone.perturbation)
    assert isinstance(attack(*pair, images, [1.0], "random"), list)


def test_radius_zero_is_no_attack(pair, images):
    result = attack(*pair, images, 0.0)
    assert not result.perturbation.any()
    assert not result.damage.any()
    assert set(result.best_restart) == {-1}
    np.testing.assert_array_equal(result.decoding, result.attacked_decoding)


def test_plain_functions_and_tensors_of_any_dtype(images):
    matrix = torch.diag(torch.arange(1.0, 21.0))
    for x in (images, images.astype(np.float32), torch.tensor(images), images.tolist()):
        result = attack(lambda v: v @ matrix.to(v), lambda z: z[:, None, :], x, 1.0, random_state=0)
        np.testing.assert_allclose(result.damage, 20.0, rtol=1e-6)
        assert result.warnings == ()


def test_functions_that_refuse_float64_are_noted(images):
    matrix = torch.diag(torch.arange(1.0, 21.0))
    for encode in (lambda v: v @ matrix, lambda v: v.float() @ matrix):
        result = attack(encode, lambda z: z, images, 1.0, random_state=0)
        np.testing.assert_allclose(result.damage, 20.0, rtol=1e-5)
        assert any("refuse float64" in warning for warning in result.warnings)


def test_bound_methods_are_copied_too(images):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(20, 3), nn.Linear(3, 20)

        def encode(self, v):
            return nn.functional.dropout(self.inner(v), 0.9, self.training)

        def decode(self, z):
            return self.outer(z)

    model = Model().train()
    result = attack(model.encode, model.decode, images, 1.0, random_state=0)
    product = model.outer.weight.double() @ model.inner.weight.double()
    top = torch.linalg.matrix_norm(product, 2).item()
    np.testing.assert_allclose(result.damage, top, rtol=1e-6)
    assert model.training
    assert not any("float64" in warning for warning in result.warnings)


def test_half_precision_modules_are_judged_in_float64(pair, images):
    import copy

    encode, decode = (copy.deepcopy(module).bfloat16() for module in pair)
    result = attack(encode, decode, images, 1.0, random_state=0)
    by_hand = damage_by_hand(encode, decode, images, result.perturbation)
    np.testing.assert_allclose(result.damage, by_hand, rtol=1e-12)


@pytest.mark.parametrize("method", ["apgd", "linear"])
@pytest.mark.parametrize(
    "decode", [lambda z: torch.zeros(len(z), 4).to(z), lambda z: z.detach(), lambda z: 0 * z]
)
def test_a_collapsed_decoder_is_reported(images, decode, method):
    result = attack(lambda v: v, decode, images, 1.0, method, random_state=0)
    assert any("gradient is zero at every start for 6 of 6" in w for w in result.warnings)


def test_too_few_steps_are_reported():
    scale = torch.tensor([1.0, 3.0] + [1.0] * 28, dtype=torch.float64)
    options = {"n_steps": 2, "n_singular": 0, "n_restarts": 1, "random_state": 0}
    few = attack(lambda v: v * scale, lambda z: z, np.zeros((5, 30)), 1.0, "apgd", **options)
    assert any("increase n_steps (now 2)" in warning for warning in few.warnings)
    options["n_steps"] = 60
    many = attack(lambda v: v * scale, lambda z: z, np.zeros((5, 30)), 1.0, "apgd", **options)
    assert many.warnings == ()


def test_infinite_outputs_are_never_damage(images):
    def decode(z):
        return torch.where(z > 1.2, torch.inf, z)

    result = attack(lambda v: v, decode, images, 1.5, random_state=0)
    assert np.isfinite(result.damage).all()
    assert np.isfinite(result.attacked_decoding).all()
    with pytest.raises(SolverError, match="NaN or infinite for 6 of 6"):
        attack(lambda v: v, lambda z: z / 0, images, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": -1.0}, "radius must be finite and >= 0, got -1.0"),
        ({"radius": [1.0, float("nan")]}, "radius must be finite"),
        ({"radius": float("inf")}, "radius must be finite"),
        ({"radius": []}, "non-empty"),
        ({"radius": "much"}, "radius must be a number"),
        ({"norm": "l1"}, "norm must be one of"),
        ({"x": np.zeros(20)}, r"x must have shape \(n, d\)"),
        ({"x": np.zeros((2, 4, 5))}, "flatten images"),
        ({"x": np.zeros((0, 20))}, "at least one input"),
        ({"x": np.full((2, 20), np.nan)}, "NaN or infinity in 2 of 2 rows"),
        ({"x": [["a"]]}, "x must be numeric"),
        ({"x": np.zeros((2, 21))}, r"must run on inputs of shape \(n, 21\)"),
        ({"box": (0.9, 1)}, "box must hold every clean input"),
        ({"box": (1, -1)}, "box must hold every clean input"),
        ({"box": (-1, float("nan"))}, "must not be NaN"),
        ({"box": (np.zeros(3), 1)}, r"arrays of shape \(20,\)"),
        ({"box": 1}, "box must be a pair"),
        ({"random_state": -1}, "random_state must be an integer >= 0"),
        ({"random_state": "seed"}, "random_state must be None"),
        ({"method": "gradient"}, "method must be one of"),
        ({"encode": 3}, "encode must be callable"),
        ({"decode": lambda z: (z, z)}, "decode must return a tensor, got tuple"),
        ({"decode": lambda z: z.sum(0)}, "decode must return one row per input"),
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"n_steps": 2.5}, "n_steps must be an integer"),
        ({"n_restarts": 0}, "n_restarts must be"),
        ({"n_singular": -1}, "n_singular must be"),
        ({"n_power": 0}, "n_power must be"),
        ({"max_batch": 0}, "max_batch must be"),
        ({"steps": 5}, "options of 'best'"),
    ],
)
def test_bad_input_is_named(pair, images, change, message):
    call = {"encode": pair[0], "decode": pair[1], "x": images, "radius": 1.0} | change
    with pytest.raises(InputError, match=message):
        attack(**call)


def test_the_record_is_complete(pair, images):
    options = {"n_steps": 20, "n_restarts": 8, "n_power": 4}
    result = attack(*pair, images, 1.0, "apgd", random_state=0, **options)
    assert (result.method, result.norm, result.radius) == ("apgd", "l2", 1.0)
    assert (result.restarts, result.steps) == (8, 20)
    assert result.gradient_evaluations == 20 * 8 + 3 * (2 * 4 - 1)
    assert (result.best_step <= 20).all()
    assert result.seconds > 0
    assert len(result.to_frame()) == 6
    with torch.no_grad():
        clean = nn.Sequential(*pair).double()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(result.decoding, clean, rtol=1e-12)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(pair, images):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    import copy

    here = attack(*pair, images, 1.0, random_state=0, box=(-2, 2))
    encode, decode = (copy.deepcopy(module).cuda() for module in pair)
    there = attack(encode, decode, images, 1.0, random_state=0, box=(-2, 2))
    np.testing.assert_allclose(there.damage, here.damage, rtol=1e-3)
