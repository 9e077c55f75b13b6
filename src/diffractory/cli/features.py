"""`diffractory features`: fixed-shape feature arrays from the peaks of a run."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    RunArgument,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    parse_thicknesses,
)
from diffractory.cli.partitions import run_partitions
from diffractory.dataset.features import features_partition, plan_features
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.reader import complete_records
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.specs import RadialBasisSpec

app = typer.Typer()


@app.command(epilog="Example: diffractory features runs/first --thickness 200")
def features(
    run: RunArgument,
    thickness: Annotated[
        str | None, typer.Option(metavar="Å", help="Thicknesses to use; all of the run's by default.")
    ] = None,
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Compute the radial-basis features of a run. Interrupted or killed: run the same command again."""
    opened = Run.open(run)
    chosen = None if thickness is None else parse_thicknesses(thickness)
    complete_records(opened)
    slurm = slurm_request(cluster, site, jobs, dry_run, run)
    with sole_driver(opened), engine_here(cluster, workers, run, slurm) as engine:
        result = compute_features(opened, engine, chosen)
    if as_json:
        print_json(result)
        return
    out.print(f"{run}: {result['patterns']:,} patterns × {result['features']} features")
    note(f"next: diffractory train {run} --out MODEL")


def compute_features(
    run: Run, engine: Engine, thicknesses: tuple[float, ...] | None = None
) -> dict[str, Any]:
    """Compute all feature partitions without a valid record."""
    plan = plan_features(run, RadialBasisSpec(), thicknesses)
    done = run.done(plan.stage, plan.plan_id)
    missing = [index for index in range(len(run.plan.partitions)) if index not in done]
    costs = [float(run.plan.partitions[index].n_peaks) for index in missing]
    work = partial(features_partition, run.path, plan)
    run_partitions(run, engine, work, missing, plan.stage, "features", costs)
    return {
        "run": str(run.path),
        "stage": plan.stage,
        "thicknesses": list(plan.thicknesses),
        "patterns": run.plan.n_items * len(plan.thicknesses),
        "features": plan.basis.n_features,
        "partitions_computed": len(missing),
    }
