"""`diffractory plan`: decide everything a run will do, and refuse what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from diffractory.cli.calibrate import load_speed
from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.options import WorkersOption, check_output_folder, parse_thicknesses
from diffractory.cli.progress import counting_bar
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan, check_fits, make_plan
from diffractory.dataset.run import Run
from diffractory.errors import SpecError
from diffractory.scattering.cost import TYPICAL, Speed
from diffractory.settings import Resources, human_bytes, human_seconds
from diffractory.specs import FORM_FACTOR_MODELS, OrientationSpec, SimulationSpec

app = typer.Typer()

_PHYSICS = "Physics"


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
    seed: Annotated[int, typer.Option(help="Seed of random in-plane angles.")] = 0,
    energy: Annotated[float, typer.Option(help="Beam energy in keV.", rich_help_panel=_PHYSICS)] = 300.0,
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
    partition_seconds: Annotated[float, typer.Option(help="Wanted cost of a partition.")] = 600.0,
    speed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Speed of the machine that will run it (diffractory calibrate)."),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Plan a run: count beams, bytes and seconds without solving anything; refuse what does not fit."""
    if in_plane not in ("paper", "random"):
        raise SpecError(f"--in-plane {in_plane!r} is unknown", fix="Use paper or random")
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
    machine, measured = load_speed(speed)
    check_output_folder(run)
    frames = OrientationSpec(count=orientations, in_plane=in_plane, seed=seed)
    resources = Resources.of_this_machine(run, workers)
    made = plan_run(
        run, Catalogue.from_parquet(catalogue), simulation, frames, resources, partition_seconds, machine
    )
    if as_json:
        print_json({**summary(made, resources), "speed_measured": measured})
        return
    _print(made, resources)
    if not measured:
        note("seconds are those of a typical core: measure this machine with `diffractory calibrate`")
    note(f"next: diffractory simulate {run}")


def plan_run(
    folder: Path,
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    resources: Resources,
    partition_seconds: float = 600.0,
    speed: Speed = TYPICAL,
) -> Run:
    """Plan a run, check that it fits the machine, and make its folder."""
    with counting_bar("counting beams") as bar:
        task = bar.add_task("", total=len(catalogue))
        made = make_plan(
            catalogue, simulation, orientations, partition_seconds, lambda: bar.advance(task), speed
        )
    check_fits(made, resources)
    return Run.create(folder, made, catalogue)


def summary(run: Run, resources: Resources) -> dict[str, Any]:
    """Return what a plan will cost, as plain JSON data."""
    plan = run.plan
    return {
        "run": str(run.path),
        "plan_id": plan.plan_id,
        "crystals": plan.n_crystals,
        "orientations": plan.orientations.count,
        "thicknesses": len(plan.simulation.thicknesses),
        "patterns": plan.n_items * len(plan.simulation.thicknesses),
        "peaks": plan.n_peaks,
        "partitions": len(plan.partitions),
        "largest_solve_beams": plan.largest_solve,
        "core_seconds": round(plan.seconds, 1),
        "wall_seconds": round(plan.seconds / resources.workers, 1),
        "workers": resources.workers,
        "disk_bytes_likely": plan.likely_disk_bytes,
        "disk_bytes_at_most": plan.disk_bytes,
        "worker_bytes": plan.worker_bytes,
    }


def _print(run: Run, resources: Resources) -> None:
    plan: Plan = run.plan
    n_thicknesses = len(plan.simulation.thicknesses)
    table = Table(title=f"{run.path}  plan {plan.plan_id[:12]}", show_header=False)
    table.add_row("patterns", f"{plan.n_items * n_thicknesses:,}")
    table.add_row(
        "",
        f"{plan.n_crystals:,} crystals × {plan.orientations.count} orientations × "
        f"{n_thicknesses} thicknesses",
    )
    table.add_row("partitions", f"{len(plan.partitions):,}")
    table.add_row("largest solve", f"{plan.largest_solve:,} beams")
    table.add_row("predicted work", f"{human_seconds(plan.seconds)} on one core")
    table.add_row(
        "predicted time", f"{human_seconds(plan.seconds / resources.workers)} on {resources.workers} workers"
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
