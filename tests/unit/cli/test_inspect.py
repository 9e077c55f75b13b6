"""`inspect` says what a file holds and where each number comes from, and refuses what it cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import scan_files
from cli_runs import Workshop, diffractory, refused, succeeds
from diffractory.cli.scan_options import parse_scan_shape
from diffractory.errors import ScanError
from diffractory.scan.reading import frame_blocks
from frame_scans import frames_of, powder_patterns

FRAMES = scan_files.example()


@pytest.fixture
def hspy(tmp_path: Path) -> Path:
    return scan_files.write_hspy(tmp_path / "scan.hspy", FRAMES)


def test_it_prints_shape_and_calibration_and_draws(hspy: Path, tmp_path: Path) -> None:
    answer = succeeds("inspect", hspy, "--out", tmp_path / "seen", "--step", "15")
    assert "5 × 4 positions of 16 × 16 pixels, uint8" in answer.flat
    for words in ("HyperSpy", "0.02 Å⁻¹", "15 Å option --step", "200 keV file", "1.5 mrad file"):
        assert words in answer.flat
    picture = tmp_path / "seen" / "scan.hspy-inspect.png"
    assert str(picture) in answer.stdout
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "direct beam: row 7.0, column 9.0" in answer.stderr


def test_what_is_unknown_names_its_option(tmp_path: Path) -> None:
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES)
    answer = succeeds("inspect", path, "--out", tmp_path)
    for flag in ("--pixel-size", "--step", "--energy", "--semiangle"):
        assert f"give it with {flag}" in answer.flat


def test_json_holds_everything(tmp_path: Path) -> None:
    frames = FRAMES.copy()
    frames[1, 2] = 0
    frames[0, 0, 0, :3] = 255
    path = scan_files.write_hdf5(tmp_path / "scan.h5", frames)
    said = succeeds("inspect", path, "--out", tmp_path, "--energy", "300", "--json").json
    assert said["kind"] == "frames"
    assert said["shape"] == [5, 4]
    assert said["frame_shape"] == [16, 16]
    assert said["calibration"]["energy_ev"] == {
        "value": 300e3,
        "from": "option --energy",
        "option": "--energy",
    }
    assert said["calibration"]["step"] == {"value": None, "from": "unknown", "option": "--step"}
    assert said["frames"]["empty"] == 1
    assert said["frames"]["good"] == 19
    assert said["frames"]["with clipped pixels"] == 1
    assert said["bytes"] == 5 * 4 * 256
    assert "bad frames: 1 of 20 (1 empty)" in said["notes"][0]
    assert said["direct_beam"]["center"] == pytest.approx([7.0, 9.0], abs=0.1)
    assert Path(said["picture"]).is_file()


def test_the_disk_is_as_large_as_the_semiangle_says(hspy: Path, tmp_path: Path) -> None:
    said = succeeds("inspect", hspy, "--out", tmp_path, "--json").json
    # 1.5 mrad at 200 keV and 0.02 Å⁻¹ a pixel.
    assert said["direct_beam"]["radius"] == pytest.approx(1.5e-3 / 0.025079 / 0.02, rel=1e-3)


def test_workers_see_what_one_process_sees(tmp_path: Path) -> None:
    path = scan_files.write_hspy(tmp_path / "scan.hspy", FRAMES)
    one, two = (
        succeeds("inspect", path, "--out", tmp_path, "--json", "--cluster", *where).json
        for where in (("inline",), ("local", "--workers", "1"))
    )
    assert one == two


def test_a_stack_is_shown_with_its_scan_shape(tmp_path: Path) -> None:
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES.reshape(20, 16, 16))
    refused("inspect", path, untouched=tmp_path, says=("stack of 20 frames", "--scan-shape ROWSxCOLUMNS"))
    said = succeeds("inspect", path, "--out", tmp_path, "--scan-shape", "5x4", "--json").json
    assert said["shape"] == [5, 4]
    refused("inspect", path, "--scan-shape", "20", untouched=tmp_path, says=("--scan-shape '20'", "80x58"))


def test_axes_out_of_order_are_told(tmp_path: Path) -> None:
    axes = scan_files.signal(FRAMES)["axes"]
    turned = np.ascontiguousarray(FRAMES.transpose(2, 3, 0, 1))
    path = scan_files.write_hspy(tmp_path / "scan.hspy", turned, axes=[axes[i] for i in (2, 3, 0, 1)])
    answer = succeeds("inspect", path, "--out", tmp_path)
    assert "stored as 16 × 16 × 5 × 4: axes were put in order" in answer.flat


def test_bragg_peaks_are_shown_too(workshop: Workshop, tmp_path: Path) -> None:
    answer = succeeds("inspect", workshop.scan, "--out", tmp_path)
    assert "Bragg peaks" in answer.stdout
    assert "12 × 14 positions" in answer.flat
    said = succeeds("inspect", workshop.scan, "--out", tmp_path, "--json").json
    assert said["kind"] == "Bragg peaks"
    assert said["shape"] == [12, 14]
    counts = said["peaks_a_position"]
    assert set(counts) == {"0 %", "5 %", "25 %", "50 %", "75 %", "95 %", "100 %"}
    assert 0 < counts["50 %"] <= counts["100 %"]
    assert said["calibration"]["energy_ev"]["value"] == 300e3
    assert (tmp_path / "scan.h5-inspect.png").read_bytes()[:4] == b"\x89PNG"


def test_options_fill_and_overrule_a_file_of_bragg_peaks(workshop: Workshop, tmp_path: Path) -> None:
    options = ("--out", tmp_path, "--energy", "200", "--step", "15")
    said = succeeds("inspect", workshop.scan, *options, "--json").json
    assert said["calibration"]["energy_ev"] == {"value": 200e3, "from": "option --energy"}
    assert said["calibration"]["step"] == {"value": 15.0, "from": "option --step"}
    assert (
        said["notes"][0]
        == "distance of neighbouring positions: 15 Å by --step instead of the 20 Å that the file states"
    )
    assert said["notes"][1] == "beam energy: 200 keV by --energy instead of the 300 keV that the file states"
    same = ("--energy", "300", "--step", "20")
    assert not any(
        "--" in note
        for note in succeeds("inspect", workshop.scan, "--out", tmp_path, *same, "--json").json["notes"]
    )


@pytest.mark.parametrize("command", ["inspect", "detect", "map", "plan"])
def test_a_beam_energy_that_is_not_in_kev(command: str, hspy: Path, tmp_path: Path) -> None:
    out = () if command == "plan" else ("--out", tmp_path / "out")
    for energy, fix in (("200000", "--energy 200"), ("-1", "in keV, such as"), ("nan", "in keV, such as")):
        says = (f"--energy {energy} is no beam energy in keV", "between 1 and 1,000 keV", fix)
        refused(command, hspy, *out, "--energy", energy, untouched=tmp_path, says=says)


def test_the_real_bragg_file(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "py4dstem_bragg" / "braggdisks_cali.h5"
    said = succeeds("inspect", path, "--out", tmp_path, "--json").json
    assert said["peaks"] == 121_390
    assert said["peaks_a_position"]["50 %"] == 22
    shown = succeeds("inspect", path, "--out", tmp_path).flat
    assert "unknown; give it with --energy" in shown
    assert "unknown; give it with --step" in shown
    shown = succeeds("inspect", path, "--out", tmp_path, "--energy", "200").flat
    assert "beam energy 200 keV option --energy" in shown


def test_the_real_block_file(shared_data: Path, tmp_path: Path) -> None:
    said = succeeds(
        "inspect", shared_data / "rosettasciio_sped" / "test1.blo", "--out", tmp_path, "--json"
    ).json
    assert said["frames"] == {
        **dict.fromkeys(("empty", "not finite", "saturated"), 0),
        "good": 6,
        "with clipped pixels": 6,
    }
    assert said["direct_beam"]["center"] == pytest.approx([72.1, 73.2], abs=0.1)


def test_a_scan_of_one_value_everywhere(tmp_path: Path) -> None:
    path = scan_files.write_npy(tmp_path / "dark.npy", np.zeros_like(FRAMES))
    refused(
        "inspect",
        path,
        "--out",
        tmp_path,
        untouched=tmp_path,
        says=("no direct beam", "one value everywhere"),
    )


def test_no_beam_is_made_up_where_there_is_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(300.0, (6, 7, 48, 48)).astype(np.uint16)
    powder, _ = frames_of(powder_patterns(120), (10, 12), frame_shape=(192, 192))
    outside = np.ascontiguousarray(powder.frames.to_numpy()[:, :, :80, 110:190])
    for name, frames, why in (
        ("noise", noise, "positions have a peak: so few may be noise"),
        ("outside", outside, "agree on where"),
    ):
        path = scan_files.write_npy(tmp_path / f"{name}.npy", frames)
        said = succeeds("inspect", path, "--out", tmp_path, "--json").json
        assert said["direct_beam"] is None
        (note,) = said["notes"]
        assert note.startswith("'diffractory detect' would probably refuse this scan as it is: ")
        assert why in note
        refusal = diffractory(
            "detect", path, "--out", tmp_path / "scan.h5", "--pixel-size", "0.03", "--cluster", "inline"
        )
        assert refusal.code == 2
        assert why.split(":")[0] in refusal.stderr


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.blo").write_bytes(b"")
    (tmp_path / "text.mib").write_text("hello")
    for name, says in (
        ("absent.h5", "does not exist"),
        ("empty.blo", "is empty"),
        ("text.mib", "no known format"),
    ):
        refused("inspect", tmp_path / name, untouched=tmp_path, says=(says,))
    refused("inspect", tmp_path, untouched=tmp_path, says=("a folder and no Zarr store",))


def test_options_that_make_no_sense(hspy: Path, tmp_path: Path) -> None:
    for flag in ("--pixel-size", "--step", "--semiangle"):
        refused("inspect", hspy, flag, "-1", untouched=tmp_path, says=(flag, "above 0"))
    (tmp_path / "file").write_text("mine")
    refused(
        "inspect", hspy, "--out", tmp_path / "file", untouched=tmp_path, says=("is a file, not a folder",)
    )


def test_a_file_that_changes_while_it_is_read(
    hspy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = frame_blocks.read_block

    def read_and_touch(*arguments: object) -> object:
        os.utime(hspy, ns=(0, 1))
        return read(*arguments)

    monkeypatch.setattr("diffractory.scan.inspection.virtual_images.read_block", read_and_touch)
    answer = diffractory("inspect", hspy, "--out", tmp_path / "seen")
    assert answer.code == 2
    assert "scan.hspy changed while it was read" in answer.stderr
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("text", ["", "x", "80", "80x", "0x4", "4x0", "-1x4", "2.5x4", "4x4x4"])
def test_scan_shapes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ScanError, match="--scan-shape"):
        parse_scan_shape(text)


def test_scan_shapes() -> None:
    assert [parse_scan_shape(t) for t in (None, "80x58", " 80 × 58", "80,58")] == [None, *[(80, 58)] * 3]


def test_options_that_say_nothing_of_the_file_are_refused(
    hspy: Path, workshop: Workshop, tmp_path: Path
) -> None:
    says = ("holds frames, of which --center says nothing", "Leave it out")
    refused("inspect", hspy, "--center", "1", "2", "--out", tmp_path, untouched=tmp_path, says=says)
    options = ("--semiangle", "1", "--scan-shape", "2x3", "--out", tmp_path)
    says = ("holds Bragg peaks, of which --semiangle and --scan-shape say nothing", "Leave them out")
    refused("inspect", workshop.scan, *options, untouched=tmp_path, says=says)
