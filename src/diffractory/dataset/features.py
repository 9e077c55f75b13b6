"""Feature sets: fixed-shape arrays computed from the peaks of a run, partition by partition."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory import __version__
from diffractory.dataset.partition import read_partition
from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import Run, minor_version
from diffractory.dataset.store import (
    create_feature_store,
    read_features_block,
    thicknesses_a_shard,
    write_block,
)
from diffractory.errors import RunError, SpecError
from diffractory.patterns.feature_sets import compute_features, number_of_features
from diffractory.patterns.radial_basis import radial_basis_series
from diffractory.specs import FeatureSpec, LabProtocolSpec, RadialBasisSpec, feature_spec, sha256_of
from diffractory.storage import atomic_path, write_atomic


@dataclass(frozen=True)
class FeaturePlan:
    """Which features of which run.

    Parameters
    ----------
    run_plan_id : str
        Plan of the run whose peaks are the input.
    features : RadialBasisSpec or InvariantSpec
    thicknesses : tuple of float
        Thicknesses used, a subset of the run's, in Å; with ``lab``, none.
    lab : LabProtocolSpec or None
        If given, each item has one pattern, as a laboratory sees it, at a thickness drawn for it.
    seed : int
        Of the laboratory's noise.
    code_version : str
        Of the program that computes them, without its last number: versions are not mixed.
    """

    run_plan_id: str
    features: FeatureSpec
    thicknesses: tuple[float, ...]
    lab: LabProtocolSpec | None = None
    seed: int = 0
    code_version: str = minor_version(__version__)

    @property
    def plan_id(self) -> str:
        """sha256 of the content."""
        return sha256_of(self.content())

    @property
    def stage(self) -> str:
        """Name of the stage in the run folder."""
        return f"features-{self.plan_id[:12]}"

    @property
    def store(self) -> str:
        """Name of its store in the run folder."""
        return f"{self.stage}.zarr"

    @property
    def n_columns(self) -> int:
        """Patterns of each item: one a thickness, or the one of the laboratory."""
        return len(self.thicknesses) if self.lab is None else 1

    def content(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "run_plan_id": self.run_plan_id,
            "features": self.features.model_dump(mode="json"),
            "thicknesses": list(self.thicknesses),
            "lab": None if self.lab is None else self.lab.model_dump(mode="json"),
            "seed": self.seed,
            "code_version": self.code_version,
        }


def plan_features(
    run: Run,
    features: FeatureSpec,
    thicknesses: tuple[float, ...] | None = None,
    *,
    lab: LabProtocolSpec | None = None,
    seed: int = 0,
) -> FeaturePlan:
    """Plan a feature set and make its empty store; doing it again changes nothing.

    Parameters
    ----------
    run : Run
    features : RadialBasisSpec or InvariantSpec
    thicknesses : tuple of float, optional
        In Å; all of the run's by default. Of no effect with ``lab``.
    lab : LabProtocolSpec, optional
        Patterns as a laboratory sees them instead of as simulated.
    seed : int
        Of the laboratory's noise.

    Returns
    -------
    FeaturePlan

    Raises
    ------
    RunError
        If a thickness was not simulated, or the run folder cannot be written.
    """
    available = run.plan.simulation.thicknesses
    # Sorted, none twice: the same thicknesses are the same feature set, however they were named.
    wanted = available if thicknesses is None else tuple(sorted({float(t) for t in thicknesses}))
    missing = [t for t in wanted if t not in available]
    if lab is not None:
        wanted, missing = (), []
    elif missing or not wanted:
        raise RunError(
            f"{run.path} holds no patterns at {missing} Å",
            f"it was simulated at {list(available)} Å",
            "Choose among these, or plan another run",
        )
    plan = FeaturePlan(run.plan.plan_id, features, wanted, lab, seed if lab is not None else 0)
    plan_file, store = run.path / f"{plan.stage}.json", run.path / plan.store
    if plan_file.exists() and store.exists():
        return plan
    try:
        # Made aside and renamed: of two commands at once, the second finds the first one's store.
        if not store.exists():
            with atomic_path(store) as made:
                n_features = number_of_features(features)
                create_feature_store(made, run.plan, plan.n_columns, n_features, plan.plan_id)
        write_atomic(plan_file, json.dumps({"plan_id": plan.plan_id, **plan.content()}, indent=1))
    except OSError as error:
        raise RunError(
            f"a feature set cannot be made in {run.path} ({error.strerror or error})",
            fix="Make room on the disk, or make it writable, and run the same command again",
        ) from None
    return plan


def planned_features(run: Run) -> list[FeaturePlan]:
    """Return the feature sets of this version that are planned in a run folder, by name.

    Those of other versions are passed over: versions are not mixed, and their settings may be others.

    Raises
    ------
    RunError
        If the plan of one is damaged.
    """
    plans = []
    for path in sorted(run.path.glob("features-*.json")):
        try:
            content = json.loads(path.read_text())
            if content["code_version"] != minor_version(__version__):
                continue
            lab = None if content["lab"] is None else LabProtocolSpec(**content["lab"])
            plan = FeaturePlan(
                content["run_plan_id"],
                feature_spec(content["features"]),
                tuple(content["thicknesses"]),
                lab,
                content["seed"],
                content["code_version"],
            )
            intact = plan.plan_id == content["plan_id"] and plan.run_plan_id == run.plan.plan_id
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SpecError):
            intact = False
        if not intact:
            raise RunError(
                f"{path} is damaged, or of another run or version",
                fix=f"Remove it and run `diffractory features {run.path}` again",
            )
        plans.append(plan)
    return plans


def find_features(
    run: Run,
    features: FeatureSpec,
    thickness: float,
    *,
    lab: LabProtocolSpec | None = None,
    seed: int = 0,
) -> FeaturePlan:
    """Return a finished feature set of a run: one that holds a thickness, or the laboratory's patterns.

    Raises
    ------
    RunError
        If there is none.
    """
    damaged = ""
    for plan in planned_features(run):
        same = thickness in plan.thicknesses if lab is None else (plan.lab, plan.seed) == (lab, seed)
        if plan.features != features or not same:
            continue
        if len(run.done(plan.stage, plan.plan_id)) == len(run.plan.partitions):
            return plan
        damaged = damaged or _damage(run, plan)
    preset = "" if isinstance(features, RadialBasisSpec) else " --preset robust"
    command = f"diffractory features {run.path}{preset} --thickness {thickness:g}"
    only = lab is None or set(lab.thickness_range) == {thickness}
    raise RunError(
        f"{run.path} has no finished features " + (f"at {thickness} Å" if only else "of lab patterns"),
        damaged or f"it was simulated at {list(run.plan.simulation.thicknesses)} Å",
        f"Run `{command}` first, or choose a thickness that was simulated",
    )


def _damage(run: Run, plan: FeaturePlan) -> str:
    """Say what is wrong with the first partition that was finished once and does not count as such."""
    done = run.done(plan.stage, plan.plan_id)
    for partition in range(len(run.plan.partitions)):
        if partition not in done and run.record_path(plan.stage, partition).exists():
            try:
                run.record(plan.stage, partition, plan.plan_id)
            except RunError as error:
                return error.what
    return ""


def features_partition(run_path: Path | str, plan: FeaturePlan, partition: int) -> Record:
    """Compute the features of one partition, write its shards, then commit its record.

    As many thicknesses at a time as one shard holds, so that memory does not grow with their number.

    Parameters
    ----------
    run_path : Path or str
        Run folder.
    plan : FeaturePlan
    partition : int

    Returns
    -------
    Record
        As it is on disk.

    Raises
    ------
    RunError
        If the partition is not simulated, damaged, or cannot be written, there is none such, or the set is
        of another version of this program.
    """
    run = Run.open(run_path)
    run.check_partition(partition)
    if plan.code_version != minor_version(__version__):
        raise RunError(
            f"the feature set was planned with diffractory {plan.code_version}, this is {__version__}",
            "features of two versions must not be mixed in one set",
            f"Run `diffractory features {run.path}` again",
        )
    started, processor_started = time.perf_counter(), time.process_time()
    shards: dict[str, ShardSum] = {}
    for number, features in enumerate(_columns_of_shards(run, plan, partition)):
        shards |= write_block(run.path, plan.store, partition, {"features": features}, number)
    chosen = run.plan.partitions[partition]
    record = Record(
        plan.plan_id,
        plan.stage,
        partition,
        (1,) * (chosen.stop - chosen.first),
        shards,
        __version__,
        platform.node(),
        round(time.perf_counter() - started, 3),
        round(time.process_time() - processor_started, 3),
    )
    record.write(run.record_path(plan.stage, partition))
    return record


def _columns_of_shards(run: Run, plan: FeaturePlan, partition: int) -> Iterator[NDArray[np.float32]]:
    """Yield the features of as many columns as a shard holds, of shape (n_items, n, n_features)."""
    if plan.lab is not None:
        patterns = protocol_patterns(run, partition, 0.0, plan.lab, plan.seed)
        yield compute_features(patterns.peaks, plan.features)[:, None, :]
        return
    columns = [run.plan.simulation.thicknesses.index(t) for t in plan.thicknesses]
    peaks = read_partition(run, partition, columns=columns)
    together = thicknesses_a_shard(run.path / plan.store)
    for first in range(0, len(columns), together):
        if isinstance(plan.features, RadialBasisSpec):
            some = peaks.intensity[:, first : first + together]
            # Many thicknesses at a time share the angles of their peaks.
            yield radial_basis_series(peaks.q, some, peaks.offsets, peaks.offsets[:-1], plan.features)
        else:
            chosen = range(first, min(first + together, len(columns)))
            parts = [compute_features(peaks.table(column), plan.features) for column in chosen]
            yield np.stack(parts, axis=1)


def read_features(run: Run, plan: FeaturePlan, thickness: float | None = None) -> NDArray[np.float32]:
    """Read the features of all items at one thickness, or of the laboratory's patterns.

    Parameters
    ----------
    run : Run
    plan : FeaturePlan
        Of a finished set.
    thickness : float, optional
        In Å, one of the set's; the first where not given.

    Returns
    -------
    ndarray of shape (n_items, n_features), float32

    Raises
    ------
    RunError
        If a partition is not done or damaged, or the thickness is not in the set.
    """
    features = np.empty((run.plan.n_items, number_of_features(plan.features)), dtype=np.float32)
    for first, rows in iterate_features(run, plan, thickness):
        features[first : first + len(rows)] = rows
    return features


def iterate_features(
    run: Run, plan: FeaturePlan, thickness: float | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first item of each partition and the features of its items, (n, n_features).

    Parameters
    ----------
    run : Run
    plan : FeaturePlan
        Of a finished set.
    thickness : float, optional
        In Å, one of the set's; the first where not given.

    Yields
    ------
    first : int
        First item of a partition.
    features : ndarray of shape (n, n_features), float32
        Of its items.

    Raises
    ------
    RunError
        If a partition is not done or damaged, or the thickness is not in the set.
    """
    if plan.lab is None and thickness is not None and thickness not in plan.thicknesses:
        raise RunError(
            f"the feature set of {run.path} holds {list(plan.thicknesses)} Å, not {thickness} Å",
            fix="Run `diffractory features RUN` again with this thickness",
        )
    column = 0 if thickness is None or plan.lab is not None else plan.thicknesses.index(thickness)
    for index, partition in enumerate(run.plan.partitions):
        record = run.record(plan.stage, index, plan.plan_id)
        for name, expected in record.shards.items():
            if ShardSum.of_file(run.path / name) != expected:
                raise RunError(
                    f"feature shard {run.path / name} does not match its checksum",
                    "a bit changed after writing",
                    f"Remove {run.record_path(plan.stage, index)} and run `diffractory features {run.path}`",
                )
        n_rows = partition.stop - partition.first
        yield partition.first, read_features_block(run.path / plan.store, index, n_rows, column)
