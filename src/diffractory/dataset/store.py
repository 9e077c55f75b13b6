"""Zarr stores of a run; the only module that writes them.

All partitions own equally long blocks of every array, each block exactly one shard, so that one
partition writes whole files and never touches another's. The padding at the end of a block is index
space only: it is zeros, which compress to next to nothing.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, TransposeCodec

from diffractory.dataset.intensity_codes import ATTRIBUTES
from diffractory.dataset.plan import PEAK_CHUNK, Plan
from diffractory.dataset.records import ShardSum
from diffractory.errors import AccessError, RunError
from diffractory.storage import atomic_path, write_atomic

#: Items a chunk of arrays with one row an item holds.
_ITEM_CHUNK = 1024
#: Feature rows a chunk holds: about 1 MB at one thickness.
_FEATURE_CHUNK = 256
#: A shard of features, before it is compressed, unless one thickness takes more.
_FEATURE_SHARD_BYTES = 128_000_000

#: What zarr and its codecs raise on stores that are damaged.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RuntimeError,
    zarr.errors.BaseZarrError,
)


#: Errors of a machine that has no files, memory or rights to give: nothing is known of the file then.
_REFUSED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES, errno.EPERM})


def is_refused(error: BaseException) -> TypeGuard[OSError]:
    """Tell whether the machine refused to give a file, as opposed to a file that is damaged."""
    return isinstance(error, OSError) and error.errno in _REFUSED


@dataclass(frozen=True)
class _Layout:
    """How the rows of one array are stored; the codecs were chosen by measurement (decision 15).

    Parameters
    ----------
    row_shape : tuple of int
    dtype : str
    chunk : int
        Rows of a chunk, at most.
    shuffle : BloscShuffle
        How bytes are rearranged before they are compressed.
    transposed : bool
        Whether a chunk is stored column by column; for arrays with two dimensions.
    codec : {"zstd", "lz4"}
        What compresses.
    attributes : dict
    shard_row, chunk_row : tuple of int, optional
        Parts of a row that a shard and a chunk hold; whole rows by default.
    """

    row_shape: tuple[int, ...]
    dtype: str
    chunk: int
    shuffle: BloscShuffle
    transposed: bool = False
    codec: Literal["zstd", "lz4"] = "zstd"
    attributes: dict[str, Any] = field(default_factory=lambda: {"units": "1"})
    shard_row: tuple[int, ...] = ()
    chunk_row: tuple[int, ...] = ()


def _create(group: zarr.Group, name: str, n_partitions: int, rows: int, layout: _Layout) -> None:
    # A shard is a multiple of its chunks.
    chunk = min(layout.chunk, rows)
    rows = -(-rows // chunk) * chunk
    shard_row, chunk_row = layout.shard_row or layout.row_shape, layout.chunk_row or layout.row_shape
    group.create_array(
        name,
        shape=(n_partitions * rows, *layout.row_shape),
        chunks=(chunk, *chunk_row),
        shards=(rows, *shard_row),
        dtype=layout.dtype,
        filters=[TransposeCodec(order=(1, 0))] if layout.transposed else None,
        # The sum of each chunk is checked before it is decompressed: Blosc reads beyond a damaged one.
        compressors=[BloscCodec(cname=layout.codec, clevel=5, shuffle=layout.shuffle), Crc32cCodec()],
        fill_value=0,
        attributes=layout.attributes,
    )


def create_peak_store(path: Path, plan: Plan) -> None:
    """Make the empty store of a plan, metadata only, at once or not at all; what is there is replaced."""
    with atomic_path(path) as made:
        _write_peak_metadata(made, plan)


def planned_store(path: Path) -> str:
    """Return the id of the plan that a store was made for; nothing if there is no store."""
    try:
        return str(json.loads((path / "zarr.json").read_text())["attributes"]["plan_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_peak_metadata(path: Path, plan: Plan) -> None:
    group = zarr.create_group(path, attributes={"plan_id": plan.plan_id})
    n, peaks, items = len(plan.partitions), plan.peaks_per_shard, plan.items_per_shard
    row = (len(plan.simulation.thicknesses),)
    codes = _Layout(row, "uint16", PEAK_CHUNK, BloscShuffle.shuffle, attributes=ATTRIBUTES)
    _create(group, "intensity", n, peaks, codes)
    indices = _Layout((3,), "int16", PEAK_CHUNK, BloscShuffle.bitshuffle, transposed=True)
    _create(group, "hkl", n, peaks, indices)
    # Crystals of one Laue group share whole matrices, which shuffling would take apart.
    _create(group, "rotation", n, items, _Layout((3, 3), "float64", _ITEM_CHUNK, BloscShuffle.noshuffle))


def create_feature_store(path: Path, plan: Plan, n_thicknesses: int, n_features: int, plan_id: str) -> None:
    """Make the empty store of a feature set; existing metadata is replaced.

    One thickness is read without the others. A shard holds as many as a worker may have in memory.
    """
    group = zarr.create_group(path, overwrite=True, attributes={"plan_id": plan_id})
    together = max(1, _FEATURE_SHARD_BYTES // (4 * n_features * plan.items_per_shard))
    layout = _Layout(
        (n_thicknesses, n_features),
        "float32",
        _FEATURE_CHUNK,
        # Numbers of which every bit is noise: shuffling gains nothing.
        BloscShuffle.noshuffle,
        shard_row=(min(together, n_thicknesses), n_features),
        chunk_row=(1, n_features),
        codec="lz4",
    )
    _create(group, "features", len(plan.partitions), plan.items_per_shard, layout)


def open_array(path: Path, name: str) -> zarr.Array[Any]:
    """Open one array of a store for reading.

    Raises
    ------
    RunError
        If the store or the array is missing or damaged.
    """
    try:
        # Format 2 knows codecs that run what they read.
        array = zarr.open_array(path / name, mode="r", zarr_format=3)
    except _UNREADABLE as error:
        raise RunError(
            f"array {path / name} cannot be opened ({type(error).__name__})",
            "the store is missing or its metadata are damaged",
            "Restore zarr.json from a copy, or plan a new run folder",
        ) from None
    return array


def write_block(
    run_path: Path, store: str, partition: int, blocks: dict[str, NDArray[Any]], column: int = 0
) -> dict[str, ShardSum]:
    """Write one partition's whole shard of each array, read each back and return its sum.

    Parameters
    ----------
    run_path : Path
    store : str
        Name of the store's folder inside the run.
    partition : int
    blocks : dict of str to ndarray
        Rows of each array, at most as many as the partition owns.
    column : int
        Which of the shards side by side, where a shard holds a part of each row.

    Raises
    ------
    RunError
        If the disk is full, or the store cannot be written or is not the planned one.
    """
    sums: dict[str, ShardSum] = {}
    for name, rows in blocks.items():
        array = open_array(run_path / store, name)
        owned = block_rows(array)
        if not _fits(array, partition, column, rows.shape):
            raise RunError(
                f"partition {partition} with rows {rows.shape} does not fit array {run_path / store / name} "
                f"of blocks {(owned, *array.shape[1:])}, column {column}",
                "the store is not the one that was planned",
                "Restore it from a copy, or plan a new run folder",
            )
        key = _shard_key(array, partition, column)
        shard = run_path / store / name / key
        try:
            write_atomic(shard, _encoded(array, rows))
            sums[f"{store}/{name}/{key}"] = ShardSum.of_file(shard)
        except OSError as error:
            raise RunError(
                f"partition {partition} cannot be written to {run_path / store} ({error.strerror or error})",
                fix="Make room on the disk, or make it writable, and run the same command again: finished "
                "partitions are kept",
            ) from error
    return sums


def _fits(array: zarr.Array[Any], partition: int, column: int, shape: tuple[int, ...]) -> bool:
    """Return whether rows of this shape are what a partition writes into a column of shards."""
    owned, rest = block_rows(array), array.shape[1:]
    if rest and (width := (array.shards or array.chunks)[1]) < rest[0]:
        # The last column may be narrower.
        rest = (min(width, rest[0] - column * width), *rest[1:])
    elif column:
        return False
    return shape[0] <= owned and shape[1:] == rest and (partition + 1) * owned <= array.shape[0]


def block_rows(array: zarr.Array[Any]) -> int:
    """Return the rows of an array that each partition owns: one shard."""
    return int((array.shards or array.chunks)[0])


def _encoded(array: zarr.Array[Any], rows: NDArray[Any]) -> bytes:
    """Return the bytes of a shard that starts with these rows and ends in zeros.

    Asked to replace a shard, zarr reads the old one first, and fails where that is damaged; so the
    shard is encoded in memory, and written by us: at once or not at all, and flushed to disk.
    """
    entries: dict[str, Any] = {}
    shard = zarr.create_array(
        entries,
        shape=array.shards,
        chunks=array.chunks,
        shards=array.shards,
        dtype=array.dtype,
        filters=array.filters,
        compressors=array.compressors,
        fill_value=array.fill_value,
        # A shard of zeros is written too: that it exists is part of the proof that it is done.
        config={"write_empty_chunks": True},
    )
    padded = np.zeros(shard.shape, dtype=shard.dtype)
    padded[tuple(slice(length) for length in rows.shape)] = rows
    shard[...] = padded
    return bytes(entries[_shard_key(array, 0, 0)].to_bytes())


def _shard_key(array: zarr.Array[Any], partition: int, column: int) -> str:
    columns = [column, *(0 for _ in array.shape[2:])] if array.ndim > 1 else []
    return "/".join(["c", *map(str, (partition, *columns))])


def read_block(run_path: Path, store: str, name: str, partition: int, n_rows: int) -> NDArray[Any]:
    """Read the first rows of one partition's block of one array.

    Raises
    ------
    RunError
        If the shard is damaged.
    """
    array = open_array(run_path / store, name)
    first = partition * block_rows(array)
    return read_rows(array, first, first + n_rows)


def thicknesses_a_shard(store: Path) -> int:
    """Return how many thicknesses one shard of a feature store holds.

    Raises
    ------
    RunError
        If the store is missing or damaged.
    """
    array = open_array(store, "features")
    return int((array.shards or array.chunks)[1])


def read_features_block(store: Path, partition: int, n_rows: int, column: int) -> NDArray[Any]:
    """Read the features of one partition's items at one thickness, of shape (n_rows, n_features).

    Raises
    ------
    RunError
        If the shard is damaged.
    """
    array = open_array(store, "features")
    first = partition * block_rows(array)
    return _read(array, slice(first, first + n_rows), column)


def read_rows(array: zarr.Array[Any], start: int, stop: int) -> NDArray[Any]:
    """Read rows ``start`` … ``stop - 1`` of an array.

    Raises
    ------
    RunError
        If a shard is damaged.
    """
    return _read(array, slice(start, stop))


def _read(array: zarr.Array[Any], rows: slice, column: int | None = None) -> NDArray[Any]:
    part = f"partition {rows.start // block_rows(array)} of {array.store_path}"
    try:
        return np.asarray(array[rows] if column is None else array[rows, column])
    except _UNREADABLE as error:
        if is_refused(error):
            raise AccessError(
                f"{part} cannot be read ({error.strerror})",
                "the machine does not give the file, which says nothing of what is in it",
                "Try again, with fewer workers if it is open files that are missing (ulimit -n)",
            ) from error
        raise RunError(
            f"{part} cannot be decoded ({type(error).__name__})",
            "its shard is damaged",
            "`diffractory verify RUN` names all damaged partitions; `--repair` has them computed anew",
        ) from error
