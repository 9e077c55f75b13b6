"""Units and their conversions: Å, Å⁻¹ (no 2π), eV inside; keV and degrees only at the surface."""

from __future__ import annotations

import math

#: Planck constant times speed of light, in eV Å.
_HC_EV_ANGSTROM = 12398.419843320026
#: Electron rest energy, in eV.
ELECTRON_REST_ENERGY_EV = 510998.95


def electron_wavelength(energy_ev: float) -> float:
    """Return the relativistic electron wavelength.

    Parameters
    ----------
    energy_ev : float
        Beam energy in eV.

    Returns
    -------
    float
        Wavelength in Å; 0.019687 Å at 300 keV.

    Examples
    --------
    >>> from diffractory.units import electron_wavelength
    >>> round(electron_wavelength(300e3), 6)
    0.019687

    References
    ----------
    De Graef, *Introduction to Conventional Transmission Electron Microscopy* (2003), eq. 2.16.
    """
    return _HC_EV_ANGSTROM / math.sqrt(energy_ev * (energy_ev + 2.0 * ELECTRON_REST_ENERGY_EV))
