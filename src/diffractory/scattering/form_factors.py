"""Electron form factors after Weickenmeier and Kohl, elastic and absorptive.

The parameters and the absorptive integrals come from py4DSTEM; the elastic part is evaluated here
from the same parameters. The elastic fit is piecewise in py4DSTEM (as in EMsoft before it) and
jumps by up to 0.4 Å where a piece ends, so it must be evaluated and never interpolated. The
absorptive part costs microseconds a point and is smooth to 1e-4, so it is tabulated and splined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from diffractory.specs import SimulationSpec

#: Form factor of an element: |g| in Å⁻¹ (any shape) to complex f in Å.
FormFactor = Callable[[NDArray[np.float64]], NDArray[np.complex128]]
#: Distance of the absorptive table's points, in Å⁻¹.
_TABLE_STEP = 1e-3
#: Conversion of Weickenmeier-Kohl's potential to f in Å, with the factors py4DSTEM uses.
_TO_ANGSTROM = 0.4787801 * 0.664840340614319 / (4.0 * np.pi)


@dataclass(frozen=True, eq=False)
class ElementTable:
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
        Uniform grid of |g| in Å⁻¹.
    absorptive : ndarray of shape (n,)
        Imaginary part of f on that grid, in Å.

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

    def form_factor(self) -> FormFactor:
        """Return f(|g|) as a function."""
        imaginary = CubicSpline(self.g, self.absorptive) if np.any(self.absorptive) else None

        def evaluate(g: NDArray[np.float64]) -> NDArray[np.complex128]:
            values = self._elastic(g).astype(np.complex128)
            if imaginary is not None:
                values.imag = imaginary(g)
            return values

        return evaluate

    def _elastic(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        s_squared = (0.5 * g) ** 2
        total = np.zeros_like(g)
        for amplitude, width in zip(self.amplitudes, self.widths, strict=True):
            x = width * s_squared
            small, large = x < 1.0, x > 20.0
            # (1 - exp(-x)) / x with the reference's own pieces; x is kept off 0 where unused.
            safe = np.where(small, 1.0, x)
            shape = np.where(large, 1.0 / safe, -np.expm1(-safe) / safe)
            total += amplitude * width * np.where(small, 1.0 - 0.5 * x, shape)
        damping = np.exp(-0.5 * self.thermal_sigma**2 * (2.0 * np.pi * g) ** 2)
        elastic: NDArray[np.float64] = 4.0 * np.pi * self.relativistic * _TO_ANGSTROM * damping * total
        return elastic


@lru_cache(maxsize=512)
def element_table(
    number: int, energy_ev: float, thermal_sigma: float, g_max: float, absorption: bool
) -> ElementTable:
    """Tabulate one element with py4DSTEM (about 0.05 s; cached).

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
    """
    # Imported here: the kernels must load on machines without py4DSTEM, where tables are handed in.
    from py4DSTEM.process.diffraction import WK_scattering_factors as wk

    g = np.arange(0.0, g_max + 2 * _TABLE_STEP, _TABLE_STEP)
    absorptive = np.zeros_like(g)
    if absorption:
        with np.errstate(all="ignore"):
            absorptive = wk.compute_WK_factor(g, number, energy_ev, thermal_sigma).imag
    return ElementTable(
        np.asarray(wk.WK_A_param[number - 1], dtype=np.float64),
        np.asarray(wk.WK_B_param[number - 1], dtype=np.float64),
        (energy_ev / 1e3 + 511.0) / 511.0,
        thermal_sigma,
        g,
        np.ascontiguousarray(absorptive),
    )


def form_factors(numbers: NDArray[np.int64], spec: SimulationSpec) -> dict[int, FormFactor]:
    """Return the form factor of every element of a crystal.

    Parameters
    ----------
    numbers : ndarray of int
        Atomic numbers, repeated ones allowed.
    spec : SimulationSpec
        Energy, thermal displacement, range and model.
    """
    absorption = spec.form_factors == "wk-cp"
    return {
        int(number): element_table(
            int(number), spec.energy_ev, spec.thermal_sigma, 2.0 * spec.q_max, absorption
        ).form_factor()
        for number in np.unique(numbers)
    }
