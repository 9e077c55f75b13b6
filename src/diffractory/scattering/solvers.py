"""Propagation of the incident wave through the foil: ψ(t) = exp(2πi t M) e₀ with M = A / 2k₀.

The *Chebyshev series* needs products with the matrix only, in the precision of the matrix. The
*dense reference* is a matrix exponential for each interval, in double precision: the yardstick,
and the way out where a series does not converge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from diffractory.errors import SimulationError
from diffractory.scattering.chebyshev import (
    Recurrence,
    chebyshev_series,
    matrix_recurrence,
    tilted_recurrence,
)
from diffractory.scattering.spectrum import Spectrum, spectrum_of

Solver = Literal["chebyshev", "dense"]

#: Of the outermost tilts, the spectra of about so many are estimated.
SAMPLED_TILTS = 12


@dataclass(frozen=True, eq=False)
class Solution:
    """Waves behind the foil.

    Parameters
    ----------
    waves : ndarray of shape (n_thicknesses, n) or (n_thicknesses, n, n_tilts), complex
    solver : {"chebyshev", "dense"}
        What gave them; "dense" where the series was asked for but did not converge.
    """

    waves: NDArray[Any]
    solver: Solver

    @property
    def intensity(self) -> NDArray[np.float64]:
        """Squared moduli, same shape, float64."""
        squares: NDArray[np.float64] = np.square(self.waves.real, dtype=np.float64)
        squares += np.square(self.waves.imag, dtype=np.float64)
        return squares


def propagate(matrix: NDArray[Any], thicknesses: tuple[float, ...], solver: Solver = "chebyshev") -> Solution:
    """Propagate a plane wave through a foil.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex64 or complex128
        A / 2k₀ in Å⁻¹; beam 0 is the incident one. Intensities to 2000 Å are good to about 2e-6 in
        single precision and 1e-9 in double; at 100,000 Å to 1e-5.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    solver : {"chebyshev", "dense"}

    Returns
    -------
    Solution
        ``waves`` of shape (n_thicknesses, n).

    Raises
    ------
    SimulationError
        If the result is not finite, or there is no such solver.
    """
    _check_solver(solver)
    waves: NDArray[Any] | None = None
    if solver == "chebyshev":
        spectrum = spectrum_of(matrix)
        incident = _incident(len(matrix), matrix.dtype)
        waves = _series(lambda middle: matrix_recurrence(matrix, middle), incident, thicknesses, spectrum)
    if waves is None:
        return Solution(_finite(_dense(matrix, thicknesses)), "dense")
    return Solution(_finite(waves), "chebyshev")


def propagate_tilts(
    coupling: NDArray[Any],
    inverse_cosines: NDArray[np.float64],
    errors: NDArray[np.float64],
    thicknesses: tuple[float, ...],
    solver: Solver = "chebyshev",
) -> Solution:
    """Propagate plane waves of many tilts through a foil, on one beam set.

    Parameters
    ----------
    coupling : ndarray of shape (n, n), complex64 or complex128
        U / 2k₀ in Å⁻¹, with i Im U_0 / 2k₀ on the diagonal; beam 0 is the incident one.
    inverse_cosines : ndarray of shape (n_tilts,)
        Factor of the coupling for each tilt: the inverse cosine of the beam to the foil normal.
    errors : ndarray of shape (n, n_tilts)
        Excitation errors in Å⁻¹.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    solver : {"chebyshev", "dense"}

    Returns
    -------
    Solution
        ``waves`` of shape (n_thicknesses, n, n_tilts).

    Raises
    ------
    SimulationError
        If the result is not finite, or there is no such solver.
    """
    _check_solver(solver)
    waves: NDArray[Any] | None = None
    if solver == "chebyshev":
        incident = np.zeros(errors.shape, dtype=coupling.dtype)
        incident[0] = 1.0
        waves = _series(
            lambda middle: tilted_recurrence(coupling, inverse_cosines, errors, middle),
            incident,
            thicknesses,
            _spectrum_of_tilts(coupling, inverse_cosines, errors),
        )
    if waves is None:
        columns = [
            _dense(tilted_matrix(coupling.copy(), inverse_cosine, error), thicknesses)
            for inverse_cosine, error in zip(inverse_cosines, errors.T, strict=True)
        ]
        return Solution(_finite(np.stack(columns, axis=-1)), "dense")
    return Solution(_finite(waves), "chebyshev")


def _check_solver(solver: str) -> None:
    if solver not in get_args(Solver):
        raise SimulationError(f"solver {solver!r} is unknown", fix=f"Use {' or '.join(get_args(Solver))}")


def tilted_matrix(coupling: NDArray[Any], inverse_cosine: float, errors: NDArray[np.float64]) -> NDArray[Any]:
    """Make A / 2k₀ of one tilt out of the coupling, in place; arguments as in :func:`propagate_tilts`."""
    if inverse_cosine != 1.0:
        coupling *= coupling.dtype.type(inverse_cosine)
    coupling[np.diag_indices_from(coupling)] += errors.astype(coupling.real.dtype)
    return coupling


def _spectrum_of_tilts(
    coupling: NDArray[Any], inverse_cosines: NDArray[np.float64], errors: NDArray[np.float64]
) -> Spectrum:
    # Excitation errors are linear in the tilt but for second order, so the largest eigenvalue is a
    # convex function of it and the smallest a concave one: the outermost tilts hold all others.
    outermost = np.unique([pick(errors, axis=1) for pick in (np.argmin, np.argmax)])
    chosen = outermost[:: -(-len(outermost) // SAMPLED_TILTS)]
    spectra = [
        spectrum_of(tilted_matrix(coupling.copy(order="F"), inverse_cosines[i], errors[:, i])) for i in chosen
    ]
    whole = spectra[0]
    for spectrum in spectra[1:]:
        whole = whole.union(spectrum)
    return whole


def _series(
    recurrence: Callable[[complex], Recurrence],
    incident: NDArray[Any],
    thicknesses: tuple[float, ...],
    spectrum: Spectrum,
) -> NDArray[Any] | None:
    """Return the waves, None if the series diverged."""
    if not np.isfinite(spectrum.middle):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return chebyshev_series(recurrence(spectrum.middle), incident, thicknesses, spectrum)


def _dense(matrix: NDArray[Any], thicknesses: tuple[float, ...]) -> NDArray[np.complex128]:
    matrix = matrix.astype(np.complex128)
    wave = _incident(len(matrix), matrix.dtype)
    waves = []
    operator, used = np.empty(0), -1.0
    for previous, thickness in pairwise((0.0, *thicknesses)):
        length = round(thickness - previous, 9)
        if length != used:
            operator, used = expm(2j * np.pi * length * matrix), length
        wave = operator @ wave
        waves.append(wave)
    return np.array(waves)


def _incident(n_beams: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    wave = np.zeros(n_beams, dtype=dtype)
    wave[0] = 1.0
    return wave


def _finite(waves: NDArray[Any]) -> NDArray[Any]:
    if not np.all(np.isfinite(waves)):
        raise SimulationError(
            f"a Bloch-wave solve of {waves.shape[1]} beams gave numbers that are not finite",
            "the structure matrix is out of the range of double precision",
            "Check the crystal for overlapping atoms",
        )
    return waves
