"""Attacks against certified bounds, and the self-audit of a search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harmonicvae.attacks import ATTACKS, Attack, TargetedDecoding, attack, check_damage
from harmonicvae.attacks import base as base_module
from harmonicvae.attacks.checks import audit
from harmonicvae.attacks.judge import Verdict
from harmonicvae.attacks.problem import Candidates
from harmonicvae.exceptions import InputError, SoundnessError
from harmonicvae.records import Bound

QUICK = {"n_restarts": 4, "n_steps": 4, "n_refined": 2, "n_refinements": 4, "n_power": 2}


def bound(value, **change):
    given = {"kind": "upper", "value": value, "method": "norm_product", "status": "certified"}
    return Bound(**(given | change))


def stretch(factor, d):
    """Return a module that multiplies by ``factor``: every bound is attained everywhere."""
    layer = nn.Linear(d, d, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(factor * torch.eye(d))
    return layer.eval()


@pytest.fixture(scope="module")
def doubled():
    """An attack on p = 2x, g = 3z in four dimensions at radius 0.5: the damage is 3."""
    x = np.random.default_rng(0).normal(size=(3, 4))
    return attack(stretch(2, 4), stretch(3, 4), x, 0.5, random_state=0, **QUICK)


def test_ratio_of_the_exact_bound_is_one(doubled):
    np.testing.assert_allclose(check_damage(doubled, bound(2), bound(3)), 1.0, rtol=1e-9)
    np.testing.assert_allclose(check_damage(doubled, bound(4), bound(6)), 0.25, rtol=1e-9)
    assert not check_damage(doubled, bound(math.inf), bound(3)).any()


@pytest.mark.parametrize("pair", [(1.99, 3), (2, 2.99), (1.999999, 3), (0, 3), (2, 0)])
def test_exceeded_certified_bounds_are_an_error(doubled, pair):
    with pytest.raises(SoundnessError, match="exceeds the certified bound"):
        check_damage(doubled, bound(pair[0]), bound(pair[1]))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "float64"},
        {"status": "estimate"},
        {"status": "estimate", "kind": "estimate"},
        {"scope": "box"},
        {"scope": "box", "status": "float64"},
    ],
)
@pytest.mark.parametrize("place", ["encoder", "decoder", "both"])
def test_exceeded_uncertified_bounds_give_a_ratio(doubled, change, place):
    first = bound(1, **(change if place != "decoder" else {}))
    second = bound(1, **(change if place != "encoder" else {}))
    np.testing.assert_allclose(check_damage(doubled, first, second), 6.0, rtol=1e-9)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("status", ["certified", "float64", "estimate"])
def test_lower_bounds_are_refused(doubled, place, status):
    pair = [bound(9), bound(9)]
    pair[place] = bound(9, kind="lower", status=status)
    with pytest.raises(InputError, match="must be upper bounds"):
        check_damage(doubled, *pair)


@pytest.mark.parametrize("method", sorted(ATTACKS))
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_attack_itself_raises(method, norm):
    x = np.random.default_rng(0).normal(size=(2, 3))
    options = {"norm": norm, "random_state": 0}
    pair = stretch(2, 3), stretch(3, 3)
    with pytest.raises(SoundnessError):
        attack(*pair, x, 0.5, method, bounds=(bound(2), bound(2.9)), **options)
    attack(*pair, x, 0.5, method, bounds=(bound(2), bound(3)), **options)
    attack(*pair, x, 0.5, method, bounds=(bound(1, status="float64"), bound(1)), **options)
    with pytest.raises(InputError):
        attack(*pair, x, 0.5, method, bounds=(bound(2, kind="lower"), bound(3)), **options)


@pytest.mark.parametrize("objective", ["latent", "stochastic_damage", "targeted"])
def test_damage_is_checked_whatever_is_maximised(objective):
    x = np.zeros((2, 3))
    given = {"target": 9 * np.ones(3)} if objective == "targeted" else {"encode_std": 0.5}
    with pytest.raises(SoundnessError):
        attack(
            stretch(2, 3),
            stretch(3, 3),
            x,
            0.5,
            objective=objective,
            bounds=(bound(2), bound(2)),
            random_state=0,
            **given,
        )


@pytest.mark.parametrize("d", [1, 4, 9])
def test_the_linf_ball_reaches_root_d_times_its_radius(d):
    result = attack(
        stretch(2, d), stretch(3, d), np.zeros((2, d)), 0.5, norm="linf", random_state=0
    )
    np.testing.assert_allclose(result.damage, 3 * math.sqrt(d), rtol=1e-9)
    np.testing.assert_allclose(check_damage(result, bound(2), bound(3)), 1.0, rtol=1e-9)
    with pytest.raises(SoundnessError):
        check_damage(result, bound(2), bound(2.999))


def test_radius_zero_has_no_damage_to_exceed_anything():
    result = attack(stretch(2, 2), stretch(3, 2), np.ones((2, 2)), 0.0)
    for pair in ((0, 0), (math.inf, 3), (2, 3)):
        assert not check_damage(result, bound(pair[0]), bound(pair[1])).any()


@given(
    exponent=st.integers(-8, 6),
    d=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    method=st.sampled_from(["best", "apgd", "linear"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    norm=st.sampled_from(["l2", "linf"]),
    boxed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_rounding_at_an_attained_bound_is_no_error(
    exponent, d, dtype, method, scale, norm, boxed, seed
):
    """A rotation after a multiple of a rotation: the bound is attained in every direction."""
    rng = np.random.default_rng(seed)
    encode, decode = nn.Linear(d, d).to(dtype), nn.Linear(d, d).to(dtype)
    with torch.no_grad():
        for layer in (encode, decode):
            turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
            layer.weight.copy_(torch.tensor(7 * turn))
    exact = [np.linalg.norm(m.weight.detach().double().numpy(), 2) for m in (encode, decode)]
    x = scale * rng.normal(size=(2, d))
    box = (x.min() - 1.0, x.max() + 1.0) if boxed else None
    # A relative 1e-15 stands for the outward rounding of a certified bound.
    bounds = tuple(bound(value * (1 + 1e-15)) for value in exact)
    options = {"norm": norm, "box": box, "bounds": bounds, "random_state": seed}
    result = attack(encode, decode, x, 10.0**exponent, method, **options)
    ratio = check_damage(result, *bounds)
    if not boxed and norm == "l2":
        assert (ratio > 0.99).all()


def test_the_worst_image_is_named(doubled):
    with pytest.raises(SoundnessError, match=r"encoder 1 × decoder 2 × radius 0\.5"):
        check_damage(doubled, bound(1), bound(2))


class Nearly(Attack):
    """Goes almost to the sphere."""

    name = "nearly"

    def _perturb(self, problem):
        starts = 0.999 * problem.random_starts(1)
        return Candidates(starts, torch.zeros(starts.shape[:2], dtype=torch.int64))


def test_a_projection_that_leaves_the_ball_would_be_seen(monkeypatch):
    """A base class that hands out δ of twice the norm is caught by the exact bound."""
    from harmonicvae.attacks import judge

    pair, bounds = (stretch(2, 3), stretch(3, 3)), (bound(2), bound(3))
    x = np.zeros((2, 3))
    assert (Nearly().attack(*pair, x, 0.5, bounds=bounds).damage < 3).all()
    monkeypatch.setattr(judge, "make_feasible", lambda delta, *rest: 2 * delta)
    with pytest.raises(SoundnessError):
        Nearly().attack(*pair, x, 0.5, bounds=bounds)


def test_without_the_check_nothing_is_raised(monkeypatch):
    monkeypatch.setattr(base_module, "check_damage", lambda *rest: None)
    bounds = (bound(0.1), bound(0.1))
    attack(stretch(2, 3), stretch(3, 3), np.zeros((2, 3)), 0.5, bounds=bounds, **QUICK)


# --------------------------------------------------------------------------- self-audit


def verdict(count=4, **change):
    parts = {
        "perturbation": torch.zeros(count, 2),
        "value": torch.ones(count),
        "attacked": torch.zeros(count, 2),
        "restart": torch.zeros(count, dtype=torch.int64),
        "step": torch.full((count,), 5),
        "late_gain": torch.zeros(count),
    }
    return Verdict(**(parts | change))


@pytest.mark.parametrize(
    ("change", "steps", "message"),
    [
        ({}, 10, None),
        ({"without_gradient": 1}, 10, "zero at every start for 1 of 4"),
        ({"not_finite": 3}, 10, "3 proposals were NaN"),
        ({"late_gain": torch.ones(4)}, 5, "for 4 of 4 inputs; increase n_steps"),
        ({"late_gain": torch.tensor([1.0, 1, 1, 0])}, 5, "for 3 of 4 inputs"),
        ({"late_gain": torch.tensor([1.0, 1, 0, 0])}, 5, None),
        ({"late_gain": torch.ones(4)}, 6, None),
        ({"late_gain": torch.full((4,), torch.inf), "step": torch.zeros(4)}, 0, None),
        ({"late_gain": torch.full((4,), 1e-4)}, 5, None),
    ],
)
def test_audit(change, steps, message):
    found = audit(verdict(**change), steps)
    assert len(found) == (message is not None)
    if message:
        assert message in found[0]


def test_a_sound_search_has_nothing_to_report(doubled):
    assert doubled.warnings == ()


# ------------------------------------------------------------------------ known defects


@pytest.mark.parametrize("radius", [1e-8, 1e-6, 1e-3])
def test_callables_in_single_precision_disprove_no_bound(radius):
    """Functions that refuse float64 are judged in float32: the rounding is 10⁹ times larger."""
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    top = float(torch.linalg.matrix_norm(matrix.double(), 2)) * (1 + 1e-12)
    x = np.random.default_rng(0).normal(size=(8, 40))
    bounds = (bound(top), bound(1.0))
    attack(lambda v: v.float() @ matrix, lambda z: z, x, radius, bounds=bounds, random_state=0)


@pytest.mark.parametrize("radius", [1e-8, 1e-6])
def test_rounding_of_inputs_that_cancel_in_the_decoding(radius):
    """g(p(x)) = x − 1000 near 0: rounding x + δ moves it by more than the decodings' ulp."""
    x = np.full((8, 40), 1e3)
    bounds = (bound(1.0), bound(1.0))
    attack(lambda v: v, lambda z: z - 1e3, x, radius, bounds=bounds, random_state=0)


def test_rounding_of_codes_that_cancel_in_the_decoding():
    x = np.random.default_rng(0).normal(size=(8, 40))
    pair = (lambda v: v + 1e6, lambda z: z - 1e6)
    attack(*pair, x, 1e-8, bounds=(bound(1.0), bound(1.0)), random_state=0)


@pytest.mark.parametrize("change", [{"kind": "estimate"}, {"norm": "linf"}])
def test_estimates_and_other_norms_are_no_certified_bounds(doubled, change):
    check_damage(doubled, bound(1, **change), bound(1, **change))


class Spoiler(Attack):
    """Changes the model and the objective it was given."""

    name = "spoiler"

    def _perturb(self, problem):
        with torch.no_grad():
            problem.respond.decode.weight.mul_(100)
        if isinstance(problem.objective, TargetedDecoding):
            problem.objective.target.add_(100)
        starts = problem.random_starts(1)
        return Candidates(starts, torch.zeros(starts.shape[:2], dtype=torch.int64))


def test_a_method_that_spoils_its_model_is_judged_by_the_real_one():
    result = Spoiler().attack(stretch(2, 3), stretch(3, 3), np.zeros((2, 3)), 0.5, random_state=0)
    np.testing.assert_allclose(result.damage, 3.0, rtol=1e-9)


def test_a_method_that_spoils_its_model_in_a_small_ball():
    result = Spoiler().attack(stretch(2, 3), stretch(3, 3), np.zeros((2, 3)), 1e-6, random_state=0)
    np.testing.assert_allclose(result.damage, 6e-6, rtol=1e-9)


def test_a_method_that_spoils_its_objective():
    objective = TargetedDecoding(np.ones(3))
    Spoiler().attack(
        stretch(2, 3), stretch(3, 3), np.zeros((2, 3)), 0.5, objective=objective, random_state=0
    )
    np.testing.assert_array_equal(objective.target.numpy(), np.ones(3))
