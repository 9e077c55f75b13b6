"""`diffractory simulate --cluster slurm` on a real SLURM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli_runs import diffractory, refused, succeeds
from diffractory.dataset.run import PEAKS, Run
from diffractory.specs import OrientationSpec, SimulationSpec
from slurm_testbed import SITE, TESTBED, Testbed, command, wait_until
from small_runs import assert_same_peaks, finish, reference_run

#: Enough partitions that a driver can be stopped between two of them.
SIMULATION = SimulationSpec(q_max=1.5, thicknesses=(100.0, 730.0))
ORIENTATIONS = OrientationSpec(count=20, in_plane="random", seed=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reference_run(tmp_path_factory.mktemp("inline") / "run", 8, ORIENTATIONS, SIMULATION)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return Run.create(tmp_path / "a run", finished.plan, finished.catalogue)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return _write_site(tmp_path)


def _write_site(folder: Path, **changes: object) -> Path:
    path = folder / "site.toml"
    lines = (f"{key} = {value!r}" for key, value in (SITE | changes).items())
    path.write_text("\n".join(lines))
    return path


def test_slurm_and_this_process_give_the_same_peaks(testbed: Testbed, finished: Run, run: Run, site: Path):
    answer = succeeds("simulate", run.path, "--cluster", "slurm", "--site", site, "--jobs", "2", "--json")
    assert answer.json["partitions_computed"] == len(run.plan.partitions)
    assert "2 SLURM job(s) of 1 worker(s)" in answer.flat
    assert_same_peaks(run, finished)
    # The keys are gone; the logs are kept.
    assert {path.suffix for path in (run.path / "slurm").iterdir()} == {".log"}


def test_a_driver_that_is_told_to_end_cancels_its_jobs_and_the_run_goes_on(
    testbed: Testbed, finished: Run, run: Run, site: Path
):
    entry = "from diffractory.cli.app import main; main()"
    words = ["simulate", str(run.path), "--cluster", "slurm", "--site", str(site)]
    process = subprocess.Popen([sys.executable, "-c", entry, *words], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: list((run.path / "records" / PEAKS).glob("p*.json")))
        assert testbed.jobs("RUNNING")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "run the same command again" in said
    wait_until(lambda: not testbed.jobs(), 20)
    kept = len(run.done())
    assert 1 <= kept < len(run.plan.partitions)
    answer = succeeds("simulate", run.path, "--cluster", "inline", "--json")
    assert answer.json["partitions_done_before"] == kept
    assert_same_peaks(run, finished)


def test_a_partition_that_slurm_does_not_know_is_refused_before_anything_starts(
    testbed: Testbed, run: Run, tmp_path: Path
):
    site = _write_site(tmp_path, partition="nope")
    says = ("SLURM refuses the worker jobs", "nvalid partition", "nope", "--dry-run")
    refused("simulate", run.path, "--cluster", "slurm", "--site", site, untouched=run.path, says=says, code=1)


def test_an_interface_that_does_not_exist_is_named(testbed: Testbed, run: Run, tmp_path: Path):
    site = _write_site(tmp_path, interface="ib7")
    answer = diffractory("simulate", run.path, "--cluster", "slurm", "--site", site)
    assert answer.code == 1
    assert "interface = 'ib7' in the site file" in answer.stderr


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job scripts call `diffractory`, as an activated environment provides it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_a_job_array_without_dask_gives_the_same_peaks(
    testbed: Testbed, finished: Run, run: Run, on_path: None, tmp_path: Path
):
    script = TESTBED.parent / "slurm-array.sh"
    options = ["--array=0,2-3", "--mem=1200M", f"--output={tmp_path}/array-%a.log"]
    command("sbatch", "--wait", *options, str(script), str(run.path), seconds=500)
    assert set(run.done()) == {0, 2, 3}
    assert_same_peaks(finish(run), finished)


def test_a_driver_in_a_job_of_its_own_gives_the_same_peaks(
    testbed: Testbed, finished: Run, run: Run, site: Path, on_path: None, tmp_path: Path
):
    script, log = TESTBED.parent / "driver.sh", tmp_path / "driver.log"
    # The nodes of the testbed are small.
    options = ["--mem=1500M", "--cpus-per-task=1", f"--output={log}"]
    command("sbatch", "--wait", *options, str(script), str(run.path), str(site), "--jobs", "2", seconds=500)
    assert "2 SLURM job(s) of 1 worker(s)" in " ".join(log.read_text().split())
    assert_same_peaks(run, finished)
    assert json.loads(next((run.path / "log").iterdir()).read_text().splitlines()[-1])["status"] == "done"
