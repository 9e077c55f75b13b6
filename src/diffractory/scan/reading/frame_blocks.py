"""A scan of frames block by block: workers receive a path and numbers, and read one block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError, ScanError
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_reader import read_frame_scan


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
            If it is not there.
        """
        if not path.exists():
            raise ScanError(f"{path} does not exist", "", "Check the path")
        return cls(FileState.of(path), tuple(sorted(options.items())))

    def open(self) -> FrameScan:
        """Return the scan; the same object while this process lives.

        Raises
        ------
        ScanError
            As :func:`~diffractory.scan.reading.frame_reader.read_frame_scan`, or if the file has changed.
        """
        self.state.check()
        return _opened(self)

    def reopening(self) -> FrameScan:
        """Return the scan with frames that whoever computes them reads from the file himself.

        Its task graph holds the path and numbers alone, so that it can be sent to workers.

        Raises
        ------
        ScanError
            As :meth:`open`.
        """
        scan = self.open()
        data = scan.frames.data
        frames = da.map_blocks(_read_part, self, chunks=data.chunks, dtype=data.dtype, meta=data._meta)
        return replace(scan, frames=scan.frames.copy(data=frames))


def _read_part(source: FrameSource, block_info: dict[None, dict[str, Any]]) -> NDArray[Any]:
    rows, columns = block_info[None]["array-location"][:2]
    return read_block(source, FrameBlock(0, (rows[0], rows[1]), (columns[0], columns[1])))


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


def frame_blocks(scan: FrameScan) -> list[FrameBlock]:
    """Return the blocks of a scan: its chunks, in row-major order."""
    rows, columns = (np.cumsum((0, *sizes)) for sizes in scan.frames.data.chunks[:2])
    pairs = [(y, x) for y in pairwise(rows) for x in pairwise(columns)]
    return [FrameBlock(i, (int(y[0]), int(y[1])), (int(x[0]), int(x[1]))) for i, (y, x) in enumerate(pairs)]


def read_block(source: FrameSource, block: FrameBlock) -> NDArray[Any]:
    """Read the frames of one block.

    Parameters
    ----------
    source : FrameSource
    block : FrameBlock

    Returns
    -------
    ndarray of shape (rows, columns, q_row, q_column)

    Raises
    ------
    ScanError
        If the file is damaged there, or changed since it was first opened.
    """
    scan = source.open()
    try:
        frames: NDArray[Any] = np.asarray(scan.frames.data[block.slices].compute(scheduler="synchronous"))
    except (DiffractoryError, MemoryError):
        raise
    except Exception as error:  # h5py, zarr and numpy raise all kinds where bytes are missing
        source.state.check()
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ScanError(
            f"{scan.source} is damaged between rows {block.rows[0]} and {block.rows[1]} of the scan: {text}",
            "frames there cannot be read",
            "Copy the file again",
        ) from None
    # What was read while another program wrote may be half old, half new.
    source.state.check()
    return frames


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
