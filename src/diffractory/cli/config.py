"""`diffractory config`: the settings in force, and where each comes from."""

from __future__ import annotations

import os
from typing import Any

import typer
from rich.table import Column, Table

from diffractory.cli.common import used_config
from diffractory.cli.config_file import ConfigFile, Settings, variable
from diffractory.cli.console import JsonFlag, note, out, print_json

app = typer.Typer()


@app.command(epilog="Example: diffractory config; diffractory --config other.toml config --json")
def config(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the settings in force, and where each comes from: the environment, or the configuration file.

    A flag on the command line goes before both.
    """
    file = used_config(ctx)
    rows = _rows(file)
    if as_json:
        print_json({"file": str(file.path), "exists": file.exists, "settings": rows})
        return
    table = Table("setting", "of", Column("value", overflow="fold"), Column("from", overflow="fold"))
    for row in rows:
        shown = "–" if row["value"] is None else str(row["value"])
        table.add_row(row["setting"], row["command"] or "every command", shown, row["from"])
    out.print(table)
    note(f"configuration file: {file.path}" + ("" if file.exists else " (there is none)"))


def _rows(file: ConfigFile) -> list[dict[str, Any]]:
    """Return every setting with its value, general ones first; those of a command follow them."""
    rows = [_row(name, None, file.general.get(name), "file") for name in Settings.model_fields]
    for command, table in file.tables.items():
        rows += [_row(name, command, value, f"file [{command}]") for name, value in table.items()]
    return sorted(rows, key=lambda row: list(Settings.model_fields).index(row["setting"]))


def _row(name: str, command: str | None, value: Any, place: str) -> dict[str, Any]:
    # The command line asks the environment first, also for what a table says.
    if told := os.environ.get(variable(name)):
        value, place = told, f"environment {variable(name)}"
    return {
        "setting": name,
        "command": command,
        "value": value,
        "from": "default" if value is None else place,
    }
