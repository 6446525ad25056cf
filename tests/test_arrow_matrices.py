"""Sparse matrices in blocks with a border: factors and proofs against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from harmonicvae import arrow_matrices
from harmonicvae.arrow_matrices import (
    ArrowFactor,
    ArrowForm,
    ArrowMatrix,
    proves_sparse_semidefinite,
)
from harmonicvae.exceptions import InputError, SolverError

SIZES = {
    "seed": st.integers(0, 10_000),
    "size": st.integers(1, 70),
    "width": st.integers(0, 6),
    "border": st.integers(0, 4),
    "block": st.sampled_from([1, 3, 8, 96]),
}


def random_matrix(seed, size, width, border):
    """A random symmetric band with a few full rows, all rows in random order."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((size, size))
    for k in range(min(width, size - 1) + 1):
        entries = rng.standard_normal(size - k) * (rng.random(size - k) < 0.8)
        matrix += np.diag(entries, k) + np.diag(entries, -k)
    for row in rng.choice(size, min(border, size), replace=False):
        matrix[row] = matrix[:, row] = rng.standard_normal(size)
    order = rng.permutation(size)
    return matrix[np.ix_(order, order)] / max(1.0, np.abs(matrix).max())


@given(**SIZES)
@settings(max_examples=150, deadline=None)
def test_proved_are_the_definite_ones(seed, size, width, border, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_matrices, "_SMALLEST_BLOCK", block)
        matrix = random_matrix(seed, size, width, border)
        lowest = np.linalg.eigvalsh(matrix)[0]
        for distance, proved in ((1e-10, True), (-1e-13, False), (-1e-3, False)):
            shifted = csr_array(matrix + (distance - lowest) * np.eye(size))
            assert proves_sparse_semidefinite(ArrowMatrix.of(shifted)) == proved
        shifted = ArrowMatrix.of(csr_array(matrix + (1e-6 - lowest) * np.eye(size)))
        assert proves_sparse_semidefinite(shifted, 0.9e-6)
        assert not proves_sparse_semidefinite(shifted, 1.1e-6)


@given(**SIZES)
@settings(max_examples=100, deadline=None)
def test_factors_solve(seed, size, width, border, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_matrices, "_SMALLEST_BLOCK", block)
        matrix = random_matrix(seed, size, width, border)
        matrix += (0.1 - np.linalg.eigvalsh(matrix)[0]) * np.eye(size)
        factor = ArrowFactor.of(ArrowMatrix.of(csr_array(matrix)))
        right = np.random.default_rng(seed).standard_normal((size, 3))
        wanted = np.linalg.solve(matrix, right)
        np.testing.assert_allclose(factor.solve(right), wanted, atol=1e-9)
        half = factor.half(right)
        np.testing.assert_allclose(half.T @ half, right.T @ wanted, atol=1e-9)
        negative = csr_array(matrix - 20.0 * np.eye(size))
        with pytest.raises(SolverError, match="broke down"):
            ArrowFactor.of(ArrowMatrix.of(negative))


def test_full_rows_become_the_border():
    matrix = random_matrix(0, 2000, 2, 3)
    form = ArrowForm.of(csr_array(matrix))
    assert form.border == 3
    assert sum(form.sizes) == 1997
    assert max(form.sizes) <= 100
    assert sorted(form.order) == list(range(2000))
    without = ArrowForm.of(csr_array(random_matrix(0, 2000, 2, 0)))
    assert without.border == 0
    assert form.bytes < 2 * without.bytes


def test_a_singular_matrix_is_not_proved():
    """The Laplacian of a cycle, which maps constants to 0 exactly."""
    cycle = np.roll(np.eye(400), 1, axis=0)
    laplacian = csr_array(2.0 * np.eye(400) - cycle - cycle.T)
    assert not proves_sparse_semidefinite(ArrowMatrix.of(laplacian))
    lifted = csr_array(laplacian + 1e-9 * np.eye(400))
    assert proves_sparse_semidefinite(ArrowMatrix.of(lifted))


def test_entries_outside_the_blocks_are_refused():
    band = csr_array(random_matrix(0, 400, 1, 0))
    form = ArrowForm.of(band)
    far = band.toarray()
    far[form.order[0], form.order[-1]] = far[form.order[-1], form.order[0]] = 1.0
    with pytest.raises(InputError, match="outside"):
        ArrowMatrix(csr_array(far), form)


def test_too_large_ones_are_left_alone(monkeypatch):
    matrix = ArrowMatrix.of(csr_array(np.eye(5)))
    assert proves_sparse_semidefinite(matrix)
    monkeypatch.setattr(arrow_matrices, "_MOST_BYTES", 10)
    assert not proves_sparse_semidefinite(matrix)
    with pytest.raises(SolverError, match="5 rows"):
        ArrowFactor.of(matrix)


def test_numbers_that_are_not_finite_prove_nothing():
    for value in (np.nan, np.inf):
        matrix = np.eye(5)
        matrix[2, 2] = value
        with np.errstate(invalid="ignore"):
            assert not proves_sparse_semidefinite(ArrowMatrix.of(csr_array(matrix)))
