"""Measures the radius of disks on a sample of frames: of the direct beam, and of diffracted ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, shift, zoom

from diffractory.errors import ScanError
from diffractory.scan.detection.disk_detection import Correlator, local_maxima
from diffractory.scan.detection.probe_template import (
    MIN_RADIUS,
    align_frames,
    check_radius,
    disk_template,
    kernel_of,
    measure_disk,
)
from diffractory.scan.detection.ring_background import ring_background
from diffractory.specs import DetectionSpec

#: The direct beam is believed unless it is wider than diffracted disks by this factor: saturation and
#: halos widen it, nothing makes it narrower.
_WIDER: Final = 1.2
#: How many diffracted disks, the brightest, are averaged, and how many there must be.
_DISKS: Final = 60
_FEWEST: Final = 4
#: Standard deviations of counting noise that each must stand out by …
_CLEAR: Final = 8.0
#: … and what lies so many radii from it, unless it is fainter by this share, disturbs it.
_APART: Final = 2.2
_FAINT: Final = 0.3
#: Half of a cut-out's side in radii; samples a pixel of the median disk.
_CUT: Final = 1.6
_FINER: Final = 4
#: Radius of the disk by which disks of unknown size up to an expected one are found, in expected radii; and
#: by what the next expected one is smaller.
_SEED: Final = 0.55
_SMALLER: Final = 1.6
#: So many pixels of a frame that share its largest value are clipped.
_PLATEAU: Final = 5
#: Outer radius of the kernel in disk radii.
_TRENCH: Final = 2.0


@dataclass(frozen=True)
class DiskRadius:
    """Radius of a disk in pixels, and what told it.

    Parameters
    ----------
    radius : float
    origin : str
        For people.
    """

    radius: float
    origin: str


def measure_radius(frames: NDArray[np.generic]) -> DiskRadius:
    """Measure the radius of the disks in a sample of frames.

    That of the direct beam in the mean of the frames, each shifted so that its direct beam lies in the
    same place; unless the median of the brightest diffracted disks is clearly smaller.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
        Good frames from all over the scan, bad pixels filled in.

    Returns
    -------
    DiskRadius

    Raises
    ------
    ScanError
        If no direct beam is seen, or the radius is none that disks can be found with.
    """
    shape = (frames.shape[1], frames.shape[2])
    direct = measure_disk(align_frames(frames))[0]
    diffracted = _diffracted_radius(frames, direct)
    if diffracted is not None and direct > _WIDER * diffracted:
        found = DiskRadius(diffracted, f"diffracted disks (the direct beam, {direct:.1f} px, is wider)")
    else:
        found = DiskRadius(max(direct, MIN_RADIUS), "direct beam of the mean frame")
    check_radius(found.radius, shape)
    return found


def _diffracted_radius(frames: NDArray[np.generic], direct: float) -> float | None:
    """Return the radius of the median of the brightest diffracted disks; None if few are clear.

    Such as stand alone, far from the direct beam, and are not clipped: disks as large as the direct beam are
    looked for first, and where that is clipped, which widens it by any factor, smaller ones if there are
    none.
    """
    tops = frames.reshape(len(frames), -1)
    clipped = np.median((tops == tops.max(axis=1, keepdims=True)).sum(axis=1)) >= _PLATEAU
    expected = direct
    while expected >= MIN_RADIUS:
        radius = _radius_up_to(frames, expected, direct)
        if radius is not None:
            return radius
        if not clipped:
            break
        expected /= _SMALLER
    return None


def _radius_up_to(frames: NDArray[np.generic], expected: float, direct: float) -> float | None:
    """Return the radius of diffracted disks if they are about as large as expected, or smaller."""
    seed = max(_SEED * expected, 1.2 * MIN_RADIUS)
    kernel = kernel_of(disk_template((frames.shape[1], frames.shape[2]), seed, ""), _TRENCH)
    correlate = Correlator(kernel, DetectionSpec(min_significance=1.0, noise_gain=1.0))
    found = [_clear_disks(frame, correlate, expected, direct) for frame in frames]
    strength = np.concatenate([each[0] for each in found])
    if len(strength) < _FEWEST:
        return None
    cuts = np.concatenate([each[1] for each in found])[np.argsort(strength, kind="stable")[-_DISKS:]]
    # A median: two disks that overlap, or one on a slope, do not pull.
    disk = np.median([_centred(cut, expected) for cut in cuts], axis=0)
    try:
        radius = measure_disk(zoom(disk, _FINER, order=1, grid_mode=True, mode="nearest"))[0] / _FINER
    except ScanError:
        return None
    return radius if MIN_RADIUS <= radius <= _WIDER * expected else None


def _clear_disks(
    frame: NDArray[np.generic], correlate: Correlator, expected: float, direct: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the strength of the clear disks of a frame, and squares cut out around them."""
    half = math.ceil(_CUT * expected) + 2
    side = 2 * half + 1
    nothing = np.empty(0), np.empty((0, side, side))
    if min(frame.shape) <= side:
        return nothing
    correlation, deviation = correlate.with_noise(frame)
    assert deviation is not None
    rows, columns = local_maxima(correlation.values, half + 1)
    if not len(rows):
        return nothing
    values = correlation.values[rows, columns]
    noise = np.maximum(deviation[rows, columns], 1e-300)
    strength = values - ring_background(correlation.values, rows, columns, noise)
    first = int(values.argmax())
    away = np.hypot(rows - rows[first], columns - columns[first])
    clear = np.flatnonzero((strength >= _CLEAR * noise) & (away > 3.0 * direct + 3.0))
    if not len(clear):
        return nothing
    # What is fainter than all of them by that share disturbs none.
    loud = np.flatnonzero(values > _FAINT * values[clear].min())
    distance = np.hypot(rows[clear, None] - rows[loud], columns[clear, None] - columns[loud])
    beside = (distance > 0.0) & (distance < _APART * expected + 1.0)
    beside &= values[loud] > _FAINT * values[clear, None]
    clear = clear[~beside.any(axis=1)]
    if frame.dtype.kind in "iu":
        clear = clear[maximum_filter(frame, 3)[rows[clear], columns[clear]] < frame.max()]
    around = np.arange(-half, half + 1)
    cuts = np.asarray(frame, dtype=np.float64)[
        rows[clear, None, None] + around[:, None], columns[clear, None, None] + around
    ]
    return strength[clear], cuts


def _centred(cut: NDArray[np.float64], expected: float) -> NDArray[np.float64]:
    """Return a disk on its background, with its middle in the middle, and the sum 1."""
    border = np.concatenate([cut[0], cut[-1], cut[1:-1, 0], cut[1:-1, -1]])
    disk = cut - np.median(border)
    y, x = np.indices(disk.shape) - (len(disk) - 1) / 2.0
    smooth = gaussian_filter(disk, 0.5)
    weight = np.where((smooth > 0.3 * smooth.max()) & (np.hypot(y, x) <= expected + 1.0), smooth, 0.0)
    total = max(float(weight.sum()), 1e-300)
    middle = shift(disk, (-(weight * y).sum() / total, -(weight * x).sum() / total), order=1, mode="nearest")
    return np.asarray(middle / max(float(middle.sum()), 1e-300))
