"""Ctrl-C on every long command: one line, code 130, no process stays, the same command finishes the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cli_processes import Interrupted, interrupt
from cli_runs import PHYSICS, SCAN_SHAPE, Workshop, finished_workshop, succeeds
from diffractory.dataset.run import PEAKS, Run
from frame_scans import frames_of, lattice_patterns
from small_runs import assert_same_peaks

INLINE = ("--cluster", "inline")
STOPPED = "stopped; what was finished is kept, run the same command again to go on"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return finished_workshop(tmp_path_factory.getbasetemp())


def stopped(*arguments: object, at: str, folder: Path) -> Interrupted:
    """Press Ctrl-C on a command at a moment and check how it ends."""
    ended = interrupt(arguments, at, folder)
    (folder / "said.txt").unlink()
    assert ended.code == 130, ended.said
    assert not ended.left, ended.said
    assert ended.said.rstrip().endswith(STOPPED), ended.said
    assert ended.said.count(STOPPED) == 1
    assert "Traceback" not in ended.said
    assert "error" not in ended.said.lower(), ended.said
    # Only what a later attempt uses may stay: no half-written files.
    assert not [path for path in folder.rglob("*") if ".partial" in path.name], ended.said
    return ended


def test_plan(workshop: Workshop, tmp_path: Path) -> None:
    command = ("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *PHYSICS)
    stopped(*command, at="counting beams: begun", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    succeeds(*command, "--partition-seconds", "0.025")
    assert Run.open(tmp_path / "run").plan == Run.open(workshop.run).plan


def test_simulate_on_workers(workshop: Workshop, tmp_path: Path) -> None:
    whole = Run.open(workshop.run)
    run = Run.create(tmp_path / "run", whole.plan, whole.catalogue)
    stopped("simulate", run.path, "--workers", "1", at="simulating: part 0 of", folder=tmp_path)
    done = run.done()
    assert 1 <= len(done) < len(run.plan.partitions)
    assert run.damaged() == {}
    answer = succeeds("simulate", run.path, *INLINE, "--json").json
    assert answer["partitions_done_before"] == len(done)
    assert_same_peaks(run, whole)


def test_features(workshop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(workshop.run, run, ignore=shutil.ignore_patterns("features*"))
    stopped("features", run, *INLINE, at="features: part 0 of", folder=tmp_path)
    succeeds("features", run, *INLINE)
    stages = succeeds("status", run, "--json").json["stages"]
    expected = succeeds("status", workshop.run, "--json").json["stages"]
    for stage in set(expected) - {PEAKS}:
        assert (stages[stage]["done"], stages[stage]["damaged"]) == (expected[stage]["done"], 0)


def test_verify(workshop: Workshop, tmp_path: Path) -> None:
    stopped("verify", workshop.run, *INLINE, at="verifying: part 0 of", folder=tmp_path)
    assert succeeds("verify", workshop.run, *INLINE, "--json").json["whole"]


def test_train(workshop: Workshop, tmp_path: Path) -> None:
    command = ("train", workshop.run, "--out", tmp_path / "model", *INLINE)
    stopped(*command, at="training: ", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    succeeds(*command)
    for name in (path.name for path in workshop.model.iterdir() if path.suffix == ".npz"):
        assert (tmp_path / "model" / name).read_bytes() == (workshop.model / name).read_bytes()


def test_evaluate(workshop: Workshop, tmp_path: Path) -> None:
    command = ("evaluate", workshop.model, workshop.run, "--out", tmp_path / "evaluation", *INLINE)
    stopped(*command, at="lab protocol: part 0 of", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    succeeds(*command)
    assert (tmp_path / "evaluation" / "evaluation.html").is_file()


def test_map(workshop: Workshop, tmp_path: Path) -> None:
    command = (
        "map",
        workshop.scan,
        "--model",
        workshop.model,
        "--out",
        tmp_path / "map",
        "--no-report",
        *INLINE,
    )
    stopped(*command, at="positions: begun", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert succeeds(*command, "--json").json["positions"] == SCAN_SHAPE[0] * SCAN_SHAPE[1]


def test_export(workshop: Workshop, tmp_path: Path) -> None:
    command = ("export", workshop.run, "--out", tmp_path / "peaks.parquet")
    stopped(*command, at="patterns: begun", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert succeeds(*command, "--json").json["peaks"] > 0


def test_catalogue_build(tmp_path: Path) -> None:
    command = ("catalogue", "build", tmp_path / "crystals.parquet", "--max-volume", "25")
    stopped(*command, at="crystals: begun", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert succeeds(*command, "--json").json["n_crystals"] > 0


def test_detect(tmp_path: Path) -> None:
    scan, _ = frames_of(lattice_patterns(48), (6, 8))
    frames = tmp_path / "frames.npy"
    np.save(frames, scan.frames.to_numpy())
    command = ("detect", frames, "--out", tmp_path / "out" / "scan.h5", "--pixel-size", "0.02", *INLINE)
    stopped(*command, at="Finding disks: part 0 of", folder=tmp_path)
    assert list((tmp_path / "out").glob(".scan.h5.parts-*/*"))
    assert succeeds(*command, "--json").json["positions"] == 48
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan-detection", "scan.h5"]


def test_demo(tmp_path: Path) -> None:
    command = ("demo", "--out", tmp_path / "demo", "--crystals", "24", "--workers", "1")
    stopped(*command, at="counting beams: begun", folder=tmp_path)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"catalogue.parquet", "catalogue.png"}
