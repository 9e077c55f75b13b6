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
from diffractory.dataset.survey import Survey, survey
from diffractory.errors import PlanError, RunError
from diffractory.scattering.cost import (
    RESERVED_BYTES,
    TYPICAL,
    Speed,
    predicted_seconds,
    predicted_setup_seconds,
    predicted_solve_bytes,
)
from diffractory.settings import Resources
from diffractory.specs import OrientationSpec, SimulationSpec, sha256_of
from diffractory.units import human_bytes

#: Version of the layout of a run folder.
FORMAT_VERSION = 2
#: A partition's intensities stay under this many bytes when read, whatever its cost: one shard is one write.
MAX_SHARD_BYTES = 256_000_000
#: Items of a partition: their features at one thickness stay under 256 MB.
MAX_ITEMS = 60_000
#: Least and largest cost of a partition by default.
PARTITION_SECONDS = (5.0, 600.0)
#: How many partitions there are by default: work for all workers of a machine, if they cost enough; and, as
#: each is three files and a record, not too many.
MIN_PARTITIONS, MAX_PARTITIONS = 64, 10_000
#: Share by which partitions' costs may differ from their mean, the last one apart.
BALANCE = 0.25
#: Peaks a chunk of the flat arrays holds: 3 MB of codes at 100 thicknesses.
PEAK_CHUNK = 16_384
#: Bytes on disk as measured on 40 crystals of all sizes (benchmarks/store.py), rounded up: of one
#: intensity, of the hkl of one peak, and of one orientation matrix with the peak count in the record.
_TYPICAL_BYTES = (0.65, 1.6, 50.0)
#: How much more than that a disk must have free: crystals differ, and a full disk stops a run half-way.
_DISK_MARGIN = 1.5


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
    format_version : int
        Of the layout of the run folder.
    code_version : str
        Of the program that made the plan; only programs of the same minor version go on with the run.
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

    @cached_property
    def items_per_shard(self) -> int:
        """Rows each partition owns in arrays with one row an item."""
        return max(p.stop - p.first for p in self.partitions)

    @cached_property
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
    def wanted_disk_bytes(self) -> int:
        """Free bytes a disk must have: the likely ones with a margin, but never more than the bound."""
        return min(round(_DISK_MARGIN * self.likely_disk_bytes), self.disk_bytes)

    @property
    def worker_bytes(self) -> int:
        """Peak bytes of one worker: the largest solve, a shard decoded to float32, and its copies."""
        n = len(self.simulation.thicknesses)
        # Or, in the feature stage, codes, indices and positions of all its peaks.
        shard = self.peaks_per_shard * max(3 * (4 * n + 6), 2 * n + 48)
        return RESERVED_BYTES + predicted_solve_bytes(self.largest_solve, self.simulation) + shard

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

        Parameters
        ----------
        text : str
            As :meth:`to_json` writes it.
        source : str
            What the text is called in messages.

        Returns
        -------
        Plan

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


def make_plan(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    partition_seconds: float | None = None,
    on_crystal: Callable[[], None] = lambda: None,
    speed: Speed = TYPICAL,
    processes: int = 1,
) -> Plan:
    """Plan a run.

    Parameters
    ----------
    catalogue : Catalogue
    simulation : SimulationSpec
    orientations : OrientationSpec
    partition_seconds : float
        Wanted cost of a partition; by default the largest up to ten minutes at which they are balanced.
    on_crystal : callable
        Called after each crystal, for a progress bar.
    speed : Speed
        Of a core of the machine that will run it.
    processes : int
        That count beams side by side.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If the catalogue is empty, or the partitions' cost is not above 0.
    """
    check_partition_seconds(partition_seconds)
    counted = survey(catalogue, simulation, orientations, on_crystal, processes)
    return plan_surveyed(catalogue, simulation, orientations, counted, partition_seconds, speed)


def check_partition_seconds(seconds: float | None) -> None:
    """Refuse a cost of partitions that is not above 0.

    Raises
    ------
    PlanError
        If it is not.
    """
    if seconds is not None and not seconds > 0:
        raise PlanError(f"partitions of {seconds} s cannot be", fix="Give a number above 0")


def plan_surveyed(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    counted: Survey,
    partition_seconds: float | None = None,
    speed: Speed = TYPICAL,
) -> Plan:
    """Plan a run whose beams are counted already; arguments as in :func:`make_plan`."""
    seconds = predicted_item_seconds(counted, simulation, speed)
    setup = predicted_setup_seconds(counted.volumes, simulation, speed)
    return Plan(
        simulation,
        orientations,
        catalogue.content_hash,
        len(catalogue),
        _partitions(counted.beams, seconds, setup, len(simulation.thicknesses), partition_seconds),
        int(counted.beams.max()),
    )


def predicted_item_seconds(counted: Survey, simulation: SimulationSpec, speed: Speed) -> NDArray[np.float64]:
    """Return the predicted seconds of every item's solve, of shape (n_crystals, count)."""
    strength = counted.scattering[:, None]
    return predicted_seconds(counted.beams, simulation, speed, counted.error_ranges, strength)


def _partitions(
    beams: NDArray[np.int64],
    seconds: NDArray[np.float64],
    setup: NDArray[np.float64],
    n_thicknesses: int,
    wanted: float | None,
) -> tuple[Partition, ...]:
    """Cut the items into ranges of about equal cost, each small enough for one shard.

    Where no cost is wanted, the largest at which they are balanced: crystals with few beams fill their
    shards before they cost much. If none is, the largest.
    """
    if wanted is not None:
        return _cut(beams, seconds, setup, n_thicknesses, wanted)
    total = float(seconds.sum() + setup.sum())
    least, most = (max(s, total / MAX_PARTITIONS) for s in PARTITION_SECONDS)
    target = largest = min(max(least, total / MIN_PARTITIONS), most)
    while target >= least:
        cut = _cut(beams, seconds, setup, n_thicknesses, target)
        costs = np.array([partition.seconds for partition in cut[:-1]])
        if len(costs) < 2 or np.all(np.abs(costs / costs.mean() - 1.0) <= BALANCE):
            return cut
        target *= 0.7
    return _cut(beams, seconds, setup, n_thicknesses, largest)


def _cut(
    beams: NDArray[np.int64],
    seconds: NDArray[np.float64],
    setup: NDArray[np.float64],
    n_thicknesses: int,
    target: float,
) -> tuple[Partition, ...]:
    per_crystal, n_items = beams.shape[1], beams.size
    most_peaks = max(MAX_SHARD_BYTES // (4 * n_thicknesses), PEAK_CHUNK)
    # Set-up is paid with the first item of a crystal, and again where a partition begins within one.
    costs = seconds.copy()
    costs[:, 0] += setup
    cost_before = np.concatenate([[0.0], np.cumsum(costs.ravel())])
    peaks_before = np.concatenate([[0], np.cumsum(beams.ravel())])
    # Even shares instead of full ones and a small rest.
    with np.errstate(over="ignore"):
        share = cost_before[-1] / round(float(np.clip(cost_before[-1] / target, 1, n_items)))
    partitions: list[Partition] = []
    first = 0
    while first < n_items:
        again = float(setup[first // per_crystal]) if first % per_crystal else 0.0
        end = cost_before[first] - again + share
        stop = int(np.searchsorted(cost_before, end))
        # The nearer of two borders.
        if stop > n_items or 2.0 * end < cost_before[stop - 1] + cost_before[stop]:
            stop -= 1
        room = int(np.searchsorted(peaks_before, peaks_before[first] + most_peaks, side="right")) - 1
        stop = max(min(stop, room, first + MAX_ITEMS), first + 1)
        cost = float(cost_before[stop] - cost_before[first]) + again
        partitions.append(
            Partition(first, stop, int(peaks_before[stop] - peaks_before[first]), round(cost, 4))
        )
        first = stop
    return tuple(partitions)


def check_fits(plan: Plan, resources: Resources, missing: float = 1.0) -> None:
    """Refuse a plan that the machine cannot hold.

    Parameters
    ----------
    plan : Plan
    resources : Resources
    missing : float
        Share of its peaks that is not on disk yet.

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
    if (wanted := missing * plan.wanted_disk_bytes) > resources.disk_free:
        raise PlanError(
            f"the plan may need {human_bytes(wanted)} of disk and "
            f"{human_bytes(resources.disk_free)} are free",
            f"{plan.n_peaks} peaks at {len(plan.simulation.thicknesses)} thicknesses take about "
            f"{human_bytes(plan.likely_disk_bytes)}",
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
