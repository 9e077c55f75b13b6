"""The size of a detector pixel from the disk of the direct beam."""

from __future__ import annotations

import math
from typing import Final

from diffractory.units import electron_wavelength

#: How well that is known, for people.
BEAM_UNCERTAINTY: Final = (
    "the radius of a disk is known to a few per cent, and so is the semi-convergence angle: "
    "a known material (--material, --lattice) tells the size of a pixel better"
)


def pixel_size_of_beam(radius: float, semiangle_mrad: float, energy_ev: float) -> float:
    """Return the size of a pixel that gives the disk of the direct beam its semi-convergence angle.

    Parameters
    ----------
    radius : float
        Of a disk in pixels, measured without a size of a pixel.
    semiangle_mrad : float
        Semi-convergence angle in mrad.
    energy_ev : float
        Beam energy in eV.

    Returns
    -------
    float
        In Å⁻¹; as well known as radius and angle are, to a few per cent.

    Examples
    --------
    >>> from diffractory.scan.detection.beam_calibration import pixel_size_of_beam
    >>> round(pixel_size_of_beam(4.0, 1.0, 300e3), 5)
    0.0127
    """
    return math.sin(semiangle_mrad * 1e-3) / electron_wavelength(energy_ev) / radius
