"""Mean pattern, virtual bright and dark field, and bad frames of a scan, in one pass over its blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffractory.errors import ScanError
from diffractory.scan.inspection.frame_checks import (
    FRAME_STATUS,
    GOOD,
    NOT_FINITE,
    SATURATED,
    check_frames,
    saturation_of,
)
from diffractory.scan.reading.frame_blocks import FrameBlock, FrameSource, read_block

#: The virtual dark field begins this many radii of the direct disk away from its centre.
_DARK_FROM: Final = 1.5
#: Frames are widened to float64 this many bytes at a time.
_SLAB_BYTES: Final = 8 * 2**20


@dataclass(frozen=True)
class DirectBeam:
    """Where the direct beam is on the detector.

    Parameters
    ----------
    center : tuple of float
        Row and column, in pixels.
    radius : float
        Radius of its disk, in pixels.
    at_edge : bool
        Whether it touches the edge of the frame, so that it is cut or what was found is not the beam.
    """

    center: tuple[float, float]
    radius: float
    at_edge: bool = False

    @property
    def dark_from(self) -> float:
        """Radius in pixels from which on the virtual dark field counts."""
        return _DARK_FROM * self.radius

    def masks(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return the virtual bright and dark field detectors, of shape (2, rows, columns)."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        distance = np.hypot(rows - self.center[0], columns - self.center[1])
        return np.stack([distance <= self.radius, distance > self.dark_from]).astype(float)


def locate_direct_beam(frames: Iterable[NDArray[Any]], radius: float | None = None) -> DirectBeam:
    """Return the brightest disk of the mean of some frames.

    Parameters
    ----------
    frames : iterable of ndarray of shape (rows, columns)
    radius : float, optional
        Radius of the disk in pixels, where it is known; else that of the area above half of the maximum.

    Raises
    ------
    ScanError
        If no frame has any contrast.
    """
    total: NDArray[np.float64] | None = None
    for frame in frames:
        values = np.where(np.isfinite(frame), frame, 0.0)
        total = values if total is None else total + values
    if total is None or not total.max() > total.min():
        raise ScanError("no direct beam can be found", "all frames looked at are of one value everywhere")
    # A hot pixel must not pass for the direct beam.
    smooth = ndimage.gaussian_filter(ndimage.median_filter(total, 3, mode="nearest"), 1.0)
    if not smooth.max() > smooth.min():
        smooth = total
    peak = np.unravel_index(int(smooth.argmax()), smooth.shape)
    bright = smooth > 0.5 * (smooth[peak] + np.median(smooth))
    areas, _ = ndimage.label(bright)
    disk = areas == areas[peak]
    center = ndimage.center_of_mass(np.where(disk, smooth, 0.0))
    at_edge = bool(disk[0].any() or disk[-1].any() or disk[:, 0].any() or disk[:, -1].any())
    found = float(np.sqrt(disk.sum() / np.pi))
    return DirectBeam(
        (float(center[0]), float(center[1])), max(found if radius is None else radius, 0.5), at_edge
    )


@dataclass(frozen=True, eq=False)
class BlockImages:
    """Sums over the frames of one block.

    Parameters
    ----------
    block : FrameBlock
    good : int
        Number of frames that ``total`` and ``highest`` are taken over.
    total, highest : ndarray of shape (rows, columns)
        Sum and maximum of the good frames.
    bright, dark : ndarray over the block's positions
        Sum over the virtual detectors.
    status : ndarray of int8, over the block's positions
        Codes of :data:`~diffractory.scan.inspection.frame_checks.FRAME_STATUS`.
    clipped : ndarray of float32, over the block's positions
        Share of pixels at the largest storable number; 0 where numbers are not integers.
    """

    block: FrameBlock
    good: int
    total: NDArray[np.float64]
    highest: NDArray[np.float64]
    bright: NDArray[np.float64]
    dark: NDArray[np.float64]
    status: NDArray[np.int8]
    clipped: NDArray[np.float32]


def frame_status(frames: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Tell which frames are unusable, and how much of each is clipped.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)

    Returns
    -------
    status : ndarray of shape (n,), int8
        Codes of :data:`~diffractory.scan.inspection.frame_checks.FRAME_STATUS`.
    clipped : ndarray of shape (n,), float32
        Share of pixels at the largest number of an integer type.
    """
    end = saturation_of(frames)
    clipped = np.zeros(len(frames), dtype=np.float32)
    if end is not None:
        clipped[:] = (frames.reshape(len(frames), -1) == end).mean(axis=1)
    return check_frames(frames, np.zeros(frames.shape[1:], dtype=bool), end), clipped


def block_images(frames: NDArray[Any], block: FrameBlock, masks: NDArray[np.float64]) -> BlockImages:
    """Return the sums over one block of frames.

    Parameters
    ----------
    frames : ndarray of shape (n_y, n_x, rows, columns)
    block : FrameBlock
        Where they lie.
    masks : ndarray of shape (2, rows, columns)
        Virtual bright and dark field detectors.
    """
    scan, frame = frames.shape[:2], frames.shape[2:]
    flat = frames.reshape(-1, *frame)
    total, highest = np.zeros(frame), np.full(frame, -np.inf)
    fields = np.zeros((len(flat), 2))
    status, clipped = np.zeros(len(flat), np.int8), np.zeros(len(flat), np.float32)
    n = max(1, _SLAB_BYTES // (8 * frame[0] * frame[1]))
    weights = masks.reshape(2, -1).T
    for start in range(0, len(flat), n):
        slab = slice(start, start + n)
        status[slab], clipped[slab] = frame_status(flat[slab])
        values = flat[slab].astype(np.float64)
        values[status[slab] == NOT_FINITE] = 0.0
        fields[slab] = values.reshape(len(values), -1) @ weights
        good = values[status[slab] == GOOD]
        total += good.sum(axis=0)
        highest = np.maximum(highest, good.max(axis=0, initial=-np.inf))
    bright, dark = fields.T.reshape(2, *scan)
    return BlockImages(
        block, int((status == GOOD).sum()), total, highest, bright, dark,
        status.reshape(scan), clipped.reshape(scan),
    )  # fmt: skip


@dataclass(frozen=True)
class ImageBlocks:
    """Reads a block and returns its sums; can be sent to workers.

    Parameters
    ----------
    source : FrameSource
    beam : DirectBeam
    """

    source: FrameSource
    beam: DirectBeam

    def __call__(self, block: FrameBlock) -> BlockImages:
        """Return the sums over a block.

        Raises
        ------
        ScanError
            If the block cannot be read.
        """
        frames = read_block(self.source, block)
        return block_images(frames, block, self.beam.masks((frames.shape[2], frames.shape[3])))


class ScanImages:
    """Images of a scan, put together from blocks in any order; memory holds the images alone.

    Parameters
    ----------
    shape : tuple of int
        Number of positions (n_y, n_x).
    frame_shape : tuple of int
        Detector pixels (rows, columns).

    Attributes
    ----------
    bright, dark : ndarray of shape (n_y, n_x)
        Virtual bright and dark field; NaN where no block was added.
    status : ndarray of shape (n_y, n_x), int8
        Codes of :data:`~diffractory.scan.inspection.frame_checks.FRAME_STATUS`.
    clipped : ndarray of shape (n_y, n_x), float32
        Share of clipped pixels of each frame.
    good : int
        Number of good frames.
    """

    def __init__(self, shape: tuple[int, int], frame_shape: tuple[int, int]) -> None:
        self.bright = np.full(shape, np.nan)
        self.dark = np.full(shape, np.nan)
        self.status = np.zeros(shape, np.int8)
        self.clipped = np.zeros(shape, np.float32)
        self.good = 0
        self._total = np.zeros(frame_shape)
        self._highest = np.full(frame_shape, -np.inf)

    def add(self, part: BlockImages) -> None:
        """Put the sums of one block in their place."""
        place = part.block.slices
        self.bright[place], self.dark[place] = part.bright, part.dark
        self.status[place], self.clipped[place] = part.status, part.clipped
        self.good += part.good
        self._total += part.total
        np.maximum(self._highest, part.highest, out=self._highest)

    @property
    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean of the good frames, of shape (rows, columns); 0 where there is none."""
        mean: NDArray[np.float64] = self._total / max(self.good, 1)
        return mean

    @property
    def max_pattern(self) -> NDArray[np.float64]:
        """Largest value of each pixel in good frames, of shape (rows, columns); 0 where there is none."""
        return self._highest if self.good else np.zeros_like(self._highest)

    def counts(self) -> dict[str, int]:
        """Return the number of frames of each status that is told here, and of those with clipped pixels."""
        told = range(SATURATED + 1)  # peaks are not looked for
        named = {FRAME_STATUS[code]: int((self.status == code).sum()) for code in told}
        return {**named, "with clipped pixels": int((self.clipped > 0).sum())}
