"""The structure matrix of the Bloch-wave problem."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.scattering.structure_factors import StructureFactors

Precision = Literal["single", "double"]


@njit(cache=True, nogil=True)
def _fill(
    matrix: NDArray[Any], table: NDArray[Any], places: NDArray[np.int64], origin: int, factor: Any
) -> None:
    n = len(places)
    for j in range(n):
        place = origin + places[j]
        for i in range(n):
            matrix[i, j] = factor * table[place - places[i]]


def coupling_matrix(
    factors: StructureFactors, hkl: NDArray[np.int64], wavelength: float, precision: Precision = "single"
) -> NDArray[Any]:
    """Return the part of the structure matrix that couples beams, divided by 2 k₀.

    U_(g_j − g_i) off the diagonal and i Im U_0 on it; the other order of the difference inverts
    acentric crystals. With the excitation errors on the diagonal besides, this is A / 2k₀, and the
    exit wave is exp(2πi t A / 2k₀) e₀.

    Parameters
    ----------
    factors : StructureFactors
        Table that reaches the difference of any two beams.
    hkl : ndarray of shape (n, 3), int64
        Beams.
    wavelength : float
        In Å.
    precision : {"single", "double"}

    Returns
    -------
    ndarray of shape (n, n), complex64 or complex128
        In Å⁻¹, columns contiguous.

    References
    ----------
    De Graef, *Introduction to Conventional Transmission Electron Microscopy* (2003), eq. 5.52.
    """
    table = factors.single if precision == "single" else factors.table
    # Products with a matrix of contiguous columns are the faster ones.
    matrix: NDArray[Any] = np.empty((len(hkl), len(hkl)), dtype=table.dtype, order="F")
    # The place of a point in the flat table is linear in its indices, so differences are, too.
    _, width, depth = table.shape
    strides = np.array([width * depth, depth, 1])
    half_wavelength = table.real.dtype.type(0.5 * wavelength)
    _fill(matrix, table.ravel(), hkl @ strides, int(strides @ factors.origin), half_wavelength)
    np.fill_diagonal(matrix, 0.5j * wavelength * factors.table[factors.origin].imag)
    return matrix
