"""Small real and invented crystals for tests: all systems, acentric, centred and skew cells."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Lattice, Structure


def _spacegroup(group: str, lattice: Lattice, species: list[str], coords: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, species, coords)


def face_centred(a: float, species: list[str], coords: list[list[float]]) -> Structure:
    """Return a cubic crystal with each atom at its place and, from there, in the middle of three faces.

    ``Structure.from_spacegroup`` makes the same in a second or two where a group has 192 operations.
    """
    faces = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    places = [(np.array(place) + face) % 1.0 for place in coords for face in faces]
    return Structure(Lattice.cubic(a), [atom for atom in species for _ in faces], places)


def _rotated(structure: Structure) -> Structure:
    """Return the same crystal in a Cartesian frame turned by an odd angle."""
    axis = np.array([1.0, 2.0, 3.0]) / 14.0**0.5
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(0.7) * k + (1 - np.cos(0.7)) * k @ k
    return Structure(Lattice(structure.lattice.matrix @ turn.T), structure.species, structure.frac_coords)


_CU = face_centred(3.61, ["Cu"], [[0, 0, 0]])
_GAAS = face_centred(5.653, ["Ga", "As"], [[0, 0, 0], [0.25] * 3])
_CORUNDUM = _spacegroup(
    "R-3c", Lattice.hexagonal(4.758, 12.991), ["Al", "O"], [[0, 0, 0.3522], [0.3063, 0, 0.25]]
)

#: name -> structure; the letter at the end says c(entric) or a(centric).
ZOO: dict[str, Structure] = {
    "cubic-F-c-copper": _CU,
    "cubic-I-c-iron": Structure(Lattice.cubic(2.866), ["Fe", "Fe"], [[0, 0, 0], [0.5] * 3]),
    "cubic-P-c-CsCl": _spacegroup("Pm-3m", Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "cubic-F-a-GaAs": _GAAS,
    "cubic-skew-primitive-a-GaAs": _GAAS.get_primitive_structure(),
    "cubic-turned-frame-c-copper": _rotated(_CU),
    "cubic-P-a-FeSi": _spacegroup("P2_13", Lattice.cubic(4.49), ["Fe", "Si"], [[0.137] * 3, [0.842] * 3]),
    "hexagonal-P-a-ZnO": _spacegroup(
        "P6_3mc", Lattice.hexagonal(3.25, 5.207), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]]
    ),
    "hexagonal-P-c-magnesium": _spacegroup(
        "P6_3/mmc", Lattice.hexagonal(3.209, 5.211), ["Mg"], [[1 / 3, 2 / 3, 0.25]]
    ),
    "trigonal-P-a-quartz": _spacegroup(
        "P3_221", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
    ),
    "trigonal-R-c-bismuth": _spacegroup("R-3m", Lattice.hexagonal(4.546, 11.86), ["Bi"], [[0, 0, 0.234]]),
    "trigonal-skew-primitive-c-corundum": _CORUNDUM.get_primitive_structure(),
    "tetragonal-P-c-rutile": _spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    ),
    "tetragonal-P-a-BaTiO3": _spacegroup(
        "P4mm",
        Lattice.tetragonal(3.994, 4.038),
        ["Ba", "Ti", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.522], [0.5, 0.5, -0.024], [0.5, 0, 0.489]],
    ),
    "tetragonal-I-c-tin": _spacegroup(
        "I4_1/amd", Lattice.tetragonal(5.831, 3.182), ["Sn"], [[0, 0.75, 0.125]]
    ),
    "orthorhombic-P-c-marcasite": _spacegroup(
        "Pnnm", Lattice.orthorhombic(4.443, 5.425, 3.387), ["Fe", "S"], [[0, 0, 0], [0.2, 0.378, 0]]
    ),
    "orthorhombic-A-a-KNbO3": _spacegroup(
        "Amm2",
        Lattice.orthorhombic(3.973, 5.695, 5.721),
        ["K", "Nb", "O", "O"],
        [[0, 0, 0.0138], [0.5, 0, 0.5], [0, 0, 0.5364], [0.5, 0.2480, 0.2842]],
    ),
    "monoclinic-P-c-zirconia": _spacegroup(
        "P2_1/c",
        Lattice.monoclinic(5.15, 5.21, 5.31, 99.2),
        ["Zr", "O", "O"],
        [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447], [0.4496, 0.7569, 0.4792]],
    ),
    "monoclinic-C-a-invented": _spacegroup(
        "C2", Lattice.monoclinic(7.2, 3.9, 5.1, 112.0), ["Cd", "S"], [[0, 0, 0], [0.21, 0.17, 0.33]]
    ),
    "triclinic-P-c-invented": _spacegroup(
        "P-1",
        Lattice.from_parameters(3.9, 4.7, 5.6, 78.0, 96.0, 113.0),
        ["W", "O"],
        [[0, 0, 0], [0.31, 0.42, 0.27]],
    ),
    "triclinic-P-a-invented": Structure(
        Lattice.from_parameters(4.1, 4.9, 5.3, 71.0, 84.0, 102.0),
        ["In", "As", "O"],
        [[0, 0, 0], [0.3, 0.4, 0.2], [0.7, 0.55, 0.62]],
    ),
}

#: A valid CIF file of caesium chloride; tests spoil it in their own ways.
CSCL_CIF = """data_x
_cell_length_a 4.12
_cell_length_b 4.12
_cell_length_c 4.12
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
A Cs 0 0 0 1
B Cl 0.5 0.5 0.5 1
"""

CENTRIC = [name for name in ZOO if "-c-" in name]
ACENTRIC = [name for name in ZOO if "-a-" in name]


def random_rotation(seed: int) -> np.ndarray:
    """Return a rotation matrix (3, 3), uniform over SO(3)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q
