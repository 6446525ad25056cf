"""Certified norms against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harmonicvae import rounding
from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.norms import (
    certified_spectral_norm,
    norm_is_at_most,
    power_iteration,
    spectral_norm,
)
from harmonicvae.rounding import (
    absolute_norm_squared,
    gamma,
    normalise,
    product_up,
    proves_positive_semidefinite,
    scale_up,
    upper_gram_factor,
)


def exact(matrix):
    """Every float64 is a rational number."""
    return [[Fraction(float(entry)) for entry in row] for row in np.atleast_2d(matrix)]


def is_psd(rows):
    """Decide positive semidefiniteness of a symmetric rational matrix by elimination."""
    rows = [list(row) for row in rows]
    while rows:
        pivot = rows[0][0]
        if pivot < 0 or (pivot == 0 and any(rows[0])):
            return False
        rest = rows[1:]
        if pivot > 0:
            rest = [[e - r[0] * h / pivot for e, h in zip(r[1:], rows[0][1:])] for r in rest]
        else:
            rest = [r[1:] for r in rest]
        rows = rest
    return True


def norm_at_most(matrix, value):
    """Decide ‖M‖₂ ≤ value exactly."""
    rows = exact(matrix)
    square = Fraction(value) ** 2
    shifted = [
        [(square if i == j else 0) - sum(a * b for a, b in zip(x, y)) for j, y in enumerate(rows)]
        for i, x in enumerate(rows)
    ]
    return is_psd(shifted)


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4)
ENTRIES = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, 1e-30, 1.0, 1 + 2**-52, -1.0]),
)
MATRICES = SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=ENTRIES))
SCALES = st.sampled_from([1.0, 1e-300, 1e-12, 1e12, 1e150, 0.3, 1e300])


@given(MATRICES, SCALES)
@settings(max_examples=300, deadline=None)
def test_certified_norm_is_an_upper_bound_and_tight(matrix, scale):
    matrix = matrix * scale
    value = certified_spectral_norm(matrix)
    assert norm_at_most(matrix, value)
    if value > 1e-290:
        assert not norm_at_most(matrix, value * (1 - 1e-9))
    if not np.any(matrix):
        assert value == 0.0


@given(MATRICES, st.floats(1 - 1e-13, 1 + 1e-11))
@settings(max_examples=300, deadline=None)
def test_a_claimed_norm_is_accepted_only_if_true(matrix, factor):
    value = spectral_norm(matrix) * factor
    if norm_is_at_most(matrix, value):
        assert norm_at_most(matrix, value)
    assert norm_is_at_most(matrix, spectral_norm(matrix) * (1 + 1e-9) + 1e-280)


@given(
    hnp.arrays(np.float64, (4, 4), elements=st.floats(-1, 1, width=16)),
    st.floats(-1e-13, 1e-13),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_semidefiniteness_is_proved_only_where_it_holds(factor, shift, blocks):
    """Gram matrices of rank < 4, moved by less than any naive test could see."""
    factor[:, 3] = 0.0
    matrix = factor @ factor.T
    matrix[2:, 0] = matrix[0, 2:] = 0.0
    matrix[3, 1] = matrix[1, 3] = 0.0
    matrix += shift * np.eye(4)
    matrix = 0.5 * (matrix + matrix.T)
    diagonal, lower = [matrix], []
    if blocks:
        diagonal = [matrix[:1, :1], matrix[1:2, 1:2], matrix[2:, 2:]]
        lower = [matrix[1:2, :1], matrix[2:, 1:2]]
    if proves_positive_semidefinite(diagonal, lower):
        assert is_psd(exact(matrix))
    assert proves_positive_semidefinite([d + 16 * np.eye(len(d)) for d in diagonal], lower)


def test_semidefiniteness_counts_given_errors():
    assert proves_positive_semidefinite([np.eye(2)], (), [0.9])
    assert not proves_positive_semidefinite([np.eye(2)], (), [1.0])
    blocks = [np.eye(1), np.eye(1)]
    link = [np.array([[0.5]])]
    assert proves_positive_semidefinite(blocks, link, None, [0.2])
    assert not proves_positive_semidefinite(blocks, link, None, [0.6])
    # the middle block is shifted for both neighbours
    blocks = [np.eye(1)] * 3
    links = [np.zeros((1, 1))] * 2
    assert not proves_positive_semidefinite(blocks, links, None, [0.75, 0.75])


@given(MATRICES)
@settings(max_examples=150, deadline=None)
def test_gram_factor_is_above_and_close(matrix):
    scaled, _ = normalise(matrix)
    try:
        factor = upper_gram_factor(scaled)
    except SolverError:
        assert not np.any(scaled)
        return
    rows, left = exact(scaled), exact(factor)
    size = len(rows)
    gap = [
        [
            sum(a * b for a, b in zip(left[i], left[j]))
            - sum(a * b for a, b in zip(rows[i], rows[j]))
            for j in range(size)
        ]
        for i in range(size)
    ]
    assert is_psd(gap)
    assert max(float(gap[i][i]) for i in range(size)) < 1e-11


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=6), st.integers(-60, 60))
@settings(max_examples=300, deadline=None)
def test_products_are_rounded_upwards(factors, exponent):
    true = Fraction(2) ** exponent
    for factor in factors:
        true *= Fraction(factor)
    value = product_up(factors, exponent)
    if np.isinf(value):
        assert true * (1 + Fraction(1, 10**12)) > Fraction(np.finfo(float).max)
        return
    assert Fraction(value) >= true
    assert Fraction(value) <= true * (1 + Fraction(1, 10**12)) + Fraction(2) ** -1072


@given(st.floats(0, 1e308), st.integers(-2500, 2500))
def test_scaling_is_rounded_upwards(value, exponent):
    scaled = scale_up(value, exponent)
    true = Fraction(value) * Fraction(2) ** exponent
    assert np.isinf(scaled) or Fraction(scaled) >= true
    assert np.isinf(scaled) == (true > Fraction(np.finfo(float).max))


@given(MATRICES)
def test_absolute_norm_bounds_both_norms(matrix):
    bound = absolute_norm_squared(matrix)
    assert bound >= np.linalg.norm(np.abs(matrix), 2) ** 2
    assert bound >= np.linalg.norm(matrix, 2) ** 2


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (30, 30), (64, 300), (300, 64)])
@pytest.mark.parametrize("rank", [1, None])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e150])
def test_certified_norm_is_close_on_larger_matrices(shape, rank, scale):
    rng = np.random.default_rng(sum(shape))
    matrix = rng.standard_normal(shape)
    if rank == 1:
        matrix = np.outer(matrix[:, 0], matrix[0])
    matrix = matrix * scale
    value, reference = certified_spectral_norm(matrix), spectral_norm(matrix)
    assert reference * (1 - 1e-14) <= value <= reference * (1 + 1e-9)
    assert norm_is_at_most(matrix, value)
    assert not norm_is_at_most(matrix, reference * (1 - 1e-12))


def test_identity_costs_no_accuracy():
    assert 1.0 <= certified_spectral_norm(np.eye(500)) < 1 + 1e-12


def test_power_iteration_reaches_the_norms_of_a_batch():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((5, 7, 4))
    batch[2] = 0.0
    norms, vectors = power_iteration(
        lambda v: np.einsum("kij,kj->ki", batch, v),
        lambda u: np.einsum("kij,ki->kj", batch, u),
        rng.standard_normal((5, 4)),
        max_iter=2000,
        tol=1e-14,
    )
    np.testing.assert_allclose(norms, np.linalg.norm(batch, 2, axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)


@given(MATRICES, st.integers(1, 4))
def test_power_iteration_stays_below(matrix, iterations):
    norms, _ = power_iteration(
        lambda v: v @ matrix.T,
        lambda u: u @ matrix,
        np.ones((1, matrix.shape[1])),
        max_iter=iterations,
    )
    assert norms[0] <= spectral_norm(matrix) * (1 + 1e-13)


@pytest.mark.parametrize("function", [spectral_norm, certified_spectral_norm])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[np.nan]], "finite"),
        ([[np.inf, 1.0]], "finite"),
        ([1.0, 2.0], "2 dimensions"),
        ([["a"]], "real numbers"),
        ([[1j]], "real numbers"),
    ],
)
def test_matrices_are_checked(function, matrix, message):
    with pytest.raises(InputError, match=message):
        function(matrix)


def test_other_refusals():
    with pytest.raises(InputError, match="max_iter"):
        power_iteration(lambda v: v, lambda v: v, np.ones((1, 1)), max_iter=0)
    with pytest.raises(InputError, match="cannot be bounded"):
        gamma(2**53)


def test_a_wrong_factorisation_proves_nothing(monkeypatch):
    """The proof is of the residual, so even a broken LAPACK cannot make it accept."""
    indefinite = np.array([[1.0, 2.0], [2.0, 1.0]])
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: np.eye(len(matrix)))
    assert not proves_positive_semidefinite([indefinite])


def test_a_wrong_triangular_solve_proves_nothing(monkeypatch):
    monkeypatch.setattr(rounding, "solve_triangular", lambda factor, right, **_: 0.0 * right)
    link = [np.array([[1.0]])]
    for corner in (0.1, 5.0):
        diagonal = [np.array([[corner]]), np.array([[0.5 / corner]])]
        assert not proves_positive_semidefinite(diagonal, link)
