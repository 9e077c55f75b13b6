"""`diffractory status`: how far a run is, from disk alone."""

from __future__ import annotations

import typer
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.options import RunArgument
from diffractory.dataset.features import planned_features
from diffractory.dataset.run import PEAKS, Run
from diffractory.units import human_bytes, human_seconds

app = typer.Typer()


@app.command(epilog="Example: diffractory status runs/first --json")
def status(run: RunArgument, as_json: JsonFlag = False) -> None:
    """Say how far each stage of a run is; reads the disk only, from any machine, at any time."""
    opened = Run.open(run)
    stages = {PEAKS: opened.plan.plan_id, **{plan.stage: plan.plan_id for plan in planned_features(opened)}}
    report = {stage: _stage(opened, stage, plan_id) for stage, plan_id in stages.items()}
    if as_json:
        print_json({"run": str(run), "plan_id": opened.plan.plan_id, "stages": report})
        return
    table = Table("stage", "done", "share of work", "core time spent", "on disk", "damaged", title=str(run))
    for stage, numbers in report.items():
        table.add_row(
            stage,
            f"{numbers['done']} of {numbers['partitions']}",
            f"{100 * numbers['share_of_work']:.0f} %",
            human_seconds(numbers["core_seconds"]),
            human_bytes(numbers["bytes"]),
            str(numbers["damaged"]),
        )
    out.print(table)
    if fallen := report[PEAKS]["dense_solves"]:
        note(f"{fallen:.0f} solves did not converge as a series and were done by the dense reference")


def _stage(run: Run, stage: str, plan_id: str) -> dict[str, float]:
    done = run.done(stage, plan_id)
    work = sum(run.plan.partitions[index].seconds for index in done)
    return {
        "partitions": len(run.plan.partitions),
        "done": len(done),
        "damaged": len(run.damaged(stage, plan_id)),
        "share_of_work": work / run.plan.seconds,
        "dense_solves": sum(record.dense_solves for record in done.values()),
        "core_seconds": round(sum(record.processor_seconds for record in done.values()), 2),
        "bytes": sum(shard.size for record in done.values() for shard in record.shards.values()),
    }
