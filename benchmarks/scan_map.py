"""Speed and memory of ``diffractory map`` as a whole process, each stage listed; see ``scan.py map``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from timed_map import BEGAN

from diffractory import simulate
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.systems import system_code
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from diffractory.specs import LabProtocolSpec, SimulationSpec

#: What runs ``diffractory map`` and writes what each stage took.
TIMED = Path(__file__).with_name("timed_map.py")
CRYSTALS, ORIENTATIONS, GRAINS = 60, 4, 400
#: Share of positions without a crystal: leaves as many with spots enough as the paper's scan has.
VACUUM = 0.32


def synthetic_map_scan(side: int) -> BraggScan:
    """Return a scan of side × side positions: embedded crystals under the lab protocol."""
    found = build_catalogue(
        aflow_candidates(read_prototypes()), CatalogueFilter(max_volume=150.0, limit=CRYSTALS), lambda _: None
    ).catalogue
    spec, generator = SimulationSpec(thicknesses=(200.0,)), np.random.default_rng(0)
    q, intensity, direct, owner = [], [], [], []
    for index in range(len(found)):
        turns = np.linalg.qr(generator.normal(size=(ORIENTATIONS, 3, 3)))[0]
        turns *= np.linalg.det(turns)[:, None, None]
        for pattern in simulate(found.crystal(index), turns, spec):
            q.append(np.asarray(pattern.q, dtype=np.float64))
            intensity.append(np.asarray(pattern.intensity[0], dtype=np.float64))
            direct.append(int(np.flatnonzero(~np.any(pattern.hkl, axis=1))[0]))
            owner.append(index)
    table = found.table.iloc[owner]
    labels = GrainLabels(
        np.array([system_code(name) for name in table["crystal_system"]], np.int8),
        table["space_group"].to_numpy(np.int16),
        table[["a", "b", "c"]].to_numpy(float),
        np.array(found.ids)[owner],
    )
    peaks = PeakTable.from_lists(q, intensity, direct)
    grains = min(GRAINS, side * side)
    noise = LabProtocolSpec()
    return synthetic_scan(
        peaks, labels, (side, side), grains, 0, vacuum_fraction=VACUUM, noise=noise, energy_ev=spec.energy_ev
    )[0]


def repeated_scan(scan: BraggScan, side: int) -> BraggScan:
    """Return a scan of side × side positions that repeats another one."""
    rows, columns = (np.arange(side) % size for size in scan.shape)
    positions = (rows[:, None] * scan.shape[1] + columns).ravel()
    return replace(scan, peaks=scan.peaks.take(positions), shape=(side, side))


def measured_map(scan: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Map a scan in a process of its own; return seconds of each stage and the memory of all processes."""
    times = folder.with_suffix(".json")
    words = [sys.executable, str(TIMED), str(times), str(scan), "--out", str(folder), *options]
    began, most = time.perf_counter(), 0
    # Compiled code in a folder of its own: the first run finds none, whatever ran on this machine before.
    compiled = str(folder.parent / "compiled")
    environment = os.environ | {"NUMBA_CACHE_DIR": compiled, BEGAN: repr(time.time())}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None:
        most = max(most, _memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"diffractory map ended with {process.returncode}")
    wall = time.perf_counter() - began
    return {"seconds": wall, "peak_gib": most / 2**30, **json.loads(times.read_text())}


def _memory(pid: int) -> int:
    """Return the resident memory of a process and of all it started."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in tree)
    except psutil.Error:
        return 0


def map_benchmark(side: int, large_side: int, paper_model: Path | None, folder: Path) -> dict[str, Any]:
    """Return what maps of side × side and of large_side × large_side positions take.

    Scans that are in the folder already are not made again.
    """
    small, large = folder / f"scan-{side}.h5", folder / f"scan-{side}-{large_side}.h5"
    if not small.is_file():
        synthetic_map_scan(side).to_emd(small)
    peaks = read_bragg_scan(small).peaks
    result: dict[str, Any] = {
        "positions": len(peaks),
        "positions with spots enough": int((peaks.counts >= 5).sum()),
        "peaks": len(peaks.intensity),
    }
    del peaks
    shutil.rmtree(folder / "compiled", ignore_errors=True)
    models = {"robust": ()} | ({"paper": ("--model", str(paper_model))} if paper_model else {})
    for name, options in models.items():
        for run in ("first run", "second run"):
            found = measured_map(small, folder / f"{name}-{run.split()[0]}", *options)
            result.setdefault(name, {})[run] = found
            print(name, run, json.dumps(found, indent=1), flush=True)
    if large_side:
        if not large.is_file():
            repeated_scan(read_bragg_scan(small), large_side).to_emd(large)
        found = measured_map(large, folder / "large")
        result["large"] = {"positions": large_side**2, **found}
        print("large", json.dumps(found, indent=1), flush=True)
    return result
