import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import zarr

from diffractory import __version__
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset import run as run_module
from diffractory.dataset import store as store_module
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import Plan
from diffractory.dataset.run import PEAKS, Run
from diffractory.errors import DiffractoryError, RunError
from small_runs import ORIENTATIONS, SIMULATION, finish, shard_bytes, small_plan, zoo_catalogue


def test_making_a_run_twice_changes_nothing(catalogue: Catalogue, plan: Plan, tmp_path: Path):
    first = Run.create(tmp_path / "run", plan, catalogue)
    simulate_partition(first.path, 0)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    second = Run.create(tmp_path / "run", plan, catalogue)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before
    assert list(second.done()) == [0]


def test_another_plan_in_the_same_folder_is_refused(run: Run, catalogue: Catalogue):
    other = small_plan(catalogue, simulation=SIMULATION.model_copy(update={"s_max": 0.05}))
    before = shard_bytes(run)
    with pytest.raises(RunError, match=r"already holds another plan.*orientations or partitions differ"):
        Run.create(run.path, other, catalogue)
    assert shard_bytes(run) == before
    assert len(run.done()) == len(run.plan.partitions)


@pytest.mark.parametrize("cut", ["to_parquet", "create_peak_store", "write_atomic"])
def test_a_creation_cut_short_can_be_repeated(
    catalogue: Catalogue, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
):
    def killed(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalogue if cut == "to_parquet" else run_module, cut, killed)
        with pytest.raises(KeyboardInterrupt):
            Run.create(tmp_path / "run", plan, catalogue)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / ".catalogue.0123.partial.parquet").write_bytes(b"left behind")
    with pytest.raises(RunError, match="not a run folder"):
        Run.open(tmp_path / "run")
    run = Run.create(tmp_path / "run", plan, catalogue)
    assert simulate_partition(run.path, 0).counts


def test_a_folder_with_other_files_is_refused_and_left_alone(
    catalogue: Catalogue, plan: Plan, tmp_path: Path
):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(RunError, match=r"exists and is not a run folder.*new or empty"):
        Run.create(tmp_path, plan, catalogue)
    with pytest.raises(RunError, match="exists and is not a run folder"):
        Run.create(tmp_path / "thesis.tex", plan, catalogue)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_users_own_catalogue_is_not_replaced(catalogue: Catalogue, plan: Plan, tmp_path: Path):
    catalogue.take([0, 1]).to_parquet(tmp_path / "catalogue.parquet")
    before = (tmp_path / "catalogue.parquet").read_bytes()
    with pytest.raises(RunError, match="exists and is not a run folder"):
        Run.create(tmp_path, plan, catalogue)
    assert (tmp_path / "catalogue.parquet").read_bytes() == before
    # The planned catalogue itself may lie there already, and is kept as it is.
    (tmp_path / "b").mkdir()
    catalogue.to_parquet(tmp_path / "b" / "catalogue.parquet")
    before_time = (tmp_path / "b" / "catalogue.parquet").stat().st_mtime_ns
    Run.create(tmp_path / "b", plan, catalogue)
    assert (tmp_path / "b" / "catalogue.parquet").stat().st_mtime_ns == before_time


def test_results_without_a_plan_are_not_wiped(run: Run, catalogue: Catalogue):
    (run.path / "plan.json").unlink()
    shutil.rmtree(run.path / "records")
    before = shard_bytes(run)
    assert before
    with pytest.raises(RunError, match="not a run folder"):
        Run.create(run.path, run.plan, catalogue)
    assert shard_bytes(run) == before


@pytest.mark.parametrize("name", ["nothing here", "a file", "a file/below"])
def test_what_is_not_a_run_is_named(tmp_path: Path, name: str):
    (tmp_path / "a file").write_text("x")
    with pytest.raises(RunError, match=rf"{name} is not a run folder.*diffractory plan"):
        Run.open(tmp_path / name)


def test_a_run_of_another_code_version_is_read_but_not_gone_on_with(run: Run):
    (run.path / "plan.json").write_text(replace(run.plan, code_version="0.9.3").to_json())
    with pytest.raises(RunError, match=r"planned with diffractory 0\.9\.3.*Install diffractory 0\.9\.3"):
        Run.open(run.path).check_code_version()
    same_minor = f"{'.'.join(__version__.split('.')[:2])}.77"
    (run.path / "plan.json").write_text(replace(run.plan, code_version=same_minor).to_json())
    Run.open(run.path).check_code_version()
    assert Run.open(run.path).plan.code_version == same_minor


def test_a_plan_that_is_no_text_or_cannot_be_read_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch):
    (run.path / "plan.json").write_bytes(os.urandom(500))
    with pytest.raises(RunError, match="not a readable plan"):
        Run.open(run.path)
    (run.path / "plan.json").unlink()
    (run.path / "plan.json").mkdir()
    with pytest.raises(RunError, match=r"plan.json cannot be read \(Is a directory\)"):
        Run.open(run.path)


def test_a_catalogue_altered_under_a_run_is_refused(run: Run, tmp_path: Path):
    zoo_catalogue(("cubic-F-c-copper", "cubic-P-a-FeSi")).to_parquet(run.path / "catalogue.parquet")
    with pytest.raises(RunError, match=r"not the catalogue this run was planned with.*Put the original back"):
        _ = Run.open(run.path).catalogue
    with pytest.raises(RunError, match="not the catalogue"):
        simulate_partition(run.path, 0)
    (run.path / "catalogue.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"catalogue of this run cannot be read.*Put the original back"):
        _ = run.catalogue
    (run.path / "catalogue.parquet").unlink()
    with pytest.raises(RunError, match=r"no catalogue at .*Put the original back"):
        _ = run.catalogue


def test_a_moved_or_copied_run_goes_on_where_it_was(planned: Run, original: Run, tmp_path: Path):
    simulate_partition(planned.path, 1)
    moved = planned.path.rename(tmp_path / "elsewhere")
    run = Run.open(moved)
    assert list(run.done()) == [1]
    assert shard_bytes(finish(run)) == shard_bytes(original)


def test_a_relative_path_is_made_absolute(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    opened = Run.open("my run")
    assert opened.path == tmp_path / "my run"
    monkeypatch.chdir("/")
    assert len(opened.done()) == len(run.plan.partitions)
    monkeypatch.chdir(tmp_path)
    made = Run.create("beside", run.plan, run.catalogue)
    assert made.path == tmp_path / "beside"


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_a_disk_that_cannot_be_written_is_named(
    catalogue: Catalogue, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
):
    def refuse(*arguments: object, **keywords: object) -> None:
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiffractoryError, match=str(error.strerror)):
        Run.create(tmp_path / "run", plan, catalogue)
    monkeypatch.undo()
    monkeypatch.setattr(run_module, "create_peak_store", refuse)
    with pytest.raises(RunError, match=f"a run cannot be made in .*{error.strerror}.*writable"):
        Run.create(tmp_path / "run", plan, catalogue)


def test_a_run_below_a_file_is_refused(catalogue: Catalogue, plan: Plan, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiffractoryError, match="Not a directory"):
        Run.create(tmp_path / "file" / "run", plan, catalogue)


def test_the_store_of_another_plan_is_not_written_to(planned: Run, tmp_path: Path):
    thin = small_plan(
        planned.catalogue, 3, ORIENTATIONS, SIMULATION.model_copy(update={"thicknesses": (100.0,)})
    )
    other = Run.create(tmp_path / "other", thin, planned.catalogue)
    shutil.rmtree(planned.path / "peaks.zarr")
    shutil.copytree(other.path / "peaks.zarr", planned.path / "peaks.zarr")
    with pytest.raises(RunError, match=r"does not fit array .*not the one that was planned"):
        simulate_partition(planned.path, 0)
    assert planned.done() == {}


@pytest.mark.parametrize("block", [1, 3, 100])
def test_records_read_side_by_side_are_those_read_one_by_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, block: int
):
    monkeypatch.setattr(run_module, "_BLOCK", block)
    assert list(run.done()) == [0, 1, 2, 3]
    assert run.done() == {p: run.record(PEAKS, p, run.plan.plan_id) for p in range(4)}
    assert run.damaged() == {}
    shards = {p: [run.path / name for name in record.shards] for p, record in run.done().items()}
    with shards[0][1].open("ab") as shard:
        shard.write(b"one byte more")
    shards[1][0].unlink()
    shards[1][0].mkdir()
    run.record_path(PEAKS, 2).write_bytes(run.record_path(PEAKS, 3).read_bytes())
    assert run.done() == {3: run.record(PEAKS, 3, run.plan.plan_id)}
    assert set(run.damaged()) == {0, 1, 2}
    for partition, reason in run.damaged().items():
        with pytest.raises(RunError, match=re.escape(reason)):
            run.record(PEAKS, partition, run.plan.plan_id)
    run.record_path(PEAKS, 3).unlink()
    assert run.done() == {}
    assert set(run.damaged()) == {0, 1, 2}


def test_a_file_in_place_of_an_array_is_a_missing_shard(run: Run):
    shutil.rmtree(run.path / "peaks.zarr" / "hkl")
    (run.path / "peaks.zarr" / "hkl").write_text("a file where a folder was")
    assert run.done() == {}
    assert "has 0 bytes" in run.damaged()[0]


def test_a_store_that_another_command_began_to_fill_stays(planned: Run):
    # The plan is written last: until then a second command finds no run yet.
    simulate_partition(planned.path, 0)
    text = (planned.path / "plan.json").read_text()
    shards = {path for path in (planned.path / "peaks.zarr").rglob("c/*") if path.is_file()}
    (planned.path / "plan.json").unlink()
    for name in ("peaks.zarr", "records"):
        (planned.path / name).rename(planned.path / f".{name}")
    with pytest.MonkeyPatch.context() as patch:
        # It looks at the folder before the first one has made the store.
        look = run_module._foreign_files

        def meanwhile(folder: Path, plan: Plan) -> list[str]:
            found = look(folder, plan)
            for name in ("peaks.zarr", "records"):
                (planned.path / f".{name}").rename(planned.path / name)
            return found

        patch.setattr(run_module, "_foreign_files", meanwhile)
        Run.create(planned.path, planned.plan, planned.catalogue)
    assert (planned.path / "plan.json").read_text() == text
    assert {path for path in (planned.path / "peaks.zarr").rglob("c/*") if path.is_file()} == shards
    assert set(planned.done()) == {0}


def test_a_store_of_format_2_is_refused(planned: Run):
    # Its codecs may run what they read.
    name = planned.path / "peaks.zarr" / "hkl"
    shutil.rmtree(name)
    zarr.create_array(name, shape=(8, 3), chunks=(8, 3), dtype="int16", zarr_format=2)
    with pytest.raises(RunError, match="cannot be opened"):
        store_module.open_array(planned.path / "peaks.zarr", "hkl")
