"""The `diffractory` command: finds the sub-command, and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import logging
import shlex
import signal
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from diffractory import __version__
from diffractory.cli.common import ConfigOption, QuietOption, VerboseOption, add_common_options
from diffractory.cli.console import Verbosity, complain, set_verbosity
from diffractory.errors import AccessError, DefectError, DiffractoryError, ExecutionError
from diffractory.settings import machine_memory
from diffractory.units import human_bytes

logger = logging.getLogger(__name__)

#: Sub-command -> (module with its typer app, one line of help). Modules are loaded when their
#: command is used: the libraries behind all of them together take ten seconds to import.
_COMMANDS = {
    "demo": ("demo", "The whole road on embedded crystals: simulate, learn, map; a few minutes."),
    "catalogue": ("catalogue", "Build and show catalogues of crystals."),
    "calibrate": ("calibrate", "Measure this machine, so that plans predict its seconds."),
    "plan": ("plan", "Plan a run: count beams, bytes and seconds; refuse what does not fit."),
    "simulate": ("simulate", "Simulate what a run still lacks; run it again to resume."),
    "verify": ("verify", "Check a run: records, checksums, physics, a sample solved another way."),
    "status": ("status", "Say how far a run is, from disk alone."),
    "features": ("features", "Compute the features of a run's patterns."),
    "export": ("export", "Write patterns of a run for other programs: a Parquet table, or py4DSTEM."),
    "train": ("train", "Train a preset's models on a run."),
    "evaluate": ("evaluate", "Evaluate a model on materials it has not seen, under both protocols."),
    "inspect": ("inspect", "Show a 4D-STEM file: shape, calibration, mean pattern, virtual dark field."),
    "detect": ("detect", "Find the disks in raw 4D-STEM frames, and calibrate them."),
    "map": ("map_scan", "Map a 4D-STEM scan of Bragg peaks with a model."),
    "doctor": ("doctor", "Check this installation and this machine; say what to do about what is wrong."),
    "config": ("config", "Show the settings in force, and where each comes from."),
}

_COMPLETION = ("install_completion", "show_completion")


class _LazyGroup(TyperGroup):
    """Lists commands from the table, and loads the one that is run."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in _COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if name in _COMMANDS:
            on_ctrl_c = signal.getsignal(signal.SIGINT)
            module = import_module(f"diffractory.cli.{_COMMANDS[name][0]}")
            # Nor while the command works: what it imported is no garbage.
            gc.freeze()
            # dask-jobqueue, when imported, has Ctrl-C end the program with 0 and without a word.
            signal.signal(signal.SIGINT, on_ctrl_c)
            found = get_command(module.app)
            assert isinstance(found, TyperCommand | TyperGroup)
            found.name = name
            # Each module is an app of its own; completion is installed once, for all of them.
            found.params = [option for option in found.params if option.name not in _COMPLETION]
            add_common_options(found, self)
        return name, found, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Caught here because typer ends the program on it without a word.
            complain("stopped; what was finished is kept, run the same command again to go on")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start here: diffractory demo; is this machine fit for it: diffractory doctor. "
    "Exit codes: 0 done, 1 some of the work failed, 2 refused, 70 a defect, 130 stopped by Ctrl-C.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffractory {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    config: ConfigOption = None,
) -> None:
    """Electron diffraction at supercomputer scale: simulate, learn, map."""


def main() -> None:
    """Run the command line; known errors become a message on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks Å and × shows ? instead; a result is not lost over it.
            stream.reconfigure(errors="replace")
    set_verbosity(Verbosity.NORMAL)
    # What modules hold is no garbage: looking for some among it, at the end once more, takes half a second.
    atexit.register(gc.freeze)
    try:
        app(prog_name="diffractory")
    except DiffractoryError as error:
        _exit_with(error)
    except OSError as error:
        _exit_with(_access_error(error), error)
    except MemoryError as error:
        _exit_with(_memory_error(), error)
    except Exception as error:
        _exit_with(_defect(error), error)


def _exit_with(error: DiffractoryError, unforeseen: Exception | None = None) -> NoReturn:
    if unforeseen is not None:
        logger.debug("where the error comes from", exc_info=unforeseen)
    complain(str(error), "error:")
    sys.exit(error.exit_code)


def _defect(error: Exception) -> DefectError:
    told = "; ".join(str(error).splitlines()) or "no message"
    return DefectError(
        f"unexpected {type(error).__name__}: {told}",
        "this is a defect of diffractory; what was finished is kept",
        f"Run it again with --verbose and report what it prints, the version (diffractory {__version__}) "
        f"and the command: {shlex.join(['diffractory', *sys.argv[1:]])}",
    )


def _memory_error() -> ExecutionError:
    return ExecutionError(
        "there is not enough memory",
        f"this process may use {human_bytes(machine_memory())}",
        "Close other programs or give the job more memory, then run the same command again",
    )


def _access_error(error: OSError) -> AccessError:
    """Say what the operating system refused, for files and folders that no room checks itself."""
    place = error.filename2 or error.filename
    what = f"{place}: {error.strerror}" if place and error.strerror else str(error) or type(error).__name__
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return AccessError(
        what,
        "the disk or your share of it is full" if full else "the operating system refused it",
        "Make room and run the same command again"
        if full
        else "Check the path and your permission to read and write there, then run the same command again",
    )
