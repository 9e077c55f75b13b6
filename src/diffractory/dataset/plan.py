"""The plan of a run: everything decided before anything is computed, frozen and hashed.

Beam choice is geometry, so a plan counts beams, bytes and seconds without solving anything, and
refuses what does not fit. Items are (crystal, orientation) pairs, crystal by crystal; a partition is
a range of items of about equal predicted cost, and owns one whole shard of every array.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from diffractory import __version__
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.symmetry import laue_operations_of
from diffractory.errors import PlanError, RunError
from diffractory.scattering.beams import count_beams, reciprocal_points
from diffractory.scattering.cost import (
    RESERVED_BYTES,
    TYPICAL,
    Speed,
    predicted_seconds,
    predicted_setup_seconds,
    predicted_solve_bytes,
)
from diffractory.scattering.orientations import sample_orientations
from diffractory.scattering.primitive import primitive_cell
from diffractory.settings import Resources, human_bytes
from diffractory.specs import OrientationSpec, SimulationSpec, sha256_of

#: Version of the layout of a run folder.
FORMAT_VERSION = 2
#: A partition's intensities stay under this many bytes when read, whatever its cost: one shard is one write.
MAX_SHARD_BYTES = 256_000_000
#: Peaks a chunk of the flat arrays holds: 3 MB of codes at 100 thicknesses.
PEAK_CHUNK = 16_384
#: Bytes on disk as measured on 40 crystals of all sizes (benchmarks/store.py), rounded up: of one
#: intensity, of the hkl of one peak, and of one orientation matrix with the peak count in the record.
_TYPICAL_BYTES = (0.65, 1.6, 50.0)


@dataclass(frozen=True)
class Partition:
    """A range of items, the unit of work and of writing.

    Parameters
    ----------
    first, stop : int
        Items ``first`` … ``stop - 1``; item = crystal × orientations + orientation.
    n_peaks : int
        Peaks of all its items, counted.
    seconds : float
        Predicted cost.
    """

    first: int
    stop: int
    n_peaks: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run will compute, and in which parts.

    Parameters
    ----------
    simulation : SimulationSpec
    orientations : OrientationSpec
    catalogue_hash : str
        Content hash of the catalogue.
    n_crystals : int
    partitions : tuple of Partition
    largest_solve : int
        Beams of the largest single solve.
    """

    simulation: SimulationSpec
    orientations: OrientationSpec
    catalogue_hash: str
    n_crystals: int
    partitions: tuple[Partition, ...]
    largest_solve: int
    format_version: int = FORMAT_VERSION
    code_version: str = __version__

    @property
    def n_items(self) -> int:
        """Number of (crystal, orientation) pairs."""
        return self.n_crystals * self.orientations.count

    @property
    def items_per_shard(self) -> int:
        """Rows each partition owns in arrays with one row an item."""
        return max(p.stop - p.first for p in self.partitions)

    @property
    def peaks_per_shard(self) -> int:
        """Rows each partition owns in arrays with one row a peak: whole chunks."""
        return -(-max(p.n_peaks for p in self.partitions) // PEAK_CHUNK) * PEAK_CHUNK

    @property
    def n_peaks(self) -> int:
        """Peaks of the whole run."""
        return sum(p.n_peaks for p in self.partitions)

    @property
    def seconds(self) -> float:
        """Predicted core-seconds of the whole run."""
        return sum(p.seconds for p in self.partitions)

    @property
    def disk_bytes(self) -> int:
        """Upper bound of the bytes on disk: nothing compressed."""
        return self.n_peaks * (2 * len(self.simulation.thicknesses) + 6) + 72 * self.n_items

    @property
    def likely_disk_bytes(self) -> int:
        """Estimate of the bytes on disk, compressed as is typical; never above the bound."""
        intensity, hkl, item = _TYPICAL_BYTES
        peak = intensity * len(self.simulation.thicknesses) + hkl
        return min(round(self.n_peaks * peak + self.n_items * item), self.disk_bytes)

    @property
    def worker_bytes(self) -> int:
        """Peak bytes of one worker: the largest solve, a shard decoded to float32, and its copies."""
        shard = self.peaks_per_shard * (4 * len(self.simulation.thicknesses) + 6)
        return RESERVED_BYTES + predicted_solve_bytes(self.largest_solve, self.simulation) + 3 * shard

    @cached_property
    def plan_id(self) -> str:
        """sha256 of the canonical JSON of everything in the plan."""
        return sha256_of(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "code_version": self.code_version,
            "simulation": self.simulation.model_dump(mode="json"),
            "orientations": self.orientations.model_dump(mode="json"),
            "catalogue_hash": self.catalogue_hash,
            "n_crystals": self.n_crystals,
            "largest_solve": self.largest_solve,
            "partitions": [asdict(p) for p in self.partitions],
        }

    def to_json(self) -> str:
        """Return the plan and its id as JSON text."""
        return json.dumps({"plan_id": self.plan_id, **self._content()}, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> Self:
        """Read a plan back and check that nothing in it was changed.

        Raises
        ------
        RunError
            If the text is damaged, of another format version, or does not match its own id.
        """
        try:
            content = json.loads(text)
            version = content["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunError(
                f"{source} is not a readable plan",
                "it is damaged or cut short",
                "Restore it from a copy, or plan a new run folder",
            ) from None
        if version != FORMAT_VERSION:
            raise RunError(
                f"{source} has format version {version}, this program writes and reads {FORMAT_VERSION}",
                fix="Use the program version that made the run, or plan a new run folder",
            )
        try:
            plan = cls(
                SimulationSpec(**content["simulation"]),
                OrientationSpec(**content["orientations"]),
                content["catalogue_hash"],
                content["n_crystals"],
                tuple(Partition(**p) for p in content["partitions"]),
                content["largest_solve"],
                version,
                content["code_version"],
            )
            intact = plan.plan_id == content["plan_id"] and plan._covers_all_items()
        except (KeyError, TypeError, ValueError):
            intact = False
        if not intact:
            raise RunError(
                f"{source} does not match its own id",
                "it was edited or damaged after planning",
                "Restore it from a copy, or plan a new run folder",
            )
        return plan

    def _covers_all_items(self) -> bool:
        """Return whether the partitions follow each other and leave no item out."""
        borders = [0, *(p.stop for p in self.partitions)]
        follow = all(p.first == border < p.stop for p, border in zip(self.partitions, borders, strict=False))
        return follow and borders[-1] == self.n_items > 0


def crystal_orientations(catalogue: Catalogue, index: int, spec: OrientationSpec) -> NDArray[np.float64]:
    """Return the orientation matrices of one crystal of a catalogue, of shape (count, 3, 3)."""
    return _orientations_of(catalogue.crystal(index), spec, catalogue.ids[index])


def _orientations_of(crystal: Crystal, spec: OrientationSpec, crystal_id: str) -> NDArray[np.float64]:
    return sample_orientations(laue_operations_of(crystal), spec, crystal_id)


def count_catalogue_beams(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    on_crystal: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the beams of every item, and the range of their excitation errors in Å⁻¹.

    Both of shape (n_crystals, count); calls back after each crystal.
    """
    counts = np.empty((len(catalogue), orientations.count), dtype=np.int64)
    ranges = np.empty(counts.shape)
    for index, crystal_id in enumerate(catalogue.ids):
        crystal = catalogue.crystal(index)
        points = reciprocal_points(primitive_cell(crystal), simulation.q_max)
        matrices = _orientations_of(crystal, orientations, crystal_id)
        counts[index], ranges[index] = count_beams(points, matrices, simulation)
        on_crystal()
    return counts, ranges


def make_plan(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    partition_seconds: float = 600.0,
    on_crystal: Callable[[], None] = lambda: None,
    speed: Speed = TYPICAL,
) -> Plan:
    """Plan a run.

    Parameters
    ----------
    catalogue : Catalogue
    simulation : SimulationSpec
    orientations : OrientationSpec
    partition_seconds : float
        Wanted cost of a partition.
    on_crystal : callable
        Called after each crystal, for a progress bar.
    speed : Speed
        Of a core of the machine that will run it.

    Raises
    ------
    PlanError
        If the catalogue is empty, or the partitions' cost is not above 0.
    """
    if len(catalogue) == 0:
        raise PlanError("the catalogue is empty", fix="Build one with `diffractory catalogue build`")
    if not partition_seconds > 0:
        raise PlanError(f"partitions of {partition_seconds} s cannot be", fix="Give a number above 0")
    beams, ranges = count_catalogue_beams(catalogue, simulation, orientations, on_crystal)
    seconds = predicted_seconds(beams, simulation, speed, ranges)
    volumes = catalogue.table["volume_primitive"].to_numpy(dtype=np.float64)
    setup = predicted_setup_seconds(volumes, simulation, speed)
    return Plan(
        simulation,
        orientations,
        catalogue.content_hash,
        len(catalogue),
        _partitions(beams, seconds, setup, len(simulation.thicknesses), partition_seconds),
        int(beams.max()),
    )


def _partitions(
    beams: NDArray[np.int64],
    seconds: NDArray[np.float64],
    setup: NDArray[np.float64],
    n_thicknesses: int,
    target: float,
) -> tuple[Partition, ...]:
    """Cut the items into ranges of about equal cost, each small enough for one shard."""
    per_crystal = beams.shape[1]
    peaks, costs = beams.ravel(), seconds.ravel()
    max_peaks = max(MAX_SHARD_BYTES // (4 * n_thicknesses), PEAK_CHUNK)
    total = float(costs.sum() + setup.sum())
    # Even shares instead of full ones and a small rest.
    share = total / round(float(np.clip(total / target, 1, len(peaks))))
    partitions: list[Partition] = []
    first, n_peaks, cost = 0, 0, 0.0
    for item in range(len(peaks)):
        opens_crystal = item == first or item % per_crystal == 0
        item_cost = float(costs[item]) + (float(setup[item // per_crystal]) if opens_crystal else 0.0)
        full = cost + 0.5 * item_cost > share or n_peaks + peaks[item] > max_peaks
        if item > first and full:
            partitions.append(Partition(first, item, n_peaks, round(cost, 4)))
            first, n_peaks, cost = item, 0, 0.0
            item_cost = float(costs[item]) + float(setup[item // per_crystal])
        n_peaks += int(peaks[item])
        cost += item_cost
    return (*partitions, Partition(first, len(peaks), n_peaks, round(cost, 4)))


def check_fits(plan: Plan, resources: Resources) -> None:
    """Refuse a plan that the machine cannot hold.

    Raises
    ------
    PlanError
        If a worker's memory or the disk is too small, naming the term to shrink.
    """
    if plan.worker_bytes > resources.worker_memory:
        solve = predicted_solve_bytes(plan.largest_solve, plan.simulation)
        shard = plan.worker_bytes - solve - RESERVED_BYTES
        raise PlanError(
            f"the plan needs {human_bytes(plan.worker_bytes)} a worker and "
            f"{human_bytes(resources.worker_memory)} are there",
            f"the largest solve has {plan.largest_solve} beams and takes {human_bytes(solve)}, a shard and "
            f"its copies {human_bytes(shard)}, the program itself {human_bytes(RESERVED_BYTES)}",
            _how_to_shrink(solve, shard),
        )
    if plan.disk_bytes > resources.disk_free:
        raise PlanError(
            f"the plan may need {human_bytes(plan.disk_bytes)} of disk and "
            f"{human_bytes(resources.disk_free)} are free",
            f"{plan.n_peaks} peaks at {len(plan.simulation.thicknesses)} thicknesses, uncompressed",
            "Give another run folder, fewer thicknesses, fewer orientations or fewer crystals",
        )


def _how_to_shrink(solve: int, shard: int) -> str:
    """Name what makes the largest term of a worker's memory smaller."""
    if max(solve, shard) < RESERVED_BYTES:
        return "Use fewer workers (--workers)"
    if solve > shard:
        return (
            "Shrink the largest solve: a smaller --q-max, or leave out the largest crystals (catalogue "
            "build --max-volume); or use fewer workers (--workers)"
        )
    return (
        "Shrink the shards: smaller partitions (--partition-seconds) or fewer thicknesses; or use fewer "
        "workers (--workers)"
    )
