"""Measures the radius of disks on a sample of frames: of the direct beam, and of diffracted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffractory.scan.detection.disk_detection import Correlator, local_maxima
from diffractory.scan.detection.probe_template import (
    MIN_RADIUS,
    align_frames,
    check_radius,
    disk_template,
    kernel_of,
    measure_disk,
)
from diffractory.specs import DetectionSpec

#: The direct beam is believed unless it is wider than diffracted disks by this factor: saturation and
#: halos widen it, nothing makes it narrower.
_WIDER: Final = 1.2
#: Radii that are tried grow by this factor.
_FACTOR: Final = 1.15
#: Most frames that diffracted disks are looked for in, and how many, the strongest, in each.
_FRAMES: Final = 16
_DISKS: Final = 6
#: Standard deviations of counting noise that they must stand out by, on average.
_CLEAR: Final = 8.0
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
    same place; unless the strongest diffracted disks are clearly smaller.

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
    diffracted = _matching_radius(frames, direct)
    if diffracted is not None and direct > _WIDER * diffracted:
        found = DiskRadius(diffracted, f"diffracted disks (the direct beam, {direct:.1f} px, is wider)")
    else:
        found = DiskRadius(max(direct, MIN_RADIUS), "direct beam of the mean frame")
    check_radius(found.radius, shape)
    return found


def _matching_radius(frames: NDArray[np.generic], largest: float) -> float | None:
    """Return the radius, up to the direct beam's, that diffracted disks match best; None if few are seen.

    The match is the correlation with a kernel of unit length, by which a disk is best told from even
    noise: a kernel too small misses a part of the disk, one too large takes in what is none.
    """
    shape = (frames.shape[1], frames.shape[2])
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _FRAMES)).astype(int))]
    smallest = 1.2 * MIN_RADIUS
    largest = min(largest, min(shape) / 4.0)
    if largest <= _WIDER * smallest:
        return None
    radii = np.geomspace(smallest, largest, int(np.log(largest / smallest) / np.log(_FACTOR)) + 2)
    around = 3.0 * largest + 3.0
    matches, clear = np.array([_match(chosen, float(radius), around) for radius in radii]).T
    best = int(matches.argmax())
    if clear[best] < _CLEAR or best == 0:
        return None
    if best == len(radii) - 1:
        return float(radii[best])
    before, here, after = matches[best - 1 : best + 2]
    shift = 0.5 * (before - after) / (before - 2.0 * here + after)
    return float(radii[best] * (radii[1] / radii[0]) ** shift)


def _match(frames: NDArray[np.generic], radius: float, around: float) -> tuple[float, float]:
    """Return how well disks so far from the direct beam match, and how clear they are."""
    shape = (frames.shape[1], frames.shape[2])
    kernel = kernel_of(disk_template(shape, radius, ""), _TRENCH)
    correlate = Correlator(kernel, DetectionSpec(min_significance=1.0, noise_gain=1.0))
    length = float(np.linalg.norm(kernel.values))
    matches, clears = [0.0], [0.0]
    for frame in frames:
        correlation, deviation = correlate.with_noise(frame)
        assert deviation is not None
        rows, columns = local_maxima(correlation.values, max(1, round(radius)))
        strength = correlation.values[rows, columns]
        if not strength.size:
            continue
        first = int(strength.argmax())
        far = np.hypot(rows - rows[first], columns - columns[first]) > around
        top = np.argsort(strength[far])[-_DISKS:]
        if top.size:
            matches.append(float(strength[far][top].mean()) / length)
            noise = np.maximum(deviation[rows, columns][far][top], 1e-300)
            clears.append(float((strength[far][top] / noise).mean()))
    # Frames of vacuum or of a thick place show no disks, and say nothing about them.
    half = max(1, len(matches) // 2)
    return float(np.mean(np.sort(matches)[-half:])), float(np.mean(np.sort(clears)[-half:]))
