"""The engine against its peers: the same crystals, the same beams, one core, in one run.

py4DSTEM runs twice: on the beams our engine uses, and with the paper's settings, which keep the beams
that the centring extinguishes. abTEM (which leaves absorption out) and quantem run in an environment of
their own, made under --cache at the first run. Seconds are process time of the last of some solves,
set-up apart.

Example::

    python benchmarks/engine.py --quick
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from limits import gemm_flops, read_bandwidth
from machine import command, describe, write_json
from peers import PeerJob, PeerReport, run_peers
from py4dstem_peer import py4dstem_crystal, py4dstem_intensities
from threadpoolctl import threadpool_limits

from diffractory import Catalogue, Crystal, SimulationSpec
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.scattering import solvers
from diffractory.scattering.beams import choose_beams, reciprocal_points
from diffractory.scattering.calibration import measure_speed
from diffractory.scattering.cost import Speed, predicted_seconds, scattering_strength
from diffractory.scattering.form_factors import _form_factor
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.orientations import minimal_rotations
from diffractory.scattering.primitive import PrimitiveCell
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.spectrum import SPECTRUM_PRODUCTS

RESULT = Path(__file__).parent / "results" / "engine.json"
CACHE = Path.home() / ".cache" / "diffractory"
ONE, SERIES = (200.0,), tuple(20.0 * i for i in range(1, 101))
SPECS = {"one": SimulationSpec(thicknesses=ONE), "series": SimulationSpec(thicknesses=SERIES)}
#: Beams beyond which py4DSTEM is not run with the extinct ones kept: it goes with their cube.
PAPER_LIMIT = {True: 700, False: 1600}
#: Targets of the table: ratio of summed times at one thickness and at a hundred.
TARGETS = {"py4DSTEM, same beams": (40.0, 12.0), "abTEM": (5.0, 2.0), "quantem": (15.0, 5.0)}
WORST_TARGET, ACCURACY_TARGET, LIMIT_TARGET = 3.0, 1e-5, 0.6


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
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


def choose(catalogue: Catalogue, count: int, largest: float) -> list[int]:
    """Return crystals evenly spaced in the logarithm of their predicted beam count."""
    beams = 1.5 * catalogue.table["volume_primitive"].to_numpy(dtype=float)
    wanted = np.geomspace(max(50.0, beams.min()), min(largest, beams.max()), count)
    return sorted({int(np.argmin(np.abs(np.log(beams / n)))) for n in wanted})


def beams_with_extinct(crystal: Crystal, orientation: np.ndarray) -> np.ndarray:
    """Return the beams of the paper's settings: those that the centring extinguishes are kept."""
    points = reciprocal_points(PrimitiveCell(crystal, np.eye(3, dtype=np.int64)), 2.0)
    chosen = choose_beams(points, orientation, SPECS["one"], Illumination.of(SPECS["one"]))
    return points.hkl[chosen]


def count_products(scatterer: Scatterer, orientation: np.ndarray) -> int:
    """Return how many products with the matrix a solve takes."""
    terms = []
    make = solvers.matrix_recurrence

    def counting(matrix: np.ndarray, middle: complex) -> Callable[..., None]:
        advance = make(matrix, middle)

        def counted(older: np.ndarray, newer: np.ndarray, out: np.ndarray, gain: float) -> None:
            terms.append(len(out))
            advance(older, newer, out, gain)

        return counted

    with mock.patch.object(solvers, "matrix_recurrence", counting):
        scatterer.solve(orientation)
    return sum(terms) + SPECTRUM_PRODUCTS


def measure(catalogue: Catalogue, index: int, speed: Speed, quick: bool) -> tuple[list[dict], list[PeerJob]]:
    """Time one crystal in three orientations, ours and py4DSTEM's; return rows and the peers' jobs."""
    crystal = catalogue.crystal(index)
    rows, jobs = [], []
    # Tables of elements are made once a process: without and with them.
    _form_factor.cache_clear()
    first_set_up, scatterer = timed(lambda: Scatterer.prepare(crystal, SPECS["one"]), 1)
    set_up, _ = timed(lambda: Scatterer.prepare(crystal, SPECS["one"]), 3)
    their_set_up, reference = timed(lambda: py4dstem_crystal(crystal), 1)
    for name, orientation in orientations().items():
        job = f"{catalogue.ids[index]} {name}"
        row: dict[str, Any] = {"material": catalogue.ids[index], "orientation": name, "job": job}
        row |= {
            "set_up_seconds": set_up,
            "set_up_seconds_new_elements": first_set_up,
            "py4dstem_set_up_seconds": their_set_up,
        }
        kept = beams_with_extinct(crystal, orientation)
        row["beams_with_extinct"] = len(kept)
        for label, spec in SPECS.items():
            prepared = Scatterer(scatterer.points, scatterer.factors, spec)
            seconds, pattern = timed(lambda p=prepared, o=orientation: p.solve(o), 4)
            exact = prepared.solve(orientation, precision="double").intensity
            _, errors = prepared.select_beams(orientation)
            theirs, expected = timed(
                lambda h=pattern.hkl, o=orientation, t=spec.thicknesses: py4dstem_intensities(
                    reference, h, o[:, 2], t
                ),
                1,
            )
            n = len(pattern)
            row["beams"] = n
            row[label] = {
                "seconds": seconds,
                "predicted_seconds": float(
                    predicted_seconds(n, spec, speed, np.ptp(errors[0]), scattering_strength(crystal))
                ),
                "py4dstem_seconds": theirs,
                "products": count_products(prepared, orientation),
                "difference_from_double": float(np.abs(pattern.intensity - exact).max()),
                "difference_from_py4dstem": float(np.abs(pattern.intensity - expected).max()),
            }
            if len(kept) == n:
                row[label]["py4dstem_paper_seconds"] = theirs
            elif len(kept) <= PAPER_LIMIT[quick]:
                row[label]["py4dstem_paper_seconds"], _ = timed(
                    lambda k=kept, o=orientation, t=spec.thicknesses: py4dstem_intensities(
                        reference, k, o[:, 2], t
                    ),
                    1,
                )
        rows.append(row)
        jobs.append(PeerJob(job, crystal, orientation, pattern.hkl, SPECS["series"]))
        print(f"{job}: {row['beams']} beams", file=sys.stderr, flush=True)
    return rows, jobs


def add_peers(rows: list[dict], jobs: list[PeerJob], reports: dict[str, PeerReport]) -> None:
    """Write the peers' seconds and their difference from our solve of the same physics into the rows."""
    physics = {"abtem": "lobato", "quantem": "wk-cp-exact"}
    for row, job in zip(rows, jobs, strict=True):
        for peer, report in reports.items():
            result = report.results.get(job.name)
            if result is None:
                continue
            spec = SPECS["series"].model_copy(update={"form_factors": physics[peer]})
            pattern = Scatterer.prepare(job.crystal, spec).solve(job.orientation)
            where = {tuple(h): i for i, h in enumerate(pattern.hkl)}
            same = [where[tuple(h)] for h in result.hkl]
            row[peer] = {
                "beams": result.beams,
                "set_up_seconds": result.set_up_seconds,
                "one": result.seconds_one,
                "series": result.seconds_series,
                "difference": float(np.abs(pattern.intensity[:, same] - result.intensity_series).max()),
            }


def ratios(rows: list[dict], peer: str, label: str) -> dict[str, Any]:
    """Return ratio of summed times, worst ratio of a crystal, and how many solves they stand for."""
    pairs = []
    for row in rows:
        theirs = {
            "py4DSTEM, same beams": row[label]["py4dstem_seconds"],
            "py4DSTEM, extinct beams kept": row[label].get("py4dstem_paper_seconds"),
            "abTEM": row.get("abtem", {}).get(label),
            "quantem": row.get("quantem", {}).get(label),
        }[peer]
        if theirs is not None:
            pairs.append((row["material"], theirs, row[label]["seconds"]))
    if not pairs:
        return {"solves": 0}
    materials = {m for m, *_ in pairs}
    worst = min(
        sum(t for m, t, _ in pairs if m == name) / sum(o for m, _, o in pairs if m == name)
        for name in materials
    )
    return {
        "solves": len(pairs),
        "ratio_of_sums": sum(t for _, t, _ in pairs) / sum(o for *_, o in pairs),
        "worst_crystal": worst,
    }


def shares_of_limits(rows: list[dict], gemm: float) -> dict[str, Any]:
    """Return the shares of read bandwidth and of GEMM speed reached above 300 beams."""
    large = [row for row in rows if row["beams"] > 300]
    shares: dict[str, Any] = {"solves": len(large), "gemm_gflops": gemm / 1e9}
    bandwidth = {n: read_bandwidth(8 * n * n) for n in {row["beams"] for row in large}}
    for label in SPECS if large else ():
        reading = [8 * row["beams"] ** 2 * row[label]["products"] / bandwidth[row["beams"]] for row in large]
        seconds = [row[label]["seconds"] for row in large]
        flops = [8 * row["beams"] ** 2 * row[label]["products"] for row in large]
        shares[label] = {
            "share_of_read_bandwidth": sum(reading) / sum(seconds),
            "smallest_share": min(r / s for r, s in zip(reading, seconds, strict=True)),
            "share_of_gemm": sum(flops) / sum(seconds) / gemm,
        }
    shares["read_bandwidth_gb_s"] = {n: b / 1e9 for n, b in sorted(bandwidth.items())}
    return shares


def summarise(rows: list[dict], gemm: float) -> dict[str, Any]:
    """Return everything the table states."""
    cases = ("py4DSTEM, same beams", "py4DSTEM, extinct beams kept", "abTEM", "quantem")
    set_up = np.array(
        [
            [row[key] for key in ("set_up_seconds", "set_up_seconds_new_elements", "py4dstem_set_up_seconds")]
            for row in {row["material"]: row for row in rows}.values()
        ]
    )
    costs = [(row[k]["predicted_seconds"], row[k]["seconds"]) for row in rows for k in SPECS]
    return {
        "beams": [min(r["beams"] for r in rows), max(r["beams"] for r in rows)],
        "ratios": {case: {label: ratios(rows, case, label) for label in SPECS} for case in cases},
        "set_up": {
            "median_seconds": float(np.median(set_up[:, 0])),
            "median_ratio": float(np.median(set_up[:, 2] / set_up[:, 0])),
            "median_seconds_new_elements": float(np.median(set_up[:, 1])),
            "median_ratio_new_elements": float(np.median(set_up[:, 2] / set_up[:, 1])),
        },
        "limits": shares_of_limits(rows, gemm),
        "largest_difference_from_double": max(r[k]["difference_from_double"] for r in rows for k in SPECS),
        "largest_difference_from_py4dstem": max(
            r[k]["difference_from_py4dstem"] for r in rows for k in SPECS
        ),
        "largest_difference_from_peers": {
            peer: max((r[peer]["difference"] for r in rows if peer in r), default=None)
            for peer in ("abtem", "quantem")
        },
        "cost_model": {
            "predictions": len(costs),
            "within_30_percent": sum(abs(p / s - 1.0) <= 0.3 for p, s in costs) / len(costs),
            "sum_predicted_over_measured": sum(p for p, _ in costs) / sum(s for _, s in costs),
        },
    }


def print_table(summary: dict[str, Any]) -> None:
    """Print the targets and what was reached."""

    def line(
        what: str, reached: tuple[float | None, ...], target: tuple[float | None, ...], unit: str
    ) -> None:
        cells = []
        for value, wanted in zip(reached, target, strict=True):
            if value is None:
                cells.append(f"{'not run':>22}")
                continue
            aim = "" if wanted is None else f" (≥ {wanted:g}{unit}: {'met' if value >= wanted else 'MISSED'})"
            cells.append(f"{value:.3g}{unit}{aim}".rjust(22))
        print(f"{what:44}", *cells)

    print(f"{'':44} {'one thickness, 200 Å':>22} {'100 thicknesses':>22}")
    for case, found in summary["ratios"].items():
        pairs = tuple(found[label] for label in SPECS)
        sums = tuple(p.get("ratio_of_sums") for p in pairs)
        line(f"{case}: ratio of sums", sums, TARGETS.get(case, (None, None)), " ×")
        worst = tuple(p.get("worst_crystal") for p in pairs)
        wanted = (WORST_TARGET,) * 2 if case == "py4DSTEM, same beams" else (None, None)
        line(f"{case}: worst crystal", worst, wanted, " ×")
    limits = summary["limits"]
    for kind in ("share_of_read_bandwidth", "share_of_gemm"):
        shares = tuple(limits[label][kind] if label in limits else None for label in SPECS)
        wanted = (LIMIT_TARGET,) * 2 if kind == "share_of_read_bandwidth" else (None, None)
        line(f"{kind.replace('_', ' ')} above 300 beams", shares, wanted, "")
    set_up, cost = summary["set_up"], summary["cost_model"]
    for kind, label in (("", "elements seen before"), ("_new_elements", "all elements new to the process")):
        seconds, ratio = set_up[f"median_seconds{kind}"], set_up[f"median_ratio{kind}"]
        print(f"set-up, {label}: {1e3 * seconds:.1f} ms (≤ 40), py4DSTEM takes {ratio:.1f} × as long (≥ 10)")
    print(
        f"largest |ΔI|: {summary['largest_difference_from_double']:.1e} from double precision "
        f"(≤ {ACCURACY_TARGET:g}), {summary['largest_difference_from_py4dstem']:.1e} from py4DSTEM"
    )
    print(
        f"cost model: {100 * cost['within_30_percent']:.0f} % of {cost['predictions']} solves within ±30 %, "
        f"sum predicted / measured {cost['sum_predicted_over_measured']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", type=Path, help="catalogue; the embedded crystals by default")
    parser.add_argument("--quick", action="store_true", help="8 crystals instead of 24, none above 700 beams")
    parser.add_argument("--no-peers", action="store_true", help="leave abTEM and quantem out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environment is kept")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.catalogue:
        catalogue = Catalogue.from_parquet(options.catalogue)
    else:
        catalogue = build_catalogue(aflow_candidates(), CatalogueFilter()).catalogue
    rows: list[dict[str, Any]] = []
    jobs: list[PeerJob] = []
    with threadpool_limits(limits=1):
        speed, gemm = measure_speed(), gemm_flops()
        with contextlib.redirect_stdout(io.StringIO()):
            measure(catalogue, choose(catalogue, 1, 50.0)[0], speed, options.quick)  # compiles and loads
            for index in choose(catalogue, *((8, 700.0) if options.quick else (24, 1500.0))):
                some, work = measure(catalogue, index, speed, options.quick)
                rows += some
                jobs += work
        reports = {} if options.no_peers else run_peers(jobs, options.cache)
        add_peers(rows, jobs, reports)
        summary = summarise(rows, gemm)
    result = {
        "command": command(),
        **describe(),
        "peers": {
            peer: {"versions": r.versions, "unavailable": r.unavailable, "failures": r.failures}
            for peer, r in reports.items()
        },
        "summary": summary,
        "rows": rows,
    }
    write_json(options.out, result)
    print_table(summary)


if __name__ == "__main__":
    main()
