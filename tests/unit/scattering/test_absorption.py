from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import dblquad

from diffractory.scattering.absorption import _lost_pairs, absorptive_form_factor

#: Much like copper's: amplitudes in Å⁻¹, widths in Å².
AMPLITUDES = np.array([0.06, 0.16, 0.24, 0.05])
WIDTHS = np.array([0.4, 2.6, 9.8, 43.0])


def absorbed(g: np.ndarray, sigma: float = 0.08, energy_ev: float = 300e3, exact: bool = True) -> np.ndarray:
    return absorptive_form_factor(g, 29, AMPLITUDES, WIDTHS, energy_ev, sigma, exact=exact)


def integral(alpha: tuple[float, float], beta: tuple[float, float], squared: float) -> float:
    def integrand(b: float, a: float) -> float:
        return np.pi / (a + b) * np.exp(-a * b / (a + b) * squared)

    return dblquad(integrand, *alpha, *beta, epsabs=1e-10, epsrel=1e-10)[0]


@pytest.mark.parametrize("squared", [1e-5, 0.02, 1.0, 60.0, 1500.0])
@pytest.mark.parametrize("offset", [0.003, 0.02])
def test_the_closed_form_is_the_integral(squared: float, offset: float) -> None:
    strength, width = np.array([1.5, 0.4]), np.array([0.01, 0.3])
    expected = sum(
        strength[i]
        * strength[j]
        * integral((offset, offset + width[i]), (offset, offset + width[j]), squared)
        for i in range(2)
        for j in range(2)
    )
    found = _lost_pairs(np.array([squared]), strength, width, offset, exact=True)
    assert_allclose(found, expected, rtol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.3), st.floats(30e3, 1e6))
def test_absorption_is_smooth_positive_forward_and_finite(sigma: float, energy_ev: float) -> None:
    g = np.linspace(0.0, 12.0, 6001)
    values = absorbed(g, sigma, energy_ev)
    assert np.all(np.isfinite(values))
    assert values[0] == values.max() > 0.0
    # Of a smooth function, the second difference is a quarter at half the step.
    assert np.abs(np.diff(values, 2)).max() < 0.3 * np.abs(np.diff(values[::2], 2)).max()


def test_atoms_at_rest_lose_electrons_to_their_cores_only() -> None:
    g = np.linspace(0.0, 4.0, 401)
    still, moving = absorbed(g, 0.0), absorbed(g, 0.08)
    assert 0.0 < still[0] < 0.8 * moving[0]
    # The limit is reached without a jump.
    assert_allclose(absorbed(g, 1e-4), still, atol=1e-4 * moving[0])


def test_the_series_near_the_direct_beam_joins() -> None:
    # Where the series near g = 0 hands over, values are continuous.
    g = np.linspace(0.0, 0.02, 2001)
    assert np.abs(np.diff(absorbed(g), 2)).max() < 1e-7 * absorbed(g)[0]


def test_the_approximations_are_small_ones() -> None:
    g = np.linspace(0.0, 6.0, 6001)
    exact, approximate = absorbed(g), absorbed(g, exact=False)
    off = np.abs(exact - approximate)
    assert 1e-6 * exact[0] < off.max() < 1e-3 * exact[0]
