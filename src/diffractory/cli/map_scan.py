"""`diffractory map`: a 4D-STEM scan of Bragg peaks as labelled maps and pictures."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from diffractory.cli.console import JsonFlag, out, print_json
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    check_output_folder,
)
from diffractory.cli.scan_options import (
    DatasetOption,
    EnergyOption,
    PeakCenterOption,
    PixelSizeOption,
    StepOption,
    in_ev,
)
from diffractory.errors import SpecError
from diffractory.execution.helper import helper_process

app = typer.Typer()

#: Bytes of a scan's file from which on a second process saves more time than its start takes.
_LARGE_SCAN: Final = 8_000_000
#: What that process draws with, and what xarray imports when it writes Zarr and NetCDF.
_HELPER_NEEDS: Final = ("diffractory.report.map_report", "zarr", "scipy.io", "distributed")

_FILTERS: Final = "Filters"
_PARTICLES: Final = "Particles"


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
    phase: Annotated[
        str,
        typer.Option(
            metavar="A:F",
            help="Cubic phases of the scan, such as 4.212:F; auto = those it shows; none.",
        ),
    ] = "auto",
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
    step: StepOption = None,
    energy: EnergyOption = None,
    center: PeakCenterOption = None,
    dataset: DatasetOption = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Frames to draw example peaks on; by default those they were found in.",
        ),
    ] = None,
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
    check_output_folder(folder)
    if frames is not None and not with_report:
        raise SpecError(
            "--frames and --no-report were both given",
            "frames are drawn beneath example patterns of the report",
            "Leave one of them out",
        )
    with _helper(scan, cluster, with_report) as helper:
        # Not before: all of this takes a second, in which the helper imports what it will need itself.
        from diffractory.cli.engines import engine_here, slurm_request
        from diffractory.cli.mapping import compiling, map_with_model, parse_regions, print_map
        from diffractory.learning.saved_model import SavedModel, packaged_model
        from diffractory.scan.reading.emd_reader import read_bragg_scan
        from diffractory.specs import MapSpec, ParticleSpec

        gc.freeze()
        spec = MapSpec(
            min_spots=min_spots,
            median_size=median_size,
            min_difference=min_difference,
            total_intensity=total_intensity,
            assume=assume,
            phase=phase,
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
        slurm = slurm_request(cluster, site, jobs, dry_run, folder)
        saved = SavedModel(packaged_model() if model is None else model)
        _ = saved.systems_  # a broken model is refused before the scan is read and workers are started
        loaded = read_bragg_scan(
            scan,
            pixel_size=pixel_size,
            center=center,
            dataset=dataset,
            step=step,
            energy_ev=in_ev(energy),
        )
        recorded = None
        if frames is not None:
            from diffractory.scan.reading.example_frames import named_frames

            recorded = named_frames(loaded, frames)
        with (
            compiling(saved, cluster, flag_overlap, helper),
            engine_here(cluster, workers, folder, slurm) as engine,
        ):
            made = map_with_model(
                loaded,
                saved,
                spec,
                engine,
                folder,
                particles=particles if with_particles else None,
                flag_overlap=flag_overlap,
                with_report=with_report,
                frames=recorded,
                helper=helper,
            )
    if as_json:
        print_json(made.summary)
        return
    print_map(made.summary)
    for name in made.files:
        out.print(f"  {folder / name}")


@contextmanager
def _helper(scan: Path, cluster: str, with_report: bool) -> Iterator[Executor | None]:
    """Start a process that writes and draws beside this one, where that saves time."""
    large = scan.is_file() and scan.stat().st_size >= _LARGE_SCAN
    if not (with_report and large and cluster == "threads"):
        yield None
        return
    with helper_process(*_HELPER_NEEDS) as helper:
        yield helper
