"""Verify a run: records, checksums, physical invariants, and a sample solved again another way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffractory.dataset.intensity_codes import FLOOR, largest_error
from diffractory.dataset.partition import PartitionPeaks, planned_orientations, read_partition
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import PEAKS, Run
from diffractory.dataset.store import is_refused
from diffractory.errors import AccessError, RunError
from diffractory.scattering.simulate import Scatterer

#: The series is solved in single precision: a sum may exceed the incident beam by its rounding.
_SUM_TOLERANCE = 1e-5
#: A sample solved again must agree to this, beyond what storing may change.
_SOLVE_TOLERANCE = 1e-5
#: Stored orientation matrices must agree with the planned ones to this, on whatever machine.
_FRAME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verification:
    """Findings on one partition.

    Parameters
    ----------
    partition : int
    n_patterns : int
        Patterns checked against the invariants.
    n_solved_again : int
        Orientations solved again by the dense reference.
    largest_difference : float
        Largest intensity difference of these, beyond what storing may change.
    problems : tuple of str
        What is wrong; empty if nothing is.
    checked : bool
        Whether the files could be read at all: if not, nothing is known of the partition.
    """

    partition: int
    n_patterns: int
    n_solved_again: int
    largest_difference: float
    problems: tuple[str, ...]
    checked: bool = True


def verify_partition(run_path: Path | str, partition: int, sample: float = 0.01) -> Verification:
    """Check one partition.

    Parameters
    ----------
    run_path : Path or str
    partition : int
    sample : float
        Share of orientations that are solved again by the dense reference.

    Returns
    -------
    Verification
        Checks end at the first kind that finds a problem. What only the version that computed the run
        can compute again, orientations and intensities, is not compared by another.

    Raises
    ------
    RunError
        If the run folder or its catalogue is not what was planned.
    """
    run = Run.open(run_path)
    run.check_partition(partition)
    try:
        return _verify(run, partition, sample if run.is_of_this_version else 0.0)
    except AccessError as error:
        return Verification(partition, 0, 0, 0.0, (str(error),), checked=False)


def _verify(run: Run, partition: int, sample: float) -> Verification:
    try:
        record = run.record(PEAKS, partition, run.plan.plan_id)
    except RunError as error:
        return Verification(partition, 0, 0, 0.0, (str(error),))
    problems = [problem for name in record.shards if (problem := _shard_problem(run, name, record))]
    if problems:
        return Verification(partition, 0, 0, 0.0, tuple(problems))
    try:
        peaks = read_partition(run, partition, record)
    except RunError as error:
        return Verification(partition, 0, 0, 0.0, (str(error),))
    n_patterns = len(peaks.counts) * peaks.intensity.shape[1]
    problems = _broken_invariants(peaks)
    if run.is_of_this_version and not _is_as_planned(run, partition, peaks):
        problems.append("an orientation matrix is not the planned one")
    if problems:
        return Verification(partition, n_patterns, 0, 0.0, tuple(problems))
    chosen = [i for i in range(len(peaks.counts)) if _drawn(run.plan.plan_id, peaks.first_item + i, sample)]
    differences = [_difference_from_reference(run, peaks, i) for i in chosen]
    largest = max(differences, default=0.0)
    if largest > _SOLVE_TOLERANCE:
        problems.append(f"intensities differ by {largest:.1e} from the dense reference")
    return Verification(partition, n_patterns, len(chosen), largest, tuple(problems))


def _is_as_planned(run: Run, partition: int, peaks: PartitionPeaks) -> bool:
    apart = np.abs(peaks.rotation - planned_orientations(run, partition))
    return bool(apart.max() < _FRAME_TOLERANCE)


def _shard_problem(run: Run, name: str, record: Record) -> str:
    """Say why a shard is not what was written; nothing if it is."""
    try:
        intact = ShardSum.of_file(run.path / name) == record.shards[name]
    except OSError as error:
        told = f"shard {name} cannot be read ({error.strerror or error})"
        if is_refused(error):
            raise AccessError(told, "nothing is known of it", "Try again") from None
        return told
    return "" if intact else f"shard {name} does not match its checksum: a bit changed after writing"


def _drawn(plan_id: str, item: int, share: float) -> bool:
    """Decide by a hash whether an item is in the sample: the same ones on every machine."""
    digest = hashlib.sha256(f"{plan_id}/{item}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def _broken_invariants(peaks: PartitionPeaks) -> list[str]:
    starts = peaks.offsets[:-1]
    if np.any(peaks.counts < 1) or np.any(peaks.hkl[starts] != 0):
        return ["a pattern lacks its direct beam"]
    # Codes hold nothing negative and nothing infinite, so the sum is all that can be wrong.
    sums = np.add.reduceat(peaks.intensity, starts, axis=0, dtype=np.float64)
    # Storing may change the sum by the bounds of all its terms.
    allowed = 1.0 + _SUM_TOLERANCE + largest_error(sums) + FLOOR * (peaks.counts[:, None] - 1)
    if np.any(sums > allowed):
        return [f"the intensities of a pattern sum to {sums.max():.6f}, more than the incident beam"]
    return []


def _difference_from_reference(run: Run, peaks: PartitionPeaks, index: int) -> float:
    """Solve one item again with the dense reference; return the largest difference beyond rounding."""
    crystal = (peaks.first_item + index) // run.plan.orientations.count
    scatterer = Scatterer.prepare(run.catalogue.crystal(crystal), run.plan.simulation)
    reference = scatterer.solve(peaks.rotation[index], "dense", "double")
    rows = peaks.rows(index)
    if not np.array_equal(reference.hkl, peaks.hkl[rows]):
        return float("inf")
    true = reference.intensity.T
    excess = np.abs(true - peaks.intensity[rows]) - largest_error(true)
    return max(float(excess.max()), 0.0)


def remove_records(
    run: Run, partitions: list[int], on_removed: Callable[[int], None] = lambda _: None
) -> None:
    """Take back the proof that partitions are done, so that the next run computes them anew.

    Features computed from them go with them: they may have been computed from the damaged peaks.

    Raises
    ------
    RunError
        If the run folder cannot be written.
    """
    for partition in partitions:
        for stage in (run.path / "records").glob("*"):
            record = run.record_path(stage.name, partition)
            try:
                record.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"record {record} cannot be removed ({error.strerror or error})") from None
        on_removed(partition)
