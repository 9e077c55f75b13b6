"""A crystal's symmetry for each Laue group, and checksums of the orientations that follow from it."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from pymatgen.core import Lattice
from pymatgen.symmetry.groups import SpaceGroup
from scipy.spatial.transform import Rotation

from diffractory.scattering.orientations import sample_orientations
from diffractory.specs import OrientationSpec

GROUPS = {
    "P-1": Lattice.from_parameters(4, 5, 6, 80, 95, 105),
    "P2/m": Lattice.monoclinic(4, 5, 6, 105),
    "Pmmm": Lattice.orthorhombic(4, 5, 6),
    "P4/m": Lattice.tetragonal(4, 6),
    "P4/mmm": Lattice.tetragonal(4, 6),
    "P-3": Lattice.hexagonal(4, 6),
    "P-3m1": Lattice.hexagonal(4, 6),
    "P6/m": Lattice.hexagonal(4, 6),
    "P6/mmm": Lattice.hexagonal(4, 6),
    "Pm-3": Lattice.cubic(4),
    "Pm-3m": Lattice.cubic(4),
}


def operations(group: str) -> np.ndarray:
    cell = GROUPS[group].matrix.T
    return np.array(
        [cell @ op.rotation_matrix @ np.linalg.inv(cell) for op in SpaceGroup(group).symmetry_ops]
    )


@cache
@cache
def fingerprints() -> dict[str, str]:
    """Checksums of each Laue group's orientations, by turns in its standard frame and in a general one."""
    spec = OrientationSpec(count=20, in_plane="random", seed=3)
    frames = [np.eye(3), Rotation.from_euler("zxz", [0.3, 1.1, 2.5]).as_matrix()]
    found = {
        group: sample_orientations(frame @ operations(group) @ frame.T, spec, "mp-1")
        for group, frame in zip(GROUPS, frames * len(GROUPS), strict=False)
    }
    drawn = spec.model_copy(update={"axes": "random", "count": 1000})
    found["random axes"] = sample_orientations(operations("P-1"), drawn, "mp-1")
    return {name: hashlib.sha256(matrices.tobytes()).hexdigest() for name, matrices in found.items()}
