"""The user's settings: one TOML file, general values above and a table for each command below.

Only what changes no result may stand here. A setting is an option with an environment variable; the
command line finds the value itself: flag, then environment, then this file, then default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from diffractory.cli.options import known_or_slurm
from diffractory.errors import AccessError, SpecError

#: Settings that are paths; relative ones are meant from the file's own folder.
_PATHS = ("site", "speed")


class Settings(BaseModel):
    """What a configuration file may set; as the options of the same names."""

    # Text for a number is a slip in a file that people write.
    model_config = ConfigDict(strict=True, extra="forbid")

    workers: Annotated[int, Field(ge=1)] | None = None
    cluster: Annotated[str, AfterValidator(known_or_slurm)] | None = None
    site: str | None = None
    jobs: Annotated[int, Field(ge=1)] | None = None
    device: str | None = None
    speed: str | None = None
    quiet: bool | None = None
    verbose: bool | None = None


def variable(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"DIFFRACTORY_{setting.upper()}"


@dataclass(frozen=True)
class ConfigFile:
    """What a configuration file says.

    Parameters
    ----------
    path : Path
    exists : bool
    general : dict
        Settings of every command that has them.
    tables : dict of dict
        Settings of one command; they win over the general ones.
    """

    path: Path
    exists: bool = False
    general: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def defaults(self, command: str, known: Iterable[str]) -> dict[str, Any]:
        """Return the values of a command, by the names of its options.

        Parameters
        ----------
        command : str
        known : iterable of str
            Settings that the command has.

        Raises
        ------
        SpecError
            If its table holds others.
        """
        own, known = self.tables.get(command, {}), sorted(known)
        for name in own:
            if name not in known:
                raise SpecError(
                    f"{self.path}: [{command}] {name} is no setting of `diffractory {command}`",
                    fix=f"Remove it; that command has {', '.join(known)}",
                )
        return {**self.general, **own}


def read_config(path: Path, named: bool, commands: Iterable[str]) -> ConfigFile:
    """Read a configuration file.

    Parameters
    ----------
    path : Path
    named : bool
        Whether the user named it; the usual one need not exist.
    commands : iterable of str
        Commands that may have a table.

    Raises
    ------
    AccessError
        If the file cannot be read.
    SpecError
        If it is not TOML, or holds an unknown key or a value of another type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not named:
            return ConfigFile(path)
        raise _unreadable(path, error) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(
            f"{path} is no configuration file: {error}",
            "it is TOML: lines such as `workers = 4`, tables such as [simulate]",
            "Correct it, or name another with --config",
        ) from None
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    general = {key: value for key, value in values.items() if key not in tables}
    commands = list(commands)
    problems = [_unknown(f"[{name}]", "command", name, commands) for name in tables if name not in commands]
    problems += _problems(general, "", commands)
    for name, table in tables.items():
        problems += _problems(table, f"[{name}] ", [])
    if problems:
        raise SpecError(
            f"{path}: " + "; ".join(problems),
            "only settings that change no result may stand there",
            "Correct the file, or name another with --config",
        )
    return ConfigFile(
        path, True, _absolute(general, path), {name: _absolute(table, path) for name, table in tables.items()}
    )


def _problems(values: Mapping[str, Any], place: str, commands: list[str]) -> list[str]:
    """Say what is wrong with the values of one table, key by key."""
    try:
        Settings(**values)
    except ValidationError as error:
        return [
            _unknown(f"{place}{key}", "setting", key, [*Settings.model_fields, *commands])
            if item["type"] == "extra_forbidden"
            else f"{place}{key} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
            for key in [str(item["loc"][0])]
        ]
    return []


def _unknown(shown: str, kind: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{shown} is no {kind}, {hint}"


def _absolute(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    folder = path.absolute().parent
    return {
        name: str(folder / Path(value).expanduser()) if name in _PATHS else value
        for name, value in values.items()
    }


def _unreadable(path: Path, error: OSError) -> AccessError:
    return AccessError(
        f"the configuration file {path} cannot be read ({error.strerror or error})",
        fix="Name a file that can be read with --config or DIFFRACTORY_CONFIG, or leave both out",
    )
