"""`diffractory verify`: prove that a run is whole and right."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import Annotated

import typer

from diffractory.cli.console import JsonFlag, complain, note, out, print_json
from diffractory.cli.engines import engine_here, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    RunArgument,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
)
from diffractory.cli.progress import run_all
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.run import Run
from diffractory.dataset.verify import Verification, remove_records, verify_partition
from diffractory.errors import RunError
from diffractory.execution.engine import Engine

app = typer.Typer()

#: Damaged partitions named in the message; the rest is counted.
_NAMED = 5


@app.command(epilog="Example: diffractory verify runs/first --sample 0.01")
def verify(
    run: RunArgument,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of orientations solved again another way.")
    ] = 0.01,
    repair: Annotated[
        bool, typer.Option("--repair", help="Have damaged partitions computed anew by the next simulate.")
    ] = False,
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Check records, checksums and physical invariants, and solve a sample again by another solver."""
    opened = Run.open(run)
    _ = opened.catalogue  # another catalogue than the planned one is refused before workers are started
    if repair:
        # What another version computed is not damaged, and could not be computed anew.
        opened.check_code_version()
    elif not opened.is_of_this_version:
        version = opened.plan.code_version
        note(f"planned with diffractory {version}: orientations and intensities are not compared")
    slurm = slurm_request(cluster, site, jobs, dry_run, run)
    # What another command computes meanwhile would look missing, and its records be removed.
    with sole_driver(opened) if repair else nullcontext():
        with engine_here(cluster, workers, run, slurm, len(opened.plan.partitions)) as engine:
            findings = check_partitions(opened, engine, sample)
        bad = [finding for finding in findings if finding.problems]
        if repair:
            remove_records(opened, [finding.partition for finding in bad if finding.checked])
    if as_json:
        print_json(_summary(findings, bad))
    refuse_damaged(opened, findings, repair)
    if not as_json:
        again = sum(finding.n_solved_again for finding in findings)
        worst = max((finding.largest_difference for finding in findings), default=0.0)
        patterns = sum(finding.n_patterns for finding in findings)
        out.print(
            f"{run}: whole. {len(findings)} partitions, {patterns:,} patterns; "
            f"{again} orientations solved again, largest difference {worst:.1e}",
        )


def _summary(findings: list[Verification], bad: list[Verification]) -> dict[str, object]:
    worst = max((finding.largest_difference for finding in findings), default=0.0)
    return {
        "whole": not bad,
        "partitions": len(findings),
        "patterns": sum(finding.n_patterns for finding in findings),
        "solved_again": sum(finding.n_solved_again for finding in findings),
        # Other beams than the reference's differ without measure; JSON knows no infinity.
        "largest_difference": worst if math.isfinite(worst) else None,
        "problems": {finding.partition: list(finding.problems) for finding in bad},
    }


def check_partitions(run: Run, engine: Engine, sample: float) -> list[Verification]:
    """Verify all partitions of a run and return what was found in each."""
    partitions = list(range(len(run.plan.partitions)))
    return run_all(engine, partial(verify_partition, run.path, sample=sample), partitions, "verifying")


def refuse_damaged(run: Run, findings: list[Verification], repaired: bool = False) -> None:
    """Raise RunError if any partition has a problem, naming the first ones."""
    bad = [finding for finding in findings if finding.problems]
    if not bad:
        return
    for finding in bad[:_NAMED]:
        complain(f"  partition {finding.partition}: {finding.problems[0]}")
    raise RunError(
        f"{run.path}: {len(bad)} of {len(run.plan.partitions)} partitions are missing or damaged",
        f"partition {bad[0].partition}: {bad[0].problems[0]}",
        f"Run `diffractory simulate {run.path}` to compute them anew"
        if repaired
        else f"Run `diffractory verify {run.path} --repair`, then `diffractory simulate {run.path}`",
    )
