"""From raw frames to peaks in pixels: a sample to choose by, blocks of frames to work on, one table.

A block is what one chunk of the file holds, so that every byte is read once; what is found in a frame
depends on that frame alone, not on its block.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
from dask.optimization import cull
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
from diffractory.specs import DetectionSpec
from diffractory.storage import write_atomic

#: Frames that are worked on at once: 64 of 256 × 256 pixels are 32 MB.
_FRAMES_AT_ONCE: Final = 64
#: A scan in fewer blocks than this is cut more finely, where that leaves each enough frames.
_FEW_BLOCKS: Final = 8
#: Small chunks are taken together until a block holds this many bytes.
_BLOCK_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, eq=False)
class DetectionBlock:
    """A rectangle of positions, and how their frames are read.

    Parameters
    ----------
    y, x : tuple of int
        First row and the one after the last; likewise columns.
    graph : mapping
        Tasks that read the frames, no others: what is sent to a worker.
    keys : list of list
        Tasks that give the chunks of the block, in rows and columns.
    rows : slice
        Rows of these chunks that belong to the block.
    """

    y: tuple[int, int]
    x: tuple[int, int]
    graph: Mapping[Any, Any]
    keys: list[list[Any]]
    rows: slice

    @property
    def name(self) -> str:
        """What tells this block from the others of its scan."""
        return f"y{self.y[0]}-{self.y[1]}-x{self.x[0]}-{self.x[1]}"

    def read(self) -> NDArray[Any]:
        """Read the frames of shape (n_y, n_x, rows, columns) in this thread.

        Raises
        ------
        ScanError
            If the file behind them cannot be read any more.
        """
        with _reading():
            chunks = dask.get(dict(self.graph), self.keys)
            whole = np.concatenate([np.concatenate(row, axis=1) for row in chunks], axis=0)
            frames: NDArray[Any] = whole[self.rows]
            return frames


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
    """Finds the peaks of blocks: everything besides the frames that it needs.

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

    def __call__(self, block: DetectionBlock) -> BlockPeaks:
        """Read a block and find its peaks.

        Raises
        ------
        ScanError
            If the frames cannot be read.
        """
        frames = block.read()
        return self.find(frames.reshape(-1, *frames.shape[2:]))

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


def read_frames(parts: Sequence[da.Array]) -> list[NDArray[Any]]:
    """Read lazy arrays in this thread.

    Raises
    ------
    ScanError
        If the file behind them cannot be read any more.
    """
    with _reading():
        return [np.asarray(part) for part in dask.compute(*parts, scheduler="synchronous")]


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except ScanError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, KeyError, IndexError) as error:
        raise ScanError(
            "frames cannot be read",
            f"{type(error).__name__}: {error}",
            "The file is cut off, or changed while it was read: copy it again",
        ) from None


def frame_blocks(scan: FrameScan) -> list[DetectionBlock]:
    """Cut a scan into blocks along the chunks of its frames.

    Parameters
    ----------
    scan : FrameScan

    Returns
    -------
    list of DetectionBlock
        Together every position once; each carries only its own tasks.
    """
    (frames,) = dask.optimize(_whole_frames(scan))
    # One look at the whole graph; slicing it for each block would cost the square of their number.
    graph = dict(frames.__dask_graph__())
    heights, widths = frames.chunks[:2]
    bytes_of_frame = frames.dtype.itemsize * math.prod(scan.frame_shape)
    columns = _merged(widths, bytes_of_frame * max(heights))
    most = max(sum(widths[run]) for run in columns)
    blocks = []
    for rows in _merged(heights, bytes_of_frame * most):
        top, n_rows = sum(heights[: rows.start]), sum(heights[rows])
        for run in columns:
            left, n_columns = sum(widths[: run.start]), sum(widths[run])
            keys = [
                [(frames.name, i, j, 0, 0) for j in range(run.start, run.stop)]
                for i in range(rows.start, rows.stop)
            ]
            own, _ = cull(graph, [key for row in keys for key in row])
            x = (left, left + n_columns)
            blocks.append(DetectionBlock((top, top + n_rows), x, own, keys, slice(0, n_rows)))
    return blocks if len(blocks) >= _FEW_BLOCKS else _split(blocks)


def _split(blocks: list[DetectionBlock]) -> list[DetectionBlock]:
    """Cut blocks into fewer rows: a small file may be one chunk, and workers would be idle.

    Each part reads its chunks anew, which for so few blocks costs less.
    """
    parts = []
    for block in blocks:
        height, width = block.y[1] - block.y[0], block.x[1] - block.x[0]
        step = max(-(-height * len(blocks) // _FEW_BLOCKS), -(-_FRAMES_AT_ONCE // width))
        for start in range(0, height, step):
            stop = min(start + step, height)
            y = (block.y[0] + start, block.y[0] + stop)
            parts.append(DetectionBlock(y, block.x, block.graph, block.keys, slice(start, stop)))
    return parts


def _whole_frames(scan: FrameScan) -> da.Array:
    frames = scan.frames.data
    if not isinstance(frames, da.Array):
        frames = da.from_array(frames, chunks=(1, scan.shape[1], -1, -1))
    return frames.rechunk({2: -1, 3: -1})


def _merged(chunks: tuple[int, ...], bytes_each: int) -> list[slice]:
    """Return runs of chunks that together stay below the size of a block."""
    runs: list[slice] = []
    start, size = 0, 0
    for index, length in enumerate(chunks):
        if size and (size + length) * bytes_each > _BLOCK_BYTES:
            runs.append(slice(start, index))
            start, size = index, 0
        size += length
    return [*runs, slice(start, len(chunks))]


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
    frames = _whole_frames(scan)
    parts = [frames[r : r + dy + 1, c : c + dx + 1] for r, c in positions]
    pairs = np.stack([part.reshape(-1, *scan.frame_shape) for part in read_frames(parts)])
    return pairs[:, 0], pairs[:, 1] if dy or dx else pairs[:0, 0], positions


def assemble(blocks: Iterable[tuple[DetectionBlock, BlockPeaks]], shape: tuple[int, int]) -> BlockPeaks:
    """Join the peaks of all blocks of a scan, row by row over the whole scan.

    Raises
    ------
    ScanError
        If the blocks do not cover the scan, or nothing was found in all of it.
    """
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = list(blocks)
    order = np.concatenate([numbers[slice(*block.y), slice(*block.x)].ravel() for block, _ in pairs])
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
    detector : Detector
    folder : Path
        Where parts go; every worker must see it.
    """

    detector: Detector
    folder: Path

    def __call__(self, block: DetectionBlock) -> int:
        """Work on a block, unless that was done before, and return its number of peaks."""
        path = part_path(self.folder, block)
        found = read_part(path)
        if found is None or len(found.status) != (block.y[1] - block.y[0]) * (block.x[1] - block.x[0]):
            found = self.detector(block)
            write_part(path, found)
        return len(found.peaks.intensity)


def part_path(folder: Path, block: DetectionBlock) -> Path:
    """Return where the peaks of a block lie."""
    return folder / f"{block.name}.npz"
