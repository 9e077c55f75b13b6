"""Zarr stores of a run; the only module that writes them.

All partitions own equally long blocks of every array, each block exactly one shard, so that one
partition writes whole files and never touches another's. The padding at the end of a block is index
space only: it is zeros, which compress to next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, TransposeCodec

from diffractory.dataset.intensity_codes import ATTRIBUTES
from diffractory.dataset.plan import PEAK_CHUNK, Plan
from diffractory.dataset.records import ShardSum
from diffractory.errors import RunError
from diffractory.storage import write_atomic

#: Items a chunk of arrays with one row an item holds.
_ITEM_CHUNK = 1024
#: Feature rows a chunk holds: about 270 kB at one thickness.
_FEATURE_CHUNK = 64

#: What zarr and its codecs raise on stores that are damaged.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RuntimeError,
    MemoryError,
    zarr.errors.BaseZarrError,
)


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
    attributes : dict
    """

    row_shape: tuple[int, ...]
    dtype: str
    chunk: int
    shuffle: BloscShuffle
    transposed: bool = False
    attributes: dict[str, Any] = field(default_factory=lambda: {"units": "1"})


def _create(group: zarr.Group, name: str, n_partitions: int, rows: int, layout: _Layout) -> None:
    # A shard is a multiple of its chunks.
    chunk = min(layout.chunk, rows)
    rows = -(-rows // chunk) * chunk
    group.create_array(
        name,
        shape=(n_partitions * rows, *layout.row_shape),
        chunks=(chunk, *layout.row_shape),
        shards=(rows, *layout.row_shape),
        dtype=layout.dtype,
        filters=[TransposeCodec(order=(1, 0))] if layout.transposed else None,
        compressors=[BloscCodec(cname="zstd", clevel=5, shuffle=layout.shuffle)],
        fill_value=0,
        attributes=layout.attributes,
    )


def create_peak_store(path: Path, plan: Plan) -> None:
    """Make the empty store of a plan: metadata only; existing metadata is replaced."""
    group = zarr.create_group(path, overwrite=True, attributes={"plan_id": plan.plan_id})
    n, peaks, items = len(plan.partitions), plan.peaks_per_shard, plan.items_per_shard
    row = (len(plan.simulation.thicknesses),)
    codes = _Layout(row, "uint16", PEAK_CHUNK, BloscShuffle.shuffle, attributes=ATTRIBUTES)
    _create(group, "intensity", n, peaks, codes)
    indices = _Layout((3,), "int16", PEAK_CHUNK, BloscShuffle.bitshuffle, transposed=True)
    _create(group, "hkl", n, peaks, indices)
    # Crystals of one Laue group share whole matrices, which shuffling would take apart.
    _create(group, "rotation", n, items, _Layout((3, 3), "float64", _ITEM_CHUNK, BloscShuffle.noshuffle))


def create_feature_store(path: Path, plan: Plan, n_thicknesses: int, n_features: int, plan_id: str) -> None:
    """Make the empty store of a feature set; existing metadata is replaced."""
    group = zarr.create_group(path, overwrite=True, attributes={"plan_id": plan_id})
    layout = _Layout((n_thicknesses, n_features), "float32", _FEATURE_CHUNK, BloscShuffle.bitshuffle)
    _create(group, "features", len(plan.partitions), plan.items_per_shard, layout)


def open_array(path: Path, name: str) -> zarr.Array[Any]:
    """Open one array of a store for reading.

    Raises
    ------
    RunError
        If the store or the array is missing or damaged.
    """
    try:
        array = zarr.open_array(path / name, mode="r")
    except _UNREADABLE as error:
        raise RunError(
            f"array {path / name} cannot be opened ({type(error).__name__})",
            "the store is missing or its metadata are damaged",
            "Restore zarr.json from a copy, or plan a new run folder",
        ) from None
    return array


def write_block(
    run_path: Path, store: str, partition: int, blocks: dict[str, NDArray[Any]]
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

    Raises
    ------
    RunError
        If the disk is full, or the store cannot be written or is not the planned one.
    """
    sums: dict[str, ShardSum] = {}
    for name, rows in blocks.items():
        array = open_array(run_path / store, name)
        owned = block_rows(array)
        if len(rows) > owned or rows.shape[1:] != array.shape[1:] or (partition + 1) * owned > array.shape[0]:
            raise RunError(
                f"partition {partition} with rows {rows.shape} does not fit array {run_path / store / name} "
                f"of blocks {(owned, *array.shape[1:])}",
                "the store is not the one that was planned",
                "Restore it from a copy, or plan a new run folder",
            )
        key = _shard_key(array, partition)
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
        shape=(block_rows(array), *array.shape[1:]),
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
    padded[: len(rows)] = rows
    shard[...] = padded
    return bytes(entries[_shard_key(array, 0)].to_bytes())


def _shard_key(array: zarr.Array[Any], partition: int) -> str:
    return "/".join(["c", str(partition), *("0" for _ in array.shape[1:])])


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


def read_rows(array: zarr.Array[Any], start: int, stop: int) -> NDArray[Any]:
    """Read rows ``start`` … ``stop - 1`` of an array.

    Raises
    ------
    RunError
        If a shard is damaged.
    """
    try:
        return np.asarray(array[start:stop])
    except _UNREADABLE as error:
        raise RunError(
            f"partition {start // block_rows(array)} of {array.store_path} cannot be decoded "
            f"({type(error).__name__})",
            "its shard is damaged",
            "`diffractory verify RUN` names all damaged partitions; `--repair` has them computed anew",
        ) from error
