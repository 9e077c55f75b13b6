"""Finding crystals that occur more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher


class DuplicateFinder:
    """Tells whether a crystal was seen before.

    Two crystals are duplicates if they have the same reduced formula, space group and number of
    atoms in the primitive cell, and pymatgen's StructureMatcher (its default tolerances, cells
    scaled to the same volume) maps one onto the other. The first three cost nothing and must
    agree for the fourth to hold, so that only few pairs are ever compared. Structures are rebuilt
    from their rows when needed: the finder holds no structure of its own.
    """

    def __init__(self) -> None:
        self._matcher = StructureMatcher()
        self._groups: defaultdict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)

    def first_like(self, row: Mapping[str, Any]) -> str | None:
        """Return the id of an earlier row with the same structure, or None and remember this one.

        Parameters
        ----------
        row : mapping
            Row of a catalogue.
        """
        n_primitive = round(row["n_sites"] * row["volume_primitive"] / row["volume"])
        group = self._groups[row["formula"], row["space_group"], n_primitive]
        if group:
            structure = _structure(row)
            for earlier in group:
                if self._matcher.fit(_structure(earlier), structure):
                    return str(earlier["material_id"])
        group.append(row)
        return None


def _structure(row: Mapping[str, Any]) -> Structure:
    return Structure(row["lattice"], row["species"], np.asarray(row["frac_coords"], dtype=np.float64))
