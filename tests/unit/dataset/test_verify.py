import errno
from pathlib import Path

import numpy as np
import pytest

from diffractory.dataset import verify as verify_module
from diffractory.dataset.features import features_partition, plan_features
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.records import ShardSum
from diffractory.dataset.run import Run
from diffractory.dataset.verify import remove_records, verify_partition
from diffractory.errors import RunError
from diffractory.specs import RadialBasisSpec
from small_runs import finish, forge, rewrite_record, shard_bytes


def _problem(run: Run, partition: int, sample: float = 0.0) -> str:
    """Return what is wrong with one partition, after checking that nothing is with the others."""
    for other in range(len(run.plan.partitions)):
        if other != partition:
            assert verify_partition(run.path, other, sample).problems == ()
    return "; ".join(verify_partition(run.path, partition, sample).problems)


def test_a_whole_run_passes_and_is_solved_again(original: Run):
    for index, chosen in enumerate(original.plan.partitions):
        found = verify_partition(original.path, index, sample=1.0)
        assert found.problems == ()
        assert found.n_patterns == 3 * (chosen.stop - chosen.first)
        assert found.n_solved_again == chosen.stop - chosen.first
        assert 0.0 <= found.largest_difference < 1e-6


def test_the_sample_is_a_share_of_items_and_always_the_same(original: Run):
    def solved(sample: float) -> int:
        return sum(verify_partition(original.path, p, sample).n_solved_again for p in range(4))

    assert solved(0.0) == 0
    assert 3 <= solved(0.5) <= 17
    assert solved(0.5) == solved(0.5)
    share = np.mean([verify_module._drawn("plan", item, 0.1) for item in range(20_000)])
    assert share == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("array", ["intensity", "hkl", "rotation"])
def test_one_flipped_bit_is_found(run: Run, array: str):
    name = next(name for name in run.done()[2].shards if f"/{array}/" in name)
    content = bytearray((run.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run.path / name).write_bytes(content)
    assert 2 in run.done(), "the size is right, so only the checksum can tell"
    assert f"shard {name} does not match its checksum" in _problem(run, 2)


def test_a_partition_that_is_not_done_is_named(run: Run):
    run.record_path("peaks", 1).unlink()
    assert "is not done" in _problem(run, 1)


def test_a_shard_that_the_disk_cannot_read_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    def broken(path: Path) -> ShardSum:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ShardSum, "of_file", broken)
    problems = verify_partition(run.path, 0).problems
    assert len(problems) == 3
    assert all("cannot be read (Input/output error)" in problem for problem in problems)


def test_a_shard_that_cannot_be_decoded_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise RunError("cannot be decoded")

    monkeypatch.setattr(verify_module, "read_partition", refuse)
    assert verify_partition(run.path, 0).problems == ("cannot be decoded.",)


def _set(index: object, value: float):
    def change(rows: np.ndarray) -> None:
        rows[index] = value

    return change


@pytest.mark.parametrize(
    ("array", "change", "problem"),
    [
        ("intensity", _set((0, 2), 1.2), "more than the incident beam"),
        ("intensity", _set((3, 1), 127.0), "more than the incident beam"),
        ("hkl", _set(0, 1), "a pattern lacks its direct beam"),
        ("rotation", _set((1, 0, 0), 0.5), "an orientation matrix is not the planned one"),
        ("rotation", _set((1, 0, 0), np.nan), "an orientation matrix is not the planned one"),
        ("rotation", _set(1, np.eye(3)[[1, 2, 0]]), "an orientation matrix is not the planned one"),
        ("rotation", _set(1, -np.eye(3)), "an orientation matrix is not the planned one"),
    ],
)
def test_physics_that_cannot_be_is_found_by_name_although_the_checksums_are_right(
    run: Run, array: str, change, problem: str
):
    forge(run, array, 1, change)
    assert problem in _problem(run, 1)


def test_swapped_counts_are_found(run: Run):
    counts = list(run.done()[2].counts)
    counts[0], counts[1] = counts[0] + 1, counts[1] - 1
    rewrite_record(run.record_path("peaks", 2), counts=tuple(counts))
    assert "a pattern lacks its direct beam" in _problem(run, 2)


def test_scaled_intensities_are_found_only_by_solving_again(run: Run):
    def scale(rows: np.ndarray) -> None:
        rows *= 0.999

    forge(run, "intensity", 3, scale)
    assert _problem(run, 3) == ""
    assert "differ by" in _problem(run, 3, sample=1.0)
    found = verify_partition(run.path, 3, sample=1.0)
    assert found.largest_difference == pytest.approx(1e-3, rel=0.2)


def test_other_beams_are_found_by_solving_again(run: Run):
    forge(run, "hkl", 3, _set(2, 5))
    assert _problem(run, 3) == ""
    assert "differ by inf" in _problem(run, 3, sample=1.0)


def test_removed_records_are_computed_anew_and_their_features_too(run: Run, original: Run):
    features = plan_features(run, RadialBasisSpec(n_rings=3, n_orders=2))
    for partition in range(4):
        features_partition(run.path, features, partition)
    forge(run, "intensity", 1, _set((0, 0), 2.0))
    removed: list[int] = []
    remove_records(run, [1, 2], removed.append)
    remove_records(run, [1])
    assert removed == [1, 2]
    assert set(run.done()) == {0, 3}
    assert set(run.done(features.stage, features.plan_id)) == {0, 3}
    finish(run)
    assert shard_bytes(run) == shard_bytes(original)
    assert _problem(run, 1, 1.0) == ""


def test_nothing_to_remove_is_no_error(planned: Run):
    remove_records(planned, [0, 1])
    simulate_partition(planned.path, 0)
    remove_records(planned, [0, 1])
    assert planned.done() == {}


def test_a_record_that_cannot_be_removed_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"p000001.json cannot be removed \(Permission denied\)"):
        remove_records(run, [1])


def test_a_shard_that_the_machine_does_not_give_is_not_called_damaged(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    def refused(path: Path) -> ShardSum:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ShardSum, "of_file", refused)
    found = verify_partition(run.path, 0)
    assert not found.checked
    assert "cannot be read (Too many open files). nothing is known of it" in found.problems[0]


def test_what_another_version_computed_is_not_compared(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diffractory.dataset.run.__version__", "7.0.0")
    monkeypatch.setattr(verify_module, "planned_orientations", lambda *_: pytest.fail("it was compared"))
    found = verify_partition(run.path, 0, sample=1.0)
    assert (found.problems, found.n_solved_again) == ((), 0)


def test_there_is_no_such_partition(run: Run):
    with pytest.raises(RunError, match="there is no partition 99"):
        verify_partition(run.path, 99)
