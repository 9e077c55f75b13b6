"""Callables that tests send to Dask workers; they must be importable there."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from diffractory import Crystal, SimulationSpec, simulate
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.records import Record
from diffractory.errors import ExecutionError, RunError, ScanError
from zoo import ZOO


def nap(number: int) -> int:
    time.sleep(0.05)
    return number


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


def _ticks() -> dict[str, int]:
    """Return the processor time of every thread of this process, in clock ticks."""
    times = {}
    for task in Path("/proc/self/task").iterdir():
        numbers = (task / "stat").read_text().rsplit(")", 1)[1].split()
        times[task.name] = int(numbers[11]) + int(numbers[12])
    return times


def busy_threads_of_a_solve(_: int) -> tuple[int, set[int]]:
    """Solve where BLAS would use four threads; count those that worked, and report the setting after."""
    crystal = Crystal.from_structure(ZOO["triclinic-P-a-invented"])
    spec = SimulationSpec(thicknesses=tuple(float(t) for t in range(20, 2001, 20)))
    with threadpool_limits(limits=4, user_api="blas"):
        simulate(crystal, np.eye(3)[None], spec)
        before, started = _ticks(), time.thread_time()
        # By this thread's own clock: a second of its work, however loaded the machine is.
        while time.thread_time() - started < 1.0:
            simulate(crystal, np.eye(3)[None], spec)
        after = _ticks()
        threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    # A worker's other threads wake now and then: only those that did a fair share of the work count.
    spent = {task: after[task] - before.get(task, 0) for task in after}
    busy = sum(ticks > 0.2 * sum(spent.values()) for ticks in spent.values())
    return busy, threads


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


def simulate_with_appetite(run_path: Path, partition: int) -> Record:
    """Simulate a partition; the first attempt at number 1 takes memory until somebody stops it."""
    trace = Path(run_path) / "attempts"
    first = not trace.exists() or "1" not in trace.read_text().split()
    with trace.open("a") as file:
        file.write(f"{partition}\n")
    hoard = []
    while partition == 1 and first:
        hoard.append(np.ones(12_000_000))
        time.sleep(0.02)
    return simulate_partition(run_path, partition)


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
