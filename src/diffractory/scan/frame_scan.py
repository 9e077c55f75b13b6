"""A scan of raw diffraction frames: four-dimensional, lazy, with whatever calibration its file states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr

from diffractory.errors import ScanError
from diffractory.units import electron_wavelength

SCAN_DIMENSIONS = ("scan_y", "scan_x")
#: Dimensions of the frames; q_row and q_column are py4DSTEM's qx and qy.
FRAME_DIMENSIONS = (*SCAN_DIMENSIONS, "q_row", "q_column")


def scan_coordinates(shape: tuple[int, int], step: float | None) -> dict[str, xr.Variable]:
    """Return the coordinates scan_y and scan_x: in Å where the step is known, else in positions."""
    units = "1" if step is None else "angstrom"
    what = "index of the scan position" if step is None else "distance from the first scan position"
    return {
        name: xr.Variable(
            name, np.arange(size) * (1.0 if step is None else step), {"units": units, "long_name": what}
        )
        for name, size in zip(SCAN_DIMENSIONS, shape, strict=True)
    }


#: Frames smaller than this hardly show a diffraction pattern.
_SMALL_FRAME: Final = 32


@dataclass(frozen=True, eq=False)
class FrameScan:
    """Frames of a 4D-STEM scan.

    Parameters
    ----------
    frames : xarray.DataArray
        Dimensions ``FRAME_DIMENSIONS``, real numbers, backed by a dask array whose chunks hold whole
        frames; nothing is read before it is computed.
    pixel_size : float or None
        Size of a detector pixel in Å⁻¹; None = unknown, as for all that follow.
    step : float or None
        Distance of neighbouring positions in Å.
    energy_ev : float or None
        Beam energy in eV.
    semiangle_mrad : float or None
        Semi-convergence angle of the probe in mrad: the radius of a disk.
    source : str
        Where the scan came from, for messages and provenance.
    attrs : mapping
        Further provenance, JSON values only.

    Raises
    ------
    ScanError
        If the frames are not four-dimensional, empty, or a calibration is not above 0.
    """

    frames: xr.DataArray
    pixel_size: float | None = None
    step: float | None = None
    energy_ev: float | None = None
    semiangle_mrad: float | None = None
    source: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.dims != FRAME_DIMENSIONS or not all(self.frames.shape):
            raise ScanError(
                f"{self.source or 'the scan'} has dimensions {dict(self.frames.sizes)}",
                f"a 4D-STEM scan has {', '.join(FRAME_DIMENSIONS)}, none of them empty",
            )
        for name, unit in (
            ("pixel_size", "Å⁻¹"), ("step", "Å"), ("energy_ev", "eV"), ("semiangle_mrad", "mrad")
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ScanError(f"{name} = {value} {unit}", "it must be finite and above 0, or None")

    @property
    def shape(self) -> tuple[int, int]:
        """Number of positions (n_y, n_x)."""
        return self.frames.shape[0], self.frames.shape[1]

    @property
    def disk_radius(self) -> float | None:
        """Radius of a disk in pixels, from semi-convergence angle, energy and pixel size; None = unknown."""
        if self.semiangle_mrad is None or self.energy_ev is None or self.pixel_size is None:
            return None
        return math.sin(self.semiangle_mrad * 1e-3) / electron_wavelength(self.energy_ev) / self.pixel_size

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector pixels (rows, columns)."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def looks_swapped(self) -> bool:
        """Whether frames are so small, at so many positions, that detector and scan may be swapped."""
        return max(self.frame_shape) < _SMALL_FRAME and min(self.shape) > 2 * max(self.frame_shape)

    def doubts(self) -> list[str]:
        """Return what a user should check of what was read, in words."""
        if not self.looks_swapped:
            return []
        return [
            f"{self.shape[0]} × {self.shape[1]} positions with frames of only {self.frame_shape[0]} × "
            f"{self.frame_shape[1]} pixels: if that is the other way round, write the file anew with scan_y, "
            "scan_x before the detector's rows and columns (numpy.moveaxis)"
        ]
