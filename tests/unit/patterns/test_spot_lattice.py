from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import DiffractoryError
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices, explained_spots, find_spot_lattices
from diffractory.specs import InvariantSpec
from diffractory.units import electron_wavelength
from lattices import BRAVAIS, same_lattice, spots_of, table_of, turn_of, turned_reciprocal

SPEC = InvariantSpec(s_max=0.07)  # spots of the tests are up to 0.05 Å⁻¹ off the Ewald sphere
N = 100
#: Shares of random orientations in which the lattice is found, with exact positions and with 0.004 Å⁻¹ noise.
SHARES = {
    "aP": (0.88, 0.89),
    "mP": (0.96, 0.92),
    "mC": (0.96, 0.95),
    "oP": (0.94, 0.93),
    "oC": (0.92, 0.88),
    "oI": (0.90, 0.90),
    "oF": (0.92, 0.90),
    "tP": (0.92, 0.90),
    "tI": (0.93, 0.92),
    "hR": (0.91, 0.91),
    "hP": (0.90, 0.91),
    "cP": (0.89, 0.89),
    "cI": (0.82, 0.84),
    "cF": (0.79, 0.79),
}
MARGIN = 0.08


def truth(name: str) -> np.ndarray:
    return np.array([turned_reciprocal(BRAVAIS[name].primitive, seed) for seed in range(N)])


@cache
def table(name: str, noise: float) -> PeakTable:
    return table_of([spots_of(reciprocal, seed, noise) for seed, reciprocal in enumerate(truth(name))])


def right(found: SpotLattices, true: np.ndarray) -> np.ndarray:
    return np.array([same_lattice(*pair) for pair in zip(found.reciprocal, true, strict=True)])


def volumes(reciprocal: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.det(reciprocal))


def arrays_of(found: SpotLattices) -> dict[str, np.ndarray]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def assert_nothing_found(found: SpotLattices, *, plane: bool = False) -> None:
    for name, array in arrays_of(found).items():
        if not (plane and name in ("plane", "in_plane")):
            assert not array.any(), name


@pytest.mark.parametrize("name", BRAVAIS)
def test_the_lattice_of_exact_spots_is_found_exactly_across_the_beam(name: str):
    true, found = truth(name), find_spot_lattices(table(name, 0.0), SPEC)
    good = right(found, true)
    assert good.mean() >= SHARES[name][0] - MARGIN
    whole = np.rint(np.linalg.solve(true, found.reciprocal))
    np.testing.assert_allclose((found.reciprocal - true @ whole)[good, :2], 0.0, atol=1e-10)
    ratio = volumes(found.reciprocal[good]) / volumes(true[good])
    # Along the beam the lattice is known to a few per cent at best, but it is not pulled to one side.
    assert 0.9 < np.median(ratio) < 1.1
    assert np.mean((ratio > 0.6) & (ratio < 1.6)) > 0.9
    assert found.misfit[good].max() < 1e-10
    assert np.median(found.explained_bright[good]) > 0.97
    assert np.median(found.explained[good]) > 0.97


@pytest.mark.parametrize("name", BRAVAIS)
def test_most_lattices_are_found_under_noise(name: str):
    true, found = truth(name), find_spot_lattices(table(name, 0.004), SPEC)
    good = right(found, true)
    assert good.mean() >= SHARES[name][1] - MARGIN
    assert 0.9 < np.median(volumes(found.reciprocal[good]) / volumes(true[good])) < 1.1
    # 0.004 Å⁻¹ in each of two coordinates.
    assert np.median(found.misfit[good]) == pytest.approx(0.004 * np.sqrt(2.0), rel=0.15)
    assert np.median(found.explained_bright[good]) > 0.95


@pytest.mark.parametrize("name", ["aP", "cF"])
def test_what_is_found_describes_itself(name: str):
    found = find_spot_lattices(table(name, 0.004), SPEC)
    for array in arrays_of(found).values():
        assert np.isfinite(array).all()
    assert (found.score > 0.0).all()
    assert set(found.tolerance) <= set(SPEC.tolerances)
    for share in (found.explained, found.explained_bright, found.in_plane, found.plane[:, 2]):
        assert ((share >= 0.0) & (share <= 1.0)).all()
    assert (found.misfit <= found.tolerance).all()
    assert (found.excitation <= SPEC.s_max).all()
    assert (found.plane[:, 0] <= found.plane[:, 1]).all()
    assert (found.plane[:, 2] <= 0.5 + 1e-9).all()
    assert ((1.0 / volumes(found.reciprocal) > 6.0) & (1.0 / volumes(found.reciprocal) < 3000.0)).all()


@given(exponent=st.integers(-60, 60), seed=st.integers(0, N - 1))
def test_twice_the_intensity_changes_no_bit(exponent: int, seed: int):
    one = table("mP", 0.004).take([seed])
    scaled = PeakTable(one.q, one.intensity * 2.0**exponent, one.offsets, one.direct)
    first, second = arrays_of(find_spot_lattices(one, SPEC)), arrays_of(find_spot_lattices(scaled, SPEC))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)


@pytest.mark.parametrize("scale", [3e-7, 1.7, 5e5])
def test_the_intensity_scale_does_not_matter(scale: float):
    known = table("oI", 0.004)
    scaled = PeakTable(known.q, known.intensity * scale, known.offsets, known.direct)
    first, second = find_spot_lattices(known, SPEC), find_spot_lattices(scaled, SPEC)
    np.testing.assert_allclose(second.score, first.score, rtol=1e-9)
    np.testing.assert_allclose(volumes(second.reciprocal), volumes(first.reciprocal), rtol=1e-8)


def test_the_order_of_the_spots_does_not_matter():
    known, generator = table("tP", 0.004), np.random.default_rng(0)
    patterns = []
    for index in range(N):
        q, intensity = known.pattern(index)
        order = np.concatenate([[0], 1 + generator.permutation(len(q) - 1)])
        patterns.append((q[order], intensity[order]))
    first, second = find_spot_lattices(known, SPEC), find_spot_lattices(table_of(patterns), SPEC)
    np.testing.assert_allclose(second.score, first.score, rtol=1e-9)
    np.testing.assert_allclose(volumes(second.reciprocal), volumes(first.reciprocal), rtol=1e-8)


def test_patterns_stand_for_themselves():
    known = table("hP", 0.004)
    whole, some = find_spot_lattices(known, SPEC), find_spot_lattices(known.take([7, 2]), SPEC)
    for name, array in arrays_of(some).items():
        np.testing.assert_array_equal(array, arrays_of(whole)[name][[7, 2]], err_msg=name)


def test_the_direct_beam_is_told_by_where_it_is():
    known = table("oP", 0.004)
    found = find_spot_lattices(known, SPEC)
    unmarked = find_spot_lattices(PeakTable(known.q, known.intensity, known.offsets, np.full(N, -1)), SPEC)
    brighter = PeakTable(known.q, known.intensity.copy(), known.offsets, known.direct)
    brighter.intensity[known.direct] = 1e-3
    np.testing.assert_array_equal(unmarked.reciprocal, found.reciprocal)
    np.testing.assert_array_equal(find_spot_lattices(brighter, SPEC).score, found.score)


@pytest.mark.parametrize("name", ["oP", "cP"])
def test_a_turned_pattern_has_a_turned_lattice(name: str):
    angles = np.random.default_rng(1).uniform(0.0, 2.0 * np.pi, N)
    known = table(name, 0.0)
    turned = table_of(
        [
            (known.pattern(index)[0] @ turn_of(angle)[:2, :2].T, known.pattern(index)[1])
            for index, angle in enumerate(angles)
        ]
    )
    first, second = find_spot_lattices(known, SPEC), find_spot_lattices(turned, SPEC)
    good = right(first, truth(name))
    again = right(second, np.array([turn_of(angle) for angle in angles]) @ truth(name))
    assert np.mean(again[good]) > 0.97
    both = good & again
    np.testing.assert_allclose(second.score[both], first.score[both], rtol=1e-6)
    np.testing.assert_allclose(volumes(second.reciprocal[both]), volumes(first.reciprocal[both]), rtol=1e-6)
    np.testing.assert_allclose(second.plane[both], first.plane[both], atol=1e-9)


def test_a_row_of_spots_along_x_is_no_worse_than_another():
    known = table("oP", 0.002)
    aligned, turned = [], []
    for index, reciprocal in enumerate(truth("oP")):
        x, y = reciprocal[:2, np.argmin(np.abs(reciprocal[2]))]
        q, intensity = known.pattern(index)
        aligned.append((q @ turn_of(-np.arctan2(y, x))[:2, :2].T, intensity))
        turned.append((aligned[-1][0] @ turn_of(0.6)[:2, :2].T, intensity))
    first, second = find_spot_lattices(table_of(aligned), SPEC), find_spot_lattices(table_of(turned), SPEC)
    assert np.mean(np.abs(first.score - second.score) > 1e-6 * first.score) < 0.03


def test_a_pattern_without_enough_spots_gives_nothing():
    few = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.3], [0.2, 0.3]])
    for n in range(1, 5):
        assert_nothing_found(find_spot_lattices(table_of([(few[:n], np.ones(n))]), SPEC))
    empty = PeakTable.from_lists([np.empty((0, 2))], [np.empty(0)], [-1])
    assert_nothing_found(find_spot_lattices(empty, SPEC))
    assert find_spot_lattices(empty.take([]), SPEC).reciprocal.shape == (0, 3, 3)


def test_four_spots_of_a_plane_give_the_plane_alone():
    four = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.3], [0.2, 0.3], [-0.2, 0.0]])
    found = find_spot_lattices(table_of([(four, np.full(5, 0.1))]), SPEC)
    assert_nothing_found(found, plane=True)
    np.testing.assert_allclose(found.plane, [[0.2, 0.3, 0.0]], atol=1e-12)
    assert found.in_plane.tolist() == [1.0]


@pytest.mark.parametrize("direction", [(0.2, 0.0), (0.0, 0.2), (0.11, 0.17)])
def test_spots_on_a_line_give_nothing(direction: tuple[float, float]):
    line = np.arange(-5, 6)[:, None] * np.array(direction)
    strength = np.exp(-np.abs(np.arange(-5, 6.0)))
    assert_nothing_found(find_spot_lattices(PeakTable.from_lists([line], [strength], [5]), SPEC))


def test_spots_in_one_place_or_without_intensity_give_nothing():
    q, intensity = spots_of(truth("cP")[0], 0)
    for pattern in (
        table_of([(np.full((50, 2), 0.3), np.ones(50))]),
        table_of([(q, np.zeros(len(q)))]),
        table_of([(q, -intensity)]),
        table_of([(q * 1e-3, intensity)]),
        table_of([(q * 1e10, intensity)]),
    ):
        assert_nothing_found(find_spot_lattices(pattern, SPEC))


def test_one_zone_seen_along_its_axis_gives_its_plane():
    rows = np.stack(np.meshgrid(np.arange(-5, 6), np.arange(-5, 6)), axis=-1).reshape(-1, 2)
    for a, b, cosine in ((0.25, 0.25, 0.0), (0.2, 0.27, 0.0), (0.25, 0.25, 0.5)):
        q = rows @ np.array([[a, 0.0], [cosine * b, np.sqrt(1.0 - cosine**2) * b]])
        found = find_spot_lattices(PeakTable.from_lists([q], [np.exp(-(q**2).sum(axis=1))], [60]), SPEC)
        for array in arrays_of(found).values():
            assert np.isfinite(array).all()
        np.testing.assert_allclose(found.plane, [[a, b, cosine]], atol=1e-9)
        assert found.in_plane.tolist() == [1.0]


def test_spots_at_random_explain_themselves_badly():
    generator = np.random.default_rng(5)
    patterns = [(generator.uniform(-1.0, 1.0, (60, 2)), generator.random(60)) for _ in range(40)]
    found = find_spot_lattices(table_of(patterns), SPEC)
    for array in arrays_of(found).values():
        assert np.isfinite(array).all()
    assert np.median(found.score) < 0.5 * np.median(find_spot_lattices(table("aP", 0.004), SPEC).score)
    assert found.in_plane.max() < 0.7


def test_the_energy_sets_the_scale_along_the_beam():
    true, known = truth("tP"), table("tP", 0.0)
    found, other = (
        find_spot_lattices(known, SPEC),
        find_spot_lattices(known, SPEC.model_copy(update={"energy_ev": 200e3})),
    )
    both = right(found, true) & (np.abs(volumes(other.reciprocal) / volumes(found.reciprocal) - 1.25) < 0.25)
    assert np.mean(both) > 0.7
    ratio = volumes(other.reciprocal[both]) / volumes(found.reciprocal[both])
    expected = electron_wavelength(200e3) / electron_wavelength(300e3)
    assert np.median(ratio) == pytest.approx(expected, rel=0.03)


def test_lattices_of_other_patterns_are_refused():
    table = PeakTable.from_lists([np.zeros((1, 2))] * 3, [np.ones(1)] * 3, [0, 0, 0])
    lattices = find_spot_lattices(table.take([0, 1]), SPEC)
    with pytest.raises(DiffractoryError, match="2 lattices of 3 patterns"):
        explained_spots(table, lattices, SPEC)
