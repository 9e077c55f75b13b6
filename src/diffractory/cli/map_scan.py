"""`diffractory map`: a 4D-STEM scan of Bragg peaks as labelled maps and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    check_output_folder,
)
from diffractory.cli.progress import map_ordered
from diffractory.cli.scan_options import (
    DatasetOption,
    PeakCenterOption,
    PixelSizeOption,
)
from diffractory.errors import SpecError
from diffractory.execution.engine import Engine
from diffractory.execution.helper import helper_process
from diffractory.learning.provenance import told
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.spot_lattice import search_is_compiled
from diffractory.report.map_report import REPORT_FILES, begin_pictures, write_map_report
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.beam_energy import features_at_energy
from diffractory.scan.mapping.label_map import summarise, to_dataset
from diffractory.scan.mapping.map_files import PARTICLE_FILES, write_map, write_netcdf, write_particles
from diffractory.scan.mapping.particle_table import particle_table, summarise_particles
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.specs import InvariantSpec, MapSpec, ParticleSpec
from diffractory.storage import write_atomic

app = typer.Typer()

#: Bytes of a scan's file from which on a second process saves more time than its start takes.
_LARGE_SCAN = 8_000_000

_FILTERS = "Filters"
_PARTICLES = "Particles"


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
    pixel_size: PixelSizeOption = None,
    center: PeakCenterOption = None,
    dataset: DatasetOption = None,
    with_particles: Annotated[
        bool,
        typer.Option(
            "--particles/--no-particles",
            help="Divide the scan and predict each part.",
            rich_help_panel=_PARTICLES,
        ),
    ] = True,
    regions: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="particles of the dark field, grains of like patterns, labels (equal system), or grid:SIDE.",
            rich_help_panel=_PARTICLES,
        ),
    ] = "particles",
    dark_field: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="Q Q", help="Å⁻¹ the dark field counts; every spot.", rich_help_panel=_PARTICLES
        ),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(help="Of the dark field, in positions; 0 = none.", rich_help_panel=_PARTICLES)
    ] = 1.0,
    threshold: Annotated[
        float | None,
        typer.Option(help="Dark-field intensity of a particle; Otsu's.", rich_help_panel=_PARTICLES),
    ] = None,
    similarity: Annotated[
        float, typer.Option(help="Of neighbours in one grain, 0 … 1.", rich_help_panel=_PARTICLES)
    ] = 0.4,
    min_size: Annotated[
        int, typer.Option(help="Smaller particles, in positions, are dropped.", rich_help_panel=_PARTICLES)
    ] = 10,
    split: Annotated[
        bool, typer.Option("--split", help="Divide touching particles at necks.", rich_help_panel=_PARTICLES)
    ] = False,
    patterns: Annotated[
        int, typer.Option(help="Patterns drawn from each particle.", rich_help_panel=_PARTICLES)
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of that drawing.", rich_help_panel=_PARTICLES)] = 0,
    flag_overlap: Annotated[
        bool | None,
        typer.Option(
            "--flag-overlap/--no-flag-overlap",
            help="Look for overlapping grains; by default if the model reads lattices.",
            rich_help_panel=_PARTICLES,
        ),
    ] = None,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw pictures and write the HTML page.")
    ] = True,
    cluster: SlurmClusterOption = "threads",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Map crystal system, space group and lattice over a scan of Bragg peaks, and list its particles."""
    spec = MapSpec(
        min_spots=min_spots,
        median_size=median_size,
        min_difference=min_difference,
        total_intensity=total_intensity,
        assume=assume,
    )
    particles = ParticleSpec(
        **parse_regions(regions),
        q_range=dark_field,
        smoothing=smoothing,
        threshold=threshold,
        similarity=similarity,
        min_size=min_size,
        split=split,
        patterns=patterns,
        seed=seed,
    )
    check_output_folder(folder)
    slurm = slurm_request(cluster, site, jobs, dry_run, folder)
    saved = SavedModel(packaged_model() if model is None else model)
    _ = saved.systems_  # a broken model is refused before the scan is read and workers are started
    # The helper imports what it needs while the scan is read.
    with _helper(scan, cluster, with_report) as helper:
        loaded = read_bragg_scan(scan, pixel_size=pixel_size, center=center, dataset=dataset)
        _tell_of_compiling(saved, cluster, flag_overlap)
        with engine_here(cluster, workers, folder, slurm) as engine:
            made = map_with_model(
                loaded,
                saved,
                spec,
                engine,
                folder,
                particles=particles if with_particles else None,
                flag_overlap=flag_overlap,
                with_report=with_report,
                helper=helper,
            )
    if as_json:
        print_json(made.summary)
        return
    print_map(made.summary)
    for name in made.files:
        out.print(f"  {folder / name}")


def _tell_of_compiling(model: SavedModel, cluster: str, flag_overlap: bool | None) -> None:
    """Tell whoever waits why the first map on a machine takes so long; workers elsewhere are not known."""
    searched = isinstance(model.features, InvariantSpec) or flag_overlap
    if searched and cluster in ("threads", "inline", "local") and not search_is_compiled():
        note("compiling the lattice search for this machine: most of a minute, this once")


@contextmanager
def _helper(scan: Path, cluster: str, with_report: bool) -> Iterator[Executor | None]:
    """Start a process that draws pictures beside this one, where that saves time."""
    large = scan.is_file() and scan.stat().st_size >= _LARGE_SCAN
    if not (with_report and large and cluster == "threads"):
        yield None
        return
    with helper_process("diffractory.report.map_report") as helper:
        yield helper


def parse_regions(text: str) -> dict[str, Any]:
    """Read how a scan is divided: ``particles``, ``grains``, ``labels`` or ``grid:SIDE``.

    Raises
    ------
    SpecError
        If the text is none of these.
    """
    kind, colon, side = text.partition(":")
    if kind in ("particles", "grains", "labels") and not colon:
        return {"regions": kind}
    if kind == "grid" and side.isascii() and side.isdigit():
        return {"regions": kind, "grid": int(side)}
    raise SpecError(
        f"--regions {text!r} cannot be read",
        "",
        "Write particles, grains, labels, or grid:10 for blocks of 10",
    )


@dataclass(frozen=True)
class FinishedMap:
    """A map, what is said of it, and the files it was written to."""

    labelled: xr.Dataset
    summary: dict[str, Any]
    files: list[str]


def map_with_model(
    scan: BraggScan,
    model: SavedModel,
    spec: MapSpec,
    engine: Engine,
    folder: Path,
    *,
    particles: ParticleSpec | None = None,
    flag_overlap: bool | None = None,
    with_report: bool = True,
    helper: Executor | None = None,
) -> FinishedMap:
    """Predict a scan and write map, particles, summary and report to a folder; a helper draws pictures."""
    provenance = model.provenance
    features, energy_note = features_at_energy(
        model.features, scan, float(told(provenance, "simulation", "energy_ev"))
    )
    prediction = predict_scan(
        model,
        scan,
        spec,
        features,
        particles=particles,
        # Other features hold no lattices: finding them would take most of the time.
        find_overlap=isinstance(features, InvariantSpec) if flag_overlap is None else flag_overlap,
        map_blocks=map_ordered(engine, "positions"),
    )
    # Thousands of training materials do not belong into every map; their plan says which they were.
    short = {key: value for key, value in provenance.items() if key != "training_materials"}
    labelled = to_dataset(scan, prediction, spec, {"model": str(model.path), **short})
    table = None if particles is None else particle_table(scan, prediction)
    summary = {**summarise(labelled), "notes": [energy_note] if energy_note else []}
    folder.mkdir(parents=True, exist_ok=True)
    again = (folder / "map.zarr").exists()
    drawn = (folder, labelled, scan.peaks, model.domain_sample, table)
    begun = {} if helper is None or not with_report else begin_pictures(helper, *drawn)
    write_map(labelled, folder / "map.zarr")
    write_netcdf(labelled, folder / "map.nc")
    files = ["map.zarr", "map.nc"]
    if table is not None:
        summary["particles"] = summarise_particles(table)
        write_particles(table, folder)
        files += PARTICLE_FILES
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1))
    files.append("summary.json")
    if with_report:
        files += write_map_report(*drawn, begun=begun)
    for name in {*PARTICLE_FILES, *REPORT_FILES} - set(files) if again else ():
        # Of the earlier map in this folder: beside this one it would be taken for its own.
        (folder / name).unlink(missing_ok=True)
    return FinishedMap(labelled, summary, files)


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
    flags = {name.replace("_", " "): count for name, count in report["flags"].items() if name != "few_spots"}
    note("flagged: " + ", ".join(f"{count:,} {name}" for name, count in flags.items()))
    if "particles" in report:
        found = report["particles"]
        kinds = ", ".join(f"{count:,} {name}" for name, count in found["systems"].items() if count)
        note(f"particles: {found['count']:,}" + (f" ({kinds})" if kinds else ""))
        for cubic in found["cubic_constants"]:
            note(
                f"particle {cubic['particle']}, if cubic, all patterns together: a = {cubic['a']:.3f} Å, "
                f"margin {cubic['margin']:.1f}" + ("" if cubic["margin"] >= 10.0 else " (undecided below 10)")
            )
    for line in report["notes"]:
        note(line)
