"""Options of every command, before its name and after it: --quiet, --verbose, --config."""

from __future__ import annotations

import logging
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from diffractory import __version__
from diffractory.cli.console import Verbosity, set_verbosity
from diffractory.errors import SpecError
from diffractory.settings import config_file

if TYPE_CHECKING:
    from diffractory.cli.config_file import ConfigFile

logger = logging.getLogger(__name__)

#: Names of the options defined here.
NAMES = ("quiet", "verbose", "config")

_ASKED, _FILE, _CONFIG = (f"{__name__}.{name}" for name in ("asked", "file", "config"))
#: Who is heard where several say something: a flag before the environment before the file.
_RANKS = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 1}


def is_given(ctx: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line itself."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def has_run(ctx: typer.Context) -> bool:
    """Return whether this is the command that is run, not a group before it."""
    return ctx.parent is not None and not isinstance(ctx.command, TyperGroup)


def used_config(ctx: typer.Context) -> ConfigFile:
    """Return the configuration file that the command that is run has read."""
    config: ConfigFile = ctx.meta[_CONFIG]
    return config


def add_common_options(command: TyperCommand | TyperGroup, root: TyperGroup) -> None:
    """Give a command, and those below it, the options of every command, which the root has."""
    command.params = [*command.params, *(option for option in root.params if option.name in NAMES)]
    for below in getattr(command, "commands", {}).values():
        add_common_options(below, root)


def _on_verbosity(ctx: typer.Context, param: typer.CallbackParam, value: bool) -> bool:
    if ctx.resilient_parsing:
        return value
    asked: dict[str, int] = ctx.meta.setdefault(_ASKED, {})
    source = ctx.get_parameter_source(param.name)
    if value and source is not None:
        asked[param.name] = max(asked.get(param.name, 0), _RANKS[source.name])
        quiet, verbose = asked.get("quiet", 0), asked.get("verbose", 0)
        if quiet == verbose:
            raise SpecError("--quiet and --verbose do not go together", fix="Leave one of them out")
        set_verbosity(Verbosity.QUIET if quiet > verbose else Verbosity.VERBOSE)
    if param.name == "verbose" and has_run(ctx):
        logger.info("diffractory %s, Python %s, %s", __version__, platform.python_version(), sys.argv[1:])
        logger.info("configuration %s: %s", used_config(ctx).path, ctx.default_map)
    return value


def _on_config(ctx: typer.Context, value: Path | None) -> Path | None:
    if ctx.resilient_parsing:
        return value
    if value is not None and (is_given(ctx, "config") or _FILE not in ctx.meta):
        ctx.meta[_FILE] = value
    # The command that is run reads the file, not those before it: `COMMAND --help` needs none.
    if has_run(ctx):
        _read_defaults(ctx)
    return value


def _read_defaults(ctx: typer.Context) -> None:
    # Imported here: checking a file takes pydantic, which --help and completion do without.
    from diffractory.cli.config_file import Settings, read_config

    root = ctx.find_root().command
    assert isinstance(root, TyperGroup)
    named = ctx.meta.get(_FILE)
    config = read_config(named or config_file(), named is not None, root.commands)
    ctx.meta[_CONFIG] = config
    # `catalogue build` has the table of `catalogue`.
    command = ctx.command_path.split()[1]
    options = {option.name for option in ctx.command.params}
    ctx.default_map = config.defaults(command, options & Settings.model_fields.keys())


_PANEL = "Of every command"
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print results and errors only.",
        envvar="DIFFRACTORY_QUIET",
        show_envvar=True,
        expose_value=False,
        callback=_on_verbosity,
        rich_help_panel=_PANEL,
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Say on stderr what is done, and where; and where an error comes from.",
        envvar="DIFFRACTORY_VERBOSE",
        show_envvar=True,
        expose_value=False,
        callback=_on_verbosity,
        rich_help_panel=_PANEL,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings; ~/.config/diffractory/config.toml by default.",
        envvar="DIFFRACTORY_CONFIG",
        show_envvar=True,
        expose_value=False,
        is_eager=True,
        callback=_on_config,
        rich_help_panel=_PANEL,
    ),
]
