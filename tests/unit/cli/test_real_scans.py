"""The two scans of microscopes that are at hand, from their files to their maps."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cli_runs import succeeds


def test_a_blockfile_is_inspected_detected_and_mapped(shared_data: Path, tmp_path: Path) -> None:
    file, peaks, maps = (
        shared_data / "rosettasciio_sped" / "test1.blo",
        tmp_path / "scan.h5",
        tmp_path / "maps",
    )
    assert "200 keV" in succeeds("inspect", file, "--out", tmp_path).flat
    detected = succeeds("detect", file, "--out", peaks, "--cluster", "inline", "--json").json
    assert detected["peaks"] > 50
    said = succeeds("map", peaks, "--out", maps)
    assert "labelled: 6 of 6 positions" in said.flat
    page = (maps / "map.html").read_text()
    # Its frames lie beneath the example patterns.
    assert "test1.blo" in page
    assert "their frames are not shown" not in page


def test_a_particle_is_mapped_and_its_constant_is_near_the_spinels(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "py4dstem_bragg" / "braggdisks_cali.h5"
    said = succeeds("map", file, "--out", tmp_path, "--assume", "cubic", "--no-report")
    assert "give it with --energy (keV)" in said.flat
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["positions"] == 80 * 58
    # The whole shows no cubic phase, and is divided among systems: what it is, nobody documented.
    assert summary["phases"] == []
    (particle,) = pd.read_parquet(tmp_path / "particles.parquet").to_dict("records")
    assert particle["a_pooled"] == pytest.approx(8.26, rel=0.01)
    assert particle["a_pooled_centring"] == "F"
    assert particle["a_pooled_on_rings"] > particle["a_pooled_by_chance"] + 0.2
    assert particle["a_pooled_patterns"] > 10
