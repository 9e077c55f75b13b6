import dask
import numpy as np
import pytest

from diffractory.errors import ScanError, SpecError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.synthetic.frames import render_frame, score_peaks, synthetic_frames
from diffractory.specs import FrameEffectsSpec
from frame_scans import frames_of, lattice_patterns

SHAPE = (3, 4)


def make(**effects):
    return frames_of(lattice_patterns(4), SHAPE, **effects)


def test_frames_are_counts_on_the_axes_of_a_scan():
    scan, _ = make()
    assert scan.frames.shape == (3, 4, 96, 96)
    assert scan.frames.dtype == np.uint16
    assert (scan.pixel_size, scan.step, scan.energy_ev) == (0.03, 20.0, 200e3)


def test_nothing_is_rendered_before_it_is_asked_for(monkeypatch):
    scan, _ = make()
    monkeypatch.setattr("diffractory.scan.synthetic.frames.render_frame", lambda *_: pytest.fail("rendered"))
    assert dask.is_dask_collection(scan.frames.data)


def test_same_seed_same_frames_however_they_are_cut(monkeypatch):
    whole = make()[0].frames.to_numpy()
    monkeypatch.setattr("diffractory.scan.synthetic.frames._BLOCK_BYTES", 2 * 96 * 96 * 3)
    cut, _ = make()
    assert len(cut.frames.data.chunks[1]) > 1
    np.testing.assert_array_equal(cut.frames.to_numpy(), whole)
    np.testing.assert_array_equal(cut.frames[1, 2].to_numpy(), whole[1, 2])


def test_another_seed_gives_other_noise():
    assert not np.array_equal(
        make()[0].frames[0, 0], frames_of(lattice_patterns(4), SHAPE, seed=1)[0].frames[0, 0]
    )


def test_a_disk_holds_its_electrons_at_its_place():
    effects = FrameEffectsSpec(frame_shape=(64, 64), disk_radius=4.0, electrons=1e4, background=0.0)
    place = np.array([[30.3, 21.6]])
    frame = render_frame(place, np.array([0.25]), place[0], effects)
    assert frame.sum() == pytest.approx(2500.0, rel=0.01)
    rows, columns = np.indices(frame.shape)
    middle = [(frame * rows).sum() / frame.sum(), (frame * columns).sum() / frame.sum()]
    np.testing.assert_allclose(middle, place[0], atol=0.01)
    assert (frame > 0.5 * frame.max()).sum() == pytest.approx(np.pi * 16.0, rel=0.08)


def test_background_holds_its_share_and_surrounds_the_direct_beam():
    effects = FrameEffectsSpec(frame_shape=(200, 220), electrons=1e4, background=0.4, background_width=0.4)
    center = np.array([90.0, 120.0])
    frame = render_frame(np.empty((0, 2)), np.empty(0), center, effects)
    assert frame.sum() == pytest.approx(4000.0, rel=0.02)
    assert np.unravel_index(frame.argmax(), frame.shape) == (90, 120)


def test_without_noise_frames_are_the_expectation_of_those_with_it():
    clean = make(poisson=False)[0].frames.to_numpy()
    noisy = make()[0].frames.to_numpy().astype(float)
    assert clean.dtype == np.float32
    bright = clean > 5.0
    z = (noisy - clean)[bright] / np.sqrt(clean[bright])
    assert abs(z.mean()) < 0.02
    assert z.std() == pytest.approx(1.0, abs=0.03)


def test_truth_follows_drift_and_ellipse():
    _, truth = make(drift=4.0, ellipticity=0.1, ellipse_angle=30.0)
    flat = truth.center.reshape(-1, 2)
    spread = np.hypot(*(flat[:, None] - flat[None]).transpose(2, 0, 1)).max()
    assert spread == pytest.approx(4.0, abs=1e-9)
    long, short = np.linalg.svd(truth.distortion)[1]
    assert long / short == pytest.approx(1.1)
    along = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    np.testing.assert_allclose(truth.distortion @ along, long * along)
    origins = np.repeat(flat, truth.peaks.counts, axis=0)
    back = (truth.pixels - origins) @ np.linalg.inv(truth.distortion).T * 0.03
    np.testing.assert_allclose(back, truth.peaks.q, atol=1e-12)


def test_hot_pixels_always_show_the_same():
    scan, truth = make(hot_pixels=7, hot_value=12345.0)
    assert truth.hot.sum() == 7
    assert (scan.frames.to_numpy()[:, :, truth.hot] == 12345).all()


def test_counts_end_at_16_bits():
    scan, _ = make(electrons=1e9, hot_pixels=1, hot_value=1e6)
    assert scan.frames.to_numpy().max() == 65535


def test_bad_input_is_refused():
    table = PeakTable.from_detected([np.zeros((1, 2))], [np.array([-1.0])])
    with pytest.raises(ScanError, match="0 or above"):
        synthetic_frames(BraggScan(table, (1, 1)), FrameEffectsSpec(), 0)
    with pytest.raises(ScanError, match="seed"):
        frames_of(lattice_patterns(1), (1, 1), seed=-1)
    with pytest.raises(SpecError, match="8 × 8"):
        FrameEffectsSpec(frame_shape=(4, 100))


def test_scores_of_peaks():
    _, truth = make()
    table = PeakTable(truth.pixels, truth.peaks.intensity, truth.peaks.offsets, truth.peaks.direct)
    perfect = score_peaks(table, truth, weakest=1e-4)
    assert (perfect["recall"], perfect["precision"], perfect["error_90"]) == (1.0, 1.0, 0.0)
    moved = PeakTable(truth.pixels + np.array([0.3, 0.4]), table.intensity, table.offsets, table.direct)
    assert score_peaks(moved, truth, 1e-4)["median_error"] == pytest.approx(0.5)
    far = PeakTable(truth.pixels + 500.0, table.intensity, table.offsets, table.direct)
    wrong = score_peaks(far, truth, 1e-4)
    assert (wrong["recall"], wrong["precision"], wrong["median_error"]) == (0.0, 0.0, None)
    assert wrong["false_a_frame"] == len(table.intensity) / len(table)
    none = PeakTable.from_lists(
        [np.empty((0, 2))] * len(table), [np.empty(0)] * len(table), [-1] * len(table)
    )
    assert score_peaks(none, truth, 1e-4)["precision"] is None
    with pytest.raises(ScanError, match="truth of"):
        score_peaks(table.take([0]), truth, 1e-4)
