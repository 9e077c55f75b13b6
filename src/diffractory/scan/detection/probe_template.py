"""The template that frames are compared with: measured in vacuum, read from a file, or a plain disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import fourier_shift, gaussian_filter, label, shift

from diffractory.errors import ScanError
from diffractory.scan.detection.disk_detection import DiskKernel

#: Smallest radius of a disk in pixels that correlation can tell from a single pixel.
MIN_RADIUS: Final = 1.0
_RADIUS_FIX: Final = "Give the disk's radius with --disk-radius, or a probe's image with --probe"
#: Width of a synthetic disk's edge in pixels.
_EDGE_WIDTH: Final = 1.0


@dataclass(frozen=True, eq=False)
class ProbeTemplate:
    """Image of the probe without a crystal.

    Parameters
    ----------
    image : ndarray of shape (rows, columns)
        Of the frames' shape.
    center : tuple of float
        Row and column of its middle.
    radius : float
        Radius of the disk in pixels.
    origin : str
        How it came about, for people.
    """

    image: NDArray[np.float64]
    center: tuple[float, float]
    radius: float
    origin: str


def measure_disk(image: NDArray[np.float64]) -> tuple[float, float, float]:
    """Measure the brightest disk of an image.

    Its edge is where the mean over all directions falls off most steeply; the radius is that of a
    circle with the area above the middle between the levels inside and just outside of the edge. So
    neither a halo around it nor other disks matter.

    Parameters
    ----------
    image : ndarray of shape (rows, columns)

    Returns
    -------
    radius, row, column : float
        In pixels.

    Raises
    ------
    ScanError
        If the image shows no disk: it is flat, or bright all over.
    """
    values = np.asarray(image, dtype=np.float64)
    smooth = gaussian_filter(values, 0.7)
    top = np.unravel_index(int(smooth.argmax()), smooth.shape)
    if not smooth[top] > np.median(smooth):
        raise ScanError("no direct beam is seen in the mean frame", "all its pixels are alike", _RADIUS_FIX)
    row, column = float(top[0]), float(top[1])
    region = np.zeros(values.shape, dtype=bool)
    rows, columns = np.indices(values.shape)
    for _ in range(3):  # the brightest pixel is not the middle of a disk
        region, level = _disk_region(values, row, column)
        weights = np.where(region, values - level, 0.0)
        total = max(float(weights.sum()), 1e-300)
        row, column = float((weights * rows).sum() / total), float((weights * columns).sum() / total)
    if region.mean() > 0.25:
        raise ScanError(
            "no direct beam is seen in the mean frame",
            f"{100 * region.mean():.0f} % of it are as bright as its brightest spot",
            _RADIUS_FIX,
        )
    return math.sqrt(float(region.sum()) / math.pi), row, column


def _disk_region(values: NDArray[np.float64], row: float, column: float) -> tuple[NDArray[np.bool_], float]:
    """Return the pixels of the disk around a place, and the level outside of it."""
    rows, columns = np.indices(values.shape)
    distance = np.hypot(rows - row, columns - column)
    rings = np.rint(distance).astype(int).ravel()
    profile = np.bincount(rings, values.ravel()) / np.maximum(np.bincount(rings), 1)
    edge = float(np.argmin(np.diff(profile[: min(values.shape) // 2 + 2]))) + 0.5
    inside = float(np.median(values[distance <= max(0.6 * edge, 0.75)]))
    around = values[(distance > 1.4 * edge + 1.0) & (distance <= 1.8 * edge + 2.0)]
    outside = float(np.median(around)) if around.size else float(values.min())
    share = np.clip((values - outside) / max(inside - outside, 1e-300), 0.0, 1.0)
    labels, _ = label((share > 0.5) & (distance <= 1.6 * edge + 1.5))
    here = labels[
        min(max(round(row), 0), values.shape[0] - 1), min(max(round(column), 0), values.shape[1] - 1)
    ]
    region: NDArray[np.bool_] = labels == here if here else distance <= edge
    return region, outside


def align_frames(frames: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the mean of frames, each shifted by whole pixels so that their brightest disks coincide.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)

    Returns
    -------
    ndarray of shape (rows, columns)
        The disk lies where it lies in most frames; what is shifted in from outside repeats the edge's
        opposite side.
    """
    smooth = np.array([gaussian_filter(np.asarray(frame, dtype=np.float64), 1.5) for frame in frames])
    tops = np.array([np.unravel_index(int(frame.argmax()), frame.shape) for frame in smooth])
    middle = np.median(tops, axis=0).astype(int)
    total = np.zeros(frames.shape[1:])
    used = 0
    for frame, top in zip(frames, tops, strict=True):
        shift = middle - top
        # A frame whose brightest disk is another one would only add a blur.
        if np.hypot(*shift) <= 0.15 * min(frames.shape[1:]):
            total += np.roll(frame, shift, axis=(0, 1))
            used += 1
    return total / max(used, 1)


def disk_template(shape: tuple[int, int], radius: float, origin: str) -> ProbeTemplate:
    """Return a plain disk with a soft edge.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frames.
    radius : float
        In pixels.
    origin : str
        Where the radius came from.

    Raises
    ------
    ScanError
        If the radius is below a pixel or does not fit the frame.
    """
    check_radius(radius, shape)
    # A pixel is its middle: py4DSTEM's own synthetic probe lies between pixels on frames of odd size.
    middle = (float(shape[0] // 2), float(shape[1] // 2))
    distance = np.hypot(*(n - at for n, at in zip(np.indices(shape), middle, strict=True)))
    image = 0.5 - 0.5 * np.tanh(2.0 * (distance - radius) / _EDGE_WIDTH)
    return ProbeTemplate(image, middle, float(radius), origin)


def check_radius(radius: float, shape: tuple[int, int]) -> None:
    """Refuse a disk's radius that cannot be worked with.

    Raises
    ------
    ScanError
        If it is not finite, below a pixel, or more than a quarter of the frame.
    """
    if not (math.isfinite(radius) and MIN_RADIUS <= radius <= min(shape) / 4.0):
        raise ScanError(
            f"disks of {radius:.3g} pixels radius",
            f"disks of {MIN_RADIUS:g} pixel to a quarter of the frame ({min(shape) / 4.0:g}) can be found",
            "Give the radius in pixels with --disk-radius",
        )


def vacuum_template(frames: NDArray[np.generic]) -> ProbeTemplate:
    """Return the mean of vacuum frames, aligned, and zero away from the disk.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
        Frames without a crystal.

    Raises
    ------
    ScanError
        If they show no disk.
    """
    return image_template(align_frames(frames), f"vacuum, {len(frames)} frames")


def image_template(image: NDArray[np.float64], origin: str) -> ProbeTemplate:
    """Return a measured image of the probe as template: measured, and zero away from the disk.

    Parameters
    ----------
    image : ndarray of shape (rows, columns)
    origin : str
        Where it came from.

    Raises
    ------
    ScanError
        If it holds what is not finite, or no disk of a usable radius.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or not np.isfinite(image).all():
        raise ScanError(f"the probe from {origin} is no image of finite numbers, shape {image.shape}")
    radius, row, column = measure_disk(image)
    check_radius(radius, (image.shape[0], image.shape[1]))
    distance = np.hypot(
        *(n - middle for n, middle in zip(np.indices(image.shape), (row, column), strict=True))
    )
    outside = distance > 1.5 * radius + 2.0
    flat = np.maximum(image - (np.median(image[outside]) if outside.any() else 0.0), 0.0)
    # A cosine's fall-off: a hard cut would be an edge of its own.
    fall = np.clip((distance - radius - 1.0) / (0.5 * radius + 1.0), 0.0, 1.0)
    soft = np.where(fall < 1.0, np.cos(0.5 * np.pi * fall) ** 2, 0.0)
    return ProbeTemplate(flat * soft, (row, column), radius, origin)


def read_probe(path: Path, shape: tuple[int, int]) -> ProbeTemplate:
    """Read the probe's image from a NumPy file.

    Parameters
    ----------
    path : Path
        ``.npy`` with one image, or a stack of them.
    shape : tuple of int
        Rows and columns of the frames.

    Raises
    ------
    ScanError
        If the file cannot be read or does not fit the frames.
    """
    try:
        image = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ScanError(
            f"cannot read the probe {path}", str(error), "Give a .npy file with one image"
        ) from None
    fits = isinstance(image, np.ndarray) and image.shape[-2:] == shape and image.size > 0
    if not fits or image.dtype.kind not in "iuf":
        raise ScanError(
            f"the probe {path} does not fit frames of {shape[0]} × {shape[1]} pixels",
            f"it has shape {getattr(image, 'shape', None)}",
            "Give a .npy file with one image of the frames' size",
        )
    frames = image.reshape(-1, *shape)
    return image_template(align_frames(frames) if len(frames) > 1 else frames[0], path.name)


def kernel_of(template: ProbeTemplate, trench: float) -> DiskKernel:
    """Return the kernel of a template: py4DSTEM's flat one, or the one with a sine-squared trench.

    Parameters
    ----------
    template : ProbeTemplate
    trench : float
        Outer radius, in disk radii, of the smooth hill that is subtracted from the disk so that the
        kernel sums to 0 and flat background does not correlate; up to 1 = a plain disk.
    """
    image = template.image
    to_corner = (-template.center[0], -template.center[1])
    if trench <= 1.0:
        values = fft.ifft2(fourier_shift(fft.fft2(image / image.sum()), to_corner)).real
    else:
        disk = shift(image, to_corner, order=1, mode="grid-wrap")
        rows, columns = (fft.fftfreq(size, 1.0 / size) for size in image.shape)
        outside = np.hypot(rows[:, None], columns) / template.radius - 1.0
        hill = np.cos(0.5 * np.pi * np.clip(outside / (trench - 1.0), 0.0, 1.0)) ** 2
        values = disk / disk.sum() - hill / hill.sum()
    return DiskKernel(np.ascontiguousarray(values, dtype=np.float64), template.radius)
