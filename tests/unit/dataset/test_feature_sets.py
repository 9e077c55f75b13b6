import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

from diffractory.dataset import features as features_module
from diffractory.dataset import store as store_module
from diffractory.dataset.features import (
    FeaturePlan,
    features_partition,
    find_features,
    plan_features,
    planned_features,
    read_features,
)
from diffractory.dataset.partition import read_partition
from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.run import Run
from diffractory.errors import RunError
from diffractory.patterns.feature_sets import compute_features, number_of_features
from diffractory.patterns.radial_basis import radial_basis
from diffractory.specs import FeatureSpec, InvariantSpec, LabProtocolSpec, RadialBasisSpec
from small_runs import assert_same_features, edit_json

BASIS = RadialBasisSpec(ring_width=0.15, n_rings=6, n_orders=3)
INVARIANT = InvariantSpec(ring_width=0.15, n_rings=6, n_orders=3)
LAB = LabProtocolSpec(thickness_range=(150.0, 350.0))


def _finish(run: Run, plan: FeaturePlan, order=(2, 0, 3, 1)) -> FeaturePlan:
    for partition in order:
        features_partition(run.path, plan, partition)
    return plan


def test_features_are_the_radial_basis_of_the_peaks_in_the_order_of_items(run: Run):
    plan = _finish(run, plan_features(run, BASIS))
    assert plan.thicknesses == (100.0, 200.0, 350.0)
    for index, thickness in enumerate(plan.thicknesses):
        expected = [radial_basis(read_partition(run, p).table(index), BASIS) for p in range(4)]
        stored = read_features(run, plan, thickness)
        assert stored.dtype == np.float32
        assert stored.shape == (20, BASIS.n_features)
        assert_same_features(stored, np.concatenate(expected))
        assert np.abs(stored).max(axis=1).min() > 0.0


def test_a_subset_of_thicknesses_is_one_set_however_it_is_named(run: Run):
    plan = plan_features(run, BASIS, (350.0, 100.0))
    assert plan == plan_features(run, BASIS, (100, 350, 100))
    assert plan.thicknesses == (100.0, 350.0)
    assert [p.plan_id for p in planned_features(run)] == [plan.plan_id]
    whole = _finish(run, plan_features(run, BASIS))
    _finish(run, plan)
    for thickness in (100.0, 350.0):
        assert_same_features(read_features(run, plan, thickness), read_features(run, whole, thickness))
    with pytest.raises(RunError, match=r"holds \[100.0, 350.0\] Å, not 200.0 Å"):
        read_features(run, plan, 200.0)


@pytest.mark.parametrize("thicknesses", [(150.0,), (100.0, 101.0), (), (float("nan"),)])
def test_a_thickness_that_was_not_simulated_is_refused(run: Run, thicknesses: tuple[float, ...]):
    with pytest.raises(RunError, match=r"holds no patterns at .* simulated at \[100.0, 200.0, 350.0\] Å"):
        plan_features(run, BASIS, thicknesses)
    assert planned_features(run) == []


def test_planning_again_keeps_what_is_done(run: Run):
    plan = _finish(run, plan_features(run, BASIS))
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert plan_features(run, BASIS) == plan
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert len(run.done(plan.stage, plan.plan_id)) == 4


def test_the_id_depends_on_every_field(run: Run):
    plan = FeaturePlan("a", BASIS, (1.0,))
    others = [
        replace(plan, run_plan_id="b"),
        replace(plan, features=RadialBasisSpec()),
        replace(plan, features=InvariantSpec()),
        replace(plan, thicknesses=(1.0, 2.0)),
        replace(plan, lab=LabProtocolSpec()),
        replace(plan, seed=1),
        replace(plan, code_version="0.0"),
    ]
    assert len({p.plan_id for p in [plan, *others]}) == 8


def test_invariant_features_are_stored_thickness_by_thickness(run: Run):
    plan = _finish(run, plan_features(run, INVARIANT, (100.0, 350.0)))
    for thickness in plan.thicknesses:
        patterns = [protocol_patterns(run, p, thickness) for p in range(4)]
        expected = np.concatenate([compute_features(part.peaks, INVARIANT) for part in patterns])
        assert_same_features(read_features(run, plan, thickness), expected)


@pytest.mark.parametrize("features", [BASIS, INVARIANT])
def test_a_lab_set_holds_one_pattern_of_each_item_as_a_laboratory_sees_it(run: Run, features: FeatureSpec):
    plan = _finish(run, plan_features(run, features, lab=LAB, seed=3))
    assert (plan.thicknesses, plan.n_columns) == ((), 1)
    patterns = [protocol_patterns(run, p, 0.0, LAB, 3) for p in range(4)]
    assert set(np.concatenate([part.thickness for part in patterns])) == {200.0, 350.0}
    stored = read_features(run, plan)
    assert stored.shape == (20, number_of_features(features))
    assert_same_features(
        stored, np.concatenate([compute_features(part.peaks, features) for part in patterns])
    )


def test_a_lab_set_is_found_by_its_protocol_and_seed(run: Run):
    plan = plan_features(run, BASIS, lab=LAB, seed=3)
    assert plan_features(run, BASIS, (200.0,), lab=LAB, seed=3) == plan
    with pytest.raises(RunError, match=r"no finished features of lab patterns.*diffractory features"):
        find_features(run, BASIS, 200.0, lab=LAB, seed=3)
    _finish(run, plan)
    assert planned_features(run) == [plan]
    assert find_features(run, BASIS, 200.0, lab=LAB, seed=3) == plan
    for lab, seed in ((LAB, 0), (LabProtocolSpec(), 3)):
        with pytest.raises(RunError, match="no finished features of lab patterns"):
            find_features(run, BASIS, 200.0, lab=lab, seed=seed)
    with pytest.raises(RunError, match=r"no finished features of lab patterns.*--preset robust"):
        find_features(run, INVARIANT, 200.0, lab=LAB, seed=3)
    with pytest.raises(RunError, match=r"no finished features at 200\.0 Å"):
        find_features(run, BASIS, 200.0)


def test_the_seed_of_the_laboratory_is_without_effect_where_there_is_none(run: Run):
    assert plan_features(run, BASIS, seed=3) == plan_features(run, BASIS)


@pytest.mark.parametrize("damage", ["edited", "cut", "text", "list", "nested", "of another run", "a folder"])
def test_a_damaged_plan_is_refused(run: Run, damage: str):
    plan = plan_features(run, BASIS)
    path = run.path / f"{plan.stage}.json"
    if damage == "edited":
        edit_json(path, thicknesses=[100.0])
    elif damage == "cut":
        path.write_text(path.read_text()[:-20])
    elif damage == "of another run":
        other = replace(plan, run_plan_id="0" * 64)
        path.write_text(json.dumps({"plan_id": other.plan_id, **other.content()}))
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text({"text": "hello", "list": "[]", "nested": "[" * 100_000}[damage])
    with pytest.raises(RunError, match=r"json is damaged, or of another run or version.*Remove it"):
        planned_features(run)


def test_only_finished_features_are_found(run: Run):
    plan = plan_features(run, BASIS, (100.0, 200.0))
    features_partition(run.path, plan, 0)
    with pytest.raises(RunError, match=r"no finished features at 200.0 Å.*diffractory features"):
        find_features(run, BASIS, 200.0)
    _finish(run, plan)
    assert find_features(run, BASIS, 200.0) == plan
    for basis, thickness in ((BASIS, 350.0), (RadialBasisSpec(), 200.0)):
        with pytest.raises(RunError, match="no finished features"):
            find_features(run, basis, thickness)


def test_what_is_damaged_in_a_feature_set_is_named(run: Run):
    plan = plan_features(run, BASIS, (100.0, 200.0))
    _finish(run, plan)
    array = zarr.open_array(run.path / plan.store / "features", mode="r+")
    rows = array[: array.shards[0]]
    rows[0] = np.nan
    array[: array.shards[0]] = rows
    with pytest.raises(
        RunError,
        match=r"no finished features at 200.0 Å. shard .*\.zarr.* its record says .*diffractory features",
    ):
        find_features(run, BASIS, 200.0)


def test_features_of_an_unfinished_partition_are_refused(planned: Run):
    plan = plan_features(planned, BASIS)
    with pytest.raises(RunError, match="is not done"):
        features_partition(planned.path, plan, 0)
    with pytest.raises(RunError, match="is not done"):
        read_features(planned, plan, 100.0)


def test_a_cut_feature_shard_is_not_done_and_computed_anew(run: Run):
    plan = _finish(run, plan_features(run, BASIS))
    expected = read_features(run, plan, 200.0)
    (name,) = run.done(plan.stage, plan.plan_id)[1].shards
    (run.path / name).write_bytes((run.path / name).read_bytes()[:-5])
    assert set(run.done(plan.stage, plan.plan_id)) == {0, 2, 3}
    with pytest.raises(RunError, match="missing or cut short"):
        read_features(run, plan, 200.0)
    features_partition(run.path, plan, 1)
    assert_same_features(read_features(run, plan, 200.0), expected)


def test_a_disk_that_is_full_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(features_module, "write_atomic", full)
    with pytest.raises(RunError, match=r"feature set cannot be made in .*No space left"):
        plan_features(run, BASIS)
    monkeypatch.undo()
    assert planned_features(run) == []
    _finish(run, plan_features(run, BASIS))


@pytest.mark.parametrize("together", [1, 2, 3])
def test_shards_hold_as_many_thicknesses_as_memory_allows_and_give_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, together: int
):
    one = 4 * BASIS.n_features * run.plan.items_per_shard
    # With two in a shard, the third lies alone in a narrower one.
    monkeypatch.setattr(store_module, "_FEATURE_SHARD_BYTES", together * one)
    plan = _finish(run, plan_features(run, BASIS))
    shards = run.record(plan.stage, 0, plan.plan_id).shards
    assert len(shards) == {1: 3, 2: 2, 3: 1}[together]
    for index, thickness in enumerate(plan.thicknesses):
        expected = [radial_basis(read_partition(run, p).table(index), BASIS) for p in range(4)]
        assert_same_features(read_features(run, plan, thickness), np.concatenate(expected))


def test_sets_of_another_version_are_passed_over(run: Run, monkeypatch: pytest.MonkeyPatch):
    old = replace(plan_features(run, BASIS), code_version="0.1")
    content = {**old.content(), "features": {**old.content()["features"], "a setting of then": 1}}
    (run.path / f"{old.stage}.json").write_text(json.dumps({"plan_id": old.plan_id, **content}))
    new = _finish(run, plan_features(run, BASIS))
    assert planned_features(run) == [new]
    assert find_features(run, BASIS, 200.0) == new
    with pytest.raises(RunError, match=r"planned with diffractory 0\.1, this is"):
        features_partition(run.path, old, 0)


def test_the_first_thickness_where_none_is_named(run: Run):
    plan = _finish(run, plan_features(run, BASIS, (200.0, 350.0)))
    assert_same_features(read_features(run, plan), read_features(run, plan, 200.0))


def test_a_store_that_was_removed_is_made_again(run: Run):
    plan = _finish(run, plan_features(run, BASIS))
    before = read_features(run, plan, 100.0)
    shutil.rmtree(run.path / plan.store)
    assert run.done(plan.stage, plan.plan_id) == {}
    _finish(run, plan_features(run, BASIS))
    assert_same_features(read_features(run, plan, 100.0), before)


@pytest.mark.parametrize("lab", [None, LAB])
def test_a_partition_that_is_not_there_is_refused(run: Run, lab: LabProtocolSpec | None):
    plan = plan_features(run, BASIS, lab=lab)
    with pytest.raises(RunError, match="there is no partition 4"):
        features_partition(run.path, plan, 4)
