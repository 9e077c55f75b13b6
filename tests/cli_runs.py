"""The command line in this process, and one finished tiny run, model and scan made with it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from diffractory.cli.app import main
from diffractory.crystals.systems import system_code
from diffractory.dataset.partition import read_partition
from diffractory.dataset.run import Run
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from small_runs import zoo_catalogue
from zoo import ZOO

#: Two or three crystals of every system.
CRYSTALS = tuple(
    name
    for name in ZOO
    if name
    not in (
        "cubic-I-c-iron",
        "cubic-F-a-GaAs",
        "cubic-skew-primitive-a-GaAs",
        "cubic-turned-frame-c-copper",
    )
)
PHYSICS = ("--orientations", "10", "--thickness", "100:300:100", "--q-max", "1.0")
SCAN_SHAPE = (12, 14)


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout; NaN and Infinity are no JSON."""
        return json.loads(self.stdout, parse_constant=_refuse)

    @property
    def flat(self) -> str:
        """Everything printed, without line breaks and table rules."""
        return " ".join((self.stdout + " " + self.stderr).replace("│", " ").split())


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def diffractory(*arguments: object) -> Answer:
    """Run the command line with these arguments, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    argv = ["diffractory", *(str(argument) for argument in arguments)]
    code = 0
    with mock.patch.object(sys, "argv", argv), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Answer(code, stdout.getvalue(), stderr.getvalue())


def succeeds(*arguments: object) -> Answer:
    """Run a command that must succeed."""
    answer = diffractory(*arguments)
    assert answer.code == 0, answer.stdout + answer.stderr
    return answer


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file and the name of every folder below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def refused(*arguments: object, untouched: Path, says: tuple[str, ...], code: int = 2) -> Answer:
    """Run a command that must be refused: one clear message, the exit code, and no data touched."""
    before = fingerprint(untouched)
    answer = diffractory(*arguments)
    assert answer.code == code, answer.stdout + answer.stderr
    assert answer.stderr.count("error: ") == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    message = answer.stderr.partition("error: ")[2]
    for words in says:
        assert words in message, f"{words!r} is not in: {message}"
    assert fingerprint(untouched) == before
    return answer


@dataclass(frozen=True)
class Workshop:
    """A finished tiny run, its model and a scan, and what the commands said that made them."""

    root: Path
    catalogue: Path
    run: Path
    model: Path
    scan: Path
    said: dict[str, Answer]


@cache
def finished_workshop(base: Path) -> Workshop:
    """Make the workshop below a folder, once for all test modules of a session."""
    root = base / "workshop"
    catalogue, run, model, scan = (root / n for n in ("crystals.parquet", "run", "model", "scan.h5"))
    zoo_catalogue(CRYSTALS).to_parquet(catalogue)
    inline = ("--cluster", "inline")
    said = {
        "plan": succeeds("plan", run, "--catalogue", catalogue, *PHYSICS, "--partition-seconds", "0.025"),
        "status-planned": succeeds("status", run, "--json"),
        "simulate": succeeds("simulate", run, *inline, "--json"),
        "features": succeeds("features", run, *inline, "--json"),
        "train": succeeds("train", run, "--out", model, *inline, "--json"),
    }
    _write_scan(Run.open(run), scan)
    return Workshop(root, catalogue, run, model, scan, said)


def _write_scan(run: Run, path: Path) -> None:
    """Write a synthetic scan of all patterns of the run at 200 Å."""
    column = run.plan.simulation.thicknesses.index(200.0)
    parts = [read_partition(run, index).table(column) for index in range(len(run.plan.partitions))]
    table = run.catalogue.table
    owners = np.arange(run.plan.n_items) // run.plan.orientations.count
    labels = GrainLabels(
        np.array([system_code(name) for name in table["crystal_system"]], dtype=np.int8)[owners],
        table["space_group"].to_numpy(dtype=np.int16)[owners],
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[owners],
        np.array(run.catalogue.ids)[owners],
    )
    scan, _ = synthetic_scan(PeakTable.concatenate(parts), labels, SCAN_SHAPE, 9, seed=1, energy_ev=300e3)
    scan.to_emd(path)
