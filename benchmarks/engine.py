"""The engine against py4DSTEM: same crystals, same beams, one core, in one run.

Beams that the centring extinguishes are left out for both; py4DSTEM keeps them if asked naively and
is slower still. Seconds are process time of the second of two solves, set-up apart.

Example::

    python benchmarks/engine.py --quick
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from emdfile import PointList
from machine import describe
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal
from threadpoolctl import threadpool_limits

from diffractory import Catalogue, Crystal, SimulationSpec
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.scattering.orientations import minimal_rotations
from diffractory.scattering.simulate import Scatterer

RESULT = Path(__file__).parent / "results" / "engine.json"
ONE, SERIES = (200.0,), tuple(20.0 * i for i in range(1, 101))


def timed(function: Callable[[], Any], repeats: int = 2) -> tuple[float, Any]:
    """Return the process time of the last of some calls, and its result."""
    for _ in range(repeats):
        started = time.process_time()
        result = function()
        seconds = time.process_time() - started
    return seconds, result


def orientations() -> dict[str, np.ndarray]:
    """Return one orientation on a zone axis, one 2° off it, and one at random."""
    tilt = np.deg2rad(2.0)
    axes = np.array([[0, 0, 1], [np.sin(tilt) * 0.6, np.sin(tilt) * 0.8, np.cos(tilt)], [0.31, 0.52, 0.79]])
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    return dict(zip(("on zone", "2 degrees off", "random"), minimal_rotations(axes), strict=True))


def choose(catalogue: Catalogue, count: int) -> list[int]:
    """Return crystals evenly spaced in the logarithm of their predicted beam count."""
    beams = 1.5 * catalogue.table["volume_primitive"].to_numpy(dtype=float)
    wanted = np.geomspace(max(50.0, beams.min()), min(1500.0, beams.max()), count)
    return sorted({int(np.argmin(np.abs(np.log(beams / n)))) for n in wanted})


def py4dstem_set_up(crystal: Crystal) -> ReferenceCrystal:
    """Prepare py4DSTEM's crystal with the paper's settings."""
    reference = ReferenceCrystal(crystal.frac_coords, crystal.numbers, crystal.lattice)
    reference.setup_diffraction(300e3)
    reference.calculate_dynamical_structure_factors(
        300e3, "WK-CP", k_max=4.0, thermal_sigma=0.08, tol_structure_factor=0.0
    )
    return reference


def py4dstem_solve(
    reference: ReferenceCrystal, hkl: np.ndarray, zone_axis: np.ndarray, thicknesses: tuple[float, ...]
) -> np.ndarray:
    """Return py4DSTEM's intensities of the given beams, (n_thicknesses, n)."""
    fields = [("qx", float), ("qy", float), ("intensity", float), ("h", int), ("k", int), ("l", int)]
    beams = np.zeros(len(hkl), dtype=fields)
    for column, name in enumerate("hkl"):
        beams[name] = hkl[:, column]
    patterns = reference.generate_dynamical_diffraction_pattern(
        PointList(beams), list(thicknesses), zone_axis_cartesian=zone_axis, always_return_list=True
    )
    return np.array([pattern.data["intensity"] for pattern in patterns])


def measure(catalogue: Catalogue, index: int) -> list[dict[str, Any]]:
    """Time one crystal in three orientations, at one thickness and at a hundred."""
    crystal = catalogue.crystal(index)
    rows = []
    specs = [SimulationSpec(thicknesses=ONE), SimulationSpec(thicknesses=SERIES)]
    ours_set_up, scatterer = timed(lambda: Scatterer.prepare(crystal, specs[0]))
    theirs_set_up, reference = timed(lambda: py4dstem_set_up(crystal), repeats=1)
    for name, orientation in orientations().items():
        for spec in specs:
            prepared = Scatterer(scatterer.points, scatterer.factors, spec)
            ours, pattern = timed(lambda prepared=prepared, o=orientation: prepared.solve(o))
            theirs, expected = timed(
                lambda p=pattern, o=orientation, t=spec.thicknesses: py4dstem_solve(
                    reference, p.hkl, o[:, 2], t
                ),
                repeats=1,
            )
            rows.append(
                {
                    "material": catalogue.ids[index],
                    "orientation": name,
                    "thicknesses": len(spec.thicknesses),
                    "beams": len(pattern),
                    "seconds": ours,
                    "py4dstem_seconds": theirs,
                    "ratio": theirs / ours,
                    "largest_difference": float(np.abs(pattern.intensity - expected).max()),
                    "set_up_seconds": ours_set_up,
                    "py4dstem_set_up_seconds": theirs_set_up,
                }
            )
    return rows


def summarise(rows: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """Sum up rows of one thickness list: ratio of summed times, worst ratio, largest difference."""
    return {
        "label": label,
        "solves": len(rows),
        "beams": [min(r["beams"] for r in rows), max(r["beams"] for r in rows)],
        "ratio_of_sums": sum(r["py4dstem_seconds"] for r in rows) / sum(r["seconds"] for r in rows),
        "worst_ratio": min(r["ratio"] for r in rows),
        "largest_difference": max(r["largest_difference"] for r in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, help="catalogue; the embedded crystals by default")
    parser.add_argument("--quick", action="store_true", help="8 crystals instead of 24, none above 700 beams")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.catalogue:
        catalogue = Catalogue.from_parquet(options.catalogue)
    else:
        catalogue = build_catalogue(aflow_candidates(), CatalogueFilter()).catalogue
    if options.quick:
        catalogue = catalogue.select(catalogue.table["volume_primitive"].to_numpy() < 460.0)
    rows: list[dict[str, Any]] = []
    with threadpool_limits(limits=1), contextlib.redirect_stdout(io.StringIO()):
        for index in choose(catalogue, 8 if options.quick else 24):
            rows += measure(catalogue, index)
            print(f"{catalogue.ids[index]}: {rows[-1]['beams']} beams", file=sys.stderr)
    set_up = [(r["set_up_seconds"], r["py4dstem_set_up_seconds"]) for r in rows[::6]]
    result = {
        "command": shlex.join(["python", *sys.argv]),
        **describe(),
        "summary": [
            summarise([r for r in rows if r["thicknesses"] == 1], "one thickness, 200 Å"),
            summarise([r for r in rows if r["thicknesses"] == 100], "100 thicknesses, 20 … 2000 Å"),
        ],
        "set_up": {
            "median_seconds": float(np.median([ours for ours, _ in set_up])),
            "median_ratio": float(np.median([theirs / ours for ours, theirs in set_up])),
        },
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for line in result["summary"]:
        print(json.dumps(line, ensure_ascii=False))
    print(json.dumps(result["set_up"]))


if __name__ == "__main__":
    main()
