from functools import cache

import numpy as np
import pytest

from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import explained_spots, find_spot_lattices
from diffractory.scan.mapping.overlap import find_overlaps
from diffractory.specs import InvariantSpec
from lattices import BRAVAIS, spots_of, table_of, turned_reciprocal

#: Spots of these patterns lie up to 0.05 Å⁻¹ off the Ewald sphere and scatter by 0.004 Å⁻¹.
SPEC = InvariantSpec(tolerances=(0.004, 0.012), s_max=0.07)
NAMES = ("mP", "oP", "oI", "tI", "hP", "hR", "cP", "cF")
EACH = 10


@cache
def single() -> list:
    return [
        spots_of(turned_reciprocal(BRAVAIS[name].primitive, 31 * index + seed), seed, 0.004, 1.5)
        for index, name in enumerate(NAMES)
        for seed in range(EACH)
    ]


def overlapped(first, second, share):
    """Both patterns over each other; spots that a detector cannot tell apart become one."""
    q = np.concatenate([first[0], second[0][1:]])
    intensity = np.concatenate([(1.0 - share) * first[1], share * second[1][1:]])
    order = np.argsort(-intensity, kind="stable")
    kept = [order[0]]
    for spot in order[1:]:
        if np.hypot(*(q[kept] - q[spot]).T).min() > 0.02:
            kept.append(spot)
    return q[kept], intensity[kept]


def mixed(share, distance):
    patterns = single()
    return table_of([
        overlapped(pattern, patterns[(index + distance) % len(patterns)], share)
        for index, pattern in enumerate(patterns)
    ])  # fmt: skip


def flagged(table: PeakTable) -> np.ndarray:
    return find_overlaps(table, find_spot_lattices(table, SPEC), SPEC)


def test_single_grains_are_left_alone():
    assert flagged(table_of(single())).mean() <= 0.03


@pytest.mark.parametrize("distance", [1, 3 * EACH + 1])
@pytest.mark.parametrize(("share", "least"), [(0.5, 0.85), (0.3, 0.8)])
def test_most_overlaps_are_found(share, least, distance):
    """At a distance of one the other grain is the same crystal, turned."""
    assert flagged(mixed(share, distance)).mean() >= least


def test_false_spots_are_no_second_grain():
    generator = np.random.default_rng(0)
    patterns = []
    for q, intensity in single():
        n = len(q) // 5
        false = generator.uniform(-1.5, 1.5, (n, 2))
        patterns.append(
            (np.concatenate([q, false]), np.append(intensity, generator.choice(intensity[1:], n)))
        )
    assert flagged(table_of(patterns)).mean() <= 0.03


def test_too_little_of_a_second_grain_is_none():
    few = [
        (np.concatenate([a[0], b[0][1:5]]), np.append(a[1], b[1][1:5]))
        for a, b in zip(single(), single()[1:], strict=False)
    ]
    assert not flagged(table_of(few)).any()


def test_blocks_change_nothing_and_nothing_is_no_overlap():
    table = mixed(0.5, 1)
    whole, lattices = flagged(table), find_spot_lattices(table, SPEC)
    for start in (0, 5):
        rows = np.arange(start, start + 3)
        np.testing.assert_array_equal(find_overlaps(table.take(rows), lattices.take(rows), SPEC), whole[rows])
    empty = table.take(np.empty(0, int))
    assert find_overlaps(empty, find_spot_lattices(empty, SPEC), SPEC).shape == (0,)
    vacuum = table_of([(np.zeros((1, 2)), np.ones(1))] * 2)
    assert flagged(vacuum).tolist() == [False, False]


def test_explained_spots_are_those_on_the_lattice():
    q, intensity = spots_of(turned_reciprocal(BRAVAIS["oP"].primitive, 4), 4)
    false = np.array([[0.9, 0.31], [-0.77, 0.53]])
    table = table_of(
        [(np.concatenate([q, false]), np.append(intensity, [1e-3, 1e-3])), (q[:2], intensity[:2])]
    )
    lattices = find_spot_lattices(table, SPEC)
    explained = explained_spots(table, lattices, SPEC)
    assert lattices.score[0] > 0.0
    assert explained.sum() == pytest.approx(lattices.explained[0] * (len(q) + 2))
    assert explained[: len(q)].mean() > 0.95
    assert not explained[table.offsets[1] :].any()
