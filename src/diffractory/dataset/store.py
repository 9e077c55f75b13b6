"""Zarr stores of a run; the only module that writes them.

All partitions own equally long blocks of every array, each block exactly one shard, so that one
partition writes whole files and never touches another's. The padding at the end of a block is index
space only: chunks that hold nothing are not stored.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from diffractory.dataset.plan import PEAK_CHUNK, Plan
from diffractory.dataset.records import ShardSum
from diffractory.errors import RunError

#: Items a chunk of arrays with one row an item holds.
_ITEM_CHUNK = 1024


def _create(
    group: zarr.Group,
    name: str,
    n_partitions: int,
    rows: int,
    chunk: int,
    row_shape: tuple[int, ...],
    dtype: str,
    attributes: dict[str, Any],
) -> None:
    # A shard must be a multiple of its chunks.
    chunk = min(chunk, rows) if rows % min(chunk, rows) == 0 else rows
    group.create_array(
        name,
        shape=(n_partitions * rows, *row_shape),
        chunks=(chunk, *row_shape),
        shards=(rows, *row_shape),
        dtype=dtype,
        compressors=[BloscCodec(cname="zstd", clevel=5, shuffle=BloscShuffle.bitshuffle)],
        fill_value=0,
        attributes=attributes,
    )


def create_peak_store(path: Path, plan: Plan) -> None:
    """Make the empty store of a plan: metadata only; existing metadata is replaced."""
    group = zarr.create_group(path, overwrite=True, attributes={"plan_id": plan.plan_id})
    n, peaks, items = len(plan.partitions), plan.peaks_per_shard, plan.items_per_shard
    n_thicknesses = len(plan.simulation.thicknesses)
    _create(group, "intensity", n, peaks, PEAK_CHUNK, (n_thicknesses,), "float32", {"units": "1"})
    _create(group, "hkl", n, peaks, PEAK_CHUNK, (3,), "int16", {"units": "1"})
    _create(group, "rotation", n, items, _ITEM_CHUNK, (3, 3), "float64", {"units": "1"})


def create_feature_store(path: Path, plan: Plan, n_thicknesses: int, n_features: int, plan_id: str) -> None:
    """Make the empty store of a feature set; existing metadata is replaced."""
    group = zarr.create_group(path, overwrite=True, attributes={"plan_id": plan_id})
    rows = plan.items_per_shard
    _create(
        group,
        "features",
        len(plan.partitions),
        rows,
        64,
        (n_thicknesses, n_features),
        "float32",
        {"units": "1"},
    )


def open_array(path: Path, name: str) -> zarr.Array[Any]:
    """Open one array of a store for reading.

    Raises
    ------
    RunError
        If the store or the array is missing or damaged.
    """
    try:
        array = zarr.open_array(path / name, mode="r")
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
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
        If the disk is full or the store cannot be written.
    """
    sums: dict[str, ShardSum] = {}
    for name, rows in blocks.items():
        # Empty chunks are written too: a shard that exists is part of the proof that it is done.
        array = zarr.open_array(run_path / store / name, mode="r+", config={"write_empty_chunks": True})
        owned = array.shards[0] if array.shards else array.chunks[0]
        padded = np.zeros((owned, *array.shape[1:]), dtype=array.dtype)
        padded[: len(rows)] = rows
        try:
            array[partition * owned : (partition + 1) * owned] = padded
            key = "/".join(["c", str(partition), *("0" for _ in array.shape[1:])])
            shard = run_path / store / name / key
            _flush(shard)
            sums[f"{store}/{name}/{key}"] = ShardSum.of_file(shard)
        except OSError as error:
            raise RunError(
                f"partition {partition} cannot be written to {run_path / store} ({error.strerror or error})",
                fix="Make room on the disk and run the same command again: finished partitions are kept",
            ) from error
    return sums


def _flush(path: Path) -> None:
    """Force a file to disk: the record that vouches for it is written next."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def read_block(run_path: Path, store: str, name: str, partition: int, n_rows: int) -> NDArray[Any]:
    """Read the first rows of one partition's block of one array.

    Raises
    ------
    RunError
        If the shard is damaged.
    """
    array = open_array(run_path / store, name)
    owned = array.shards[0] if array.shards else array.chunks[0]
    try:
        return np.asarray(array[partition * owned : partition * owned + n_rows])
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(
            f"partition {partition} of {run_path / store / name} cannot be decoded ({type(error).__name__})",
            "its shard is damaged",
            "`diffractory verify RUN` names all damaged partitions; `--repair` has them computed anew",
        ) from error
