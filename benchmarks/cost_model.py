"""How far coupling and absorption lengthen a series, against what the cost model says.

Counts the products of real solves (150 crystals, eleven orientations each: on a zone axis, 2° off, at
random, and eight of the plan's) at 200 Å, at 100–500 Å and at 20–2000 Å, and compares them with the terms
that the geometry alone would need. Counts do not depend on the machine. ``--fit`` fits the constants of
``diffractory.scattering.cost._LENGTHENING`` anew.

Example::

    python benchmarks/cost_model.py --catalogue crystals.parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from engine import SPECS, count_products, orientations
from machine import command, describe, write_json
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from diffractory import Catalogue, SimulationSpec
from diffractory.dataset.survey import crystal_orientations
from diffractory.scattering.chebyshev import n_terms
from diffractory.scattering.cost import _LENGTHENING, _WIDENING, _lengthening, scattering_strength
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.spectrum import SPECTRUM_PRODUCTS
from diffractory.specs import OrientationSpec

RESULT = Path(__file__).parent / "results" / "cost-model.json"
SERIES = (SPECS["one"], SimulationSpec(thicknesses=tuple(range(100, 501, 50))), SPECS["series"])
#: Beams beyond which a solve is left out, for time.
LARGEST = 900


def measure(catalogue: Catalogue, count: int) -> list[dict[str, Any]]:
    """Return one row a solve: what lengthens its series, and by how much."""
    rows = []
    small = np.flatnonzero(catalogue.table["volume_primitive"].to_numpy() < 450.0)
    for index in np.random.default_rng(1).choice(small, min(count, len(small)), replace=False):
        crystal = catalogue.crystal(int(index))
        scatterer = Scatterer.prepare(crystal, SERIES[0])
        planned = crystal_orientations(catalogue, int(index), OrientationSpec(count=8))
        for place, orientation in enumerate([*orientations().values(), *planned]):
            _, errors = scatterer.select_beams(orientation)
            n, half_width = errors.shape[1], 0.5 * float(np.ptp(errors[0]))
            if not 3 <= n <= LARGEST:
                continue
            for spec in SERIES:
                prepared = Scatterer(scatterer.points, scatterer.factors, spec)
                products = count_products(prepared, orientation) - SPECTRUM_PRODUCTS
                terms = float(n_terms(spec.thicknesses[-1], _WIDENING * half_width))
                rows.append(
                    {
                        "kind": ("on zone", "2 degrees off", "random")[place] if place < 3 else "planned",
                        "thickness": spec.thicknesses[-1],
                        "beams": n,
                        "coupling": float(np.sqrt(n) * scattering_strength(crystal) / half_width),
                        "lengthening": products / terms,
                    }
                )
    return rows


def columns(rows: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    """Return columns of the rows as arrays."""
    return [np.array([row[name] for row in rows]) for name in names]


def fit(rows: list[dict[str, Any]]) -> list[float]:
    """Return the constants that fit best, far outliers counted no more than others."""
    thickness, coupling, found = columns(rows, "thickness", "coupling", "lengthening")
    log_thickness = np.log(thickness / 200.0)

    def loss(p: np.ndarray) -> float:
        exponent = p[0] + p[1] * log_thickness + (p[2] + p[3] * log_thickness) * np.log(coupling)
        return float(np.minimum(np.abs(np.maximum(exponent, 0.0) - np.log(found)), 0.6).mean())

    starts = [(first, 1.0, 1.0, -0.2) for first in np.linspace(-8.0, -4.0, 9)]
    found_fits = [minimize(loss, s, method="Nelder-Mead", options={"maxfev": 8000}) for s in starts]
    return [float(value) for value in min(found_fits, key=lambda r: r.fun).x]


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how well the model does, by thickness and kind of orientation."""
    summary = []
    for spec in SERIES:
        for kind in ("on zone", "2 degrees off", "random", "planned"):
            some = [r for r in rows if (r["thickness"], r["kind"]) == (spec.thicknesses[-1], kind)]
            beams, coupling, found = columns(some, "beams", "coupling", "lengthening")
            ratio = _lengthening(coupling, spec.thicknesses[-1]) / found
            summary.append(
                {
                    "thickness": spec.thicknesses[-1],
                    "kind": kind,
                    "solves": len(some),
                    "median_lengthening": float(np.median(found)),
                    "largest_lengthening": float(found.max()),
                    "within_30_percent": float(np.mean(np.abs(ratio - 1.0) <= 0.3)),
                    "within_30_percent_by_geometry_alone": float(np.mean(np.abs(1.0 / found - 1.0) <= 0.3)),
                    "sum_predicted_over_counted": float(
                        (ratio * found * beams**2).sum() / (found * beams**2).sum()
                    ),
                }
            )
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue of crystals")
    parser.add_argument("--crystals", type=int, default=150)
    parser.add_argument("--fit", action="store_true", help="print constants fitted anew")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    with threadpool_limits(limits=1):
        rows = measure(Catalogue.from_parquet(options.catalogue), options.crystals)
    summary = summarise(rows)
    for line in summary:
        print(
            f"{line['kind']:14} to {line['thickness']:6.0f} Å: {line['solves']:5} solves, "
            f"{line['median_lengthening']:.2f} × as long as by geometry (at most "
            f"{line['largest_lengthening']:.1f}); within ±30 %: "
            f"{100 * line['within_30_percent']:.0f} % by the model, "
            f"{100 * line['within_30_percent_by_geometry_alone']:.0f} % by geometry alone"
        )
    result = {
        "command": command(),
        **describe(),
        "constants": list(_LENGTHENING),
        "summary": summary,
    }
    if options.fit:
        result["fitted_constants"] = fit(rows)
        print("fitted:", result["fitted_constants"])
    write_json(options.out, result)


if __name__ == "__main__":
    main()
