"""The crystals and orientations of ``accuracy.py``."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import spglib

from diffractory import Catalogue, Crystal
from diffractory.crystals.symmetry import SYMPREC, quiet_spglib
from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.scattering.orientations import minimal_rotations
from diffractory.scattering.primitive import primitive_cell


def progress(text: str) -> None:
    """Say how far the script is."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class Sample:
    """One crystal and the orientations it is looked at in."""

    name: str
    formula: str
    kind: str
    crystal: Crystal
    orientations: dict[str, np.ndarray]

    @property
    def heaviest(self) -> int:
        """Atomic number of the heaviest element."""
        return int(self.crystal.numbers.max())

    @property
    def label(self) -> dict[str, str]:
        """What a row of the result says of the crystal."""
        return {"material": self.name, "formula": self.formula, "kind": self.kind}


def samples(catalogue: Catalogue, volume: float, primitive: bool, without: Sequence[Sample]) -> list[Sample]:
    """Return the crystal of each class whose primitive volume is nearest to one aimed at.

    A class is a crystal system, and whether there is a centre of inversion.
    """
    table, taken = catalogue.table, {sample.name for sample in without}
    distance = np.abs(np.log(table["volume_primitive"].to_numpy(dtype=float) / volume))
    found: dict[str, Sample] = {}
    for index in np.argsort(distance, kind="stable"):
        # Far larger ones would take their time and tell nothing new.
        if table["material_id"].iloc[index] in taken or distance[index] > math.log(2.5):
            continue
        sample = catalogue_sample(catalogue, int(index), primitive)
        found.setdefault(sample.kind, sample)
    kinds = [f"{system}, {c}" for system in CRYSTAL_SYSTEMS for c in ("centric", "acentric")]
    return [found[kind] for kind in kinds if kind in found]


def catalogue_sample(catalogue: Catalogue, index: int, primitive: bool) -> Sample:
    """Return a crystal of the catalogue, in the cell it is listed in or in its primitive cell."""
    row, crystal = catalogue.table.iloc[index], catalogue.crystal(index)
    kind = f"{row['crystal_system']}, {'centric' if is_centric(crystal) else 'acentric'}"
    crystal = primitive_cell(crystal).crystal if primitive else crystal
    return Sample(row["material_id"], row["formula"], kind, crystal, orientations(row, crystal))


def is_centric(crystal: Crystal) -> bool:
    """Return whether a crystal has a centre of inversion."""
    with quiet_spglib():
        cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
        rotations = spglib.get_symmetry(cell, symprec=SYMPREC)["rotations"]
    return bool((rotations == -np.eye(3)).all(axis=(1, 2)).any())


def orientations(row: Any, crystal: Crystal) -> dict[str, np.ndarray]:
    """Return orientations along the densest rows of atoms, 2° off them, and along two random directions."""
    vectors = primitive_cell(crystal).crystal.lattice
    zone = vectors[np.argmin(np.linalg.norm(vectors, axis=1))]
    zone = zone / np.linalg.norm(zone)
    random = np.random.default_rng(zlib.crc32(row["material_id"].encode())).normal(size=(3, 3))
    sideways = np.cross(zone, random[2])
    off = zone + np.tan(np.deg2rad(2.0)) * sideways / np.linalg.norm(sideways)
    axes = np.array([zone, off, *random[:2]])
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    names = ("on zone", "2 degrees off", "random", "another random")
    return dict(zip(names, minimal_rotations(axes), strict=True))
