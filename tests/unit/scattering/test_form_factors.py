from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec
from diffractory.scattering.form_factors import (
    LobatoTable,
    WeickenmeierKohlTable,
    form_factors,
    lobato_table,
    weickenmeier_kohl_table,
)
from diffractory.scattering.structure_factors import structure_factors

#: Bohr radius in Å.
BOHR = 0.529177210903
G = np.linspace(0.0, 4.0, 401)


def factor_of(number: int, **spec: object) -> np.ndarray:
    return form_factors(np.array([number]), SimulationSpec(**spec))[number](G)


@pytest.mark.parametrize("number", [1, 6, 29, 55, 79, 98])
def test_lobato_sees_the_bare_nucleus_at_large_angles(number: int) -> None:
    # Mott and Bethe: f → Z / (2π² a_0 g²), whatever the electrons do.
    table = lobato_table(number, 300e3)
    far = table.form_factor()(np.array([1e4]))[0]
    assert_allclose(far.real * 1e8 * np.pi / table.relativistic, number / (2 * np.pi**2 * BOHR), rtol=1e-5)


@pytest.mark.parametrize("number", [1, 8, 26, 79])
def test_the_two_parametrisations_describe_the_same_atoms(number: int) -> None:
    lobato = factor_of(number, form_factors="lobato").real
    at_rest = factor_of(number, form_factors="wk", thermal_sigma=0.0).real
    # Weickenmeier-Kohl's pieces jump by some per cent.
    assert np.median(np.abs(at_rest / lobato - 1.0)) < 0.02
    assert np.abs(at_rest / lobato - 1.0).max() < 0.2


@pytest.mark.parametrize("number", [8, 14, 29, 56, 79])
def test_the_exact_model_is_smooth_and_the_default_is_py4dstem_s(number: int) -> None:
    exact, default = (factor_of(number, form_factors=m, thermal_sigma=0.0).real for m in ("wk-exact", "wk"))
    lobato = factor_of(number, form_factors="lobato").real
    assert np.all(np.diff(exact) < 0.0)
    assert np.abs(np.diff(exact, 2)).max() < 0.2 * np.abs(np.diff(default, 2)).max()
    assert_allclose(exact[0], default[0], rtol=1e-12)
    # py4DSTEM's linear piece is below the exponential it stands for.
    assert np.all(default <= exact * (1.0 + 1e-12))
    assert 0.1 < np.max(1.0 - default / exact) < 0.2
    assert np.abs(exact / lobato - 1.0).max() < np.abs(default / lobato - 1.0).max()


def test_the_exact_model_is_the_published_sum() -> None:
    table = weickenmeier_kohl_table(29, 300e3, 0.08, 4.0, absorption=False, linear_below=0.0)
    g = np.array([1e-7, 0.03, 0.4, 1.7, 3.9])
    x = table.widths * (0.5 * g[:, None]) ** 2
    shapes = np.sum(table.amplitudes * table.widths * np.where(x < 1e-9, 1.0, -np.expm1(-x) / x), axis=1)
    ratio = table.form_factor()(g).real / (shapes * np.exp(-2.0 * (np.pi * 0.08 * g) ** 2))
    assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_the_exact_model_absorbs_almost_the_same_and_smoothly() -> None:
    exact, default = (factor_of(26, form_factors=m) for m in ("wk-cp-exact", "wk-cp"))
    assert np.array_equal(exact.real, factor_of(26, form_factors="wk-exact").real)
    largest = default.imag.max()
    assert 0.0 < np.abs(exact.imag - default.imag).max() < 1e-3 * largest
    g = np.arange(0.3, 3.9, 1e-3)
    jumps = [
        np.abs(np.diff(weickenmeier_kohl_table(26, 300e3, 0.08, 4.0, True, below).form_factor()(g).imag, 2))
        for below in (0.0, 1.0)
    ]
    # The second difference of a smooth function is that of its curvature.
    assert jumps[0].max() < 1e-5 * largest < 5e-5 * largest < jumps[1].max()


def test_lobato_is_elastic_and_at_rest() -> None:
    still = factor_of(26, form_factors="lobato", thermal_sigma=0.0)
    assert np.array_equal(still, factor_of(26, form_factors="lobato", thermal_sigma=0.3))
    assert not still.imag.any()
    assert np.all(np.diff(still.real) < 0.0)


def test_models_differ_in_motion_and_absorption() -> None:
    still, moving = (factor_of(26, form_factors="wk", thermal_sigma=u) for u in (0.0, 0.1))
    assert_allclose(moving, still * np.exp(-2.0 * (np.pi * 0.1 * G) ** 2), rtol=1e-12)
    assert not still.imag.any()
    lossy = factor_of(26, form_factors="wk-cp", thermal_sigma=0.1)
    assert np.array_equal(lossy.real, moving.real)
    assert lossy.imag[0] > 0.0


@pytest.mark.parametrize("model", ["wk", "lobato"])
def test_factors_grow_with_the_electron_s_mass(model: str) -> None:
    slow, fast = (factor_of(26, form_factors=model, energy_ev=e).real for e in (100e3, 300e3))
    assert_allclose(fast / slow, (1 + 300 / 511) / (1 + 100 / 511), rtol=1e-5)


def test_tables_can_be_handed_in_without_py4dstem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py4DSTEM", None)
    grid = np.arange(0.0, 4.1, 0.01)
    elastic = LobatoTable(np.full(5, 0.2), np.full(5, 0.5), 1.5)
    lossy = WeickenmeierKohlTable(np.full(4, 0.5), np.full(4, 8.0), 1.5, 0.05, grid, 0.01 * np.exp(-grid))
    crystal = Crystal(4.0 * np.eye(3), [11, 17], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    factors = structure_factors(crystal, 2.0, {11: elastic.form_factor(), 17: lossy.form_factor()})
    # Both at g = 0: Σ 2 a γ / π, and 4π γ Σ A B in py4DSTEM's units with the table's own absorption.
    u_zero = factors.of(np.zeros(3, dtype=int)) * crystal.volume
    assert_allclose(u_zero, 2.0 * 1.5 / np.pi + 1.5 * 16.0 * 0.4787801 * 0.664840340614319 + 0.01j, rtol=1e-9)
