from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.dataset.features import features_partition, plan_features, read_features
from diffractory.dataset.run import Run
from diffractory.errors import ModelError, RunError
from diffractory.learning.artefact import save_model
from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.calibration import Calibration
from diffractory.learning.hierarchy import SymmetryHierarchy
from diffractory.learning.matrices import rows_of
from diffractory.learning.protocol_features import targets_of, tilt_from_zone_axes
from diffractory.learning.training import (
    TRAINING_NOISE,
    TRAINING_NOISE_SEED,
    Subset,
    feature_sets_of,
    split_of,
    train_on_run,
    training_set,
)
from diffractory.specs import (
    BoostingSpec,
    ForestSpec,
    InvariantSpec,
    LabProtocolSpec,
    OrientationSpec,
    RadialBasisSpec,
    SimulationSpec,
)
from small_runs import finish, small_plan, zoo_catalogue
from tree_checks import assert_same_trees
from zoo import random_rotation

NAMES = (
    "cubic-F-c-copper", "hexagonal-P-a-ZnO", "cubic-I-c-iron", "triclinic-P-c-invented",
    "tetragonal-P-c-rutile", "cubic-P-c-CsCl", "cubic-P-a-FeSi", "tetragonal-P-a-BaTiO3",
    "hexagonal-P-c-magnesium", "cubic-F-a-GaAs", "tetragonal-I-c-tin", "triclinic-P-a-invented",
)  # fmt: skip
COUNT = 4
FORESTS = ForestSpec(system_trees=4, group_trees=3, lattice_trees=3, with_triclinic=True)
BOOSTING = BoostingSpec(system_rounds=3, group_rounds=2, lattice_rounds=2, calibration_fraction=0.4)
PRESETS = [FORESTS, BOOSTING]


SIMULATION = SimulationSpec(q_max=0.9, thicknesses=(100.0, 200.0))


def finished_run(path: Path, orientations: OrientationSpec, simulation: SimulationSpec = SIMULATION) -> Run:
    """A finished run with the features of both presets."""
    catalogue = zoo_catalogue(NAMES)
    plan = small_plan(catalogue, 3, orientations, simulation)
    run = finish(Run.create(path, plan, catalogue))
    for features, lab in (
        (RadialBasisSpec(), None),
        (InvariantSpec(), LabProtocolSpec.turned(200.0)),
        (InvariantSpec(), TRAINING_NOISE),
    ):
        planned = plan_features(run, features, lab=lab, seed=TRAINING_NOISE_SEED)
        for partition in range(len(run.plan.partitions)):
            features_partition(run.path, planned, partition)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("training") / "run", OrientationSpec(count=COUNT))


@pytest.fixture(scope="module")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same crystals along other zone axes, one fewer of each."""
    orientations = OrientationSpec(count=COUNT - 1, axes="random")
    return finished_run(tmp_path_factory.mktemp("training") / "random", orientations)


def scratch(run: Run) -> list[Path]:
    return list(run.path.glob(".training-*"))


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
@pytest.mark.parametrize("subset", [Subset(), Subset(0.5, 3)], ids=["all", "part"])
def test_rows_are_the_stored_features_each_with_its_own_labels(run: Run, spec: Any, subset: Subset):
    sets = feature_sets_of(run, spec)
    stored = [read_features(run, plan, thickness) for plan, thickness in sets]
    with training_set(run, spec, sets, subset) as found:
        assert found.features.dtype == np.float32
        per_crystal = (subset.orientations or COUNT) * len(sets)
        crystals, counts = np.unique(found.crystals, return_counts=True)
        assert set(counts) == {per_crystal}
        assert (found.crystals.reshape(-1, per_crystal) == found.crystals[::per_crystal, None]).all()
        for row, crystal in enumerate(found.crystals):
            orientation, which = found.orientations[row], row % len(sets)
            np.testing.assert_array_equal(found.features[row], stored[which][crystal * COUNT + orientation])
        expected = targets_of(run.catalogue, found.crystals)
        for name in ("system", "space_group", "lattice"):
            np.testing.assert_array_equal(getattr(found.targets, name), getattr(expected, name))
        assert not split_of(run, spec)[crystals].any()
        if subset == Subset():
            assert crystals.tolist() == np.flatnonzero(~split_of(run, spec)).tolist()


def test_a_boosted_set_holds_clean_and_noisy_patterns(run: Run):
    (clean, none), (noisy, nor) = feature_sets_of(run, BOOSTING)
    assert none is nor is None
    assert (clean.lab, noisy.lab) == (LabProtocolSpec.turned(200.0), TRAINING_NOISE)
    assert clean.seed == noisy.seed == TRAINING_NOISE_SEED
    with training_set(run, BOOSTING, feature_sets_of(run, BOOSTING)) as found:
        assert len(found.features) == 2 * COUNT * np.sum(~split_of(run, BOOSTING))
        assert not np.array_equal(found.features[0::2], found.features[1::2])


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
def test_the_rows_of_each_model_follow_each_other(run: Run, spec: Any):
    with training_set(run, spec, feature_sets_of(run, spec)) as found:
        assert (np.diff(found.calibration.astype(int)) >= 0).all()
        learned = np.flatnonzero(~found.calibration)
        assert (np.diff(found.targets.system[learned]) >= 0).all()
        for system in np.unique(found.targets.system):
            rows = np.flatnonzero(~found.calibration & (found.targets.system == system))
            assert np.shares_memory(rows_of(found.features, rows), found.features)


def test_calibration_materials_are_apart_and_leave_two_of_each_system(run: Run):
    with training_set(run, BOOSTING, feature_sets_of(run, BOOSTING)) as found:
        held, learned = (np.unique(found.crystals[mask]) for mask in (found.calibration, ~found.calibration))
        assert len(held) > 0
        assert not set(held) & set(learned)
        systems = run.catalogue.table["crystal_system"].to_numpy()
        for system in np.unique(systems[held]):
            assert np.sum(systems[learned] == system) >= 2
    with training_set(run, FORESTS, feature_sets_of(run, FORESTS)) as found:
        assert not found.calibration.any()


def test_another_seed_holds_out_and_calibrates_on_other_materials(run: Run):
    seen = set()
    for seed in range(6):
        spec = BOOSTING.model_copy(update={"seed": seed})
        with training_set(run, spec, feature_sets_of(run, spec)) as found:
            held = tuple(np.flatnonzero(split_of(run, spec)))
            seen.add((held, tuple(np.unique(found.crystals[found.calibration]))))
            assert not set(held) & set(found.crystals.tolist())
    assert len(seen) > 3


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
def test_a_smaller_share_of_materials_is_part_of_a_larger_one(run: Run, spec: Any):
    sets, systems = feature_sets_of(run, spec), run.catalogue.table["crystal_system"].to_numpy()
    larger: set[int] = set(np.flatnonzero(~split_of(run, spec)))
    learned = set(systems[list(larger)])
    sizes = []
    for share in (1.0, 0.8, 0.6, 0.4, 0.01):
        with training_set(run, spec, sets, Subset(share)) as found:
            smaller = set(found.crystals.tolist())
        assert smaller <= larger
        assert set(systems[list(smaller)]) == learned
        larger = smaller
        sizes.append(len(smaller))
    assert sizes[0] > sizes[-1]


def test_materials_trained_on_in_a_part_are_trained_on_in_the_whole(run: Run):
    sets = feature_sets_of(run, BOOSTING)
    learned = []
    for share in (0.5, 1.0):
        with training_set(run, BOOSTING, sets, Subset(share)) as found:
            learned.append(set(found.crystals[~found.calibration].tolist()))
    assert learned[0] <= learned[1]


def test_fewer_orientations_are_part_of_more_and_differ_between_materials(run: Run):
    sets, before = feature_sets_of(run, BOOSTING), None
    for number in (1, 3, COUNT):
        with training_set(run, BOOSTING, sets, Subset(1.0, number)) as found:
            assert len(found.features) == 2 * number * np.sum(~split_of(run, BOOSTING))
            drawn = set(zip(found.crystals.tolist(), found.orientations.tolist(), strict=True))
            assert len(drawn) == len(found.features) // 2
        assert before is None or before < drawn
        if number == 1:
            assert len({orientation for _, orientation in drawn}) > 1
        before = drawn
    with training_set(run, BOOSTING, sets, Subset(1.0, 99)) as all_there_are:
        assert len(all_there_are.features) == len(found.features)


def test_the_scratch_file_lies_beside_the_run_while_it_is_needed(run: Run):
    with training_set(run, FORESTS, feature_sets_of(run, FORESTS)) as found:
        (path,) = scratch(run)
        np.testing.assert_array_equal(np.load(path), found.features)
    assert scratch(run) == []


def test_the_scratch_file_is_removed_after_an_error(run: Run):
    def fail() -> None:
        with training_set(run, FORESTS, feature_sets_of(run, FORESTS)) as found:
            found.features[0, 0] = len(scratch(run)) / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert scratch(run) == []


def test_the_scratch_file_is_removed_when_features_are_damaged(run: Run, tmp_path: Path):
    shutil.copytree(run.path, tmp_path / "copy")
    copy = Run.open(tmp_path / "copy")
    sets = feature_sets_of(copy, BOOSTING)
    shards = [path for path in (copy.path / f"{sets[1][0].stage}.zarr").rglob("c/**/*") if path.is_file()]
    shards[-1].write_bytes(shards[-1].read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="does not match its checksum"):
        train_on_run(copy, BOOSTING, n_jobs=1)
    assert scratch(copy) == []


def test_too_little_room_is_told_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class Room:
        f_bavail: int = 1
        f_frsize: int = 1000

    monkeypatch.setattr(os, "statvfs", lambda folder: Room())
    with pytest.raises(ModelError, match=r"training features take [\d,]+ bytes, .* has room for 1,000"):
        train_on_run(run, FORESTS, n_jobs=1)
    assert scratch(run) == []


def test_missing_features_say_what_to_run(run: Run):
    with pytest.raises(RunError, match=r"no finished features at 150\.0 Å.*--preset robust"):
        train_on_run(run, BOOSTING.model_copy(update={"thickness": 150.0}))
    with pytest.raises(RunError, match=r"no finished features at 150\.0 Å.*diffractory features"):
        train_on_run(run, FORESTS.model_copy(update={"thickness": 150.0}))


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
def test_held_out_materials_are_never_trained_on_and_provenance_says_so(run: Run, spec: Any):
    told: list[str] = []
    model, provenance = train_on_run(run, spec, n_jobs=1, progress=told.append)
    held = {run.catalogue.ids[index] for index in np.flatnonzero(split_of(run, spec))}
    used = set(provenance["training_materials"])
    assert used | held == set(run.catalogue.ids)
    assert not used & held
    assert provenance["held_out_materials"] == len(held) == len(NAMES) - len(used)
    assert provenance["training_patterns"] == COUNT * len(used) * len(provenance["patterns"])
    assert provenance["plan_id"] == run.plan.plan_id
    assert type(spec)(**provenance["training"]) == spec
    assert told
    assert isinstance(model, SymmetryHierarchy if spec is FORESTS else BoostedHierarchy)
    assert scratch(run) == []


def test_training_on_a_run_is_training_on_its_rows(run: Run):
    sets = feature_sets_of(run, BOOSTING)
    model, _ = train_on_run(run, BOOSTING, n_jobs=1)
    assert isinstance(model, BoostedHierarchy)
    with training_set(run, BOOSTING, sets) as found:
        rows = np.array(found.features)
        again = BoostedHierarchy(BOOSTING, InvariantSpec(), 1)
        again.fit(rows, found.targets, found.crystals, found.calibration)
        assert_same_trees(model.system_model_.trees_, again.system_model_.trees_)
        assert model.calibration_ == again.calibration_ != Calibration()
    forests, _ = train_on_run(run, FORESTS, n_jobs=1)
    with training_set(run, FORESTS, feature_sets_of(run, FORESTS)) as found:
        expected = SymmetryHierarchy(FORESTS, 1).fit(np.array(found.features), found.targets, found.crystals)
    assert isinstance(forests, SymmetryHierarchy)
    assert_same_trees(forests.system_forest_.trees_, expected.system_forest_.trees_)
    for code, forest in expected.lattice_forests_.items():
        assert_same_trees(forests.lattice_forests_[code].trees_, forest.trees_)


def zone_rotation(direction: np.ndarray, seed: int) -> np.ndarray:
    """An orientation matrix whose beam is along a direction of the crystal's frame."""
    beam = direction / np.linalg.norm(direction)
    first = np.cross(beam, random_rotation(seed)[0])
    first /= np.linalg.norm(first)
    return np.column_stack([first, np.cross(beam, first), beam])


def test_the_tilt_from_a_low_index_zone_axis_is_zero_along_it(run: Run):
    lattices = [np.array(lattice).reshape(3, 3) for lattice in run.catalogue.table["lattice"].map(np.stack)]
    items = np.arange(len(NAMES)) * COUNT + np.arange(len(NAMES)) % COUNT
    for axis in ([0, 0, 1], [1, 1, 0], [1, -2, 2], [-2, 0, -1]):
        beams = [np.array(axis) @ lattice for lattice in lattices]
        rotation = np.array([zone_rotation(beam, index) for index, beam in enumerate(beams)])
        np.testing.assert_allclose(tilt_from_zone_axes(run, items, rotation), 0.0, atol=1e-5)
        np.testing.assert_allclose(tilt_from_zone_axes(run, items, rotation * [1, -1, -1]), 0.0, atol=1e-5)
        tilt = np.radians(1.5)
        tilted = np.cos(tilt) * rotation[:, :, 2] + np.sin(tilt) * rotation[:, :, 0]
        off = np.array([zone_rotation(beam, index) for index, beam in enumerate(tilted)])
        np.testing.assert_allclose(tilt_from_zone_axes(run, items, off), 1.5, atol=1e-5)


def test_the_tilt_of_a_cubic_crystal_by_hand(run: Run):
    item = np.array([NAMES.index("cubic-F-c-copper") * COUNT + 1])
    # [1 0 3] lies between [0 0 1] and [1 0 2].
    rotation = zone_rotation(np.array([1.0, 0.0, 3.0]), 0)[None]
    expected = np.degrees(np.arctan(1 / 2) - np.arctan(1 / 3))
    np.testing.assert_allclose(tilt_from_zone_axes(run, item, rotation), expected, rtol=1e-6)
    assert tilt_from_zone_axes(run, item[:0], rotation[:0]).shape == (0,)


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
@pytest.mark.parametrize("subset", [Subset(), Subset(0.5, 3)], ids=["all", "part"])
def test_rows_of_two_runs_are_those_of_either(run: Run, random_run: Run, spec: Any, subset: Subset):
    sets = feature_sets_of(run, spec)
    stored = [
        [read_features(source, *each) for each in feature_sets_of(source, spec)]
        for source in (run, random_run)
    ]
    with training_set(run, spec, sets, subset, [random_run]) as found:
        of_each = (subset.orientations or COUNT, COUNT - 1)
        crystals, counts = np.unique(found.crystals, return_counts=True)
        assert set(counts) == {sum(of_each) * len(sets)}
        assert not split_of(run, spec)[crystals].any()
        for row, (crystal, orientation) in enumerate(zip(found.crystals, found.orientations, strict=True)):
            second = int(orientation >= COUNT)
            item = crystal * (COUNT - second) + orientation - COUNT * second
            np.testing.assert_array_equal(found.features[row], stored[second][row % len(sets)][item])
        assert len(set(zip(found.crystals, found.orientations, strict=True))) == len(crystals) * sum(of_each)
        expected = targets_of(run.catalogue, found.crystals)
        np.testing.assert_array_equal(found.targets.system, expected.system)
        with training_set(run, spec, sets, subset) as alone:
            assert (found.features[found.orientations < COUNT] == alone.features).all()


def test_a_model_of_two_runs_says_so(run: Run, random_run: Run, tmp_path: Path):
    model, provenance = train_on_run(run, BOOSTING, more_runs=[random_run], n_jobs=1)
    assert provenance["training_patterns"] == 2 * (2 * COUNT - 1) * len(provenance["training_materials"])
    assert provenance["plan_id"] == run.plan.plan_id
    (other,) = provenance["more_runs"]
    assert other["plan_id"] == random_run.plan.plan_id
    assert other["thicknesses"] == [100.0, 200.0]
    assert OrientationSpec(**other["orientations"]) == random_run.plan.orientations
    save_model(model, tmp_path / "model", provenance)
    card = (tmp_path / "model" / "card.md").read_text()
    assert f"{COUNT} evenly spread and {COUNT - 1} at random" in card
    assert f"{run.plan.plan_id[:12]}, {random_run.plan.plan_id[:12]}" in card
    assert "more_runs" not in train_on_run(run, BOOSTING, n_jobs=1)[1]


def test_runs_that_do_not_belong_together_are_refused(run: Run, tmp_path: Path):
    orientations = OrientationSpec(count=2, axes="random")
    crystals = zoo_catalogue(NAMES[:5])
    fewer = Run.create(tmp_path / "fewer", small_plan(crystals, 3, orientations, SIMULATION), crystals)
    with pytest.raises(ModelError, match=r"fewer holds other crystals than .*same --catalogue"):
        train_on_run(run, FORESTS, more_runs=[fewer])
    crystals, slower = zoo_catalogue(NAMES), SIMULATION.model_copy(update={"energy_ev": 200e3})
    other = Run.create(tmp_path / "slower", small_plan(crystals, 3, orientations, slower), crystals)
    with pytest.raises(ModelError, match="slower was made with other settings"):
        train_on_run(run, FORESTS, more_runs=[other])
    turned = OrientationSpec(count=2, axes="random", in_plane="random")
    frames = Run.create(tmp_path / "turned", small_plan(crystals, 3, turned, SIMULATION), crystals)
    with pytest.raises(ModelError, match="turned was made with other settings"):
        train_on_run(run, FORESTS, more_runs=[frames])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (OrientationSpec(count=COUNT), OrientationSpec(count=COUNT, seed=5)),
        (OrientationSpec(count=2, axes="random"), OrientationSpec(count=5, axes="random")),
    ],
)
def test_runs_with_axes_in_common_are_refused(
    run: Run, tmp_path: Path, first: OrientationSpec, second: OrientationSpec
):
    crystals, thinner = zoo_catalogue(NAMES), SIMULATION.model_copy(update={"thicknesses": (200.0,)})
    runs = [
        Run.create(tmp_path / name, small_plan(crystals, 3, orientations, simulation), crystals)
        for name, orientations, simulation in (("one", first, SIMULATION), ("two", second, thinner))
    ]
    with pytest.raises(ModelError, match=r"two has zone axes of another run .* would count twice"):
        train_on_run(runs[0], FORESTS, more_runs=runs[1:])
    if first.axes == "random":
        with pytest.raises(ModelError, match="two has zone axes of another run"):
            train_on_run(run, FORESTS, more_runs=runs)


@pytest.mark.parametrize("spec", PRESETS, ids=["forests", "boosting"])
def test_training_says_beforehand_what_memory_it_takes_and_with_what_it_trained(run: Run, spec: Any):
    told: list[str] = []
    _, provenance = train_on_run(run, spec, n_jobs=1, progress=told.append)
    assert [what.startswith("up to ") for what in told[:3]] == [False, True, False]
    assert "B of memory" in told[1]
    assert provenance["versions"]["numpy"] == np.__version__
    assert ("lightgbm" in provenance["versions"]) == (spec is BOOSTING)
