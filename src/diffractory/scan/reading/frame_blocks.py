"""A scan of frames block by block: workers receive a path and numbers, and read one block at a time.

A block is what neighbouring chunks of the file hold, so that every byte is read once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError, ScanError
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_reader import read_frame_scan
from diffractory.scan.reading.recording_files import files_beside

#: Small chunks are taken together until a block holds this many bytes.
_BLOCK_BYTES: Final = 64 * 2**20
#: A scan in fewer blocks than this is cut more finely, …
_FEW_BLOCKS: Final = 8
#: … where that leaves each so many frames.
_LEAST_FRAMES: Final = 64


@dataclass(frozen=True)
class FrameSource:
    """How to open a scan of frames again in another process, as it was when it was first opened.

    Open files cannot be sent to workers, so that each opens the file itself, once.

    Parameters
    ----------
    state : FileState
        The file, and what it was.
    options : tuple of (str, value)
        Keyword arguments of :func:`~diffractory.scan.reading.frame_reader.read_frame_scan`.
    """

    state: FileState
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, path: Path, **options: Any) -> FrameSource:
        """Describe a file and the options it is read with.

        Raises
        ------
        ScanError
            If it is not there, or nothing that a scan is stored in.
        """
        if not path.exists():
            raise ScanError(f"{path} does not exist", "", "Check the path")
        return cls(FileState.of(path, files_beside(path)), tuple(sorted(options.items())))

    def open(self) -> FrameScan:
        """Return the scan; the same object while this process lives.

        Raises
        ------
        ScanError
            As :func:`~diffractory.scan.reading.frame_reader.read_frame_scan`, or if the file has changed.
        """
        self.state.check()
        return _opened(self)


@lru_cache(maxsize=2)
def _opened(source: FrameSource) -> FrameScan:
    return read_frame_scan(source.state.path, **dict(source.options))


@dataclass(frozen=True)
class FrameBlock:
    """A rectangle of positions.

    Parameters
    ----------
    index : int
        Number of the block, in the order of the scan.
    rows, columns : tuple of int
        First and one past the last position along scan_y and scan_x.
    """

    index: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the block lies in an array over the scan."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def positions(self) -> int:
        """Number of positions."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def name(self) -> str:
        """What tells this block from every other rectangle of its scan."""
        return f"y{self.rows[0]}-{self.rows[1]}-x{self.columns[0]}-{self.columns[1]}"


def frame_blocks(scan: FrameScan) -> list[FrameBlock]:
    """Cut a scan into blocks along the chunks of its frames, in row-major order.

    Parameters
    ----------
    scan : FrameScan

    Returns
    -------
    list of FrameBlock
        Together every position once. What is found in a frame must not depend on its block.
    """
    heights, widths = scan.frames.data.chunks[:2]
    frame_bytes = scan.frames.dtype.itemsize * math.prod(scan.frame_shape)
    columns = _merged(widths, frame_bytes * max(heights))
    widest = max(stop - start for start, stop in columns)
    rows = _merged(heights, frame_bytes * widest)
    if len(rows) * len(columns) < _FEW_BLOCKS:
        # A small file may be one chunk, and workers would be idle.
        rows = _split(rows, len(columns), widest)
    pairs = [(y, x) for y in rows for x in columns]
    return [FrameBlock(index, y, x) for index, (y, x) in enumerate(pairs)]


def _merged(chunks: tuple[int, ...], bytes_each: int) -> list[tuple[int, int]]:
    """Return first and one past the last of runs of chunks that together stay below the size of a block."""
    ends = np.cumsum((0, *chunks)).tolist()
    starts = [0]
    for start, stop in pairwise(ends):
        if start > starts[-1] and (stop - starts[-1]) * bytes_each > _BLOCK_BYTES:
            starts.append(start)
    return list(zip(starts, [*starts[1:], ends[-1]], strict=True))


def _split(rows: list[tuple[int, int]], columns: int, widest: int) -> list[tuple[int, int]]:
    """Cut runs of rows into shorter ones, until there are enough blocks or they become too small."""
    parts = []
    for first, last in rows:
        step = max(-(-(last - first) * len(rows) * columns // _FEW_BLOCKS), -(-_LEAST_FRAMES // widest))
        parts += [(start, min(start + step, last)) for start in range(first, last, step)]
    return parts


def read_block(source: FrameSource | FrameScan, block: FrameBlock) -> NDArray[Any]:
    """Read the frames of one block, and nothing else, in this thread.

    Parameters
    ----------
    source : FrameSource or FrameScan
        What can be sent to workers, or a scan that is open here already.
    block : FrameBlock

    Returns
    -------
    ndarray of shape (rows, columns, q_row, q_column)

    Raises
    ------
    ScanError
        If the file is damaged there, or changed since it was first opened.
    """
    scan = source.open() if isinstance(source, FrameSource) else source
    try:
        frames = read_places(scan, [block.slices])[0]
    finally:
        # What was read while another program wrote may be half old, half new: that is the better reason.
        if isinstance(source, FrameSource):
            source.state.check()
    return frames


def read_places(scan: FrameScan, places: Sequence[tuple[slice, slice]]) -> list[NDArray[Any]]:
    """Read the frames of some rectangles of a scan, and nothing else, in this thread.

    Parameters
    ----------
    scan : FrameScan
    places : sequence of tuple of slice
        Rows and columns of the scan.

    Returns
    -------
    list of ndarray of shape (rows, columns, q_row, q_column)
        One a rectangle.

    Raises
    ------
    ScanError
        If the file is damaged there.
    """
    try:
        parts = dask.compute(*(scan.frames.data[place] for place in places), scheduler="synchronous")
        return [np.asarray(part) for part in parts]
    except (DiffractoryError, MemoryError):
        raise
    except Exception as error:  # h5py, zarr and numpy raise all kinds where bytes are missing
        first, last = min(rows.start for rows, _ in places), max(rows.stop for rows, _ in places)
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ScanError(
            f"{scan.source} is damaged between rows {first} and {last} of the scan: {text}",
            "frames there cannot be read",
            "Copy the file again",
        ) from None


def sample_frames(source: FrameSource, count: int) -> Iterator[NDArray[Any]]:
    """Yield single frames spread over the scan, each of shape (q_row, q_column).

    Raises
    ------
    ScanError
        As :func:`read_block`.
    """
    n_y, n_x = source.open().shape
    places = np.unique(np.linspace(0, n_y * n_x - 1, min(count, n_y * n_x)).round().astype(int))
    for place in places:
        y, x = divmod(int(place), n_x)
        yield read_block(source, FrameBlock(0, (y, y + 1), (x, x + 1)))[0, 0]
