"""From raw frames to peaks in pixels: a sample to choose by, work on blocks of frames, one table.

What is found in a frame depends on that frame alone, not on its block.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.disk_detection import DiskKernel, detect_block
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.frame_checks import (
    FRAME_STATUS,
    GOOD,
    NO_PEAKS,
    check_frames,
    fill_bad_pixels,
)
from diffractory.scan.reading.frame_blocks import (
    FrameBlock,
    FrameSource,
    frame_blocks,
    read_block,
    read_places,
)
from diffractory.specs import DetectionSpec
from diffractory.storage import write_atomic

#: Frames that are worked on at once: 64 of 256 × 256 pixels are 32 MB.
_FRAMES_AT_ONCE: Final = 64


@dataclass(frozen=True, eq=False)
class BlockPeaks:
    """Peaks of a block of positions, row by row.

    Parameters
    ----------
    peaks : PeakTable
        In detector pixels; see :func:`~diffractory.scan.detection.disk_detection.detect_block`.
    status : ndarray of shape (n,), int8
        Codes of :data:`~diffractory.scan.inspection.frame_checks.FRAME_STATUS`.
    """

    peaks: PeakTable
    status: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Detector:
    """Finds the peaks of frames: everything besides the frames that it needs.

    Parameters
    ----------
    kernel : DiskKernel
    spec : DetectionSpec
    bad_pixels : ndarray of shape (rows, columns), bool
        Filled in before anything is looked for.
    saturation : float or None
        Value at which pixels end.
    """

    kernel: DiskKernel
    spec: DetectionSpec
    bad_pixels: NDArray[np.bool_]
    saturation: float | None

    def find(self, frames: NDArray[np.generic]) -> BlockPeaks:
        """Find the peaks of frames of shape (n, rows, columns)."""
        parts = [
            self._find(frames[start : start + _FRAMES_AT_ONCE])
            for start in range(0, len(frames), _FRAMES_AT_ONCE)
        ]
        return BlockPeaks(
            PeakTable.concatenate([part.peaks for part in parts]),
            np.concatenate([np.empty(0, np.int8), *(part.status for part in parts)]),
        )

    def _find(self, frames: NDArray[np.generic]) -> BlockPeaks:
        status = check_frames(frames, self.bad_pixels, self.saturation)
        good = np.flatnonzero(status == GOOD)
        found = detect_block(fill_bad_pixels(frames[good], self.bad_pixels), self.kernel, self.spec)
        # A pattern without peaks stands last, for the frames that were left out.
        nothing = PeakTable.from_lists([np.empty((0, 2))], [np.empty(0)], [-1])
        where = np.full(len(frames), len(good))
        where[good] = np.arange(len(good))
        peaks = PeakTable.concatenate([found, nothing]).take(where)
        status[(status == GOOD) & (peaks.counts == 0)] = NO_PEAKS
        return BlockPeaks(peaks, status)


def sample_pairs(scan: FrameScan, n_pairs: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Read frames of neighbouring positions from all over the scan.

    Parameters
    ----------
    scan : FrameScan
    n_pairs : int

    Returns
    -------
    first, second : ndarray of shape (n, rows, columns)
        ``second`` is empty for a scan of one position.
    positions : ndarray of shape (n, 2)
        Row and column of ``first`` in the scan.
    """
    n_y, n_x = scan.shape
    dy, dx = (0, 1) if n_x > 1 else (1, 0) if n_y > 1 else (0, 0)
    height, width = n_y - dy, n_x - dx
    n = min(n_pairs, height * width)
    # Steps by the golden section of each direction: even, and on no grid of the sample's own.
    steps = np.arange(n)
    y = ((steps + 0.5) * height / n).astype(np.int64)
    x = (((steps * 0.6180339887498949) % 1.0) * width).astype(np.int64)
    positions = np.unique(np.stack([y, x], axis=1), axis=0)
    places = [(slice(r, r + dy + 1), slice(c, c + dx + 1)) for r, c in positions.tolist()]
    pairs = np.stack([part.reshape(-1, *scan.frame_shape) for part in read_places(scan, places)])
    return pairs[:, 0], pairs[:, 1] if dy or dx else pairs[:0, 0], positions


@dataclass(frozen=True, eq=False)
class DetectBlocks:
    """Reads a block and finds its peaks; can be sent to workers if the source is a file.

    Parameters
    ----------
    detector : Detector
    source : FrameSource or FrameScan
    """

    detector: Detector
    source: FrameSource | FrameScan

    def __call__(self, block: FrameBlock) -> BlockPeaks:
        """Find the peaks of a block.

        Raises
        ------
        ScanError
            If its frames cannot be read.
        """
        frames = read_block(self.source, block)
        return self.detector.find(frames.reshape(-1, *frames.shape[2:]))


def find_peaks(scan: FrameScan, detector: Detector) -> BlockPeaks:
    """Find the peaks of a whole scan here, block by block, row by row over the scan.

    Raises
    ------
    ScanError
        If its frames cannot be read, or nothing was found in all of it.
    """
    work = DetectBlocks(detector, scan)
    return assemble(((block, work(block)) for block in frame_blocks(scan)), scan.shape)


def assemble(blocks: Iterable[tuple[FrameBlock, BlockPeaks]], shape: tuple[int, int]) -> BlockPeaks:
    """Join the peaks of all blocks of a scan, row by row over the whole scan.

    Raises
    ------
    ScanError
        If the blocks do not cover the scan, or nothing was found in all of it.
    """
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = list(blocks)
    order = np.concatenate([numbers[block.slices].ravel() for block, _ in pairs])
    if not np.array_equal(np.sort(order), numbers.ravel()):
        raise ScanError(f"the blocks do not cover the scan of {shape[0]} × {shape[1]} positions once")
    place = np.argsort(order)
    peaks = PeakTable.concatenate([found.peaks for _, found in pairs]).take(place)
    status = np.concatenate([found.status for _, found in pairs])[place]
    if not peaks.counts.any():
        raise ScanError(
            f"no disk was found in any of {len(status):,} frames: {describe_status(status)}",
            "there is nothing to calibrate or to map",
            "Look at the frames with 'diffractory inspect'; give --disk-radius, or a lower --significance",
        )
    return BlockPeaks(peaks, status)


def describe_status(status: NDArray[np.int8]) -> str:
    """Return how many frames have which status, in words."""
    counts = np.bincount(status, minlength=len(FRAME_STATUS))
    return ", ".join(f"{n:,} {name}" for n, name in zip(counts, FRAME_STATUS, strict=True) if n)


def write_part(path: Path, found: BlockPeaks) -> None:
    """Write the peaks of one block, whole or not at all."""
    stream = io.BytesIO()
    np.savez(
        stream,
        q=found.peaks.q,
        intensity=found.peaks.intensity,
        offsets=found.peaks.offsets,
        status=found.status,
    )
    write_atomic(path, stream.getvalue())


def read_part(path: Path) -> BlockPeaks | None:
    """Read what :func:`write_part` wrote; None where it is absent or damaged, so to be done again."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            offsets = data["offsets"]
            direct = np.full(len(offsets) - 1, -1)
            return BlockPeaks(PeakTable(data["q"], data["intensity"], offsets, direct), data["status"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True, eq=False)
class DetectToFile:
    """Finds the peaks of a block and writes them to a folder; can be sent to workers.

    Parameters
    ----------
    work : DetectBlocks
    folder : Path
        Where parts go; every worker must see it.
    """

    work: DetectBlocks
    folder: Path

    def __call__(self, block: FrameBlock) -> int:
        """Work on a block, unless that was done before, and return its number of peaks."""
        path = part_path(self.folder, block)
        found = read_part(path)
        if found is None or len(found.status) != block.positions:
            found = self.work(block)
            write_part(path, found)
        return len(found.peaks.intensity)


def part_path(folder: Path, block: FrameBlock) -> Path:
    """Return where the peaks of a block lie."""
    return folder / f"{block.name}.npz"
