"""`diffractory doctor`: is this installation whole, and this machine fit for the work?"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain

import typer
from rich.text import Text

from diffractory.cli.common import used_config
from diffractory.cli.console import JsonFlag, err, out, print_json
from diffractory.cli.doctor_checks import Finding, Level, examine, versions

app = typer.Typer()

_STYLES = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "bold red"}


@app.command(epilog="Example: diffractory doctor --json")
def doctor(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Check this installation, this machine and the working folder, and say what to do; some seconds.

    Ends with 1 if there is a problem; a note is none.
    """
    findings = []
    config = used_config(ctx)
    settings = Finding("settings", str(config.path) + ("" if config.exists else " (there is none)"))
    with err.status("looking"):
        for finding in chain([settings], examine()):
            findings.append(finding)
            if not as_json:
                _print(finding)
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    if as_json:
        print_json(
            {
                "healthy": not problems,
                "findings": [asdict(finding) for finding in findings],
                "versions": versions(),
            }
        )
    if problems:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    line = Text(f"{finding.level:<8}", style=_STYLES[finding.level]).append(
        f"{finding.name:<15} {finding.found}", style="default"
    )
    out.print(line)
    if finding.advice:
        out.print(f"{'':<8}{'':<15} → {finding.advice}")
