"""--quiet and --verbose, plain output, unforeseen errors and exit codes."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli_runs import Workshop, diffractory, succeeds
from diffractory import __version__
from diffractory.cli import progress
from diffractory.cli.console import Verbosity, complain, note, set_verbosity
from diffractory.cli.progress import counting_bar
from diffractory.errors import ExecutionError, RunError

SCRIPT = "import sys; from diffractory.cli.app import main; sys.argv[0] = 'diffractory'; main()"


def _verify(workshop: Workshop) -> tuple[object, ...]:
    return ("verify", workshop.run, "--cluster", "inline", "--sample", "0")


def test_quiet_leaves_results_alone_wherever_it_is_said(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = succeeds(*_verify(workshop))
    assert "verifying: 100%" in usual.stderr
    file = tmp_path / "config.toml"
    file.write_text("quiet = true")
    for words in (
        ("--quiet", *_verify(workshop)),
        (*_verify(workshop), "-q"),
        (*_verify(workshop), "--config", file),
    ):
        answer = succeeds(*words)
        assert (answer.stdout, answer.stderr) == (usual.stdout, "")
    monkeypatch.setenv("DIFFRACTORY_QUIET", "1")
    assert succeeds(*_verify(workshop)).stderr == ""
    assert "verifying: part 0" in succeeds(*_verify(workshop), "--verbose").stderr
    monkeypatch.delenv("DIFFRACTORY_QUIET")
    assert "verifying: 100%" in succeeds(*_verify(workshop)).stderr


def test_quiet_does_not_silence_errors(tmp_path: Path) -> None:
    answer = diffractory("-q", "status", tmp_path)
    assert answer.code == 2
    assert answer.stderr.startswith("error: ")
    assert "plan.json" in answer.stderr


def test_verbose_says_what_is_done_and_where(workshop: Workshop, tmp_path: Path) -> None:
    for words in (("-v", *_verify(workshop)), (*_verify(workshop), "--verbose")):
        said = succeeds(*words).stderr
        assert f"diffractory {__version__}, Python" in said
        assert "config.toml" in said
        assert "work runs on inline: Resources(workers=" in said
    assert (
        "wrote"
        in succeeds("catalogue", "show", workshop.catalogue, "--figure", tmp_path / "f.png", "-v").stderr
    )


@pytest.mark.parametrize("words", [("-q", "-v", "status", "x"), ("-q", "status", "x", "-v")])
def test_quiet_and_verbose_together_are_refused(words: tuple[str, ...]) -> None:
    answer = diffractory(*words)
    assert answer.code == 2
    assert "--quiet and --verbose do not go together" in answer.stderr


def _raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("diffractory.cli.status.Run.open", fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunError("a"), 2),
        (ExecutionError("a"), 1),
        (OSError(errno.EIO, "io"), 2),
        (MemoryError(), 1),
        (ZeroDivisionError("ours"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int) -> None:
    _raises(monkeypatch, error)
    answer = diffractory("status", tmp_path)
    assert (answer.code, answer.stdout) == (code, "")
    assert "Traceback" not in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_exit_codes_are_in_the_help_and_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "command-line.md").read_text()
    for code in (0, 1, 2, 70, 130):
        assert f"| {code} |" in text
        assert f" {code} " in succeeds("--help").flat


def test_a_defect_asks_for_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _raises(monkeypatch, ZeroDivisionError("[red]ours"))
    answer = diffractory("status", tmp_path / "my run")
    assert answer.stderr.startswith("error: unexpected ZeroDivisionError: [red]ours. this is a defect")
    assert (
        f"(diffractory {__version__}) and the command: diffractory status '{tmp_path}/my run'"
        in answer.stderr
    )
    answer = diffractory("status", tmp_path, "--verbose")
    assert answer.code == 70
    assert "Traceback (most recent call last)" in answer.stderr
    assert "raise error\n" in answer.stderr
    assert "error: unexpected ZeroDivisionError" in answer.stderr.splitlines()[-1]


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with counting_bar("steps") as bar:
        task = bar.add_task("", total=12)
        for _ in range(12):
            bar.advance(task)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[-1].startswith("steps: 100%, 12/12")
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_complaints_are_heard_when_notes_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.QUIET)
    note("a note")
    complain("[red]it failed", "error:")
    set_verbosity(Verbosity.NORMAL)
    note("another")
    assert capsys.readouterr().err == "error: [red]it failed\nanother\n"


def _on_a_terminal(folder: Path, **environment: str) -> str:
    """Run a command that fails on a terminal of its own, and return what it shows."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "config", "--config", str(folder)],
        stdin=secondary, stdout=secondary, stderr=secondary,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(secondary)
    shown = b""
    try:
        while piece := os.read(primary, 4096):
            shown += piece
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(primary)
    assert process.wait(60) == 2
    return shown.decode()


def test_colour_is_for_terminals_and_no_color_is_respected(tmp_path: Path) -> None:
    assert "\x1b[1;31merror:" in _on_a_terminal(tmp_path)
    plain = _on_a_terminal(tmp_path, NO_COLOR="1")
    assert "error:" in plain
    assert "\x1b[1;31m" not in plain
