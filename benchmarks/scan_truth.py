"""Truth through the whole path: raw frames of known crystals → peaks → calibration → map, effect by effect.

A synthetic scan of small particles, each a few crystallites of one material that the included model was not
trained on, is turned into raw frames with and without each effect of a detector; what is found is compared
with what was put in. Ellipse and pixel size are told by a second scan, a powder of gold on the same detector.
``python benchmarks/scan_truth.py --catalogue catalogue.parquet`` writes the part ``truth`` of
``benchmarks/results/scan.json``. Without a catalogue the embedded prototypes are used, whose crystals have
other ids than those of training, and may be among them all the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from scipy.spatial.transform import Rotation

from diffractory import Catalogue, simulate
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.errors import ScanError
from diffractory.learning.bootstrap import bootstrap_interval
from diffractory.learning.protocol_features import targets_of
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.detect import BlockPeaks, find_peaks
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from diffractory.scan.detection.scan_calibration import CalibratedScan, CalibrationRequest, calibrate_scan
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.mapping.particle_table import particle_table
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.frames import FrameTruth, score_peaks, synthetic_frames
from diffractory.specs import FrameEffectsSpec, MapSpec, ParticleSpec, SimulationSpec, feature_spec

RESULTS = Path(__file__).parent / "results" / "scan.json"
#: Positions along a particle's side, and from one particle to the next: vacuum lies between them.
SIDE, PITCH = 3, 4
#: Crystallites of one particle: each row of it is one, in an orientation of its own.
CRYSTALLITES = SIDE
THICKNESSES = tuple(100.0 * n for n in range(1, 6))
#: Beams below this share of the incident one give no electron and are left out.
FAINTEST = 1e-6
GOLD, GOLD_ELECTRONS = "4.078:F", 1e5
#: Classes of true intensity, as shares of the incident beam.
CLASSES = ((1e-2, 2.0), (1e-3, 1e-2), (3e-4, 1e-3), (1e-4, 3e-4))
DETECTOR: dict[str, Any] = {
    "frame_shape": (256, 256), "pixel_size": 0.013, "disk_radius": 3.0, "electrons": 1e5, "poisson": False,
    "background": 0.0,
}  # fmt: skip
#: What is found where every strong peak is known: no condition of a detector.
PERFECT = "true peaks above 3e-4, no frames"
_ELLIPSE = {"ellipticity": 0.03, "ellipse_angle": 35.0}
_ALL = {"poisson": True, "background": 0.2, "hot_pixels": 20, "hot_value": 2000.0, "drift": 6.0, **_ELLIPSE}


@dataclass(frozen=True)
class Condition:
    """Effects of the detector, the error of the stated pixel size, and whether gold corrects for them."""

    effects: dict[str, Any]
    stated: float = 1.0
    gold: bool = False


CONDITIONS = {
    "none": Condition({}),
    "all at 1e5 electrons, corrected": Condition(_ALL, 1.02, True),
    "all at 1e5 electrons, not corrected": Condition(_ALL, 1.02),
    "1e5 electrons": Condition({"poisson": True}),
    "all at 1e4 electrons, corrected": Condition({**_ALL, "electrons": 1e4}, 1.02, True),
    "1e4 electrons": Condition({"poisson": True, "electrons": 1e4}),
    "ellipticity 3 %, not corrected": Condition(_ELLIPSE),
    "ellipticity 3 %, corrected": Condition(_ELLIPSE, gold=True),
    "background": Condition({"background": 0.2}),
    "hot pixels": Condition({"hot_pixels": 20, "hot_value": 2000.0}),
    "drift 6 px": Condition({"drift": 6.0}),
    "pixel size 2 % wrong, not corrected": Condition({}, 1.02),
    "pixel size 2 % wrong, corrected": Condition({}, 1.02, True),
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A scan of true peaks; material of each position (−1 = vacuum), and truth of each material."""

    scan: BraggScan
    material: np.ndarray
    systems: np.ndarray
    lattice: np.ndarray


def materials(path: Path | None, count: int, trained_on: set[str]) -> tuple[Catalogue, np.ndarray]:
    """Return a catalogue and the rows of random materials that the model was not trained on."""
    if path is None:
        candidates = aflow_candidates(read_prototypes())
        catalogue = build_catalogue(candidates, CatalogueFilter(max_volume=600.0)).catalogue
    else:
        catalogue = Catalogue.from_parquet(path)
    unseen = np.flatnonzero([name not in trained_on for name in catalogue.ids])
    return catalogue, np.sort(np.random.default_rng(6).permutation(unseen)[:count])


def patterns(crystals: list[Crystal], each: int, energy_ev: float, seed: int) -> PeakTable:
    """Return simulated patterns of crystals in random orientations, each crystal of one random thickness."""
    generator = np.random.default_rng(seed)
    spec = SimulationSpec(energy_ev=energy_ev, thicknesses=THICKNESSES)
    q, intensity = [], []
    for crystal in crystals:
        turns = Rotation.random(each, random_state=generator).as_matrix()
        thickness = int(generator.integers(len(THICKNESSES)))
        for peaks in simulate(crystal, turns, spec):
            kept = peaks.intensity[thickness] >= FAINTEST
            q.append(peaks.q[kept])
            intensity.append(peaks.intensity[thickness][kept])
    return PeakTable.from_detected(q, intensity)


def sample(catalogue: Catalogue, rows: np.ndarray, energy_ev: float) -> Sample:
    """Lay particles out on a grid with vacuum between them."""
    table = patterns([catalogue.crystal(int(row)) for row in rows], CRYSTALLITES, energy_ev, 7)
    columns = int(np.ceil(np.sqrt(len(rows))))
    shape = (PITCH * int(np.ceil(len(rows) / columns)) + 1, PITCH * columns + 1)
    material, pattern = np.full(shape, -1), np.full(shape, len(table))
    for index in range(len(rows)):
        y, x = (1 + PITCH * place for place in divmod(index, columns))
        material[y : y + SIDE, x : x + SIDE] = index
        pattern[y : y + SIDE, x : x + SIDE] = CRYSTALLITES * index + np.arange(SIDE)[:, None]
    vacuum = PeakTable.from_detected([np.zeros((1, 2))], [np.ones(1)])
    peaks = PeakTable.concatenate([table, vacuum]).take(pattern.ravel())
    truth = targets_of(catalogue, rows)
    scan = BraggScan(peaks, shape, 20.0, energy_ev, "particles of unseen materials")
    return Sample(scan, material.ravel(), np.asarray(truth.system), np.asarray(truth.lattice))


def calibrated(
    scan: BraggScan, condition: Condition, request: CalibrationRequest, size: float
) -> tuple[CalibratedScan, BlockPeaks, FrameTruth]:
    """Render frames, find their disks and calibrate them with the pixel size that is stated."""
    frames, truth = synthetic_frames(scan, FrameEffectsSpec(**{**DETECTOR, **condition.effects}), 0)
    frames = replace(frames, pixel_size=size)
    setup = prepare_detection(frames, SetupRequest())
    found = find_peaks(frames, setup.detector)
    result = calibrate_scan(found, frames, setup.template.radius, request, {}, setup.brightest)
    return result, found, truth


def calibration_scores(result: CalibratedScan, truth: FrameTruth, *, fitted: bool) -> dict[str, Any]:
    """Return how far origin, ellipse and pixel size are from the truth."""
    off = np.hypot(*(result.origin.fitted - truth.center).reshape(-1, 2).T)
    scores: dict[str, Any] = {
        "origin_rms_pixels": float(np.sqrt((off**2).mean())), "origin_worst_pixels": float(off.max()),
    }  # fmt: skip
    if fitted:
        true_ratio = 1.0 + truth.effects.ellipticity
        difference = abs(result.ellipse.angle - truth.effects.ellipse_angle)
        scores |= {
            "ellipse_ratio": result.ellipse.ratio, "true_ratio": true_ratio,
            # A circle has no long axis.
            "ellipse_angle_off_degrees": min(difference, 180.0 - difference) if true_ratio > 1.0 else None,
            "pixel_size": result.pixel_size, "true_pixel_size": truth.effects.pixel_size,
            "pixel_size_error_percent": 100.0 * (result.pixel_size / truth.effects.pixel_size - 1.0),
        }  # fmt: skip
    return scores


def peak_scores(found: PeakTable, truth: FrameTruth) -> dict[str, Any]:
    """Return how many true peaks of each class are found, how far off, and how many found ones are true."""
    classes = {
        f"from {low:g} of the beam": score_peaks(found, truth, low, strongest=high) for low, high in CLASSES
    }
    of_all = {name: next(iter(classes.values()))[name] for name in ("precision", "false_a_frame")}
    return of_all | {
        name: {key: value for key, value in scores.items() if key not in of_all}
        for name, scores in classes.items()
    }


def labels(scan: BraggScan, truth: Sample, model: SavedModel) -> dict[str, Any]:
    """Map a scan and compare positions and particles with the truth."""
    spec = MapSpec(median_size=1)
    particles = ParticleSpec(smoothing=0.0, min_size=4)
    prediction = predict_scan(
        model, scan, spec, feature_spec(model.provenance["features"]), particles=particles
    )
    table = particle_table(scan, prediction)
    on = truth.material >= 0
    asked = prediction.systems.system >= 0
    used = np.flatnonzero(on & asked)
    owner = truth.material[used]
    divided = prediction.particles
    assert divided is not None
    # A found particle is the one that most of its positions belong to.
    belongs = np.array(
        [
            np.bincount(truth.material[divided.particle == number] + 1).argmax() - 1
            for number in table["particle"]
        ],
        dtype=np.int64,
    ).reshape(-1)
    known = belongs >= 0
    answers = {"evidence": divided.evidence.system, "difference": divided.difference.system}
    lattice = table[["a", "b", "c"]].to_numpy()
    return {
        "positions_on_crystal": int(on.sum()),
        "asked": float(asked[on].mean()),
        "asked_in_vacuum": float(asked[~on].mean()),
        "position": _scored(prediction.systems.system[used], prediction.within.lattice[used], owner, truth),
        "particles": {
            "true": len(truth.systems), "found": len(table),
            "materials_found_once": int((np.bincount(belongs[known]) == 1).sum()),
            **{
                rule: _scored(system[known], lattice[known], belongs[known], truth)
                for rule, system in answers.items()
            },
        },
    }  # fmt: skip


def _scored(system: np.ndarray, lattice: np.ndarray, owner: np.ndarray, truth: Sample) -> dict[str, Any]:
    """Return how many crystal systems are right, and how good the lattices of the right ones are."""
    right = system == truth.systems[owner]
    relative = np.abs(lattice / truth.lattice[owner] - 1.0)
    known = right & np.isfinite(relative[:, 0])
    within = np.nanmax(np.where(np.isfinite(relative), relative, np.inf), axis=1) < 0.02
    cubic = known & (truth.systems[owner] == system_code("cubic"))
    scores: dict[str, Any] = {
        "n": len(owner), "materials": len(np.unique(owner)),
        "system_right": float(right.mean()) if len(owner) else None,
        "interval": bootstrap_interval(right, owner, 1000, 0),
        "by_system": {
            name: [int(right[chosen].sum()), int(chosen.sum())]
            for code, name in enumerate(CRYSTAL_SYSTEMS) if (chosen := truth.systems[owner] == code).any()
        },
    }  # fmt: skip
    for name, chosen in (("lattice_where_right", known), ("cubic_where_right", cubic)):
        n = int(chosen.sum())
        scores[name] = {
            "n": n, "materials": len(np.unique(owner[chosen])),
            "within_2_percent": float(within[chosen].mean()) if n else None,
            "interval": bootstrap_interval(within[chosen], owner[chosen], 1000, 0) if n else None,
            "median_error_of_a_percent": float(100.0 * np.median(relative[chosen, 0])) if n else None,
        }  # fmt: skip
    return scores


def whole_path(condition: Condition, truth: Sample, gold: BraggScan, model: SavedModel) -> dict[str, Any]:
    """Return everything about one condition."""
    request, size = CalibrationRequest(), DETECTOR["pixel_size"] * condition.stated
    result: dict[str, Any] = {}
    if condition.gold:
        told, result["calibration_by_gold"] = calibration(condition, gold, size)
        if condition.effects.get("electrons", GOLD_ELECTRONS) < GOLD_ELECTRONS:
            # Used is the calibration with more electrons, as a laboratory would take it; this one is told.
            try:
                weak = calibration(condition, gold, size, condition.effects["electrons"])[1]
            except ScanError as error:
                weak = {"failed": str(error)}
            result["calibration_by_gold_at_the_same_electrons"] = weak
        request = CalibrationRequest(ellipse=(told.ellipse.ratio, told.ellipse.angle))
        size = told.pixel_size
    found, pixels, frame_truth = calibrated(truth.scan, condition, request, size)
    result["origin"] = calibration_scores(found, frame_truth, fitted=False)
    result["peaks"] = peak_scores(pixels.peaks, frame_truth)
    with tempfile.TemporaryDirectory() as folder:
        found.scan.to_emd(Path(folder) / "scan.h5")
        result["labels"] = labels(read_bragg_scan(Path(folder) / "scan.h5"), truth, model)
    return result


def calibration(
    condition: Condition, gold: BraggScan, size: float, electrons: float = GOLD_ELECTRONS
) -> tuple[CalibratedScan, dict[str, Any]]:
    """Return what a powder of gold tells of ellipse and pixel size, and how true that is."""
    request = CalibrationRequest(ellipse="fit", rings=ring_radii(cubic_crystal(GOLD), 2.5))
    seen = replace(condition, effects={**condition.effects, "electrons": electrons})
    told, _, truth = calibrated(gold, seen, request, size)
    return told, calibration_scores(told, truth, fitted=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, help="crystals; the embedded prototypes by default")
    parser.add_argument("--materials", type=int, default=64)
    parser.add_argument("--only", help="conditions whose name begins so; the others stay as they are")
    parser.add_argument("--missing", action="store_true", help="conditions that the result lacks: goes on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    model = SavedModel(packaged_model())
    provenance = model.provenance
    energy_ev = float(provenance["simulation"]["energy_ev"])
    catalogue, rows = materials(options.catalogue, options.materials, set(provenance["training_materials"]))
    truth = sample(catalogue, rows, energy_ev)
    gold = BraggScan(
        patterns([cubic_crystal(GOLD)] * 144, 1, energy_ev, 8), (12, 12), 20.0, energy_ev, "gold"
    )
    result = {
        "catalogue": catalogue.content_hash,
        "held_out": "ids that are not among the model's training materials",
        "materials": len(rows),
        "systems": {name: int((truth.systems == code).sum()) for code, name in enumerate(CRYSTAL_SYSTEMS)},
        "crystallites_a_material": CRYSTALLITES, "positions_a_crystallite": SIDE, "detector": DETECTOR,
        "electrons_of_the_calibration": GOLD_ELECTRONS,
    }  # fmt: skip
    # Parts of an earlier call with the same crystals and detector are kept: each condition stands alone.
    before = _read(options.out).get("truth", {})
    same = all(before.get(key) == json.loads(json.dumps(value)) for key, value in result.items())
    conditions = dict(before["conditions"]) if same else {}
    if not options.missing or PERFECT not in conditions:
        conditions[PERFECT] = labels(_strong(truth, 3e-4), truth, model)
    for name, condition in CONDITIONS.items():
        if options.only is not None and not name.startswith(options.only):
            continue
        if options.missing and name in conditions:
            continue
        began = time.perf_counter()
        conditions[name] = whole_path(condition, truth, gold, model)
        # Conditions may come from several calls.
        conditions[name] |= {"date": describe()["date"], "seconds": time.perf_counter() - began}
        part = conditions[name]["labels"]
        print(
            f"{name}: {part['position']['system_right']:.3f} of positions, "
            f"{part['particles']['evidence']['system_right']:.3f} of particles "
            f"({time.perf_counter() - began:.0f} s)", flush=True,
        )  # fmt: skip
        whole = {"command": command(), **describe(), **result, "conditions": conditions}
        write_json(options.out, {**_read(options.out), "truth": whole})


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _strong(truth: Sample, weakest: float) -> BraggScan:
    """Return the scan with its strong peaks alone: what a perfect detector would find."""
    lists = [truth.scan.peaks.pattern(index) for index in range(len(truth.scan))]
    kept = [values >= weakest for _, values in lists]
    table = PeakTable.from_detected(
        [q[k] for (q, _), k in zip(lists, kept, strict=True)],
        [values[k] for (_, values), k in zip(lists, kept, strict=True)],
    )
    return BraggScan(table, truth.scan.shape, truth.scan.step, truth.scan.energy_ev, "true peaks")


if __name__ == "__main__":
    main()
