from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from diffractory.patterns.lattice_symmetry import _is_metric
from diffractory.patterns.linear_equations import solve_beside, solve_small


def systems(size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Equations of many scales, every fifth of them singular, every seventh in need of another pivot."""
    generator = np.random.default_rng(size)
    scale = 10.0 ** generator.uniform(-4.0, 4.0, n)
    matrices, rights = generator.normal(size=(size, size, n)) * scale, generator.normal(size=(size, n))
    matrices[0, 0, ::7] = 0.0
    matrices[size - 1, :, ::5] = matrices[0, :, ::5]
    return matrices, rights


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_equations_side_by_side_have_the_same_solutions_to_the_last_bit(size: int) -> None:
    matrices, rights = systems(size, 331)
    wanted, solved = np.full_like(rights, np.nan), 0
    for index in range(rights.shape[1]):
        matrix = matrices[..., index].copy()
        right = rights[:, index, None].copy()
        if solve_small(matrix, right, size):
            wanted[:, index], solved = right[:, 0], solved + 1
    solve_beside(matrices, rights)
    np.testing.assert_array_equal(
        rights.view(np.int64)[~np.isnan(rights)], wanted.view(np.int64)[~np.isnan(wanted)]
    )
    np.testing.assert_array_equal(np.isnan(rights), np.isnan(wanted))
    assert 200 < solved <= 331


def test_solutions_solve_their_equations() -> None:
    matrices, rights = systems(4, 100)
    found = rights.copy()
    solve_beside(matrices.copy(), found)
    left = np.einsum("ijn,jn->in", matrices, found) - rights
    assert np.abs(left)[:, ~np.isnan(found[0])].max() < 1e-9


@njit
def _determinant_by_lapack(matrix: np.ndarray) -> float:
    # Compiled, as what is tested: NumPy and SciPy bring libraries of their own, which may round differently.
    return np.linalg.det(matrix)


def test_a_metric_is_one_where_lapack_says_so() -> None:
    generator = np.random.default_rng(0)
    told = []
    for spread in 10.0 ** generator.uniform(-9.0, 0.0, 4000):
        # Three vectors nearly in a plane, and a rounding this way or that.
        vectors = generator.normal(size=(3, 3)) * [1.0, 1.0, spread]
        metric = vectors @ vectors.T
        metric += metric * generator.uniform(-1e-15, 1e-15)
        metric[0, 1] = metric[1, 0] = metric[0, 1] * (1.0 + generator.uniform(-3e-16, 3e-16))
        metric *= 10.0 ** generator.uniform(-3.0, 3.0)
        told.append(_is_metric(metric))
        assert told[-1] == (_determinant_by_lapack(metric) > 0.0)
    assert 0 < sum(told) < len(told)


@pytest.mark.parametrize(
    "diagonal", [(-1.0, 1.0, -1.0), (1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (1.0, 0.0, 1.0)]
)
def test_a_length_that_is_not_positive_makes_no_metric(diagonal: tuple[float, ...]) -> None:
    assert not _is_metric(np.diag(diagonal))
