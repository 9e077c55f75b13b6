"""Work on an engine with a progress bar: share done by predicted cost, time left, failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from diffractory.cli.console import err, note
from diffractory.errors import ExecutionError
from diffractory.execution.engine import Engine

T = TypeVar("T")
R = TypeVar("R")

#: Failed units of work named on the terminal; the rest is counted.
_NAMED_FAILURES = 5


def counting_bar(label: str) -> Progress:
    """Return a bar that counts steps of equal cost."""
    return Progress(
        SpinnerColumn(),
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
    )


def run_all(
    engine: Engine,
    function: Callable[[T], R],
    items: Sequence[T],
    label: str,
    costs: Sequence[float] | None = None,
    on_outcome: Callable[[T, R | Exception], None] = lambda _, __: None,
) -> list[R]:
    """Run a function over items with a progress bar and return the results, in no special order.

    Parameters
    ----------
    engine : Engine
    function : callable
    items : sequence
    label : str
        What is being done, for people.
    costs : sequence of float, optional
        Predicted cost of each item; equal by default.
    on_outcome : callable
        Called with each item and its result, or its error, as it comes.

    Raises
    ------
    ExecutionError
        If some items failed; the others were finished first.
    """
    weights = dict(zip(range(len(items)), costs or [1.0] * len(items), strict=True))
    results: list[R] = []
    failures: list[str] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[done]}/{task.fields[count]} parts{task.fields[failed]}"),
    )
    with Progress(*columns, console=err) as progress:
        total = max(sum(weights.values()), 1e-9)
        task = progress.add_task(label, total=total, done=0, count=len(items), failed="")
        for outcome in engine.run(_Numbered(function), list(enumerate(items))):
            if outcome.error is not None:
                index, item = outcome.item
                # Partitions are known by their number; a block of peaks has no name but its place.
                failures.append(f"part {item if isinstance(item, int) else index}: {outcome.error}")
                on_outcome(item, outcome.error)
            elif outcome.result is not None:
                results.append(outcome.result[1])
                on_outcome(outcome.item[1], outcome.result[1])
            failed = f", {len(failures)} failed" if failures else ""
            progress.update(
                task,
                advance=weights[outcome.item[0]],
                done=len(results) + len(failures),
                failed=failed,
            )
    _raise_failures(failures, len(items), label)
    return results


def map_ordered(engine: Engine, label: str) -> Callable[[Callable[[T], R], Iterable[T]], list[R]]:
    """Return a ``map`` that runs on an engine with a progress bar and keeps the order."""

    def mapping(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        numbered = run_all(engine, _Numbered(function), list(enumerate(items)), label)
        return [result for _, result in sorted(numbered, key=lambda pair: pair[0])]

    return mapping


@dataclass(frozen=True)
class _Numbered(Generic[T, R]):
    """Applies a function to a numbered item and hands the number back; can be sent to workers."""

    function: Callable[[T], R]

    def __call__(self, numbered: tuple[int, T]) -> tuple[int, R]:
        index, item = numbered
        return index, self.function(item)


def _raise_failures(failures: list[str], count: int, label: str) -> None:
    if not failures:
        return
    for text in failures[:_NAMED_FAILURES]:
        note(f"  failed: {text}")
    raise ExecutionError(
        f"{label}: {len(failures)} of {count} parts failed, the others are finished",
        failures[0],
        "Remove the cause and run the same command again: only what is missing is computed",
    )
