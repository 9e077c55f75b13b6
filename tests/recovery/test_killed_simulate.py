"""Kill `diffractory simulate` midway, run it again, and compare with a run that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffractory.cli import app as app_module
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan
from diffractory.dataset.run import PEAKS, Run
from diffractory.dataset.verify import verify_partition
from diffractory.specs import OrientationSpec, SimulationSpec
from small_runs import assert_same_peaks, finish, small_plan, zoo_catalogue

#: Where each partition takes long enough to be hit by a kill.
SIMULATION = SimulationSpec(q_max=2.0, thicknesses=(100.0, 730.0))
ORIENTATIONS = OrientationSpec(count=16, in_plane="random", seed=3)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return zoo_catalogue()


@pytest.fixture(scope="module")
def plan(catalogue: Catalogue) -> Plan:
    return small_plan(catalogue, 12, ORIENTATIONS, SIMULATION)


@pytest.fixture(scope="module")
def uninterrupted(catalogue: Catalogue, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(Run.create(tmp_path_factory.mktemp("whole") / "run", plan, catalogue))


def _records(run: Run) -> set[Path]:
    return set((run.path / "records" / PEAKS).glob("p*.json"))


def _simulate_until(run: Run, n_records: int, *options: str) -> None:
    """Start the command in a process group of its own and SIGKILL all of it at so many records."""
    entry = "from diffractory.cli.app import main; main()"
    command = [sys.executable, "-c", entry, "simulate", str(run.path), *options]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    try:
        while len(_records(run)) < n_records:
            assert process.poll() is None, f"it ended before it was killed: {process.communicate()[1]}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _diffractory(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["diffractory", *arguments])
    with pytest.raises(SystemExit) as ended:
        app_module.main()
    assert ended.value.code == 0


def _without_times(run: Run) -> list[dict]:
    records = []
    for path in sorted(_records(run)):
        content = json.loads(path.read_text())
        for key in ("seconds", "processor_seconds", "checksum", "shards"):
            del content[key]
        records.append(content)
    return records


@pytest.mark.parametrize(("cluster", "kills"), [("inline", 2), ("local", 1)])
def test_a_killed_simulation_goes_on_and_equals_an_uninterrupted_one(
    catalogue: Catalogue,
    plan: Plan,
    uninterrupted: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: str,
    kills: int,
):
    run = Run.create(tmp_path / "killed run", plan, catalogue)
    for _ in range(kills):
        _simulate_until(run, len(_records(run)) + 1, "--cluster", cluster, "--workers", "2")
    before = run.done()
    assert kills <= len(before) < len(plan.partitions)
    kept = {
        path: path.stat().st_mtime_ns
        for index, record in before.items()
        for path in [run.record_path(PEAKS, index), *(run.path / name for name in record.shards)]
    }
    _diffractory(monkeypatch, "simulate", str(run.path), "--cluster", "inline")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(run.done()) == len(plan.partitions)
    assert_same_peaks(run, uninterrupted)
    assert _without_times(run) == _without_times(uninterrupted)
    assert all(verify_partition(run.path, p).problems == () for p in range(len(plan.partitions)))


def test_a_finished_run_is_left_alone(
    uninterrupted: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.path.rglob("*")}
    _diffractory(monkeypatch, "simulate", str(uninterrupted.path), "--cluster", "inline", "--json")
    assert json.loads(capsys.readouterr().out)["partitions_computed"] == 0
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.path.rglob("*")} == before
