"""What the main paper's dataset is estimated to take, and how long the estimate takes.

A catalogue is repeated under new ids up to 36,600 crystals, this machine is measured with ``diffractory
calibrate``, and ``diffractory plan --estimate`` is timed. Nothing is simulated.

Example::

    python benchmarks/estimate.py --catalogue crystals.parquet
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import command, describe, write_json
from open_run import repeated

from diffractory import Catalogue

RESULT = Path(__file__).parent / "results" / "estimate.json"
TARGETS = {"calibrate_seconds": 30.0, "estimate_seconds": 120.0, "files": 50_000}
PLAN = ("--orientations", "100", "--thickness", "20:2000:20", "--estimate", "--json")


def run(*words: str) -> tuple[float, str]:
    """Run a diffractory command; return its seconds and what it printed."""
    entry = [sys.executable, "-c", "from diffractory.cli.app import main; main()"]
    started = time.perf_counter()
    done = subprocess.run([*entry, *words], capture_output=True, text=True, check=False)
    # A plan that this machine has no room for is told all the same.
    if not done.stdout.strip():
        raise SystemExit(done.stderr)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, required=True, help="crystals to repeat")
    parser.add_argument("--crystals", type=int, default=36_600)
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalogue, speed = Path(folder) / "crystals.parquet", Path(folder) / "speed.json"
        repeated(Catalogue.from_parquet(options.catalogue), options.crystals).to_parquet(catalogue)
        calibrate_seconds, _ = run("calibrate", "--out", str(speed))
        words = ["plan", f"{folder}/run", "--catalogue", str(catalogue), "--speed", str(speed), *PLAN]
        estimate_seconds, said = run(*words)
    result = {
        "command": command(),
        **describe(),
        "targets": TARGETS,
        "calibrate_seconds": calibrate_seconds,
        "estimate_seconds": estimate_seconds,
        "plan": {key: value for key, value in json.loads(said).items() if key != "run"},
    }
    write_json(options.out, result)
    print(
        json.dumps({key: result[key] for key in ("calibrate_seconds", "estimate_seconds", "plan")}, indent=1)
    )


if __name__ == "__main__":
    main()
