"""Whether the constants of the lattice search were chosen well, told by materials that no test asks about.

Each constant of patterns/spot_lattice.py and lattice_planes.py is made smaller and larger, one
at a time, and lattices are read from the same patterns of training materials. Numba compiles constants in,
so that each variant has a process and a cache of its own, and takes most of a minute. Results in
results/lattice-search.json, section "constants"::

    python benchmarks/search_constants.py RUN
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lattice_search import NEAR, PROTOCOLS, RESULT, training_patterns
from machine import command, describe, write_json

from diffractory.dataset.run import Run
from diffractory.patterns.spot_lattice import find_spot_lattices
from diffractory.specs import InvariantSpec

#: Values that are tried beside those of the code, by module and name.
TRIED: dict[str, dict[str, tuple[float, ...]]] = {
    "spot_lattice": {
        "_BRIGHT": (40, 120),
        "_LAYERS": (2, 8),
        "_SMALLEST_CELL": (3.0, 12.0),
        "_LARGEST_CELL": (1500.0, 6000.0),
        "_LAYER_SPREAD": (0.025, 0.1),
        "_BRIGHT_RANGE": (0.005, 0.02),
        "_ENOUGH": (0.8, 0.95),
    },
    "lattice_planes": {"_SHORTEST": (0.02, 0.08), "_LONGEST": (0.45, 1.8)},
}


def found(run: Run) -> dict[str, list[bool]]:
    """Return whether the volume of the primitive cell is found, of each pattern under each protocol."""
    answers = {}
    for name, lab in PROTOCOLS.items():
        tables, truth = training_patterns(run, lab)
        lattices = [find_spot_lattices(table, InvariantSpec()) for table in tables]
        reciprocal = np.abs(np.linalg.det(np.concatenate([each.reciprocal for each in lattices])))
        answers[name] = (np.abs(1.0 / np.maximum(reciprocal, 1e-9) / truth - 1.0) < NEAR).tolist()
    return answers


def in_a_process(run: Path, module: str, name: str, value: float | None) -> dict[str, list[bool]]:
    """Have a process of its own, which compiles with this value, look for the lattices."""
    arguments = [sys.executable, __file__, str(run), "--vary", module, name, json.dumps(value)]
    with tempfile.TemporaryDirectory() as cache:
        answer = subprocess.run(
            arguments, check=True, stdout=subprocess.PIPE, env=os.environ | {"NUMBA_CACHE_DIR": cache}
        )
    return dict(json.loads(answer.stdout))


def against(usual: dict[str, list[bool]], varied: dict[str, list[bool]]) -> dict[str, Any]:
    """Return the share found, and how many more or fewer than usual, with its 95 % interval."""
    told = {}
    for name in PROTOCOLS:
        gained = np.array(varied[name], dtype=int) - np.array(usual[name], dtype=int)
        half = 1.96 * gained.std() / np.sqrt(len(gained))
        told[name] = {
            "right": round(float(np.mean(varied[name])), 4),
            "gained": round(float(gained.mean()), 4),
            "interval": [round(float(gained.mean() - half), 4), round(float(gained.mean() + half), 4)],
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vary", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.vary:
        module, name, value = arguments.vary
        if json.loads(value) is not None:
            patterns = importlib.import_module(f"diffractory.patterns.{module}")
            assert hasattr(patterns, name)
            setattr(patterns, name, json.loads(value))
        print(json.dumps(found(Run.open(arguments.run))))
        return
    usual = in_a_process(arguments.run, "spot_lattice", "_BRIGHT", None)
    section: dict[str, Any] = {
        "usual": {name: round(float(np.mean(right)), 4) for name, right in usual.items()},
        "patterns": {name: len(right) for name, right in usual.items()},
        "varied": {},
    }
    for module, constants in TRIED.items():
        for name, values in constants.items():
            for value in values:
                varied = in_a_process(arguments.run, module, name, value)
                section["varied"][f"{name.strip('_').lower()} = {value}"] = against(usual, varied)
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    write_json(RESULT, before | {"constants": {**section, "command": command(), **describe()}})
    print(json.dumps(section, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
