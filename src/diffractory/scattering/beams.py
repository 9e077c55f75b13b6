"""Which beams take part: reciprocal-lattice points, centring, excitation errors, selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.structure_factors import index_limits

#: Two atoms this close after a translation are the same atom, in Å.
_CENTRING_TOLERANCE = 5e-4


@dataclass(frozen=True, eq=False)
class ReciprocalPoints:
    """All reciprocal-lattice points up to a length that the centring does not extinguish.

    Sorted by length, then by hkl; 000 comes first.

    Parameters
    ----------
    hkl : ndarray of shape (n, 3), int64
    g : ndarray of shape (n, 3)
        Reciprocal vectors in Å⁻¹ in the crystal's Cartesian frame.
    """

    hkl: NDArray[np.int64]
    g: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hkl)


def centring_translations(crystal: Crystal) -> NDArray[np.float64]:
    """Return all translations of the crystal inside its cell, the zero translation included.

    Found from the atoms themselves, so that super-cells and unusual settings are seen too.

    Returns
    -------
    ndarray of shape (n, 3)
        Fractional translations.
    """
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    rarest = crystal.frac_coords[crystal.numbers == numbers[np.argmin(counts)]]
    found = [np.zeros(3)]
    # The number of lattice points in the cell divides the number of atoms of every element.
    possible = int(np.gcd.reduce(counts))
    for candidate in rarest[1:] - rarest[0] if possible > 1 else ():
        if _maps_onto_itself(crystal, candidate):
            found.append(candidate - np.floor(candidate))
    return np.array(found)


def _maps_onto_itself(crystal: Crystal, translation: NDArray[np.float64]) -> bool:
    for number in np.unique(crystal.numbers):
        frac = crystal.frac_coords[crystal.numbers == number]
        delta = (frac + translation)[:, None, :] - frac[None, :, :]
        delta -= np.round(delta)
        distance = np.sqrt(np.einsum("ijx,xy,ijy->ij", delta, crystal.lattice @ crystal.lattice.T, delta))
        if np.any(distance.min(axis=1) > _CENTRING_TOLERANCE):
            return False
    return True


def reciprocal_points(crystal: Crystal, q_max: float) -> ReciprocalPoints:
    """List the reciprocal-lattice points with |g| ≤ q_max that the centring allows.

    Parameters
    ----------
    crystal : Crystal
    q_max : float
        Largest |g| in Å⁻¹.

    Notes
    -----
    A centring-extinct beam has exactly zero coupling to every allowed one, so leaving it out
    changes nothing. Glide- and screw-extinct beams stay: multiple scattering lights them up.
    """
    axes = [np.arange(-n, n + 1) for n in index_limits(crystal, q_max)]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    for translation in centring_translations(crystal)[1:]:
        phase = hkl @ translation
        # Allowed phases are integers, forbidden ones fractions no finer than 1 / n_translations.
        hkl = hkl[np.abs(phase - np.round(phase)) < 0.02]
    g = hkl @ crystal.reciprocal
    length = np.linalg.norm(g, axis=1)
    inside = length <= q_max
    hkl, g, length = hkl[inside], g[inside], length[inside]
    order = np.lexsort((*hkl.T[::-1], np.round(length, 9)))
    return ReciprocalPoints(hkl[order], g[order])


def excitation_errors(
    g: NDArray[np.float64], zone_axis: NDArray[np.float64], wavelength: float
) -> NDArray[np.float64]:
    """Return the excitation error of each beam for a foil normal along the zone axis.

    Parameters
    ----------
    g : ndarray of shape (n, 3)
        Reciprocal vectors in Å⁻¹.
    zone_axis : ndarray of shape (..., 3)
        Unit vectors in the same frame.
    wavelength : float
        In Å.

    Returns
    -------
    ndarray of shape (..., n)
        s_g = (2 g_z − λ|g|²) / (2 − 2 λ g_z) in Å⁻¹.
    """
    g_z = zone_axis @ g.T
    errors: NDArray[np.float64] = (2.0 * g_z - wavelength * np.einsum("nx,nx->n", g, g)) / (
        2.0 - 2.0 * wavelength * g_z
    )
    return errors


def count_beams(
    points: ReciprocalPoints, orientations: NDArray[np.float64], wavelength: float, s_max: float
) -> NDArray[np.int64]:
    """Count the beams of each orientation without solving anything.

    Parameters
    ----------
    points : ReciprocalPoints
    orientations : ndarray of shape (N, 3, 3)
    wavelength : float
        In Å.
    s_max : float
        Largest absolute excitation error in Å⁻¹.

    Returns
    -------
    ndarray of shape (N,), int64
    """
    return np.array(
        [
            np.count_nonzero(np.abs(excitation_errors(points.g, matrix[:, 2], wavelength)) <= s_max)
            for matrix in orientations
        ],
        dtype=np.int64,
    )
