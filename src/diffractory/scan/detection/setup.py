"""Prepares disk detection on a sample of a scan: template, bad pixels, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from diffractory.errors import ScanError
from diffractory.scan.detection.detect import Detector, describe_status, sample_pairs
from diffractory.scan.detection.disk_radius import DiskRadius, measure_radius
from diffractory.scan.detection.parameters import (
    FALSE_PEAKS,
    NARROW_TRENCH,
    NoiseModel,
    choose_parameters,
    choose_trench,
)
from diffractory.scan.detection.probe_template import (
    ProbeTemplate,
    check_radius,
    disk_template,
    kernel_of,
    read_probe,
    vacuum_template,
)
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.frame_checks import (
    GOOD,
    check_frames,
    fill_bad_pixels,
    find_bad_pixels,
    saturation_of,
)
from diffractory.scan.reading.frame_blocks import read_places
from diffractory.specs import DetectionSpec

#: Pairs of frames that a sample holds, and the bytes they may take.
SAMPLE_PAIRS: Final = 32
_SAMPLE_BYTES: Final = 512 * 2**20
#: Most frames of a vacuum region that are averaged.
_VACUUM_FRAMES: Final = 256


@dataclass(frozen=True, eq=False)
class SetupRequest:
    """What the user asks of disk detection; everything else is chosen.

    Parameters
    ----------
    probe : Path or None
        File with the probe's image.
    vacuum : tuple of int or None
        Positions without a crystal: first row, row after the last, and likewise columns.
    disk_radius : float or None
        In pixels.
    chosen : mapping
        Fields of DetectionSpec that are not to be chosen.
    false_peaks : float
        Accepted number of false peaks a frame.
    saturation : float or None
        Value at which the detector's pixels end; by default what their type ends at.
    """

    probe: Path | None = None
    vacuum: tuple[int, int, int, int] | None = None
    disk_radius: float | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    false_peaks: float = FALSE_PEAKS
    saturation: float | None = None


@dataclass(frozen=True, eq=False)
class DetectionSetup:
    """A detector, and what it rests on.

    Parameters
    ----------
    detector : Detector
    template : ProbeTemplate
    noise : NoiseModel
    sample : ndarray of shape (n, rows, columns)
        Frames from all over the scan, bad ones left out, bad pixels filled in.
    positions : ndarray of shape (n, 2)
        Where they come from: scan_y, scan_x.
    measured_radius : DiskRadius or None
        What the disks of the sample have; None = no direct beam is seen.
    """

    detector: Detector
    template: ProbeTemplate
    noise: NoiseModel
    sample: NDArray[np.generic]
    positions: NDArray[np.int64]
    measured_radius: DiskRadius | None

    @property
    def brightest(self) -> tuple[float, float]:
        """Row and column of the brightest place of the sample's mean: about the direct beam."""
        mean = gaussian_filter(self.sample.mean(axis=0, dtype=np.float64), 0.5 * self.template.radius)
        row, column = np.unravel_index(int(mean.argmax()), mean.shape)
        return float(row), float(column)

    @property
    def spec(self) -> DetectionSpec:
        """Parameters of the detection."""
        return self.detector.spec


def prepare_detection(scan: FrameScan, request: SetupRequest) -> DetectionSetup:
    """Choose template and parameters on a sample of the scan.

    Parameters
    ----------
    scan : FrameScan
    request : SetupRequest

    Returns
    -------
    DetectionSetup

    Raises
    ------
    ScanError
        If all frames of the sample are bad, or no template comes about.
    SpecError
        If a chosen parameter is out of range.
    """
    DetectionSpec(**request.chosen)  # what is out of range is refused before anything is read
    if request.disk_radius is not None:
        check_radius(request.disk_radius, scan.frame_shape)
    bytes_of_pair = 2 * scan.frames.dtype.itemsize * scan.frame_shape[0] * scan.frame_shape[1]
    first, second, positions = sample_pairs(
        scan, int(np.clip(_SAMPLE_BYTES // bytes_of_pair, 4, SAMPLE_PAIRS))
    )
    saturation = request.saturation if request.saturation is not None else saturation_of(first)
    first, second, positions, bad_pixels = _usable(first, second, positions, saturation)
    template, measured = _template(scan, request, first, bad_pixels)
    chosen = {"trench": choose_trench(template.radius)} | dict(request.chosen)
    kernel = kernel_of(template, chosen["trench"])
    narrow = kernel_of(template, min(chosen["trench"], NARROW_TRENCH))
    spec, noise = choose_parameters(first, second, kernel, chosen, request.false_peaks, narrow)
    detector = Detector(kernel, spec, bad_pixels, saturation)
    return DetectionSetup(detector, template, noise, first, positions, measured)


def _usable(
    first: NDArray[Any], second: NDArray[Any], positions: NDArray[np.int64], saturation: float | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
    """Leave out pairs with a bad frame, and fill in bad pixels."""
    frames = np.concatenate([first, second])
    none = np.zeros(frames.shape[1:], dtype=bool)
    if frames.dtype.kind == "f":
        none = ~np.isfinite(frames).any(axis=0)  # pixels without a number anywhere make no frame bad
        if none.all():
            none[:] = False
    status = check_frames(frames, none, saturation)
    good = (status == GOOD)[: len(first)]
    if len(second):
        good &= (status == GOOD)[len(first) :]
    if not good.any():
        raise ScanError(
            f"no usable frame among {len(frames)} from all over the scan: {describe_status(status)}",
            "there is nothing to find disks in",
            "Look at them with 'diffractory inspect'; give the value at which pixels end with --saturation",
        )
    first, second = first[good], second[good] if len(second) else second
    bad_pixels = find_bad_pixels(np.concatenate([first, second]))
    return (
        fill_bad_pixels(first, bad_pixels), fill_bad_pixels(second, bad_pixels), positions[good], bad_pixels
    )  # fmt: skip


def _template(
    scan: FrameScan, request: SetupRequest, sample: NDArray[Any], bad_pixels: NDArray[np.bool_]
) -> tuple[ProbeTemplate, DiskRadius | None]:
    """Return the template, and the radius measured on the sample."""
    shape = scan.frame_shape
    try:
        measured: DiskRadius | None = measure_radius(sample)
        problem: ScanError | None = None
    except ScanError as error:
        measured, problem = None, error
    if request.probe is not None:
        return read_probe(request.probe, shape), measured
    if request.vacuum is not None:
        return vacuum_template(fill_bad_pixels(_vacuum_frames(scan, request.vacuum), bad_pixels)), measured
    if request.disk_radius is not None:
        return disk_template(shape, request.disk_radius, "--disk-radius"), measured
    if scan.disk_radius is not None:
        origin = f"semi-convergence angle of {scan.semiangle_mrad:g} mrad"
        return disk_template(shape, scan.disk_radius, origin), measured
    if measured is None:
        raise problem or ScanError("no direct beam is seen in the mean frame")
    return disk_template(shape, measured.radius, measured.origin), measured


def _vacuum_frames(scan: FrameScan, box: tuple[int, int, int, int]) -> NDArray[Any]:
    y0, y1, x0, x1 = box
    if not (0 <= y0 < y1 <= scan.shape[0] and 0 <= x0 < x1 <= scan.shape[1]):
        raise ScanError(
            f"--vacuum {y0} {y1} {x0} {x1} is no part of {scan.shape[0]} × {scan.shape[1]} positions",
            "it is the first row, the row after the last, and likewise columns",
        )
    step = max(1, int(np.ceil(np.sqrt((y1 - y0) * (x1 - x0) / _VACUUM_FRAMES))))
    (frames,) = read_places(scan, [(slice(y0, y1, step), slice(x0, x1, step))])
    return frames.reshape(-1, *scan.frame_shape)
