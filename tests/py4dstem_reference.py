"""py4DSTEM's own Bloch-wave simulation of the beams that this package chose."""

from __future__ import annotations

from typing import Any

import numpy as np
from emdfile import PointList
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal

from diffractory import Crystal

#: With 4.0 py4DSTEM lists too few indices in skew cells and leaves out couplings as short as 3.75 Å⁻¹.
#: No two beams are more than 4.0 apart, so a larger limit only fills these in.
K_MAX = 5.0


def reference_crystal(
    crystal: Crystal, method: str, energy_ev: float = 300e3, k_max: float = K_MAX, **options: Any
) -> ReferenceCrystal:
    """Return py4DSTEM's crystal with its structure factors; options are those of their calculation."""
    reference = ReferenceCrystal(crystal.frac_coords, crystal.numbers, crystal.lattice)
    reference.setup_diffraction(energy_ev)
    reference.calculate_dynamical_structure_factors(
        energy_ev, method, k_max=k_max, tol_structure_factor=0.0, **options
    )
    return reference


def reference_intensities(
    reference: ReferenceCrystal,
    hkl: np.ndarray,
    zone_axis: np.ndarray,
    thicknesses: tuple[float, ...],
    foil_normal: np.ndarray | None = None,
) -> np.ndarray:
    """Return the intensities of some beams, of shape (n_thicknesses, n)."""
    fields = [("qx", float), ("qy", float), ("intensity", float), ("h", int), ("k", int), ("l", int)]
    beams = np.zeros(len(hkl), dtype=fields)
    for column, name in enumerate("hkl"):
        beams[name] = hkl[:, column]
    patterns = reference.generate_dynamical_diffraction_pattern(
        PointList(beams),
        list(thicknesses),
        zone_axis_cartesian=zone_axis,
        foil_normal_cartesian=foil_normal,
        always_return_list=True,
    )
    return np.array([pattern.data["intensity"] for pattern in patterns])
