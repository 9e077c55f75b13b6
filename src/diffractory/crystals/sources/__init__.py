"""Sources of structures, one file each; all yield :class:`Candidate`, none raises for one bad entry.

A source says what its entries are, where they come from and under which licence; what the remote ones
share is in ``download`` (pages on disk) and ``retrying_session``. Filters, symmetry and duplicates are the
same for all, and belong to ``crystals.build``. A client library is imported in its source's file alone,
when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from pymatgen.core import DummySpecies, Structure

from diffractory.crystals.crystal import MAX_ATOMIC_NUMBER, MIN_ATOM_DISTANCE, Crystal
from diffractory.errors import StructureError

#: Why a candidate did not enter a catalogue. Closed, so that counts by reason can be compared.
Reason = Literal[
    "unreadable",
    "missing atoms",
    "partial occupancy",
    "unsupported element",
    "overlapping atoms",
    "unusable cell",
    "element filter",
    "symmetry not found",
    "crystal system filter",
    "volume limit",
    "repeated id",
    "duplicate",
    "count limit",
]

#: All reasons, in the order in which they are checked.
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


@dataclass(frozen=True)
class Problem:
    """Why an entry of a source is no crystal.

    Parameters
    ----------
    reason : Reason
        Kind of problem.
    detail : str
        One sentence for people; names the file where there is one.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """One entry of a source: a structure, or the problem with it.

    Parameters
    ----------
    material_id : str
        Name of the entry, unique in its source.
    structure : pymatgen.core.Structure or None
        The structure as the source gives it; None exactly if there is a problem.
    problem : Problem or None
        Why there is no structure.
    source, licence : str
        Where the entry comes from, and under which licence.
    space_group : int or None
        Space-group number the source already knows for this very cell.
    volume_primitive : float or None
        Volume of the primitive cell in Å³ the source already knows.
    """

    material_id: str
    structure: Structure | None
    problem: Problem | None
    source: str
    licence: str
    space_group: int | None = None
    volume_primitive: float | None = None


def printable(name: str) -> str:
    """Return a name that can be stored and printed: what is no text in it, as in old archives, becomes ?."""
    return name.encode("utf-8", "replace").decode()


def problem_of(structure: Structure) -> Problem | None:
    """Say why a structure cannot be simulated.

    Parameters
    ----------
    structure : pymatgen.core.Structure
        Any structure.

    Returns
    -------
    Problem or None
        None if :class:`Crystal` accepts the structure.
    """
    if len(structure) == 0:
        return Problem("missing atoms", "it has no atoms")
    for element in structure.composition.elements:
        if isinstance(element, DummySpecies):
            return Problem("unsupported element", f"{element.symbol!r} is no element")
        if element.Z > MAX_ATOMIC_NUMBER:
            detail = f"no form factors for {element.symbol} (Z = {element.Z} > {MAX_ATOMIC_NUMBER})"
            return Problem("unsupported element", detail)
    try:
        Crystal.from_structure(structure)
    except StructureError as error:
        return Problem(_reason_of_unusable(structure), str(error))
    return None


def _reason_of_unusable(structure: Structure) -> Reason:
    if not structure.is_ordered:
        return "partial occupancy"
    finite = np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()
    if finite and structure.volume > 0 and not structure.is_valid(tol=MIN_ATOM_DISTANCE):
        return "overlapping atoms"
    return "unusable cell"
