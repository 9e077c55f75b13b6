"""The command as a whole: help, version, interruptions, messages."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from typer import Typer

import diffractory as package
from cli_runs import Workshop, diffractory, succeeds
from diffractory.cli import app as app_module
from diffractory.cli import console
from diffractory.errors import DiffractoryError, ExecutionError, RunError

COMMANDS = (
    *("demo", "calibrate", "plan", "simulate", "verify", "status", "features"),
    *("export", "train", "evaluate", "inspect", "detect", "map", "doctor", "config"),
)


def test_alone_it_shows_help() -> None:
    answer = diffractory()
    assert "Usage: diffractory" in answer.stdout
    assert "Start here: diffractory demo" in answer.stdout
    for command in (*COMMANDS, "catalogue"):
        assert f"│ {command}" in answer.stdout
    assert succeeds("--help").flat == answer.flat


def test_version() -> None:
    assert succeeds("--version").stdout == f"diffractory {package.__version__}\n"


@pytest.mark.parametrize(
    "command", [(c,) for c in COMMANDS] + [("catalogue", "build"), ("catalogue", "show")]
)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    answer = succeeds(*command, "--help")
    assert f"Example: diffractory {' '.join(command)}" in answer.flat
    assert f"Usage: diffractory {' '.join(command)}" in answer.flat
    assert "completion" not in answer.stdout
    assert "--json" in answer.stdout


def test_every_command_is_in_a_module_of_its_own() -> None:
    modules = [module for module, _ in app_module._COMMANDS.values()]
    assert len(set(modules)) == len(modules)
    assert set(app_module._COMMANDS) == {*COMMANDS, "catalogue"}
    for module in modules:
        assert isinstance(import_module(f"diffractory.cli.{module}").app, Typer)


def _raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("diffractory.cli.status.Run.open", fail)


def test_ctrl_c_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _raises(monkeypatch, KeyboardInterrupt())
    answer = diffractory("status", tmp_path)
    assert answer.code == 130
    assert answer.stderr == "stopped; what was finished is kept, run the same command again to go on\n"
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("a", "b", "c"), 2), (ExecutionError("a", "b", "c"), 1)]
)
def test_known_errors_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: DiffractoryError, code: int
) -> None:
    _raises(monkeypatch, error)
    answer = diffractory("status", tmp_path)
    assert (answer.code, answer.stdout, answer.stderr) == (code, "", "error: a. b. c.\n")


BRACKETS = "[bold]runs[/italic] :smile: [1, 2] [/] \\[x]"


def test_messages_with_brackets_pass_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _raises(monkeypatch, RunError(BRACKETS))
    assert diffractory("status", tmp_path).stderr == f"error: {BRACKETS}.\n"


def test_notes_and_tables_with_brackets_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    console.note(BRACKETS)
    console.out.print(BRACKETS)
    table = Table(BRACKETS, title=BRACKETS)
    table.add_row(BRACKETS)
    console.out.print(table)
    said = capsys.readouterr()
    assert said.err == f"{BRACKETS}\n"
    assert said.out.count(BRACKETS) == 4


def test_a_run_in_a_folder_with_brackets(workshop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "[bold]run[/red]"
    succeeds("plan", run, "--catalogue", workshop.catalogue, "--orientations", "1", "--q-max", "0.5")
    for command in (
        ("simulate", run, "--cluster", "inline"),
        ("verify", run, "--cluster", "inline"),
        ("features", run, "--cluster", "inline"),
    ):
        answer = succeeds(*command)
        assert "[bold]run[/red]" in answer.stdout
        assert "[bold]run[/red]" in answer.stderr or command[0] == "verify"
    assert "[bold]run[/red]" in succeeds("status", run).stdout.replace("\n", "")


#: Runs the command line as the installed script does, with the arguments given.
SCRIPT = "import sys; from diffractory.cli.app import main; sys.argv[0] = 'diffractory'; main()"


def test_a_terminal_without_the_signs_of_the_field() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "plan", "--help"],
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b"Largest |g| in ???" in done.stdout


def test_a_reader_that_leaves_early_is_no_error(workshop: Workshop) -> None:
    command = '"$0" -c "$1" status "$2" --json | head -c 1'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, SCRIPT, str(workshop.run)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("{", "")
