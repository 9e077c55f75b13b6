"""Patterns of an opened run for other programs: py4DSTEM's lists of Bragg peaks, and Parquet tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from numpy.typing import NDArray

from diffractory.dataset.batches import iterate_batches
from diffractory.dataset.bragg_vectors import bragg_vectors_of, write_bragg_vectors
from diffractory.dataset.selection import check_form, peak_rows, positions_of
from diffractory.errors import AccessError, RunError
from diffractory.patterns.peak_table import PeakTable
from diffractory.settings import machine_memory
from diffractory.specs import SimulationSpec
from diffractory.storage import atomic_path
from diffractory.units import human_bytes

if TYPE_CHECKING:
    # py4DSTEM takes seconds to import, and only those who export to it need it.
    from emdfile import PointList
    from py4DSTEM.braggvectors import BraggVectors

#: Fields of the patterns that py4DSTEM simulates (generate_dynamical_diffraction_pattern).
_POINT_FIELDS = [
    *((name, "float64") for name in ("qx", "qy", "intensity")),
    *((name, "int") for name in "hkl"),
]
#: Bytes of memory a peak and a pattern take at most as Bragg vectors, and on their way to a file of
#: them; and the share of the machine's memory they may take.
_VECTOR_BYTES, _FILE_BYTES, _MEMORY_SHARE = (120, 2_500), (60, 400), 0.8
#: Patterns read at once on the way to Bragg vectors.
_BATCH = 2_000
#: Rows of a row group, about, and bytes of the intensities read at once.
_GROUP_ROWS, _BLOCK_BYTES = 1_000_000, 64_000_000

#: Columns of a table of peaks. Lengths in Å, positions in Å⁻¹, intensities as shares of the incident beam.
PEAK_SCHEMA = pa.schema(
    [
        ("material_id", pa.dictionary(pa.int32(), pa.string())),
        ("crystal", pa.int32()),
        ("orientation", pa.int32()),
        pa.field("thickness", pa.float64(), metadata={"units": "angstrom"}),
        *((name, pa.int16()) for name in "hkl"),
        *(pa.field(name, pa.float64(), metadata={"units": "angstrom-1"}) for name in ("qx", "qy")),
        ("intensity", pa.float32()),
    ]
)
#: Positions and intensities rarely repeat: a dictionary of them would be built in vain.
_STORAGE: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name in PEAK_SCHEMA.names if name not in ("qx", "qy", "intensity")],
}


def to_pointlist(dataset: xr.Dataset, crystal: int, orientation: int, thickness: float) -> PointList:
    """Return one pattern as py4DSTEM's own simulation would: a PointList.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or
        :func:`~diffractory.dataset.selection.select`.
    crystal, orientation : int
        Positions in the dataset, from 0.
    thickness : float
        In Å, one of the dataset's.

    Returns
    -------
    emdfile.PointList
        Fields qx, qy in Å⁻¹, intensity as a share of the incident beam, h, k, l.

    Raises
    ------
    RunError
        If there is no such pattern, or this is not a dataset of a run.

    Examples
    --------
    >>> import diffractory
    >>> from diffractory.dataset.export import to_pointlist
    >>> dataset = diffractory.open_dataset("runs/first")
    >>> points = to_pointlist(dataset, crystal=0, orientation=0, thickness=200.0)
    >>> points.data.dtype.names
    ('qx', 'qy', 'intensity', 'h', 'k', 'l')
    """
    from emdfile import PointList

    check_form(dataset)
    shape = (dataset.sizes["crystal"], dataset.sizes["orientation"])
    if not (0 <= crystal < shape[0] and 0 <= orientation < shape[1]):
        raise RunError(
            f"the dataset has no crystal {crystal} in orientation {orientation}",
            f"it holds {shape[0]} crystals in {shape[1]} orientations, counted from 0",
        )
    column = int(positions_of(dataset, "thickness", thickness)[0])
    place = {"crystal": crystal, "orientation": orientation}
    start, count = (int(dataset[name].isel(place)) for name in ("peak_start", "peak_count"))
    peaks = {"peak": slice(start, start + count)}
    points = np.zeros(count, dtype=_POINT_FIELDS)
    points["qx"], points["qy"] = dataset.variables["q"].isel(peaks).to_numpy().T
    points["h"], points["k"], points["l"] = dataset.variables["hkl"].isel(peaks).to_numpy().T
    points["intensity"] = dataset.variables["intensity"].isel(peaks).isel(thickness=column).to_numpy()
    return PointList(points, name=f"crystal_{crystal}_orientation_{orientation}")


def to_bragg_vectors(
    dataset: xr.Dataset, thickness: float, on_batch: Callable[[int], None] = lambda _: None
) -> BraggVectors:
    """Return all patterns at one thickness as a py4DSTEM scan: crystals down, orientations across.

    Its raw vectors are in detector pixels of 0.01 Å⁻¹ around an origin, its calibrated ones
    (``.cal[crystal, orientation]``) in Å⁻¹. What they are is noted in its metadata "diffractory".

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or
        :func:`~diffractory.dataset.selection.select`.
    thickness : float
        In Å, one of the dataset's.
    on_batch : callable
        Called with the number of patterns of each batch read.

    Returns
    -------
    py4DSTEM.BraggVectors
        Of shape (n_crystals, n_orientations).

    Raises
    ------
    RunError
        If the thickness is not in the dataset, this is not a dataset of a run, or its peaks do not
        fit into memory, where py4DSTEM holds them all.
    """
    from emdfile import Metadata

    peaks = _peaks_at(dataset, thickness, on_batch, _VECTOR_BYTES, "py4DSTEM holds all of them in memory")
    vectors = bragg_vectors_of(peaks, (dataset.sizes["crystal"], dataset.sizes["orientation"]))
    vectors.metadata = Metadata("diffractory", _notes(dataset, thickness))
    return vectors


def write_bragg_file(
    dataset: xr.Dataset,
    path: Path | str,
    thickness: float,
    on_batch: Callable[[int], None] = lambda _: None,
) -> None:
    """Write all patterns at one thickness as the file that py4DSTEM makes of :func:`to_bragg_vectors`.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or
        :func:`~diffractory.dataset.selection.select`.
    path : Path or str
        Target file; a reader sees the old file or the whole new one.
    thickness : float
        In Å, one of the dataset's.
    on_batch : callable
        Called with the number of patterns of each batch read.

    Raises
    ------
    RunError
        If the thickness is not in the dataset, this is not a dataset of a run, or its peaks do not
        fit into memory.
    AccessError
        If the file cannot be written.
    """
    peaks = _peaks_at(
        dataset, thickness, on_batch, _FILE_BYTES, "all of them are held until they are written"
    )
    shape = (dataset.sizes["crystal"], dataset.sizes["orientation"])
    try:
        write_bragg_vectors(peaks, shape, Path(path), _notes(dataset, thickness))
    except OSError as error:
        raise _unwritable(path, error) from None


def _peaks_at(
    dataset: xr.Dataset,
    thickness: float,
    on_batch: Callable[[int], None],
    bytes_each: tuple[int, int],
    why: str,
) -> PeakTable:
    """Return the peaks of all patterns at one thickness, if so many bytes a peak and a pattern are there."""
    batches = iterate_batches(dataset, _BATCH, thickness)
    n_patterns, n_peaks = dataset["peak_count"].size, int(dataset["peak_count"].sum())
    needed = n_peaks * bytes_each[0] + n_patterns * bytes_each[1]
    if needed > _MEMORY_SHARE * machine_memory():
        raise RunError(
            f"{n_patterns:,} patterns with {n_peaks:,} peaks need about {human_bytes(needed)} of memory as "
            f"Bragg vectors, and the machine has {human_bytes(machine_memory())}",
            why,
            "Choose fewer crystals or orientations, or write a Parquet table",
        )
    tables = []
    for batch in batches:
        tables.append(batch.peaks)
        on_batch(len(batch))
    return PeakTable.concatenate(tables)


def _notes(dataset: xr.Dataset, thickness: float) -> dict[str, Any]:
    """Return what py4DSTEM has no place for; readers of scans look the energy up here."""
    simulation = dataset.attrs.get("simulation")
    energy = None if simulation is None else SimulationSpec.from_json(simulation).energy_ev
    return {
        "energy_ev": energy,
        "thickness": float(thickness),
        "plan_id": dataset.attrs.get("plan_id"),
        # As bytes: of a list of texts, emdfile makes a data set of each.
        "material_id": np.char.encode(dataset["material_id"].to_numpy(), "utf-8"),
        "orientation": dataset["orientation"].to_numpy(),
    }


def write_parquet(
    dataset: xr.Dataset,
    path: Path | str,
    thickness: float | Sequence[float] | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the peaks of an opened run as one long table, a row a peak and thickness.

    Columns are those of :data:`PEAK_SCHEMA`; ``crystal`` and ``orientation`` are the numbers in the run.
    Some hundred patterns are held at a time; they go to row groups of about a million rows, thickness by
    thickness, so that who reads one thickness skips the others.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or
        :func:`~diffractory.dataset.selection.select`.
    path : Path or str
        Target file; a reader sees the old file or the whole new one.
    thickness : float or sequence of float, optional
        In Å; all of the dataset's by default.
    on_batch : callable
        Called with the number of patterns written, batch by batch.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    RunError
        If a thickness is not in the dataset, or this is not a dataset of a run.
    AccessError
        If the path is a folder or cannot be written.
    """
    check_form(dataset)
    wanted = dataset["thickness"].to_numpy() if thickness is None else thickness
    columns = positions_of(dataset, "thickness", wanted)
    path = Path(path)
    if path.is_dir():
        raise AccessError(f"{path} is a folder", "the table is one file", "Name a .parquet file")
    notes = {name: str(dataset.attrs[name]) for name in ("plan_id", "simulation") if name in dataset.attrs}
    schema = PEAK_SCHEMA.with_metadata(notes)
    n_rows = 0
    try:
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **_STORAGE) as writer:
            for patterns, table in _tables(dataset, columns, schema):
                writer.write_table(table)
                n_rows += table.num_rows
                on_batch(patterns)
    except OSError as error:
        raise _unwritable(path, error) from None
    return n_rows


def _unwritable(path: Path | str, error: OSError) -> AccessError:
    return AccessError(
        f"{path} cannot be written ({error.strerror or error})",
        fix="Choose a place on a disk that is writable and not full",
    )


def _tables(
    dataset: xr.Dataset, columns: NDArray[np.int64], schema: pa.Schema
) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables of about a million rows, and of how many patterns each one is the last."""
    thicknesses = dataset["thickness"].to_numpy()[columns]
    starts, counts = (dataset[name].to_numpy().ravel() for name in ("peak_start", "peak_count"))
    for first, stop in _stretches(counts, min(_BLOCK_BYTES // (4 * len(columns)), _GROUP_ROWS)):
        rows = {"peak": peak_rows(starts[first:stop], counts[first:stop])}
        fixed = _same_at_every_thickness(dataset, np.arange(first, stop), counts[first:stop], rows)
        intensity = dataset.variables["intensity"].isel(rows | {"thickness": columns}).to_numpy()
        n_peaks = len(intensity)
        at_once = max(_GROUP_ROWS // n_peaks, 1)
        for begin in range(0, len(columns), at_once):
            group = slice(begin, begin + at_once)
            count = len(thicknesses[group])
            arrays = {name: _repeated(array, count) for name, array in fixed.items()}
            arrays["thickness"] = np.repeat(thicknesses[group], n_peaks)
            arrays["intensity"] = intensity[:, group].T.ravel()
            table = pa.table([arrays[name] for name in schema.names], schema=schema)
            yield (stop - first if begin + at_once >= len(columns) else 0), table


def _stretches(counts: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of patterns that have at most so many peaks together, or are one pattern."""
    stops = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(stops[first - 1]) if first else 0
        stop = max(int(np.searchsorted(stops, before + most, side="right")), first + 1)
        yield first, stop
        first = stop


def _same_at_every_thickness(
    dataset: xr.Dataset,
    patterns: NDArray[np.int64],
    counts: NDArray[np.int64],
    rows: dict[str, NDArray[np.int64]],
) -> dict[str, Any]:
    """Return the columns of some patterns' peaks that do not depend on thickness."""
    crystal, orientation = np.divmod(patterns, dataset.sizes["orientation"])
    hkl = dataset.variables["hkl"].isel(rows).to_numpy()
    q = dataset.variables["q"].isel(rows).to_numpy()
    # Only the names that occur: a dictionary is stored whole in every row group.
    ids = dataset["material_id"].to_numpy()[crystal[0] : crystal[-1] + 1]
    names = np.repeat((crystal - crystal[0]).astype(np.int32), counts)
    return {
        "material_id": pa.DictionaryArray.from_arrays(names, pa.array(ids, type=pa.string())),
        "crystal": np.repeat(dataset["crystal"].to_numpy()[crystal].astype(np.int32), counts),
        "orientation": np.repeat(dataset["orientation"].to_numpy()[orientation].astype(np.int32), counts),
        **{name: hkl[:, i] for i, name in enumerate("hkl")},
        **{name: q[:, i] for i, name in enumerate(("qx", "qy"))},
    }


def _repeated(array: Any, count: int) -> Any:
    return pa.chunked_array([array] * count) if isinstance(array, pa.Array) else np.tile(array, count)
