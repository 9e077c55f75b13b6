"""What a run took and holds, from its records, and what the 366-million-pattern dataset would take.

The extrapolation is one: the plan's predicted seconds of that dataset, corrected by how much longer this run
took than its own plan said, on machines like this one.

Example::

    diffractory plan RUN --catalogue crystals.parquet --orientations 75 --thickness 100:500:50
    diffractory simulate RUN
    python benchmarks/dataset_report.py RUN
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json

from diffractory import Catalogue, SimulationSpec
from diffractory.dataset.plan import plan_surveyed
from diffractory.dataset.run import PEAKS, Run
from diffractory.dataset.survey import survey
from diffractory.scattering.cost import TYPICAL, Speed
from diffractory.settings import usable_cores
from diffractory.specs import OrientationSpec

RESULT = Path(__file__).parent / "results" / "dataset.json"
#: Crystals, orientations and thicknesses of the main paper's dataset.
PAPER_CRYSTALS, PAPER_ORIENTATIONS, PAPER_THICKNESSES = 36_600, 100, tuple(range(20, 2001, 20))
WORKERS = (1, 16, 128)


def took(run: Run) -> dict[str, Any]:
    """Return what the finished partitions of a run took and hold."""
    done = run.done()
    thicknesses = len(run.plan.simulation.thicknesses)
    items = sum(len(record.counts) for record in done.values())
    processor = sum(record.processor_seconds for record in done.values())
    size = sum(shard.size for record in done.values() for shard in record.shards.values())
    predicted = sum(run.plan.partitions[index].seconds for index in done)
    ratios = [r.processor_seconds / run.plan.partitions[i].seconds for i, r in done.items()]
    return {
        "crystals": run.plan.n_crystals,
        "orientations": run.plan.orientations.count,
        "thicknesses": thicknesses,
        "partitions": len(run.plan.partitions),
        "partitions_done": len(done),
        "patterns_done": items * thicknesses,
        "processor_hours": processor / 3600.0,
        "predicted_hours": predicted / 3600.0,
        "took_over_predicted": processor / predicted,
        "took_over_predicted_by_partition": [
            float(q) for q in np.quantile(ratios, [0.0, 0.25, 0.5, 0.75, 1.0])
        ],
        "orientations_a_second_and_core": items / processor,
        "patterns_a_second_and_core": items * thicknesses / processor,
        "peaks_a_pattern": sum(sum(record.counts) for record in done.values()) / items,
        "bytes": size,
        "bytes_a_pattern": size / (items * thicknesses),
        "dense_solves": sum(record.dense_solves for record in done.values()),
        "driven_hours": driven_seconds(run) / 3600.0,
        "hosts": len(Counter(record.host for record in done.values())),
    }


def driven_seconds(run: Run) -> float:
    """Return how long drivers worked on a run, from their logs; idle days between them do not count."""
    total = 0.0
    for log in (run.path / "log").glob("*.jsonl"):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        ends = [datetime.fromisoformat(line["time"]) for line in lines if line["stage"] == PEAKS]
        if ends:
            total += (max(ends) - min(ends)).total_seconds() + lines[0]["seconds"]
    return total


def extrapolate(run: Run, speed: Speed, took_over_predicted: float) -> dict[str, Any]:
    """Return what the main paper's dataset would take, from some of this run's crystals."""
    table = run.catalogue.table
    rng = np.random.default_rng(0)
    some = run.catalogue.take(np.sort(rng.choice(len(table), min(1000, len(table)), replace=False)))
    simulation = SimulationSpec(thicknesses=PAPER_THICKNESSES)
    orientations = OrientationSpec(count=PAPER_ORIENTATIONS)
    counted = survey(some, simulation, orientations, processes=usable_cores())
    plan = plan_surveyed(Catalogue(some.table), simulation, orientations, counted, 1e9, speed)
    share = PAPER_CRYSTALS / len(some)
    hours = share * plan.seconds * took_over_predicted / 3600.0
    return {
        "extrapolation": True,
        "crystals_sampled": len(some),
        "patterns": PAPER_CRYSTALS * PAPER_ORIENTATIONS * len(PAPER_THICKNESSES),
        "core_hours": hours,
        "hours_by_cores": {str(n): hours / n for n in WORKERS},
        "bytes": share * plan.likely_disk_bytes,
        "gpu": "not measured",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder, finished or not")
    parser.add_argument("--speed", type=Path, help="speed file the run was planned with")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    run = Run.open(options.run)
    speed = Speed.from_json(options.speed.read_text()) if options.speed else TYPICAL
    found = took(run)
    result = {
        "command": command(),
        **describe(),
        "run": found,
        "the_papers_dataset": extrapolate(run, speed, found["took_over_predicted"]),
    }
    write_json(options.out, result)
    print(json.dumps({key: result[key] for key in ("run", "the_papers_dataset")}, indent=1))


if __name__ == "__main__":
    main()
