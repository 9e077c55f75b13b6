"""`diffractory map`: a 4D-STEM scan of Bragg peaks as labelled maps and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.options import ClusterOption, WorkersOption, check_output_folder
from diffractory.cli.progress import map_ordered
from diffractory.errors import ModelError
from diffractory.execution.engine import Engine
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.report.map_figures import figure_of_domain, figure_of_lattice, figure_of_systems
from diffractory.report.style import save_figure
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.emd_reader import read_bragg_scan
from diffractory.scan.label_map import summarise, to_dataset, write_map
from diffractory.scan.prediction import predict_scan
from diffractory.specs import MapSpec, feature_spec
from diffractory.storage import write_atomic

app = typer.Typer()

_READING = "Reading the scan"
_FILTERS = "Filters"


@app.command(epilog="Example: diffractory map scan.h5 --out maps/scan --assume cubic")
def map_scan(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Bragg peaks in a py4DSTEM EMD file.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where maps and pictures go.")],
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Folder of a trained model; the robust one that is included."),
    ] = None,
    assume: Annotated[
        str | None, typer.Option(metavar="SYSTEM", help="Use this system's lattice model everywhere.")
    ] = None,
    min_spots: Annotated[int, typer.Option(help="Fewer spots: unlabelled.", rich_help_panel=_FILTERS)] = 5,
    median_size: Annotated[
        int, typer.Option(help="Side of the median filter; 1 = none.", rich_help_panel=_FILTERS)
    ] = 5,
    min_difference: Annotated[
        float, typer.Option(help="Lower difference confidence: unlabelled.", rich_help_panel=_FILTERS)
    ] = 0.005,
    total_intensity: Annotated[
        float, typer.Option(help="Each pattern is scaled to this sum.", rich_help_panel=_FILTERS)
    ] = 0.3,
    pixel_size: Annotated[
        float | None, typer.Option(help="Å⁻¹ per detector pixel.", rich_help_panel=_READING)
    ] = None,
    center: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="QX QY", help="Direct beam, in the file's units.", rich_help_panel=_READING),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Which peak list, if the file holds several.", rich_help_panel=_READING)
    ] = None,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Map crystal system, space group and lattice over a scan of Bragg peaks."""
    spec = MapSpec(
        min_spots=min_spots,
        median_size=median_size,
        min_difference=min_difference,
        total_intensity=total_intensity,
        assume=assume,
    )
    check_output_folder(folder)
    saved = SavedModel(packaged_model() if model is None else model)
    _ = saved.systems_  # a broken model is refused before the scan is read and workers are started
    loaded = read_bragg_scan(scan, pixel_size=pixel_size, center=center, dataset=dataset)
    with engine_here(cluster, workers, folder) as engine:
        labelled = map_with_model(loaded, saved, spec, engine, folder)
    report = summarise(labelled)
    if as_json:
        print_json(report)
        return
    print_map(report)
    for name in ("map.zarr", "system.png", "lattice.png", "domain.png", "summary.json"):
        out.print(f"  {folder / name}")


def map_with_model(
    scan: BraggScan, model: SavedModel, spec: MapSpec, engine: Engine, folder: Path
) -> xr.Dataset:
    """Predict a scan and write ``map.zarr``, ``summary.json`` and the pictures."""
    provenance = model.provenance
    basis = feature_spec(provenance["features"])
    trained_at = float(provenance["simulation"]["energy_ev"])
    if scan.energy_ev is not None and abs(scan.energy_ev - trained_at) > 0.01 * trained_at:
        raise ModelError(
            f"{scan.source} was recorded at {scan.energy_ev / 1e3:g} keV, "
            f"the model trained at {trained_at / 1e3:g} keV",
            "patterns of another energy look different",
            "Train a model on a run planned with the scan's --energy",
        )
    prediction = predict_scan(model, scan, spec, basis, map_blocks=map_ordered(engine, "positions"))
    # Thousands of training materials do not belong into every map; their plan says which they were.
    short = {key: value for key, value in provenance.items() if key != "training_materials"}
    labelled = to_dataset(scan, prediction, spec, {"model": str(model.path), **short})
    folder.mkdir(parents=True, exist_ok=True)
    write_map(labelled, folder / "map.zarr")
    write_atomic(folder / "summary.json", json.dumps(summarise(labelled), indent=1))
    save_figure(figure_of_systems(labelled), folder / "system.png")
    save_figure(figure_of_lattice(labelled), folder / "lattice.png")
    save_figure(figure_of_domain(labelled, model.domain_sample), folder / "domain.png")
    return labelled


def print_map(report: dict[str, Any]) -> None:
    """Print the fractions of a map."""
    table = Table("crystal system", "positions", "share", "weighted by confidence")
    for name, numbers in report["systems"].items():
        if numbers["count"]:
            table.add_row(
                name,
                f"{numbers['count']:,}",
                f"{100 * numbers['fraction']:.1f} %",
                f"{100 * numbers['weighted_fraction']:.1f} %",
            )
    out.print(table)
    why = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in report["unlabelled"].items() if count
    )
    note(
        f"labelled: {report['labelled']:,} of {report['positions']:,} positions"
        + (f" ({why})" if why else "")
    )
    outside = report["outside_training"]
    note(f"unlike the training patterns: {100 * outside['fraction']:.1f} % of {outside['asked']:,} positions")
    if report["lattice"]["a"]:
        note(f"median a: {report['lattice']['a']['median']:.2f} Å")
