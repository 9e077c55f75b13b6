"""Unknown commands and options, and results that cannot be written where they are asked for."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from cli_runs import PHYSICS, Workshop, diffractory, fingerprint, refused, succeeds

INLINE = ("--cluster", "inline")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulat",), ("No such command 'simulat'. Did you mean 'simulate'?",)),
        (("plan", "run", "--thicknes", "200"), ("No such option", "--thickness")),
        (("simulate",), ("Missing argument", "RUN")),
        (("plan", "run"), ("Missing option", "--catalogue")),
        (("simulate", "run", "--workers", "0"), ("--workers", "greater than or equal to 1")),
        (("simulate", "run", "--workers", "two"), ("--workers", "valid integer")),
        (("simulate", "run", "--partition", "-1"), ("--partition", "greater than or equal to 0")),
        (("verify", "run", "--sample", "2"), ("--sample", "less than or equal to 1")),
        (("evaluate", "model", "run", "--seed", "-1"), ("--seed", "greater than or equal to 0")),
        (
            ("map", "scan.h5", "--model", "m", "--out", "o", "--center", "1"),
            ("--center", "requires 2 arguments"),
        ),
        (("catalogue", "built", "c.parquet"), ("No such command 'built'", "build")),
        (("catalogue", "build", "c.parquet", "--source", "icsd"), ("--source", "'icsd' is not one of")),
        (("status", "one", "two"), ("unexpected extra argument",)),
        (("[/bold]",), ("No such command '[/bold]'",)),
        (("plan", "run", "--[red]x"), ("No such option: --[red]x",)),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_where_help_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = diffractory(*arguments)
    assert answer.code == 2
    if "--center" not in words:  # the parser raises this one without knowing the command
        assert "Try 'diffractory " in answer.stderr
        assert "Usage: diffractory" in answer.stderr
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.flat
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dask", "Local", "", "Slurm", "127.0.0.1:8786"])
def test_an_unknown_cluster(workshop: Workshop, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    for command in (
        ("simulate", workshop.run),
        ("verify", workshop.run),
        ("features", workshop.run),
        ("train", workshop.run, "--out", out),
        ("evaluate", workshop.model, workshop.run, "--out", out),
        ("map", workshop.scan, "--model", workshop.model, "--out", out),
    ):
        says = (f"--cluster {name!r} is unknown", "local, threads, inline", "tcp://host:port")
        refused(*command, "--cluster", name, untouched=tmp_path, says=says)


def test_slurm_is_refused_where_work_has_no_parts(workshop: Workshop, tmp_path: Path) -> None:
    command = ("evaluate", workshop.model, workshop.run, "--out", tmp_path / "out", "--cluster", "slurm")
    says = ("--cluster slurm is not there", "inside one SLURM job", "--cluster local")
    refused(*command, untouched=tmp_path, says=says)


@pytest.mark.parametrize("command", ["simulate", "features", "verify"])
def test_slurm_options_that_do_not_fit(workshop: Workshop, tmp_path: Path, command: str) -> None:
    site = tmp_path / "site.toml"
    site.write_text('walltime = "01:00:00"\ncores = -1\nmemory = "2 GiB"\n')
    slurm = (command, workshop.run, "--cluster", "slurm")
    for arguments, says in (
        (slurm, ("needs --site FILE", "generic.toml")),
        ((*slurm, "--site", site), (str(site), "cores = -1")),
        ((*slurm, "--site", tmp_path / "absent"), ("absent", "cannot be read")),
        ((command, workshop.run, "--site", site), ("--site is for --cluster slurm",)),
        ((command, workshop.run, "--jobs", 2), ("--jobs is for --cluster slurm",)),
        ((command, workshop.run, "--dry-run"), ("--dry-run is for --cluster slurm",)),
    ):
        refused(*arguments, untouched=workshop.run, says=says)


@pytest.mark.parametrize("command", ["simulate", "features", "verify"])
def test_a_dry_run_prints_the_job_script_and_does_nothing(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, so nothing can be submitted
    site = tmp_path / "site.toml"
    site.write_text('partition = "long"\nwalltime = "01:00:00"\ncores = 1\nmemory = "2 GiB"\n')
    before = fingerprint(workshop.run)
    answer = succeeds(command, workshop.run, "--cluster", "slurm", "--site", site, "--dry-run")
    assert answer.stdout.startswith("#!")
    assert "#SBATCH -p long" in answer.stdout
    assert "distributed.cli.dask_worker" in answer.stdout
    assert fingerprint(workshop.run) == before


def _writers(workshop: Workshop, place: Path) -> dict[str, tuple[object, ...]]:
    """Return each command that writes, told to write to ``place``."""
    return {
        "catalogue": ("catalogue", "build", place / "c.parquet", "--limit", "3", "--max-volume", "40"),
        "dropped": (
            *("catalogue", "build", place.parent / "c.parquet", "--limit", "3", "--max-volume", "40"),
            *("--dropped", place / "d.csv"),
        ),
        "show": ("catalogue", "show", workshop.catalogue, "--figure", place / "f.png"),
        "plan": ("plan", place / "run", "--catalogue", workshop.catalogue, *PHYSICS),
        "export": ("export", workshop.run, "--out", place / "peaks.parquet"),
        "train": ("train", workshop.run, "--out", place / "model", *INLINE),
        "evaluate": ("evaluate", workshop.model, workshop.run, "--out", place / "evaluation", *INLINE),
        "map": ("map", workshop.scan, "--model", workshop.model, "--out", place / "map", *INLINE),
    }


WRITERS = ("catalogue", "dropped", "show", "plan", "export", "train", "evaluate", "map")


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_where_a_folder_should_be(workshop: Workshop, tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.write_text("mine")
    refused(*_writers(workshop, place)[name], untouched=tmp_path, says=(str(place),))


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written_to(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    access, mkdir, opened = os.access, Path.mkdir, Path.open

    def may(path: object, mode: int, **options: object) -> bool:
        return access(path, mode, **options) and not Path(str(path)).is_relative_to(place)

    def refuse(path: Path) -> None:
        if path.is_relative_to(place) and path != place:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def make(self: Path, *args: object, **options: object) -> None:
        refuse(self)
        mkdir(self, *args, **options)

    def open_(self: Path, mode: str = "r", *args: object, **options: object) -> object:
        if "w" in mode:
            refuse(self)
        return opened(self, mode, *args, **options)

    monkeypatch.setattr(os, "access", may)
    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "open", open_)
    refused(*_writers(workshop, place)[name], untouched=tmp_path, says=(str(place), "ermission"))


@pytest.mark.parametrize("command", ["simulate", "features"])
def test_a_run_folder_that_became_read_only(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    run = Path(shutil.copytree(workshop.run, tmp_path / "run"))
    shutil.rmtree(run / "records")

    def read_only(path: Path, data: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    if command == "features":
        succeeds("simulate", run, *INLINE)
    monkeypatch.setattr("diffractory.dataset.records.write_atomic", read_only)
    answer = diffractory(command, run, *INLINE)
    assert answer.code in (1, 2)
    assert "Traceback" not in answer.stderr
    assert "Read-only file system" in answer.stderr
    assert str(run) in answer.stderr


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ("No space left on device", "the disk or your share of it is full", "Make room")),
        (errno.EDQUOT, ("quota", "the disk or your share of it is full", "Make room")),
        (errno.EACCES, ("Permission denied", "the operating system refused it", "Check the path")),
        (errno.EIO, ("Input/output error", "Check the path")),
    ],
)
def test_what_the_operating_system_refuses_is_one_message(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: tuple[str, ...]
) -> None:
    def refuse(path: Path, data: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("diffractory.cli.evaluate.write_atomic", refuse)
    out = tmp_path / "out"
    out.mkdir()
    evaluate = ("evaluate", workshop.model, workshop.run, "--out", out, *INLINE)
    refused(*evaluate, untouched=tmp_path, says=(f"{out / 'evaluation.json'}: ", *words))


def test_an_error_without_a_path_is_one_message_too(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: object) -> None:
        raise OSError("the network is gone")

    monkeypatch.setattr("diffractory.cli.mapping.write_atomic", refuse)
    answer = diffractory("map", workshop.scan, "--model", workshop.model, "--out", tmp_path / "map", *INLINE)
    assert answer.code == 2
    assert "error: the network is gone. the operating system refused it." in answer.stderr


@pytest.mark.parametrize("kept", ["thesis.tex", "plan.json", ".hidden"])
def test_a_model_takes_the_place_of_no_other_folder(workshop: Workshop, tmp_path: Path, kept: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / kept).write_text("mine")
    says = (f"{mine} holds {kept}", "would replace the whole folder", "new, empty or an older model")
    refused("train", workshop.run, "--out", mine, *INLINE, untouched=tmp_path, says=says)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_model_is_not_the_working_folder(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    says = (f"{name} names no folder of its own", "models/first")
    refused("train", workshop.run, "--out", name, *INLINE, untouched=tmp_path, says=says)


def test_a_run_is_not_replaced_by_its_model(workshop: Workshop) -> None:
    says = ("would replace the whole folder",)
    refused("train", workshop.run, "--out", workshop.run, *INLINE, untouched=workshop.root, says=says)


def test_a_very_long_name_is_one_message(workshop: Workshop, tmp_path: Path) -> None:
    long = "x" * 300
    before = fingerprint(tmp_path)
    for command in _writers(workshop, tmp_path / long).values():
        answer = diffractory(*command)
        assert answer.code == 2
        assert "File name too long" in answer.stderr
        assert "Traceback" not in answer.stderr
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("device", ["cuda:99", "warp drive", "meta"])
def test_a_device_that_cannot_be_used(workshop: Workshop, tmp_path: Path, device: str) -> None:
    run = tmp_path / "run"
    succeeds("plan", run, "--catalogue", workshop.catalogue, *PHYSICS)
    # With PyTorch: what it sees. Without: how to get it.
    for more in (("--partition", 0), ()):
        refused("simulate", run, *more, "--device", device, untouched=tmp_path, says=("PyTorch",))
