"""Propagation of the incident wave through the foil: ψ(t) = exp(2πi t M) e₀ with M = A / 2k₀.

Three ways, chosen by their cost:

- *Chebyshev series*: matrix-vector products only; best for all but small matrices.
- *Step operator*: exp(2πi Δt M) once, then one product a step; best for small ones.
- *Dense reference*: a matrix exponential for each interval in double precision; the fallback, and
  the yardstick.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from diffractory.errors import SimulationError
from diffractory.scattering.chebyshev import chebyshev_series, n_terms, spectrum_of

Solver = Literal["auto", "chebyshev", "step", "dense"]
Precision = Literal["single", "double"]

#: A step operator may be applied this often to reach the largest thickness.
_MAX_STEPS = 20_000
#: Cost of Lanczos' estimate and of converting the matrix, in matrix-vector products.
_SERIES_OVERHEAD = 30.0


def propagate(
    matrix: NDArray[np.complex128],
    thicknesses: tuple[float, ...],
    solver: Solver = "auto",
    precision: Precision = "single",
) -> NDArray[np.complex128]:
    """Return the wave at each thickness.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex128
        A / 2k₀ in Å⁻¹; beam 0 is the incident one.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    solver : {"auto", "chebyshev", "step", "dense"}
        "auto" takes the cheapest.
    precision : {"single", "double"}
        Of the Chebyshev recurrence; intensities are good to 1e-6 and 1e-9.

    Returns
    -------
    ndarray of shape (n_thicknesses, n), complex128

    Raises
    ------
    SimulationError
        If the result is not finite.
    """
    chosen = solver
    if solver == "auto":
        chosen = cheapest_solver(len(matrix), thicknesses, _half_width(matrix))
    waves: NDArray[np.complex128] | None = None
    if chosen == "chebyshev":
        waves = _chebyshev(matrix, thicknesses, precision)
    elif chosen == "step":
        waves = _step_series(matrix, thicknesses)
    if waves is None:
        waves = _dense(matrix, thicknesses)
    if not np.all(np.isfinite(waves)):
        raise SimulationError(
            f"a Bloch-wave solve of {len(matrix)} beams gave numbers that are not finite",
            "the structure matrix is out of the range of double precision",
            "Check the crystal for overlapping atoms",
        )
    return waves


def cheapest_solver(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> Solver:
    """Return the solver of least predicted cost.

    Parameters
    ----------
    n_beams : int
    thicknesses : tuple of float
        In Å.
    half_width : float
        Half-width of the spectrum of the matrix in Å⁻¹.
    """
    series = _series_products(n_beams, thicknesses, half_width)
    return "chebyshev" if series <= _step_products(n_beams, thicknesses, half_width) else "step"


def predicted_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    """Return the cost of the cheapest solver, in matrix-vector products of n_beams²."""
    return min(
        _series_products(n_beams, thicknesses, half_width), _step_products(n_beams, thicknesses, half_width)
    )


def _series_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    terms = n_terms(thicknesses[-1], half_width)
    # Each term is added to every thickness; a term costs about a hundred elements besides.
    return _SERIES_OVERHEAD + terms * (1.0 + 0.3 * len(thicknesses) / n_beams + 2e4 / n_beams**2)


def _step_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    step = _common_step(thicknesses)
    if step is None:
        return math.inf
    squarings = max(0.0, math.log2(max(2.0 * math.pi * step * half_width, 1.0)))
    # A matrix product does n_beams matrix-vector products, at the higher speed of a product; all of
    # it in double precision.
    return 2.0 * ((7.5 + squarings) * 0.18 * n_beams + thicknesses[-1] / step)


def _half_width(matrix: NDArray[np.complex128]) -> float:
    """Return half the spread of the diagonal: the excitation errors dominate the spectrum."""
    diagonal = matrix.diagonal().real
    return 0.5 * float(diagonal.max() - diagonal.min())


def _chebyshev(
    matrix: NDArray[np.complex128], thicknesses: tuple[float, ...], precision: Precision
) -> NDArray[np.complex128] | None:
    """Return the waves, None if the series diverged because its interval was too narrow."""
    if not np.all(np.isfinite(matrix)):
        return None
    dtype = np.complex64 if precision == "single" else np.complex128
    with np.errstate(over="ignore", invalid="ignore"):
        return chebyshev_series(matrix, thicknesses, spectrum_of(matrix), dtype)


def _common_step(thicknesses: tuple[float, ...]) -> float | None:
    """Return the largest step of which all thicknesses are multiples, None if there is none."""
    # Thicknesses are given in Å with a few decimals: compare them on a grid of 1e-6 Å.
    ticks = [round(t * 1e6) for t in thicknesses]
    step = math.gcd(*ticks)
    if step == 0 or ticks[-1] // step > _MAX_STEPS:
        return None
    return step * 1e-6


def _dense(matrix: NDArray[np.complex128], thicknesses: tuple[float, ...]) -> NDArray[np.complex128]:
    wave = _incident(len(matrix))
    waves = []
    operator, used = np.empty(0), -1.0
    for previous, thickness in pairwise((0.0, *thicknesses)):
        length = round(thickness - previous, 9)
        if length != used:
            operator, used = expm(2j * np.pi * length * matrix), length
        wave = operator @ wave
        waves.append(wave)
    return np.array(waves)


def _incident(n_beams: int) -> NDArray[np.complex128]:
    wave = np.zeros(n_beams, dtype=np.complex128)
    wave[0] = 1.0
    return wave


def _step_series(
    matrix: NDArray[np.complex128], thicknesses: tuple[float, ...]
) -> NDArray[np.complex128] | None:
    step = _common_step(thicknesses)
    if step is None:
        return None
    operator = expm(2j * np.pi * step * matrix)
    wave = _incident(len(matrix))
    waves = np.empty((len(thicknesses), len(matrix)), dtype=np.complex128)
    done = 0
    for row, thickness in enumerate(thicknesses):
        target = round(thickness / step)
        for _ in range(target - done):
            wave = operator @ wave
        done = target
        waves[row] = wave
    return waves
