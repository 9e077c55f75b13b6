"""`diffractory simulate`: compute the partitions that a run still lacks."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import typer

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.options import ClusterOption, RunArgument, WorkersOption
from diffractory.cli.progress import engine_here, run_all
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import check_fits
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.scattering.torch_solver import check_device
from diffractory.settings import Resources, human_seconds

app = typer.Typer()


@app.command(epilog="Example: diffractory simulate runs/first --workers 2")
def simulate(
    run: RunArgument,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Compute this partition only, here, without a cluster.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Solve on a GPU with PyTorch (extra 'gpu'): cuda, cuda:1; or cpu, for a rehearsal. "
            "One worker a GPU, unless --workers says otherwise.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate what a run still lacks. Interrupted or killed: run the same command again."""
    opened = Run.open(run)
    _ = opened.catalogue  # another catalogue than the planned one is refused before workers are started
    if device is not None:
        check_device(device, opened.plan.simulation)
        workers = workers or 1
    started = time.perf_counter()
    if partition is not None:
        record = simulate_partition(run, partition, device)
        result: dict[str, Any] = {"run": str(run), "partition": partition, "seconds": record.seconds}
    else:
        check_fits(opened.plan, Resources.of_this_machine(run, workers))
        with engine_here(cluster, workers, run) as engine:
            note(f"running on {engine.description}")
            result = simulate_missing(opened, engine, device)
    result["wall_seconds"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
        return
    out.print(f"{run}: simulated in {human_seconds(result['wall_seconds'])}")
    note(f"next: diffractory verify {run}; diffractory features {run}")


def simulate_missing(run: Run, engine: Engine, device: str | None = None) -> dict[str, Any]:
    """Compute all partitions without a valid record; say which had a damaged one."""
    for index, problem in run.damaged().items():
        note(f"partition {index} is computed anew: {problem}")
    done = run.done()
    missing = [index for index in range(len(run.plan.partitions)) if index not in done]
    if done:
        note(f"{len(done)} of {len(run.plan.partitions)} partitions are done already")
    costs = [run.plan.partitions[index].seconds for index in missing]
    records = (
        run_all(engine, partial(simulate_partition, run.path, device=device), missing, "simulating", costs)
        if missing
        else []
    )
    return {
        "run": str(run.path),
        "plan_id": run.plan.plan_id,
        "partitions_done_before": len(done),
        "partitions_computed": len(records),
        "core_seconds": round(sum(record.seconds for record in records), 2),
    }
