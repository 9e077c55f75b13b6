"""Lobato-Van Dyck form factors: our intensities against py4DSTEM's own simulation with them."""

from __future__ import annotations

import pytest
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec, simulate
from py4dstem_reference import reference_crystal, reference_intensities
from zoo import ZOO, random_rotation

#: The bound of the project.
BOUND = 1e-5
THICKNESSES = (200.0, 1000.0)
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("energy_ev", [100e3, 200e3, 300e3])
@pytest.mark.parametrize("name", CRYSTALS)
def test_intensities_equal_py4dstem(name: str, energy_ev: float) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    orientation = random_rotation(len(name))
    spec = SimulationSpec(energy_ev=energy_ev, thicknesses=THICKNESSES, form_factors="lobato")
    (pattern,) = simulate(crystal, orientation[None], spec)
    reference = reference_crystal(crystal, "Lobato", energy_ev)
    expected = reference_intensities(reference, pattern.hkl, orientation[:, 2], THICKNESSES)
    assert len(pattern) > 10
    assert pattern.solver == "chebyshev"
    assert_allclose(pattern.intensity, expected, rtol=0, atol=BOUND)
