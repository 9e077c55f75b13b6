"""First light: real crystals to the map of a real scan, through the commands a user types.

Takes a catalogue in the columns of ``diffractory catalogue``, draws crystals from it, simulates,
trains the 13 forests on three quarters of the materials, evaluates the rest under both protocols,
and maps a scan. Each step is one command; a step that is done already is not done again, so the
script can be killed and started anew.

Example::

    python benchmarks/first_light.py --catalogue catalogue.parquet --scan scan.h5 --work /data/first-light
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import describe

from diffractory import Catalogue

RESULT = Path(__file__).parent / "results" / "first-light.json"


def command(step: str, work: Path, *arguments: object) -> dict[str, Any]:
    """Run one diffractory command, keep what it printed as JSON, and return it."""
    kept = work / "steps" / f"{step}.json"
    words = ["diffractory", *(str(argument) for argument in arguments), "--json"]
    if kept.exists() and (done := json.loads(kept.read_text()))["command"] == shlex.join(words):
        return done
    print("$", shlex.join(words), file=sys.stderr, flush=True)
    started = time.perf_counter()
    program = str(Path(sys.executable).with_name("diffractory"))
    finished = subprocess.run([program, *words[1:]], stdout=subprocess.PIPE, check=True, text=True)
    result = {
        "command": shlex.join(words),
        "seconds": round(time.perf_counter() - started, 1),
        "output": json.loads(finished.stdout),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result, indent=1))
    return result


def unseen_axes(work: Path, crystals: Path, model: Path) -> dict[str, Any]:
    """Evaluate on zone axes that training lacked: 13 a crystal are, symmetry axes apart, not among 20.

    All crystals of a Laue group share their zone axes, so the paper protocol shows a model the very
    axes it was trained on. This control tells how much it leans on that.
    """
    trained_on = set(json.loads((model / "model.json").read_text())["provenance"]["training_materials"])
    catalogue = Catalogue.from_parquet(crystals)
    held_out, run = work / "held-out.parquet", work / "run-unseen-axes"
    catalogue.take([i for i, name in enumerate(catalogue.ids) if name not in trained_on]).to_parquet(held_out)
    return {
        "plan_unseen_axes": command(
            "plan_axes", work, "plan", run, "--catalogue", held_out, "--orientations", 13,
            "--thickness", 200, "--partition-seconds", 10,
        ),
        "simulate_unseen_axes": command("simulate_axes", work, "simulate", run),
        "evaluate_unseen_axes": command(
            "evaluate_axes", work, "evaluate", model, run, "--out", work / "evaluation-unseen-axes"
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue to draw crystals from")
    parser.add_argument("--scan", type=Path, required=True, help="real scan of Bragg peaks (EMD)")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything large")
    parser.add_argument("--crystals", type=int, default=800)
    parser.add_argument("--orientations", type=int, default=20)
    parser.add_argument("--thickness", default="100:500:50", help="must hold 200, the training thickness")
    options = parser.parse_args()
    work: Path = options.work
    crystals, run, model = work / "crystals.parquet", work / "run", work / "model"
    steps = {
        "catalogue": command(
            "catalogue", work, "catalogue", "build", crystals, "--source", "parquet", "--input",
            options.catalogue, "--trust-symmetry", "--limit", options.crystals, "--seed", 0,
        ),
        "plan": command(
            "plan", work, "plan", run, "--catalogue", crystals, "--orientations", options.orientations,
            "--thickness", options.thickness, "--partition-seconds", 30,
        ),
        "simulate": command("simulate", work, "simulate", run),
        "verify": command("verify", work, "verify", run, "--sample", 0.005),
        "features": command("features", work, "features", run, "--thickness", 200),
        "train": command("train", work, "train", run, "--out", model),
        "evaluate": command("evaluate", work, "evaluate", model, run, "--out", work / "evaluation"),
        "map": command("map", work, "map", options.scan, "--model", model, "--out", work / "map"),
        "map_assumed_cubic": command(
            "map_cubic", work, "map", options.scan, "--model", model, "--out", work / "map-cubic",
            "--assume", "cubic",
        ),
    }  # fmt: skip
    steps |= unseen_axes(work, crystals, model)
    result = {"command": shlex.join(["python", *sys.argv]), **describe(), "steps": steps}
    RESULT.parent.mkdir(exist_ok=True)
    # Where the large files lay says nothing to a reader.
    RESULT.write_text(json.dumps(result, indent=1).replace(str(work), "WORK") + "\n")
    print(RESULT)


if __name__ == "__main__":
    main()
