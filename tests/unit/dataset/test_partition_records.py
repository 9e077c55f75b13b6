import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset import partition as partition_module
from diffractory.dataset import records as records_module
from diffractory.dataset import store as store_module
from diffractory.dataset.intensity_codes import decode_intensity, encode_intensity, largest_error
from diffractory.dataset.partition import read_partition, simulate_partition
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import PEAKS, Run
from diffractory.errors import RunError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scattering import solvers
from diffractory.scattering.simulate import simulate
from diffractory.scattering.spectrum import Spectrum
from diffractory.specs import OrientationSpec
from small_runs import (
    SIMULATION,
    contents,
    edit_json,
    finish,
    rewrite_record,
    shard_bytes,
    small_plan,
)


def test_counted_and_simulated_peaks_are_the_same(original: Run):
    for index, record in original.done().items():
        chosen = original.plan.partitions[index]
        assert len(record.counts) == chosen.stop - chosen.first
        assert sum(record.counts) == chosen.n_peaks


def test_a_partition_holds_what_simulate_gives(original: Run):
    for index, chosen in enumerate(original.plan.partitions):
        peaks = read_partition(original, index)
        ends = np.cumsum(peaks.counts)
        for item in range(chosen.first, chosen.stop):
            local = item - chosen.first
            crystal = original.catalogue.crystal(item // 5)
            (expected,) = simulate(crystal, peaks.rotation[local][None], SIMULATION)
            rows = slice(ends[local] - peaks.counts[local], ends[local])
            np.testing.assert_array_equal(peaks.hkl[rows], expected.hkl)
            np.testing.assert_allclose(peaks.q[rows], expected.q, atol=1e-12)
            true = expected.intensity.T
            np.testing.assert_array_equal(peaks.intensity[rows], decode_intensity(encode_intensity(true)))
            assert np.all(np.abs(peaks.intensity[rows] - true) <= largest_error(true))
            assert np.all(peaks.intensity[rows][true >= 1e-6] > 0.0)


def test_a_table_takes_one_thickness_or_one_for_each_item(original: Run):
    peaks = read_partition(original, 0)
    one = peaks.table(2)
    assert isinstance(one, PeakTable)
    np.testing.assert_array_equal(one.intensity, peaks.intensity[:, 2].astype(np.float64))
    np.testing.assert_array_equal(one.direct, np.cumsum(peaks.counts) - peaks.counts)
    columns = np.arange(len(peaks.counts)) % 3
    np.testing.assert_array_equal(
        peaks.table(columns).intensity,
        peaks.intensity[np.arange(len(peaks.q)), np.repeat(columns, peaks.counts)],
    )


def test_the_record_is_committed_last(planned: Run, monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    write = Record.write

    def watched(self: Record, path: Path) -> None:
        for name, expected in self.shards.items():
            seen.append(ShardSum.of_file(planned.path / name) == expected)
        assert not path.exists()
        write(self, path)

    monkeypatch.setattr(Record, "write", watched)
    simulate_partition(planned.path, 0)
    assert seen == [True, True, True]


def test_a_run_stopped_before_the_record_is_not_done(planned: Run, monkeypatch: pytest.MonkeyPatch):
    def killed(self: Record, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            simulate_partition(planned.path, 0)
    assert shard_bytes(planned)
    assert planned.done() == {}
    assert planned.damaged() == {}
    with pytest.raises(RunError, match=r"partition 0 .* is not done: .*p000000.json is missing"):
        read_partition(planned, 0)


def test_a_record_cut_anywhere_does_not_count(run: Run):
    path = run.record_path(PEAKS, 1)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert 1 not in run.done()
        assert "damaged or cut short" in run.damaged()[1]
    path.write_bytes(whole)
    assert run.damaged() == {}


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"checksum": 1}', "[" * 100_000, "\x00\xff", '"text"'])
def test_a_file_that_is_no_record_does_not_count(run: Run, text: str):
    run.record_path(PEAKS, 1).write_text(text)
    with pytest.raises(RunError, match=r"cannot be read.*Run the same command again"):
        run.record(PEAKS, 1, run.plan.plan_id)


def test_a_file_too_large_for_a_record_is_not_read(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records_module, "_MAX_RECORD_BYTES", 10)
    with pytest.raises(RunError, match="cannot be read"):
        run.record(PEAKS, 0, run.plan.plan_id)


def test_an_altered_record_does_not_count(run: Run):
    edit_json(run.record_path(PEAKS, 1), seconds=0.5)
    with pytest.raises(RunError, match=r"does not match its own checksum.*altered"):
        run.record(PEAKS, 1, run.plan.plan_id)
    assert set(run.done()) == {0, 2, 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan_id": "0" * 64}, "another plan or partition"),
        ({"stage": "features"}, "another plan or partition"),
        ({"partition": 2}, "another plan or partition"),
        ({"counts": (2**60,) * 4}, "contradicts the plan"),
        ({"counts": (10**400,) * 4}, "contradicts the plan"),
        ({"counts": (-5, 10, 10, 10)}, "contradicts the plan"),
        ({"counts": (0, 10, 10, 10)}, "contradicts the plan"),
        ({"counts": (10, 10, 10)}, "contradicts the plan"),
        ({"counts": (10, 10, 10, True)}, "contradicts the plan"),
        ({"counts": (10.0, 10, 10, 10)}, "contradicts the plan"),
        ({"counts": ("10", 10, 10, 10)}, "contradicts the plan"),
        ({"counts": ()}, "contradicts the plan"),
        ({"shards": {}}, "contradicts the plan"),
        ({"shards": {"peaks.zarr/../../secret": ShardSum(1, "0")}}, "contradicts the plan"),
        ({"shards": {"/etc/passwd": ShardSum(1, "0")}}, "contradicts the plan"),
    ],
)
def test_a_record_that_contradicts_the_plan_does_not_count(run: Run, changes: dict, message: str):
    rewrite_record(run.record_path(PEAKS, 1), **changes)
    with pytest.raises(RunError, match=message):
        run.record(PEAKS, 1, run.plan.plan_id)
    assert set(run.damaged()) == {1}


@pytest.mark.parametrize("array", ["intensity", "hkl", "rotation"])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long"])
def test_a_shard_of_another_size_does_not_count(run: Run, original: Run, array: str, damage: str):
    (shard,) = (path for path in (run.path / "peaks.zarr" / array / "c" / "2").rglob("0") if path.is_file())
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes({"empty": b"", "short": whole[:-1], "long": whole + b"x"}[damage])
    assert set(run.done()) == {0, 1, 3}
    expected = "missing or cut short" if damage != "long" else "its record says"
    assert expected in run.damaged()[2]
    untouched = {name: data for name, data in shard_bytes(run).items() if "/c/2/" not in name}
    simulate_partition(run.path, 2)
    assert untouched.items() <= shard_bytes(run).items()
    assert shard_bytes(run) == shard_bytes(original)
    assert len(run.done()) == 4


def test_computing_a_partition_again_touches_only_its_own_files(run: Run):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    data = shard_bytes(run)
    simulate_partition(run.path, 1)
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    changed = {str(path.relative_to(run.path)) for path in before if before[path] != after[path]}
    assert set(after) == set(before)
    assert changed == {
        "peaks.zarr/intensity/c/1/0",
        "peaks.zarr/hkl/c/1/0",
        "peaks.zarr/rotation/c/1/0/0",
        "records/peaks/p000001.json",
    }
    assert shard_bytes(run) == data


@pytest.mark.parametrize("partition", [-1, 4, 10**9])
def test_a_partition_that_does_not_exist_is_named(planned: Run, partition: int):
    with pytest.raises(RunError, match=rf"has partitions 0 … 3, there is no partition {partition}"):
        simulate_partition(planned.path, partition)


def test_two_attempts_at_once_do_no_harm(planned: Run, original: Run, monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(3, timeout=60)
    write = partition_module.write_block

    def at_once(*arguments: object) -> object:
        together.wait()
        return write(*arguments)

    monkeypatch.setattr(partition_module, "write_block", at_once)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: simulate_partition(planned.path, 0), range(3)))
    monkeypatch.undo()
    assert list(planned.done()) == [0]
    assert shard_bytes(finish(planned)) == shard_bytes(original)
    assert not list(planned.path.rglob("*.partial*"))


def _full(*arguments: object, **keywords: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_finished_partitions_are_kept(
    planned: Run, original: Run, monkeypatch: pytest.MonkeyPatch
):
    simulate_partition(planned.path, 0)
    kept = shard_bytes(planned)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_atomic", _full)
        with pytest.raises(RunError, match=r"partition 1 cannot be written .*No space left.*Make room"):
            simulate_partition(planned.path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(records_module, "write_atomic", _full)
        with pytest.raises(RunError, match=r"record .*p000001.json cannot be written \(No space left"):
            simulate_partition(planned.path, 1)
    assert list(planned.done()) == [0]
    assert kept.items() <= shard_bytes(planned).items()
    assert shard_bytes(finish(planned)) == shard_bytes(original)


@pytest.mark.parametrize("damage", ["missing store", "no metadata", "text", "other type"])
def test_a_store_that_cannot_be_opened_is_named(run: Run, damage: str):
    metadata = run.path / "peaks.zarr" / "hkl" / "zarr.json"
    if damage == "missing store":
        (run.path / "peaks.zarr").rename(run.path / "gone")
    elif damage == "no metadata":
        metadata.unlink()
    elif damage == "text":
        metadata.write_text("{")
    else:
        metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"data_type": "unheard of"}))
    with pytest.raises(RunError, match=r"cannot be opened.*missing or its metadata are damaged"):
        simulate_partition(run.path, 0)
    if damage != "missing store":
        with pytest.raises(RunError, match="cannot be opened"):
            read_partition(run, 0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_shard_with_any_bytes_changed_is_read_or_refused_but_never_crashes(run: Run, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(run.done()[0].shards)))
    shard, peaks = run.path / name, None
    whole = shard.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))[: len(whole) - position]
    shard.write_bytes(whole[:position] + noise + whole[position + len(noise) :])
    try:
        peaks = read_partition(run, 0)
    except RunError as error:
        assert "cannot be decoded" in str(error)  # noqa: PT017
    finally:
        shard.write_bytes(whole)
    # What is read in spite of it is right: the bytes were nobody's, or what they had been.
    if peaks is not None:
        undamaged = read_partition(run, 0)
        for field in ("hkl", "intensity", "rotation"):
            np.testing.assert_array_equal(getattr(peaks, field), getattr(undamaged, field))


@pytest.mark.parametrize("in_plane", ["paper", "random"])
def test_results_depend_neither_on_partitions_nor_on_order(
    catalogue: Catalogue, tmp_path: Path, in_plane: str
):
    orientations = OrientationSpec(count=5, in_plane=in_plane, seed=4)
    one = Run.create(tmp_path / "one", small_plan(catalogue, 1e-9, orientations), catalogue)
    many = Run.create(tmp_path / "many", small_plan(catalogue, 8, orientations), catalogue)
    assert len(one.plan.partitions) == 1
    assert len(many.plan.partitions) > 5
    finish(one)
    for partition in reversed(range(len(many.plan.partitions))):
        simulate_partition(many.path, partition)
    first, second = contents(one), contents(many)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_random_frames_turn_patterns_in_their_plane_only(original: Run, catalogue: Catalogue, tmp_path: Path):
    def stored(seed: int) -> dict[str, np.ndarray]:
        frames = OrientationSpec(count=5, in_plane="random", seed=seed)
        return contents(finish(Run.create(tmp_path / str(seed), small_plan(catalogue, 1, frames), catalogue)))

    first, second, paper = stored(1), stored(2), contents(original)
    np.testing.assert_array_equal(first["hkl"], paper["hkl"])
    # Intensities that rounding errors moved over the border between two codes differ by one code.
    difference = np.abs(first["intensity"] - paper["intensity"])
    assert np.all(difference <= 2.0 * largest_error(paper["intensity"]) + 1e-7)
    np.testing.assert_allclose(first["rotation"][:, :, 2], paper["rotation"][:, :, 2], atol=1e-14)
    angles = np.arccos(np.einsum("nx,nx->n", first["rotation"][:, :, 0], paper["rotation"][:, :, 0]))
    assert np.ptp(angles) > 1.0
    assert np.abs(first["rotation"] - second["rotation"]).max(axis=(1, 2)).min() > 1e-3


def test_stored_orientations_are_those_of_the_laue_group(original: Run):
    matrices = partition_module.crystal_orientations(original.catalogue, 2, original.plan.orientations)
    np.testing.assert_array_equal(contents(original)["rotation"][10:15], matrices)


def test_a_record_counts_the_solves_that_fell_back(
    original: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert all(record.dense_solves == 0 for record in original.done().values())
    run = Run.create(tmp_path / "run", original.plan, original.catalogue)
    monkeypatch.setattr(solvers, "spectrum_of", lambda _: Spectrum(0j, 1e-5))
    record = simulate_partition(run.path, 0)
    assert record.dense_solves == len(record.counts)
    intensity = [read_partition(r, 0).intensity for r in (original, run)]
    assert np.all(np.abs(intensity[1] - intensity[0]) <= 2.0 * largest_error(intensity[0]) + 2e-6)
