"""The structure matrix of the Bloch-wave problem."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.scattering.structure_factors import StructureFactors


@njit(cache=True, nogil=True)
def _fill(
    table: NDArray[np.complex128],
    origin: tuple[int, int, int],
    hkl: NDArray[np.int64],
    diagonal: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    n = hkl.shape[0]
    matrix = np.empty((n, n), dtype=np.complex128)
    for i in range(n):
        h = origin[0] - hkl[i, 0]
        k = origin[1] - hkl[i, 1]
        l = origin[2] - hkl[i, 2]
        for j in range(n):
            matrix[i, j] = table[h + hkl[j, 0], k + hkl[j, 1], l + hkl[j, 2]]
        matrix[i, i] = diagonal[i]
    return matrix


def structure_matrix(
    factors: StructureFactors,
    hkl: NDArray[np.int64],
    excitation_error: NDArray[np.float64],
    wavelength: float,
) -> NDArray[np.complex128]:
    """Return the structure matrix A divided by 2 k₀.

    A_ij = U_(g_j − g_i) off the diagonal and A_ii = 2 k₀ s_i + i Im U_0 on it; the other order of
    the difference inverts acentric crystals. The exit wave is exp(2πi t A / 2k₀) e₀.

    Parameters
    ----------
    factors : StructureFactors
        Table that reaches the difference of any two beams.
    hkl : ndarray of shape (n, 3), int64
        Beams.
    excitation_error : ndarray of shape (n,)
        In Å⁻¹.
    wavelength : float
        In Å.

    Returns
    -------
    ndarray of shape (n, n), complex128
        In Å⁻¹.

    References
    ----------
    De Graef, *Introduction to Conventional Transmission Electron Microscopy* (2003), eq. 5.52.
    """
    half_wavelength = 0.5 * wavelength
    diagonal = excitation_error / half_wavelength + 1j * factors.table[factors.origin].imag
    matrix: NDArray[np.complex128] = _fill(factors.table, factors.origin, hkl, diagonal)
    matrix *= half_wavelength
    return matrix
