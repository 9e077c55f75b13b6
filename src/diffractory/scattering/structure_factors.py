"""Structure factors U_g on a dense table of Miller indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.form_factors import FormFactor


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
        """The table in single precision."""
        return self.table.astype(np.complex64)

    def of(self, hkl: NDArray[np.int64]) -> NDArray[np.complex128]:
        """Return U for Miller indices of shape (..., 3) inside the table."""
        index = np.asarray(hkl) + np.array(self.origin)
        values: NDArray[np.complex128] = self.table[index[..., 0], index[..., 1], index[..., 2]]
        return values


def index_limits(crystal: Crystal, g_max: float) -> NDArray[np.int64]:
    """Return the largest |h|, |k|, |l| of any reciprocal vector with |g| ≤ g_max, shape (3,).

    h = g·a, so |h| ≤ g_max |a|, whatever the angles of the cell.
    """
    limits: NDArray[np.int64] = np.floor(g_max * np.linalg.norm(crystal.lattice, axis=1) + 1e-9).astype(
        np.int64
    )
    return limits


def structure_factors(crystal: Crystal, g_max: float, factors: Mapping[int, FormFactor]) -> StructureFactors:
    """Tabulate the structure factors of a crystal.

    Parameters
    ----------
    crystal : Crystal
    g_max : float
        Largest |g| in Å⁻¹; U is zero beyond.
    factors : mapping of int to callable
        Form factor of each atomic number.

    Notes
    -----
    exp(2πi(hx + ky + lz)) separates, so the sum over atoms is one matrix product for each h.
    S_-g is the conjugate of S_g (f is not: it is complex), so only h ≥ 0 is summed.
    """
    limits = index_limits(crystal, g_max)
    h, k, l = (np.arange(-n, n + 1) for n in limits)
    upper = h[limits[0] :]
    g_length = _lengths(crystal, upper, k, l)
    inside = g_length <= g_max + 1e-9
    half = np.zeros(inside.shape, dtype=np.complex128)
    mirrored = np.zeros(inside.shape, dtype=np.complex128)
    for number, factor in factors.items():
        geometry = _geometry_sum(crystal.frac_coords[crystal.numbers == number], upper, k, l)
        f = np.zeros(inside.shape, dtype=np.complex128)
        f[inside] = factor(g_length[inside])
        half += f * geometry
        mirrored += f * geometry.conj()
    table = np.empty((h.size, k.size, l.size), dtype=np.complex128)
    table[: limits[0] + 1] = mirrored[::-1, ::-1, ::-1]
    table[limits[0] :] = half
    table /= crystal.volume
    return StructureFactors(table)


def _lengths(
    crystal: Crystal, h: NDArray[np.int64], k: NDArray[np.int64], l: NDArray[np.int64]
) -> NDArray[np.float64]:
    a, b, c = crystal.reciprocal
    plane = k[:, None, None] * b + l[None, :, None] * c
    g = h[:, None, None, None] * a + plane
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("hklx,hklx->hkl", g, g))
    return lengths


def _geometry_sum(
    frac: NDArray[np.float64], h: NDArray[np.int64], k: NDArray[np.int64], l: NDArray[np.int64]
) -> NDArray[np.complex128]:
    """Return Σ_j exp(2πi(h x_j + k y_j + l z_j)) of shape (n_h, n_k, n_l)."""
    waves = [np.exp(2j * np.pi * np.outer(index, frac[:, axis])) for axis, index in enumerate((h, k, l))]
    total = np.empty((h.size, k.size, l.size), dtype=np.complex128)
    for row, wave in enumerate(waves[0]):
        np.matmul(waves[1] * wave, waves[2].T, out=total[row])
    return total
