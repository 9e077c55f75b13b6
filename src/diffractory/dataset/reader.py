"""Read a run as one lazy, labelled xarray Dataset, whatever its partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core.indexing import LazilyIndexedArray

from diffractory.dataset.intensity_codes import ATTRIBUTES
from diffractory.dataset.lazy_rows import IntensityArray, PartitionedArray, PerCrystalArray, PositionArray
from diffractory.dataset.partition import read_partition
from diffractory.dataset.records import Record
from diffractory.dataset.run import Run
from diffractory.errors import RunError


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
        ``rotation`` holds the orientation matrices. Crystals and orientations are labelled by their
        numbers in the run, crystals by material_id, formula, crystal_system, space_group, a, b, c
        too. :func:`~diffractory.dataset.selection.select` chooses patterns and their peaks,
        ``.chunk()`` makes Dask arrays of it.

    Raises
    ------
    RunError
        If the folder is not a run, or a partition is missing or damaged.

    Examples
    --------
    >>> import diffractory
    >>> dataset = diffractory.open_dataset("runs/first")
    >>> dataset.intensity.dims, dataset.sizes["crystal"], dataset.sizes["orientation"]
    (('peak', 'thickness'), 4, 5)
    >>> dataset.crystal_system.values.tolist()
    ['cubic', 'cubic', 'hexagonal', 'triclinic']
    >>> count = int(dataset.peak_count[0, 0])  # peaks of the first pattern come first
    >>> dataset.intensity.sel(thickness=200.0)[:count].to_numpy().shape == (count,)
    True
    """
    run = Run.open(path)
    records = complete_records(run)
    counts = np.concatenate([np.array(r.counts, dtype=np.int64) for r in records])
    peaks_per_partition = np.array([sum(r.counts) for r in records])
    items_per_partition = np.array([len(r.counts) for r in records])
    hkl = PartitionedArray(run, "hkl", peaks_per_partition)
    rotation = PartitionedArray(run, "rotation", items_per_partition)
    intensity = IntensityArray(run, peaks_per_partition)
    per_item = (run.plan.n_crystals, run.plan.orientations.count)
    starts = (np.cumsum(counts) - counts).reshape(per_item)
    return xr.Dataset(
        {
            "intensity": (
                ("peak", "thickness"),
                LazilyIndexedArray(intensity),
                {
                    "units": "1",
                    "long_name": "share of the incident beam",
                    "largest_error": ATTRIBUTES["largest_error"],
                },
            ),
            "hkl": (("peak", "miller"), LazilyIndexedArray(hkl), {"long_name": "Miller indices"}),
            "q": (
                ("peak", "detector"),
                LazilyIndexedArray(PositionArray(run, hkl, rotation, counts)),
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
                LazilyIndexedArray(PerCrystalArray(rotation, run.plan.orientations.count)),
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
    coordinates["crystal"] = np.arange(run.plan.n_crystals)
    coordinates["orientation"] = np.arange(run.plan.orientations.count)
    coordinates["thickness"] = ("thickness", np.array(run.plan.simulation.thicknesses), {"units": "angstrom"})
    coordinates["detector"] = ["x", "y"]
    coordinates["miller"] = ["h", "k", "l"]
    return coordinates


def read_pattern(run: Run, crystal: int, orientation: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Read one pattern: positions (n, 2) in Å⁻¹ and intensities (n, n_thicknesses).

    Parameters
    ----------
    run : Run
    crystal, orientation : int
        Numbers in the run, from 0.

    Returns
    -------
    q : ndarray of shape (n, 2)
        In Å⁻¹.
    intensity : ndarray of shape (n, n_thicknesses), float32
        Shares of the incident beam.

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
    rows = peaks.rows(item - peaks.first_item)
    return peaks.q[rows], peaks.intensity[rows]
