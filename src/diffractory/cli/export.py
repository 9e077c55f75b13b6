"""`diffractory export`: patterns of a run for other programs, as a Parquet table or a py4DSTEM file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr

from diffractory.cli.console import JsonFlag, out, print_json
from diffractory.cli.options import RunArgument, check_output_file, parse_thicknesses
from diffractory.cli.progress import counting_bar
from diffractory.dataset.export import write_bragg_file, write_parquet
from diffractory.dataset.reader import open_dataset
from diffractory.dataset.selection import select
from diffractory.errors import AccessError, SpecError
from diffractory.units import human_bytes

app = typer.Typer()

_CHOICE = "Choice"


@app.command(
    epilog="Example: diffractory export runs/first --out cubic.parquet --system cubic --thickness 200"
)
def export(
    run: RunArgument,
    target: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="FILE.parquet: a long table, a row a peak. FILE.h5: Bragg vectors at one thickness for "
            "py4DSTEM, a row of positions a crystal.",
        ),
    ],
    system: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Crystal systems: cubic,hexagonal.", rich_help_panel=_CHOICE),
    ] = None,
    space_group: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Space groups: 225, or 221,225, or 195:230.", rich_help_panel=_CHOICE
        ),
    ] = None,
    material: Annotated[
        str | None, typer.Option(metavar="IDS", help="Material ids: mp-1,mp-2.", rich_help_panel=_CHOICE)
    ] = None,
    thickness: Annotated[
        str | None,
        typer.Option(
            metavar="Å", help="200, or 100,200, or 20:2000:20; all by default.", rich_help_panel=_CHOICE
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write patterns of a finished run for other programs; what is not chosen is not read."""
    _check_target(target, run, force)
    chosen = select(
        open_dataset(run),
        material_id=None if material is None else _names(material),
        crystal_system=None if system is None else _names(system),
        space_group=None if space_group is None else _space_groups(space_group),
        thickness=None if thickness is None else parse_thicknesses(thickness),
    )
    with counting_bar("patterns") as bar:
        task = bar.add_task("patterns", total=chosen["peak_count"].size)
        _write(chosen, target, lambda patterns: bar.advance(task, patterns))
    report = _summary(chosen, run, target)
    if as_json:
        print_json(report)
        return
    out.print(
        f"{target}: {report['patterns']:,} patterns of {report['crystals']:,} crystals, "
        f"{report['peaks']:,} peaks, {human_bytes(report['bytes'])}"
    )


def _check_target(target: Path, run: Path, force: bool) -> None:
    """Refuse, before anything is read, a file that could not or must not be written."""
    if target.suffix not in (".parquet", ".h5"):
        raise SpecError(
            f"--out {target} is no name for an export",
            "its ending says what is written",
            "Name a FILE.parquet for a table, or a FILE.h5 for py4DSTEM",
        )
    if target.resolve().is_relative_to(run.resolve()):
        raise AccessError(
            f"{target} is inside the run", "a run folder holds what was planned", "Write to another folder"
        )
    check_output_file(target)
    if target.exists() and not force:
        raise AccessError(f"{target} exists already", fix="Name another file, or add --force to replace it")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _space_groups(text: str) -> list[int] | slice:
    """Read ``225``, ``221,225`` or ``195:230`` (both ends included)."""
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise SpecError(
            f"--space-group {text!r} cannot be read", fix="Write 225, or 221,225, or first:last"
        ) from None
    return slice(first, last)


def _write(chosen: xr.Dataset, target: Path, on_batch: Callable[[int], None]) -> None:
    if target.suffix == ".parquet":
        write_parquet(chosen, target, on_batch=on_batch)
        return
    thicknesses = chosen["thickness"].to_numpy().tolist()
    if len(thicknesses) != 1:
        raise SpecError(
            f"{target} would hold {len(thicknesses)} thicknesses",
            "a py4DSTEM file of Bragg vectors holds one",
            f"Choose one with --thickness, such as {thicknesses[0]:g}; a FILE.parquet holds several",
        )
    write_bragg_file(chosen, target, thicknesses[0], on_batch)


def _summary(chosen: xr.Dataset, run: Path, target: Path) -> dict[str, Any]:
    thicknesses = chosen["thickness"].to_numpy().tolist()
    return {
        "run": str(run),
        "file": str(target),
        "crystals": chosen.sizes["crystal"],
        "orientations": chosen.sizes["orientation"],
        "thicknesses": thicknesses,
        "patterns": chosen["peak_count"].size * len(thicknesses),
        "peaks": int(chosen["peak_count"].sum()) * len(thicknesses),
        "bytes": target.stat().st_size,
    }
