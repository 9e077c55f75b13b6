"""Spots on lattice points: the many-at-once loops against one spot at a time."""

from __future__ import annotations

import numpy as np
import pytest

from diffractory.patterns.lattice_points import MISSING, assign_points, count_explained, spot_columns

CURVATURE, S_MAX = 0.0098, 0.03
BASIS = np.array([[0.21, 0.03, 0.05], [-0.02, 0.24, 0.08], [0.01, -0.03, 0.19]])


def _spots(n: int, seed: int) -> np.ndarray:
    """Return room with spots near points of the lattice, and others anywhere."""
    generator = np.random.default_rng(seed)
    points = BASIS @ generator.integers(-5, 6, (3, 400 * n))
    seen = np.abs(points[2] - CURVATURE * (points[:2] ** 2).sum(axis=0)) < S_MAX
    near = points[:2, seen][:, :n] + generator.normal(0.0, 0.005, (2, n))
    xy = np.where(generator.random(n) < 0.5, near, generator.uniform(-1.2, 1.2, (2, n)))
    columns = spot_columns(n)
    columns[:2, :n], columns[2, :n] = xy, CURVATURE * (xy**2).sum(axis=0)
    return columns


def _nearest(spot: np.ndarray, tolerance: float) -> tuple[float, ...] | None:
    """Try every lattice point within reach, one by one."""
    best, found = np.inf, None
    for l in range(-12, 13):
        left = spot[:2] - l * BASIS[:2, 2]
        h, k = np.rint(np.linalg.solve(BASIS[:2, :2], left))
        off, s = left - BASIS[:2, :2] @ [h, k], BASIS[2] @ [h, k, l] - spot[2]
        both = off @ off / tolerance**2 + (s / S_MAX) ** 2
        if off @ off < tolerance**2 and abs(s) < S_MAX and both < best:
            best, found = both, (h, k, l, s)
    return found


@pytest.mark.parametrize("n", [1, 7, 8, 24, 25, 80])
@pytest.mark.parametrize("tolerance", [0.004, 0.03])
def test_every_spot_gets_the_point_it_would_get_alone(n: int, tolerance: float) -> None:
    columns = _spots(n, n)
    expected = [_nearest(columns[:3, spot], tolerance) for spot in range(n)]
    known = sum(point is not None for point in expected)
    assert assign_points(columns, n, BASIS, tolerance, S_MAX) == known
    assert count_explained(columns, n, BASIS, tolerance, S_MAX, 0.0) == known
    for spot, point in enumerate(expected):
        if point is None:
            assert columns[4, spot] == MISSING
        else:
            np.testing.assert_allclose(columns[4:8, spot], point, atol=1e-12)


def test_counting_gives_up_only_where_enough_is_out_of_reach() -> None:
    columns = _spots(80, 3)
    found = count_explained(columns, 80, BASIS, 0.012, S_MAX, 0.0)
    assert 10 < found < 70
    assert count_explained(columns, 80, BASIS, 0.012, S_MAX, float(found)) == found
    assert count_explained(columns, 80, BASIS, 0.012, S_MAX, found + 1.0) <= found
    assert count_explained(columns, 80, BASIS, 0.012, S_MAX, 81.0) == 0
