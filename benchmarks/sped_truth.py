"""A scan as precession microscopes record it, from a file to the map, against the truth.

Overlapping MgO nanocrystals (Fm-3m, a = 4.212 Å) on an amorphous film, 200 keV, 1° of precession, 144 × 144
pixels, spots of two pixels radius, a direct beam that drifts, an elliptical projection, and a file that
states a pixel size 9 % too large and no energy. Once on a counting detector with hot pixels, once on an 8-bit
camera in front of a screen: blurred, not linear, the direct beam clipped; once on a linear 8-bit detector
with a pedestal, which the direct beam and the brightest spots fill to their end. And, on the counting
detector, rutile (tetragonal) alone and as every other grain, which a cubic phase must not take for its own.
Frames go into a HyperSpy file, and from there on only commands are used, as a stranger would.
``python benchmarks/sped_truth.py`` writes ``benchmarks/results/sped.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from machine import command, describe, write_json
from numpy.typing import NDArray
from rsciio import hspy
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from diffractory import simulate
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.systems import system_code
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.frames import FrameTruth, synthetic_frames
from diffractory.specs import FrameEffectsSpec, SimulationSpec

RESULT = Path(__file__).parent / "results" / "sped.json"
A, ENERGY_EV, PRECESSION, AZIMUTHS = 4.212, 200e3, 1.0, 36
THICKNESSES = tuple(100.0 * n for n in range(1, 6))
PIXEL, STATED, STEP, SIDE = 0.0165, 0.018, 50.0, 144
ELLIPSE = (1.01, 40.0)
EFFECTS = FrameEffectsSpec(
    frame_shape=(SIDE, SIDE), pixel_size=PIXEL, disk_radius=2.0, electrons=3e5, poisson=False, background=0.3,
    background_width=0.15, drift=3.0, ellipticity=ELLIPSE[0] - 1.0, ellipse_angle=ELLIPSE[1],
    center=(70.0, 73.0),
)  # fmt: skip
#: Share of the beam that the film scatters into its two halos, their radii, widths and relative heights.
FILM, HALOS = 0.15, ((0.48, 0.07, 1.0), (0.85, 0.10, 0.5))
CLASSES = ((1e-2, 2.0), (1e-3, 1e-2), (3e-4, 1e-3))


def magnesia() -> Crystal:
    """Return MgO."""
    face = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    return Crystal(np.eye(3) * A, np.repeat([12, 8], 4), np.concatenate([face, (face + 0.5) % 1.0]))


def rutile() -> Crystal:
    """Return TiO2."""
    titanium, u = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], 0.305
    oxygen = [[u, u, 0.0], [-u, -u, 0.0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    return Crystal(
        np.diag([4.594, 4.594, 2.959]), np.repeat([22, 8], [2, 4]), np.array([*titanium, *oxygen]) % 1.0
    )


def grains(count: int, crystal: Crystal) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return positions and intensities of grains in random orientations, the direct beam first."""
    generator = np.random.default_rng(1)
    spec = SimulationSpec(
        energy_ev=ENERGY_EV, thicknesses=THICKNESSES, precession_deg=PRECESSION, precession_azimuths=AZIMUTHS
    )
    turns = Rotation.random(count, random_state=generator).as_matrix()
    thickness = generator.integers(len(THICKNESSES), size=count)
    found = simulate(crystal, turns, spec)
    return [(peaks.q, peaks.intensity[t]) for peaks, t in zip(found, thickness, strict=True)]


def scan_of(
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]], side: int
) -> tuple[BraggScan, NDArray[np.bool_]]:
    """Lay round grains over a film, some above each other, and return which lie at each position."""
    generator = np.random.default_rng(2)
    middle = generator.uniform(0.0, side, (len(found), 2))
    radius = generator.uniform(2.5, 7.0, len(found))
    places = np.stack(np.indices((side, side)), axis=-1).reshape(-1, 2)
    inside = np.hypot(*(places[:, None] - middle).transpose(2, 0, 1)) <= radius
    positions, intensities = [], []
    for members in inside:
        # What one grain leaves of the beam, direct or diffracted, meets the others.
        direct = np.prod([found[i][1][0] for i in np.flatnonzero(members)])
        parts = [
            (q[1:], values[1:] * direct / values[0])
            for q, values in (found[i] for i in np.flatnonzero(members))
        ]
        positions.append(np.concatenate([np.zeros((1, 2)), *(q for q, _ in parts)]))
        intensities.append(np.concatenate([[direct], *(values for _, values in parts)]))
    table = PeakTable.from_lists(positions, intensities, [0] * len(positions))
    return BraggScan(table, (side, side), STEP, ENERGY_EV, "nanocrystals"), inside


def halo(center: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the film's rings around a direct beam, as a share of what they hold."""
    rows, columns = np.indices((SIDE, SIDE))
    q = np.hypot(rows - center[0], columns - center[1]) * PIXEL
    rings = sum(height * np.exp(-0.5 * ((q - at) / width) ** 2) for at, width, height in HALOS)
    return np.asarray(rings / np.sum(rings))


def counted(expected: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return what a counting detector with twelve hot pixels shows."""
    generator = np.random.default_rng(5)
    frames = generator.poisson(expected).astype(np.uint16)
    hot = generator.integers(0, SIDE, (12, 2))
    frames[..., hot[:, 0], hot[:, 1]] = 5000
    return frames


def filmed(expected: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what an 8-bit camera in front of a screen shows: blurred, gamma 0.6, the direct beam clipped."""
    generator = np.random.default_rng(5)
    light = gaussian_filter(generator.poisson(expected).astype(np.float32), (0.0, 0.0, 0.7, 0.7))
    brightest = float(np.median(light.max(axis=(2, 3))))
    values = 3.0 * 255.0 * (light / brightest) ** 0.6 + 12.0 + generator.normal(0.0, 1.5, light.shape)
    return np.clip(values, 0.0, 255.0).astype(np.uint8)


def clipped(expected: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what an 8-bit detector with a pedestal shows that counts electrons up to its end."""
    generator = np.random.default_rng(5)
    values = generator.poisson(expected) + generator.normal(3.0, 1.0, expected.shape)
    return np.clip(values, 0.0, 255.0).astype(np.uint8)


def write_file(path: Path, frames: NDArray[Any]) -> None:
    """Write a HyperSpy file with axes as pyxem writes them, no energy, and a pixel size that is wrong."""
    axes = [
        {"name": name, "scale": scale, "offset": offset, "units": units, "size": size, "navigate": navigate,
         "index_in_array": i, "_type": "UniformDataAxis", "is_binned": False}
        for i, (name, scale, offset, units, size, navigate) in enumerate([
            ("y", STEP / 10.0, 0.0, "nm", frames.shape[0], True),
            ("x", STEP / 10.0, 0.0, "nm", frames.shape[1], True),
            ("ky", STATED, -72.0 * STATED, "$A^{-1}$", SIDE, False),
            ("kx", STATED, -72.0 * STATED, "$A^{-1}$", SIDE, False),
        ])
    ]  # fmt: skip
    content = {
        "data": frames, "axes": axes, "metadata": {"General": {"title": ""}, "Signal": {}},
        "original_metadata": {}, "learning_results": {}, "attributes": {"_lazy": False}, "models": {},
        "package_info": {}, "package": "", "package_version": "", "tmp_parameters": {},
    }  # fmt: skip
    hspy.file_writer(str(path), content, show_progressbar=False)


def diffractory(*words: str | Path) -> tuple[dict[str, Any], float]:
    """Run a command that answers in JSON, and return the answer and its seconds."""
    began = time.perf_counter()
    argv = [sys.executable, "-c", "from diffractory.cli.app import main; main()", *map(str, words), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - began


def peak_scores(scan: BraggScan, truth: FrameTruth) -> dict[str, Any]:
    """Compare calibrated peaks with the true ones, in Å⁻¹."""
    true, offsets = truth.peaks.q, truth.peaks.offsets
    seen, error, false = np.zeros(len(true), dtype=bool), [np.empty(0)], 0
    for index in range(len(scan)):
        start, stop = offsets[index : index + 2]
        distance, nearest = cKDTree(true[start:stop]).query(scan.peaks.pattern(index)[0])
        good = distance <= 2.0 * PIXEL
        seen[start + nearest[good]] = True
        false += int((~good).sum())
        error.append(distance[good & (nearest > 0)])
    radius = np.hypot(*true.T)
    on_detector = (radius < 0.5 * SIDE * PIXEL - 0.08) & (radius > 1e-6)
    shares = {}
    for low, high in CLASSES:
        wanted = on_detector & (truth.peaks.intensity >= low) & (truth.peaks.intensity < high)
        shares[f"found from {low:g} of the beam"] = [float(seen[wanted].mean()), int(wanted.sum())]
    return {
        **shares, "false_a_frame": false / len(scan),
        "median_error_of_a_spot": float(np.median(np.concatenate(error))),
    }  # fmt: skip


def whole_path(frames: NDArray[Any], truth: FrameTruth, overlapping: NDArray[np.int64]) -> dict[str, Any]:
    """Write the file, run the commands, and compare what they say with the truth."""
    with tempfile.TemporaryDirectory() as folder:
        file, peaks, maps = Path(folder) / "scan.hspy", Path(folder) / "scan.h5", Path(folder) / "maps"
        write_file(file, frames)
        told = ("--energy", "200", "--lattice", f"{A}:F", "--ellipse", "fit", "--cluster", "inline")
        detected, detect_seconds = diffractory("detect", file, "--out", peaks, *told)
        summary, map_seconds = diffractory("map", peaks, "--out", maps)
        table = pd.read_csv(maps / "particles.csv").nlargest(1, "n_positions")
        scan = read_bragg_scan(peaks)
        scores = peak_scores(scan, truth)
    calibration = detected["calibration"]
    labelled = {name: item["count"] for name, item in summary["systems"].items() if item["count"]}
    kept = ["n_positions", "crystal_system", "confidence", "space_group", "a", "a_pooled", "a_pooled_margin"]
    enough = scan.peaks.counts >= 5
    return {
        "disk_radius": detected["disk_radius"], "bad_pixels": detected["bad_pixels"],
        "origin_error_pixels": float(np.hypot(*(np.array(calibration["origin"]["center"]) - (70.0, 73.0)))),
        "ellipse": [calibration["ellipse"]["ratio"], calibration["ellipse"]["angle_degrees"]],
        "pixel_size": calibration["pixel_size"], "pixel_size_from": calibration["pixel_size_from"],
        "pixel_size_error_percent": 100.0 * (calibration["pixel_size"] / PIXEL - 1.0),
        "peaks": scores,
        "positions": {
            "on_grains": int((overlapping > 0).sum()), "overlapping": int((overlapping > 1).sum()),
            "with_five_spots": int(enough.sum()), "of_them_on_film": int((enough & (overlapping == 0)).sum()),
            "labelled": labelled, "cubic": labelled.get("cubic", 0) / max(sum(labelled.values()), 1),
            "a_of_cubic": summary["systems"]["cubic"]["lattice"]["a"], "a_from": summary["lattice_sources"],
        },
        "outside_training": summary["outside_training"]["fraction"],
        "largest_particle": json.loads(table[kept].to_json(orient="records"))[0],
        "seconds": {"detect": detect_seconds, "map": map_seconds},
    }  # fmt: skip


def expected_frames(scan: BraggScan) -> tuple[NDArray[np.float32], FrameTruth]:
    """Return the electrons that frames would show in the mean, the film's among them."""
    lazy, truth = synthetic_frames(scan, EFFECTS, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = lazy.frames.data.compute(scheduler="synchronous").astype(np.float32)
    for y, x in np.ndindex(scan.shape):
        expected[y, x] += FILM * EFFECTS.electrons * halo(truth.center[y, x])
    return expected, truth


def with_rutile(side: int, count: int, every: int) -> dict[str, Any]:
    """Map a scan whose grains are rutile, each ``every``-th of them, or MgO, with and without a phase."""
    found, others = grains(count, rutile()), grains(count, magnesia())
    is_rutile = np.arange(count) % every == 0
    scan, inside = scan_of([found[i] if is_rutile[i] else others[i] for i in range(count)], side)
    frames = counted(expected_frames(scan)[0])
    only = {
        "rutile": inside[:, is_rutile].any(axis=1) & ~inside[:, ~is_rutile].any(axis=1),
        "MgO": inside[:, ~is_rutile].any(axis=1) & ~inside[:, is_rutile].any(axis=1),
    }
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, peaks = Path(folder) / "scan.hspy", Path(folder) / "scan.h5"
        write_file(file, frames)
        ellipse = f"{ELLIPSE[0]},{ELLIPSE[1]}"
        told = ("--energy", "200", "--pixel-size", str(PIXEL), "--ellipse", ellipse, "--cluster", "inline")
        diffractory("detect", file, "--out", peaks, *told)
        for phase in ("auto", "none", f"{A}:F"):
            maps = Path(folder) / phase.replace(":", "")
            summary, _ = diffractory("map", peaks, "--out", maps, "--phase", phase, "--no-report")
            with xr.open_dataset(maps / "map.nc") as dataset:
                system = dataset["crystal_system"].to_numpy().ravel()
            result[phase] = {"phases": summary["phases"], "changed": summary["changed_by_phases"]}
            for name, here in only.items():
                labelled = here & (system >= 0)
                result[phase][name] = {"labelled": int(labelled.sum())}
                for kind in ("cubic", "tetragonal"):
                    share = float((system[labelled] == system_code(kind)).mean()) if labelled.any() else None
                    result[phase][name][kind] = share
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=48, help="positions along the scan's side")
    parser.add_argument("--grains", type=int, default=36)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    scan, inside = scan_of(grains(options.grains, magnesia()), options.side)
    expected, truth = expected_frames(scan)
    result: dict[str, Any] = {
        "command": command(), **describe(), "effects": EFFECTS.model_dump(mode="json"), "film": FILM,
        "a": A, "energy_ev": ENERGY_EV, "precession_deg": PRECESSION, "stated_pixel_size": STATED,
    }  # fmt: skip
    detectors = {"counting detector": counted, "8-bit camera": filmed, "8-bit detector, clipped": clipped}
    for name, detector in detectors.items():
        result[name] = whole_path(detector(expected), truth, inside.sum(axis=1))
        print(name, json.dumps(result[name], indent=1), flush=True)
        write_json(options.out, result)
    for name, every in (("rutile alone", 1), ("every other grain rutile", 2)):
        result[name] = with_rutile(options.side, options.grains, every)
        print(name, json.dumps(result[name], indent=1), flush=True)
        write_json(options.out, result)


if __name__ == "__main__":
    main()
