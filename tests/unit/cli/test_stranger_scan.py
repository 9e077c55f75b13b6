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


def test_a_cubic_phase_that_the_scan_shows_counts(file, tmp_path):
    peaks = tmp_path / "scan.h5"
    succeeds("detect", file, "--out", peaks, "--energy", "200", *KNOWN)
    summaries = {}
    for phase in ("auto", "none", f"{POWDER_A}:F"):
        said = succeeds("map", peaks, "--out", tmp_path / "maps", "--no-report", "--phase", phase)
        summaries[phase] = json.loads((tmp_path / "maps" / "summary.json").read_text())
        assert ("cubic phase of the scan: F, a = 4.0" in said.flat) is (phase != "none")
    found, none, told = summaries.values()
    assert none["phases"] == []
    (phase,), (named,) = found["phases"], told["phases"]
    assert phase["a"] == pytest.approx(POWDER_A, rel=0.005)
    assert phase["on_rings"] > phase["by_chance"] + 0.4
    assert (named["a"], named["margin"]) == (POWDER_A, None)
    for with_phase in (found, told):
        assert with_phase["systems"]["cubic"]["fraction"] > max(none["systems"]["cubic"]["fraction"], 0.9)
        assert with_phase["lattice_sources"]["rings"] > 0.8 * with_phase["labelled"]
        assert with_phase["lattice"]["a"]["median"] == pytest.approx(POWDER_A, rel=0.01)
    # What lattices are taken to be changes no label.
    for system in ("triclinic", "cubic"):
        succeeds("map", peaks, "--out", tmp_path / "assumed", "--no-report", "--assume", system)
        assumed = json.loads((tmp_path / "assumed" / "summary.json").read_text())
        assert assumed["phases"] == found["phases"]
        assert [kind["count"] for kind in assumed["systems"].values()] == [
            kind["count"] for kind in found["systems"].values()
        ]
    wrong = succeeds("map", peaks, "--out", tmp_path / "maps", "--no-report", "--phase", "4.212:F")
    assert "the phase F, a = 4.212 Å hardly shows" in wrong.flat
    nothing = succeeds(
        "map", peaks, "--out", tmp_path / "maps", "--min-spots", "900", "--phase", f"{POWDER_A}:F"
    )
    assert "labelled: 0 of" in nothing.flat
    refused = diffractory("map", peaks, "--out", tmp_path / "maps", "--phase", "4.05:X")
    assert refused.code == 2
    assert "write a cubic lattice such as 4.078:F" in refused.flat
    assert "Traceback" not in refused.flat


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
