"""Callables that tests send to Dask workers; they must be importable there."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffractory.errors import ExecutionError, RunError, ScanError


def nap(number: int) -> int:
    time.sleep(0.05)
    return number


def nap_and_clean_up(path: Path, seconds: float) -> None:
    """As whoever writes: a partial file that is removed whatever happens."""
    path.touch()
    try:
        time.sleep(seconds)
    finally:
        path.unlink()


def square(number: int) -> int:
    return number * number


def working_directory(_: int) -> str:
    return str(Path.cwd())


def fail_on_three(number: int) -> int:
    if number == 3:
        raise RunError("three is damaged", "bits flipped", "repair it")
    if number == 4:
        raise ExecutionError("four failed")
    return number


def break_on_two(number: int) -> int:
    if number == 2:
        raise ZeroDivisionError("a defect")
    return number


def log_and_nap(task: tuple[str, int]) -> int:
    """Leave a trace of having started, then take a while."""
    folder, number = task
    (Path(folder) / f"started-{number}").touch()
    time.sleep(0.15)
    return number


def die_once(task: tuple[str, int]) -> int:
    """Kill the worker process at the first attempt, succeed at the second."""
    folder, number = task
    trace = Path(folder) / f"died-{number}"
    if number == 1 and not trace.exists():
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def loaded(module: str) -> tuple[bool, int]:
    """Tell whether a module is loaded where this runs, and in which process that is."""
    return module in sys.modules, os.getpid()


def refuse() -> None:
    raise ScanError("no scan")


def process_id() -> int:
    return os.getpid()


def note_and_nap(task: tuple[str, int]) -> str:
    """Note in which job this task began, take a while, and return the job."""
    folder, number = task
    job = os.environ.get("SLURM_JOB_ID", "none")
    with (Path(folder) / "began").open("a") as file:
        file.write(f"{number} {job}\n")
    time.sleep(0.25)
    return job


def nap_until_another_job(task: tuple[str, int]) -> str:
    """As :func:`note_and_nap`, without the nap once a second job has begun a task."""
    folder, number = task
    began = Path(folder) / "began"
    jobs = {line.split()[1] for line in began.read_text().splitlines()} if began.exists() else set()
    if len(jobs) < 2:
        return note_and_nap(task)
    with began.open("a") as file:
        file.write(f"{number} {os.environ['SLURM_JOB_ID']}\n")
    return os.environ["SLURM_JOB_ID"]


def process_of_worker(model: object, X: object, y: object) -> int:
    """Score a model with the number of the process that scores it: a search tells where it ran."""
    del model, X, y
    return os.getpid()


def largest_memory() -> int:
    """Return the most bytes that this process ever held, pages of mapped files among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@dataclass(frozen=True)
class Watched:
    """Does some work, and returns the process that did it with the most memory that it ever held."""

    work: Callable[[object], object]

    def __call__(self, item: object) -> tuple[int, int]:
        self.work(item)
        return os.getpid(), largest_memory()
