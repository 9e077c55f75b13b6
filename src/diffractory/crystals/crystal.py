"""One crystal as plain arrays: what every kernel takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Two atoms closer than this cannot both be there, in Å.
MIN_ATOM_DISTANCE = 0.5
#: Neighbouring cells.
_IMAGES = np.array(list(np.ndindex(3, 3, 3))) - 1.0
#: Heaviest element with Weickenmeier-Kohl form factors (californium).
MAX_ATOMIC_NUMBER = 98


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic crystal in the cell and Cartesian frame it was given in.

    Parameters
    ----------
    lattice : ndarray of shape (3, 3)
        Rows are the cell vectors a, b, c in Å, in the crystal's Cartesian frame.
    numbers : ndarray of shape (n_atoms,), int
        Atomic numbers.
    frac_coords : ndarray of shape (n_atoms, 3)
        Fractional coordinates.

    Raises
    ------
    StructureError
        If the cell is degenerate, a number is not finite, an element has no form factors,
        or atoms overlap.
    """

    lattice: NDArray[np.float64]
    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]

    def __post_init__(self) -> None:
        arrays = {
            "lattice": np.array(self.lattice, dtype=np.float64),
            "numbers": np.atleast_1d(np.array(self.numbers, dtype=np.int64)),
            "frac_coords": np.atleast_2d(np.array(self.frac_coords, dtype=np.float64)),
        }
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        _check_cell(self.lattice)
        _check_atoms(self)

    @classmethod
    def from_structure(cls, structure: Structure) -> Self:
        """Take a pymatgen structure: cell and frame as given, nothing re-set.

        Parameters
        ----------
        structure : pymatgen.core.Structure
            Fully ordered structure.

        Returns
        -------
        Crystal

        Raises
        ------
        StructureError
            If a site is partially occupied or the structure is otherwise unusable.

        Examples
        --------
        >>> from pymatgen.core import Lattice, Structure
        >>> from diffractory import Crystal
        >>> iron = Structure.from_spacegroup("Im-3m", Lattice.cubic(2.866), ["Fe"], [[0, 0, 0]])
        >>> crystal = Crystal.from_structure(iron)
        >>> crystal.numbers.tolist(), round(crystal.volume, 2)
        ([26, 26], 23.54)
        """
        if not structure.is_ordered:
            site = next(site for site in structure if not site.is_ordered)
            raise StructureError(
                f"partial occupancy at {np.round(site.frac_coords, 4).tolist()} ({site.species})",
                "one simulation needs one definite arrangement of atoms",
                "Order it first, for example with pymatgen's OrderDisorderedStructureTransformation",
            )
        return cls(
            structure.lattice.matrix,
            np.array([site.specie.Z for site in structure]),
            structure.frac_coords,
        )

    @property
    def volume(self) -> float:
        """Cell volume in Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def reciprocal(self) -> NDArray[np.float64]:
        """Reciprocal cell of shape (3, 3): rows a*, b*, c* in Å⁻¹ (no 2π); g = hkl @ reciprocal."""
        return np.ascontiguousarray(np.linalg.inv(self.lattice).T)


def _check_cell(lattice: NDArray[np.float64]) -> None:
    if lattice.shape != (3, 3) or not np.all(np.isfinite(lattice)):
        raise StructureError(f"the lattice must be a finite 3 × 3 matrix, got {lattice.tolist()}")
    lengths = np.linalg.norm(lattice, axis=1)
    if lengths.min() < 0.5 or abs(np.linalg.det(lattice)) < 0.02 * lengths.prod():
        raise StructureError(
            f"degenerate cell with edges {np.round(lengths, 3).tolist()} Å and volume "
            f"{abs(np.linalg.det(lattice)):.4g} Å³",
            "its vectors are too short or nearly coplanar",
            "Check the cell, or reduce it (pymatgen: get_reduced_structure)",
        )
    apart = np.linalg.norm(np.delete(_IMAGES, len(_IMAGES) // 2, axis=0) @ lattice, axis=1).min()
    if apart < MIN_ATOM_DISTANCE:
        raise StructureError(
            f"every atom overlaps its own image: the lattice has a vector of {apart:.3f} Å",
            f"nothing real is closer than {MIN_ATOM_DISTANCE} Å",
            "Check the cell",
        )


def _check_atoms(crystal: Crystal) -> None:
    numbers, frac = crystal.numbers, crystal.frac_coords
    if numbers.size == 0 or frac.shape != (numbers.size, 3) or not np.all(np.isfinite(frac)):
        raise StructureError(
            f"{numbers.size} atomic numbers with fractional coordinates of shape {frac.shape}",
            "every atom needs an element and three finite fractional coordinates",
        )
    if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        bad = sorted({int(z) for z in numbers if not 1 <= z <= MAX_ATOMIC_NUMBER})
        raise StructureError(
            f"no form factors for atomic number(s) {bad}",
            f"the Weickenmeier-Kohl tables end at Z = {MAX_ATOMIC_NUMBER}",
            "Leave these structures out",
        )
    pair = _closest_overlap(crystal)
    if pair is not None:
        i, j, distance = pair
        raise StructureError(
            f"atoms {i} and {j} overlap: {distance:.3f} Å apart",
            f"nothing real is closer than {MIN_ATOM_DISTANCE} Å",
            "Remove the duplicate site",
        )


def _closest_overlap(crystal: Crystal) -> tuple[int, int, float] | None:
    """Return the first pair of atoms closer than the limit, periodic images included."""
    frac = crystal.frac_coords
    # A vector of length d has fractional coordinates of at most d |a*|, d |b*| and d |c*|.
    reach = MIN_ATOM_DISTANCE * np.linalg.norm(crystal.reciprocal, axis=1)
    for i in range(len(frac) - 1):
        delta = frac[i + 1 :] - frac[i]
        delta -= np.round(delta)
        near = np.flatnonzero((np.abs(delta) <= reach).all(axis=1))
        if not near.size:
            continue
        # In a skew cell the nearest image is not the one of rounded fractions: look at its neighbours too.
        vectors = (delta[near, None, :] + _IMAGES) @ crystal.lattice
        distances = np.linalg.norm(vectors, axis=2).min(axis=1)
        j = int(np.argmin(distances))
        if distances[j] < MIN_ATOM_DISTANCE:
            return i, i + 1 + int(near[j]), float(distances[j])
    return None
