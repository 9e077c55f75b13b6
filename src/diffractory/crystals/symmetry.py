"""Laue symmetry of a crystal as Cartesian operations in the crystal's own frame."""

from __future__ import annotations

import os
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import spglib
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

# spglib's C code writes to stderr whenever it has to tighten its tolerance, which is no news to a user.
os.environ.setdefault("SPGLIB_WARNING", "OFF")

#: Distance within which atoms count as symmetry-equivalent, in Å; labels use the same unless told otherwise.
SYMPREC: Final = 0.1
#: Powers of two that a label's own distance may be off by, the nearest first.
_OTHER_SYMPRECS: Final = (-1, 1, -2, 2, -3, 3, *range(-4, -11, -1))
#: Last space group of each Laue class, in the order of the international numbers.
_LAST_NUMBERS: Final = (2, 15, 74, 88, 142, 148, 167, 176, 194, 206, 230)
_CLASSES: Final = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")

#: The 11 Laue classes, by (number of proper rotations, highest rotation order, number of two-fold axes).
_LAUE_CLASSES: Final = {
    (1, 1, 0): "-1",
    (2, 2, 1): "2/m",
    (4, 2, 3): "mmm",
    (4, 4, 1): "4/m",
    (8, 4, 5): "4/mmm",
    (3, 3, 0): "-3",
    (6, 3, 3): "-3m",
    (6, 6, 1): "6/m",
    (12, 6, 7): "6/mmm",
    (12, 3, 3): "m-3",
    (24, 4, 9): "m-3m",
}
#: Rotation order by trace of the proper rotation.
_ORDER_BY_TRACE: Final = {3: 1, -1: 2, 0: 3, 1: 4, 2: 6}


def laue_operations(structure: Structure, symprec: float = SYMPREC) -> NDArray[np.float64]:
    """Return the operations of the Laue group in the structure's Cartesian frame as given.

    Parameters
    ----------
    structure : pymatgen.core.Structure
        Ordered structure in any cell: primitive, centred, skew or a supercell.
    symprec : float
        Distance within which atoms count as equivalent, in Å.

    Returns
    -------
    ndarray of shape (n, 3, 3)
        Orthogonal matrices W acting on column vectors, v' = W v; identity and inversion are among
        them, none occurs twice, and products stay in the set.

    Raises
    ------
    StructureError
        If the structure is no usable crystal or spglib finds no symmetry.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from diffractory.crystals.symmetry import laue_operations
    >>> laue_operations(Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])).shape
    (48, 3, 3)
    """
    return laue_operations_of(Crystal.from_structure(structure), symprec)


def labelled_laue_operations(crystal: Crystal, space_group: int) -> NDArray[np.float64]:
    """Return the operations of the Laue group that a catalogue's label means.

    A label may have been found within another distance than :data:`SYMPREC`: where the Laue class differs,
    ever smaller and larger distances are tried until one gives the labelled class. Where none does (the
    label is the source's own, say), the operations are those within :data:`SYMPREC`.

    Parameters
    ----------
    crystal : Crystal
        Any cell, any frame.
    space_group : int
        International number, 1 … 230.

    Returns
    -------
    ndarray of shape (n, 3, 3)
        As of :func:`laue_operations_of`.

    Raises
    ------
    StructureError
        If spglib finds no symmetry.
    """
    operations = laue_operations_of(crystal)
    labelled = laue_class_of_space_group(space_group)
    if laue_class_of_operations(operations) == labelled:
        return operations
    for symprec in SYMPREC * 2.0 ** np.array(_OTHER_SYMPRECS):
        try:
            other = laue_operations_of(crystal, float(symprec))
        except StructureError:
            continue
        if laue_class_of_operations(other) == labelled:
            return other
    return operations


def laue_class_of_space_group(number: int) -> str:
    """Return the Laue class of a space group by its international number, 1 … 230."""
    return _CLASSES[bisect_left(_LAST_NUMBERS, number)]


def laue_operations_of(crystal: Crystal, symprec: float = SYMPREC) -> NDArray[np.float64]:
    """Return the operations of the Laue group of a crystal; see :func:`laue_operations`.

    A cell that has its symmetry only within ``symprec`` gives rotations that are not quite
    orthogonal. They are made so together, not one by one: the cell is stretched (without
    rotation) to the nearest one whose metric has the symmetry exactly. So the result is a group
    to rounding error.

    Parameters
    ----------
    crystal : Crystal
        Any cell, any frame.
    symprec : float
        Distance within which atoms count as equivalent, in Å.

    Returns
    -------
    ndarray of shape (n, 3, 3)
        Proper rotations first, then each times the inversion; the identity is the first.

    Raises
    ------
    StructureError
        If spglib finds no symmetry.
    """
    rotations = _proper_rotations(crystal, symprec)
    columns = crystal.lattice.T
    cartesian = _symmetrised(columns @ rotations @ np.linalg.inv(columns))
    return np.concatenate([cartesian, -cartesian])


def laue_class(structure: Structure, symprec: float = SYMPREC) -> str:
    """Return the Laue class of a structure: -1, 2/m, mmm, 4/m, 4/mmm, -3, -3m, 6/m, 6/mmm, m-3 or m-3m.

    Parameters
    ----------
    structure : pymatgen.core.Structure
        Ordered structure in any cell.
    symprec : float
        Distance within which atoms count as equivalent, in Å.

    Returns
    -------
    str
        Hermann-Mauguin symbol.

    Raises
    ------
    StructureError
        If the structure is no usable crystal or spglib finds no symmetry.
    """
    return laue_class_of_operations(laue_operations(structure, symprec))


def laue_class_of_operations(operations: NDArray[np.float64]) -> str:
    """Return the Laue class of a set of operations, by the number and orders of its rotations.

    Parameters
    ----------
    operations : ndarray of shape (n, 3, 3)
        All operations of a Laue group in any frame, as :func:`laue_operations` returns them.

    Raises
    ------
    StructureError
        If the operations are not those of one of the 11 Laue groups.
    """
    operations = np.asarray(operations, dtype=np.float64)
    proper = operations[np.linalg.det(operations) > 0]
    traces = np.rint(np.trace(proper, axis1=1, axis2=2)).astype(int)
    orders = [_ORDER_BY_TRACE.get(int(trace), 0) for trace in traces]
    name = _LAUE_CLASSES.get((len(orders), max(orders, default=0), orders.count(2)))
    if name is None or len(operations) != 2 * len(proper):
        raise StructureError(
            f"{len(operations)} operations with rotations of orders {sorted(orders)} are no Laue group",
            "a Laue group holds one of 11 sets of rotations, each also times the inversion",
        )
    return name


@contextmanager
def quiet_spglib() -> Iterator[None]:
    """Silence spglib's announcement, at every call, that its way to report errors will change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING", category=DeprecationWarning)
        yield


def _proper_rotations(crystal: Crystal, symprec: float) -> NDArray[np.float64]:
    """Return the proper rotations of the Laue group in fractional coordinates, identity first.

    They come from the space-group type and the transformation to its standard cell, not from
    the list of operations of the given cell: in a supercell that list lacks those that do not
    map the supercell's lattice onto itself.
    """
    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    with quiet_spglib():
        dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        if dataset is None:
            raise StructureError(
                f"spglib finds no symmetry within {symprec} Å", fix="Try another symprec, or check the cell"
            )
        standard = spglib.get_symmetry_from_database(dataset.hall_number)["rotations"]
    proper = standard * np.rint(np.linalg.det(standard)).astype(int)[:, None, None]
    proper = np.unique(proper, axis=0)
    order = np.argsort(-np.trace(proper, axis1=1, axis2=2), kind="stable")
    to_standard = np.asarray(dataset.transformation_matrix)
    return np.asarray(np.linalg.inv(to_standard) @ proper[order] @ to_standard, dtype=np.float64)


def _symmetrised(operations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make a group of nearly orthogonal matrices exactly orthogonal, keeping it a group.

    With M = mean of Wᵀ W, which every W leaves unchanged, and its root P (the polar part of the
    stretch to the symmetric cell), P W P⁻¹ is orthogonal.
    """
    metric = np.mean(operations.transpose(0, 2, 1) @ operations, axis=0)
    values, vectors = np.linalg.eigh(metric)
    stretch = (vectors * np.sqrt(values)) @ vectors.T
    exact = stretch @ operations @ np.linalg.inv(stretch)
    return np.ascontiguousarray(exact)
