from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pymatgen.core import Structure

from diffractory import Crystal, SimulationSpec
from diffractory.scattering.form_factors import form_factors
from diffractory.scattering.primitive import PrimitiveCell, centring_translations, primitive_cell
from diffractory.scattering.structure_factors import StructureFactors, index_limits, structure_factors
from zoo import ZOO

#: Each crystal as it is, as an oblong super-cell, and as a skew one.
CELLS = {
    "as given": np.eye(3, dtype=int),
    "2 x 1 x 1": np.diag([2, 1, 1]),
    "skew": np.array([[1, 2, 0], [0, 1, 3], [0, 0, 2]]),
}
#: Small integer matrices of determinant 1: other cells of the same lattice.
SHEARS = st.lists(st.integers(-2, 2), min_size=6, max_size=6).map(
    lambda n: (
        np.array([[1, n[0], n[1]], [0, 1, n[2]], [0, 0, 1]])
        @ np.array([[1, 0, 0], [n[3], 1, 0], [n[4], n[5], 1]])
    )
)


def in_cell(name: str, cell: str) -> Crystal:
    return Crystal.from_structure(ZOO[name].make_supercell(CELLS[cell], in_place=False))


def all_hkl(crystal: Crystal, g_max: float) -> np.ndarray:
    axes = [np.arange(-n, n + 1) for n in index_limits(crystal, g_max)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def looked_up(cell: PrimitiveCell, factors: StructureFactors, hkl: np.ndarray) -> np.ndarray:
    """Return U of indices of the given cell from the table of the primitive one; 0 outside it."""
    index, rest = np.divmod(hkl @ cell.to_primitive, cell.n_points)
    there = np.all(rest == 0, axis=1) & np.all(np.abs(index) <= factors.origin, axis=1)
    values = np.zeros(len(hkl), dtype=complex)
    values[there] = factors.of(index[there])
    return values


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", ZOO)
def test_structure_factors_are_those_of_the_given_cell(name: str, cell: str) -> None:
    crystal = in_cell(name, cell)
    primitive = primitive_cell(crystal)
    assert len(primitive.crystal.numbers) == len(ZOO[name].get_primitive_structure())
    factors = form_factors(crystal.numbers, SimulationSpec(q_max=1.0))
    in_given = structure_factors(crystal, 2.0, factors)
    in_primitive = structure_factors(primitive.crystal, 2.0, factors)
    hkl = all_hkl(crystal, 2.0)
    expected = in_given.of(hkl)
    assert_allclose(
        looked_up(primitive, in_primitive, hkl), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )
    assert in_primitive.table.size <= in_given.table.size


@pytest.mark.parametrize("name", ZOO)
def test_the_frame_stays_and_indices_go_both_ways(name: str) -> None:
    crystal = in_cell(name, "skew")
    cell = primitive_cell(crystal)
    index = np.random.default_rng(0).integers(-9, 10, (50, 3))
    hkl = index @ cell.to_conventional
    assert_allclose(index @ cell.crystal.reciprocal, hkl @ crystal.reciprocal, atol=1e-12)
    assert np.array_equal(hkl @ cell.to_primitive, cell.n_points * index)
    assert cell.crystal.volume * cell.n_points == pytest.approx(crystal.volume, rel=1e-12)


@given(st.sampled_from(list(ZOO)), SHEARS)
def test_vectors_are_the_shortest_of_the_lattice(name: str, shear: np.ndarray) -> None:
    reduced = primitive_cell(Crystal.from_structure(ZOO[name])).crystal
    lattice = shear @ reduced.lattice
    # A crystal refuses cells that are flatter than this.
    assume(reduced.volume > 0.02 * np.linalg.norm(lattice, axis=1).prod())
    sheared = primitive_cell(Crystal(lattice, reduced.numbers, reduced.frac_coords @ np.linalg.inv(shear)))
    # The successive minima, by trying: the shortest vectors that are not in a line or in a plane.
    vectors = np.array([step @ reduced.lattice for step in product(range(-3, 4), repeat=3) if any(step)])
    vectors = vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")]
    shortest: list[np.ndarray] = []
    for vector in vectors:
        if np.linalg.matrix_rank([*shortest, vector], tol=1e-6) > len(shortest):
            shortest.append(vector)
    assert_allclose(
        np.sort(np.linalg.norm(sheared.crystal.lattice, axis=1)), np.linalg.norm(shortest, axis=1), rtol=1e-8
    )


@pytest.mark.parametrize("name", ["cubic-P-c-CsCl", "triclinic-P-a-invented", "hexagonal-P-a-ZnO"])
def test_a_short_primitive_cell_is_left_as_it_is(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    cell = primitive_cell(crystal)
    assert cell.crystal is crystal
    assert np.array_equal(cell.to_conventional, np.eye(3))


@pytest.mark.parametrize(
    ("name", "n_points"),
    [
        ("cubic-F-a-GaAs", 4),
        ("cubic-I-c-iron", 2),
        ("orthorhombic-A-a-KNbO3", 2),
        ("trigonal-R-c-bismuth", 3),
        ("tetragonal-P-a-BaTiO3", 1),
    ],
)
def test_translations_are_found_from_the_atoms(name: str, n_points: int) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    translations = centring_translations(crystal)
    assert len(translations) == n_points == primitive_cell(crystal).n_points
    assert not translations[0].any()
    doubled = in_cell(name, "2 x 1 x 1")
    assert len(centring_translations(doubled)) == 2 * n_points == primitive_cell(doubled).n_points


def test_coordinates_off_by_rounding_are_averaged_and_larger_displacements_break_the_centring() -> None:
    structure = ZOO["cubic-F-a-GaAs"] * (2, 1, 1)
    exact = Crystal.from_structure(structure)
    noise = np.random.default_rng(1).uniform(-1.0, 1.0, exact.frac_coords.shape)

    def displaced(angstrom: float) -> Crystal:
        return Crystal(exact.lattice, exact.numbers, exact.frac_coords + angstrom * noise / 12.0)

    rounded = primitive_cell(displaced(2e-4))
    assert rounded.n_points == 8
    factors = form_factors(exact.numbers, SimulationSpec(q_max=1.0))
    expected = structure_factors(displaced(2e-4), 2.0, factors)
    hkl = all_hkl(exact, 2.0)
    hkl = hkl[np.all(hkl @ rounded.to_primitive % 8 == 0, axis=1)]
    values = looked_up(rounded, structure_factors(rounded.crystal, 2.0, factors), hkl)
    assert_allclose(values, expected.of(hkl), rtol=0, atol=1e-6 * np.abs(expected.table).max())
    assert primitive_cell(displaced(2e-2)).n_points == 1


def test_an_element_may_spoil_the_centring_of_another() -> None:
    # Aluminium alone is face-centred, oxygen in pairs along one edge is not.
    places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    aluminium = Structure(6.0 * np.eye(3), ["Al"] * 4, places)
    assert primitive_cell(Crystal.from_structure(aluminium)).n_points == 4
    oxygen = [[0.25, 0.25, z] for z in (0.1, 0.4, 0.6, 0.9)]
    mixed = Structure(6.0 * np.eye(3), ["Al"] * 4 + ["O"] * 4, places + oxygen)
    assert primitive_cell(Crystal.from_structure(mixed)).n_points == 1
