"""Seconds to open a run of the paper's size: 36,600 crystals in 100 orientations, 10,000 partitions.

The run is made up: a catalogue repeated under new ids, a plan of equal partitions, true records with
checksums, and shards that are files of the recorded size with nothing in them. Opening reads the plan, the
catalogue and every record, and asks for the size of every shard, as with a simulated run; it reads no peaks.
Every opening is by a process of its own; the files are in the system's cache, as they were just written.
``memory_mb`` is what opening adds at its peak.

Example::

    python benchmarks/open_run.py --catalogue catalogue.parquet
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json

from diffractory import Catalogue, SimulationSpec, __version__, open_dataset, select
from diffractory.dataset.plan import Partition, Plan
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import PEAKS, Run
from diffractory.specs import OrientationSpec

RESULT = Path(__file__).parent / "results" / "open-run.json"
#: What opening should take at most, in seconds.
TARGET_SECONDS = 5.0
THICKNESSES = tuple(float(t) for t in range(20, 2001, 20))
#: Fewest and most peaks of a made-up pattern.
PEAKS_OF_A_PATTERN = (20, 600)


def repeated(catalogue: Catalogue, count: int) -> Catalogue:
    """Return a catalogue of so many crystals: the same ones again and again, under ids of their own."""
    rows = catalogue.table.to_dict("records")
    return Catalogue.from_rows(
        {**rows[i % len(rows)], "material_id": f"{rows[i % len(rows)]['material_id']}-{i // len(rows)}"}
        for i in range(count)
    )


def make_run(folder: Path, catalogue: Catalogue, orientations: int, n_partitions: int) -> Run:
    """Make a run of which every partition is recorded as done."""
    rng = np.random.default_rng(0)
    n_items = len(catalogue) * orientations
    borders = np.linspace(0, n_items, n_partitions + 1).astype(int)
    counts = rng.integers(*PEAKS_OF_A_PATTERN, size=n_items)
    parts = [Partition(int(a), int(b), int(counts[a:b].sum()), 600.0) for a, b in pairwise(borders)]
    plan = Plan(
        SimulationSpec(thicknesses=THICKNESSES),
        OrientationSpec(count=orientations),
        catalogue.content_hash,
        len(catalogue),
        tuple(parts),
        int(counts.max()),
    )
    run = Run.create(folder, plan, catalogue)
    for index, part in enumerate(parts):
        own = tuple(counts[part.first : part.stop].tolist())
        shards = {
            f"peaks.zarr/{key}": ShardSum(size, f"{index:064x}")
            for key, size in (
                (f"intensity/c/{index}/0", 65 * part.n_peaks),
                (f"hkl/c/{index}/0", 2 * part.n_peaks),
                (f"rotation/c/{index}/0/0", 50 * len(own)),
            )
        }
        for key, expected in shards.items():
            (run.path / key).parent.mkdir(parents=True, exist_ok=True)
            (run.path / key).touch()
            os.truncate(run.path / key, expected.size)
        record = Record(plan.plan_id, PEAKS, index, own, shards, __version__, "node-0", 601.234, 600.123)
        record.write(run.record_path(PEAKS, index))
    return run


def peak_memory() -> int:
    """Return the most bytes this process has held so far; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(path: Path) -> dict[str, float]:
    """Open a run in this process and choose from it; return seconds, and the memory that was added."""
    before = peak_memory()
    started = time.perf_counter()
    dataset = open_dataset(path)
    opened = time.perf_counter()
    select(dataset, crystal_system="cubic", thickness=slice(100, 500))
    chosen = time.perf_counter()
    return {
        "open_seconds": round(opened - started, 2),
        "select_seconds": round(chosen - opened, 2),
        "memory_mb": round((peak_memory() - before) / 1e6),
    }


def main() -> None:
    """Make the run, measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--catalogue", type=Path, help="crystals to repeat")
    parser.add_argument("--crystals", type=int, default=36_600)
    parser.add_argument("--orientations", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    result: dict[str, Any] = {"command": command(), **describe()}
    with tempfile.TemporaryDirectory() as folder:
        catalogue = repeated(Catalogue.from_parquet(arguments.catalogue), arguments.crystals)
        run = make_run(Path(folder) / "run", catalogue, arguments.orientations, arguments.partitions)
        result["run"] = {
            "crystals": len(catalogue),
            "orientations": arguments.orientations,
            "partitions": arguments.partitions,
            "patterns": run.plan.n_items * len(THICKNESSES),
            "peaks": run.plan.n_peaks,
            "record_bytes": sum(p.stat().st_size for p in run.path.glob("records/**/*.json")),
        }
        print(result["run"])
        words = [sys.executable, __file__, "--measure", str(run.path)]
        result["openings"] = []
        for _ in range(arguments.repeats):
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            result["openings"].append(json.loads(done.stdout))
            print(result["openings"][-1])
    median = float(np.median([opening["open_seconds"] for opening in result["openings"]]))
    result |= {"median_open_seconds": median, "target_seconds": TARGET_SECONDS}
    print(f"opened in {median:.2f} s (median of {arguments.repeats})")
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
