"""How accurate simulated intensities are, and what each setting and each other code does to them.

Crystals come from the embedded catalogue, one centric and one acentric for each crystal system where
there are such. Five studies: the beam set (q_max, s_max), precision and truncation of the series, form
factors, agreement with py4DSTEM, and agreement with abTEM and quantem. These two run in an environment of
their own, made under --cache at the first run; without it the rest goes on. About seven minutes on one
core, the making of that environment apart.

Writes benchmarks/results/accuracy.json, docs/pictures/accuracy-*.png and the tables in docs/accuracy.md;
a rehearsal (--quick) writes to the folder named by --out instead.

Example::

    python benchmarks/accuracy.py --quick --out rehearsal
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from accuracy_figures import draw, write_tables
from accuracy_peers import study_other_peers, study_py4dstem
from accuracy_samples import Sample, catalogue_sample, progress, samples
from engine import CACHE, count_products
from machine import describe, write_json
from threadpoolctl import threadpool_limits

from diffractory import SimulationSpec
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.scattering import chebyshev
from diffractory.scattering.form_factors import lobato_table, weickenmeier_kohl_table
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.structure_matrix import Precision
from diffractory.specs import FormFactorModel

REPOSITORY = Path(__file__).resolve().parents[1]
#: Primitive volumes aimed at, in Å³: of the crystals of all studies, and of those in their primitive cells.
VOLUME, SMALL_VOLUME = 90.0, 45.0
TALL = "aflow-AB2_tI6_139_a_e"
THICKNESSES = (200.0, 1000.0)
GROUPS = {"on zone": ("on zone",), "random": ("random", "another random")}
#: On a zone axis a beam's excitation error is λ q² / 2, 0.158 Å⁻¹ at 4 Å⁻¹: this s_max keeps them all.
REFERENCE = {"q_max": 4.0, "s_max": 0.16}
LARGER = {"q_max": 4.5, "s_max": 0.2}
Q_MAX = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5)
S_MAX = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1)
DEFAULT = (2.0, 0.06)
PRESETS = ((1.0, 0.02), (1.5, 0.04), (2.0, 0.06), (2.5, 0.08), (3.0, 0.12), (3.5, 0.14))
#: Crystals by the atomic number of their heaviest element.
ELEMENTS = {"light": range(1, 15), "medium": range(15, 41), "heavy": range(41, 99)}
DEPTHS = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
TRUNCATIONS = tuple(10.0**-n for n in range(3, 11))
TRUNCATED_AT = (200.0, 1000.0, 2000.0)
PRECISIONS: tuple[Precision, ...] = ("single", "double")
#: The default, and without absorption: with it little is left of any wave at 5000 Å, errors included.
ABSORPTION: dict[str, FormFactorModel] = {"": "wk-cp", ", no absorption": "wk"}
#: Changed physics, and the physics it is compared with.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wk-cp for wk-cp-exact": ({"form_factors": "wk-cp"}, {"form_factors": "wk-cp-exact"}),
    "wk-exact for wk-cp-exact": ({"form_factors": "wk-exact"}, {"form_factors": "wk-cp-exact"}),
    "lobato for wk-exact, atoms at rest": (
        {"form_factors": "lobato"},
        {"form_factors": "wk-exact", "thermal_sigma": 0.0},
    ),
    "u = 0.10 Å for 0.08 Å": (
        {"form_factors": "wk-cp-exact", "thermal_sigma": 0.1},
        {"form_factors": "wk-cp-exact"},
    ),
}
#: Elements whose form factors are drawn.
CURVES = {"Fe": 26, "Au": 79}
#: What is kept of each solve, by group of orientations.
Solves = dict[str, list[tuple[Any, ...]]]


def differences(pattern: PeakList, reference: PeakList) -> tuple[np.ndarray, np.ndarray]:
    """Return R = Σ |I − I_ref| / Σ I_ref of scattered beams and max |ΔI|, each (n_thicknesses,)."""
    place = {tuple(beam): column for column, beam in enumerate(reference.hkl.tolist())}
    expected = reference.intensity[:, [place[tuple(beam)] for beam in pattern.hkl.tolist()]]
    errors = np.abs(pattern.intensity - expected)
    return errors[:, 1:].sum(axis=1) / expected[:, 1:].sum(axis=1), errors.max(axis=1)


def spread(values: Iterable[float]) -> list[float]:
    """Return smallest, median and largest."""
    numbers = np.array(list(values))
    return [float(numbers.min()), float(np.median(numbers)), float(numbers.max())]


def solve_all(sample: Sample, names: Iterable[str], **settings: Any) -> dict[str, PeakList]:
    """Solve a crystal in some of its orientations, as a user would."""
    scatterer = Scatterer.prepare(sample.crystal, SimulationSpec(thicknesses=THICKNESSES, **settings))
    return {name: scatterer.solve(sample.orientations[name]) for name in names}


def study_beam_sets(crystals: Sequence[Sample]) -> dict[str, Any]:
    """Change q_max alone, s_max alone, and both, against much larger beam sets."""
    names = [name for group in GROUPS.values() for name in group]
    sweeps = {
        "q_max": (REFERENCE, [(q, REFERENCE["s_max"]) for q in Q_MAX]),
        "s_max": ({"q_max": 2.0, "s_max": REFERENCE["s_max"]}, [(2.0, s) for s in S_MAX]),
        "both": (REFERENCE, list(PRESETS)),
    }
    found: dict[str, list[list[Solves]]] = {sweep: [] for sweep in sweeps}
    for sample in crystals:
        for sweep, (largest, limits) in sweeps.items():
            reference = solve_all(sample, names, **largest)
            found[sweep].append([_one_beam_set(sample, q, s, reference) for q, s in limits])
        progress(f"beam sets: {sample.formula}")
    summary: dict[str, Any] = {
        sweep: {
            "reference": largest,
            "settings": [
                {"q_max": q, "s_max": s, **_over_crystals([of_one[i] for of_one in found[sweep]])}
                for i, (q, s) in enumerate(limits)
            ],
        }
        for sweep, (largest, limits) in sweeps.items()
    }
    for i, setting in enumerate(summary["both"]["settings"]):
        setting["by element"] = _by_element(crystals, [of_one[i] for of_one in found["both"]])
    return summary | {
        "default by crystal": [
            {**sample.label, "heaviest": sample.heaviest}
            | {group: _by_thickness(rows, 2) for group, rows in of_one[PRESETS.index(DEFAULT)].items()}
            for sample, of_one in zip(crystals, found["both"], strict=True)
        ],
        "larger reference": _check_reference(crystals[::3]),
    }


def _one_beam_set(sample: Sample, q_max: float, s_max: float, reference: dict[str, PeakList]) -> Solves:
    """Return beams, seconds, R, max |ΔI| and scattered share of each solve of a crystal, by group."""
    spec = SimulationSpec(thicknesses=THICKNESSES, q_max=q_max, s_max=s_max)
    scatterer = Scatterer.prepare(sample.crystal, spec)
    rows: Solves = {}
    for group, names in GROUPS.items():
        rows[group] = []
        for name in names:
            started = time.process_time()
            pattern = scatterer.solve(sample.orientations[name])
            seconds = time.process_time() - started
            scattered = pattern.intensity[:, 1:].sum(axis=1)
            rows[group].append((len(pattern), seconds, *differences(pattern, reference[name]), scattered))
    return rows


def _by_thickness(rows: list[tuple[Any, ...]], column: int) -> dict[str, list[float]]:
    return {f"{t:g}": [float(row[column][i]) for row in rows] for i, t in enumerate(THICKNESSES)}


def _over_crystals(of_crystals: Sequence[Solves]) -> dict[str, Any]:
    summary: dict[str, Any] = {"crystals": len(of_crystals)}
    for group in GROUPS:
        rows = [row for of_one in of_crystals for row in of_one[group]]
        summary[group] = {"beams": spread(row[0] for row in rows), "seconds": sum(row[1] for row in rows)}
        for column, key in ((2, "r"), (3, "max"), (4, "scattered")):
            summary[group][key] = {t: spread(values) for t, values in _by_thickness(rows, column).items()}
    return summary


def _by_element(crystals: Sequence[Sample], of_crystals: Sequence[Solves]) -> dict[str, Any]:
    """Summarise crystals by the atomic number of their heaviest element; classes without any are left out."""
    classes = {}
    for name, numbers in ELEMENTS.items():
        rows = [of for s, of in zip(crystals, of_crystals, strict=True) if s.heaviest in numbers]
        if rows:
            classes[name] = _over_crystals(rows)
    return classes


def _check_reference(crystals: Sequence[Sample]) -> dict[str, Any]:
    """Compare the reference with a larger one, on some of the crystals."""
    names = [names[0] for names in GROUPS.values()]
    rows = []
    for sample in crystals:
        larger = solve_all(sample, names, **LARGER)
        for name, pattern in solve_all(sample, names, **REFERENCE).items():
            r, largest = differences(pattern, larger[name])
            rows.append({**sample.label, "orientation": name, "r": list(r), "max": list(largest)})
        progress(f"larger beam set: {sample.formula}")
    return {"reference": LARGER, "thicknesses": THICKNESSES, "rows": rows}


def study_precision(crystals: Sequence[Sample]) -> dict[str, Any]:
    """Compare the series with the dense exponential: over thickness, and over its truncation."""
    errors: dict[str, list[np.ndarray]] = {p + model: [] for model in ABSORPTION for p in PRECISIONS}
    cut: list[dict[tuple[str, float, float], float]] = []
    for sample, (label, model) in itertools.product(crystals, ABSORPTION.items()):
        spec = SimulationSpec(thicknesses=DEPTHS, form_factors=model)
        scatterer = Scatterer.prepare(sample.crystal, spec)
        for name in ("on zone", "random"):
            orientation = sample.orientations[name]
            exact = scatterer.solve(orientation, "dense", "double").intensity
            for precision in PRECISIONS:
                ours = scatterer.solve(orientation, "chebyshev", precision).intensity
                errors[precision + label].append(np.abs(ours - exact).max(axis=1))
            if not label:
                cut.append(_truncated(scatterer, orientation, exact))
        progress(f"precision: {sample.formula}, {model}")
    return {
        "thicknesses": DEPTHS,
        "errors": {p: [spread(e[i] for e in of_p) for i in range(len(DEPTHS))] for p, of_p in errors.items()},
        "default_truncation": {str(dtype): value for dtype, value in chebyshev.TRUNCATION.items()},
        "truncations": TRUNCATIONS,
        "truncation_errors": {
            precision: {
                f"{t:g}": [spread(one[precision, t, x] for one in cut) for x in TRUNCATIONS]
                for t in TRUNCATED_AT
            }
            for precision in PRECISIONS
        },
        "products": {
            f"{t:g}": [sum(one["products", t, x] for one in cut) for x in TRUNCATIONS] for t in TRUNCATED_AT
        },
    }


def _truncated(
    scatterer: Scatterer, orientation: np.ndarray, exact: np.ndarray
) -> dict[tuple[str, float, float], float]:
    """Return max |ΔI| of single thicknesses by precision and truncation, and products with the matrix."""
    found: dict[tuple[str, float, float], float] = {}
    for thickness, truncation in itertools.product(TRUNCATED_AT, TRUNCATIONS):
        spec = scatterer.spec.model_copy(update={"thicknesses": (thickness,)})
        alone = Scatterer(scatterer.points, scatterer.factors, spec)
        expected = exact[DEPTHS.index(thickness)]
        with mock.patch.dict(chebyshev.TRUNCATION, dict.fromkeys(chebyshev.TRUNCATION, truncation)):
            for precision in PRECISIONS:
                ours = alone.solve(orientation, "chebyshev", precision).intensity[0]
                found[precision, thickness, truncation] = float(np.abs(ours - expected).max())
            found["products", thickness, truncation] = count_products(alone, orientation)
    return found


def study_form_factors(crystals: Sequence[Sample]) -> dict[str, Any]:
    """Exchange the form factors on the default beam set."""
    names = [name for group in GROUPS.values() for name in group]
    rows: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    for sample in crystals:
        solved: dict[str, dict[str, PeakList]] = {}
        for model, pair in MODELS.items():
            for settings in pair:
                key = json.dumps(settings)
                solved[key] = solved.get(key) or solve_all(sample, names, **settings)
            changed, reference = (solved[json.dumps(settings)] for settings in pair)
            for name in names:
                r, largest = differences(changed[name], reference[name])
                rows[model].append({**sample.label, "orientation": name, "r": list(r), "max": list(largest)})
    progress("form factors")
    return {
        "thicknesses": THICKNESSES,
        "models": {
            model: {
                key: {f"{t:g}": spread(row[key][i] for row in of_model) for i, t in enumerate(THICKNESSES)}
                for key in ("r", "max")
            }
            for model, of_model in rows.items()
        },
        "rows": rows,
        "elements": _elements(),
        "curves": {symbol: _curves(number) for symbol, number in CURVES.items()},
    }


def _elastic(number: int, g: np.ndarray, linear_below: float) -> np.ndarray:
    """Return Weickenmeier and Kohl's f in Å of an atom at rest, for an electron at rest."""
    table = weickenmeier_kohl_table(number, 300e3, 0.0, g[-1], False, linear_below)
    return table.form_factor()(g).real * np.pi / table.relativistic


def _curves(number: int) -> dict[str, list[float]]:
    g = np.linspace(0.0, 1.5, 301)
    lobato = lobato_table(number, 300e3)
    return {
        "g": g.tolist(),
        "py4dstem": _elastic(number, g, 1.0).tolist(),
        "exact": _elastic(number, g, 0.0).tolist(),
        "lobato": (lobato.form_factor()(g).real * np.pi / lobato.relativistic).tolist(),
    }


def _elements() -> dict[str, Any]:
    """Return how far py4DSTEM's evaluation is off, over all 98 elements, and Lobato and Van Dyck's fit."""
    g = np.linspace(1e-3, 4.0, 4000)
    shortfall, jump, lobato_zero, zero = [], [], {}, {}
    for number in range(1, 99):
        exact, linear = (_elastic(number, g, x) for x in (0.0, 1.0))
        shortfall.append(float((1.0 - linear / exact).max()))
        jump.append(float(np.diff(linear).max()))
        table = lobato_table(number, 300e3)
        lobato_zero[number] = float(2.0 * table.amplitudes.sum())
        zero[number] = float(_elastic(number, np.array([0.0]), 0.0)[0])
    return {
        "shortfall": spread(shortfall),
        "largest_shortfall_of": int(np.argmax(shortfall)) + 1,
        "jump": spread(jump),
        "largest_jump_of": int(np.argmax(jump)) + 1,
        "at_zero": {str(z): {"wk": zero[z], "lobato": lobato_zero[z]} for z in (37, 38)},
    }


def rounded(value: Any) -> Any:
    """Return plain data with four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all studies."""
    started = time.perf_counter()
    catalogue = build_catalogue(aflow_candidates(), CatalogueFilter()).catalogue
    crystals = samples(catalogue, VOLUME, False, ())
    small = samples(catalogue, SMALL_VOLUME, True, crystals)
    if options.quick:
        crystals, small = crystals[::4], small[::4]
    progress(f"{len(crystals)} crystals: " + ", ".join(sample.formula for sample in crystals))
    # Body-centred and tall, in its primitive cell: py4DSTEM misses couplings there even with k_max = 5.
    tall = [catalogue_sample(catalogue, catalogue.index_of(TALL), True)]
    classes = {sample.kind for sample in small}
    others = [*small, *(sample for sample in crystals if sample.kind not in classes)]
    studies = {
        "beam sets": study_beam_sets(crystals),
        "precision": study_precision(crystals),
        "form factors": study_form_factors(crystals),
        "py4DSTEM": study_py4dstem([*crystals, *small, *tall]),
        "abTEM and quantem": study_other_peers(others, None if options.no_peers else options.cache),
    }
    return {
        "command": "python benchmarks/accuracy.py"
        + " --quick" * options.quick
        + " --no-peers" * options.no_peers,
        **describe(),
        "minutes": (time.perf_counter() - started) / 60.0,
        "crystals": [sample.label for sample in crystals],
        "small_crystals": [sample.label for sample in small],
        **studies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few crystals, for a rehearsal; needs --out")
    parser.add_argument("--no-peers", action="store_true", help="leave abTEM and quantem out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environment is kept")
    parser.add_argument(
        "--out", type=Path, help="folder for result and figures, in place of the repository's"
    )
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw the stored result again")
    options = parser.parse_args()
    if options.quick and not options.out:
        parser.error("a rehearsal must not replace the results: name a folder with --out")
    warnings.simplefilter("ignore")
    result_file = (options.out or REPOSITORY / "benchmarks" / "results") / "accuracy.json"
    pictures = options.out or REPOSITORY / "docs" / "pictures"
    if not options.draw:
        with threadpool_limits(limits=1):
            result = rounded(measure(options))
        result_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(result_file, result)
    result = json.loads(result_file.read_text())
    draw(result, pictures)
    write_tables(result, None if options.out else REPOSITORY / "docs" / "accuracy.md")


if __name__ == "__main__":
    main()
