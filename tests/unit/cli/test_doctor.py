"""`diffractory doctor`: what is well, what is not, and that it says so without breaking."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli_runs import diffractory, succeeds
from diffractory.cli import doctor_checks as checks
from diffractory.cli.doctor_checks import Finding, Level


def _only(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_this_installation_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = succeeds("doctor", "--json").json
    assert answer["healthy"] is True
    found = {each["name"]: each for each in answer["findings"]}
    for name in (
        *("settings", "diffractory", "Python", "packages", "BLAS", "cores", "memory", "folder"),
        *("SLURM", "GPU", "LightGBM", "included model", "terminal", "speed"),
    ):
        assert found[name]["level"] in ("ok", "note"), found[name]
        assert found[name]["level"] == "ok" or found[name]["advice"], found[name]
    assert found["included model"]["found"] == "loads and answers, 7 crystal systems"
    assert answer["versions"]["numpy"]
    assert not list(tmp_path.iterdir())


def test_a_line_for_each_finding_and_a_code_for_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [
        Finding("a", "[red]well"),
        Finding("b", "hm", Level.NOTE, "try"),
        Finding("c", "bad", Level.PROBLEM, "do"),
    ]
    monkeypatch.setattr(checks, "CHECKS", (lambda: iter(findings[:2]),))
    lines = succeeds("doctor").stdout.splitlines()
    assert lines[1:] == ["ok      a               [red]well", "note    b               hm", f"{'':24}→ try"]
    monkeypatch.setattr(checks, "CHECKS", (lambda: iter(findings),))
    answer = diffractory("doctor")
    assert (answer.code, "error" in answer.stderr) == (1, False)
    assert f"problem c               bad\n{'':24}→ do" in answer.stdout
    assert diffractory("doctor", "--json").json["healthy"] is False


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_gravity() -> Iterator[Finding]:
        raise ImportError("an undefined symbol")

    monkeypatch.setattr(checks, "CHECKS", (check_gravity, lambda: iter([Finding("a", "well")])))
    broken, well = checks.examine()
    assert (broken.name, broken.level) == ("gravity", Level.PROBLEM)
    assert broken.found == "ImportError: an undefined symbol"
    assert well.level is Level.OK


def test_packages_that_are_missing_or_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1.26,<3", "scipy", "torch>=2 ; extra == 'gpu'", "zarr>=3"]
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda _: wanted)

    def version(name: str) -> str:
        if name == "scipy":
            raise PackageNotFoundError(name)
        return {"numpy": "3.1", "zarr": "3.1.0"}.get(name, "1")

    monkeypatch.setattr(checks.importlib.metadata, "version", version)
    numpy, scipy, summary = checks.check_packages()
    assert numpy.found == "3.1; <3,>=1.26 is needed"
    assert scipy.found == "missing; any version is needed"
    assert {numpy.level, scipy.level} == {Level.PROBLEM}
    assert summary.found.startswith("1 of 3 as needed")
    assert checks.versions()["scipy"] is None


def test_lightgbm_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(
        checks, "importlib", SimpleNamespace(import_module=load, metadata=checks.importlib.metadata)
    )
    found = _only(checks.check_boosting())
    assert found.level is Level.PROBLEM
    assert "libgomp.so.1" in found.found
    assert "libgomp1" in found.advice


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checks, "write_atomic", refuse)
    found = _only(checks.check_folder())
    assert (found.level, "Read-only file system" in found.found) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("kind", "level"), [("ext4", Level.OK), ("tmpfs", Level.NOTE), ("nfs4", Level.NOTE), ("", Level.OK)]
)
def test_the_file_system_counts(monkeypatch: pytest.MonkeyPatch, kind: str, level: Level) -> None:
    monkeypatch.setattr(checks, "_file_system", lambda _: kind)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    assert _only(checks.check_folder()).level is level
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    assert "plan --estimate" in _only(checks.check_folder()).advice


def test_the_deepest_mount_holds_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "a / ext4 rw\nb /scratch lustre rw\nc /my\\040disk nfs4 rw\nd /scratch xfs rw\nbroken\n"
    )
    for folder, kind in (("/scratch/me", "xfs"), ("/my disk/run", "nfs4"), ("/home", "ext4")):
        assert checks._file_system(Path(folder), mounts) == kind
    assert checks._file_system(Path("/"), tmp_path / "absent") == ""


def test_little_memory_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "machine_memory", lambda: 10**9)
    found = _only(checks.check_memory())
    assert (found.level, found.advice) == (Level.NOTE, "Use few workers: --workers 1")
    assert "1.0 GB usable of" in found.found


def test_fewer_cores_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "usable_cores", lambda: 3)
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 8)
    assert "3 usable of 8" in _only(checks.check_processors()).found


def _program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_slurm_there_silent_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on this machine" in _only(checks.check_slurm()).found
    _program(tmp_path, "sbatch", "")
    _program(tmp_path, "sinfo", '[ "$1" = --version ] && echo "slurm 23.02" || echo "main* up"')
    monkeypatch.setenv("SLURM_CONF", "/tmp/diffractory-slurm/slurm.conf")
    found = _only(checks.check_slurm())
    assert (found.level, found.found) == (Level.OK, "slurm 23.02 (a testbed); partitions: main* up")
    _program(tmp_path, "sinfo", "echo 'sinfo: error: no config; fatal: Unable to contact' >&2; exit 1")
    found = _only(checks.check_slurm())
    assert found.level is Level.NOTE
    assert "does not answer" in found.found
    assert "Unable to contact" in found.found
