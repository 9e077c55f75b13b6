"""From peaks in pixels to a calibrated scan: the steps of calibration in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffractory.errors import ScanError
from diffractory.patterns.lab_protocol import deformation
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import MAX_REACH, BraggScan
from diffractory.scan.detection.beam_calibration import BEAM_UNCERTAINTY, pixel_size_of_beam
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
from diffractory.scan.frame_places import FramePlaces
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.frame_checks import GOOD, NO_DIRECT_BEAM

#: A direct beam may lie so many disk radii from the fitted origin, at least two pixels.
_REACH_IN_RADII: Final = 1.0
_LEAST_REACH: Final = 2.0
#: A stated pixel size that is changed by more than this is worth a look, as is an origin that is farther off,
#: in pixels.
_SURPRISING: Final = 0.03
_RESTLESS: Final = 0.5
#: How far a stated pixel size may be wrong where a known material tells it.
_STATED_ERROR: Final = 0.15
#: Reach in Å⁻¹ of the farthest spots that is believed of a detector where nothing is stated.
_REACHES: Final = (0.3, 4.0)
#: A size far from the stated one is believed rather if it puts this much more of the spots on rings, and so
#: many spots are compared.
_MUCH_BETTER: Final = 0.1
_COMPARED: Final = 20_000


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
    material : str
        What that is, for people.
    beam : bool
        Whether the disk of the direct beam tells the size of a pixel, whatever is stated.
    """

    center: tuple[float, float] | None = None
    origin: OriginModel = "plane"
    ellipse: tuple[float, float] | str | None = None
    ring: tuple[float, float] | None = None
    rings: NDArray[np.float64] | None = None
    material: str = "material"
    beam: bool = False


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
        None where no material told the size.
    pixel_size : float
        In Å⁻¹.
    request : CalibrationRequest
    stated : float or None
        Size of a pixel by the file or the option, in Å⁻¹, whatever was used in the end.
    """

    scan: BraggScan
    raw: PeakTable
    origin: OriginFit
    ellipse: EllipseFit
    pixel: PixelFit | None
    pixel_size: float
    request: CalibrationRequest
    stated: float | None = None

    @property
    def status(self) -> NDArray[np.int8]:
        """Status of each position."""
        assert self.scan.status is not None
        return self.scan.status

    def doubts(self) -> list[str]:
        """Return what a user should check of the calibration, in words."""
        found = []
        if self.request.beam:
            found.append(f"the size of a pixel is that of the direct beam: {BEAM_UNCERTAINTY}")
        if self.pixel is not None and self.stated is not None:
            change = self.pixel_size / self.stated - 1.0
            # A size far off, such as 1, was no statement.
            if _SURPRISING < abs(change) <= _STATED_ERROR:
                found.append(
                    f"the stated size of a pixel was changed by {100.0 * change:+.1f} %, which is right if "
                    f"{self.request.material} is there: a wrong phase changes it as well; look at rings.png"
                )
        if self.origin.residual > _RESTLESS:
            found.append(
                f"direct beams lie {self.origin.residual:.1f} pixels (rms) from the fitted origin: look at "
                "origin.png; another --origin may follow them, --disk-radius find them better"
            )
        return found

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
                "from": "fit"
                if self.request.ellipse == "fit"
                else "option"
                if self.request.ellipse
                else "none",
                "ratio": round(self.ellipse.ratio, 5),
                "angle_degrees": round(self.ellipse.angle, 2),
                "ring_pixels": self.ellipse.ring,
            },
            "pixel_size": self.pixel_size,
            "pixel_size_stated": self.stated,
            "pixel_size_from": self._pixel_size_from(),
            "pixel_size_uncertainty": BEAM_UNCERTAINTY if self.request.beam else None,
        }

    def _pixel_size_from(self) -> str:
        if self.pixel is None:
            return "direct beam" if self.request.beam else "stated"
        return (
            f"{self.request.material}: {100 * self.pixel.matched:.0f} % of spots on its rings, "
            f"{100 * self.pixel.by_chance:.0f} % by chance"
        )


def check_request(scan: FrameScan, request: CalibrationRequest, radius: float | None = None) -> None:
    """Refuse, before the work, a calibration that cannot come about.

    Parameters
    ----------
    scan : FrameScan
    request : CalibrationRequest
    radius : float, optional
        Of a disk in pixels, once it is known: with it a size that the direct beam tells is checked, too.

    Raises
    ------
    ScanError
        If nothing tells the size of a pixel, or an option is out of range.
    """
    if request.beam:
        scan = _told_by_beam(scan, request, radius)
    elif scan.pixel_size is None and request.rings is None:
        why = str(scan.attrs.get("calibration", {}).get("pixel_size", "")).removeprefix("unknown")
        raise ScanError(
            f"{scan.source} does not say how large a detector pixel is{why}",
            "peaks are wanted in Å⁻¹",
            "Give --pixel-size (in Å⁻¹), or a known material with --material FILE.cif or --lattice 4.078:F, "
            "or --pixel-size beam where --semiangle and --energy are known",
        )
    if request.rings is None and _reach(scan) > MAX_REACH:
        raise ScanError(
            f"pixels of {scan.pixel_size:.4g} Å⁻¹ would make half a frame {_reach(scan):.4g} Å⁻¹",
            f"nothing is detected beyond {MAX_REACH:g} Å⁻¹, so the calibration is wrong",
            "Give the size of a detector pixel with --pixel-size (in Å⁻¹), or a material with --lattice",
        )
    if isinstance(request.ellipse, tuple):
        ratio, angle = request.ellipse
        if not (0.5 <= ratio <= 2.0 and np.isfinite(angle)):
            raise ScanError(f"--ellipse {ratio:g} {angle:g}", "the ratio of the axes lies between 0.5 and 2")
    if request.center is not None and not np.all(np.isfinite(request.center)):
        raise ScanError(f"--center {request.center}", "it must be two finite numbers: row and column")


def _told_by_beam(scan: FrameScan, request: CalibrationRequest, radius: float | None) -> FrameScan:
    """Return the scan with the size of a pixel that the direct beam tells; None without a radius."""
    if request.rings is not None:
        raise ScanError(
            f"--pixel-size beam and the {request.material} both tell the size of a pixel",
            "the material tells it better",
            "Leave out --pixel-size beam",
        )
    angle, energy = scan.semiangle_mrad, scan.energy_ev
    if angle is None or energy is None:
        missing = [
            (what, flag)
            for value, what, flag in (
                (angle, "semi-convergence angle", "--semiangle (in mrad)"),
                (energy, "beam energy", "--energy (in keV)"),
            )
            if value is None
        ]
        raise ScanError(
            f"{scan.source} does not state the {' and the '.join(what for what, _ in missing)}",
            "--pixel-size beam takes the size of a pixel from the direct beam, whose disk they give a radius",
            f"Give {' and '.join(flag for _, flag in missing)}",
        )
    size = None if radius is None else pixel_size_of_beam(radius, angle, energy)
    found = replace(scan, pixel_size=size)
    if _reach(found) > MAX_REACH:
        raise ScanError(
            f"a direct beam with a radius of {radius:.2f} pixels at {angle:g} mrad would make half a frame "
            f"{_reach(found):.4g} Å⁻¹",
            f"nothing is detected beyond {MAX_REACH:g} Å⁻¹, so one of them is wrong",
            "Check --semiangle (in mrad) and --energy (in keV), or give --disk-radius",
        )
    return found


def _reach(scan: FrameScan) -> float:
    """Return half of the frame's shorter side in Å⁻¹ by the stated size of a pixel; 0 where there is none."""
    return 0.5 * min(scan.frame_shape) * (scan.pixel_size or 0.0)


def reach_of_beam(radius: float) -> float:
    """Return how far in pixels from the fitted origin a direct beam may lie, given the radius of its disk."""
    return max(_REACH_IN_RADII * radius, _LEAST_REACH)


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
    check_request(frames, request, radius)
    # With another number of threads sums end in other bits: the same peaks must give the same scan anywhere.
    with threadpool_limits(limits=1, user_api="blas"):
        return _calibrate(found, frames, radius, request, attrs, guess)


def _calibrate(
    found: BlockPeaks,
    frames: FrameScan,
    radius: float,
    request: CalibrationRequest,
    attrs: dict[str, Any],
    guess: tuple[float, float] | None,
) -> CalibratedScan:
    peaks, reach = found.peaks, reach_of_beam(radius)
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
        # A size that no detector has tells nothing, as where a file has the unit but nobody calibrated.
        stated = frames.pixel_size if _reach(frames) <= MAX_REACH else None
        ellipse, pixel = _on_rings(vectors[spots], ellipse, stated, request)
    told = _told_by_beam(frames, request, radius) if request.beam else frames
    size = pixel.pixel_size if pixel is not None else told.pixel_size
    assert size is not None
    status = found.status.copy()
    status[(status == GOOD) & (origin.direct < 0)] = NO_DIRECT_BEAM
    table = calibrated(peaks, origin, ellipse, size)
    places = FramePlaces(origin.fitted.reshape(-1, 2), ellipse.matrix / size, frames.frame_shape, radius)
    scan = BraggScan(table, frames.shape, frames.step, frames.energy_ev, frames.source, {}, status, places)
    result = CalibratedScan(scan, peaks, origin, ellipse, pixel, size, request, frames.pixel_size)
    whole = {**attrs, "calibration": result.summary()}
    scan = replace(scan, attrs=whole)
    return CalibratedScan(scan, peaks, origin, ellipse, pixel, size, request, frames.pixel_size)


def _ellipse(spots: NDArray[np.float64], request: CalibrationRequest) -> EllipseFit:
    if request.ellipse == "fit":
        try:
            return fit_ellipse(spots, request.ring)
        except ScanError:
            # Few grains fill no ring, but all rings of a known material together.
            if request.rings is None or request.ring is not None:
                raise
    if isinstance(request.ellipse, tuple):
        ratio, angle = request.ellipse
        return EllipseFit(deformation(1.0, ratio - 1.0, np.radians(angle)))
    return EllipseFit(np.eye(2))


def _on_rings(
    spots: NDArray[np.float64], ellipse: EllipseFit, stated: float | None, request: CalibrationRequest
) -> tuple[EllipseFit, PixelFit]:
    assert request.rings is not None
    radius = np.hypot(*(spots @ np.linalg.inv(ellipse.matrix).T).T)
    reach = float(np.quantile(radius, 0.99)) if len(radius) else 1.0
    anything = (_REACHES[0] / reach, _REACHES[1] / reach)
    pixel = (
        fit_pixel_size(radius, request.rings, anything)
        if stated is None
        else _near_stated(radius, request.rings, stated, anything, request.material)
    )
    if request.ellipse == "fit":
        return refine_on_rings(spots, request.rings, ellipse, pixel)
    return ellipse, pixel


def _near_stated(
    radius: NDArray[np.float64],
    rings: NDArray[np.float64],
    stated: float,
    anything: tuple[float, float],
    material: str,
) -> PixelFit:
    """Fit the size of a pixel near the stated one; refuse where another one far from it fits much better.

    Rings of cubic crystals repeat each other: the size that puts {111} on {220} fits somewhat, too.
    """
    fitted: PixelFit | None = None
    problem: ScanError | None = None
    try:
        fitted = fit_pixel_size(
            radius, rings, (stated * (1.0 - _STATED_ERROR), stated * (1.0 + _STATED_ERROR))
        )
    except ScanError as error:
        problem = error
    try:
        other = fit_pixel_size(radius[:: max(1, -(-len(radius) // _COMPARED))], rings, anything)
    except ScanError:
        other = None
    better = 0.0 if other is None else other.matched - other.by_chance
    if fitted is not None and better <= fitted.matched - fitted.by_chance + _MUCH_BETTER:
        return fitted
    if other is None:
        assert problem is not None
        raise problem
    near = "no size near it puts the spots on the rings"
    if fitted is not None:
        near = f"near it {_shares(fitted)}"
    raise ScanError(
        f"the stated size of a pixel, {stated:.4g} Å⁻¹, does not fit the {material}: {near}",
        f"with {other.pixel_size:.4g} Å⁻¹ {_shares(other)}",
        f"If that may be, give --pixel-size {other.pixel_size:.4g}; else check the material, "
        "of --lattice its centring too (4.212:F: face-centred)",
    )


def _shares(pixel: PixelFit) -> str:
    return f"{100 * pixel.matched:.0f} % of spots lie on rings, {100 * pixel.by_chance:.0f} % would by chance"
