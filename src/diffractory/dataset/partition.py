"""Simulate one partition: the function every engine runs, and its peaks read back."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory import __version__
from diffractory.dataset.intensity_codes import decode_intensity, encode_intensity
from diffractory.dataset.records import Record
from diffractory.dataset.run import PEAK_STORE, PEAKS, Run
from diffractory.dataset.store import read_block, write_block
from diffractory.dataset.survey import crystal_orientations
from diffractory.patterns.peak_table import PeakTable
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.simulate import Scatterer, iterate_patterns
from diffractory.scattering.torch_solver import solve_batched


@dataclass(frozen=True, eq=False)
class PartitionPeaks:
    """All peaks of one partition.

    Parameters
    ----------
    first_item : int
        First item of the partition.
    counts : ndarray of shape (n_items,), int64
        Peaks of each item.
    hkl : ndarray of shape (n_peaks, 3), int64
    q : ndarray of shape (n_peaks, 2)
        In Å⁻¹.
    intensity : ndarray of shape (n_peaks, n_thicknesses), float32
        At the thicknesses that were asked for. Share of the incident beam, off by at most
        :func:`~.intensity_codes.largest_error`.
    rotation : ndarray of shape (n_items, 3, 3)
        Orientation matrices.
    """

    first_item: int
    counts: NDArray[np.int64]
    hkl: NDArray[np.int64]
    q: NDArray[np.float64]
    intensity: NDArray[np.float32]
    rotation: NDArray[np.float64]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each item's peaks, where its direct beam is, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def rows(self, index: int) -> slice:
        """Return which peaks belong to an item, counted from the partition's first."""
        stop = int(self.counts[: index + 1].sum())
        return slice(stop - int(self.counts[index]), stop)

    def table(self, thickness_index: int | NDArray[np.int64]) -> PeakTable:
        """Return the patterns at one thickness, or at one for each item, direct beams marked."""
        offsets = self.offsets
        column = np.broadcast_to(np.asarray(thickness_index), self.counts.shape)
        per_peak = np.repeat(column, self.counts)
        intensity = self.intensity[np.arange(offsets[-1]), per_peak]
        # hkl = 000 comes first in every pattern.
        return PeakTable(self.q, intensity.astype(np.float64), offsets, offsets[:-1])


def simulate_partition(run_path: Path | str, partition: int, device: str | None = None) -> Record:
    """Compute one partition, write its shards, then commit its record.

    Repeating it is harmless: shards are replaced whole, and the record is written last.

    Parameters
    ----------
    run_path : Path or str
        Run folder.
    partition : int
    device : str, optional
        GPU to solve on, as PyTorch calls it ("cuda"); the processor by default.

    Returns
    -------
    Record
        As it is on disk.

    Raises
    ------
    RunError
        If the run is damaged, there is no such partition, or it cannot be written.
    SimulationError
        If a solve fails, or the device cannot be used.
    """
    run = Run.open(run_path)
    run.check_code_version()
    started, processor_started = time.perf_counter(), time.process_time()
    run.check_partition(partition)
    codes: list[NDArray[np.uint16]] = []
    hkl: list[NDArray[np.int16]] = []
    rotations: list[NDArray[np.float64]] = []
    dense_solves = 0
    for pattern, rotation in _solve(run, partition, device):
        # Narrowed at once: what waits here must fit the memory that the plan counted.
        codes.append(encode_intensity(pattern.intensity.T))
        hkl.append(pattern.hkl.astype(np.int16))
        rotations.append(rotation)
        dense_solves += pattern.solver == "dense"
    counts = tuple(len(indices) for indices in hkl)
    blocks: dict[str, NDArray[Any]] = {
        "intensity": np.concatenate(codes),
        "hkl": np.concatenate(hkl),
        "rotation": np.array(rotations),
    }
    del codes, hkl
    record = Record(
        run.plan.plan_id,
        PEAKS,
        partition,
        counts,
        write_block(run.path, PEAK_STORE, partition, blocks),
        __version__,
        platform.node(),
        round(time.perf_counter() - started, 3),
        round(time.process_time() - processor_started, 3),
        dense_solves,
        device or "",
    )
    record.write(run.record_path(PEAKS, partition))
    return record


def _solve(run: Run, partition: int, device: str | None) -> Iterator[tuple[PeakList, NDArray[np.float64]]]:
    """Yield the pattern and orientation of each item, crystal by crystal."""
    if device is None:
        for crystal, matrices in _frames(run, partition):
            patterns = iterate_patterns(run.catalogue.crystal(crystal), matrices, run.plan.simulation)
            yield from zip(patterns, matrices, strict=True)
        return
    # A GPU takes many crystals at a time.
    yield from zip(
        solve_batched(_prepared(run, partition), device), planned_orientations(run, partition), strict=True
    )


def _prepared(run: Run, partition: int) -> Iterator[tuple[Scatterer, NDArray[np.float64]]]:
    """Yield each item with its crystal prepared, one crystal after the other."""
    for crystal, matrices in _frames(run, partition):
        scatterer = Scatterer.prepare(run.catalogue.crystal(crystal), run.plan.simulation)
        for matrix in matrices:
            yield scatterer, matrix


def _frames(run: Run, partition: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield each crystal of a partition with those of its orientations that are in it."""
    chosen, count = run.plan.partitions[partition], run.plan.orientations.count
    for crystal in range(chosen.first // count, (chosen.stop - 1) // count + 1):
        first = max(chosen.first - crystal * count, 0)
        stop = min(chosen.stop - crystal * count, count)
        yield crystal, crystal_orientations(run.catalogue, crystal, run.plan.orientations)[first:stop]


def planned_orientations(run: Run, partition: int) -> NDArray[np.float64]:
    """Return the orientation matrices of a partition's items, of shape (n_items, 3, 3)."""
    return np.concatenate([matrices for _, matrices in _frames(run, partition)])


def read_partition(
    run: Run, partition: int, record: Record | None = None, columns: Sequence[int] | None = None
) -> PartitionPeaks:
    """Read the peaks of a finished partition.

    Parameters
    ----------
    run : Run
    partition : int
    record : Record, optional
        Its record, if read already.
    columns : sequence of int, optional
        Thicknesses whose intensities are wanted, by their places in the plan; all by default.

    Raises
    ------
    RunError
        If the partition is not done or damaged.
    """
    proof = record or run.record(PEAKS, partition, run.plan.plan_id)
    counts = np.array(proof.counts, dtype=np.int64)
    n_peaks, first = int(counts.sum()), run.plan.partitions[partition].first
    hkl = read_block(run.path, PEAK_STORE, "hkl", partition, n_peaks).astype(np.int64)
    codes = read_block(run.path, PEAK_STORE, "intensity", partition, n_peaks)
    rotation = read_block(run.path, PEAK_STORE, "rotation", partition, len(counts))
    return PartitionPeaks(
        first,
        counts,
        hkl,
        peak_positions(run, first + np.arange(len(counts)), counts, hkl, rotation),
        decode_intensity(codes if columns is None else codes[:, columns]),
        rotation,
    )


def peak_positions(
    run: Run,
    items: NDArray[np.int64],
    counts: NDArray[np.int64],
    hkl: NDArray[Any],
    rotation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the detector positions of some items' peaks, of shape (n_peaks, 2), in Å⁻¹.

    They follow from hkl, cell and orientation, so they are not stored.

    Parameters
    ----------
    run : Run
    items : ndarray of shape (n_items,), int64
    counts : ndarray of shape (n_items,), int64
        Rows of ``hkl`` that belong to each item.
    hkl : ndarray of shape (n_peaks, 3)
        Integers.
    rotation : ndarray of shape (n_items, 3, 3)
        Orientation matrices.
    """
    crystals, which = np.unique(items // run.plan.orientations.count, return_inverse=True)
    to_detector = run.catalogue.reciprocal(crystals)[which] @ rotation[:, :, :2]
    ends = np.cumsum(counts)
    positions = np.empty((len(hkl), 2))
    # Item by item: a matrix for each peak would take more memory than the peaks, and time. Written out:
    # BLAS would round a peak another way when it is read without its neighbours.
    for matrix, first, stop in zip(to_detector, ends - counts, ends, strict=True):
        indices = hkl[first:stop]
        positions[first:stop] = (
            indices[:, :1] * matrix[0] + indices[:, 1:2] * matrix[1] + indices[:, 2:] * matrix[2]
        )
    return positions
