"""Feature sets: fixed-shape arrays computed from the peaks of a run, partition by partition."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory import __version__
from diffractory.dataset.partition import read_partition
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import Run
from diffractory.dataset.store import (
    create_feature_store,
    read_features_block,
    thicknesses_a_shard,
    write_block,
)
from diffractory.errors import RunError
from diffractory.patterns.radial_basis import radial_basis_series
from diffractory.specs import RadialBasisSpec, sha256_of
from diffractory.storage import atomic_path, write_atomic


@dataclass(frozen=True)
class FeaturePlan:
    """Which features of which run.

    Parameters
    ----------
    run_plan_id : str
        Plan of the run whose peaks are the input.
    basis : RadialBasisSpec
    thicknesses : tuple of float
        Thicknesses used, a subset of the run's, in Å.
    code_version : str
        Of the program that computes them, without its last number: versions are not mixed.
    """

    run_plan_id: str
    basis: RadialBasisSpec
    thicknesses: tuple[float, ...]
    code_version: str = ".".join(__version__.split(".")[:2])

    @property
    def plan_id(self) -> str:
        """sha256 of the content."""
        return sha256_of(self.content())

    @property
    def stage(self) -> str:
        """Name of the stage in the run folder."""
        return f"features-{self.plan_id[:12]}"

    def content(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "run_plan_id": self.run_plan_id,
            "basis": self.basis.model_dump(mode="json"),
            "thicknesses": list(self.thicknesses),
            "code_version": self.code_version,
        }


def plan_features(
    run: Run, basis: RadialBasisSpec, thicknesses: tuple[float, ...] | None = None
) -> FeaturePlan:
    """Plan a feature set and make its empty store; doing it again changes nothing.

    Parameters
    ----------
    run : Run
    basis : RadialBasisSpec
    thicknesses : tuple of float, optional
        In Å; all of the run's by default.

    Raises
    ------
    RunError
        If a thickness was not simulated, or the run folder cannot be written.
    """
    available = run.plan.simulation.thicknesses
    # Sorted, none twice: the same thicknesses are the same feature set, however they were named.
    wanted = available if thicknesses is None else tuple(sorted({float(t) for t in thicknesses}))
    missing = [t for t in wanted if t not in available]
    if missing or not wanted:
        raise RunError(
            f"{run.path} holds no patterns at {missing} Å",
            f"it was simulated at {list(available)} Å",
            "Choose among these, or plan another run",
        )
    plan = FeaturePlan(run.plan.plan_id, basis, wanted)
    plan_file = run.path / f"{plan.stage}.json"
    if plan_file.exists():
        return plan
    try:
        # Made aside and renamed: of two commands at once, the second finds the first one's store.
        store = run.path / f"{plan.stage}.zarr"
        if not store.exists():
            with atomic_path(store) as made:
                create_feature_store(made, run.plan, len(wanted), basis.n_features, plan.plan_id)
        write_atomic(plan_file, json.dumps({"plan_id": plan.plan_id, **plan.content()}, indent=1))
    except OSError as error:
        raise RunError(
            f"a feature set cannot be made in {run.path} ({error.strerror or error})",
            fix="Make room on the disk, or make it writable, and run the same command again",
        ) from None
    return plan


def planned_features(run: Run) -> list[FeaturePlan]:
    """Return the feature sets planned in a run folder, by name.

    Raises
    ------
    RunError
        If the plan of one is damaged.
    """
    plans = []
    for path in sorted(run.path.glob("features-*.json")):
        try:
            content = json.loads(path.read_text())
            basis = RadialBasisSpec(**content["basis"])
            thicknesses = tuple(content["thicknesses"])
            plan = FeaturePlan(content["run_plan_id"], basis, thicknesses, content["code_version"])
            intact = plan.plan_id == content["plan_id"] and plan.run_plan_id == run.plan.plan_id
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise RunError(
                f"{path} is damaged or belongs to another run",
                fix=f"Remove it and run `diffractory features {run.path}` again",
            )
        plans.append(plan)
    return plans


def find_features(run: Run, basis: RadialBasisSpec, thickness: float) -> FeaturePlan:
    """Return a finished feature set of a run that holds a thickness.

    Raises
    ------
    RunError
        If there is none.
    """
    for plan in planned_features(run):
        finished = len(run.done(plan.stage, plan.plan_id)) == len(run.plan.partitions)
        if plan.basis == basis and thickness in plan.thicknesses and finished:
            return plan
    raise RunError(
        f"{run.path} has no finished features at {thickness} Å",
        f"it was simulated at {list(run.plan.simulation.thicknesses)} Å",
        f"Run `diffractory features {run.path}` first, or choose a thickness that was simulated",
    )


def features_partition(run_path: Path | str, plan: FeaturePlan, partition: int) -> Record:
    """Compute the features of one partition, write its shards, then commit its record.

    As many thicknesses at a time as one shard holds, so that memory does not grow with their number.

    Raises
    ------
    RunError
        If the partition is not simulated, damaged, or cannot be written.
    """
    run = Run.open(run_path)
    started, processor_started = time.perf_counter(), time.process_time()
    columns = [run.plan.simulation.thicknesses.index(t) for t in plan.thicknesses]
    peaks = read_partition(run, partition, columns=columns)
    store = f"{plan.stage}.zarr"
    together = thicknesses_a_shard(run.path / store)
    shards: dict[str, ShardSum] = {}
    for number, first in enumerate(range(0, len(columns), together)):
        some = peaks.intensity[:, first : first + together]
        features = radial_basis_series(peaks.q, some, peaks.offsets, peaks.offsets[:-1], plan.basis)
        shards |= write_block(run.path, store, partition, {"features": features}, number)
    record = Record(
        plan.plan_id,
        plan.stage,
        partition,
        (1,) * len(peaks.counts),
        shards,
        __version__,
        platform.node(),
        round(time.perf_counter() - started, 3),
        round(time.process_time() - processor_started, 3),
    )
    record.write(run.record_path(plan.stage, partition))
    return record


def read_features(run: Run, plan: FeaturePlan, thickness: float) -> NDArray[np.float32]:
    """Read the features of all items at one thickness.

    Returns
    -------
    ndarray of shape (n_items, n_features), float32

    Raises
    ------
    RunError
        If a partition is not done or damaged, or the thickness is not in the set.
    """
    if thickness not in plan.thicknesses:
        raise RunError(
            f"the feature set of {run.path} holds {list(plan.thicknesses)} Å, not {thickness} Å",
            fix="Run `diffractory features RUN` again with this thickness",
        )
    column = plan.thicknesses.index(thickness)
    features = np.empty((run.plan.n_items, plan.basis.n_features), dtype=np.float32)
    for index, partition in enumerate(run.plan.partitions):
        record = run.record(plan.stage, index, plan.plan_id)
        for name, expected in record.shards.items():
            if ShardSum.of_file(run.path / name) != expected:
                raise RunError(
                    f"feature shard {run.path / name} does not match its checksum",
                    "a bit changed after writing",
                    f"Remove {run.record_path(plan.stage, index)} and run `diffractory features {run.path}`",
                )
        rows = read_features_block(
            run.path / f"{plan.stage}.zarr", index, partition.stop - partition.first, column
        )
        features[partition.first : partition.stop] = rows
    return features
