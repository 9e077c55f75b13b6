"""Kinematical patterns: what dynamical ones become in foils so thin that nothing is scattered twice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec, simulate, simulate_kinematic
from diffractory.errors import OrientationError
from zoo import ZOO, random_rotation

CONDITIONS = {
    "upright": {},
    "tilted foil": {"foil_tilt_deg": (20.0, -10.0)},
    "precessed": {"precession_deg": 1.0, "precession_azimuths": 12},
    "absorbing": {"form_factors": "wk-cp"},
}


@pytest.mark.parametrize("name", ["cubic-F-a-GaAs", "triclinic-P-a-invented"])
@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_thin_foils_scatter_so(name: str, condition: str) -> None:
    crystal, orientation = Crystal.from_structure(ZOO[name]), random_rotation(7)[None]
    settings = {"thicknesses": (0.5,), "q_max": 1.5, "form_factors": "wk", **CONDITIONS[condition]}
    spec = SimulationSpec(**settings)
    (dynamical,), (single,) = (
        simulate(crystal, orientation, spec),
        simulate_kinematic(crystal, orientation, spec),
    )
    assert single.hkl.tolist() == dynamical.hkl.tolist()
    assert_allclose(single.q, dynamical.q)
    largest = single.intensity[0, 1:].max()
    assert largest > 0.0
    # Absorption changes intensities even of thin foils, a little.
    tolerance = 0.1 if condition == "absorbing" else 0.03
    assert_allclose(dynamical.intensity[0, 1:], single.intensity[0, 1:], atol=tolerance * largest)


def test_intensities_oscillate_with_the_excitation_error_and_the_direct_beam_stays() -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    (pattern,) = simulate_kinematic(
        crystal, np.eye(3)[None], SimulationSpec(thicknesses=(50.0, 100.0, 2000.0))
    )
    assert pattern.intensity[:, 0].tolist() == [1.0, 1.0, 1.0]
    assert pattern.solver == "kinematic"
    # sin² of π s t and of 2 π s t: the ratio tells the excitation error, which gives the third back.
    thin, double, thick = pattern.intensity[:, 1:]
    used = thin > 1e-4 * thin.max()
    error = np.arccos(np.clip(np.sqrt(double / thin) / 2.0, 0.0, 1.0))[used] / (50.0 * np.pi)
    amplitude = thin[used] / np.sin(np.pi * error * 50.0) ** 2
    rows = error < 0.008  # before the cosine's sign is lost
    assert rows.any()
    expected = amplitude[rows] * np.sin(np.pi * error[rows] * 2000.0) ** 2
    assert_allclose(thick[used][rows], expected, rtol=1e-6, atol=1e-9)


def test_an_orientation_that_is_none_is_refused() -> None:
    with pytest.raises(OrientationError):
        simulate_kinematic(Crystal.from_structure(ZOO["cubic-F-c-copper"]), 2.0 * np.eye(3)[None])
