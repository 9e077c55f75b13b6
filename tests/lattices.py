"""Lattices of all fourteen Bravais types, and patterns of spots near the Ewald sphere, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.core import Lattice

from diffractory.patterns.peak_table import PeakTable
from diffractory.units import electron_wavelength
from zoo import random_rotation

#: Height of the Ewald sphere of 300 kV above the plane of the detector, over q².
CURVATURE = electron_wavelength(300e3) / 2.0

_PRIMITIVE_ROWS = {
    "P": np.eye(3),
    "C": np.array([[0.5, 0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]),
    "R": np.array([[2.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -2.0, 1.0]]) / 3.0,
}


@dataclass(frozen=True)
class Bravais:
    """A lattice of one Bravais type, by its conventional cell and centring; b is the unique axis."""

    lattice: Lattice
    centring: str
    family: str
    cells: int

    @property
    def primitive(self) -> np.ndarray:
        """Primitive vectors as rows, (3, 3)."""
        return _PRIMITIVE_ROWS[self.centring] @ self.lattice.matrix


BRAVAIS: dict[str, Bravais] = {
    "aP": Bravais(Lattice.from_parameters(4.1, 5.2, 6.3, 75.0, 82.0, 98.0), "P", "triclinic", 1),
    "mP": Bravais(Lattice.monoclinic(5.1, 6.3, 7.2, 104.0), "P", "monoclinic", 1),
    "mC": Bravais(Lattice.monoclinic(6.9, 5.3, 7.2, 104.0), "C", "monoclinic", 2),
    "oP": Bravais(Lattice.orthorhombic(4.1, 5.3, 7.2), "P", "orthorhombic", 1),
    "oC": Bravais(Lattice.orthorhombic(4.1, 5.2, 9.9), "C", "orthorhombic", 2),
    "oI": Bravais(Lattice.orthorhombic(4.1, 5.3, 7.2), "I", "orthorhombic", 2),
    "oF": Bravais(Lattice.orthorhombic(6.1, 7.3, 9.2), "F", "orthorhombic", 4),
    "tP": Bravais(Lattice.tetragonal(4.1, 6.2), "P", "tetragonal", 1),
    "tI": Bravais(Lattice.tetragonal(4.1, 9.2), "I", "tetragonal", 2),
    "hR": Bravais(Lattice.hexagonal(4.1, 13.2), "R", "rhombohedral", 3),
    "hP": Bravais(Lattice.hexagonal(4.1, 6.2), "P", "hexagonal", 1),
    "cP": Bravais(Lattice.cubic(4.1), "P", "cubic", 1),
    "cI": Bravais(Lattice.cubic(4.1), "I", "cubic", 2),
    "cF": Bravais(Lattice.cubic(5.1), "F", "cubic", 4),
}

#: Families of metrics that each family's lattices have as well, itself included.
HAS = {
    "triclinic": set(),
    "monoclinic": {"monoclinic"},
    "orthorhombic": {"monoclinic", "orthorhombic"},
    "tetragonal": {"monoclinic", "orthorhombic", "tetragonal"},
    "rhombohedral": {"monoclinic", "rhombohedral"},
    "hexagonal": {"monoclinic", "orthorhombic", "rhombohedral", "hexagonal"},
    "cubic": {"monoclinic", "orthorhombic", "tetragonal", "rhombohedral", "cubic"},
}


def random_unimodular(seed: int) -> np.ndarray:
    """Return an integer matrix (3, 3) of determinant ±1."""
    generator, matrix = np.random.default_rng(seed), np.eye(3)
    for _ in range(6):
        step = np.eye(3)
        row, column = generator.permutation(3)[:2]
        step[row, column] = generator.integers(-2, 3)
        matrix = matrix @ step
    return matrix[generator.permutation(3)]


def turned_reciprocal(primitive: np.ndarray, seed: int) -> np.ndarray:
    """Return the reciprocal basis (columns) of a lattice in a random orientation."""
    return np.linalg.inv(primitive @ random_rotation(seed).T)


def spots_of(
    reciprocal: np.ndarray, seed: int, noise: float = 0.0, q_max: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and intensities of the lattice points near the Ewald sphere, direct beam first."""
    generator = np.random.default_rng(seed)
    reach = int(np.ceil(q_max * np.linalg.norm(np.linalg.inv(reciprocal), axis=1).max())) + 1
    indices = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1)
    points = indices.reshape(-1, 3) @ reciprocal.T
    square = (points[:, :2] ** 2).sum(axis=1)
    excitation = points[:, 2] - CURVATURE * square
    kept = (square < q_max**2) & (np.abs(excitation) < 0.05) & points.any(axis=1)
    strength = np.exp(-2.0 * square[kept]) / (1.0 + (excitation[kept] / 0.01) ** 2)
    strength *= generator.exponential(size=len(strength))
    seen = strength > 1e-4
    q = points[kept][seen, :2] + noise * generator.normal(size=(np.count_nonzero(seen), 2))
    return np.concatenate([np.zeros((1, 2)), q]), np.concatenate([[1.0], strength[seen]])


def table_of(patterns: list[tuple[np.ndarray, np.ndarray]]) -> PeakTable:
    """Return patterns whose first spot is the direct beam as a table."""
    q, intensity = zip(*patterns, strict=True)
    return PeakTable.from_lists(q, intensity, [0] * len(patterns))


def turn_of(angle: float) -> np.ndarray:
    """Return the matrix (3, 3) of a turn about the beam."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def same_lattice(found: np.ndarray, true: np.ndarray) -> bool:
    """Tell whether two reciprocal bases (columns) span one lattice, but for strain along the beam."""
    relation = np.linalg.solve(true, found)
    whole = np.rint(relation)
    alike = np.abs(relation - whole).max() < 0.3 and np.abs(found - true @ whole)[:2].max() < 0.02
    return bool(alike and abs(abs(np.linalg.det(whole)) - 1.0) < 0.5)
