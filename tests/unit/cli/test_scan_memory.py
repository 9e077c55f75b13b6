"""Scans larger than memory: what processes hold does not grow with the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import worker_tasks
from diffractory.execution.engine import open_engine
from diffractory.scan.inspection.virtual_images import DirectBeam, ImageBlocks
from diffractory.scan.reading.frame_blocks import FrameSource, frame_blocks
from frame_scans import frames_of, lattice_patterns

MIB = 2**20
COLUMNS, FRAME = 32, (256, 256)
#: Rows of positions with a crystal; all others are dark, and cost no search for disks.
LIT = 4
ROW = COLUMNS * FRAME[0] * FRAME[1] * 8
#: How much more a process may hold for the larger file: far less than the files differ by.
GROWTH = 150 * MIB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the largest memory is read from /proc")


@pytest.fixture(scope="module")
def lit() -> np.ndarray:
    spots = {"frame_shape": FRAME, "pixel_size": 0.0125, "disk_radius": 4.0}
    return frames_of(lattice_patterns(16), (LIT, COLUMNS), **spots)[0].frames.to_numpy()


def write_rows(path: Path, rows: int, lit: np.ndarray) -> Path:
    """Write a scan of so many rows; dark frames take no disk."""
    array = np.lib.format.open_memmap(path, "w+", "<f8", (rows, COLUMNS, *FRAME))
    array[:: rows // LIT] = lit
    array.flush()
    return path


#: Detects in one file after the other, and prints the most memory held until then, pages of files included.
ENTRY = """
import sys
import worker_tasks
from cli_runs import succeeds
for file in sys.argv[1:]:
    succeeds("detect", file, "--out", f"{file}.h5", "--pixel-size", "0.0125", "--cluster", "inline")
    print(worker_tasks.largest_memory())
"""


def test_detection_holds_no_more_of_a_larger_scan(tmp_path: Path, lit: np.ndarray) -> None:
    files = [write_rows(tmp_path / f"{rows}.npy", rows, lit) for rows in (LIT, 8 * LIT)]
    # A process of its own: in this one other tests may have held more.
    command = [sys.executable, "-c", ENTRY, *map(str, files)]
    tests = {"PYTHONPATH": os.pathsep.join([str(Path(worker_tasks.__file__).parent), *sys.path])}
    answer = subprocess.run(
        command, env=os.environ | tests, capture_output=True, text=True, check=False, timeout=500
    )
    assert answer.returncode == 0, answer.stderr
    small, large = map(int, answer.stdout.split())
    assert large - small < GROWTH < 0.4 * (8 * LIT - LIT) * ROW


def test_a_worker_that_goes_through_a_file_keeps_none_of_it(tmp_path: Path, lit: np.ndarray) -> None:
    held = {}
    with open_engine("local", 1, 2**30) as engine:
        for rows in (LIT, 8 * LIT):
            source = FrameSource.of(write_rows(tmp_path / f"{rows}.npy", rows, lit))
            work = worker_tasks.Watched(ImageBlocks(source, DirectBeam((127.5, 127.5), 4.0)))
            outcomes = list(engine.run(work, frame_blocks(source.open())))
            held[rows] = [outcome.result for outcome in outcomes if outcome.result is not None]
            assert len(held[rows]) == len(outcomes) > 1
    (worker,) = {pid for results in held.values() for pid, _ in results}
    assert worker != os.getpid()
    assert max(most for _, most in held[8 * LIT]) - max(most for _, most in held[LIT]) < GROWTH
