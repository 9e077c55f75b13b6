"""Disk detection: speed beside py4DSTEM's serial loop at equal peaks, and recovery of the truth; maps.

``python benchmarks/scan.py`` writes the part ``detection`` of ``benchmarks/results/scan.json``,
``python benchmarks/scan.py map`` the part ``map``: time and memory of ``diffractory map`` as a whole process
for 65,536 and 1,000,000 positions. ``python benchmarks/scan.py frames`` writes the part ``frames``: a file of
4 GiB inspected, detected by threads, local workers and, with ``--site``, SLURM jobs, and mapped, in processes
that may hold a part of it only. ``python benchmarks/scan.py writing`` writes the part ``writing``: a file of
Bragg peaks, written here and by py4DSTEM.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import py4DSTEM
from machine import command, describe, write_json
from scan_frames import DRAWN, frames_benchmark
from scan_map import map_benchmark

from diffractory.dataset.bragg_vectors import bragg_vectors_of
from diffractory.execution.engine import open_engine
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.detect import DetectBlocks, Detector, find_peaks
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.reading.frame_blocks import FrameSource, frame_blocks
from diffractory.scan.synthetic.frames import FrameTruth, score_peaks, synthetic_frames
from diffractory.settings import Resources
from diffractory.specs import FrameEffectsSpec

RESULTS = Path(__file__).parent / "results" / "scan.json"
#: What the detector does, from none of it to much of it.
EFFECTS: dict[str, dict[str, Any]] = {
    "no noise": {"poisson": False, "electrons": 1e6},
    "1e6 electrons": {"electrons": 1e6},
    "1e5 electrons": {"electrons": 1e5},
    "1e4 electrons": {"electrons": 1e4},
    "1e5 electrons, 20 hot pixels, drift 6 px, ellipticity 3 %": {
        "electrons": 1e5, "hot_pixels": 20, "hot_value": 2000.0, "drift": 6.0, "ellipticity": 0.03,
    },
}  # fmt: skip
#: Shares of the incident beam from which on true peaks are to be found.
WEAKEST = (1e-2, 1e-3, 3e-4)


def patterns(n: int, seed: int) -> PeakTable:
    """Return square spot patterns of random spacing, turn and intensity."""
    generator = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(np.arange(-5, 6), np.arange(-5, 6), indexing="ij"), -1).reshape(-1, 2)
    q, intensity = [], []
    for _ in range(n):
        angle, spacing = generator.uniform(0.0, np.pi), generator.uniform(0.35, 0.5)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        position = spacing * points @ turn
        share = 0.05 * np.exp(-2.0 * np.hypot(*position.T)) * generator.uniform(0.02, 1.0, len(position))
        share[len(share) // 2] = 0.6
        kept = np.hypot(*position.T) < 1.5
        q.append(position[kept])
        intensity.append(share[kept])
    return PeakTable.from_detected(q, intensity)


def frames(side: int, pixels: int, **effects: Any) -> tuple[FrameScan, FrameTruth]:
    n = side * side
    table = patterns(max(n // 4, 1), 1).take(np.arange(n) // 4 % max(n // 4, 1))
    spec = FrameEffectsSpec(
        frame_shape=(pixels, pixels), pixel_size=3.2 / pixels, disk_radius=4.0 * pixels / 128, **effects
    )
    return synthetic_frames(BraggScan(table, (side, side), 20.0, 300e3), spec, 0)


def recovery(side: int, pixels: int) -> dict[str, Any]:
    """Return how much of the truth is found under each effect, with parameters chosen automatically."""
    found: dict[str, Any] = {}
    for name, effects in EFFECTS.items():
        scan, truth = frames(side, pixels, **effects)
        setup = prepare_detection(scan, SetupRequest())
        peaks = find_peaks(scan, setup.detector).peaks
        scores = {f"{weakest:g}": score_peaks(peaks, truth, weakest) for weakest in WEAKEST}
        found[name] = {"disk_radius": setup.template.radius, "significance": setup.spec.min_significance}
        found[name]["weakest peak asked for"] = scores
        print(name, *(f"{w}: recall {s['recall']:.3f}" for w, s in scores.items()), flush=True)
    return found


def speed(side: int, pixels: int, folder: Path) -> dict[str, Any]:
    """Return seconds of py4DSTEM's loop and of ours for the same frames, and how peaks differ."""
    array = frames(side, pixels, electrons=1e5)[0].frames.to_numpy()
    np.save(folder / "frames.npy", array)
    source = FrameSource.of(folder / "frames.npy", pixel_size=3.2 / pixels)
    scan = source.open()
    setup = prepare_detection(scan, SetupRequest())
    spec = setup.spec.model_copy(update={"min_significance": 0.0, "min_relative_intensity": 0.003})
    detector = Detector(setup.detector.kernel, spec, setup.detector.bad_pixels, setup.detector.saturation)
    began = time.perf_counter()
    theirs = _theirs(array, detector)
    seconds = {"py4DSTEM, serial": time.perf_counter() - began}
    began = time.perf_counter()
    ours = find_peaks(scan, detector).peaks
    seconds["one process"] = time.perf_counter() - began
    resources = Resources.of_this_machine(folder, 2)
    with open_engine("local", 2, resources.worker_memory) as engine:
        work, blocks = DetectBlocks(detector, source), frame_blocks(scan)
        list(engine.run(work, blocks[:2]))  # workers import first
        began = time.perf_counter()
        outcomes = list(engine.run(work, blocks))
        seconds["two workers"] = time.perf_counter() - began
    assert all(outcome.error is None for outcome in outcomes)
    return {
        "frames": len(array.reshape(-1, pixels, pixels)), "frame_pixels": pixels,
        "peaks": len(ours.intensity), "seconds": seconds,
        "times as fast": {k: seconds["py4DSTEM, serial"] / v for k, v in seconds.items()},
        "largest difference of a position in pixels": _difference(ours, theirs),
        "frames with another number of peaks": int((ours.counts != theirs.counts).sum()),
    }  # fmt: skip


def _theirs(array: np.ndarray, detector: Detector) -> PeakTable:
    spec = detector.spec
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        vectors = py4DSTEM.braggvectors.diskdetection.find_Bragg_disks(
            py4DSTEM.DataCube(array), detector.kernel.values, corrPower=spec.corr_power, sigma_cc=spec.sigma,
            subpixel=spec.subpixel, upsample_factor=spec.upsample_factor,
            minAbsoluteIntensity=spec.min_absolute_intensity,
            minRelativeIntensity=spec.min_relative_intensity,
            minPeakSpacing=spec.min_spacing, edgeBoundary=spec.edge_boundary, maxNumPeaks=spec.max_peaks,
        )  # fmt: skip
    found = [vectors._v_uncal[y, x].data for y, x in np.ndindex(*array.shape[:2])]
    q = [np.stack([peaks["qx"], peaks["qy"]], axis=1) for peaks in found]
    return PeakTable.from_lists(q, [peaks["intensity"] for peaks in found], [-1] * len(found))


def _difference(ours: PeakTable, theirs: PeakTable) -> float | None:
    same = [i for i in range(len(ours)) if ours.counts[i] == theirs.counts[i]]
    return max((float(np.abs(ours.pattern(i)[0] - theirs.pattern(i)[0]).max()) for i in same), default=None)


def large_file(options: argparse.Namespace, folder: Path) -> None:
    """Write what a file larger than its processes' memory takes."""
    pixels, drawn = options.pixels, int(DRAWN**0.5)
    scan = BraggScan(patterns(DRAWN, 1), (drawn, drawn), 20.0, 300e3)
    spec = FrameEffectsSpec(
        frame_shape=(pixels, pixels), pixel_size=3.2 / pixels, disk_radius=4.0 * pixels / 128, electrons=1e5
    )
    for name in ("threads", "local", "slurm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    began = {"command": command(), **describe()}
    limit = int(options.limit_gib * 2**30)

    def keep(result: dict[str, Any]) -> None:
        write_part(options.out, "frames", began | result)

    earlier = json.loads(options.out.read_text()).get("frames", {}) if options.out.is_file() else {}
    earlier = earlier if options.folder is not None else {}
    frames_benchmark(scan, spec, options.side or 128, options.site, limit, folder, earlier, keep)


def writing(side: int, folder: Path) -> dict[str, Any]:
    """Return seconds that a file of Bragg peaks takes, here and by py4DSTEM once it is imported."""
    n = side * side
    scan = BraggScan(patterns(100, 1).take(np.arange(n) % 100), (side, side))
    began = time.perf_counter()
    scan.to_emd(folder / "ours.h5")
    seconds = {"here": time.perf_counter() - began}
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        py4DSTEM.save(str(folder / "theirs.h5"), bragg_vectors_of(scan.peaks, scan.shape))
    seconds["py4DSTEM"] = time.perf_counter() - began
    ours, theirs = (read_bragg_scan(folder / f"{name}.h5").peaks for name in ("ours", "theirs"))
    assert np.array_equal(ours.q, theirs.q)
    assert np.array_equal(ours.offsets, theirs.offsets)
    return {
        "positions": n,
        "peaks": len(scan.peaks.intensity),
        "seconds": seconds,
        "times as fast": seconds["py4DSTEM"] / seconds["here"],
    }


def write_part(path: Path, part: str, result: dict[str, Any]) -> None:
    """Write one part of the results beside the others."""
    whole = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, {**whole, part: result})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=("detection", "map", "frames", "writing"), default="detection"
    )
    parser.add_argument(
        "--side", type=int, help="the scan has side × side positions; 24, map and writing: 256, frames: 128"
    )
    parser.add_argument("--pixels", type=int, default=256, help="and frames of so many pixels a side")
    parser.add_argument("--large-side", type=int, default=1000, help="side of the large map; 0 = none")
    parser.add_argument("--paper-model", type=Path, help="a trained model of the paper's preset, for maps")
    parser.add_argument(
        "--folder", type=Path, help="keeps the scans and maps, for the next run or to go on with this one"
    )
    parser.add_argument("--site", type=Path, help="site file of a SLURM that runs, for frames")
    parser.add_argument(
        "--limit-gib", type=float, default=1.0, help="what a process may allocate, for frames"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    result = {"command": command(), **describe()}
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "map":
            kept = options.folder or Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            # What is not measured anew is kept: the large map takes minutes.
            earlier = json.loads(options.out.read_text()).get("map", {}) if options.out.is_file() else {}
            result = (
                earlier
                | result
                | map_benchmark(options.side or 256, options.large_side, options.paper_model, kept)
            )
        elif options.part == "frames":
            large_file(options, options.folder or Path(folder))
            return
        elif options.part == "writing":
            result |= writing(options.side or 256, Path(folder))
            print(json.dumps(result, indent=1))
        else:
            side = options.side or 24
            result["recovery"] = recovery(max(side // 2, 2), 128)
            result["speed"] = speed(side, options.pixels, Path(folder))
            print(json.dumps(result["speed"], indent=1))
    write_part(options.out, options.part, result)


if __name__ == "__main__":
    main()
