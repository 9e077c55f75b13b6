from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.patterns.lattice_group_search import write_groups
from diffractory.patterns.lattice_groups import LATTICE_FAMILIES, LatticeGroups, lattice_groups
from diffractory.patterns.lattice_symmetry import FamilyFits, fit_families
from lattices import BRAVAIS, HAS, random_unimodular, turned_reciprocal

ORDER = np.array([2, 4, 8, 6, 12, 24])
SEEDS = range(60)
ROW, COLUMN = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)


def matrix_of(elements: np.ndarray) -> np.ndarray:
    """Six elements (…, 6) as symmetric matrices (…, 3, 3)."""
    matrices = np.zeros((*elements.shape[:-1], 3, 3))
    matrices[..., ROW, COLUMN] = matrices[..., COLUMN, ROW] = elements
    return matrices


def lattices(name: str, seeds: range | list[int] = SEEDS) -> np.ndarray:
    """The reciprocal lattice in random orientations, each in a random basis."""
    primitive = BRAVAIS[name].primitive
    return np.array([turned_reciprocal(random_unimodular(seed) @ primitive, seed) for seed in seeds])


def column(name: str) -> int:
    return LATTICE_FAMILIES.index(BRAVAIS[name].family)


def arrays_of(fits: FamilyFits) -> dict[str, np.ndarray]:
    return {name: getattr(fits, name) for name in fits.__dataclass_fields__}


def test_there_are_391_groups_of_reduced_lattices():
    groups = lattice_groups()
    counted = Counter(LATTICE_FAMILIES[code] for code in groups.family)
    assert counted == {
        "monoclinic": 81,
        "orthorhombic": 72,
        "tetragonal": 63,
        "rhombohedral": 136,
        "hexagonal": 6,
        "cubic": 33,
    }
    np.testing.assert_array_equal(groups.dimension, np.array([4, 3, 2, 2, 2, 1])[groups.family])
    assert lattice_groups() is groups


def test_the_file_holds_what_the_search_finds(tmp_path: Path):
    write_groups(tmp_path / "groups.npz")
    with np.load(tmp_path / "groups.npz") as found:
        arrays = LatticeGroups(**found)
    groups = lattice_groups()
    for name in ("family", "dimension", "axes", "two_folds"):
        np.testing.assert_array_equal(getattr(arrays, name), getattr(groups, name))
    # Another linear algebra library may choose another basis of the same metrics.
    spans = [np.swapaxes(metrics, 1, 2) @ metrics for metrics in (arrays.metrics, groups.metrics)]
    np.testing.assert_allclose(*spans, atol=1e-12)


def test_each_metric_is_left_alone_by_as_many_rotations_as_its_group_has():
    groups = lattice_groups()
    candidates = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    proper = candidates[np.rint(np.linalg.det(candidates)) == 1].astype(float)
    units = matrix_of(np.eye(6))
    moved = np.swapaxes(proper[:, None], -1, -2) @ units @ proper[:, None] - units
    change = np.swapaxes(moved[..., ROW, COLUMN], -1, -2)
    alone = np.array(
        [(np.abs(change @ metrics.T) < 1e-9).all(axis=(1, 2)).sum() for metrics in groups.metrics]
    )
    order = ORDER[groups.family]
    # Rhombohedral groups of hexagonal lattices leave the whole hexagonal metric alone: two in each of six.
    assert Counter((alone // order)[groups.family == 3].tolist()) == {1: 124, 2: 12}
    np.testing.assert_array_equal(alone[groups.family != 3], order[groups.family != 3])


def test_the_metrics_of_a_group_are_a_basis():
    groups = lattice_groups()
    for dimension, metrics in zip(groups.dimension, groups.metrics, strict=True):
        np.testing.assert_allclose(metrics[:dimension] @ metrics[:dimension].T, np.eye(dimension), atol=1e-12)
        assert not metrics[dimension:].any()


def test_the_axes_of_a_group_are_perpendicular_under_all_its_metrics():
    groups = lattice_groups()
    products = np.einsum("gai,gmij,gbj->gmab", groups.axes, matrix_of(groups.metrics), groups.axes)
    np.testing.assert_allclose(products[:, :, 0, 1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(products[groups.family == 1][:, :, 1, 2], 0.0, atol=1e-12)
    np.testing.assert_array_equal(groups.axes, np.rint(groups.axes))


@pytest.mark.parametrize("name", BRAVAIS)
def test_an_exact_lattice_fits_its_own_families_and_no_other(name: str):
    fits = fit_families(lattices(name))
    own = np.array([family in HAS[BRAVAIS[name].family] for family in LATTICE_FAMILIES])
    assert fits.residual.shape == (len(SEEDS), 6)
    assert (fits.residual[:, own] < 1e-6).all()
    assert (fits.residual[:, ~own] > 2e-3).all()
    assert (fits.residual_across <= fits.residual).all()


@pytest.mark.parametrize("name", [name for name in BRAVAIS if name != "aP"])
def test_the_conventional_cell_and_its_centring_come_back(name: str):
    fits, k = fit_families(lattices(name)), column(name)
    expected = np.tile(BRAVAIS[name].lattice.abc, (len(SEEDS), 1))
    np.testing.assert_allclose(fits.cell[:, k], expected, rtol=1e-6)
    np.testing.assert_allclose(fits.cells[:, k], BRAVAIS[name].cells, rtol=1e-6)


def test_of_the_rhombohedral_cells_of_a_hexagonal_lattice_the_smaller_counts():
    for stretch in (1.0, 1.04):
        reciprocal = lattices("hP")
        reciprocal[:, 2] *= stretch
        fits = fit_families(reciprocal)
        np.testing.assert_allclose(fits.cells[:, 3], 1.0, rtol=1e-6)
        np.testing.assert_allclose(fits.cell[:, 3], fits.cell[:, 4], rtol=0.05)


@pytest.mark.parametrize("name", ["mP", "mC"])
def test_the_monoclinic_angle_comes_back(name: str):
    fits = fit_families(lattices(name))
    np.testing.assert_allclose(fits.cos_beta, abs(np.cos(np.radians(104.0))), rtol=1e-6)


@pytest.mark.parametrize("name", ["cP", "oP", "tP"])
def test_a_right_monoclinic_angle_is_a_right_angle(name: str):
    np.testing.assert_allclose(fit_families(lattices(name)).cos_beta, 0.0, atol=1e-6)


@pytest.mark.parametrize("name", BRAVAIS)
def test_the_reduced_lengths_are_those_of_niggli(name: str):
    fits = fit_families(lattices(name))
    reduced = type(BRAVAIS[name].lattice)(BRAVAIS[name].primitive).get_niggli_reduced_lattice()
    np.testing.assert_allclose(fits.reduced[:, :3], np.tile(sorted(reduced.abc), (len(SEEDS), 1)), rtol=1e-6)
    assert ((fits.reduced[:, 3:] >= 0.0) & (fits.reduced[:, 3:] < 0.5 + 1e-6)).all()


@given(name=st.sampled_from(sorted(BRAVAIS)), seed=st.integers(0, 2**32 - 1), basis=st.integers(0, 2**32 - 1))
def test_residuals_depend_on_the_lattice_and_not_on_its_basis(name: str, seed: int, basis: int):
    reciprocal = turned_reciprocal(BRAVAIS[name].primitive, seed)
    # An odd strain: no family fits exactly, and which one fits better must not depend on the basis.
    reciprocal = (
        np.eye(3) + np.array([[0.01, 0.02, 0.0], [0.0, -0.02, 0.01], [0.03, 0.01, 0.04]])
    ) @ reciprocal
    other = reciprocal @ random_unimodular(basis)
    first, second = fit_families(reciprocal[None]), fit_families(other[None])
    np.testing.assert_allclose(second.residual, first.residual, rtol=1e-5)
    np.testing.assert_allclose(second.reduced[:, :3], first.reduced[:, :3], rtol=1e-9)


@given(name=st.sampled_from(sorted(BRAVAIS)), seed=st.integers(0, 2**32 - 1), angle=st.floats(0.0, 6.3))
def test_a_turn_about_the_beam_changes_no_residual(name: str, seed: int, angle: float):
    reciprocal = turned_reciprocal(BRAVAIS[name].primitive, seed)
    reciprocal[2] *= 1.03
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    first, second = fit_families(reciprocal[None]), fit_families(turn @ reciprocal[None])
    np.testing.assert_allclose(second.residual, first.residual, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(second.residual_across, first.residual_across, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("stretch", [0.9, 0.95, 1.05, 1.1])
@pytest.mark.parametrize("name", [name for name in BRAVAIS if name != "aP"])
def test_a_stretch_along_the_beam_costs_no_more_than_its_weight(name: str, stretch: float):
    reciprocal = lattices(name)
    reciprocal[:, 2] *= stretch
    residual = fit_families(reciprocal).residual[:, column(name)]
    # The true metric leaves a strain of stretch² − 1 along the beam, with a weight of a twentieth; no
    # group that the stretched lattice needs may be missing.
    assert residual.max() < 1.001 * 0.05 * abs(stretch**2 - 1.0)


@pytest.mark.parametrize("name", [name for name in BRAVAIS if name != "aP"])
def test_under_a_stretch_along_the_beam_wrong_families_fit_much_worse(name: str):
    reciprocal = lattices(name)
    reciprocal[:, 2] *= 1.05
    fits = fit_families(reciprocal)
    own = np.array([family in HAS[BRAVAIS[name].family] for family in LATTICE_FAMILIES])
    right, wrong = fits.residual[:, column(name)], fits.residual[:, ~own]
    assert (np.median(wrong, axis=0) > 8.0 * np.median(right)).all()
    assert np.mean(wrong > 2.0 * right[:, None]) > 0.9
    cells = fits.cell[:, column(name)]
    assert np.abs(cells / np.array(BRAVAIS[name].lattice.abc) - 1.0).max() < 0.06
    np.testing.assert_allclose(fits.cells[:, column(name)], BRAVAIS[name].cells, rtol=1e-6)


def test_a_stretch_across_the_beam_counts_more_than_ten_times_as_much():
    along, across = lattices("cP"), lattices("cP")
    along[:, 2] *= 1.05
    across[:, 0] *= 1.05
    k = column("cP")
    first, second = fit_families(along), fit_families(across)
    assert second.residual[:, k].min() > 10.0 * first.residual[:, k].max()
    assert second.residual_across[:, k].min() > 10.0 * first.residual_across[:, k].max()


def test_without_a_lattice_everything_is_nan():
    flat = lattices("cP", [0])[0].copy()
    flat[:, 2] = flat[:, 0] + flat[:, 1]
    for reciprocal in (np.zeros((2, 3, 3)), flat[None], 1e-2 * lattices("cP", [0])):
        for array in arrays_of(fit_families(reciprocal)).values():
            assert np.isnan(array).all()


def test_each_lattice_stands_for_itself():
    mixed = np.concatenate([lattices("cF", [3]), np.zeros((1, 3, 3)), lattices("mC", [4])])
    together = arrays_of(fit_families(mixed))
    for index in (0, 1, 2):
        for name, array in arrays_of(fit_families(mixed[index : index + 1])).items():
            np.testing.assert_array_equal(together[name][index], array[0])
    assert arrays_of(fit_families(np.empty((0, 3, 3))))["cell"].shape == (0, 6, 3)
