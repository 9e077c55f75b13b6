"""Settings from flags, the environment and a file: precedence, and what is refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cli_runs import Workshop, diffractory, succeeds
from diffractory.cli import app as app_module
from diffractory.cli import common
from diffractory.cli.config_file import Settings, read_config, variable
from diffractory.errors import AccessError, SpecError
from diffractory.settings import config_file

COMMANDS = ("simulate", "train", "catalogue")


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _commands(command: TyperCommand | TyperGroup) -> list[TyperCommand | TyperGroup]:
    below = list(getattr(command, "commands", {}).values())
    return [leaf for each in below for leaf in _commands(each)] if below else [command]


def test_settings_are_the_options_with_a_variable_and_nothing_else() -> None:
    found = {"quiet", "verbose"}
    for module, _ in app_module._COMMANDS.values():
        for command in _commands(get_command(import_module(f"diffractory.cli.{module}").app)):
            for option in command.params:
                if option.envvar is not None:
                    assert option.envvar == variable(option.name), f"{command.name}: {option.name}"
                    found.add(option.name)
    assert found == set(Settings.model_fields)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The numbers of workers that `train` was called with; it does nothing else."""
    seen: list[int | None] = []

    def stop(cluster: str, workers: int | None, *_: object) -> None:
        seen.append(workers)
        raise SpecError("far enough")

    monkeypatch.setattr("diffractory.cli.train.engine_here", stop)
    return seen


def test_a_flag_goes_before_the_environment_before_the_table_before_the_file(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: list[int | None]
) -> None:
    train = ("train", workshop.run, "--out", tmp_path / "model")
    file = _write(tmp_path, "workers = 5\n[train]\nworkers = 4\n[verify]\nworkers = 3\n")
    diffractory(*train)
    diffractory("--config", file, *train)
    _write(tmp_path, "workers = 5\n[verify]\nworkers = 3\n")
    diffractory(*train, "--config", file)
    monkeypatch.setenv("DIFFRACTORY_CONFIG", str(file))
    diffractory(*train)
    monkeypatch.setenv("DIFFRACTORY_WORKERS", "2")
    diffractory(*train)
    diffractory(*train, "--workers", "1")
    assert used == [None, 4, 5, 5, 2, 1]


def test_the_file_of_the_users_configuration_folder_is_read(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: list[int | None]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "diffractory" / "config.toml"
    config_file().parent.mkdir()
    config_file().write_text("workers = 7")
    diffractory("train", workshop.run, "--out", tmp_path / "model")
    assert used == [7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wokers = 4", ("wokers is no setting", "did you mean workers?")),
        ("thickness = 200", ("thickness is no setting", "workers, cluster, site")),
        ("[simulat]\nworkers = 4", ("[simulat] is no command", "did you mean simulate?")),
        ("[simulate]\nq_max = 3", ("[simulate] q_max is no setting", "only settings that change no result")),
        ("workers = '4'", ("workers = '4'", "valid integer")),
        ("[train]\nworkers = 0", ("[train] workers = 0", "greater than or equal to 1")),
        ("quiet = 1", ("quiet = 1", "valid boolean")),
        ("cluster = 'moon'", ("cluster = 'moon'", "tcp://host:port")),
        ("workers = 4\nworkers = 5", ("is no configuration file", "Cannot overwrite")),
        ("[simulate", ("is no configuration file", "Expected ']'")),
        ("workers = 4\njobs = 'x'\nsight = 's'", ("jobs = 'x'", "sight is no setting, did you mean site?")),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = _write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read_config(file, True, COMMANDS)
    for word in (str(file), *words):
        assert word in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert not read_config(absent, False, COMMANDS).exists
    for path, word in ((absent, "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(AccessError, match=word) as caught:
            read_config(path, True, COMMANDS)
        assert str(path) in caught.value.what
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="is no configuration file"):
        read_config(tmp_path / "bytes.toml", False, COMMANDS)


def test_a_broken_file_stops_a_command_but_not_its_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFRACTORY_CONFIG", str(_write(tmp_path, "wokers = 4")))
    answer = diffractory("status", tmp_path)
    assert answer.code == 2
    assert answer.stderr.count("error: ") == 1
    assert "wokers is no setting, did you mean workers?" in answer.stderr
    succeeds("status", "--help")
    succeeds("--help")


def test_a_setting_a_command_does_not_have(tmp_path: Path) -> None:
    file = _write(tmp_path, "workers = 4\n[status]\nworkers = 2\n")
    answer = diffractory("--config", file, "status", tmp_path)
    assert answer.code == 2
    assert "[status] workers is no setting of `diffractory status`" in answer.stderr
    assert "that command has quiet, verbose" in answer.stderr


def test_paths_are_meant_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = "site = 'sites/mine.toml'\nspeed = '~/speed.json'\n[simulate]\nsite = '/etc/site.toml'\n"
    config = read_config(_write(tmp_path, text), True, COMMANDS)
    assert config.general == {"site": str(tmp_path / "sites/mine.toml"), "speed": "/home/somebody/speed.json"}
    assert config.defaults("simulate", ["site"])["site"] == "/etc/site.toml"


def test_a_site_of_the_file_does_not_stop_local_work(workshop: Workshop, tmp_path: Path) -> None:
    file = _write(tmp_path, "cluster = 'slurm'\nsite = 'absent.toml'\njobs = 3\n")
    inline = ("--cluster", "inline", "--config", file)
    assert succeeds("simulate", workshop.run, *inline, "--json").json["partitions_computed"] == 0
    answer = diffractory("simulate", workshop.run, "--config", file)
    assert (answer.code, "absent.toml" in answer.stderr) == (2, True)
    answer = diffractory("simulate", workshop.run, *inline, "--jobs", "2")
    assert "--jobs is for --cluster slurm" in answer.stderr
    answer = diffractory("evaluate", workshop.model, workshop.run, "--config", file)
    assert answer.code == 2
    assert "set cluster in [evaluate]" in answer.stderr


def test_config_shows_what_is_in_force_and_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(tmp_path, "workers = 5\njobs = 2\n[train]\nworkers = 4\n")
    monkeypatch.setenv("DIFFRACTORY_JOBS", "9")
    answer = succeeds("config", "--config", file, "--json").json
    rows = {(row["setting"], row["command"]): (row["value"], row["from"]) for row in answer["settings"]}
    assert (answer["file"], answer["exists"]) == (str(file), True)
    assert rows["workers", None] == (5, "file")
    assert rows["workers", "train"] == (4, "file [train]")
    assert rows["jobs", None] == ("9", "environment DIFFRACTORY_JOBS")
    assert rows["cluster", None] == (None, "default")
    shown = succeeds("config", "--config", file)
    assert "environment DIFFRACTORY_JOBS" in shown.flat
    assert str(file) in shown.stderr
    assert "there is none" in succeeds("config").stderr


def test_options_of_every_command_are_on_every_command() -> None:
    for words in (("status",), ("catalogue",), ("catalogue", "build"), ()):
        shown = succeeds(*words, "--help").flat
        for name in common.NAMES:
            assert f"--{name}" in shown, words
