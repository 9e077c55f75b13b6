"""Absorptive form factors beside py4DSTEM's: how far apart, how fast, and what importing each costs.

All 98 elements at three beams. Ours as py4DSTEM approximates them (``wk-cp``) and exact (``wk-cp-exact``),
each against ``compute_WK_factor``, in units of its largest value; seconds an element; seconds until a new
process has imported what evaluates them. About three minutes.

Writes benchmarks/results/absorption.json.

Example::

    python benchmarks/absorption.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from py4DSTEM.process.diffraction.WK_scattering_factors import compute_WK_factor

from diffractory.scattering.form_factors import weickenmeier_kohl_table

RESULTS = Path(__file__).parent / "results" / "absorption.json"
#: Beam energy in eV and root-mean-square displacement in Å.
BEAMS = ((80e3, 0.05), (300e3, 0.08), (1e6, 0.15))
#: Largest |g| in Å⁻¹.
G_MAX = 4.0
IMPORTS = {
    "ours": "diffractory.scattering.form_factors",
    "py4DSTEM": "py4DSTEM.process.diffraction.WK_scattering_factors",
}


def against_py4dstem() -> dict[str, Any]:
    """Return differences and seconds an element."""
    apart: dict[str, list[float]] = {"wk-cp": [], "wk-cp-exact": []}
    seconds: dict[str, list[float]] = {"wk-cp": [], "wk-cp-exact": [], "py4DSTEM": []}
    for number in range(1, 99):
        for energy_ev, sigma in BEAMS:
            tables = {}
            for model, linear_below in (("wk-cp", 1.0), ("wk-cp-exact", 0.0)):
                began = time.perf_counter()
                tables[model] = weickenmeier_kohl_table(number, energy_ev, sigma, G_MAX, True, linear_below)
                seconds[model].append(time.perf_counter() - began)
            g = tables["wk-cp"].g
            began = time.perf_counter()
            with np.errstate(all="ignore"):
                theirs = compute_WK_factor(g, number, energy_ev, sigma).imag
            seconds["py4DSTEM"].append(time.perf_counter() - began)
            for model, table in tables.items():
                apart[model].append(float(np.abs(table.absorptive - theirs).max() / theirs.max()))
    return {
        "largest difference": {
            model: {"median": float(np.median(all_of)), "worst": max(all_of)}
            for model, all_of in apart.items()
        },
        "seconds an element": {name: float(np.median(all_of)) for name, all_of in seconds.items()},
    }


def seconds_to_import(times: int = 3) -> dict[str, float]:
    """Return the least seconds that new processes took to import each."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(times):
        for name, module in IMPORTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)
            taken[name].append(time.perf_counter() - began)
    return {name: min(each) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = {"command": command(), **describe(), "beams": BEAMS, **against_py4dstem()}
    result["seconds to import"] = seconds_to_import()
    write_json(options.out, result)
    print({key: result[key] for key in ("largest difference", "seconds an element", "seconds to import")})


if __name__ == "__main__":
    main()
