"""Calibration of raw frames: from the file's units to Å, Å⁻¹, eV and mrad, and what is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from diffractory.errors import ScanError
from diffractory.scan.reading.unit_texts import angle_unit, detector_unit, length_unit, reciprocal_unit
from diffractory.units import electron_wavelength

if TYPE_CHECKING:
    # With it comes Dask, which files of Bragg peaks do without.
    from diffractory.scan.reading.raw_frames import Axis

#: Calibration -> (what it is, option that gives it, unit of the option, that unit in the one used here).
QUANTITIES: Final = {
    "pixel_size": ("size of a detector pixel", "--pixel-size", "Å⁻¹", 1.0),
    "step": ("distance of neighbouring positions", "--step", "Å", 1.0),
    "energy_ev": ("beam energy", "--energy", "keV", 1e3),
    "semiangle_mrad": ("semi-convergence angle", "--semiangle", "mrad", 1.0),
}
UNKNOWN: Final = "unknown"
#: Along two axes, what differs by more than this share is two numbers, not one.
_SAME: Final = 0.01
#: A beam energy in eV: below, files state it in keV.
_LOWEST_EV: Final = 5e3


@dataclass(frozen=True)
class Calibrated:
    """One number of the calibration.

    Parameters
    ----------
    value : float or None
        In the unit of :class:`~diffractory.scan.frame_scan.FrameScan`; None = unknown.
    origin : str
        Where it comes from, or why it is unknown, for people.
    """

    value: float | None = None
    origin: str = UNKNOWN


def chosen(name: str, option: float | None, stated: Calibrated) -> Calibrated:
    """Return what was given by option, else what the file states.

    Raises
    ------
    ScanError
        If the option is not a finite number above 0.
    """
    if option is None:
        return stated
    _, flag, unit, factor = QUANTITIES[name]
    if not (math.isfinite(option) and option > 0.0):
        raise ScanError(f"{flag} {option / factor:g}", "it must be finite and above 0", f"Give it in {unit}")
    return Calibrated(float(option), f"option {flag}")


def overruled(name: str, stated: Calibrated, used: Calibrated) -> str | None:
    """Return what to tell of an option that says another number than the file; None = it does not.

    Parameters
    ----------
    name : str
        Of the calibration, a key of :data:`QUANTITIES`.
    stated, used : Calibrated
        What the file says, and what :func:`chosen` made of it.
    """
    if stated.value is None or used.value is None:
        return None
    if abs(used.value - stated.value) <= _SAME * stated.value:
        return None
    what, flag, unit, factor = QUANTITIES[name]
    return (
        f"{what}: {used.value / factor:g} {unit} by {flag} instead of "
        f"the {stated.value / factor:g} {unit} that the file states"
    )


def step_of(axes: tuple[Axis, ...]) -> Calibrated:
    """Return the distance of neighbouring positions in Å from the two scan axes."""
    found = [
        _not_understood(axis)
        if (unit := length_unit(axis.units)) is None
        else Calibrated(abs(axis.scale) * unit, f"file ({axis.scale:.6g} {axis.units})")
        for axis in axes
        if axis.scale is not None
    ]
    return _one_of(found, "Å")


def _not_understood(axis: Axis) -> Calibrated:
    """Return that a number is unknown, and what the file has in its place."""
    if axis.scale is None or not axis.units.strip():
        return Calibrated()
    return Calibrated(None, f"{UNKNOWN}: the file states {axis.scale:.6g} '{axis.units}'")


def pixel_size_of(
    axes: tuple[Axis, ...], energy_ev: float | None, camera_length_mm: float | None
) -> Calibrated:
    """Return the size of a detector pixel in Å⁻¹ from the two detector axes.

    Parameters
    ----------
    axes : tuple of Axis
        Units may be those of reciprocal length (without 2π), of angle, or of length on a detector
        whose camera length is stated.
    energy_ev : float or None
        Needed for angles and lengths.
    camera_length_mm : float or None
        Needed for lengths.
    """
    return _one_of([_pixel_size(axis, energy_ev, camera_length_mm) for axis in axes], "Å⁻¹")


def _pixel_size(axis: Axis, energy_ev: float | None, camera_length_mm: float | None) -> Calibrated:
    if not axis.scale:
        return Calibrated()
    scale, text = abs(axis.scale), f"file ({axis.scale:.6g} {axis.units}"
    if (unit := reciprocal_unit(axis.units)) is not None:
        return Calibrated(scale * unit, f"{text})")
    if (unit := angle_unit(axis.units)) is not None:
        angle = scale * unit
    elif (unit := detector_unit(axis.units)) is not None and camera_length_mm:
        angle = scale * unit / camera_length_mm
        text += f" at a nominal camera length of {camera_length_mm:g} mm"
    else:
        return _not_understood(axis)
    if energy_ev is None:
        return Calibrated(None, f"{UNKNOWN} without --energy: {text})")
    # A pixel spans an angle so small that it equals its sine.
    return Calibrated(angle / electron_wavelength(energy_ev), f"{text}, {energy_ev / 1e3:g} keV)")


def _one_of(found: list[Calibrated], unit: str) -> Calibrated:
    """Return the number along both axes, if it is one."""
    values = [item.value for item in found if item.value is not None and _usable(item.value)]
    if not values:
        reasons = [item for item in found if item.value is None]
        return reasons[0] if reasons else Calibrated()
    if max(values) - min(values) > _SAME * max(values):
        return Calibrated(
            None, f"{UNKNOWN}: the file states two, {values[0]:.5g} and {values[-1]:.5g} {unit}"
        )
    return next(item for item in found if item.value is not None and _usable(item.value))


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0.0


def energy_of(stated: float | None) -> Calibrated:
    """Return the beam energy in eV from a number that files state in keV, or else in eV."""
    if stated is None or not _usable(stated):
        return Calibrated()
    return Calibrated(stated if stated >= _LOWEST_EV else stated * 1e3, "file")


def semiangle_of(stated: float | None) -> Calibrated:
    """Return the semi-convergence angle in mrad, where the file states one."""
    return Calibrated(stated, "file") if stated is not None and _usable(stated) else Calibrated()
