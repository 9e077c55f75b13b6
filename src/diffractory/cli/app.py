"""The `diffractory` command: finds the sub-command, and turns errors into messages and exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from diffractory import __version__
from diffractory.errors import DiffractoryError

#: Sub-command -> (module with its typer app, one line of help). Modules are loaded when their
#: command is used: the libraries behind all of them together take ten seconds to import.
_COMMANDS = {
    "demo": ("demo", "The whole road on embedded crystals: simulate, learn, map; about two minutes."),
    "catalogue": ("catalogue", "Build and show catalogues of crystals."),
    "plan": ("plan", "Plan a run: count beams, bytes and seconds; refuse what does not fit."),
    "simulate": ("simulate", "Simulate what a run still lacks; run it again to resume."),
    "verify": ("verify", "Check a run: records, checksums, physics, a sample solved another way."),
    "status": ("status", "Say how far a run is, from disk alone."),
    "features": ("features", "Compute the features of a run's patterns."),
    "train": ("train", "Train the paper's hierarchy of forests on a run."),
    "evaluate": ("evaluate", "Evaluate a model on materials it has not seen, under both protocols."),
    "map": ("map_scan", "Map a 4D-STEM scan of Bragg peaks with a model."),
}


class _LazyGroup(TyperGroup):
    """Lists commands from the table, and loads the one that is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        return TyperCommand(cmd_name, help=_COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if name in _COMMANDS:
            module = import_module(f"diffractory.cli.{_COMMANDS[name][0]}")
            found = get_command(module.app)
            found.name = name
        return name, found, rest


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start here: diffractory demo",
)


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Electron diffraction at supercomputer scale: simulate, learn, map."""
    if version:
        typer.echo(f"diffractory {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; known errors become a message on stderr and an exit code."""
    try:
        app()
    except DiffractoryError as error:
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped; what was finished is kept, run the same command again to go on", err=True)
        sys.exit(130)
