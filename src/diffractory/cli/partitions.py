"""The partitions of a run, computed on an engine: progress for people, a log for scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffractory.cli.progress import RESUMES, run_all
from diffractory.dataset.records import Record
from diffractory.dataset.run import Run
from diffractory.dataset.run_log import run_log
from diffractory.execution.engine import Engine


def run_partitions(
    run: Run,
    engine: Engine,
    function: Callable[[int], Record],
    missing: Sequence[int],
    stage: str,
    label: str,
    costs: Sequence[float] | None = None,
) -> list[Record]:
    """Compute partitions of a stage and return their records.

    Parameters
    ----------
    run : Run
    engine : Engine
    function : callable
        Computes a partition and commits its record.
    missing : sequence of int
        Partitions to compute; none is fine.
    stage : str
    label : str
        What is being done, for people.
    costs : sequence of float, optional
        Predicted cost of each; the plan's by default.

    Raises
    ------
    ExecutionError
        If some failed; the others were finished first.
    RunError
        If the log cannot be written.
    """
    if not missing:
        return []
    weights = [run.plan.partitions[index].seconds for index in missing] if costs is None else costs
    with run_log(run) as log:

        def on_outcome(partition: int, outcome: Record | Exception) -> None:
            if isinstance(outcome, Exception):
                log.failed(stage, partition, outcome)
            else:
                log.finished(outcome)

        return run_all(engine, function, missing, label, weights, on_outcome, RESUMES)
