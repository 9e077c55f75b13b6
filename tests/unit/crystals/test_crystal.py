import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from diffractory.crystals.crystal import Crystal
from diffractory.errors import StructureError
from zoo import face_centred

NACL = face_centred(5.64, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
EDGE = st.floats(2.0, 20.0)
ANGLE = st.floats(75.0, 105.0)


@given(EDGE, EDGE, EDGE, ANGLE, ANGLE, ANGLE)
def test_cell_and_frame_stay_as_given(a: float, b: float, c: float, x: float, y: float, z: float) -> None:
    lattice = Lattice.from_parameters(a, b, c, x, y, z)
    structure = Structure(lattice, ["Si", "O"], [[0, 0, 0], [0.5, 0.5, 1.5]])
    crystal = Crystal.from_structure(structure)
    np.testing.assert_array_equal(crystal.lattice, lattice.matrix)
    np.testing.assert_array_equal(crystal.frac_coords, structure.frac_coords)
    assert crystal.numbers.tolist() == [14, 8]
    assert crystal.volume == pytest.approx(lattice.volume)
    np.testing.assert_allclose(crystal.reciprocal @ crystal.lattice.T, np.eye(3), atol=1e-12)


def test_arrays_cannot_be_changed_and_are_copies() -> None:
    lattice = np.eye(3) * 4.0
    crystal = Crystal(lattice, np.array([6]), np.zeros((1, 3)))
    lattice[0, 0] = 9.0
    assert crystal.lattice[0, 0] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        crystal.lattice[0, 0] = 1.0


def test_partial_occupancy_is_refused() -> None:
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match=r"partial occupancy at \[0\.0, 0\.0, 0\.0\].*Order it first"):
        Crystal.from_structure(alloy)


def test_overlapping_atoms_are_refused_across_the_cell_border() -> None:
    with pytest.raises(StructureError, match=r"atoms 0 and 1 overlap: 0\.080 Å"):
        Crystal(np.eye(3) * 4.0, np.array([11, 17]), np.array([[0.99, 0, 0], [0.01, 0, 0]]))


@pytest.mark.parametrize("number", [0, -3, 99, 118])
def test_elements_without_form_factors_are_refused(number: int) -> None:
    with pytest.raises(StructureError, match=rf"atomic number\(s\) \[{number}\].*end at Z = 98"):
        Crystal(np.eye(3) * 4.0, np.array([number]), np.zeros((1, 3)))


@pytest.mark.parametrize(
    "lattice",
    [np.diag([4.0, 4.0, 0.1]), np.array([[4.0, 0, 0], [0, 4, 0], [4, 4, 1e-3]])],
    ids=["short", "coplanar"],
)
def test_degenerate_cells_are_refused(lattice: np.ndarray) -> None:
    with pytest.raises(StructureError, match=r"degenerate cell.*Check the cell"):
        Crystal(lattice, np.array([6]), np.zeros((1, 3)))


@pytest.mark.parametrize("lattice", [np.full((3, 3), np.nan), np.eye(2)])
def test_lattices_that_are_no_finite_matrix_are_refused(lattice: np.ndarray) -> None:
    with pytest.raises(StructureError, match="finite 3 × 3 matrix"):
        Crystal(lattice, np.array([6]), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("numbers", "frac"),
    [([6, 6], [[0, 0, 0]]), ([6], [[0, np.nan, 0]]), ([6], [[0, 0]])],
)
def test_atoms_need_an_element_and_three_coordinates_each(
    numbers: list[int], frac: list[list[float]]
) -> None:
    with pytest.raises(StructureError, match="every atom needs"):
        Crystal(np.eye(3) * 4.0, np.array(numbers), np.array(frac))


def test_from_structure_takes_oxidation_states() -> None:
    charged = NACL.copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    assert Crystal.from_structure(charged).numbers.tolist() == [11] * 4 + [17] * 4


def test_an_atom_that_overlaps_its_own_image_is_refused() -> None:
    with pytest.raises(StructureError, match=r"overlaps its own image: .* 0\.35"):
        Crystal([[10.0, 0.0, 0.0], [-10.0, 0.35, 0.0], [0.0, 0.0, 5.0]], [29], [[0, 0, 0]])
