"""What the command line prints, and how: people on stderr, results on stdout, JSON where asked for."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

#: Results: tables, paths, JSON. Text is printed as it is: paths and messages may hold brackets.
out = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
#: Progress, notes and errors.
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, for scripts."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def note(text: str) -> None:
    """Tell the person at the terminal something, on stderr."""
    err.print(text)
