"""`diffractory detect` and `map` here and in SLURM jobs: the same peaks and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cli_runs import succeeds
from diffractory.scan.reading.emd_reader import read_bragg_scan
from frame_scans import frames_of, powder_patterns
from slurm_testbed import SITE, Testbed

SHAPE = (40, 16)
CALIBRATION = ("--pixel-size", "0.03", "--step", "20")


@pytest.fixture
def on_slurm(tmp_path: Path) -> tuple[str, ...]:
    site = tmp_path / "site.toml"
    site.write_text("\n".join(f"{key} = {value!r}" for key, value in SITE.items()))
    return "--cluster", "slurm", "--site", str(site), "--jobs", "2"


def test_slurm_and_this_process_give_the_same_peaks_and_labels(
    testbed: Testbed, tmp_path: Path, on_slurm: tuple[str, ...]
):
    frames = tmp_path / "frames.npy"
    np.save(frames, frames_of(powder_patterns(20), SHAPE)[0].frames.to_numpy())
    scans, maps = {}, {}
    for name, where in {"here": ("--cluster", "inline"), "there": on_slurm}.items():
        folder = tmp_path / name
        folder.mkdir()
        answer = succeeds("detect", frames, "--out", folder / "scan.h5", *CALIBRATION, *where)
        assert "frames.npy: 40 × 16 positions" in answer.flat
        assert "8/8 parts" in answer.flat  # four for each of two workers
        scans[name] = read_bragg_scan(folder / "scan.h5").peaks
        succeeds("map", folder / "scan.h5", "--out", folder / "map", "--no-report", *where)
        maps[name] = xr.open_zarr(folder / "map" / "map.zarr")
    for part in ("q", "intensity", "offsets", "direct"):
        np.testing.assert_array_equal(getattr(scans["there"], part), getattr(scans["here"], part))
    assert len(scans["here"].intensity) > 640
    for variable in ("crystal_system", "space_group", "a", "confidence", "flags"):
        np.testing.assert_array_equal(maps["there"][variable].to_numpy(), maps["here"][variable].to_numpy())
    # Job logs are kept where the results are.
    assert list((tmp_path / "there").rglob("slurm/*.log"))
