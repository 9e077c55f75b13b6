"""Units: Å, Å⁻¹ (no 2π) and eV inside, keV and degrees only at the surface; bytes and seconds for people."""

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


def human_bytes(count: float) -> str:
    """Return a number of bytes for people: 1.5 GB.

    Parameters
    ----------
    count : float

    Returns
    -------
    str
        In B, kB, MB, GB or TB, powers of a thousand.

    Examples
    --------
    >>> from diffractory.units import human_bytes
    >>> human_bytes(1_500_000_000)
    '1.5 GB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000.0 or unit == "TB":
            break
        count /= 1000.0
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def human_seconds(seconds: float) -> str:
    """Return a duration for people: 12 s, 3.4 min, 5.6 h.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
        In s below 90 s, in min below 90 min, else in h.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
