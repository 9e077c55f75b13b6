"""`diffractory calibrate`: measure this machine, so that plans predict its seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.options import check_output_file
from diffractory.cli.progress import counting_bar
from diffractory.errors import AccessError
from diffractory.scattering.calibration import measure_speed, n_steps
from diffractory.scattering.cost import TYPICAL, Speed, predicted_seconds
from diffractory.settings import speed_file
from diffractory.specs import SimulationSpec
from diffractory.storage import write_atomic

app = typer.Typer()

_SERIES = tuple(float(t) for t in range(20, 2001, 20))


@app.command(
    epilog="Example: diffractory calibrate --out node.json; diffractory plan RUN ... --speed node.json"
)
def calibrate(
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Speed file; by default the one that plans look for."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how fast one core of this machine is (about fifteen seconds); plans then predict its seconds.

    Run it where the simulations will run: on a compute node, not on the login node.
    """
    path = out_file or speed_file()
    check_output_file(path)
    started = time.perf_counter()
    with counting_bar("timing") as bar:
        task = bar.add_task("", total=n_steps())
        speed = measure_speed(lambda: bar.advance(task))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, speed.to_json())
    if as_json:
        print_json({"file": str(path), "seconds": round(time.perf_counter() - started, 1), **vars(speed)})
        return
    _print(speed)
    note(f"speed of this machine written to {path} after {time.perf_counter() - started:.0f} s")


def _print(speed: Speed) -> None:
    table = Table("beams", "200 Å", "100 thicknesses to 2000 Å", title="predicted seconds of one orientation")
    for n in (100, 300, 1000):
        table.add_row(
            f"{n:,}",
            *(
                f"{float(predicted_seconds(n, SimulationSpec(thicknesses=t), speed)):.4f}"
                for t in ((200.0,), _SERIES)
            ),
        )
    out.print(table)


def load_speed(path: Path | None) -> tuple[Speed, bool]:
    """Return a machine's speed and whether it was measured: from a file, or the usual place, or typical.

    Raises
    ------
    AccessError
        If a file that was named cannot be read.
    SpecError
        If it does not hold a speed.
    """
    chosen = path or speed_file()
    if path is None and not chosen.is_file():
        return TYPICAL, False
    try:
        text = chosen.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(
            f"speed file {chosen} cannot be read",
            getattr(error, "strerror", None) or "it is no text file",
            "Measure the machine: diffractory calibrate",
        ) from None
    return Speed.from_json(text, f"speed file {chosen}"), True
