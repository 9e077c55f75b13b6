"""Lazy arrays of a run: rows are read, or computed, when they are used, and only those that are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from diffractory.dataset.intensity_codes import decode_intensity
from diffractory.dataset.partition import peak_positions
from diffractory.dataset.run import PEAK_STORE, Run
from diffractory.dataset.store import block_rows, open_array, read_rows

#: What is wanted along the dimensions after the first: integers, slices, arrays of positions.
Columns: TypeAlias = tuple[Any, ...]


class LazyRows(BackendArray, ABC):
    """An array whose rows are read, or computed, when they are used.

    It is indexed along each dimension apart from the others ("outer"): whatever xarray is asked
    for, it asks for that here, and picks the rest in memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[Any]:
        """Return rows ``start`` … ``stop - 1``, at least one."""

    @abstractmethod
    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[Any]:
        """Return rows by number: rising, none twice, at least one."""

    def rows(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[Any]:
        """Return rows by number as :meth:`gather`, at once where they follow each other."""
        first, last = int(rows[0]), int(rows[-1])
        together = last - first == len(rows) - 1
        return self.span(first, last + 1, columns) if together else self.gather(rows, columns)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        chosen, columns = key[0], key[1:]
        if isinstance(chosen, slice):
            wanted = range(self.shape[0])[chosen]
            if wanted.step == 1 and len(wanted):
                return self.span(wanted.start, wanted.stop, columns)
            chosen = np.array(wanted, dtype=np.int64)
        elif not isinstance(chosen, np.ndarray):
            row = range(self.shape[0])[int(chosen)]
            return np.asarray(self.span(row, row + 1, columns)[0])
        if chosen.size == 0:
            return take_columns(np.empty((0, *self.shape[1:]), dtype=self.dtype), columns)
        if np.all(np.diff(chosen) > 0):
            return self.rows(chosen, columns)
        unique, places = np.unique(chosen, return_inverse=True)
        return self.rows(unique, columns)[places]


def take_columns(block: NDArray[Any], columns: Columns) -> NDArray[Any]:
    """Index each dimension of an array after the first, apart from the others."""
    # The last first: an integer takes its dimension away.
    for axis in range(len(columns), 0, -1):
        block = block[(slice(None),) * axis + (columns[axis - 1],)]
    return block


class PartitionedArray(LazyRows):
    """Rows of all partitions' blocks behind each other, without the padding between them.

    Parameters
    ----------
    run : Run
    name : str
        Array of the run's store.
    lengths : ndarray of shape (n_partitions,), int64
        Rows of each partition.
    """

    def __init__(self, run: Run, name: str, lengths: NDArray[np.int64]) -> None:
        self._array = open_array(run.path / PEAK_STORE, name)
        self._block, self._chunk = block_rows(self._array), int(self._array.chunks[0])
        self._stops = np.cumsum(lengths)
        self._starts = self._stops - lengths
        self.shape = (int(self._stops[-1]), *self._array.shape[1:])
        self.dtype = self._array.dtype

    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[Any]:
        """Read rows ``start`` … ``stop - 1``, partition by partition."""
        parts = []
        for p in np.flatnonzero((self._stops > start) & (self._starts < stop)):
            offset = int(p) * self._block - int(self._starts[p])
            low, high = max(start, int(self._starts[p])), min(stop, int(self._stops[p]))
            parts.append(take_columns(read_rows(self._array, offset + low, offset + high), columns))
        return np.concatenate(parts)

    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[Any]:
        """Read rows by number, chunk by chunk: each is decoded once, and none without a wanted row."""
        owner = np.searchsorted(self._stops, rows, side="right")
        stored = rows + (owner * self._block - self._starts[owner])
        borders = np.flatnonzero(np.diff(stored // self._chunk)) + 1
        parts = []
        for piece in np.split(stored, borders):
            block = read_rows(self._array, int(piece[0]), int(piece[-1]) + 1)
            parts.append(take_columns(block, columns)[piece - piece[0]])
        return np.concatenate(parts)


class IntensityArray(PartitionedArray):
    """Intensities, decoded where they are read; arguments as of :class:`PartitionedArray`."""

    def __init__(self, run: Run, lengths: NDArray[np.int64]) -> None:
        super().__init__(run, "intensity", lengths)
        self.dtype = np.dtype(np.float32)

    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[np.float32]:
        """Read and decode rows ``start`` … ``stop - 1``."""
        return decode_intensity(super().span(start, stop, columns))

    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[np.float32]:
        """Read and decode rows by number."""
        return decode_intensity(super().gather(rows, columns))


class PositionArray(LazyRows):
    """Detector positions, computed from hkl, cell and orientation where they are read.

    Parameters
    ----------
    run : Run
    hkl, rotation : PartitionedArray
    counts : ndarray of shape (n_items,), int64
        Peaks of each pattern.
    """

    def __init__(
        self, run: Run, hkl: PartitionedArray, rotation: PartitionedArray, counts: NDArray[np.int64]
    ) -> None:
        self._run, self._hkl, self._rotation = run, hkl, rotation
        self._stops = np.cumsum(counts)
        self.shape = (hkl.shape[0], 2)
        self.dtype = np.dtype(np.float64)

    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[np.float64]:
        """Compute the positions of peaks ``start`` … ``stop - 1``."""
        return self._positions(np.arange(start, stop), self._hkl.span(start, stop), columns)

    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[np.float64]:
        """Compute the positions of peaks by number."""
        return self._positions(rows, self._hkl.gather(rows), columns)

    def _positions(self, rows: NDArray[np.int64], hkl: NDArray[Any], columns: Columns) -> NDArray[np.float64]:
        owner = np.searchsorted(self._stops, rows, side="right")
        items, counts = np.unique(owner, return_counts=True)
        positions = peak_positions(self._run, items, counts, hkl, self._rotation.rows(items))
        return take_columns(positions, columns)


class PerCrystalArray(LazyRows):
    """Rows of items, gathered to one row a crystal.

    Parameters
    ----------
    items : PartitionedArray
    count : int
        Items of each crystal.
    """

    def __init__(self, items: PartitionedArray, count: int) -> None:
        self._items, self._count = items, count
        self.shape = (items.shape[0] // count, count, *items.shape[1:])
        self.dtype = items.dtype

    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[Any]:
        """Read the items of crystals ``start`` … ``stop - 1``."""
        items = self._items.span(start * self._count, stop * self._count)
        return take_columns(items.reshape(-1, *self.shape[1:]), columns)

    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[Any]:
        """Read the items of crystals by number."""
        items = self._items.gather((rows[:, None] * self._count + np.arange(self._count)).ravel())
        return take_columns(items.reshape(-1, *self.shape[1:]), columns)


class ChosenRows(LazyRows):
    """Ranges of rows of a variable, behind each other.

    What is held is two numbers a range, not a number a row: a run has more peaks than memory has room.

    Parameters
    ----------
    source : xarray.Variable
        The rows lie along its first dimension.
    starts, counts : ndarray of shape (n_ranges,), int64
        First row and number of rows of each range.
    """

    def __init__(self, source: xr.Variable, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        # Ranges that follow each other are one.
        opens = np.flatnonzero(np.append(True, starts[1:] != (starts + counts)[:-1]))
        self._source = source
        self._stops = np.cumsum(counts)[np.append(opens[1:], len(starts)) - 1]
        self._shift = starts[opens] - np.append(0, self._stops[:-1])
        self.shape = (int(self._stops[-1]), *source.shape[1:])
        self.dtype = source.dtype

    def span(self, start: int, stop: int, columns: Columns = ()) -> NDArray[Any]:
        """Read chosen rows ``start`` … ``stop - 1``."""
        return self.gather(np.arange(start, stop), columns)

    def gather(self, rows: NDArray[np.int64], columns: Columns = ()) -> NDArray[Any]:
        """Read chosen rows by number."""
        rows = rows + self._shift[np.searchsorted(self._stops, rows, side="right")]
        keys = dict(zip(self._source.dims, (rows, *columns), strict=False))
        return self._source.isel(keys).to_numpy()
