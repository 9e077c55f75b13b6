"""How the beam meets the foil: directions of incidence, and the foil's normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import SimulationError
from diffractory.specs import SimulationSpec

#: In degrees: far beyond what a microscope does, and well inside the half-space of the source.
_LARGEST_TILT = 30.0


@dataclass(frozen=True, eq=False)
class Illumination:
    """Plane waves that are solved on one beam set.

    Parameters
    ----------
    directions : ndarray of shape (n_tilts, 3)
        Unit vectors from the foil towards the source, in the lab frame: z for no tilt.
    foil_normal : ndarray of shape (3,)
        Unit vector on the source's side, in the lab frame: z for a foil across the column.
    """

    directions: NDArray[np.float64]
    foil_normal: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.directions)

    @classmethod
    def of(cls, spec: SimulationSpec, tilts_deg: NDArray[np.float64] | None = None) -> Self:
        """Return the illumination of a spec: one beam, a hollow cone, or given tilts.

        Parameters
        ----------
        spec : SimulationSpec
        tilts_deg : ndarray of shape (n_tilts, 2), optional
            Angles of the incident waves along lab x and y in degrees, in place of the spec's cone.

        Returns
        -------
        Illumination

        Raises
        ------
        SimulationError
            If tilts are not finite, not of this shape, or beyond 30°, or the foil is met at a grazing
            angle.
        """
        if tilts_deg is None:
            n = spec.precession_azimuths if spec.precession_deg else 1
            azimuth = 2.0 * np.pi * np.arange(n) / n
            sines = np.sin(np.deg2rad(spec.precession_deg)) * np.stack(
                [np.cos(azimuth), np.sin(azimuth)], axis=1
            )
        else:
            sines = np.sin(np.deg2rad(_check_tilts(tilts_deg)))
        normal = np.sin(np.deg2rad(np.array([spec.foil_tilt_deg])))
        # A wave whose transverse wave vector points along x comes from the side of −x.
        lit = cls(_unit_vectors(-sines), _unit_vectors(normal)[0])
        if lit.cosines().min() < 0.5:
            raise SimulationError(
                "the beam meets the foil at more than 60° from its normal",
                "waves that nearly graze the foil are beyond the high-energy approximation",
                "Take a smaller foil_tilt_deg or smaller tilts",
            )
        return lit

    def cosines(self) -> NDArray[np.float64]:
        """Return the cosine of the angle between each wave and the foil normal, (n_tilts,)."""
        values: NDArray[np.float64] = self.directions @ self.foil_normal
        return values

    def excitation_errors(self, g: NDArray[np.float64], wavelength: float) -> NDArray[np.float64]:
        """Return the excitation errors along the foil normal, in Å⁻¹.

        Parameters
        ----------
        g : ndarray of shape (n, 3)
            Reciprocal vectors in Å⁻¹ in the lab frame.
        wavelength : float
            In Å.

        Returns
        -------
        ndarray of shape (n_tilts, n)
            s = (2 g·d − λ|g|²) / (2 d·n − 2 λ g·n), of direction d and normal n.

        References
        ----------
        De Graef, *Introduction to Conventional Transmission Electron Microscopy* (2003), eq. 2.80.
        """
        squares = np.einsum("nx,nx->n", g, g)
        errors: NDArray[np.float64] = 2.0 * self.directions @ g.T - wavelength * squares
        errors /= 2.0 * self.cosines()[:, None] - 2.0 * wavelength * (g @ self.foil_normal)
        return errors


def _unit_vectors(sines: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([sines, np.sqrt(1.0 - np.square(sines).sum(axis=1))])


def _check_tilts(tilts_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return tilts as a float array of shape (n, 2), or refuse them.

    Raises
    ------
    SimulationError
        If they are not finite, not of this shape, or beyond 30°.
    """
    try:
        tilts = np.asarray(tilts_deg, dtype=np.float64)
    except (TypeError, ValueError):
        tilts = np.empty(0)
    if tilts.ndim != 2 or tilts.shape[1] != 2 or not len(tilts):
        raise SimulationError(
            f"tilts must be an array of shape (n, 2), not {np.shape(tilts_deg)}",
            fix="Give an angle along x and one along y, in degrees, for each tilt",
        )
    if not np.all(np.isfinite(tilts)) or np.abs(tilts).max() > _LARGEST_TILT:
        raise SimulationError(
            "tilts must be finite and within ±30°",
            f"one is {tilts.flat[np.argmax(np.where(np.isfinite(tilts), np.abs(tilts), np.inf))]}",
            "Give angles in degrees",
        )
    return tilts
