"""What a worker really takes stays under what the plan counted for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diffractory.dataset.plan import make_plan
from diffractory.dataset.run import Run
from diffractory.specs import OrientationSpec, SimulationSpec
from small_runs import zoo_catalogue

_PEAK = """
import sys
from pathlib import Path
from diffractory.dataset.partition import simulate_partition
simulate_partition(sys.argv[1], 0)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def test_the_largest_memory_of_a_worker_is_within_the_plan(tmp_path: Path):
    catalogue = zoo_catalogue(("triclinic-P-a-invented", "cubic-P-a-FeSi"))
    # A shard that counts, of few solves.
    simulation = SimulationSpec(thicknesses=tuple(float(t) for t in range(101, 1101)))
    plan = make_plan(catalogue, simulation, OrientationSpec(count=50), 1e9)
    assert len(plan.partitions) == 1
    shard = 4 * len(simulation.thicknesses) * plan.n_peaks
    assert shard > 30_000_000
    run = Run.create(tmp_path / "run", plan, catalogue)
    said = subprocess.run(
        [sys.executable, "-c", _PEAK, str(run.path)], check=True, capture_output=True, text=True
    )
    peak = 1024 * int(said.stdout)
    assert shard / 2 < peak <= plan.worker_bytes
