"""A HyperSpy file as pyxem users have them, from inspect over detect to map, by what the messages say."""

import json
import re
from pathlib import Path

import pytest

import scan_files
import sped_scans
from cli_runs import diffractory, succeeds
from frame_scans import POWDER_A

KNOWN = ("--lattice", f"{POWDER_A}:F", "--cluster", "inline")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Wrong pixel size in a unit written in TeX, no energy, no convergence angle."""
    path = tmp_path_factory.mktemp("stranger") / "scan.hspy"
    content = scan_files.signal(
        sped_scans.camera_frames(), pixel=1.08 * sped_scans.PIXEL, units=r"$\AA^{-1}$"
    )
    content["metadata"] = {"General": {"title": ""}, "Signal": {"signal_type": "electron_diffraction"}}
    scan_files.hspy.file_writer(str(path), content, show_progressbar=False)
    return path


def test_from_the_file_to_the_map(file):
    look = succeeds("inspect", file, "--out", file.parent)
    assert "energy" in look.flat
    assert "--energy" in look.flat
    peaks, maps = file.with_name("scan.h5"), file.with_name("maps")
    found = succeeds("detect", file, "--out", peaks, "--energy", "200", *KNOWN)
    size = float(re.search(r"pixel size: ([\d.]+) Å", found.flat)[1])
    assert size == pytest.approx(sped_scans.PIXEL, rel=0.01)
    assert re.search(r"stated: 0\.0324, -[6-8]\.\d %", found.flat)
    assert f"next: diffractory map {peaks}" in found.flat
    said = succeeds("map", peaks, "--out", maps)
    assert "recorded at 200 keV, the model was trained at 300 keV: lattices are read at 200 keV" in said.flat
    summary = json.loads((maps / "summary.json").read_text())
    assert len(summary["notes"]) == 1
    assert Path(maps / "map.html").is_file()


def test_without_an_energy_the_map_says_what_it_assumes(file, tmp_path):
    succeeds("detect", file, "--out", tmp_path / "scan.h5", *KNOWN)
    said = succeeds("map", tmp_path / "scan.h5", "--out", tmp_path / "maps", "--no-report", "--no-particles")
    assert "beam energy of the scan is unknown: 300 keV is assumed" in said.flat


def test_a_unit_of_nonsense_is_named(file, tmp_path):
    bad = scan_files.write_hspy(tmp_path / "bad.hspy", sped_scans.camera_frames()[:2], units="furlong")
    answer = diffractory("detect", bad, "--out", tmp_path / "out.h5")
    assert answer.code == 2
    assert "the file states 0.02 'furlong'" in answer.flat
    assert "--pixel-size" in answer.flat
