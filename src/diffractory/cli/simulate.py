"""`diffractory simulate`: compute the partitions that a run still lacks."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import typer

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here, resources_there, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    RunArgument,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
)
from diffractory.cli.partitions import run_partitions
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import check_fits
from diffractory.dataset.run import PEAKS, Run
from diffractory.execution.engine import Engine
from diffractory.scattering.torch_solver import check_device
from diffractory.settings import Resources
from diffractory.units import human_seconds

app = typer.Typer()


@app.command(epilog="Example: diffractory simulate runs/first --workers 2")
def simulate(
    run: RunArgument,
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Compute this partition only, here, without a cluster.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="DIFFRACTORY_DEVICE",
            show_envvar=True,
            help="Solve on a GPU with PyTorch (extra 'gpu'): cuda, cuda:1; or cpu, for a rehearsal. "
            "One worker a GPU, unless --workers says otherwise.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate what a run still lacks. Interrupted or killed: run the same command again."""
    opened = Run.open(run)
    opened.check_code_version()
    _ = opened.catalogue  # another catalogue than the planned one is refused before workers are started
    slurm = slurm_request(cluster, site, jobs, dry_run, run)
    # The driver of SLURM jobs has no GPU itself; its workers check theirs.
    if device is not None and slurm is None:
        check_device(device, opened.plan.simulation)
        workers = workers or 1
    started = time.perf_counter()
    if partition is not None:
        record = simulate_partition(run, partition, device)
        result: dict[str, Any] = {"run": str(run), "partition": partition, "seconds": record.seconds}
    else:
        with sole_driver(opened):
            parts = _check_fits(opened, resources_there(run, workers, slurm, cluster))
            with engine_here(cluster, workers, run, slurm, parts) as engine:
                note(f"running on {engine.description}")
                result = simulate_missing(opened, engine, device)
    result["wall_seconds"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
        return
    out.print(f"{run}: simulated in {human_seconds(result['wall_seconds'])}")
    note(f"next: diffractory verify {run}; diffractory features {run}")


def _check_fits(run: Run, resources: Resources) -> int:
    """Refuse what the machine cannot hold of what is still missing; return how many parts that is."""
    done = run.done()
    missing = [part.n_peaks for index, part in enumerate(run.plan.partitions) if index not in done]
    if missing:
        check_fits(run.plan, resources, sum(missing) / run.plan.n_peaks)
    return len(missing)


def simulate_missing(run: Run, engine: Engine, device: str | None = None) -> dict[str, Any]:
    """Compute all partitions without a valid record; say which had a damaged one."""
    for index, problem in run.damaged().items():
        note(f"partition {index} is computed anew: {problem}")
    done = run.done()
    missing = [index for index in range(len(run.plan.partitions)) if index not in done]
    if done:
        note(f"{len(done)} of {len(run.plan.partitions)} partitions are done already")
    records = run_partitions(
        run, engine, partial(simulate_partition, run.path, device=device), missing, PEAKS, "simulating"
    )
    return {
        "run": str(run.path),
        "plan_id": run.plan.plan_id,
        "partitions_done_before": len(done),
        "partitions_computed": len(records),
        "core_seconds": round(sum(record.processor_seconds for record in records), 2),
    }
