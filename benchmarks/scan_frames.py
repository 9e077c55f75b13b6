"""``inspect``, ``detect`` and ``map`` of a scan larger than its processes' memory; see ``scan.py frames``.

Each command runs as processes of its own, which may hold no more than a limit far below the file's size.
Peaks found by threads, by local workers and by workers in SLURM jobs are compared bit by bit.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.frames import synthetic_frames
from diffractory.specs import FrameEffectsSpec

#: Frames that are drawn from; positions along a side of a particle; and one patch of so many is a particle.
DRAWN, PATCH, PARTICLES = 256, 16, 8
CALIBRATION = ("--step", "20", "--energy", "300")
_ENTRY = "from diffractory.cli.app import main; main()"
_LOOK_EVERY = 0.2


def write_scan(path: Path, side: int, drawn: np.ndarray) -> int:
    """Write a .npy of side × side float32 frames row by row; return how many show disks.

    Particles show frames drawn at random; between them the beam is blanked, and frames are 0 throughout:
    they are read and checked like all others, and cost no search for disks.
    """
    generator = np.random.default_rng(0)
    nothing = np.zeros(drawn.shape[1:], np.float32)
    header = {"descr": "<f4", "fortran_order": False, "shape": (side, side, *drawn.shape[1:])}
    shown = 0
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for y in range(side):
            on = (np.arange(side) // PATCH + y // PATCH) % PARTICLES == 0
            for here, index in zip(on, generator.integers(len(drawn), size=side), strict=True):
                stream.write(drawn[index].astype(np.float32).tobytes() if here else nothing.tobytes())
            shown += int(on.sum())
    return shown


def measured(*words: object, limit: int | None = None) -> dict[str, Any]:
    """Run ``diffractory`` and return seconds and the largest memory: of all processes together, and of one.

    Parameters
    ----------
    words : object
        Arguments of the command.
    limit : int, optional
        Bytes that each process started here may allocate; more is a MemoryError in it. Pages of files
        that are mapped do not count as allocated, but they do as memory.
    """

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    began, most, largest = time.perf_counter(), 0, 0
    command = [sys.executable, "-c", _ENTRY, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=confine)
    jobs: dict[int, bool] = {}
    while process.poll() is None:
        sizes = list(_resident(process.pid, jobs))
        most, largest = max(most, sum(sizes)), max(largest, *sizes, 0)
        time.sleep(_LOOK_EVERY)
    if process.returncode:
        raise RuntimeError(f"diffractory {words[0]} ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_gib": most / 2**30, "largest_process_gib": largest / 2**30}


def _resident(pid: int, jobs: dict[int, bool]) -> Iterator[int]:
    """Yield the resident bytes of a process, of all it started, and of all in jobs of this SLURM."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        tree = []
    if "SLURM_CONF" in os.environ:
        tree += [process for process in psutil.process_iter() if _in_a_job(process, jobs)]
    for process in tree:
        try:
            yield process.memory_info().rss
        except psutil.Error:
            continue


def _in_a_job(process: psutil.Process, known: dict[int, bool]) -> bool:
    if process.pid not in known:
        try:
            environment = process.environ()
        except psutil.Error:
            return False
        same = environment.get("SLURM_CONF") == os.environ["SLURM_CONF"]
        known[process.pid] = same and "SLURM_JOB_ID" in environment
    return known[process.pid]


def frames_benchmark(
    source: BraggScan,
    effects: FrameEffectsSpec,
    side: int,
    site: Path | None,
    limit: int,
    folder: Path,
    earlier: Mapping[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Measure inspection, detection and map of side × side frames, and whether all found the same.

    Parameters
    ----------
    source : BraggScan
        Peaks of the frames that are drawn from.
    effects : FrameEffectsSpec
    side : int
        Positions along a side.
    site : Path or None
        Site file of the SLURM that the environment names; without one, SLURM is left out.
    limit : int
        Bytes that each process may allocate.
    folder : Path
        For the file, which is deleted, and the peaks.
    earlier : mapping
        Results of a call that was broken off: its runs are kept if they are of the same scan.
    keep : callable
        Called with the results after each run.
    """
    file = folder / "frames.npy"
    drawn = synthetic_frames(source, effects, 0)[0].frames.to_numpy().reshape(-1, *effects.frame_shape)
    shown = write_scan(file, side, drawn)
    result: dict[str, Any] = {
        "frames": side * side, "frames with disks": shown, "frame_shape": list(effects.frame_shape),
        "dtype": "float32", "file_gib": file.stat().st_size / 2**30, "limit_of_a_process_gib": limit / 2**30,
    }  # fmt: skip
    goes_on = all(earlier.get(key) == value for key, value in result.items())
    runs: dict[str, dict[str, Any]] = dict(earlier["runs"]) if goes_on else {}
    same: dict[str, bool] = {}
    result |= {"runs": runs, "peaks equal to those of threads": same}
    known = ("--pixel-size", effects.pixel_size, *CALIBRATION)
    places: dict[str, Any] = {name: ("--cluster", name, "--workers", 2) for name in ("threads", "local")}
    if site is not None:
        result["site"] = tomllib.loads(site.read_text())
        places["slurm"] = ("--cluster", "slurm", "--site", site, "--jobs", 2)
    scans = {name: folder / name / "scan.h5" for name in places}
    detect = {name: ("detect", file, "--out", scans[name], *known, *where) for name, where in places.items()}
    commands = {f"detect, {name}": words for name, words in detect.items()}
    commands["map"] = ("map", scans["threads"], "--out", folder / "map", "--no-report")
    commands["inspect"] = ("inspect", file, "--out", folder, *known, "--cluster", "threads")
    try:
        for name, words in commands.items():
            if name not in runs:
                runs[name] = measured(*words, limit=limit)
                runs[name]["frames_a_second"] = side * side / runs[name]["seconds"]
            result["peaks"] = len(read_bragg_scan(scans["threads"]).peaks.intensity)
            for place, scan in scans.items():
                if place != "threads" and f"detect, {place}" in runs:
                    same[place] = _same(scans["threads"], scan)
            print(name, runs[name], same, flush=True)
            keep(result)
    finally:
        file.unlink()


def _same(first: Path, second: Path) -> bool:
    """Return whether all numbers of two scans of peaks are equal."""
    one, other = read_bragg_scan(first), read_bragg_scan(second)
    parts = [(getattr(one.peaks, part), getattr(other.peaks, part)) for part in ("q", "intensity", "offsets")]
    return all(np.array_equal(a, b) for a, b in [*parts, (one.status, other.status)])
