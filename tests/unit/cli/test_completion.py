"""Completion of commands, their options and values, as bash asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli_runs import diffractory, succeeds

SCRIPT = "import sys; from diffractory.cli.app import main; sys.argv[0] = 'diffractory'; main()"


def _completed(monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """Return what bash is offered after a line; the last word may be incomplete."""
    words = line.split(" ")
    monkeypatch.setenv("_DIFFRACTORY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    answer = diffractory()
    assert (answer.code, answer.stderr) == (0, "")
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("diffractory si", {"simulate"}),
        ("diffractory --ver", {"--version", "--verbose"}),
        ("diffractory --quiet stat", {"status"}),
        ("diffractory simulate --cl", {"--cluster"}),
        ("diffractory simulate runs/first --wor", {"--workers"}),
        ("diffractory status --q", {"--quiet"}),
        ("diffractory catalogue ", {"build", "show"}),
        ("diffractory catalogue build --keep", {"--keep-setting"}),
        ("diffractory train --preset ", {"paper", "robust"}),
        ("diffractory nonsense --x", set()),
    ],
)
def test_bash_completes(monkeypatch: pytest.MonkeyPatch, line: str, offered: set[str]) -> None:
    assert set(_completed(monkeypatch, line)) == offered


def test_a_broken_configuration_file_does_not_stop_completion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("nonsense")
    monkeypatch.setenv("DIFFRACTORY_CONFIG", str(tmp_path / "config.toml"))
    assert _completed(monkeypatch, "diffractory status --js") == ["--json"]


def test_bash_itself_runs_the_script_it_is_given(tmp_path: Path) -> None:
    program = tmp_path / "diffractory"
    program.write_text(f"#!{sys.executable}\n{SCRIPT}\n")
    program.chmod(0o755)
    script = subprocess.run(
        [program], env={"_DIFFRACTORY_COMPLETE": "source_bash", "PATH": "/usr/bin:/bin", **_python_path()},
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    ask = 'eval "$1"; COMP_WORDS=(diffractory ca); COMP_CWORD=1; _diffractory_completion "$2"'
    done = subprocess.run(
        ["bash", "-c", ask + '; echo "${COMPREPLY[@]}"', "bash", script, str(program)],
        env={"PATH": "/usr/bin:/bin", **_python_path()},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["catalogue", "calibrate"]


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_the_script_is_shown_and_offered_at_the_top_only() -> None:
    shown = succeeds("--help").flat
    assert "--install-completion" in shown
    assert "--show-completion" in shown
    assert "completion" not in succeeds("status", "--help").flat
