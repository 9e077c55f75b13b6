"""Simulations that tests send to Dask workers, apart from naps: who only naps starts without physics."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from diffractory import Crystal, SimulationSpec, simulate
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.records import Record
from zoo import ZOO


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
