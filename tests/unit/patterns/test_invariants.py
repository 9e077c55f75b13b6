from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import DiffractoryError
from diffractory.patterns.feature_sets import compute_features, names_of_features, number_of_features
from diffractory.patterns.invariants import cells_of_system, invariant_features, invariant_names
from diffractory.patterns.lattice_groups import LATTICE_FAMILIES
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import feature_names, radial_basis
from diffractory.patterns.spot_lattice import find_spot_lattices
from diffractory.specs import InvariantSpec, RadialBasisSpec
from lattices import BRAVAIS, same_lattice, spots_of, table_of, turn_of, turned_reciprocal

SPEC = InvariantSpec()
NAMES = invariant_names(SPEC)
COLUMN = {name: index for index, name in enumerate(NAMES)}
#: The lattice's columns come first.
PROFILE, MAGNITUDES = COLUMN["profile_0"], COLUMN["magnitude_n0_m0"]
N = 40

SPECS = [
    SPEC,
    InvariantSpec(ring_width=0.1, n_rings=9, n_orders=4, profile_width=0.03),
    InvariantSpec(n_rings=1, n_orders=1),
]


def random_table(seed: int, counts: list[int]) -> PeakTable:
    generator = np.random.default_rng(seed)
    return table_of(
        [
            (
                np.concatenate([np.zeros((1, 2)), generator.uniform(-0.8, 0.8, (n, 2))]),
                generator.random(n + 1),
            )
            for n in counts
        ]
    )


@cache
def patterns(name: str) -> tuple[PeakTable, np.ndarray]:
    """Exact patterns of a lattice, and in which of them it is found."""
    true = [turned_reciprocal(BRAVAIS[name].primitive, seed) for seed in range(N)]
    table = table_of([spots_of(reciprocal, seed) for seed, reciprocal in enumerate(true)])
    found = find_spot_lattices(table, SPEC).reciprocal
    return table, np.array([same_lattice(*pair) for pair in zip(found, true, strict=True)])


def turned(table: PeakTable, angle: float) -> PeakTable:
    return PeakTable(table.q @ turn_of(angle)[:2, :2].T, table.intensity, table.offsets, table.direct)


def brightened(table: PeakTable, scale: float) -> PeakTable:
    return PeakTable(table.q, table.intensity * scale, table.offsets, table.direct)


@pytest.mark.parametrize("spec", SPECS)
def test_names_fit_the_columns(spec: InvariantSpec):
    names = invariant_names(spec)
    features = invariant_features(random_table(0, [30, 0, 2]), spec)
    assert features.dtype == np.float32
    assert features.shape == (3, len(names))
    assert len(set(names)) == len(names)
    assert names == names_of_features(spec)
    assert number_of_features(spec) == len(names)
    magnitudes = [name for name in names if name.startswith("magnitude")]
    assert (
        tuple(magnitudes)
        == feature_names(RadialBasisSpec(n_rings=spec.n_rings, n_orders=spec.n_orders))[: len(magnitudes)]
    )
    profile = [name for name in names if name.startswith("profile")]
    assert len(profile) * spec.profile_width >= spec.ring_width * (spec.n_rings - 1) - 1e-9


def test_a_model_can_rely_on_these_columns():
    assert len(NAMES) == 703
    assert NAMES[:4] == ("spots", "score", "explained_bright", "explained")
    for family in LATTICE_FAMILIES:
        assert {f"{family}_{name}" for name in ("log_residual", "log_across", "a", "b", "c", "cells")} <= set(
            NAMES
        )
    assert "log_residual_monoclinic_to_cubic" in NAMES


def test_feature_sets_are_behind_one_function():
    table, basis = random_table(1, [20, 5]), RadialBasisSpec(n_rings=5, n_orders=2)
    np.testing.assert_array_equal(compute_features(table, basis), radial_basis(table, basis))
    np.testing.assert_array_equal(compute_features(table, SPEC), invariant_features(table, SPEC))
    assert names_of_features(basis) == feature_names(basis)
    assert number_of_features(basis) == basis.n_features == 20


def test_nothing_to_see_gives_finite_features():
    table = PeakTable.from_lists(
        [np.empty((0, 2)), np.zeros((1, 2)), np.array([[0.0, 0.0], [0.3, 0.1]]), np.full((1, 2), 0.2)],
        [np.empty(0), np.array([0.7]), np.array([1.0, 0.0]), np.array([0.3])],
        [-1, 0, 0, -1],
    )
    features = invariant_features(table, SPEC)
    assert np.isfinite(features).all()
    assert features[:, COLUMN["spots"]].tolist() == [0.0, 1.0, 2.0, 1.0]
    assert not features[:3, PROFILE:].any()
    for column in ("score", "volume", "cubic_a", "reduced_a", "in_plane", "log_residual_cubic_to_hexagonal"):
        if column in COLUMN:
            assert not features[:, COLUMN[column]].any()
    # No fit is worse than any fit.
    assert (features[:, [COLUMN[f"{family}_log_residual"] for family in LATTICE_FAMILIES]] == 1.0).all()
    assert (invariant_features(patterns("cP")[0], SPEC)[:, COLUMN["cubic_log_residual"]] < 1.0).all()


def test_no_pattern_at_all_gives_no_rows():
    assert invariant_features(random_table(0, [3]).take([]), SPEC).shape == (0, len(NAMES))


def test_one_spot_by_hand():
    table = PeakTable.from_lists(
        [np.array([[0.0, 0.0], [0.09, 0.12], [0.0, 0.307]])], [np.array([9.0, 3.0, 1.0])], [0]
    )
    features = invariant_features(table, SPEC)[0]
    # Shares 3/4 at 0.15 Å⁻¹, half-way between bins 7 and 8, and 1/4 at 0.307 Å⁻¹, 0.35 of the way from 15.
    expected = np.zeros(MAGNITUDES - PROFILE)
    expected[[7, 8, 15, 16]] = 0.375, 0.375, 0.1625, 0.0875
    np.testing.assert_allclose(features[PROFILE:MAGNITUDES], expected, atol=1e-6)
    assert features[COLUMN["magnitude_n3_m0"]] == pytest.approx(0.75)
    assert features[COLUMN["magnitude_n3_m7"]] == pytest.approx(0.75)
    assert features[COLUMN["magnitude_n6_m0"]] == pytest.approx(0.25 * 0.86)


def test_the_profile_ends_where_the_rings_end():
    table = PeakTable.from_lists(
        [np.array([[0.0, 0.0], [1.999, 0.0], [2.0001, 0.0], [7.0, 0.0]])], [np.full(4, 1.0)], [0]
    )
    profile = invariant_features(table, SPEC)[0, PROFILE:MAGNITUDES]
    assert len(profile) == 100
    assert np.flatnonzero(profile).tolist() == [99]
    assert profile[99] == pytest.approx(0.05 / 3.0, abs=1e-6)


def with_direct_beam(table: PeakTable, intensity: float) -> PeakTable:
    values = table.intensity.copy()
    values[table.direct] = intensity
    return PeakTable(table.q, values, table.offsets, table.direct)


def test_a_saturated_direct_beam_changes_neither_profile_nor_magnitudes():
    table = random_table(3, [25, 40])
    before = invariant_features(table, SPEC)
    after = invariant_features(with_direct_beam(table, 50.0), SPEC)
    np.testing.assert_array_equal(after[:, PROFILE:], before[:, PROFILE:])


def test_a_saturated_direct_beam_changes_nothing_of_the_lattice():
    table = patterns("oP")[0]
    before = invariant_features(with_direct_beam(table, 0.1), SPEC)
    after = invariant_features(with_direct_beam(table, 50.0), SPEC)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(-7.0, 7.0))
def test_a_turn_changes_neither_profile_nor_magnitudes(seed: int, angle: float):
    table = random_table(seed, [25, 1, 0, 60])
    before, after = (invariant_features(peaks, SPEC) for peaks in (table, turned(table, angle)))
    np.testing.assert_allclose(after[:, PROFILE:], before[:, PROFILE:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-9, 1e9))
def test_the_intensity_scale_changes_neither_profile_nor_magnitudes(seed: int, scale: float):
    table = random_table(seed, [25, 1, 0, 60])
    before, after = (invariant_features(peaks, SPEC) for peaks in (table, brightened(table, scale)))
    np.testing.assert_allclose(after[:, PROFILE:], before[:, PROFILE:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["cP", "tP", "hP", "oI", "mP"])
def test_neither_changes_the_lattice_of_a_pattern_that_is_read_well(name: str):
    table, good = patterns(name)
    before = invariant_features(table, SPEC)
    for other in (turned(table, 0.7), turned(table, 2.9), brightened(table, 4e4)):
        after = invariant_features(other, SPEC)
        same = np.isclose(after[:, :PROFILE], before[:, :PROFILE], rtol=1e-3, atol=1e-3).all(axis=1)
        # The misfit of exact positions is rounding, and floored: it is the same too.
        assert same[good].mean() >= 0.95


@given(seed=st.integers(0, 2**32 - 1))
def test_shares_of_scattered_intensity_add_up_to_one(seed: int):
    features = invariant_features(random_table(seed, [30]), SPEC)
    assert features[0, PROFILE:MAGNITUDES].sum() == pytest.approx(1.0, abs=1e-4)
    rings = [COLUMN[f"magnitude_n{ring}_m0"] for ring in range(SPEC.n_rings)]
    assert features[0, rings].sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_intensities_that_are_not_finite_are_refused(value: float):
    table = random_table(0, [3, 4])
    table.intensity[6] = value
    with pytest.raises(DiffractoryError, match=r"peak 2 of pattern 1 .* finite positions"):
        invariant_features(table, SPEC)


def test_infinite_intensities_are_refused():
    table = random_table(0, [3, 4])
    table.intensity[6] = np.inf
    with pytest.raises(DiffractoryError, match=r"peak 2 of pattern 1 .* intensity inf.* finite positions"):
        invariant_features(table, SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(value: float):
    table = random_table(0, [3, 4])
    table.q[6, 1] = value
    with pytest.raises(DiffractoryError, match=r"peak 2 of pattern 1 .* finite positions"):
        compute_features(table, SPEC)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("cP", "cubic"),
        ("cF", "cubic"),
        ("tP", "tetragonal"),
        ("tI", "tetragonal"),
        ("hP", "hexagonal"),
        ("hP", "trigonal"),
        ("hR", "trigonal"),
        ("oP", "orthorhombic"),
        ("mP", "monoclinic"),
    ],
)
def test_the_cell_of_the_right_system_is_read_within_some_per_cent(name: str, system: str):
    table, good = patterns(name)
    cells = cells_of_system(invariant_features(table, SPEC), system, SPEC)
    assert cells.shape == (N, 3)
    assert cells.dtype == np.float64
    off = np.abs(cells[good] / np.array(BRAVAIS[name].lattice.abc) - 1.0).max(axis=1)
    assert np.median(off) < 0.02
    assert np.mean(off < 0.05) > 0.8


def by_hand(**values: float) -> np.ndarray:
    """Features of one pattern: zero but for those named."""
    features = np.zeros((1, len(NAMES)), dtype=np.float32)
    for name, value in values.items():
        features[0, COLUMN[name]] = value
    return features


def cell(prefix: str, a: float, b: float, c: float) -> dict[str, float]:
    return {f"{prefix}_a": a, f"{prefix}_b": b, f"{prefix}_c": c}


def test_each_system_has_its_own_cell():
    features = by_hand(**cell("cubic", 4, 4, 4), **cell("tetragonal", 5, 5, 6), **cell("reduced", 1, 2, 3))
    assert cells_of_system(features, "cubic", SPEC).tolist() == [[4.0, 4.0, 4.0]]
    assert cells_of_system(features, "tetragonal", SPEC).tolist() == [[5.0, 5.0, 6.0]]
    assert cells_of_system(features, "triclinic", SPEC).tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("excess", "expected"), [(-2.0, "hexagonal"), (0.0, "hexagonal"), (0.5, "rhombohedral")]
)
def test_a_trigonal_cell_is_hexagonal_where_that_fits_as_well(excess: float, expected: str):
    cells = {"hexagonal": (3.0, 3.0, 5.0), "rhombohedral": (4.0, 4.0, 13.0)}
    features = by_hand(
        **cell("hexagonal", *cells["hexagonal"]),
        **cell("rhombohedral", *cells["rhombohedral"]),
        log_residual_rhombohedral_to_hexagonal=excess,
    )
    assert cells_of_system(features, "trigonal", SPEC).tolist() == [list(cells[expected])]


def test_without_a_lattice_no_system_has_a_cell():
    features = invariant_features(table_of([(np.zeros((1, 2)), np.ones(1))]), SPEC)
    for system in ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic"):
        assert np.isnan(cells_of_system(features, system, SPEC)).all()
