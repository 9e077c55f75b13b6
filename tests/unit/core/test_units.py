import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import constants

from diffractory.units import electron_wavelength


@pytest.mark.parametrize(("energy_ev", "angstrom"), [(100e3, 0.037014), (200e3, 0.025079), (300e3, 0.019687)])
def test_known_wavelengths(energy_ev: float, angstrom: float) -> None:
    assert electron_wavelength(energy_ev) == pytest.approx(angstrom, abs=5e-7)


@given(st.floats(1e3, 1e7))
def test_it_is_the_relativistic_de_broglie_wavelength(energy_ev: float) -> None:
    energy, mass, c = energy_ev * constants.e, constants.m_e, constants.c
    momentum = math.sqrt(2.0 * mass * energy * (1.0 + energy / (2.0 * mass * c**2)))
    assert electron_wavelength(energy_ev) == pytest.approx(constants.h / momentum * 1e10, rel=1e-8)
