"""py4DSTEM's Bloch-wave simulation, with the paper's settings and without what it prints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from emdfile import PointList
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal

from diffractory import Crystal


def py4dstem_crystal(crystal: Crystal, method: str = "WK-CP", k_max: float = 4.0) -> ReferenceCrystal:
    """Prepare py4DSTEM's crystal: 300 keV, and atoms that move by 0.08 Å."""
    with contextlib.redirect_stdout(io.StringIO()):
        reference = ReferenceCrystal(crystal.frac_coords, crystal.numbers, crystal.lattice)
        reference.setup_diffraction(300e3)
        reference.calculate_dynamical_structure_factors(
            300e3, method, k_max=k_max, thermal_sigma=0.08, tol_structure_factor=0.0
        )
    return reference


def py4dstem_intensities(
    reference: ReferenceCrystal,
    hkl: np.ndarray,
    zone_axis: np.ndarray,
    thicknesses: Sequence[float],
    **options: Any,
) -> np.ndarray:
    """Return py4DSTEM's intensities of the given beams, (n_thicknesses, n)."""
    fields = [("qx", float), ("qy", float), ("intensity", float), ("h", int), ("k", int), ("l", int)]
    beams = np.zeros(len(hkl), dtype=fields)
    for column, name in enumerate("hkl"):
        beams[name] = hkl[:, column]
    with contextlib.redirect_stdout(io.StringIO()):
        patterns = reference.generate_dynamical_diffraction_pattern(
            PointList(beams),
            list(thicknesses),
            zone_axis_cartesian=zone_axis,
            always_return_list=True,
            **options,
        )
    return np.array([pattern.data["intensity"] for pattern in patterns])
