"""Frames are found again from what is noted beside peaks, and peaks lie in them where they were found."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import py4DSTEM
import pytest
from py4DSTEM.braggvectors import BraggVectors

import scan_files
from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_places import FramePlaces
from diffractory.scan.reading import example_frames
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.reading.example_frames import (
    named_frames,
    places_in,
    read_examples,
    record_of,
    recorded_frames,
)
from diffractory.scan.reading.frame_blocks import FrameSource

SHAPE, FRAME = (3, 4), (20, 24)
MATRIX = np.array([[41.0, 1.5], [1.5, 39.0]])
ORIGIN = np.stack([10.0 + 0.2 * np.arange(12), 12.0 - 0.3 * np.arange(12)], axis=1)
DTYPE = np.dtype([(name, np.float64) for name in ("qx", "qy", "intensity")])


def frames_array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (*SHAPE, *FRAME), dtype=np.uint8)


def in_pixels(position: int) -> np.ndarray:
    """Row and column of three peaks in a frame."""
    return ORIGIN[position] + np.array([[0.0, 0.0], [4.0, 1.0], [-3.0, 5.0]])


@pytest.fixture
def scan(tmp_path: Path) -> BraggScan:
    """As 'detect' writes and 'map' reads it, with the frames beside it."""
    file = tmp_path / "frames.npy"
    np.save(file, frames_array())
    q = [(in_pixels(i) - ORIGIN[i]) @ np.linalg.inv(MATRIX).T for i in range(12)]
    places = FramePlaces(ORIGIN, MATRIX, FRAME, 1.5)
    attrs = {"frames": str(file), "frames_file": record_of(FrameSource.of(file, dataset=None, step=2.0))}
    peaks = PeakTable.from_detected(q, [np.ones(3)] * 12)
    BraggScan(peaks, SHAPE, source=str(file), attrs=attrs, places=places).to_emd(tmp_path / "scan.h5")
    return read_bragg_scan(tmp_path / "scan.h5")


def on_frame(scan: BraggScan, position: int) -> np.ndarray:
    """Where the peaks of a position are drawn, in pixels of its frame."""
    assert scan.places is not None
    placed = scan.places.place(position, np.zeros(FRAME))
    return placed.origin + placed.on_detector(scan.peaks.pattern(position)[0]) / placed.pixel_size


def test_peaks_lie_where_they_were_found(scan: BraggScan) -> None:
    assert scan.places is not None
    assert scan.places.frame_shape == FRAME
    assert scan.places.disk_radius == 1.5
    for position in range(12):
        np.testing.assert_allclose(on_frame(scan, position), in_pixels(position), atol=1e-4)


def test_another_origin_and_pixel_size_move_no_peak(scan: BraggScan) -> None:
    changed = read_bragg_scan(Path(scan.source), pixel_size=0.02, center=(3.0, 5.0))
    assert not np.allclose(changed.peaks.q, scan.peaks.q)
    for position in (0, 7):
        np.testing.assert_allclose(on_frame(changed, position), in_pixels(position), atol=1e-4)


def test_only_the_frames_asked_for_are_read(scan: BraggScan, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, places = recorded_frames(scan), []
    read = example_frames.read_places
    monkeypatch.setattr(example_frames, "read_places", lambda *a: (places.extend(a[1]), read(*a))[1])
    found = read_examples(scan, frames, np.array([5, 11]))
    assert list(found) == [5, 11]
    assert [(rows.start, columns.start) for rows, columns in places] == [(1, 1), (2, 3)]
    assert all(rows.stop == rows.start + 1 and cols.stop == cols.start + 1 for rows, cols in places)
    for position, placed in found.items():
        np.testing.assert_array_equal(placed.pixels, frames_array().reshape(12, *FRAME)[position])
        np.testing.assert_allclose(placed.origin, ORIGIN[position], atol=1e-4)


def test_large_frames_are_binned(scan: BraggScan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_frames, "_LONGEST_SIDE", 10)
    placed = read_examples(scan, recorded_frames(scan), [5])[5]
    assert (placed.binning, placed.pixels.shape) == (3, (6, 8))
    assert placed.pixels[1, 2] == pytest.approx(frames_array()[1, 1, 3:6, 6:9].mean(), rel=1e-6)
    left, right, bottom, top = np.array(placed.extent) / placed.pixel_size
    assert (right - left, bottom - top) == (pytest.approx(24.0), pytest.approx(18.0))


def test_frames_beside_the_peaks_are_found(scan: BraggScan, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("frames.npy", "scan.h5"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    moved = read_bragg_scan(tmp_path / "elsewhere" / "scan.h5")
    assert Path(recorded_frames(moved).source) == tmp_path / "elsewhere" / "frames.npy"


def test_options_of_reading_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "stack.npy"
    np.save(file, frames_array().reshape(12, *FRAME))
    record = record_of(FrameSource.of(file, scan_shape=SHAPE, pixel_size=0.1, dataset=None))
    assert record == {
        "path": str(file), "files": 1, "bytes": file.stat().st_size, "scan_shape": SHAPE
    }  # fmt: skip


def gone(folder: Path) -> None:
    (folder / "frames.npy").unlink()


def changed(folder: Path) -> None:
    np.save(folder / "frames.npy", frames_array()[:2])


def damaged(folder: Path) -> None:
    size = (folder / "frames.npy").stat().st_size
    (folder / "frames.npy").write_bytes(b"\x93NUMPY" + bytes(size - 6))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (gone, "frames.npy is neither where it was nor beside the file of peaks"),
        (changed, "frames.npy has changed since the peaks were found in it"),
        (damaged, "cannot be read"),
    ],
)
def test_frames_that_are_not_what_they_were(
    scan: BraggScan, tmp_path: Path, what: Callable[[Path], None], reason: str
) -> None:
    what(tmp_path)
    with pytest.raises(ScanError, match=reason):
        recorded_frames(scan)


def test_peaks_without_frames(scan: BraggScan) -> None:
    with pytest.raises(ScanError, match="notes no recorded frames"):
        recorded_frames(BraggScan(scan.peaks, SHAPE))
    old = BraggScan(scan.peaks, SHAPE, attrs=scan.attrs, source=scan.source)
    with pytest.raises(ScanError, match="does not tell where in a frame"):
        recorded_frames(old)


def test_named_frames_in_another_format(scan: BraggScan, tmp_path: Path) -> None:
    for name, array in (("stack.npy", frames_array().reshape(12, *FRAME)), ("scan.npy", frames_array())):
        np.save(tmp_path / name, array)
        read = read_examples(scan, named_frames(scan, tmp_path / name), [6])
        np.testing.assert_array_equal(read[6].pixels, frames_array()[1, 2])
    hspy = scan_files.write_hspy(tmp_path / "scan.hspy", frames_array())
    assert named_frames(scan, hspy).shape == SHAPE


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((4, 3, *FRAME), "has 4 × 3 positions, the peaks were found in 3 × 4"),
        ((*SHAPE, 24, 20), "has 24 × 20 pixels a frame, the peaks were found in 20 × 24"),
        ((7, *FRAME), "is a stack of 7 frames"),
    ],
)
def test_named_frames_that_do_not_fit(
    scan: BraggScan, tmp_path: Path, shape: tuple[int, ...], told: str
) -> None:
    np.save(tmp_path / "other.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ScanError, match=re.escape(told)):
        named_frames(scan, tmp_path / "other.npy")


def test_named_frames_that_do_not_exist(scan: BraggScan, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"--frames .*none\.npy does not exist"):
        named_frames(scan, tmp_path / "none.npy")


@pytest.mark.parametrize("varies", [False, True])
def test_peaks_of_py4dstem_lie_at_their_own_pixels(tmp_path: Path, varies: bool) -> None:
    vectors = BraggVectors(SHAPE, FRAME, name="bragg")
    for position, (y, x) in enumerate(np.ndindex(*SHAPE)):
        points = np.zeros(3, DTYPE)
        points["qx"], points["qy"] = in_pixels(position).T
        points["intensity"] = [3.0, 2.0, 1.0]
        vectors._v_uncal[y, x].add(points)
    calibration = vectors.calibration
    calibration.set_origin(tuple(ORIGIN.T.reshape(2, *SHAPE)))
    stretch = 1.06 + 0.001 * np.arange(12.0).reshape(SHAPE) if varies else 1.06
    calibration.set_ellipse(
        (stretch, np.full(SHAPE, 1.0) if varies else 1.0, np.full(SHAPE, 0.4) if varies else 0.4)
    )
    calibration.set_QR_rotation(0.3)
    calibration.set_QR_flip(True)
    calibration.set_Q_pixel_size(0.02)
    calibration.set_Q_pixel_units("A^-1")
    py4DSTEM.save(str(tmp_path / "bragg.h5"), vectors)
    scan = read_bragg_scan(tmp_path / "bragg.h5")
    np.save(tmp_path / "frames.npy", frames_array())
    assert places_in(scan, named_frames(scan, tmp_path / "frames.npy")).frame_shape == FRAME
    for position in range(12):
        np.testing.assert_allclose(on_frame(scan, position), in_pixels(position), atol=1e-9)
