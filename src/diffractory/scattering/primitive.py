"""The primitive cell of a crystal: the shortest vectors of its lattice, in the crystal's own frame.

Structure factors are tabulated in this cell. A table over the indices of a centred cell or of a
super-cell would hold mostly zeros, one over a long skew cell mostly points beyond its limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.crystals.crystal import MIN_ATOM_DISTANCE, Crystal

#: Two atoms this close after a translation are the same atom, in Å.
_TRANSLATION_TOLERANCE = 5e-4
#: Vectors of equal length stay as given: a shorter one has a square smaller by more than this share.
_SHORTER = 1e-9
#: Steps along two vectors that can make a third one shorter once no longer ones can.
_STEPS = np.array(list(product((-1, 0, 1), repeat=2)))


@dataclass(frozen=True, eq=False)
class PrimitiveCell:
    """The primitive cell of a crystal, and the way back to the cell it was given in.

    Parameters
    ----------
    given : Crystal
        The crystal in the cell of the caller.
    to_conventional : ndarray of shape (3, 3), int64
        Miller indices of the given cell are those of the primitive one times this matrix:
        hkl = index @ to_conventional.
    """

    given: Crystal
    to_conventional: NDArray[np.int64]

    @property
    def n_points(self) -> int:
        """Number of lattice points in the given cell."""
        return round(abs(float(np.linalg.det(self.to_conventional))))

    @property
    def to_primitive(self) -> NDArray[np.int64]:
        """The way there, times ``n_points`` to be whole: index = hkl @ to_primitive / n_points."""
        return _integer(self.n_points * np.linalg.inv(self.to_conventional))

    @cached_property
    def crystal(self) -> Crystal:
        """The crystal in its primitive cell, in the Cartesian frame it was given in.

        Atoms that are one atom modulo the lattice are averaged, so that the structure factors of
        both cells agree to second order in how far such atoms are apart.
        """
        if np.array_equal(self.to_conventional, np.eye(3)):
            return self.given
        lattice = self.to_primitive.T @ self.given.lattice / self.n_points
        frac = self.given.frac_coords @ self.to_conventional.T
        if self.n_points == 1:
            return Crystal(lattice, self.given.numbers, frac)
        return _merged(lattice, self.given.numbers, frac)


def primitive_cell(crystal: Crystal) -> PrimitiveCell:
    """Find the primitive cell of a crystal.

    Parameters
    ----------
    crystal : Crystal
        In any cell: primitive, centred, a super-cell, skew.

    Returns
    -------
    PrimitiveCell
        With the three shortest vectors that span the lattice (Minkowski-reduced); a cell that has
        them already is left as it is.

    References
    ----------
    Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009).
    """
    # A translation moves the atoms of every element round in cycles of one length, and after a cycle
    # it is whole: counted in this part of a cell, translations are whole numbers free of rounding.
    unit = int(np.gcd.reduce(np.unique(crystal.numbers, return_counts=True)[1]))
    vectors = np.concatenate([np.diag([unit] * 3), _integer(unit * centring_translations(crystal)[1:])])
    basis = _reduced(_basis_of(vectors), crystal.lattice)
    return PrimitiveCell(crystal, _integer(unit * np.linalg.inv(basis)).T)


def centring_translations(crystal: Crystal) -> NDArray[np.float64]:
    """Return all translations of the crystal inside its cell, the zero translation included.

    Found from the atoms themselves, so that super-cells and unusual settings are seen too.

    Parameters
    ----------
    crystal : Crystal

    Returns
    -------
    ndarray of shape (n, 3)
        Fractional translations.
    """
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    rarest = crystal.frac_coords[crystal.numbers == numbers[np.argmin(counts)]]
    # The number of lattice points in the cell divides the number of atoms of every element.
    candidates = rarest - rarest[0] if np.gcd.reduce(counts) > 1 else np.zeros((1, 3))
    found = [
        candidate - np.floor(candidate)
        for candidate in candidates
        if _is_translation(candidate, crystal.frac_coords, crystal.numbers, crystal.lattice)
    ]
    return np.array(found)


@njit(cache=True, nogil=True)
def _is_translation(
    translation: NDArray[np.float64],
    frac: NDArray[np.float64],
    numbers: NDArray[np.int64],
    lattice: NDArray[np.float64],
) -> bool:
    for i in range(len(frac)):
        found = False
        for j in range(len(frac)):
            if numbers[j] != numbers[i]:
                continue
            x, y, z = 0.0, 0.0, 0.0
            for axis in range(3):
                delta = frac[i, axis] + translation[axis] - frac[j, axis]
                delta -= np.rint(delta)
                x += delta * lattice[axis, 0]
                y += delta * lattice[axis, 1]
                z += delta * lattice[axis, 2]
            if x * x + y * y + z * z <= _TRANSLATION_TOLERANCE**2:
                found = True
                break
        if not found:
            return False
    return True


def _basis_of(vectors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return three vectors that span the same lattice as many: Hermite's echelon, by Euclid's algorithm."""
    rows = vectors.copy()
    for column in range(3):
        below = rows[column:]
        while np.any(below[:, column]):
            size = np.abs(below[:, column])
            smallest = int(np.argmin(np.where(size > 0, size, size.max() + 1)))
            below[[0, smallest]] = below[[smallest, 0]]
            below[1:] -= (below[1:, column] // below[0, column])[:, None] * below[0]
            if not np.any(below[1:, column]):
                break
    return rows[:3]


def _reduced(basis: NDArray[np.int64], lattice: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the shortest three vectors that span the same lattice as a basis, by integer steps.

    In three dimensions a basis is Minkowski-reduced, and so as short as can be, once no vector
    gets shorter by adding or taking away the others at most once.
    """
    basis = basis.copy()
    unchanged, i = 0, 0
    while unchanged < 3:
        others = basis[[(i + 1) % 3, (i + 2) % 3]]
        step = _shortening(basis[i] @ lattice, others @ lattice)
        unchanged = 0 if step.any() else unchanged + 1
        basis[i] += step @ others
        i = (i + 1) % 3
    return basis


def _shortening(vector: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many of two other vectors to add to a vector to make it shortest; zeros if none."""
    nearest = _integer(np.linalg.solve(others @ others.T, -(others @ vector)))
    steps = np.concatenate([_STEPS, nearest + _STEPS])
    squares = np.square(vector + steps @ others).sum(axis=1)
    best = int(np.argmin(squares))
    return steps[best] if squares[best] < (1.0 - _SHORTER) * (vector @ vector) else np.zeros_like(nearest)


def _merged(lattice: NDArray[np.float64], numbers: NDArray[np.int64], frac: NDArray[np.float64]) -> Crystal:
    """Return the crystal of atoms given several times modulo the lattice, each at its mean place."""
    left = np.arange(len(numbers))
    kept, places = [], []
    while left.size:
        first = left[0]
        delta = frac[left] - frac[first]
        delta -= np.round(delta)
        same = np.linalg.norm(delta @ lattice, axis=1) < 0.5 * MIN_ATOM_DISTANCE
        kept.append(numbers[first])
        places.append(frac[first] + delta[same].mean(axis=0))
        left = left[~same]
    return Crystal(lattice, np.array(kept), np.array(places))


def _integer(matrix: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(matrix).astype(np.int64)
