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
    Preset,
    PresetOption,
    RunArgument,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    parse_thicknesses,
)
from diffractory.cli.partitions import run_partitions
from diffractory.dataset.features import FeaturePlan, features_partition, plan_features
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.reader import complete_records
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.learning.training import requested_features
from diffractory.patterns.feature_sets import number_of_features
from diffractory.specs import BoostingSpec, ForestSpec, LabProtocolSpec

app = typer.Typer()

_PATTERNS_OF = {"paper": "as simulated", "turned": "turned at random", "lab": "as a laboratory sees them"}


@app.command(epilog="Example: diffractory features runs/first --thickness 200")
def features(
    run: RunArgument,
    thickness: Annotated[
        str | None, typer.Option(metavar="Å", help="Thicknesses to use; all of the run's by default.")
    ] = None,
    preset: PresetOption = "paper",
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Compute the features a preset learns from. Interrupted or killed: run the same command again."""
    opened = Run.open(run)
    chosen = None if thickness is None else parse_thicknesses(thickness)
    complete_records(opened)
    slurm = slurm_request(cluster, site, jobs, dry_run, run)
    parts = len(opened.plan.partitions)
    with sole_driver(opened), engine_here(cluster, workers, run, slurm, parts) as engine:
        results = [
            compute_missing_features(opened, engine, planned)
            for planned in plans_of_preset(opened, preset, chosen)
        ]
    if as_json:
        print_json({"run": str(run), "preset": preset, "sets": results})
        return
    for result in results:
        what = _PATTERNS_OF[result["protocol"]] + (
            f" at {result['thicknesses']} Å" if result["thicknesses"] else ""
        )
        out.print(f"{run}: {result['patterns']:,} patterns {what} × {result['features']} features")
    note(f"next: diffractory train {run} --out MODEL" + ("" if preset == "paper" else f" --preset {preset}"))


def plans_of_preset(
    run: Run, preset: Preset, thicknesses: tuple[float, ...] | None = None
) -> list[FeaturePlan]:
    """Plan the feature sets that a preset learns from, and make their empty stores."""
    if preset == "paper":
        # Any thicknesses: a forest may be trained at each.
        (wanted,) = requested_features(run, ForestSpec())
        return [plan_features(run, wanted.features, thicknesses)]
    plans = []
    for thickness in thicknesses or (BoostingSpec().thickness,):
        for wanted in requested_features(run, BoostingSpec(thickness=thickness)):
            used = (wanted.thickness,)
            plan = plan_features(run, wanted.features, used, lab=wanted.lab, seed=wanted.seed)
            # The laboratory's patterns are the same whatever the thickness of the others.
            plans += [plan] if plan not in plans else []
    return plans


def compute_missing_features(run: Run, engine: Engine, plan: FeaturePlan) -> dict[str, Any]:
    """Compute all partitions of a feature set without a valid record."""
    done = run.done(plan.stage, plan.plan_id)
    missing = [index for index in range(len(run.plan.partitions)) if index not in done]
    costs = [float(run.plan.partitions[index].n_peaks) for index in missing]
    work = partial(features_partition, run.path, plan)
    run_partitions(run, engine, work, missing, plan.stage, "features", costs)
    thicknesses = sorted(set(plan.lab.thickness_range)) if plan.lab is not None else []
    turned = plan.lab is not None and plan.lab == LabProtocolSpec.turned(thicknesses[0])
    return {
        "stage": plan.stage,
        "thicknesses": list(plan.thicknesses) or (list(thicknesses) if turned else []),
        "protocol": "paper" if plan.lab is None else "turned" if turned else "lab",
        "patterns": run.plan.n_items * plan.n_columns,
        "features": number_of_features(plan.features),
        "partitions_computed": len(missing),
    }
