"""What Dask costs and what workers hold: throughput of two workers, overhead of a partition, memory.

The same run inline and on two local workers (with, as the machine's own limit, two processes side by side
without Dask); many partitions that do nothing; features on one core; and the largest memory of a worker
against what the plan counted for it.

Example::

    python benchmarks/scale.py --catalogue crystals.parquet
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client, LocalCluster
from machine import command, describe, write_json

from diffractory import Catalogue, SimulationSpec
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.dataset.features import features_partition, plan_features
from diffractory.dataset.partition import read_partition, simulate_partition
from diffractory.dataset.plan import make_plan
from diffractory.dataset.run import Run
from diffractory.execution.engine import DaskEngine, InlineEngine, open_engine
from diffractory.patterns.radial_basis import radial_basis_series
from diffractory.scattering.calibration import measure_speed
from diffractory.specs import OrientationSpec, RadialBasisSpec

RESULT = Path(__file__).parent / "results" / "scale.json"
WORKERS = 2
THICKNESSES = tuple(range(100, 501, 50))
#: Partitions of the run: enough that the last ones, which leave a worker idle, weigh little.
PARTITIONS = 80
#: Seconds of work of the run, predicted.
WORK = 80.0
WORKER_MEMORY = 4_000_000_000


def choose(catalogue: Catalogue, count: int) -> Catalogue:
    """Return crystals of all sizes, the same ones each time."""
    order = np.argsort(catalogue.table["volume_primitive"].to_numpy())
    return catalogue.take(np.sort(order[np.linspace(0, 0.98 * (len(order) - 1), count).astype(int)]))


def new_run(folder: Path, name: str, catalogue: Catalogue) -> Run:
    """Plan a run of about WORK seconds in PARTITIONS partitions."""
    simulation = SimulationSpec(thicknesses=THICKNESSES)
    speed = measure_speed()
    once = make_plan(catalogue, simulation, OrientationSpec(count=4), speed=speed).seconds
    orientations = OrientationSpec(count=max(4, round(4 * WORK / once)))
    plan = make_plan(catalogue, simulation, orientations, WORK / PARTITIONS, speed=speed)
    return Run.create(folder / name, plan, catalogue)


def copy_of(run: Run, name: str) -> Run:
    """Make a run of the same plan that is not begun."""
    return Run.create(run.path.parent / name, run.plan, run.catalogue)


def work_through(engine: DaskEngine | InlineEngine, run: Run) -> float:
    """Simulate all partitions; return the seconds it took."""
    started = time.perf_counter()
    parts = range(len(run.plan.partitions))
    for outcome in engine.run(partial(simulate_partition, run.path), parts):
        if outcome.error is not None:
            raise outcome.error
    return time.perf_counter() - started


def side_by_side(run: Run) -> float:
    """Simulate in two processes without Dask, partitions in turn; return the seconds of the slower one."""
    code = (
        "import sys, time\n"
        "from diffractory.dataset.partition import simulate_partition\n"
        "import diffractory.scattering.simulate\n"
        "simulate_partition(sys.argv[1], int(sys.argv[2]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "started = time.perf_counter()\n"
        "for part in range(*map(int, sys.argv[2:])): simulate_partition(sys.argv[1], part)\n"
        "print(time.perf_counter() - started, flush=True)\n"
    )
    words = [str(len(run.plan.partitions)), str(WORKERS)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(run.path), str(first), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in range(WORKERS)
    ]
    # They compile and load first, and begin together.
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def throughput(folder: Path, catalogue: Catalogue) -> dict[str, Any]:
    """Measure one process, two processes without Dask, and two Dask workers on the same work."""
    first = new_run(folder, "first", catalogue)
    simulate_partition(first.path, 0)  # compiles and loads
    inline = work_through(InlineEngine(), first)
    without = side_by_side(copy_of(first, "side-by-side"))
    with open_engine("local", WORKERS, WORKER_MEMORY) as engine:
        # Each of them compiles and loads.
        engine._client.run(simulate_partition, copy_of(first, "warm").path, 0)
        local = work_through(engine, copy_of(first, "local"))
    return {
        "crystals": len(catalogue),
        "orientations": first.plan.orientations.count,
        "partitions": len(first.plan.partitions),
        "patterns": first.plan.n_items * len(THICKNESSES),
        "predicted_seconds": first.plan.seconds,
        "inline_seconds": inline,
        "two_processes_seconds": without,
        "two_workers_seconds": local,
        "share_of_twice_inline": inline / (WORKERS * local),
        "share_of_two_processes": without / local,
    }


def nothing(number: int) -> int:
    """Do no work: what a partition without any costs is Dask's own."""
    return number


def overhead(count: int) -> dict[str, Any]:
    """Measure many partitions that do nothing, and the memory of the process that hands them out."""
    driver = psutil.Process()
    memory = []
    with open_engine("local", WORKERS, WORKER_MEMORY) as engine:
        list(engine.run(nothing, range(100)))
        started = time.perf_counter()
        for done, _ in enumerate(engine.run(nothing, range(count)), start=1):
            if done % (count // 10) == 0:
                memory.append(driver.memory_info().rss)
        seconds = time.perf_counter() - started
    return {
        "partitions": count,
        "milliseconds_each": 1e3 * seconds / count,
        "driver_and_scheduler_bytes": memory,
        "growth_after_the_first_fifth": memory[-1] / memory[1] - 1.0,
    }


def _peak_memory() -> int:
    """Return the largest resident memory this process ever had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def features(folder: Path, catalogue: Catalogue) -> dict[str, Any]:
    """Measure the radial basis, alone and as a stage that reads peaks and writes arrays, on one core."""
    simulation = SimulationSpec(thicknesses=THICKNESSES)
    plan = make_plan(catalogue, simulation, OrientationSpec(count=20), 1e9)
    run = Run.create(folder / "features", plan, catalogue)
    parts = range(len(plan.partitions))
    for part in parts:
        simulate_partition(run.path, part)
    peaks, basis = read_partition(run, 0), RadialBasisSpec()
    found: dict[str, Any] = {"peaks_a_pattern": len(peaks.q) / len(peaks.counts)}
    for name, columns in (("one thickness", [2]), ("nine thicknesses", list(range(len(THICKNESSES))))):
        intensity = np.ascontiguousarray(peaks.intensity[:, columns])
        work = partial(radial_basis_series, peaks.q, intensity, peaks.offsets, peaks.offsets[:-1], basis)
        wanted = None if len(columns) > 1 else (THICKNESSES[2],)
        planned = plan_features(run, basis, wanted)
        stage = partial(features_partition, run.path, planned, 0)
        found[name] = {
            "patterns": len(columns) * len(peaks.counts),
            "patterns_a_second": len(columns) * len(peaks.counts) / _shortest(work),
            "patterns_a_second_with_reading_and_writing": len(columns) * len(peaks.counts) / _shortest(stage),
        }
    return found


def _shortest(work: Callable[[], Any]) -> float:
    """Return the shortest process time of five calls after a first one, which may compile."""
    work()
    times = []
    for _ in range(5):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def memory(folder: Path, catalogue: Catalogue) -> dict[str, Any]:
    """Measure a worker's largest memory on the largest shards a plan allows, and on its largest crystal."""
    largest = int(np.argmax(catalogue.table["volume_primitive"].to_numpy()))
    found = {}
    for name, some, count, thicknesses in (
        ("many small patterns", catalogue.take(np.arange(len(catalogue) // 2)), 400, THICKNESSES),
        ("100 thicknesses", catalogue, 12, tuple(range(20, 2001, 20))),
        ("the largest crystal", catalogue.take([largest]), 2, THICKNESSES),
    ):
        plan = make_plan(some, SimulationSpec(thicknesses=thicknesses), OrientationSpec(count=count), 1e9)
        run = Run.create(folder / name, plan, some)
        with (
            LocalCluster(
                n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
            ) as cluster,
            Client(cluster) as client,
        ):
            list(
                DaskEngine(client).run(partial(simulate_partition, run.path), range(len(plan.partitions))[:4])
            )
            peak = max(client.run(_peak_memory).values())
        found[name] = {
            "largest_solve_beams": plan.largest_solve,
            "peaks_per_shard": plan.peaks_per_shard,
            "planned_bytes": plan.worker_bytes,
            "largest_resident_bytes": peak,
            "share_of_planned": peak / plan.worker_bytes,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, help="catalogue; the embedded crystals by default")
    parser.add_argument("--crystals", type=int, default=60, help="how many of it")
    parser.add_argument("--partitions", type=int, default=20_000, help="partitions that do nothing")
    parser.add_argument("--only", metavar="NAME", help="measure this one anew, in an earlier result")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    # Workers are single-threaded; so is the process they are compared with.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    whole = (
        Catalogue.from_parquet(options.catalogue)
        if options.catalogue
        else build_catalogue(aflow_candidates(), CatalogueFilter()).catalogue
    )
    catalogue = choose(whole, options.crystals)
    with tempfile.TemporaryDirectory() as folder:
        measurements: dict[str, Callable[[], dict[str, Any]]] = {
            "throughput": partial(throughput, Path(folder), catalogue),
            "overhead": partial(overhead, options.partitions),
            "features": partial(features, Path(folder), catalogue),
            "memory": partial(memory, Path(folder), catalogue),
        }
        # Each measurement says what it ran on: one may be of another day.
        result: dict[str, Any] = json.loads(options.out.read_text()) if options.only else {}
        for name, measure in measurements.items():
            if options.only in (None, name):
                result[name] = {"command": command(), **describe(), **measure()}
                print(name, json.dumps(result[name], indent=1), flush=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
