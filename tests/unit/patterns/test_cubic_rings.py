"""Radii of spots against the rings of cubic lattices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.patterns.cubic_rings import (
    CENTRINGS,
    ConstantGrid,
    allowed_numbers,
    count_radii,
    judge_rings,
    share_on_rings,
)
from diffractory.patterns.peak_table import PeakTable

GRID = ConstantGrid(2.0, 1000, 0.002)


def spots_at(radius, seed=0):
    """One pattern with spots at these radii in any directions, behind a direct beam."""
    angle = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, len(radius))
    q = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return PeakTable.from_lists([np.concatenate([np.full((1, 2), 0.3), q])], [np.ones(len(q) + 1)], [0])


def rings(a, centring, farthest=1.5):
    return np.sqrt(allowed_numbers(centring, int((farthest * a) ** 2))) / a


def test_numbers_of_reflections_are_the_known_ones():
    assert allowed_numbers("P", 9).tolist() == [1, 2, 3, 4, 5, 6, 8, 9]
    assert allowed_numbers("I", 12).tolist() == [2, 4, 6, 8, 10, 12]
    assert allowed_numbers("F", 20).tolist() == [3, 4, 8, 11, 12, 16, 19, 20]
    # By the theorem of three squares.
    never = [n for n in range(1, 500) if n not in set(allowed_numbers("P", 500).tolist())]
    assert never == [n for n in range(1, 500) if _is_seven(n)]


def _is_seven(n):
    while n % 4 == 0:
        n //= 4
    return n % 8 == 7


def test_radii_are_counted_and_direct_beams_left_out():
    counts = count_radii(spots_at(np.array([0.5, 0.5, 1.0, 0.01, 1.7])), GRID)
    assert counts.sum() == 3.0
    (half, one) = np.flatnonzero(counts)
    assert counts[half] == 2.0
    # Their vectors lie a little off the plane, and are longer.
    assert (one - half) * GRID.step == pytest.approx(np.log(2.0), abs=2.0 * GRID.step)
    assert count_radii(PeakTable.from_lists([], [], []), GRID).sum() == 0.0


@pytest.mark.parametrize("centring", CENTRINGS)
@given(a=st.floats(2.5, 12.0), seed=st.integers(0, 1000))
def test_the_true_constant_and_centring_are_the_likeliest(centring, a, seed):
    generator = np.random.default_rng(seed)
    on = rings(a, centring)
    radius = np.concatenate(
        [np.tile(on, 4) * generator.normal(1.0, 0.002, 4 * len(on)), generator.uniform(0.1, 1.5, len(on))]
    )
    found = judge_rings(count_radii(spots_at(radius, seed), GRID), GRID)
    assert GRID.constants[found.max(axis=0).argmax()] == pytest.approx(a, rel=0.004)
    best = int(np.abs(GRID.constants / a - 1.0).argmin())
    assert CENTRINGS[int(found[:, best - 1 : best + 2].max(axis=1).argmax())] == centring


def test_spots_off_the_detectors_plane_do_not_pull():
    """Vectors of 4.2 Å's rings, each tilted out of the plane as spots near the Ewald sphere are."""
    generator = np.random.default_rng(4)
    length = generator.choice(rings(4.2, "F"), 3000)
    height = np.clip(generator.normal(0.0, 0.02, 3000), -0.06, 0.06)
    found = judge_rings(count_radii(spots_at(np.sqrt(length**2 - height**2)), GRID), GRID).max(axis=0)
    near = np.abs(GRID.constants / 4.2 - 1.0) < 0.01
    weights = np.exp(found[near] - found.max())
    assert np.average(GRID.constants[near], weights=weights) == pytest.approx(4.2, rel=7e-4)


def test_a_change_of_scale_changes_the_constant_alone():
    first = np.zeros(GRID.n_radii)
    first[np.random.default_rng(0).integers(700, 1200, 200)] = 1.0
    moved = np.roll(first, 100)
    np.testing.assert_allclose(
        judge_rings(moved, GRID)[:, :-100], judge_rings(first, GRID)[:, 100:], rtol=1e-6, atol=1e-6
    )


def test_spots_anywhere_lie_on_rings_by_chance():
    counts = count_radii(
        spots_at(np.exp(np.random.default_rng(2).uniform(np.log(0.3), np.log(1.5), 20_000))), GRID
    )
    for centring in CENTRINGS:
        on, chance = share_on_rings(counts, GRID, 4.0, centring)
        assert on == pytest.approx(chance, abs=0.01)
        assert 0.1 < chance < 0.9
    assert judge_rings(counts, GRID).max() < 0.02 * counts.sum()
    exact = count_radii(spots_at(rings(4.0, "F")), GRID)
    assert share_on_rings(exact, GRID, 4.0, "F")[0] == 1.0
    assert share_on_rings(exact, GRID, 4.1, "F")[0] < 0.5
    assert np.isnan(share_on_rings(np.zeros(GRID.n_radii), GRID, 4.0, "P")).all()
