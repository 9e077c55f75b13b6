import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from diffractory.crystals import symmetry
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.symmetry import (
    labelled_laue_operations,
    laue_class,
    laue_class_of_operations,
    laue_class_of_space_group,
    laue_operations,
    laue_operations_of,
)
from diffractory.errors import StructureError

FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def _crystal(group: str, lattice: Lattice) -> Structure:
    """Put one atom on a general position, so that the crystal has no more symmetry than its group."""
    return Structure.from_spacegroup(group, lattice, ["Si"], [[0.13, 0.22, 0.31]])


# Laue class, its order, and a crystal of every class; acentric groups where there is one.
CASES = {
    "-1": (2, _crystal("P1", Lattice.from_parameters(4.1, 5.2, 6.3, 81, 97, 105))),
    "2/m": (4, _crystal("C2", Lattice.monoclinic(7.2, 5.9, 6.1, 112))),
    "mmm": (8, _crystal("P2_12_12_1", Lattice.orthorhombic(6, 7, 9))),
    "4/m": (8, _crystal("I4_1", Lattice.tetragonal(9, 7))),
    "4/mmm": (16, _crystal("P4_12_12", Lattice.tetragonal(9, 7))),
    "-3": (6, _crystal("R3", Lattice.hexagonal(9, 12))),
    "-3m": (12, _crystal("P3_121", Lattice.hexagonal(9, 8))),
    "6/m": (12, _crystal("P6_1", Lattice.hexagonal(9, 12))),
    "6/mmm": (24, _crystal("P6_122", Lattice.hexagonal(10, 18))),
    "m-3": (24, _crystal("P2_13", Lattice.cubic(9))),
    "m-3m": (48, _crystal("F-43m", Lattice.cubic(14))),
}


def _transformed(structure: Structure, seed: int) -> Structure:
    """Return the crystal in another cell of the same lattice and in a turned frame."""
    rng = np.random.default_rng(seed)
    shear = np.eye(3, dtype=int)
    for _ in range(2):
        i, j = rng.choice(3, size=2, replace=False)
        shear[i] += int(rng.integers(-1, 2)) * shear[j]
    turn = Rotation.random(random_state=seed).as_matrix()
    frac = structure.frac_coords @ np.linalg.inv(shear)
    return Structure(Lattice(shear @ structure.lattice.matrix @ turn.T), structure.species, frac)


def _assert_group(operations: NDArray[np.float64], order: int) -> None:
    assert operations.shape == (order, 3, 3)
    np.testing.assert_allclose(
        operations @ operations.transpose(0, 2, 1), np.eye(3)[None].repeat(order, 0), atol=1e-9
    )
    products = np.einsum("aij,bjk->abik", operations, operations).reshape(-1, 9)
    distances = np.abs(products[:, None] - operations.reshape(1, -1, 9)).max(axis=2)
    assert (np.sort(distances, axis=1)[:, 0] < 1e-9).all(), "a product leaves the set"
    assert (np.sort(distances, axis=1)[:, 1] > 0.1).all(), "an operation occurs twice"


@pytest.mark.parametrize("name", CASES)
def test_class_and_group_of_every_laue_class(name: str) -> None:
    order, structure = CASES[name]
    operations = laue_operations(structure)
    _assert_group(operations, order)
    np.testing.assert_allclose(operations[0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(operations[order // 2 :], -operations[: order // 2])
    assert laue_class(structure) == name == laue_class_of_operations(operations)


@settings(max_examples=40)
@given(st.sampled_from(sorted(CASES)), st.integers(0, 2**31))
def test_any_cell_and_frame_gives_a_group_that_maps_the_lattice_onto_itself(name: str, seed: int) -> None:
    order, structure = CASES[name]
    moved = _transformed(structure, seed)
    operations = laue_operations(moved)
    _assert_group(operations, order)
    assert laue_class_of_operations(operations) == name
    # g = B h with columns of B the reciprocal cell: W B = B (integers).
    reciprocal = Crystal.from_structure(moved).reciprocal.T
    images = np.linalg.inv(reciprocal) @ operations @ reciprocal
    np.testing.assert_allclose(images, np.rint(images), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_operations_turn_with_the_frame(name: str) -> None:
    structure = CASES[name][1]
    turn = Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()
    turned = Structure(Lattice(structure.lattice.matrix @ turn.T), structure.species, structure.frac_coords)
    expected = (turn @ laue_operations(structure) @ turn.T).reshape(-1, 9)
    found = laue_operations(turned).reshape(-1, 9)
    distances = np.abs(expected[:, None] - found[None]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-9


@pytest.mark.parametrize("name", ["m-3m", "-3m", "mmm"])
def test_a_supercell_keeps_all_operations(name: str) -> None:
    order, structure = CASES[name]
    supercell = structure.copy()
    supercell.make_supercell([1, 1, 2])
    _assert_group(laue_operations(supercell), order)


def test_operations_permute_equivalent_atoms_of_the_density() -> None:
    """Known answer: quartz has three-fold symmetry about c and two-folds about a, not six-folds."""
    quartz = Structure.from_spacegroup(
        "P3_221", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
    )
    operations = laue_operations(quartz)
    c = quartz.lattice.matrix[2] / quartz.lattice.c
    np.testing.assert_allclose(np.abs(operations @ c @ c), 1.0, atol=1e-9)
    a = quartz.lattice.matrix[0] / quartz.lattice.a
    half_turn_about_a = 2 * np.outer(a, a) - np.eye(3)
    assert np.abs(operations - half_turn_about_a).max(axis=(1, 2)).min() < 1e-9
    assert laue_class(quartz) == "-3m"


def test_a_slightly_distorted_cell_gives_an_exact_group() -> None:
    distorted = Structure(Lattice.from_parameters(5.0, 5.01, 4.99, 90.1, 89.9, 90.05), ["Po"], [[0, 0, 0]])
    _assert_group(laue_operations(distorted, symprec=0.1), 48)
    assert laue_class(distorted, symprec=1e-4) == "-1"


def test_fast_path_agrees_with_the_structure() -> None:
    structure = CASES["m-3"][1]
    np.testing.assert_array_equal(
        laue_operations(structure), laue_operations_of(Crystal.from_structure(structure))
    )


@pytest.mark.parametrize(
    "operations",
    [np.eye(3)[None], np.stack([np.eye(3), np.diag([1.0, -1, -1])]), np.zeros((0, 3, 3))],
    ids=["no inversion", "one two-fold alone", "none"],
)
def test_sets_that_are_no_laue_group_are_refused(operations: NDArray[np.float64]) -> None:
    with pytest.raises(StructureError, match="are no Laue group"):
        laue_class_of_operations(operations)


def test_structures_that_cannot_be_used_are_refused() -> None:
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match="partial occupancy"):
        laue_operations(alloy)


def test_no_symmetry_found_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry.spglib, "get_symmetry_dataset", lambda *_, **__: None)
    with pytest.raises(StructureError, match=r"no symmetry within 0\.1 Å\. Try another symprec"):
        laue_class(CASES["-1"][1])


@pytest.mark.parametrize(("number", "name"), [(1, "-1"), (2, "-1"), (3, "2/m"), (15, "2/m"), (62, "mmm"),
    (88, "4/m"), (89, "4/mmm"), (148, "-3"), (149, "-3m"), (176, "6/m"), (194, "6/mmm"), (206, "m-3"),
    (207, "m-3m"), (230, "m-3m")])  # fmt: skip
def test_laue_classes_of_space_groups(number: int, name: str) -> None:
    assert laue_class_of_space_group(number) == name


def test_operations_are_those_of_the_label_and_not_of_one_distance_for_all() -> None:
    # Cubic within 0.1 Å, tetragonal within 0.01 Å.
    strained = Crystal(np.diag([3.61, 3.61, 3.66]), [29] * 4, FCC)
    assert len(laue_operations_of(strained)) == 48
    assert len(labelled_laue_operations(strained, 139)) == 16
    assert len(labelled_laue_operations(strained, 225)) == 48
    # A label that no distance gives says nothing.
    assert len(labelled_laue_operations(strained, 194)) == 48


def test_a_label_of_a_wider_distance() -> None:
    strained = Crystal(np.diag([3.61, 3.61, 3.90]), [29] * 4, FCC)
    assert len(laue_operations_of(strained)) == 16
    assert len(labelled_laue_operations(strained, 225)) == 48
