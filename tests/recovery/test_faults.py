"""Everything that goes wrong on a machine, end to end: the run equals an undisturbed one afterwards.

SLURM's own faults (cancelled jobs, dead nodes, walltimes) are in tests/slurm; a driver that is killed is in
test_killed_simulate.py.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

import worker_simulations
from cli_runs import diffractory, refused, succeeds
from diffractory.dataset.run import PEAKS, Run
from diffractory.dataset.verify import verify_partition
from diffractory.execution.engine import open_engine
from diffractory.specs import OrientationSpec, SimulationSpec
from small_runs import assert_same_peaks, reference_run, zoo_catalogue

#: Where each partition takes long enough to be hit.
SIMULATION = SimulationSpec(q_max=2.0, thicknesses=(100.0, 730.0))
ORIENTATIONS = OrientationSpec(count=16, in_plane="random", seed=3)
INLINE = ("--cluster", "inline")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reference_run(tmp_path_factory.mktemp("undisturbed") / "run", 12, ORIENTATIONS, SIMULATION)


@pytest.fixture
def run(undisturbed: Run, tmp_path: Path) -> Run:
    """The same run, of which nothing is computed."""
    return Run.create(tmp_path / "a run", undisturbed.plan, undisturbed.catalogue)


@pytest.fixture
def finished(undisturbed: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(undisturbed.path, tmp_path / "a finished run")
    return Run.open(tmp_path / "a finished run")


def _is_whole(run: Run, undisturbed: Run) -> None:
    parts = range(len(run.plan.partitions))
    assert all(verify_partition(run.path, index).problems == () for index in parts)
    assert_same_peaks(run, undisturbed)
    assert list(run.path.rglob("*.partial")) == []


def _computed_anew(run: Run, *options: str) -> int:
    answer = succeeds("simulate", run.path, *options, "--json")
    return int(answer.json["partitions_computed"])


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.005)


@contextmanager
def _driver(run: Run, *options: str, **keywords: object) -> Iterator[subprocess.Popen[str]]:
    """Start `diffractory simulate` as a process of its own."""
    # Ten seconds without a scheduler are enough here.
    entry = "from diffractory.execution import engine; engine._PATIENCE = 10\n"
    entry += "from diffractory.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "simulate", str(run.path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _records(run: Run) -> list[Path]:
    return list((run.path / "records" / PEAKS).glob("p*.json"))


def _log_lines(run: Run) -> list[dict]:
    return [
        json.loads(line)
        for path in (run.path / "log").iterdir()
        for line in path.read_text().split("\n")[:-1]
    ]


def test_a_worker_is_killed(run: Run, undisturbed: Run):
    with _driver(run, "--cluster", "local", "--workers", "2", "--json") as driver:
        _wait(lambda: _records(run))
        workers = [
            child
            for child in psutil.Process(driver.pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert workers
        workers[0].kill()
        said, complaints = driver.communicate(timeout=120)
    assert driver.returncode == 0, complaints
    assert json.loads(said)["partitions_computed"] == len(run.plan.partitions)
    _is_whole(run, undisturbed)


def test_a_worker_runs_out_of_memory(run: Run, undisturbed: Run):
    parts = range(len(run.plan.partitions))
    with open_engine("local", 1, 1_500_000_000) as engine:
        outcomes = list(engine.run(partial(worker_simulations.simulate_with_appetite, run.path), parts))
    assert [outcome.error for outcome in outcomes] == [None] * len(parts)
    attempts = [int(line) for line in (run.path / "attempts").read_text().split()]
    # The hungry partition twice, and at most what waited at the same worker.
    assert attempts.count(1) == 2
    assert len(attempts) <= len(parts) + 2
    (run.path / "attempts").unlink()
    _is_whole(run, undisturbed)


def test_a_disk_is_full_in_the_middle_of_a_shard(run: Run, undisturbed: Run):
    sizes = sorted(shard.size for record in undisturbed.done().values() for shard in record.shards.values())
    # No file can grow beyond half of the largest shard: the kernel takes a part of what is written.
    limit = sizes[-1] // 2
    with _driver(
        run, *INLINE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ) as driver:
        said, complaints = driver.communicate(timeout=120)
    assert driver.returncode == 1, said + complaints
    assert "cannot be written" in complaints
    assert "Make room on the disk" in complaints
    assert "Traceback" not in complaints
    assert list(run.path.rglob("*.partial*")) == []
    kept = run.done()
    assert len(kept) < len(run.plan.partitions)
    assert {line["status"] for line in _log_lines(run)} <= {"done", "failed"}
    assert _computed_anew(run, *INLINE) == len(run.plan.partitions) - len(kept)
    _is_whole(run, undisturbed)


def test_a_partition_fails_always(run: Run, undisturbed: Run):
    name = next(
        name for name in undisturbed.record(PEAKS, 3, undisturbed.plan.plan_id).shards if "hkl" in name
    )
    obstacle = run.path / name
    obstacle.mkdir(parents=True)
    answer = diffractory("simulate", run.path, *INLINE)
    assert answer.code == 1
    assert f"1 of {len(run.plan.partitions)} parts failed, the others are finished" in answer.flat
    assert "part 3: " in answer.flat
    assert set(run.done()) == set(range(len(run.plan.partitions))) - {3}
    (failed,) = [line for line in _log_lines(run) if line["status"] == "failed"]
    assert failed["partition"] == 3
    obstacle.rmdir()
    assert _computed_anew(run, *INLINE) == 1
    _is_whole(run, undisturbed)


def test_a_second_driver_is_refused(run: Run, undisturbed: Run):
    with _driver(run, *INLINE) as driver:
        _wait(lambda: _records(run))
        second = diffractory("simulate", run.path, *INLINE)
        assert (second.code, driver.poll()) == (2, None), second.stderr
        assert f"driven by another command. process {driver.pid} on " in second.flat
        _, complaints = driver.communicate(timeout=120)
    assert driver.returncode == 0, complaints
    _is_whole(run, undisturbed)


def test_the_scheduler_is_lost(run: Run, undisturbed: Run, tmp_path: Path):
    log = tmp_path / "scheduler.json"
    file = ["--scheduler-file", str(log)]
    start = "from distributed.cli import dask_scheduler as c; c.main()"
    scheduler = subprocess.Popen(
        [sys.executable, "-c", start, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *file],
        stderr=subprocess.DEVNULL,
    )
    start = "from distributed.cli import dask_worker as c; c.main()"
    options = ["--nthreads", "1", "--no-dashboard", "--death-timeout", "20", *file]
    worker = None
    try:
        _wait(lambda: log.exists() and log.read_text().endswith("}"))
        worker = subprocess.Popen([sys.executable, "-c", start, *options], stderr=subprocess.DEVNULL)
        with _driver(run, "--cluster", json.loads(log.read_text())["address"]) as driver:
            _wait(lambda: _records(run))
            scheduler.kill()
            _, complaints = driver.communicate(timeout=180)
        assert driver.returncode == 1, complaints
        assert "went away" in complaints
        assert "Traceback" not in complaints
    finally:
        for process in filter(None, (scheduler, worker)):
            process.terminate()
            process.wait(60)
    kept = len(run.done())
    assert kept >= 1
    assert _computed_anew(run, *INLINE) == len(run.plan.partitions) - kept
    _is_whole(run, undisturbed)


def test_a_bit_is_flipped_in_a_shard(finished: Run, undisturbed: Run):
    victim = next(name for name in finished.done()[5].shards if "intensity" in name)
    data = bytearray((finished.path / victim).read_bytes())
    data[len(data) // 2] ^= 1
    (finished.path / victim).write_bytes(data)
    refused("verify", finished.path, *INLINE, untouched=finished.path, says=("partition 5", "--repair"))
    assert diffractory("verify", finished.path, *INLINE, "--repair").code == 2
    assert _computed_anew(finished, *INLINE) == 1
    _is_whole(finished, undisturbed)


def test_a_record_is_cut(finished: Run, undisturbed: Run):
    path = finished.record_path(PEAKS, 2)
    path.write_bytes(path.read_bytes()[:100])
    assert _computed_anew(finished, *INLINE) == 1
    _is_whole(finished, undisturbed)


def test_the_catalogue_or_the_code_changes_under_a_run(
    finished: Run, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
):
    finished.record_path(PEAKS, 0).unlink()
    catalogue = finished.path / "catalogue.parquet"
    original = catalogue.read_bytes()
    zoo_catalogue(("cubic-F-c-copper",)).to_parquet(catalogue)
    says = ("is not the catalogue this run was planned with",)
    refused("simulate", finished.path, *INLINE, untouched=finished.path, says=says)
    catalogue.write_bytes(original)
    with monkeypatch.context() as patch:
        patch.setattr("diffractory.dataset.run.__version__", "7.0.0")
        says = ("was planned with diffractory", "this is 7.0.0")
        refused("simulate", finished.path, *INLINE, untouched=finished.path, says=says)
        refused("simulate", finished.path, "--partition", "0", untouched=finished.path, says=says)
    assert _computed_anew(finished, *INLINE) == 1
    _is_whole(finished, undisturbed)
