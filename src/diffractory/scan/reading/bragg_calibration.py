"""The calibration of Bragg peaks in a py4DSTEM file, applied to a whole scan at once.

As py4DSTEM applies it pattern by pattern (``tests/unit/scan/reading/test_emd_reader.py`` compares the
two), but a hundred times as fast, and without the seconds that importing py4DSTEM takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.peak_table import PeakTable

#: Peaks that are worked on at once.
_AT_ONCE = 2**20


class Calibration:
    """What a file states, by py4DSTEM's names.

    Parameters
    ----------
    stated : mapping
        Values by name; numbers, or arrays of shape (n_y, n_x).
    """

    def __init__(self, stated: Mapping[str, Any]) -> None:
        self._stated = {"Q_pixel_size": 1, "Q_pixel_units": "pixels", "R_pixel_units": "pixels", **stated}
        self._stated.setdefault("R_pixel_size", 1)

    @property
    def pixel_size(self) -> Any:
        """Size of a detector pixel, in its units."""
        return self._stated["Q_pixel_size"]

    @property
    def pixel_units(self) -> Any:
        """Units of that."""
        return self._stated["Q_pixel_units"]

    @property
    def step(self) -> Any:
        """Distance of neighbouring positions, in its units."""
        return self._stated["R_pixel_size"]

    @property
    def step_units(self) -> Any:
        """Units of that."""
        return self._stated["R_pixel_units"]

    @property
    def origin(self) -> tuple[Any, Any] | None:
        """Where the direct beam is; None = not stated."""
        found = self._stated.get("qx0"), self._stated.get("qy0")
        return None if found[0] is None or found[1] is None else found

    @property
    def ellipse(self) -> tuple[Any, Any, Any] | None:
        """Semi-axes and angle of a ring; None = not stated."""
        a, b, theta = (self._stated.get(name) for name in ("a", "b", "theta"))
        return None if a is None or b is None or theta is None else (a, b, theta)

    @property
    def rotation(self) -> float | None:
        """Angle in radians between scan and detector; None = not stated."""
        angle = self._stated.get("QR_rotation")
        return None if angle is None else float(angle)

    @property
    def flipped(self) -> bool:
        """Whether the detector's axes are exchanged."""
        return bool(self._stated.get("QR_flip"))

    def without_origin(self) -> Calibration:
        """Return the same with the origin where the positions have it."""
        return Calibration(
            {name: value for name, value in self._stated.items() if name not in ("qx0", "qy0")}
        )

    def set_origin(self, center: tuple[float, float]) -> None:
        """Put another origin in the place of the stated one."""
        self._stated["qx0"], self._stated["qy0"] = center

    def set_pixel_size(self, size: float) -> None:
        """Put another pixel size in Å⁻¹ in the place of the stated one."""
        self._stated["Q_pixel_size"], self._stated["Q_pixel_units"] = size, "A^-1"


def apply_calibration(peaks: PeakTable, shape: tuple[int, int], calibration: Calibration) -> None:
    """Calibrate the positions of a scan in place.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, in the file's units.
    shape : tuple of int
        Scan shape (n_y, n_x).
    calibration : Calibration

    Raises
    ------
    ValueError
        If an array of the calibration does not cover the scan.
    TypeError
        If a value of the calibration is no number.
    """
    origin = None if calibration.origin is None else [_by_position(v, shape) for v in calibration.origin]
    ellipse = None if calibration.ellipse is None else [_by_position(v, shape) for v in calibration.ellipse]
    n = len(peaks)
    step = max(1, _AT_ONCE * n // max(len(peaks.intensity), 1))
    for first in range(0, n, step):
        stop = min(first + step, n)
        counts = peaks.counts[first:stop]

        def here(
            values: NDArray[np.float64], first: int = first, stop: int = stop, counts: Any = counts
        ) -> Any:
            return values if values.ndim == 0 else np.repeat(values[first:stop], counts)

        q = peaks.q[peaks.offsets[first] : peaks.offsets[stop]]
        if origin is not None:
            q[:, 0] -= here(origin[0])
            q[:, 1] -= here(origin[1])
        if ellipse is not None:
            a, b, theta = (here(values) for values in ellipse)
            e, sine, cosine = b / a, np.sin(theta - np.pi / 2.0), np.cos(theta - np.pi / 2.0)
            across = sine * cosine * (1 - e)
            x = (e * sine**2 + cosine**2) * q[:, 0] + across * q[:, 1]
            q[:, 1] = across * q[:, 0] + (sine**2 + e * cosine**2) * q[:, 1]
            q[:, 0] = x
        if calibration.pixel_size != 1:
            q *= calibration.pixel_size
        if calibration.rotation is not None:
            sine, cosine = np.sin(calibration.rotation), np.cos(calibration.rotation)
            x, y = (
                (q[:, 1].copy(), q[:, 0].copy()) if calibration.flipped else (q[:, 0].copy(), q[:, 1].copy())
            )
            q[:, 0], q[:, 1] = cosine * x - sine * y, sine * x + cosine * y


def _by_position(value: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a number as an array of no dimension, or the values of all positions in a row."""
    values = np.asarray(value, dtype=np.float64)
    if values.ndim == 0:
        return values
    if values.shape != shape:
        raise ValueError(f"an array of shape {values.shape} for {shape[0]} × {shape[1]} positions")
    return values.ravel()
