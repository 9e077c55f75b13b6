"""`diffractory detect` from a file of frames to peaks, pictures and a map's input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from cli_runs import Answer, diffractory, fingerprint, refused, succeeds
from diffractory.cli import detect as command
from diffractory.cli import mapping
from diffractory.errors import SpecError
from diffractory.report import map_report
from diffractory.scan.detection.detect import BlockPeaks, DetectBlocks
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.reading.frame_blocks import FrameBlock
from diffractory.units import electron_wavelength
from frame_scans import POWDER_A, frames_of, lattice_patterns, powder_patterns
from scan_files import PIXEL, write_hspy

INLINE = ("--cluster", "inline")
SHAPE = (10, 12)
PICTURES = ("template", "examples", "threshold", "origin", "ellipse", "rings", "bragg-map", "frames")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scan, _ = frames_of(powder_patterns(120), SHAPE, drift=4.0, ellipticity=0.03, ellipse_angle=40.0)
    array = scan.frames.to_numpy()
    array[3, 4] = 0
    path = tmp_path_factory.mktemp("frames") / "frames.npy"
    np.save(path, array)
    return path


@pytest.fixture(scope="module")
def done(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    out = tmp_path_factory.mktemp("out") / "scan.h5"
    known = ("--lattice", f"{POWDER_A}:F", "--ellipse", "fit", "--energy", "200", "--step", "20")
    return out, succeeds("detect", frames, "--out", out, *known, *INLINE)


def test_it_says_what_it_chose_and_where_to_go_on(done: tuple[Path, Answer]) -> None:
    out, answer = done
    for words in (
        "disk radius", "direct beam of the mean frame", "1.5 disk radii", "neighbouring frames",
        "119 good, 1 empty", f"(lattice {POWDER_A}:F: ", "(fit)",
        f"next: diffractory map {out}",
    ):  # fmt: skip
        assert words in answer.flat, words
    size = re.search(r"pixel size: ([\d.]+)", answer.flat)
    assert size is not None
    assert float(size[1]) == pytest.approx(0.03, rel=1e-3)


def test_it_writes_a_calibrated_scan(done: tuple[Path, Answer]) -> None:
    scan = read_bragg_scan(done[0])
    assert (scan.shape, scan.step, scan.energy_ev) == (SHAPE, 20.0, 200e3)
    assert scan.status is not None
    assert np.flatnonzero(scan.status).tolist() == [3 * 12 + 4]
    assert scan.peaks.counts[3 * 12 + 4] == 0
    provenance = scan.attrs["provenance"]
    assert provenance["calibration"]["pixel_size"] == pytest.approx(0.03, rel=0.002)
    assert provenance["detection"]["min_significance"] > 4.0


def test_it_draws_every_step(done: tuple[Path, Answer]) -> None:
    folder = done[0].with_name("scan-detection")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{name}.png" for name in PICTURES), "detection.json"]
    )
    assert json.loads((folder / "detection.json").read_text())["calibration"]["ellipse"]["from"] == "fit"


def test_nothing_is_left_behind(done: tuple[Path, Answer]) -> None:
    assert {path.name for path in done[0].parent.iterdir()} == {"scan.h5", "scan-detection"}


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Of a report draw the example patterns alone, and keep that figure."""
    drawn: list[Figure] = []

    def draw(figure: Callable[[], Figure], path: Path) -> None:
        if path.name == "examples":
            drawn.append(figure())
        path.with_suffix(".png").write_bytes(b"")

    monkeypatch.setattr(map_report, "_draw", draw)
    return drawn


def test_example_patterns_are_recorded_frames_with_circles_on_their_disks(
    frames: Path, done: tuple[Path, Answer], tmp_path: Path, examples: list[Figure]
) -> None:
    note = json.loads((done[0].with_name("scan-detection") / "detection.json").read_text())["frames_file"]
    assert note == {"path": str(frames), "files": 1, "bytes": frames.stat().st_size}
    succeeds("map", done[0], "--out", tmp_path, *INLINE)
    assert "Recorded frames (of frames.npy)" in (tmp_path / "map.html").read_text()
    recorded = np.load(frames)
    checked = 0
    for axes in examples[0].axes:
        (words,) = (
            found for text in axes.texts if (found := re.match(r"y (\d+), x (\d+): ", text.get_text()))
        )
        pixels = recorded[int(words[1]), int(words[2])]
        (image,) = axes.images
        shown = np.asarray(image.get_array())
        # The scale is clipped at both ends, and changes no order.
        assert np.all(np.diff(shown.ravel()[np.argsort(pixels, axis=None)]) >= -1e-6)
        left, right, bottom, top = image.get_extent()
        at = np.asarray(axes.collections[0].get_offsets())
        row = np.rint((at[:, 1] - top) / (bottom - top) * pixels.shape[0] - 0.5).astype(int)
        column = np.rint((at[:, 0] - left) / (right - left) * pixels.shape[1] - 0.5).astype(int)
        assert np.abs(at).min(axis=0).max() < 0.03
        for y, x in zip(row, column, strict=True):
            around = pixels[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9]
            # A disk has a radius of 3 pixels.
            assert pixels[y - 1 : y + 2, x - 1 : x + 2].mean() > 1.5 * np.median(around)
            checked += 1
    assert checked >= 4 * len(examples[0].axes)


def test_frames_that_have_gone_cost_the_map_nothing(
    frames: Path, done: tuple[Path, Answer], tmp_path: Path, examples: list[Figure]
) -> None:
    scan, here = tmp_path / "scan.h5", tmp_path / "frames.npy"
    np.save(here, np.load(frames))
    succeeds("detect", here, "--out", scan, "--pixel-size", "0.03", *INLINE)
    np.save(here, np.load(frames)[:-1])
    succeeds("map", scan, "--out", tmp_path / "maps", *INLINE)
    page = (tmp_path / "maps" / "map.html").read_text()
    assert "their frames are not shown, as frames.npy has changed since the peaks were found in it." in page
    assert not any(axes.images for axes in examples[0].axes)
    # The same frames under another name are taken where somebody names them.
    succeeds("map", scan, "--out", tmp_path / "maps", "--frames", frames, *INLINE)
    assert all(axes.images for axes in examples[1].axes)


def test_named_frames_of_another_scan_are_refused_before_the_work(
    done: tuple[Path, Answer], frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "predict_scan", lambda *_, **__: pytest.fail("the work has begun"))
    other = tmp_path / "other.npy"
    np.save(other, np.load(frames)[:, :-1])
    for file, told in (
        (other, "other.npy has 10 × 11 positions, the peaks were found in 10 × 12"),
        (tmp_path / "none.npy", "none.npy does not exist"),
    ):
        command_line = ("map", done[0], "--out", tmp_path / "maps", "--frames", file, *INLINE)
        refused(*command_line, untouched=tmp_path, says=(told,))
    command_line = ("map", done[0], "--out", tmp_path / "maps", "--frames", frames, "--no-report", *INLINE)
    refused(*command_line, untouched=tmp_path, says=("--frames and --no-report were both given",))


def test_json(frames: Path, tmp_path: Path) -> None:
    options = ("--pixel-size", "0.03", "--disk-radius", "3", "--min-spacing", "6", "--json")
    report = succeeds("detect", frames, "--out", tmp_path / "scan.h5", *options, *INLINE).json
    assert report["positions"] == 120
    assert report["detection"]["min_spacing"] == 6.0
    assert report["disk_radius"] == 3.0
    assert report["calibration"]["pixel_size_from"] == "stated"
    assert all(Path(path).is_file() for path in report["pictures"])


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: the eight pictures take longer than the detection, and one test looks at them."""
    monkeypatch.setattr(command, "write_pictures", lambda *_: [])


@pytest.mark.usefixtures("no_pictures")
def test_workers_find_the_same(frames: Path, tmp_path: Path) -> None:
    files, maps = [], []
    for name, where in (("a", INLINE), ("b", ("--cluster", "local", "--workers", "2"))):
        scan, folder = tmp_path / f"{name}.h5", tmp_path / name
        succeeds("detect", frames, "--out", scan, "--pixel-size", "0.03", *where)
        files.append(read_bragg_scan(scan).peaks)
        mapped = succeeds("map", scan, "--out", folder, "--no-report", *where)
        assert "1 bad frame)" in mapped.flat
        assert "frames flagged when peaks were found: 1 empty" in mapped.flat
        maps.append(xr.load_dataset(folder / "map.zarr", engine="zarr"))
    np.testing.assert_array_equal(files[0].offsets, files[1].offsets)
    np.testing.assert_array_equal(files[0].q, files[1].q)
    np.testing.assert_array_equal(files[0].intensity, files[1].intensity)
    assert maps[0].equals(maps[1])


def test_it_goes_on_where_it_was_broken_off(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "scan.h5", []
    whole = DetectBlocks.__call__

    def breaks(self: DetectBlocks, block: FrameBlock) -> BlockPeaks:
        calls.append(block.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, block)

    monkeypatch.setattr(DetectBlocks, "__call__", breaks)
    arguments = ("detect", frames, "--out", out, "--pixel-size", "0.03", *INLINE)
    answer = diffractory(*arguments)
    assert answer.code == 130
    assert "run the same command again" in answer.stderr
    assert not out.exists()
    assert list(tmp_path.glob(".scan.h5.parts-*/*.npz"))
    succeeds(*arguments)
    assert len(set(calls)) == len(calls) - 1  # only the one that was broken off was begun twice
    assert {path.name for path in tmp_path.iterdir()} == {"scan.h5", "scan-detection"}


def test_a_file_that_changes_meanwhile(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moving = tmp_path / "frames.npy"
    moving.write_bytes(frames.read_bytes())
    whole = command.detect_frames

    def changed(*arguments: Any) -> Any:
        found = whole(*arguments)
        with moving.open("ab") as stream:
            stream.write(b"more")
        return found

    monkeypatch.setattr(command, "detect_frames", changed)
    out = tmp_path / "out" / "scan.h5"
    answer = diffractory("detect", moving, "--out", out, "--pixel-size", "0.03", *INLINE)
    assert answer.code == 2
    assert "changed while it was read" in answer.stderr
    assert fingerprint(out.parent) == {}


@pytest.mark.usefixtures("no_pictures")
def test_a_material_from_a_cif_file(frames: Path, tmp_path: Path) -> None:
    cif = tmp_path / "al.cif"
    cif.write_text(
        "data_Al\n_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
        + "".join(f"_cell_length_{axis} {POWDER_A}\n" for axis in "abc")
        + "".join(f"_cell_angle_{name} 90\n" for name in ("alpha", "beta", "gamma"))
        + "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\nAl1 Al 0 0 0\n"
    )
    options = ("--material", cif, "--pixel-size", "0.032", "--ellipse", "1.03,40", "--json", *INLINE)
    report = succeeds("detect", frames, "--out", tmp_path / "scan.h5", *options).json
    assert report["calibration"]["pixel_size"] == pytest.approx(0.03, rel=0.002)
    assert report["calibration"]["ellipse"]["from"] == "option"


@pytest.mark.usefixtures("no_pictures")
def test_the_direct_beam_tells_the_pixel_size_whatever_the_file_states(tmp_path: Path) -> None:
    scan, _ = frames_of(lattice_patterns(6), (3, 4), disk_radius=5.0)
    semiangle = 1e3 * np.arcsin(5.0 * 0.03 * electron_wavelength(200e3))
    frames = write_hspy(tmp_path / "frames.hspy", scan.frames.to_numpy())
    beam = ("--pixel-size", "beam", "--semiangle", semiangle, "--energy", "200")
    arguments = ("detect", frames, "--out", tmp_path / "scan.h5", *beam, *INLINE)
    report = succeeds(*arguments, "--json").json
    calibration = report["calibration"]
    assert calibration["pixel_size"] == pytest.approx(0.03, rel=0.05)
    assert calibration["pixel_size_from"] == "direct beam"
    assert calibration["pixel_size_stated"] == PIXEL
    assert "a few per cent" in calibration["pixel_size_uncertainty"]
    assert [doubt for doubt in report["doubts"] if "--material" in doubt]
    answer = succeeds(*arguments)
    assert "(direct beam)" in answer.flat
    assert "a few per cent" in answer.flat


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("beam", "beam"), ("0.03", 0.03), ("3e-2", 0.03), ("-1", -1.0)]
)
def test_pixel_size_option(text: str | None, value: object) -> None:
    assert command.parse_pixel_size(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("none", None), ("fit", "fit"), ("1.02,35", (1.02, 35.0))]
)
def test_ellipse_option(text: str | None, value: object) -> None:
    assert command.parse_ellipse(text) == value


@pytest.mark.parametrize("text", ["round", "1.02", "1,2,3", ""])
def test_ellipse_option_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SpecError, match="--ellipse"):
        command.parse_ellipse(text)


@pytest.mark.usefixtures("no_pictures")
def test_parts_of_another_detection_with_a_like_name_stay(frames: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / ".scan1.h5.parts-abc", tmp_path / ".scan[1].h5.parts-abc"
    theirs.mkdir()
    ours.mkdir()
    succeeds("detect", frames, "--out", tmp_path / "scan[1].h5", "--pixel-size", "0.03", *INLINE)
    assert theirs.is_dir()
    assert not ours.exists()


@pytest.mark.usefixtures("no_pictures")
def test_another_result_in_its_place_is_spoken_of(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.h5"
    first = ("detect", frames, "--out", out, "--pixel-size", "0.03", "--step", "20", *INLINE)
    assert succeeds(*first, "--json").json["replaced"] == {}
    assert succeeds(*first, "--json").json["replaced"] == {}  # the same again
    answer = succeeds(*first, "--energy", "200", "--min-spacing", "9", "--step", "40")
    said = answer.flat.partition("earlier result, which was replaced; what differs: ")[2]
    for words in ("detection.min_spacing ", " → 9,", "energy_ev None → 200000", "step 20 → 40"):
        assert words in said, said
    answer = succeeds(*first, "--json")
    assert answer.json["replaced"]["energy_ev"] == [200e3, None]


def test_a_file_of_another_program_is_not_replaced(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.h5"
    out.write_bytes(b"mine")
    says = ("was not made by 'diffractory detect'", "Name another --out")
    refused("detect", frames, "--out", out, "--pixel-size", "0.03", *INLINE, untouched=tmp_path, says=says)


@pytest.mark.usefixtures("no_pictures")
def test_a_given_centre_has_no_residual(frames: Path, tmp_path: Path) -> None:
    given = ("--pixel-size", "0.03", "--center", "47.5", "47.5")
    answer = succeeds("detect", frames, "--out", tmp_path / "scan.h5", *given, *INLINE)
    assert "direct beam: row 47.50, column 47.50 (given) " in answer.flat
    assert "None" not in answer.flat
