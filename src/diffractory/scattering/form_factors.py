"""Electron form factors: Weickenmeier-Kohl, elastic and absorptive, and Lobato-Van Dyck.

The parameters lie beside this module, the same as py4DSTEM's. py4DSTEM takes (1 − e⁻ˣ)/x in
Weickenmeier-Kohl's elastic fit as 1 − x/2 up to x = 1, which makes f up to 16 % too small below and lets
it jump by up to 0.4 Å there. The models "wk" and "wk-cp" do the same, because the paper did; "wk-exact"
and "wk-cp-exact" do not. Either way it is evaluated and never interpolated. The absorptive part costs
microseconds a point and is smooth to 1e-4, so it is tabulated and splined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.scattering.absorption import absorptive_form_factor
from diffractory.specs import FormFactorModel, SimulationSpec
from diffractory.units import ELECTRON_REST_ENERGY_EV

#: Form factor of an element: |g| in Å⁻¹, of shape (n,), to complex f in Å.
FormFactor = Callable[[NDArray[np.float64]], NDArray[np.complex128]]
#: Distance of the absorptive table's points, in Å⁻¹.
_TABLE_STEP = 1e-3
#: Conversion of Weickenmeier-Kohl's potential to f in Å, with the factors py4DSTEM uses.
_TO_ANGSTROM = 0.4787801 * 0.664840340614319 / (4.0 * np.pi)


@dataclass(frozen=True, eq=False)
class WeickenmeierKohlTable:
    """All numbers that define one element's form factor; plain arrays, so they can be handed in.

    Parameters
    ----------
    amplitudes, widths : ndarray of shape (4,)
        Weickenmeier-Kohl's A_i and B_i (Å²).
    relativistic : float
        Ratio of relativistic to rest mass.
    thermal_sigma : float
        Root-mean-square displacement in Å.
    g : ndarray of shape (n,)
        Uniform grid of |g| in Å⁻¹, from 0.
    absorptive : ndarray of shape (n,)
        Imaginary part of f on that grid, in Å.
    linear_below : float
        (1 − e⁻ˣ)/x is taken as 1 − x/2 below this x: 1 in py4DSTEM, 0.1 in EMsoft, 0 for what was published.

    References
    ----------
    Weickenmeier and Kohl, Acta Cryst. A47, 590 (1991).
    """

    amplitudes: NDArray[np.float64]
    widths: NDArray[np.float64]
    relativistic: float
    thermal_sigma: float
    g: NDArray[np.float64]
    absorptive: NDArray[np.float64]
    linear_below: float = 1.0

    def form_factor(self) -> FormFactor:
        """Return f(|g|) as a function, for |g| on the grid."""
        # Takes a second to import, and those who only plan or look do not need it.
        from scipy.interpolate import CubicSpline

        scale = 4.0 * np.pi * self.relativistic * _TO_ANGSTROM
        damping = 0.5 * (2.0 * np.pi * self.thermal_sigma) ** 2
        step = self.g[1] - self.g[0]
        pieces = np.ascontiguousarray(CubicSpline(self.g, self.absorptive).c.T)

        def evaluate(g: NDArray[np.float64]) -> NDArray[np.complex128]:
            values: NDArray[np.complex128] = _weickenmeier_kohl(
                g, self.amplitudes, self.widths, scale, damping, step, pieces, self.linear_below
            )
            return values

        return evaluate


@njit(cache=True, nogil=True)
def _weickenmeier_kohl(
    g: NDArray[np.float64],
    amplitudes: NDArray[np.float64],
    widths: NDArray[np.float64],
    scale: float,
    damping: float,
    step: float,
    pieces: NDArray[np.float64],
    linear_below: float,
) -> NDArray[np.complex128]:
    values = np.empty(len(g), dtype=np.complex128)
    for point in range(len(g)):
        squared = g[point] ** 2
        total = 0.0
        for i in range(len(amplitudes)):
            x = 0.25 * widths[i] * squared
            # (1 - exp(-x)) / x; expm1 keeps its digits near 0, and the linear piece there is exact.
            if x < max(linear_below, 1e-9):
                shape = 1.0 - 0.5 * x
            elif x > 20.0:
                shape = 1.0 / x
            else:
                shape = -np.expm1(-x) / x
            total += amplitudes[i] * widths[i] * shape
        piece = min(int(g[point] / step), len(pieces) - 1)
        t = g[point] - piece * step
        cubic = ((pieces[piece, 0] * t + pieces[piece, 1]) * t + pieces[piece, 2]) * t + pieces[piece, 3]
        values[point] = complex(scale * np.exp(-damping * squared) * total, cubic)
    return values


@dataclass(frozen=True, eq=False)
class LobatoTable:
    """All numbers that define one element's elastic form factor for atoms at rest; plain arrays.

    Parameters
    ----------
    amplitudes, widths : ndarray of shape (5,)
        Lobato and Van Dyck's a_i (Å) and b_i (Å²): f = Σ a_i (2 + b_i g²) / (1 + b_i g²)² for an
        electron at rest.
    relativistic : float
        Ratio of relativistic to rest mass.

    References
    ----------
    Lobato and Van Dyck, Acta Cryst. A70, 636 (2014).
    """

    amplitudes: NDArray[np.float64]
    widths: NDArray[np.float64]
    relativistic: float

    def form_factor(self) -> FormFactor:
        """Return f(|g|) as a function; U_g = γ f / (π V), so γ / π is in f."""

        def evaluate(g: NDArray[np.float64]) -> NDArray[np.complex128]:
            values: NDArray[np.complex128] = _lobato(
                g, self.amplitudes, self.widths, self.relativistic / np.pi
            )
            return values

        return evaluate


@njit(cache=True, nogil=True)
def _lobato(
    g: NDArray[np.float64], amplitudes: NDArray[np.float64], widths: NDArray[np.float64], scale: float
) -> NDArray[np.complex128]:
    values = np.empty(len(g), dtype=np.complex128)
    for point in range(len(g)):
        total = 0.0
        for i in range(len(amplitudes)):
            x = widths[i] * g[point] ** 2
            total += amplitudes[i] * (2.0 + x) / (1.0 + x) ** 2
        values[point] = scale * total
    return values


def weickenmeier_kohl_table(
    number: int,
    energy_ev: float,
    thermal_sigma: float,
    g_max: float,
    absorption: bool,
    linear_below: float = 1.0,
) -> WeickenmeierKohlTable:
    """Tabulate one element (some hundredths of a second with absorption).

    Parameters
    ----------
    number : int
        Atomic number, 1 … 98.
    energy_ev : float
        Beam energy in eV.
    thermal_sigma : float
        Root-mean-square displacement in Å.
    g_max : float
        Largest |g| needed, in Å⁻¹.
    absorption : bool
        Include core and phonon absorption.
    linear_below : float
        As in :class:`WeickenmeierKohlTable`; with 0 the absorptive integrals are exact too.
    """
    amplitudes, widths = np.split(_parameters("weickenmeier_kohl")[number - 1], 2)
    g = np.arange(0.0, g_max + 2 * _TABLE_STEP, _TABLE_STEP)
    relativistic = (energy_ev / 1e3 + 511.0) / 511.0
    absorptive = np.zeros_like(g)
    if absorption:
        exact = linear_below == 0.0
        absorptive = absorptive_form_factor(
            g, number, amplitudes, widths, energy_ev, thermal_sigma, exact=exact
        )
    return WeickenmeierKohlTable(
        amplitudes,
        widths,
        relativistic,
        thermal_sigma,
        g,
        relativistic**2 * _TO_ANGSTROM * absorptive,
        linear_below,
    )


def lobato_table(number: int, energy_ev: float) -> LobatoTable:
    """Return one element's parameters.

    Parameters
    ----------
    number : int
        Atomic number, 1 … 103.
    energy_ev : float
        Beam energy in eV.
    """
    amplitudes, widths = np.split(_parameters("lobato_van_dyck")[number - 1], 2)
    return LobatoTable(amplitudes, widths, 1.0 + energy_ev / ELECTRON_REST_ENERGY_EV)


@cache
def _parameters(name: str) -> NDArray[np.float64]:
    """Return the amplitudes and widths of all elements, (n_elements, 2 n_terms)."""
    text = resources.files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    rows = [line.split(",")[1:] for line in text.splitlines() if line[0].isdigit()]
    return np.array(rows, dtype=np.float64)


def form_factors(numbers: NDArray[np.int64], spec: SimulationSpec) -> dict[int, FormFactor]:
    """Return the form factor of every element of a crystal.

    Parameters
    ----------
    numbers : ndarray of int
        Atomic numbers, repeated ones allowed.
    spec : SimulationSpec
        Energy, range and model, and for Weickenmeier-Kohl the thermal displacement.
    """
    return {
        int(number): _form_factor(
            int(number), spec.form_factors, spec.energy_ev, spec.thermal_sigma, 2.0 * spec.q_max
        )
        for number in np.unique(numbers)
    }


@lru_cache(maxsize=512)
def _form_factor(
    number: int, model: FormFactorModel, energy_ev: float, thermal_sigma: float, g_max: float
) -> FormFactor:
    if model == "lobato":
        return lobato_table(number, energy_ev).form_factor()
    table = weickenmeier_kohl_table(
        number,
        energy_ev,
        thermal_sigma,
        g_max,
        absorption=model.startswith("wk-cp"),
        linear_below=0.0 if model.endswith("exact") else 1.0,
    )
    return table.form_factor()
