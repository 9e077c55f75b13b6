"""What the command line prints, and how: people on stderr, results on stdout, JSON where asked for."""

from __future__ import annotations

import json
import logging
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console

#: Results: tables, paths, JSON. Text is printed as it is: paths and messages may hold brackets.
out = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
#: Progress and notes.
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
#: Errors, which are never silenced.
_errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)

_package_log = logging.getLogger("diffractory")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, for scripts."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


class Verbosity(Enum):
    """How much a command says beside its results and errors."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class _AboveProgress(logging.Handler):
    """Prints what is logged on stderr, above a progress bar and not across it."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), style="dim")


_log_handler = _AboveProgress()
_log_handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))


def set_verbosity(verbosity: Verbosity) -> None:
    """Silence notes and progress, or show them, or show the package's log as well."""
    err.quiet = verbosity is Verbosity.QUIET
    _package_log.removeHandler(_log_handler)
    _package_log.setLevel(logging.NOTSET)
    if verbosity is Verbosity.VERBOSE:
        _package_log.addHandler(_log_handler)
        _package_log.setLevel(logging.DEBUG)


def complain(text: str, label: str = "") -> None:
    """Tell the person at the terminal of something that failed, on stderr, however quiet we are."""
    if label:
        _errors.print(label, style="bold red", end=" ")
    _errors.print(text)


def note(text: str) -> None:
    """Tell the person at the terminal something, on stderr."""
    err.print(text)
