import numpy as np
import pytest
from matplotlib.colors import LogNorm

from diffractory.patterns.peak_table import PeakTable
from diffractory.report.scan_figures import figure_of_frames, figure_of_peaks
from diffractory.report.style import save_figure
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.inspection.bragg_images import bragg_vector_map, peak_count_map
from diffractory.scan.inspection.virtual_images import DirectBeam, ScanImages, block_images
from diffractory.scan.reading.frame_blocks import FrameBlock

BEAM = DirectBeam((7.0, 9.0), 2.0)


def images(shape=(6, 5), frame=(16, 20), blank=0):
    rows, columns = np.indices(frame)
    frames = np.random.default_rng(0).poisson(3.0, (*shape, *frame))
    frames += 500 * (np.hypot(rows - 7, columns - 9) <= 2)
    frames.reshape(-1, *frame)[:blank] = 0
    result = ScanImages(shape, frame)
    result.add(block_images(frames, FrameBlock(0, (0, shape[0]), (0, shape[1])), BEAM.masks(frame)))
    return result


def scan(step=None):
    patterns = [np.array([[0.0, 0.01], [0.5, -0.2], [-0.5, 0.2]])[:n] for n in (3, 2, 1, 0, 3, 3)]
    table = PeakTable.from_detected(patterns, [np.arange(1.0, len(q) + 1.0) for q in patterns])
    return BraggScan(table, (2, 3), step)


def texts(figure):
    return " | ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def assert_drawn(figure, path):
    save_figure(figure, path, dpi=60)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_frames_are_drawn_with_scale_bars(tmp_path):
    figure = figure_of_frames(images(), BEAM, 0.02, 30.0)
    written = texts(figure)
    assert "0.1 Å⁻¹" in written
    assert "2 nm" in written
    assert "uncalibrated" not in written
    assert "Mean of 30 good frames" in written
    left, right = figure.axes[:2]
    assert isinstance(left.images[0].norm, LogNorm)
    np.testing.assert_allclose(left.images[0].get_array(), images().mean_pattern)
    np.testing.assert_allclose(right.images[0].get_array(), images().dark)
    rings = [patch.get_radius() for patch in left.patches if hasattr(patch, "get_radius")]
    assert rings == [BEAM.radius, BEAM.dark_from]
    assert left.get_xlim() == (-0.5, 19.5)
    assert_drawn(figure, tmp_path / "frames.png")


def test_no_ring_is_drawn_around_what_is_no_beam():
    figure = figure_of_frames(images(), BEAM, beam_is_seen=False)
    assert not figure.axes[0].patches
    assert "away from the brightest place" in texts(figure)
    assert "ring" not in texts(figure)


def test_unknown_sizes_are_drawn_in_pixels():
    written = texts(figure_of_frames(images(), BEAM))
    assert "Å⁻¹" not in written
    assert " nm" not in written
    assert "detector columns (uncalibrated)" in written
    assert "scan x (uncalibrated)" in written


def test_bad_frames_are_marked():
    figure = figure_of_frames(images(blank=3), BEAM)
    assert "(3 bad frames orange)" in texts(figure)
    assert np.ma.count_masked(figure.axes[1].images[0].get_array()) == 3


@pytest.mark.parametrize(("shape", "frame"), [((1, 1), (2, 2)), ((1, 40), (16, 4)), ((40, 1), (4, 64))])
@pytest.mark.parametrize("step", [None, 0.3, 3000.0])
def test_scans_of_any_shape(tmp_path, shape, frame, step):
    assert_drawn(figure_of_frames(images(shape, frame), BEAM, step, step), tmp_path / "frames.png")


def test_nothing_but_bad_frames(tmp_path):
    figure = figure_of_frames(images(blank=30), BEAM, 0.02, 30.0)
    assert "Mean of 0 good frames" in texts(figure)
    assert_drawn(figure, tmp_path / "frames.png")


def test_peaks_are_drawn_beside_their_number(tmp_path):
    figure = figure_of_peaks(scan(25.0))
    written = texts(figure)
    assert "Bragg vector map of 12 peaks" in written
    assert "(grey: 1 without)" in written
    assert "0.2 Å⁻¹" in written
    assert "2 nm" in written
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(shown, 0.0), [[3, 2, 1], [0, 3, 3]])
    assert_drawn(figure, tmp_path / "peaks.png")


def test_the_vector_map_holds_all_intensity_but_the_direct_beams():
    image, reach = bragg_vector_map(scan(), pixels=50)
    assert reach == pytest.approx(1.05 * 0.5)
    assert image.sum() == pytest.approx(4 * 2.0 + 3 * 3.0)
    row, column = np.unravel_index(image.argmax(), image.shape)
    # qx runs down, qy to the right: the brightest spot is at (-0.5, 0.2).
    assert row < 25 < column
    assert peak_count_map(scan()).tolist() == [[3, 2, 1], [0, 3, 3]]


def test_a_scan_of_direct_beams_only(tmp_path):
    table = PeakTable.from_detected([np.zeros((1, 2))] * 4, [np.ones(1)] * 4)
    assert_drawn(figure_of_peaks(BraggScan(table, (2, 2))), tmp_path / "peaks.png")
