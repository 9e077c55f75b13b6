"""`diffractory plan`: decide everything a run will do, and refuse what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from diffractory.cli.calibrate import load_speed
from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import resources_there, slurm_request_for
from diffractory.cli.options import (
    JobsOption,
    SiteOption,
    WorkersOption,
    check_output_folder,
    in_kev,
    parse_thicknesses,
)
from diffractory.cli.progress import counting_bar
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.estimate import Estimate
from diffractory.dataset.plan import Plan, check_fits, check_partition_seconds, plan_surveyed
from diffractory.dataset.run import Run
from diffractory.dataset.survey import survey
from diffractory.errors import SpecError
from diffractory.scattering.cost import TYPICAL, Speed
from diffractory.settings import Resources, usable_cores
from diffractory.specs import FORM_FACTOR_MODELS, OrientationSpec, SimulationSpec
from diffractory.units import human_bytes, human_seconds

app = typer.Typer()

_PHYSICS = "Physics"
#: Numbers of workers an estimate tells the time of, besides the one asked for.
_WORKERS = (16, 128, 1024)


@app.command(
    epilog="Example: diffractory plan runs/first --catalogue crystals.parquet --orientations 20 "
    "--thickness 200"
)
def plan(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder to make.")],
    catalogue: Annotated[Path, typer.Option(metavar="FILE", help="Catalogue of crystals (Parquet).")],
    orientations: Annotated[int, typer.Option(help="Zone axes for each crystal.")] = 100,
    thickness: Annotated[
        str, typer.Option(metavar="Å", help="200, or 100,200,300, or first:last:step.")
    ] = "200",
    in_plane: Annotated[
        str, typer.Option(metavar="paper|random", help="In-plane frame of the patterns.")
    ] = "paper",
    axes: Annotated[
        str,
        typer.Option(
            metavar="even|random",
            help="Zone axes: even, the same for all crystals of a Laue group, or drawn for each crystal.",
        ),
    ] = "even",
    seed: Annotated[int, typer.Option(help="Seed of random axes and in-plane angles.")] = 0,
    energy: Annotated[
        float, typer.Option(callback=in_kev, help="Beam energy in keV.", rich_help_panel=_PHYSICS)
    ] = 300.0,
    q_max: Annotated[float, typer.Option(help="Largest |g| in Å⁻¹.", rich_help_panel=_PHYSICS)] = 2.0,
    s_max: Annotated[
        float, typer.Option(help="Largest excitation error in Å⁻¹.", rich_help_panel=_PHYSICS)
    ] = 0.06,
    thermal_sigma: Annotated[
        float, typer.Option(help="RMS thermal displacement in Å.", rich_help_panel=_PHYSICS)
    ] = 0.08,
    form_factors: Annotated[
        str,
        typer.Option(
            metavar="|".join(FORM_FACTOR_MODELS),
            help="Weickenmeier-Kohl with absorption or elastic, as in py4DSTEM or exact; or Lobato, at rest.",
            rich_help_panel=_PHYSICS,
        ),
    ] = "wk-cp",
    foil_tilt: Annotated[
        tuple[float, float],
        typer.Option(metavar="X Y", help="Lean of the foil's normal in degrees.", rich_help_panel=_PHYSICS),
    ] = (0.0, 0.0),
    precession: Annotated[
        float, typer.Option(help="Half-angle of a precessed beam in degrees.", rich_help_panel=_PHYSICS)
    ] = 0.0,
    azimuths: Annotated[
        int, typer.Option(help="Directions a precessed beam is averaged over.", rich_help_panel=_PHYSICS)
    ] = 72,
    partition_seconds: Annotated[
        float | None, typer.Option(help="Wanted cost of a partition; 600 by default, more for huge runs.")
    ] = None,
    speed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="DIFFRACTORY_SPEED",
            show_envvar=True,
            help="Speed of the machine that will run it (diffractory calibrate).",
        ),
    ] = None,
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what the run will cost; make nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Plan a run: count beams, bytes and seconds without solving anything; refuse what does not fit."""
    if in_plane not in ("paper", "random"):
        raise SpecError(f"--in-plane {in_plane!r} is unknown", fix="Use paper or random")
    if axes not in ("even", "random"):
        raise SpecError(f"--axes {axes!r} is unknown", fix="Use even or random")
    if form_factors not in FORM_FACTOR_MODELS:
        raise SpecError(
            f"--form-factors {form_factors!r} is unknown", fix=f"Use one of {', '.join(FORM_FACTOR_MODELS)}"
        )
    simulation = SimulationSpec(
        energy_ev=energy * 1e3,
        q_max=q_max,
        s_max=s_max,
        thermal_sigma=thermal_sigma,
        thicknesses=parse_thicknesses(thickness),
        form_factors=form_factors,
        foil_tilt_deg=foil_tilt,
        precession_deg=precession,
        precession_azimuths=azimuths,
    )
    check_partition_seconds(partition_seconds)
    machine, measured = load_speed(speed)
    check_output_folder(run)
    frames = OrientationSpec(count=orientations, in_plane=in_plane, seed=seed, axes=axes)
    resources = resources_there(run, workers, slurm_request_for(site, jobs, run))
    crystals = Catalogue.from_parquet(catalogue)
    made, costs = plan_catalogue(crystals, simulation, frames, resources, partition_seconds, machine)
    told = {**summary(run, made, costs, resources), "speed_measured": measured}
    # Before it is refused: what is printed shows by how much a plan does not fit.
    if not as_json:
        _print(run, made, costs, resources)
    elif estimate:
        print_json(told)
    if not measured:
        note("seconds are those of a typical core: measure this machine with `diffractory calibrate`")
    check_fits(made, resources)
    if estimate:
        note("nothing was made: leave --estimate out to make the run folder")
        return
    Run.create(run, made, crystals)
    if as_json:
        print_json(told)
    note(f"next: diffractory simulate {run}")


def plan_run(
    folder: Path,
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    resources: Resources,
    partition_seconds: float | None = None,
) -> Run:
    """Plan a run, check that it fits the machine, and make its folder."""
    made, _ = plan_catalogue(catalogue, simulation, orientations, resources, partition_seconds)
    check_fits(made, resources)
    return Run.create(folder, made, catalogue)


def plan_catalogue(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    resources: Resources,
    partition_seconds: float | None = None,
    speed: Speed = TYPICAL,
) -> tuple[Plan, Estimate]:
    """Plan a run with a progress bar, and say what it will cost."""
    with counting_bar("counting beams") as bar:
        task = bar.add_task("", total=len(catalogue))
        counted = survey(
            catalogue, simulation, orientations, lambda: bar.advance(task), processes=usable_cores()
        )
    made = plan_surveyed(catalogue, simulation, orientations, counted, partition_seconds, speed)
    workers = sorted({*_WORKERS, resources.workers})
    return made, Estimate.of(made, counted, catalogue, speed, workers)


def summary(folder: Path, plan: Plan, costs: Estimate, resources: Resources) -> dict[str, Any]:
    """Return what a plan will cost, as plain JSON data."""
    return {
        "run": str(folder),
        "plan_id": plan.plan_id,
        "crystals": plan.n_crystals,
        "orientations": plan.orientations.count,
        "thicknesses": len(plan.simulation.thicknesses),
        "patterns": plan.n_items * len(plan.simulation.thicknesses),
        "peaks": plan.n_peaks,
        "partitions": len(plan.partitions),
        "largest_solve_beams": plan.largest_solve,
        "core_seconds": round(plan.seconds, 1),
        "wall_seconds": round(costs.wall_seconds[resources.workers], 1),
        "workers": resources.workers,
        "estimate": costs.to_dict(),
        "disk_bytes_likely": plan.likely_disk_bytes,
        "disk_bytes_at_most": plan.disk_bytes,
        "worker_bytes": plan.worker_bytes,
    }


def _print(folder: Path, plan: Plan, costs: Estimate, resources: Resources) -> None:
    n_thicknesses = len(plan.simulation.thicknesses)
    table = Table(title=f"{folder}  plan {plan.plan_id[:12]}", show_header=False)
    table.add_row("patterns", f"{plan.n_items * n_thicknesses:,}")
    table.add_row(
        "",
        f"{plan.n_crystals:,} crystals × {plan.orientations.count} orientations × "
        f"{n_thicknesses} thicknesses",
    )
    table.add_row(
        "partitions",
        f"{len(plan.partitions):,}, at {100 * costs.cheapest_partition:.0f} to "
        f"{100 * costs.dearest_partition:.0f} % of their mean cost; {costs.files:,} files",
    )
    table.add_row(
        "largest crystal",
        f"{costs.largest_crystal}: {plan.largest_solve:,} beams, "
        f"{human_seconds(costs.largest_crystal_seconds)} for all its orientations",
    )
    long = plan.seconds > 5400
    work = f"{plan.seconds / 3600:,.1f} core hours" if long else f"{human_seconds(plan.seconds)} on one core"
    table.add_row("predicted work", work)
    for workers, seconds in costs.wall_seconds.items():
        asked = workers == resources.workers
        # Nobody asks a thousand workers for a minute.
        if asked or seconds > 60:
            table.add_row(
                "predicted time" * asked,
                f"{human_seconds(seconds)} on {workers:,} worker{'s' * (workers > 1)}",
            )
    table.add_row(
        "memory a worker", f"{human_bytes(plan.worker_bytes)} of {human_bytes(resources.worker_memory)}"
    )
    table.add_row(
        "disk",
        f"about {human_bytes(plan.likely_disk_bytes)}, at most {human_bytes(plan.disk_bytes)} of "
        f"{human_bytes(resources.disk_free)} free",
    )
    out.print(table)
