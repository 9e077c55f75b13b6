"""Frames as a file stores them, and how they become a lazy scan: axis order, grid, chunks of whole frames."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.scan.frame_scan import FRAME_DIMENSIONS
from diffractory.scan.reading.unit_texts import angle_unit, length_unit, reciprocal_unit

#: A chunk of frames is at most this large, in bytes; more only if a single frame is larger.
CHUNK_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class Axis:
    """What a file says of one axis.

    Parameters
    ----------
    scale : float or None
        Distance of neighbouring elements, in ``units``; None = not stated.
    units : str
        As the file writes them; empty = not stated.
    navigate : bool or None
        True for an axis of the scan, False for one of the detector; None = not stated.
    """

    scale: float | None = None
    units: str = ""
    navigate: bool | None = None

    @property
    def is_length(self) -> bool:
        """Whether the unit is one of the sample."""
        return length_unit(self.units) is not None

    @property
    def is_reciprocal(self) -> bool:
        """Whether the unit is one of a diffraction pattern."""
        return reciprocal_unit(self.units) is not None or angle_unit(self.units) is not None


@dataclass(frozen=True, eq=False)
class RawFrames:
    """Frames in the order of the file, and what it says of them.

    Parameters
    ----------
    data : array_like or list of array_like
        With ``shape``, ``dtype`` and slicing, nothing read yet; a list is a stack in parts.
    axes : tuple of Axis
        One for each dimension; empty = nothing stated.
    energy_ev, semiangle_mrad, camera_length_mm : float or None
        As the file states them; None = not stated.
    attrs : dict
        Further provenance, JSON values only.
    """

    data: Any
    axes: tuple[Axis, ...] = ()
    energy_ev: float | None = None
    semiangle_mrad: float | None = None
    camera_length_mm: float | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the order of the file."""
        if isinstance(self.data, list):
            return (sum(int(part.shape[0]) for part in self.data), *map(int, self.data[0].shape[1:]))
        return tuple(map(int, self.data.shape))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self.data[0].dtype if isinstance(self.data, list) else self.data.dtype)


def axis_order(axes: Sequence[Axis], dimensions: int, source: str) -> tuple[int, ...]:
    """Return which stored axes are those of a scan: scan axes first, the two of the detector last.

    Units tell more than flags: some formats flag the last two axes as the detector's whatever they
    hold, but nobody writes 1/nm or mrad for the sample.

    Parameters
    ----------
    axes : sequence of Axis
        As stored; empty = nothing stated.
    dimensions : int
        3 or 4.
    source : str
        For messages.

    Raises
    ------
    ScanError
        If the file says that the axes are not those of a scan of frames.
    """
    every = range(dimensions)
    if len(axes) != dimensions:
        return tuple(every)
    reciprocal = [i for i in every if axes[i].is_reciprocal]
    lengths = [i for i in every if axes[i].is_length]
    flagged = [i for i in every if axes[i].navigate is False]
    # All axes flagged alike are axes that nobody flagged.
    stated = all(axis.navigate is not None for axis in axes) and 0 < len(flagged) < dimensions
    if len(reciprocal) == 2:
        detector = reciprocal
    elif len(lengths) == dimensions - 2:
        detector = [i for i in every if i not in lengths]
    elif stated and len(flagged) == 2:
        detector = flagged
    elif stated or len(reciprocal) > 2:
        raise ScanError(
            f"{source} has {dimensions - len(flagged)} scan axes and {len(flagged)} detector axes "
            f"by its own account (units: {', '.join(axis.units or '–' for axis in axes)})",
            "a 4D-STEM scan has two of each",
            "Set the axes in the program that wrote it: two of navigation, two of signal",
        )
    else:
        return tuple(every)
    return (*(i for i in every if i not in detector), *detector)


def scan_array(raw: RawFrames, order: tuple[int, ...], scan_shape: tuple[int, int] | None) -> da.Array:
    """Return the frames as a dask array (scan_y, scan_x, q_row, q_column) of bounded, whole-frame chunks.

    Parameters
    ----------
    raw : RawFrames
        Four-dimensional, or a stack with ``scan_shape`` positions.
    order : tuple of int
        From :func:`axis_order`.
    scan_shape : tuple of int, optional
        Rows and columns of the scan; needed for a stack, else only if it differs from the stored one.
    """
    if len(raw.shape) == 4 and isinstance(raw.data, list):
        joined = da.concatenate([_as_dask(part, (0, 1, 2, 3), (1, *part.shape[1:])) for part in raw.data])
        raw = replace(raw, data=joined)
    shape = tuple(raw.shape[i] for i in order)
    frame_bytes = shape[-2] * shape[-1] * raw.dtype.itemsize
    in_order = order == tuple(range(len(order)))
    if len(shape) == 4 and scan_shape in (None, shape[:2]):
        chunks = frame_chunks((shape[0], shape[1]), frame_bytes, _stored_chunks(raw.data, order))
        return _as_dask(raw.data, order, (*chunks, *shape[2:]))
    assert scan_shape is not None
    if len(shape) == 3 and in_order and not isinstance(raw.data, da.Array):
        parts = raw.data if isinstance(raw.data, list) else [raw.data]
        # Frames of a stack in chunks are read together, or each would cost the decoding of its chunk.
        together = (getattr(parts[0], "chunks", None) or (1,))[0]
        chunks = frame_chunks(scan_shape, frame_bytes, (1, together))
        grid = FrameGrid(parts, scan_shape)
        return da.from_array(grid, chunks=(*chunks, *shape[1:]), name=False, meta=np.empty(0, raw.dtype))
    # Rows of positions, or parts of them: as one chunk, everything would be read for each block.
    together = frame_chunks((1, shape[-3]), frame_bytes)[1] if in_order else 1
    stack = _as_dask(raw.data, order, (1, together, *shape[-2:])[4 - len(shape) :])
    if len(shape) == 4:
        stack = stack.reshape(shape[0] * shape[1], *shape[2:])
    rows = [stack[i * scan_shape[1] : (i + 1) * scan_shape[1]] for i in range(scan_shape[0])]
    return da.stack(rows).rechunk((*frame_chunks(scan_shape, frame_bytes, (1, 1)), -1, -1))


def frame_chunks(
    scan_shape: tuple[int, int], frame_bytes: int, stored: tuple[int, int] = (1, 1), limit: int = CHUNK_BYTES
) -> tuple[int, int]:
    """Return how many positions a chunk spans along scan_y and scan_x.

    Parameters
    ----------
    scan_shape : tuple of int
        Number of positions (n_y, n_x).
    frame_bytes : int
        Size of one frame.
    stored : tuple of int
        Positions that are stored together: multiples of them are taken while they fit, so that
        nothing is decoded twice.
    limit : int
        Bytes a chunk may have; one frame is always allowed.
    """
    fits = max(1, limit // max(frame_bytes, 1))
    unit = tuple(min(s, n) for s, n in zip(stored, scan_shape, strict=True))
    if unit[0] * unit[1] > fits:
        # The stored chunks are larger than a chunk may be: they are read in parts.
        unit = (1, min(unit[1], fits))
    columns = min(fits // unit[0] // unit[1] * unit[1], scan_shape[1])
    if columns < scan_shape[1]:
        return unit[0], columns
    rows = min(fits // columns // unit[0] * unit[0], scan_shape[0])
    return rows, columns


def _stored_chunks(data: Any, order: tuple[int, ...]) -> tuple[int, int]:
    chunks = getattr(data, "chunks", None)
    if chunks is None or isinstance(data, da.Array):
        return 1, 1
    return int(chunks[order[0]]), int(chunks[order[1]])


def _as_dask(data: Any, order: tuple[int, ...], chunks: tuple[int, ...]) -> da.Array:
    """Return stored data with its axes in order and the chunks asked for in that order."""
    if isinstance(data, da.Array):
        return data.transpose(order).rechunk(chunks)
    stored = tuple(chunks[order.index(i)] for i in range(len(order)))
    if isinstance(data, np.ndarray):
        data = Mapped(data)
    lazy = da.from_array(data, chunks=stored, name=False, meta=np.empty(0, data.dtype))
    return lazy.transpose(order)


class Mapped:
    """A memory-mapped array that Dask does not take for one in memory, which it would copy.

    Parts are copies, and the pages they were read from are given back: they would stay with a process that
    reads block after block, until the whole file counts as its memory and it is ended for that.

    Parameters
    ----------
    array : ndarray
        Mapped for reading only; one in memory is left alone.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.dtype, self.shape, self.ndim = array.dtype, array.shape, array.ndim
        self._map = None if array.flags.writeable else _map_below(array)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        part: NDArray[Any] = np.array(self._array[index])
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            # Another thread that reads just now gets its pages anew, from the system's own memory.
            self._map.madvise(mmap.MADV_DONTNEED)
        return part


def _map_below(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


class FrameGrid:
    """A stack of frames, in one or several parts, seen as a grid of positions; sliced like an array.

    Parameters
    ----------
    parts : sequence of array_like
        Each of shape (n, rows, columns), in order.
    scan_shape : tuple of int
        Number of positions (n_y, n_x), scan_x fast.
    """

    def __init__(self, parts: Sequence[Any], scan_shape: tuple[int, int]) -> None:
        self._parts = [Mapped(part) if isinstance(part, np.ndarray) else part for part in parts]
        self._ends = np.cumsum([part.shape[0] for part in parts])
        self.dtype = np.dtype(parts[0].dtype)
        self.shape = (*scan_shape, *map(int, parts[0].shape[1:]))
        self.ndim = 4

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        rows, columns = (np.arange(n)[i] for n, i in zip(self.shape, index[:2], strict=False))
        wanted = np.asarray(rows)[..., None] * self.shape[1] + columns
        wanted = wanted.reshape(np.shape(rows) + np.shape(columns))
        flat = np.ravel(wanted)
        # Neighbours are read in one go.
        breaks = np.flatnonzero(np.diff(flat) != 1) + 1
        runs = [part for run in np.split(flat, breaks) for part in self._read(int(run[0]), len(run))]
        frames = np.concatenate(runs)
        found: NDArray[Any] = frames.reshape(*wanted.shape, *frames.shape[1:])[(..., *index[2:])]
        return found

    def _read(self, first: int, count: int) -> list[NDArray[Any]]:
        found = []
        while count:
            part = int(np.searchsorted(self._ends, first, side="right"))
            start = first - (int(self._ends[part - 1]) if part else 0)
            taken = min(count, int(self._ends[part]) - first)
            found.append(np.asarray(self._parts[part][start : start + taken]))
            first, count = first + taken, count - taken
        return found


def check_layout(
    raw: RawFrames, source: str, scan_shape: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the order of the axes and the scan's shape, or say why this is no scan.

    Raises
    ------
    ScanError
        If the data are not real numbers, not of three or four dimensions, or do not fit ``scan_shape``.
    """
    if raw.dtype.kind not in "biuf":
        what = "complex numbers" if raw.dtype.kind == "c" else f"values of type {raw.dtype}"
        raise ScanError(f"{source} holds {what}", "frames are real intensities", "Save the intensities alone")
    shape = raw.shape
    text = " × ".join(f"{n:,}" for n in shape)
    if len(shape) not in (3, 4):
        what = "a picture" if len(shape) == 2 else f"{len(shape)}-dimensional data"
        raise ScanError(
            f"{source} is not a scan but {what} of {text}", f"it needs {len(FRAME_DIMENSIONS)} axes"
        )
    if 0 in shape:
        raise ScanError(f"{source} is empty: {text}")
    order = axis_order(raw.axes, len(shape), source)
    n = math.prod(shape[i] for i in order[:-2])
    if scan_shape is None:
        if len(shape) == 3:
            raise ScanError(
                f"{source} is a stack of {n:,} frames ({text})",
                "it does not say how they lie on the scan",
                f"Give rows and columns of the scan with --scan-shape ROWSxCOLUMNS{_guess(n)}",
            )
        return order, (shape[order[0]], shape[order[1]])
    if scan_shape[0] * scan_shape[1] != n:
        raise ScanError(
            f"--scan-shape {scan_shape[0]}x{scan_shape[1]} has {scan_shape[0] * scan_shape[1]:,} positions, "
            f"{source} has {n:,} frames",
            fix="Give rows and columns whose product is the number of frames",
        )
    return order, scan_shape


def _guess(n: int) -> str:
    """Return what the shape would be if the scan were square or nearly so."""
    rows = next((r for r in range(math.isqrt(n), 0, -1) if n % r == 0), 1)
    return f", for example {rows}x{n // rows}" if rows > 1 else ""
