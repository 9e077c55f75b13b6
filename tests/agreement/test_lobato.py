"""Lobato-Van Dyck form factors: our intensities against py4DSTEM's own simulation with them."""

from __future__ import annotations

import numpy as np
import pytest
from emdfile import PointList
from numpy.testing import assert_allclose
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal

from diffractory import Crystal, SimulationSpec, simulate
from zoo import ZOO, random_rotation

#: The bound of the project.
BOUND = 1e-5
THICKNESSES = (200.0, 1000.0)
#: With 4.0 py4DSTEM lists too few indices in skew cells and leaves out couplings as short as 3.75 Å⁻¹.
#: No two beams are more than 4.0 apart, so a larger limit only fills these in.
K_MAX = 5.0
#: Centric and acentric, orthogonal and skew, centred and primitive.
CRYSTALS = [
    "cubic-F-c-copper",
    "cubic-F-a-GaAs",
    "cubic-skew-primitive-a-GaAs",
    "cubic-P-a-FeSi",
    "trigonal-R-c-bismuth",
    "trigonal-P-a-quartz",
    "tetragonal-P-c-rutile",
    "orthorhombic-A-a-KNbO3",
    "monoclinic-P-c-zirconia",
    "monoclinic-C-a-invented",
    "triclinic-P-c-invented",
    "triclinic-P-a-invented",
]


def reference_intensities(
    crystal: Crystal, hkl: np.ndarray, zone_axis: np.ndarray, energy_ev: float
) -> np.ndarray:
    reference = ReferenceCrystal(crystal.frac_coords, crystal.numbers, crystal.lattice)
    reference.setup_diffraction(energy_ev)
    reference.calculate_dynamical_structure_factors(
        energy_ev, "Lobato", k_max=K_MAX, tol_structure_factor=0.0
    )
    fields = [("qx", float), ("qy", float), ("intensity", float), ("h", int), ("k", int), ("l", int)]
    beams = np.zeros(len(hkl), dtype=fields)
    for column, name in enumerate("hkl"):
        beams[name] = hkl[:, column]
    patterns = reference.generate_dynamical_diffraction_pattern(
        PointList(beams), list(THICKNESSES), zone_axis_cartesian=zone_axis, always_return_list=True
    )
    return np.array([pattern.data["intensity"] for pattern in patterns])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("energy_ev", [100e3, 200e3, 300e3])
@pytest.mark.parametrize("name", CRYSTALS)
def test_intensities_equal_py4dstem(name: str, energy_ev: float) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    orientation = random_rotation(len(name))
    spec = SimulationSpec(energy_ev=energy_ev, thicknesses=THICKNESSES, form_factors="lobato")
    (pattern,) = simulate(crystal, orientation[None], spec)
    expected = reference_intensities(crystal, pattern.hkl, orientation[:, 2], energy_ev)
    assert len(pattern) > 10
    assert pattern.solver == "chebyshev"
    assert_allclose(pattern.intensity, expected, rtol=0, atol=BOUND)
