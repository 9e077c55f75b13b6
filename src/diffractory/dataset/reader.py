"""Read a run as one lazy, labelled xarray Dataset, whatever its partitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from diffractory.dataset.intensity_codes import ATTRIBUTES, decode_intensity
from diffractory.dataset.partition import peak_positions, read_partition
from diffractory.dataset.records import Record
from diffractory.dataset.run import Run
from diffractory.dataset.store import block_rows, open_array, read_rows
from diffractory.errors import RunError

_STORE = "peaks.zarr"


class _LazyRows(BackendArray, ABC):
    """An array whose rows are read, or computed, when they are used."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` … ``stop - 1``."""

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        first, rest = key[0], key[1:]
        if not isinstance(first, slice):
            index = range(self.shape[0])[int(first)]
            return np.asarray(self.rows(index, index + 1)[(0, *rest)])
        chosen = range(self.shape[0])[first]
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)[(slice(None), *rest)]
        low = min(chosen[0], chosen[-1])
        block = self.rows(low, max(chosen[0], chosen[-1]) + 1)
        return np.asarray(block[:: chosen.step][(slice(None), *rest)])


class _PartitionedArray(_LazyRows):
    """Rows of all partitions' blocks behind each other, without the padding between them."""

    def __init__(self, run: Run, name: str, lengths: NDArray[np.int64]) -> None:
        self._array = open_array(run.path / _STORE, name)
        self._block = block_rows(self._array)
        self._stops = np.cumsum(lengths)
        self._starts = self._stops - lengths
        self.shape = (int(self._stops[-1]), *self._array.shape[1:])
        self.dtype = self._array.dtype

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows ``start`` … ``stop - 1``, partition by partition."""
        parts = []
        for p in np.flatnonzero((self._stops > start) & (self._starts < stop)):
            offset = int(p) * self._block - int(self._starts[p])
            low, high = max(start, int(self._starts[p])), min(stop, int(self._stops[p]))
            parts.append(read_rows(self._array, offset + low, offset + high))
        return np.concatenate(parts)


class _IntensityArray(_PartitionedArray):
    """Intensities, decoded where they are read."""

    def __init__(self, run: Run, lengths: NDArray[np.int64]) -> None:
        super().__init__(run, "intensity", lengths)
        self.dtype = np.dtype(np.float32)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read and decode rows ``start`` … ``stop - 1``."""
        return decode_intensity(super().rows(start, stop))


class _PositionArray(_LazyRows):
    """Detector positions, computed from hkl, cell and orientation where they are read."""

    def __init__(
        self, run: Run, hkl: _PartitionedArray, rotation: _PartitionedArray, counts: NDArray[np.int64]
    ) -> None:
        self._run, self._hkl, self._rotation = run, hkl, rotation
        self._counts = counts
        self._stops = np.cumsum(counts)
        self.shape = (hkl.shape[0], 2)
        self.dtype = np.dtype(np.float64)

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Compute the positions of peaks ``start`` … ``stop - 1`` with those of their patterns."""
        first, last = (int(i) for i in np.searchsorted(self._stops, [start, stop - 1], side="right"))
        origin = int(self._stops[first] - self._counts[first])
        positions = peak_positions(
            self._run,
            first,
            self._counts[first : last + 1],
            self._hkl.rows(origin, int(self._stops[last])),
            self._rotation.rows(first, last + 1),
        )
        return positions[start - origin : stop - origin]


class _PerCrystalArray(_LazyRows):
    """Rows of items, gathered to one row a crystal."""

    def __init__(self, items: _PartitionedArray, count: int) -> None:
        self._items, self._count = items, count
        self.shape = (items.shape[0] // count, count, *items.shape[1:])
        self.dtype = items.dtype

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read the items of crystals ``start`` … ``stop - 1``."""
        return self._items.rows(start * self._count, stop * self._count).reshape(-1, *self.shape[1:])


def open_dataset(path: Path | str) -> xr.Dataset:
    """Open a finished run as one lazy, labelled Dataset.

    Parameters
    ----------
    path : Path or str
        Run folder.

    Returns
    -------
    xarray.Dataset
        Dimensions crystal, orientation, thickness and peak. ``intensity`` (peak, thickness), ``hkl``
        (peak, miller) and ``q`` (peak, detector) hold all peaks behind each other, read when used;
        ``peak_start`` and ``peak_count`` (crystal, orientation) say where each pattern lies;
        ``rotation`` holds the orientation matrices. Crystals are labelled by material_id, formula,
        crystal_system, space_group, a, b, c. ``.chunk()`` makes Dask arrays of it.

    Raises
    ------
    RunError
        If the folder is not a run, or a partition is missing or damaged.

    Examples
    --------
    >>> dataset = open_dataset("RUN")                                          # doctest: +SKIP
    >>> cubic = dataset.where(dataset.crystal_system == "cubic", drop=True)    # doctest: +SKIP
    """
    run = Run.open(path)
    records = complete_records(run)
    counts = np.concatenate([np.array(r.counts, dtype=np.int64) for r in records])
    peaks_per_partition = np.array([sum(r.counts) for r in records])
    items_per_partition = np.array([len(r.counts) for r in records])
    hkl = _PartitionedArray(run, "hkl", peaks_per_partition)
    rotation = _PartitionedArray(run, "rotation", items_per_partition)
    intensity = _IntensityArray(run, peaks_per_partition)
    per_item = (run.plan.n_crystals, run.plan.orientations.count)
    starts = (np.cumsum(counts) - counts).reshape(per_item)
    return xr.Dataset(
        {
            "intensity": (
                ("peak", "thickness"),
                indexing.LazilyIndexedArray(intensity),
                {
                    "units": "1",
                    "long_name": "share of the incident beam",
                    "largest_error": ATTRIBUTES["largest_error"],
                },
            ),
            "hkl": (("peak", "miller"), indexing.LazilyIndexedArray(hkl), {"long_name": "Miller indices"}),
            "q": (
                ("peak", "detector"),
                indexing.LazilyIndexedArray(_PositionArray(run, hkl, rotation, counts)),
                {"units": "angstrom-1", "long_name": "position on the detector"},
            ),
            "peak_start": (("crystal", "orientation"), starts),
            "peak_count": (
                ("crystal", "orientation"),
                counts.reshape(per_item),
                {"sample_dimension": "peak"},
            ),
            "rotation": (
                ("crystal", "orientation", "row", "lab_axis"),
                indexing.LazilyIndexedArray(_PerCrystalArray(rotation, run.plan.orientations.count)),
                {"long_name": "orientation matrix, columns are the lab axes"},
            ),
        },
        coords=_coordinates(run),
        attrs={"plan_id": run.plan.plan_id, "simulation": run.plan.simulation.to_json()},
    )


def complete_records(run: Run) -> list[Record]:
    """Return the records of all partitions.

    Raises
    ------
    RunError
        If one is missing or damaged; the message counts them.
    """
    done = run.done()
    total = len(run.plan.partitions)
    if len(done) < total:
        damaged = run.damaged()
        reason = next(iter(damaged.values()), f"{total - len(done)} of {total} partitions are not done")
        raise RunError(
            f"{run.path} is not complete",
            reason,
            f"Run `diffractory simulate {run.path}`: it computes what is missing and keeps the rest",
        )
    return [done[index] for index in range(total)]


def _coordinates(run: Run) -> dict[str, Any]:
    table = run.catalogue.table
    coordinates: dict[str, Any] = {
        name: ("crystal", table[name].to_numpy()) for name in ("space_group", "a", "b", "c")
    }
    for name in ("material_id", "formula", "crystal_system"):
        coordinates[name] = ("crystal", table[name].to_numpy(dtype=str))
    coordinates["thickness"] = ("thickness", np.array(run.plan.simulation.thicknesses), {"units": "angstrom"})
    coordinates["detector"] = ["x", "y"]
    coordinates["miller"] = ["h", "k", "l"]
    return coordinates


def read_pattern(run: Run, crystal: int, orientation: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Read one pattern: positions (n, 2) in Å⁻¹ and intensities (n, n_thicknesses).

    Raises
    ------
    RunError
        If there is no such pattern, or its partition is not done or damaged.
    """
    if not (0 <= crystal < run.plan.n_crystals and 0 <= orientation < run.plan.orientations.count):
        raise RunError(
            f"{run.path} has no crystal {crystal} in orientation {orientation}",
            f"it holds {run.plan.n_crystals} crystals in {run.plan.orientations.count} orientations, "
            "counted from 0",
        )
    item = crystal * run.plan.orientations.count + orientation
    partition = next(i for i, p in enumerate(run.plan.partitions) if p.first <= item < p.stop)
    peaks = read_partition(run, partition)
    stop = int(peaks.counts[: item - peaks.first_item + 1].sum())
    rows = slice(stop - int(peaks.counts[item - peaks.first_item]), stop)
    return peaks.q[rows], peaks.intensity[rows]
