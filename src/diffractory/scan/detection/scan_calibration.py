"""From peaks in pixels to a calibrated scan: the steps of calibration in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.patterns.lab_protocol import deformation
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.detect import BlockPeaks
from diffractory.scan.detection.peak_calibration import (
    OriginFit,
    OriginModel,
    calibrated,
    centred,
    fit_origin,
    fixed_origin,
)
from diffractory.scan.detection.ring_calibration import (
    EllipseFit,
    PixelFit,
    fit_ellipse,
    fit_pixel_size,
    refine_on_rings,
)
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.frame_checks import GOOD, NO_DIRECT_BEAM

#: A direct beam may lie so many disk radii from the fitted origin, at least two pixels.
_REACH_IN_RADII: Final = 1.0
_LEAST_REACH: Final = 2.0
#: How far a stated pixel size may be wrong where a known material tells it.
_STATED_ERROR: Final = 0.15
#: Reach in Å⁻¹ of the farthest spots that is believed of a detector where nothing is stated.
_REACHES: Final = (0.3, 4.0)


@dataclass(frozen=True, eq=False)
class CalibrationRequest:
    """How peaks are to be calibrated.

    Parameters
    ----------
    center : tuple of float or None
        Row and column of the direct beam in pixels, for all positions; None = measured.
    origin : str
        How a measured origin depends on the position.
    ellipse : tuple of float or str or None
        Ratio of the axes and angle of the long one in degrees; "fit"; or None.
    ring : tuple of float or None
        Inner and outer radius in pixels of the ring that an ellipse is fitted to.
    rings : ndarray or None
        Radii in Å⁻¹ of the reflections of a known material, which tell the size of a pixel.
    """

    center: tuple[float, float] | None = None
    origin: OriginModel = "plane"
    ellipse: tuple[float, float] | str | None = None
    ring: tuple[float, float] | None = None
    rings: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class CalibratedScan:
    """A calibrated scan, and what its calibration rests on.

    Parameters
    ----------
    scan : BraggScan
    raw : PeakTable
        Peaks in pixels.
    origin : OriginFit
    ellipse : EllipseFit
    pixel : PixelFit or None
        None where the size was stated.
    pixel_size : float
        In Å⁻¹.
    request : CalibrationRequest
    """

    scan: BraggScan
    raw: PeakTable
    origin: OriginFit
    ellipse: EllipseFit
    pixel: PixelFit | None
    pixel_size: float
    request: CalibrationRequest

    @property
    def status(self) -> NDArray[np.int8]:
        """Status of each position."""
        assert self.scan.status is not None
        return self.scan.status

    def summary(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        middle = np.nanmedian(self.origin.fitted.reshape(-1, 2), axis=0)
        return {
            "origin": {
                "model": "given" if self.request.center else self.origin.model,
                "center": [round(float(c), 3) for c in middle],
                "residual_pixels": None if np.isnan(self.origin.residual) else round(self.origin.residual, 4),
                "used": int(self.origin.used.sum()),
            },
            "ellipse": {
                "from": "fit" if self.ellipse.ring else "option" if self.request.ellipse else "none",
                "ratio": round(self.ellipse.ratio, 5),
                "angle_degrees": round(self.ellipse.angle, 2),
                "ring_pixels": self.ellipse.ring,
            },
            "pixel_size": self.pixel_size,
            "pixel_size_from": "stated"
            if self.pixel is None
            else f"material: {100 * self.pixel.matched:.0f} % of spots on its rings, "
            f"{100 * self.pixel.by_chance:.0f} % by chance",
        }


def check_request(scan: FrameScan, request: CalibrationRequest) -> None:
    """Refuse, before the work, a calibration that cannot come about.

    Raises
    ------
    ScanError
        If nothing tells the size of a pixel, or an option is out of range.
    """
    if scan.pixel_size is None and request.rings is None:
        raise ScanError(
            f"{scan.source} does not say how large a detector pixel is",
            "peaks are wanted in Å⁻¹",
            "Give --pixel-size (in Å⁻¹), or a known material with --material FILE.cif or --lattice 4.078:F",
        )
    if isinstance(request.ellipse, tuple):
        ratio, angle = request.ellipse
        if not (0.5 <= ratio <= 2.0 and np.isfinite(angle)):
            raise ScanError(f"--ellipse {ratio:g} {angle:g}", "the ratio of the axes lies between 0.5 and 2")
    if request.center is not None and not np.all(np.isfinite(request.center)):
        raise ScanError(f"--center {request.center}", "it must be two finite numbers: row and column")


def calibrate_scan(
    found: BlockPeaks,
    frames: FrameScan,
    radius: float,
    request: CalibrationRequest,
    attrs: dict[str, Any],
    guess: tuple[float, float] | None = None,
) -> CalibratedScan:
    """Calibrate the peaks of a whole scan.

    Parameters
    ----------
    found : BlockPeaks
        Peaks of all positions in pixels, and their status.
    frames : FrameScan
        States what is known.
    radius : float
        Radius of a disk in pixels.
    request : CalibrationRequest
    attrs : dict
        Provenance of the scan; the calibration is added to it.
    guess : tuple of float, optional
        Row and column in pixels where the direct beam is about.

    Returns
    -------
    CalibratedScan

    Raises
    ------
    ScanError
        If a step fails.
    """
    check_request(frames, request)
    peaks, reach = found.peaks, max(_REACH_IN_RADII * radius, _LEAST_REACH)
    if request.center is not None:
        origin = fixed_origin(peaks, frames.shape, request.center, reach)
    else:
        origin = fit_origin(peaks, frames.shape, reach, request.origin, guess)
    vectors = centred(peaks, origin)
    spots = np.ones(len(vectors), dtype=bool)
    spots[origin.direct[origin.direct >= 0]] = False
    ellipse = _ellipse(vectors[spots], request)
    pixel = None
    if request.rings is not None:
        ellipse, pixel = _on_rings(vectors[spots], ellipse, frames.pixel_size, request)
    size = pixel.pixel_size if pixel is not None else frames.pixel_size
    assert size is not None
    status = found.status.copy()
    status[(status == GOOD) & (origin.direct < 0)] = NO_DIRECT_BEAM
    table = calibrated(peaks, origin, ellipse, size)
    scan = BraggScan(table, frames.shape, frames.step, frames.energy_ev, frames.source, {}, status)
    result = CalibratedScan(scan, peaks, origin, ellipse, pixel, size, request)
    whole = {**attrs, "calibration": result.summary()}
    scan = BraggScan(table, frames.shape, frames.step, frames.energy_ev, frames.source, whole, status)
    return CalibratedScan(scan, peaks, origin, ellipse, pixel, size, request)


def _ellipse(spots: NDArray[np.float64], request: CalibrationRequest) -> EllipseFit:
    if request.ellipse == "fit":
        return fit_ellipse(spots, request.ring)
    if isinstance(request.ellipse, tuple):
        ratio, angle = request.ellipse
        return EllipseFit(deformation(1.0, ratio - 1.0, np.radians(angle)))
    return EllipseFit(np.eye(2))


def _on_rings(
    spots: NDArray[np.float64], ellipse: EllipseFit, stated: float | None, request: CalibrationRequest
) -> tuple[EllipseFit, PixelFit]:
    assert request.rings is not None
    radius = np.hypot(*(spots @ np.linalg.inv(ellipse.matrix).T).T)
    if stated is not None:
        guess = (stated * (1.0 - _STATED_ERROR), stated * (1.0 + _STATED_ERROR))
    else:
        reach = float(np.quantile(radius, 0.99)) if len(radius) else 1.0
        guess = (_REACHES[0] / reach, _REACHES[1] / reach)
    pixel = fit_pixel_size(radius, request.rings, guess)
    if request.ellipse == "fit":
        return refine_on_rings(spots, request.rings, ellipse, pixel)
    return ellipse, pixel
