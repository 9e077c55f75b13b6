"""Progress of work: a bar on a terminal, a line now and then elsewhere; and work on an engine with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from diffractory.cli.console import complain, err, note
from diffractory.errors import ExecutionError
from diffractory.execution.engine import Engine
from diffractory.units import human_seconds

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: What is told where each finished part is on disk already.
RESUMES = "Remove the cause and run the same command again: only what is missing is computed"

#: Failed units of work named on the terminal; the rest is counted.
_NAMED_FAILURES = 5
#: Seconds between two lines where there is no terminal.
_LINE_EVERY = 30.0


class ProgressBar(Progress):
    """A bar of one task, redrawn on a terminal; in a log file or a pipe, a line now and then, and at the end.

    Parameters
    ----------
    label : str
        What is being done, for people.
    columns : ProgressColumn
        Of the bar on a terminal.
    transient : bool
        Whether the bar goes away at the end.
    """

    def __init__(self, label: str, *columns: ProgressColumn, transient: bool = False) -> None:
        # rich would draw a bar once, at the end, where it cannot be redrawn.
        self._in_lines = not err.is_terminal or err.is_dumb_terminal
        super().__init__(*columns, console=err, transient=transient, disable=self._in_lines)
        self._label, self._told = label, time.monotonic()

    def start(self) -> None:
        """Begin to show progress."""
        logger.debug("%s: begun", self._label)
        super().start()

    def advance(self, task_id: TaskID, advance: float = 1.0) -> None:
        """Advance the task, and tell of it where it is time to."""
        super().advance(task_id, advance)
        self._tell_in_time()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change the task, and tell of it where it is time to."""
        super().update(task_id, **changes)
        self._tell_in_time()

    def stop(self) -> None:
        """End the bar; without a terminal, say how far it came."""
        super().stop()
        if self._in_lines:
            self._tell()

    def _tell_in_time(self) -> None:
        if self._in_lines and time.monotonic() > self._told + _LINE_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        for task in self.tasks:
            fields = task.fields
            parts = (
                f"{fields['done']}/{fields['count']} parts{fields['failed']}"
                if "done" in fields
                else f"{task.completed:,.0f}/{task.total or 0:,.0f}"
            )
            left = f", {human_seconds(task.time_remaining)} left" if task.time_remaining else ""
            note(f"{self._label}: {task.percentage:.0f}%, {parts}{left}")


def counting_bar(label: str, transient: bool = False) -> ProgressBar:
    """Return a bar that counts steps of equal cost.

    Parameters
    ----------
    label : str
        What is being done, for people.
    transient : bool
        Whether the bar goes away at the end.
    """
    return ProgressBar(
        label,
        SpinnerColumn(),
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=transient,
    )


def run_all(
    engine: Engine,
    function: Callable[[T], R],
    items: Sequence[T],
    label: str,
    costs: Sequence[float] | None = None,
    on_outcome: Callable[[T, R | Exception], None] = lambda _, __: None,
    again: str = "Remove the cause and run the same command again",
) -> list[R]:
    """Run a function over items with a progress bar and return the results, in the order of the items.

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
    again : str
        What a person is told to do if items failed.

    Raises
    ------
    ExecutionError
        If some items failed; the others were finished first.
    """
    weights = dict(zip(range(len(items)), costs or [1.0] * len(items), strict=True))
    results: dict[int, R] = {}
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
    with ProgressBar(label, *columns) as progress:
        total = max(sum(weights.values()), 1e-9)
        task = progress.add_task(label, total=total, done=0, count=len(items), failed="")
        for outcome in engine.run(_Numbered(function), list(enumerate(items))):
            if outcome.error is not None:
                index, item = outcome.item
                # Partitions are known by their number; a block of peaks has no name but its place.
                failures.append(f"part {item if isinstance(item, int) else index}: {outcome.error}")
                on_outcome(item, outcome.error)
            elif outcome.result is not None:
                index, result = outcome.result
                results[index] = result
                on_outcome(outcome.item[1], result)
            logger.debug("%s: part %s of %d ended", label, outcome.item[0], len(items))
            failed = f", {len(failures)} failed" if failures else ""
            progress.update(
                task,
                advance=weights[outcome.item[0]],
                done=len(results) + len(failures),
                failed=failed,
            )
    _raise_failures(failures, len(items), label, again)
    return [results[index] for index in sorted(results)]


def map_ordered(engine: Engine, label: str) -> Callable[[Callable[[T], R], Iterable[T]], list[R]]:
    """Return a ``map`` that runs on an engine with a progress bar."""

    def mapping(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        return run_all(engine, function, list(items), label)

    return mapping


@dataclass(frozen=True)
class _Numbered(Generic[T, R]):
    """Applies a function to a numbered item and hands the number back; can be sent to workers."""

    function: Callable[[T], R]

    def __call__(self, numbered: tuple[int, T]) -> tuple[int, R]:
        index, item = numbered
        return index, self.function(item)


def _raise_failures(failures: list[str], count: int, label: str, again: str) -> None:
    if not failures:
        return
    for text in failures[:_NAMED_FAILURES]:
        complain(f"  failed: {text}")
    raise ExecutionError(
        f"{label}: {len(failures)} of {count} parts failed, the others are finished",
        failures[0],
        again,
    )
