"""Patterns of a run as they are learned from and tested on: as simulated, or as a laboratory sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffractory.dataset.partition import read_partition
from diffractory.dataset.run import Run
from diffractory.errors import RunError
from diffractory.patterns.lab_protocol import apply_lab_protocol, draw_thickness
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import LabProtocolSpec


@dataclass(frozen=True, eq=False)
class ProtocolPatterns:
    """Patterns under a protocol.

    Parameters
    ----------
    peaks : PeakTable
    thickness : ndarray of shape (n_patterns,)
        In Å.
    rotation : ndarray of shape (n_patterns, 3, 3)
        Orientation matrices, before any turn in the plane of the detector.
    """

    peaks: PeakTable
    thickness: NDArray[np.float64]
    rotation: NDArray[np.float64]


def protocol_patterns(
    run: Run,
    partition: int,
    thickness: float,
    lab: LabProtocolSpec | None = None,
    seed: int = 0,
    rows: NDArray[np.int64] | None = None,
) -> ProtocolPatterns:
    """Return the patterns of one partition under a protocol.

    Parameters
    ----------
    run : Run
    partition : int
    thickness : float
        In Å; without ``lab``, patterns are those simulated at this thickness.
    lab : LabProtocolSpec, optional
        What a laboratory does to each pattern; its thickness is drawn among those simulated.
    seed : int
        With the material and the orientation it alone determines what happens to a pattern.
    rows : ndarray of int, optional
        Items wanted, counted from the partition's first; all by default.

    Raises
    ------
    RunError
        If the partition is not done or damaged, or the thickness was not simulated.
    SpecError
        If no simulated thickness lies in the lab protocol's range.
    """
    first, stop = run.plan.partitions[partition].first, run.plan.partitions[partition].stop
    chosen = np.arange(stop - first) if rows is None else rows
    if lab is None:
        column = _thickness_index(run, thickness)
        peaks = read_partition(run, partition, columns=[column])
        same = np.full(len(chosen), thickness)
        return ProtocolPatterns(peaks.table(0).take(chosen), same, peaks.rotation[chosen])
    ids, count = run.catalogue.ids, run.plan.orientations.count
    seeds = np.array([pattern_seed(seed, ids[i // count], i % count) for i in range(first, stop)])
    available = np.array(run.plan.simulation.thicknesses)
    drawn = draw_thickness(available, lab, seeds)
    peaks = read_partition(run, partition)
    noisy = apply_lab_protocol(peaks.table(drawn).take(chosen), lab, seeds[chosen])
    return ProtocolPatterns(noisy, available[drawn[chosen]], peaks.rotation[chosen])


def pattern_seed(seed: int, material_id: str, orientation: int) -> np.uint64:
    """Return the seed of one pattern: a hash of what it is, not of where it is stored."""
    digest = hashlib.sha256(f"lab/{seed}/{material_id}/{orientation}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "big"))


def _thickness_index(run: Run, thickness: float) -> int:
    available = run.plan.simulation.thicknesses
    if thickness not in available:
        raise RunError(
            f"{run.path} holds no patterns at {thickness} Å",
            f"it was simulated at {list(available)} Å",
            "Evaluate on a run that holds the model's training thickness",
        )
    return available.index(thickness)
