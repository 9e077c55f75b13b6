import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import constants

from diffractory.units import electron_wavelength, human_bytes, human_seconds


@pytest.mark.parametrize(("energy_ev", "angstrom"), [(100e3, 0.037014), (200e3, 0.025079), (300e3, 0.019687)])
def test_known_wavelengths(energy_ev: float, angstrom: float) -> None:
    assert electron_wavelength(energy_ev) == pytest.approx(angstrom, abs=5e-7)


@given(st.floats(1e3, 1e7))
def test_it_is_the_relativistic_de_broglie_wavelength(energy_ev: float) -> None:
    energy, mass, c = energy_ev * constants.e, constants.m_e, constants.c
    momentum = math.sqrt(2.0 * mass * energy * (1.0 + energy / (2.0 * mass * c**2)))
    assert electron_wavelength(energy_ev) == pytest.approx(constants.h / momentum * 1e10, rel=1e-8)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (1e9, "1.0 GB"), (7e15, "7000.0 TB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "1.5 min"), (5399, "90.0 min"), (5400, "1.5 h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@given(st.floats(1e3, 9.9e14))
def test_bytes_are_not_off_by_a_prefix(count: float) -> None:
    number, unit = human_bytes(count).split()
    factor = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * factor == pytest.approx(count, rel=0.06)
