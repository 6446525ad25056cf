import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.attacks.projections import (
    make_feasible,
    project,
    project_l2,
    project_l2_box,
    project_linf_box,
    row_norm,
)
from harmonicvae.exceptions import InputError


def nearest_by_cvxpy(delta, radius, low, high, touching=None):
    """Nearest point of box ∩ {y : ⟨touching, y⟩ ≤ radius·‖touching‖}, by a QP solver.

    The half-space holds the ball.  So if the nearest point of this larger set is a point of
    ball ∩ box, then it is the projection onto ball ∩ box: a proof, whatever ``touching``.
    """
    point = cp.Variable(len(delta))
    limits = [point >= low, point <= high]
    if touching is not None and touching.any():
        limits.append((touching / np.linalg.norm(touching)) @ point <= radius)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(point - delta)), limits)
    problem.solve(solver=cp.OSQP, eps_abs=1e-10, eps_rel=1e-10, max_iter=100_000, polishing=True)
    return point.value


def random_case(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 25))
    delta = rng.normal(size=d) * rng.choice([0.1, 1.0, 5.0])
    low = -rng.uniform(0, 1, size=d) * (rng.random(d) > 0.2)
    high = rng.uniform(0, 1, size=d) * (rng.random(d) > 0.2)
    return delta, float(rng.uniform(0.05, 1.5)), low, high


def test_l2_projection_agrees_with_a_quadratic_program():
    touched = 0
    for seed in range(500):
        delta, radius, low, high = random_case(seed)
        limits = (torch.tensor(low), torch.tensor(high))
        ours = project(torch.tensor(delta), radius, "l2", limits).numpy()
        theirs = nearest_by_cvxpy(delta, radius, low, high, touching=ours)
        assert np.linalg.norm(ours) <= radius
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8, err_msg=str(seed))
        touched += np.linalg.norm(ours) > 0.999 * radius
    assert 125 < touched < 500  # both cases, ball active and not, were tried


def test_linf_projection_agrees_with_a_quadratic_program():
    for seed in range(30):
        delta, radius, low, high = random_case(seed)
        limits = (torch.tensor(low), torch.tensor(high))
        ours = project(torch.tensor(delta), radius, "linf", limits).numpy()
        ends = np.maximum(low, -radius), np.minimum(high, radius)
        theirs = nearest_by_cvxpy(delta, radius, *ends)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8, err_msg=str(seed))


shapes = st.tuples(st.integers(1, 4), st.integers(1, 30))


@given(shapes, st.integers(0, 2**32 - 1), st.floats(-8, 6), st.floats(-9, 9))
@settings(max_examples=200, deadline=None)
def test_ball_and_box_optimality(shape, seed, radius_exponent, size_exponent):
    """⟨δ − y, v − y⟩ ≤ 0 for all feasible v, which characterises the projection y."""
    rng = np.random.default_rng(seed)
    radius = 10.0**radius_exponent
    delta = torch.tensor(10.0**size_exponent * rng.normal(size=shape))
    low = torch.tensor(-radius * rng.uniform(0, 1, size=shape) * (rng.random(shape) > 0.3))
    high = torch.tensor(radius * rng.uniform(0, 1, size=shape) * (rng.random(shape) > 0.3))
    low[rng.random(shape) < 0.1] = -torch.inf
    near = project_l2_box(delta, radius, low, high)
    assert (near >= low).all()
    assert (near <= high).all()
    assert (np.linalg.norm(near.numpy(), axis=-1) <= radius).all()
    rest = delta - near
    # The largest ⟨rest, v⟩ over ball ∩ box is bounded by that over the ball and over the
    # box; random feasible v probe it from below.
    for _ in range(20):
        other = rng.normal(size=shape) * rng.choice([0.3, 1, 30])
        other = torch.tensor(other * radius).clamp(low, high)
        other = other * (radius / row_norm(other, "l2")).clamp(max=1.0).nan_to_num(nan=1.0)
        excess = (rest * (other - near)).sum(-1)
        scale = row_norm(rest, "l2").squeeze(-1) * radius
        assert (excess <= 1e-10 * scale + 1e-300).all()


@given(shapes, st.integers(0, 2**32 - 1), st.floats(-300, 8), st.floats(-8, 6))
@settings(max_examples=200, deadline=None)
def test_ball_is_never_left_and_interior_is_kept(shape, seed, size_exponent, radius_exponent):
    radius = 10.0**radius_exponent
    delta = 10.0**size_exponent * np.random.default_rng(seed).normal(size=shape)
    near = project_l2(torch.tensor(delta), radius).numpy()
    for row, kept in zip(delta, near):
        size = float(np.sqrt(np.longdouble(row) @ np.longdouble(row)))
        assert np.sqrt(np.longdouble(kept) @ np.longdouble(kept)) <= np.longdouble(radius)
        expected = row if size <= radius else row * (radius / size)
        np.testing.assert_allclose(kept, expected, rtol=1e-11, atol=0)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["l2", "linf"]), st.floats(-8, 6))
@settings(max_examples=200, deadline=None)
def test_make_feasible_leaves_no_rounding_error(seed, norm, exponent):
    rng = np.random.default_rng(seed)
    radius, d = 10.0**exponent, 40
    low, high = np.sort(rng.normal(size=(2, d)), axis=0)
    x = low + rng.random((3, d)) * (high - low)
    x[:, 0], x[:, 1] = low[0], high[1]
    x = np.clip(x, low, high)
    delta = rng.normal(size=(3, d)) * 10.0 ** rng.uniform(-9, 7)
    delta[2, 5] = rng.choice([np.nan, np.inf, 0.0])
    box = (torch.tensor(low), torch.tensor(high))
    kept = make_feasible(torch.tensor(delta), torch.tensor(x), radius, norm, box).numpy()
    assert (np.linalg.norm(kept, ord=2 if norm == "l2" else np.inf, axis=1) <= radius).all()
    assert (x + kept <= high).all()
    assert (x + kept >= low).all()
    # Not merely feasible: as far as the exact projection, where that is finite.
    inputs = torch.tensor(x[:2])
    limits = (box[0] - inputs, box[1] - inputs)
    free = project(torch.tensor(delta[:2]), radius, norm, limits).numpy()
    np.testing.assert_allclose(kept[:2], free, atol=1e-15 * (1 + np.abs(x).max()) + 1e-11 * radius)


def test_box_without_zero_is_refused():
    one = torch.ones(3)
    for function in (project_l2_box, project_linf_box):
        with pytest.raises(InputError, match="must hold 0"):
            function(one, 1.0, 0.5 * one, one)
        with pytest.raises(InputError, match="must hold 0"):
            function(one, 1.0, -one, -0.5 * one)


def test_unknown_norm_is_refused():
    with pytest.raises(InputError, match="norm must be one of"):
        project(torch.ones(3), 1.0, "l1")


def test_float32_stays_float32_and_close_to_float64():
    rng = np.random.default_rng(5)
    delta, high = rng.normal(size=(8, 300)), rng.uniform(0, 0.3, size=300)
    exact = project_l2_box(torch.tensor(delta), 2.0, torch.tensor(-high), torch.tensor(high))
    half = torch.tensor(high).float()
    rough = project_l2_box(torch.tensor(delta).float(), 2.0, -half, half)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, atol=1e-6, rtol=0)
