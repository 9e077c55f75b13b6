"""Trains a preset on the features of one run or several, from a matrix on disk that workers map."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from diffractory import __version__
from diffractory.dataset.features import FeaturePlan, find_features, iterate_features
from diffractory.dataset.run import Run
from diffractory.errors import ModelError
from diffractory.learning.boosted_hierarchy import BoostedHierarchy, boosting_memory
from diffractory.learning.growing import training_memory
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.protocol_features import targets_of
from diffractory.learning.provenance import library_versions
from diffractory.learning.split import split_materials
from diffractory.learning.system_hierarchy import SystemHierarchy
from diffractory.patterns.feature_sets import number_of_features
from diffractory.specs import (
    BoostingSpec,
    FeatureSpec,
    ForestSpec,
    InvariantSpec,
    LabProtocolSpec,
    OrientationSpec,
    RadialBasisSpec,
    TrainingSpec,
)
from diffractory.units import human_bytes

#: Noise of training patterns is drawn with another seed than any test uses by default.
TRAINING_NOISE_SEED = 1
#: What a laboratory does to training patterns. Wider than the lab protocol of tests: positions of a real
#: scan scatter by 0.011 Å⁻¹, nearly three times as much, and a calibration may be off by more than 1 %.
TRAINING_NOISE = LabProtocolSpec(
    position_sigma=0.0057, position_spread=2.8, scale_error=0.02, ellipticity=0.02
)


@dataclass(frozen=True)
class Subset:
    """A part of the training patterns, for learning curves.

    Parameters
    ----------
    materials : float
        Share of the training materials of each crystal system, 0 … 1.
    orientations : int or None
        Orientations of each material in each run, drawn at random (the plan's first ones lie along
        symmetry axes); None = all.
    """

    materials: float = 1.0
    orientations: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.materials <= 1.0 or (self.orientations is not None and self.orientations < 1):
            raise ModelError(f"{self} is no part of the training patterns")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training patterns, sorted so that each model's rows follow each other.

    Parameters
    ----------
    features : ndarray of shape (n, n_features), float32
        Mapped from a file.
    crystals, orientations : ndarray of shape (n,), int64
        Whose pattern each row is; orientations of further runs are counted on.
    targets : Targets
    calibration : ndarray of shape (n,), bool
        Patterns of materials that probabilities are calibrated on.
    """

    features: NDArray[np.float32]
    crystals: NDArray[np.int64]
    orientations: NDArray[np.int64]
    targets: Targets
    calibration: NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureRequest:
    """One feature set that a preset is trained on.

    Parameters
    ----------
    features : RadialBasisSpec or InvariantSpec
    thickness : float
        In Å; of no effect on lab patterns, whose thickness is drawn.
    lab : LabProtocolSpec or None
        Patterns as a laboratory sees them instead of as simulated.
    seed : int
        Of the laboratory's noise.
    """

    features: FeatureSpec
    thickness: float
    lab: LabProtocolSpec | None = None
    seed: int = 0


def requested_features(run: Run, spec: TrainingSpec) -> list[FeatureRequest]:
    """Return what a preset is trained on: the one place that says so.

    Parameters
    ----------
    run : Run
        Whose patterns are learned from: its beam energy goes into the features.
    spec : ForestSpec or BoostingSpec
        The preset's settings.

    Returns
    -------
    list of FeatureRequest
        Feature sets, each with thickness and noise of its patterns.
    """
    if isinstance(spec, ForestSpec):
        return [FeatureRequest(RadialBasisSpec(), spec.thickness)]
    features = InvariantSpec(energy_ev=run.plan.simulation.energy_ev)
    # Turned too where there is no noise: no model of this preset is to see the plan's frames.
    return [
        FeatureRequest(features, spec.thickness, LabProtocolSpec.turned(spec.thickness), TRAINING_NOISE_SEED),
        FeatureRequest(features, spec.thickness, TRAINING_NOISE, TRAINING_NOISE_SEED),
    ]


def feature_sets_of(run: Run, spec: TrainingSpec) -> list[tuple[FeaturePlan, float | None]]:
    """Return the finished feature sets that a preset is trained on, each with the thickness to read.

    Raises
    ------
    RunError
        If one is missing.
    """
    return [
        (
            find_features(run, wanted.features, wanted.thickness, lab=wanted.lab, seed=wanted.seed),
            wanted.thickness if wanted.lab is None else None,
        )
        for wanted in requested_features(run, spec)
    ]


def split_of(run: Run, spec: TrainingSpec) -> NDArray[np.bool_]:
    """Return which materials of a run are held out from training, of shape (n_crystals,)."""
    systems = run.catalogue.table["crystal_system"].tolist()
    return split_materials(run.catalogue.ids, systems, spec.test_fraction, spec.seed)


def train_on_run(
    run: Run,
    spec: TrainingSpec,
    *,
    more_runs: Sequence[Run] = (),
    subset: Subset = Subset(),
    n_jobs: int | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> tuple[SystemHierarchy, dict[str, Any]]:
    """Train a preset on the training materials of a run, under whatever joblib backend is active.

    Parameters
    ----------
    run : Run
        With the preset's features computed.
    spec : ForestSpec or BoostingSpec
    more_runs : sequence of Run
        Of the same crystals along other zone axes, simulated alike: learned from together with the first.
    subset : Subset
    n_jobs : int, optional
        Tasks or threads at the same time.
    progress : callable, optional
        Told what is done next.

    Returns
    -------
    model
    provenance : dict
        Plain JSON data to save with it.

    Raises
    ------
    RunError
        If features are missing or damaged.
    ModelError
        If there is too little to learn from, or the runs do not belong together.
    """
    _check_belong_together(run, more_runs)
    sets = feature_sets_of(run, spec)
    progress("collecting features")
    with training_set(run, spec, sets, subset, more_runs) as training:
        model: SystemHierarchy
        if isinstance(spec, ForestSpec):
            workers = effective_n_jobs(n_jobs)
            rows, columns = training.features.shape
            needed = training_memory(rows, columns, len("abc"), workers)
            progress(f"up to {human_bytes(needed)} of memory on a node with {workers} workers")
            model = SymmetryHierarchy(spec, n_jobs).fit(
                training.features, training.targets, training.crystals, progress
            )
        else:
            features = sets[0][0].features
            assert isinstance(features, InvariantSpec)
            rows, columns = training.features.shape
            needed = boosting_memory(rows, columns, len(np.unique(training.targets.system)), spec)
            progress(f"up to {human_bytes(needed)} of memory")
            model = BoostedHierarchy(spec, features, n_jobs)
            model.fit(
                training.features, training.targets, training.crystals, training.calibration,
                progress,
            )  # fmt: skip
        crystals = np.unique(training.crystals)
        # Triclinic patterns may be there and not be learned.
        patterns = int(np.isin(training.targets.system, model.systems_).sum())
        calibrating = len(np.unique(training.crystals[training.calibration]))
    provenance = _provenance(run, spec, sets, crystals, patterns) | {"calibration_materials": calibrating}
    if more_runs:
        provenance["more_runs"] = [
            {
                "plan_id": other.plan.plan_id,
                "orientations": other.plan.orientations.model_dump(mode="json"),
                "thicknesses": list(other.plan.simulation.thicknesses),
            }
            for other in more_runs
        ]
    return model, provenance


@contextmanager
def training_set(
    run: Run,
    spec: TrainingSpec,
    sets: Sequence[tuple[FeaturePlan, float | None]],
    subset: Subset = Subset(),
    more_runs: Sequence[Run] = (),
) -> Iterator[TrainingSet]:
    """Collect the training patterns in a file beside the run, which is removed afterwards.

    Workers on other nodes must see it, as they see the run. Further runs must belong to it, as
    :func:`train_on_run` asks of them.

    Raises
    ------
    RunError
        If features are missing or damaged.
    ModelError
        If there is no room for the file.
    """
    sources = [(run, sets), *((other, feature_sets_of(other, spec)) for other in more_runs)]
    n_sets = len(sets)
    calibrating = _calibrating(run, spec)
    chosen = _chosen_crystals(run, spec, subset, calibrating)
    systems = targets_of(run.catalogue, np.arange(run.plan.n_crystals)).system
    # Sorted by what a model takes: calibration apart, then by crystal system.
    order = chosen[np.lexsort((chosen, systems[chosen], calibrating[chosen]))]
    used = [_chosen_orientations(source, spec, order, subset.orientations) for source, _ in sources]
    first_of = np.cumsum([0, *(source.plan.orientations.count for source, _ in sources)])
    numbered = np.concatenate([first + part for first, part in zip(first_of[:-1], used, strict=True)], axis=1)
    per_crystal = numbered.shape[1]
    crystals, orientations = np.repeat(order, per_crystal * n_sets), np.repeat(numbered.ravel(), n_sets)
    with _scratch_matrix(run.path, (len(crystals), number_of_features(sets[0][0].features))) as matrix:
        # Where the orientations of all runs, one after the other, have their rows.
        rows_of_items = np.full((run.plan.n_crystals, first_of[-1]), -1, dtype=np.int64)
        rows_of_items[order[:, None], numbered] = np.arange(numbered.size).reshape(numbered.shape) * n_sets
        for (source, its_sets), (begin, end) in zip(sources, itertools.pairwise(first_of), strict=True):
            places = rows_of_items[:, begin:end].ravel()
            for number, (plan, thickness) in enumerate(its_sets):
                for first, rows in iterate_features(source, plan, thickness):
                    place = places[first : first + len(rows)]
                    matrix[place[place >= 0] + number] = rows[place >= 0]
        matrix.flush()
        targets = targets_of(run.catalogue, crystals)
        yield TrainingSet(matrix, crystals, orientations, targets, calibrating[crystals])


def _check_belong_together(run: Run, more_runs: Sequence[Run]) -> None:
    """Refuse runs that would mix training with held-out materials, are not alike, or repeat each other."""
    settings, frames = run.plan.simulation.model_dump(exclude={"thicknesses"}), run.plan.orientations.in_plane
    runs = [run]
    for other in more_runs:
        if other.plan.catalogue_hash != run.plan.catalogue_hash:
            raise ModelError(
                f"{other.path} holds other crystals than {run.path}",
                "the same materials are held out from all runs, which needs the same catalogue",
                "Plan both runs with the same --catalogue",
            )
        simulated = other.plan.simulation.model_dump(exclude={"thicknesses"})
        if simulated != settings or other.plan.orientations.in_plane != frames:
            raise ModelError(
                f"{other.path} was made with other settings than {run.path}",
                "a model is asked about one kind of pattern",
                "Plan both runs alike but for --axes, --orientations, --seed and --thickness",
            )
        if any(_share_axes(other.plan.orientations, each.plan.orientations) for each in runs):
            raise ModelError(
                f"{other.path} has zone axes of another run that is given",
                "their patterns would count twice",
                "Plan it with another number of --orientations (even axes) or another --seed (random axes)",
            )
        runs.append(other)


def _share_axes(one: OrientationSpec, other: OrientationSpec) -> bool:
    """Tell whether two runs of the same crystals have zone axes in common."""
    if one.axes != other.axes:
        return False
    # Fewer random axes of a seed are the first of more.
    return one.seed == other.seed if one.axes == "random" else one.count == other.count


def _chosen_crystals(
    run: Run, spec: TrainingSpec, subset: Subset, calibrating: NDArray[np.bool_]
) -> NDArray[np.int64]:
    training = np.flatnonzero(~split_of(run, spec))
    if subset.materials >= 1.0:
        return training
    ids, systems = run.catalogue.ids, run.catalogue.table["crystal_system"].to_numpy()
    kept = []
    for system in np.unique(systems[training]):
        for calibrates, fewest in ((False, 2), (True, 1)):
            members = [
                int(index)
                for index in training
                if systems[index] == system and calibrating[index] == calibrates
            ]
            # By hash: a smaller share is a part of a larger one.
            members.sort(key=lambda index: _hash(f"subset/{spec.seed}/{ids[index]}"))
            kept += members[: max(round(subset.materials * len(members)), min(fewest, len(members)))]
    return np.array(sorted(kept), dtype=np.int64)


def _chosen_orientations(
    run: Run, spec: TrainingSpec, crystals: NDArray[np.int64], number: int | None
) -> NDArray[np.int64]:
    """Return the orientations used of each crystal, sorted; fewer are a part of more, None is all."""
    count = run.plan.orientations.count
    if number is None or number >= count:
        return np.tile(np.arange(count), (len(crystals), 1))
    seeds = [
        int(_hash(f"orientations/{spec.seed}/{run.catalogue.ids[index]}")[:16], 16) for index in crystals
    ]
    drawn = [np.random.default_rng(seed).permutation(count)[:number] for seed in seeds]
    return np.sort(np.array(drawn, dtype=np.int64).reshape(len(crystals), number), axis=1)


def _calibrating(run: Run, spec: TrainingSpec) -> NDArray[np.bool_]:
    """Return which training materials are left out of learning, to calibrate probabilities with."""
    marked = np.zeros(run.plan.n_crystals, dtype=bool)
    if not isinstance(spec, BoostingSpec):
        return marked
    training = np.flatnonzero(~split_of(run, spec))
    ids = run.catalogue.ids
    limit = int(spec.calibration_fraction * 2**32)
    for index in training:
        marked[index] = int(_hash(f"calibration/{spec.seed}/{ids[index]}")[:8], 16) < limit
    systems = run.catalogue.table["crystal_system"].to_numpy()
    for system in np.unique(systems[training]):
        members = training[systems[training] == system]
        # Two materials at least are left to learn a crystal system from.
        if np.sum(~marked[members]) < 2:
            marked[members] = False
    return marked


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _scratch_matrix(folder: Path, shape: tuple[int, int]) -> Iterator[np.memmap[Any, np.dtype[np.float32]]]:
    try:
        handle, name = tempfile.mkstemp(prefix=".training-", suffix=".npy", dir=folder)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written ({error.strerror or error})",
            "all features lie in one file beside the run while models are trained",
            "Make the folder writable, or copy the run to where you may write",
        ) from None
    os.close(handle)
    path = Path(name)
    try:
        room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        needed = 4 * shape[0] * shape[1]
        if needed > room:
            raise ModelError(
                f"the training features take {needed:,} bytes, {folder} has room for {room:,}",
                "all features lie in one file while models are trained",
                "Make room, or train on fewer runs or on one with fewer orientations",
            )
        yield np.lib.format.open_memmap(path, "w+", np.float32, shape)  # type: ignore[no-untyped-call]
    finally:
        with suppress(OSError):
            path.unlink()


def _provenance(
    run: Run,
    spec: TrainingSpec,
    sets: Sequence[tuple[FeaturePlan, float | None]],
    crystals: NDArray[np.int64],
    patterns: int,
) -> dict[str, Any]:
    ids = run.catalogue.ids
    return {
        "diffractory": __version__,
        "versions": library_versions(*(["lightgbm"] if isinstance(spec, BoostingSpec) else [])),
        "plan_id": run.plan.plan_id,
        "catalogue_hash": run.plan.catalogue_hash,
        "features": sets[0][0].features.model_dump(mode="json"),
        "patterns": [
            {"thickness": thickness, "lab": None if plan.lab is None else plan.lab.model_dump(mode="json")}
            for plan, thickness in sets
        ],
        "simulation": run.plan.simulation.model_dump(mode="json"),
        "orientations": run.plan.orientations.model_dump(mode="json"),
        "training": spec.model_dump(mode="json"),
        "training_patterns": patterns,
        "training_materials": [ids[index] for index in crystals],
        "held_out_materials": int(split_of(run, spec).sum()),
    }
