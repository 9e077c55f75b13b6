"""Structure factors U_g on a dense table of Miller indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.form_factors import FormFactor

#: A |g| this far beyond a limit is on it, in Å⁻¹: symmetry-equivalent points differ by rounding.
_ROUNDING = 1e-9
#: Structure factors below this share of the largest are rounding.
_NOTHING = 1e-11


@dataclass(frozen=True, eq=False)
class StructureFactors:
    """U_g = (1/V) Σ_j f_j(|g|) exp(+2πi g·r_j) for all |g| up to a limit, zero beyond.

    Parameters
    ----------
    table : ndarray of shape (2H + 1, 2K + 1, 2L + 1), complex128
        U of index (h, k, l) stands at [h + H, k + K, l + L], in Å⁻².
    """

    table: NDArray[np.complex128]

    @property
    def origin(self) -> tuple[int, int, int]:
        """Place (H, K, L) of U_000 in the table."""
        h, k, l = self.table.shape
        return h // 2, k // 2, l // 2

    @cached_property
    def single(self) -> NDArray[np.complex64]:
        """The table in single precision, zero where it is zero but for rounding.

        Forbidden reflections come out as 1e-17 of the others. Products of two such numbers are
        subnormal, and those take a processor twenty times as long as others.
        """
        size = np.abs(self.table)
        table = self.table.astype(np.complex64)
        table[size < _NOTHING * size.max()] = 0.0
        return table

    def of(self, hkl: NDArray[np.int64]) -> NDArray[np.complex128]:
        """Return U for Miller indices of shape (..., 3) inside the table.

        Parameters
        ----------
        hkl : ndarray of shape (..., 3), int
            Indices of the cell that the table is over.

        Returns
        -------
        ndarray of shape (...), complex128
            In Å⁻².
        """
        index = np.asarray(hkl) + np.array(self.origin)
        values: NDArray[np.complex128] = self.table[index[..., 0], index[..., 1], index[..., 2]]
        return values


def index_limits(crystal: Crystal, g_max: float) -> NDArray[np.int64]:
    """Return the largest |h|, |k|, |l| of any reciprocal vector with |g| ≤ g_max, shape (3,).

    h = g·a, so |h| ≤ g_max |a|, whatever the angles of the cell.
    """
    edges = np.linalg.norm(crystal.lattice, axis=1)
    limits: NDArray[np.int64] = np.floor((g_max + _ROUNDING) * edges).astype(np.int64)
    return limits


def rows_inside(
    crystal: Crystal, g_max: float, h: NDArray[np.int64], k: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the range of l for which |g| ≤ g_max, row by row of the reciprocal lattice.

    Parameters
    ----------
    crystal : Crystal
    g_max : float
        In Å⁻¹; a point that misses it by rounding only is in.
    h, k : ndarray of int
        Indices of the rows.

    Returns
    -------
    first, stop : ndarray of shape (n_h, n_k), int64
        l runs from ``first`` to ``stop`` − 1; equal where a row misses the sphere.
    """
    a, b, c = crystal.reciprocal
    foot = h[:, None, None] * a + k[None, :, None] * b
    middle = -(foot @ c) / (c @ c)
    # What the sphere leaves of the row: from its nearest point to the origin, that far to each side.
    nearest = np.square(foot + middle[:, :, None] * c).sum(axis=2)
    reach = ((g_max + _ROUNDING) ** 2 - nearest) / (c @ c)
    half = np.sqrt(np.maximum(reach, 0.0))
    l_max = index_limits(crystal, g_max)[2]
    first = np.maximum(np.ceil(middle - half).astype(np.int64), -l_max)
    stop = np.minimum(np.floor(middle + half).astype(np.int64), l_max) + 1
    return first, np.where(reach < 0.0, first, np.maximum(first, stop))


def structure_factors(crystal: Crystal, g_max: float, factors: Mapping[int, FormFactor]) -> StructureFactors:
    """Tabulate the structure factors of a crystal.

    Parameters
    ----------
    crystal : Crystal
        Best in its primitive cell (:func:`~diffractory.scattering.primitive.primitive_cell`): the
        table is over the indices of the crystal's own cell.
    g_max : float
        Largest |g| in Å⁻¹; U is zero beyond.
    factors : mapping of int to callable
        Form factor of each atomic number.

    Returns
    -------
    StructureFactors

    Notes
    -----
    exp(2πi(hx + ky + lz)) separates: an atom's waves along h, k and l are tabulated once.
    The sum without f at −g is the conjugate of that at g, so only h ≥ 0 is summed (f is complex).
    """
    limits = index_limits(crystal, g_max)
    h, k, l = np.arange(limits[0] + 1), *(np.arange(-n, n + 1) for n in limits[1:])
    first, stop = rows_inside(crystal, g_max, h, k)
    lengths = _lengths(first, stop, limits[1], crystal.reciprocal)
    numbers, element = np.unique(crystal.numbers, return_inverse=True)
    order = np.argsort(element, kind="stable")
    waves = [
        np.exp(2j * np.pi * np.outer(crystal.frac_coords[order, axis], index))
        for axis, index in enumerate((h, k, l))
    ]
    table = np.zeros(2 * limits + 1, dtype=np.complex128)
    _fill(
        table,
        first + limits[2],
        stop + limits[2],
        waves[0] / crystal.volume,
        waves[1],
        np.ascontiguousarray(waves[2].real),
        np.ascontiguousarray(waves[2].imag),
        np.searchsorted(element[order], np.arange(numbers.size + 1)),
        np.array([factors[int(number)](lengths) for number in numbers]),
    )
    return StructureFactors(table)


@njit(cache=True, nogil=True)
def _lengths(
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    k_max: int,
    reciprocal: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return |g| of the points of rows h = 0 …, k = −k_max …, one row after the other."""
    lengths = np.empty((stop - first).sum())
    place = 0
    for h in range(first.shape[0]):
        for column in range(first.shape[1]):
            foot = h * reciprocal[0] + (column - k_max) * reciprocal[1]
            for l in range(first[h, column], stop[h, column]):
                x = foot[0] + l * reciprocal[2, 0]
                y = foot[1] + l * reciprocal[2, 1]
                z = foot[2] + l * reciprocal[2, 2]
                lengths[place] = np.sqrt(x * x + y * y + z * z)
                place += 1
    return lengths


@njit(cache=True, nogil=True)
def _fill(
    table: NDArray[np.complex128],
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    wave_h: NDArray[np.complex128],
    wave_k: NDArray[np.complex128],
    wave_l_real: NDArray[np.float64],
    wave_l_imag: NDArray[np.float64],
    borders: NDArray[np.int64],
    factors: NDArray[np.complex128],
) -> None:
    """Add up the atoms of each element in each row, and write both U_g and U_-g.

    Atoms are sorted by element, those of element e from borders[e] to borders[e + 1]. Real and
    imaginary parts are apart so that the innermost loop becomes vector instructions.
    """
    last_h, last_k, last_l = table.shape[0] - 1, table.shape[1] - 1, table.shape[2] - 1
    real, imag = np.empty(table.shape[2]), np.empty(table.shape[2])
    place = 0
    for h in range(first.shape[0]):
        for k in range(first.shape[1]):
            start, n = first[h, k], stop[h, k] - first[h, k]
            upper = table[last_h // 2 + h, k, start : start + n]
            lower = table[last_h // 2 - h, last_k - k]
            for e in range(len(factors)):
                real[:n] = 0.0
                imag[:n] = 0.0
                for atom in range(borders[e], borders[e + 1]):
                    wave = wave_h[atom, h] * wave_k[atom, k]
                    along_real = wave_l_real[atom, start : start + n]
                    along_imag = wave_l_imag[atom, start : start + n]
                    for i in range(n):
                        real[i] += wave.real * along_real[i] - wave.imag * along_imag[i]
                        imag[i] += wave.real * along_imag[i] + wave.imag * along_real[i]
                for i in range(n):
                    factor = factors[e, place + i]
                    upper[i] += factor * complex(real[i], imag[i])
                    if h > 0:
                        lower[last_l - start - i] += factor * complex(real[i], -imag[i])
            place += n
