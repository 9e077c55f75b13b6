import numpy as np
import pytest

from diffractory.errors import ScanError, SpecError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.disk_detection import (
    Correlator,
    DiskKernel,
    detect_block,
    find_maxima,
    local_maxima,
)
from diffractory.scan.detection.parameters import choose_parameters
from diffractory.scan.detection.probe_template import disk_template, kernel_of
from diffractory.scan.synthetic.frames import score_peaks
from diffractory.specs import DetectionSpec
from frame_scans import frames_of, lattice_patterns

SHAPE = (96, 96)
KERNEL = kernel_of(disk_template(SHAPE, 3.0, "test"), 2.0)


def detected(spec=None, n=10, **effects):
    scan, truth = frames_of(lattice_patterns(n), (n, 2), frame_shape=SHAPE, **effects)
    frames = scan.frames.to_numpy().reshape(-1, *SHAPE)
    if spec is None:
        spec, _ = choose_parameters(frames[0::2], frames[1::2], KERNEL, {})
    return detect_block(frames, KERNEL, spec), truth


def test_without_noise_all_disks_are_found_to_a_few_hundredths_of_a_pixel():
    found, truth = detected(electrons=1e6, poisson=False)
    result = score_peaks(found, truth, weakest=3e-4)
    assert result["recall"] > 0.995
    assert result["precision"] > 0.995
    assert result["median_error"] < 0.03
    assert result["error_90"] < 0.1


def test_with_noise_clear_disks_are_found_and_next_to_no_false_ones():
    found, truth = detected(electrons=1e5)
    result = score_peaks(found, truth, weakest=1e-3)
    assert result["recall"] > 0.98
    assert result["false_a_frame"] < 0.2
    assert result["median_error"] < 0.25


def test_few_electrons_lose_weak_disks_not_the_truth():
    found, truth = detected(electrons=1e4)
    result = score_peaks(found, truth, weakest=3e-3)
    assert result["recall"] > 0.8
    assert result["false_a_frame"] < 0.2


def test_a_single_disk_lies_where_it_was_put():
    scan, _ = frames_of(
        PeakTable.from_detected([np.zeros((1, 2))], [np.ones(1)]), (1, 1), center=(40.37, 55.81),
        frame_shape=SHAPE, poisson=False, background=0.0,
    )  # fmt: skip
    found = detect_block(scan.frames.to_numpy()[0], KERNEL, DetectionSpec(min_relative_intensity=0.1))
    np.testing.assert_allclose(found.q, [[40.37, 55.81]], atol=0.01)
    assert found.direct.tolist() == [-1]


def test_intensity_is_proportional_to_the_disks():
    bright, _ = detected(DetectionSpec(min_spacing=5.0, min_relative_intensity=0.01), poisson=False)
    dim, _ = detected(
        DetectionSpec(min_spacing=5.0, min_relative_intensity=0.01), poisson=False, electrons=2e4
    )
    np.testing.assert_allclose(bright.intensity, 5.0 * dim.intensity, rtol=1e-4)


def test_peaks_do_not_depend_on_the_block():
    scan, _ = frames_of(lattice_patterns(5), (5, 1), frame_shape=SHAPE)
    frames = scan.frames.to_numpy().reshape(-1, *SHAPE)
    spec = DetectionSpec(min_spacing=4.0, min_relative_intensity=0.002, min_significance=4.0, noise_gain=1.0)
    whole = detect_block(frames, KERNEL, spec)
    parts = PeakTable.concatenate([detect_block(frames[i : i + 1], KERNEL, spec) for i in (0, 1, 2, 3, 4)])
    np.testing.assert_array_equal(whole.offsets, parts.offsets)
    np.testing.assert_array_equal(whole.q, parts.q)
    np.testing.assert_array_equal(whole.intensity, parts.intensity)


def test_many_peaks_are_refined_alike_in_several_products(monkeypatch):
    spec = DetectionSpec(min_spacing=2.0)
    whole, _ = detected(spec, n=1)
    assert whole.counts.min() > 10
    monkeypatch.setattr("diffractory.scan.detection.disk_detection._PEAKS_AT_ONCE", 3)
    parts, _ = detected(spec, n=1)
    np.testing.assert_allclose(whole.q, parts.q, atol=1e-9)


def test_filters():
    spec = DetectionSpec(min_spacing=4.0, min_relative_intensity=0.002)
    all_peaks, _ = detected(spec, n=2)
    assert np.all(np.diff(all_peaks.pattern(0)[1]) <= 0.0)
    few, _ = detected(spec.model_copy(update={"max_peaks": 3}), n=2)
    assert few.counts.tolist() == [3] * 4
    inner, _ = detected(spec.model_copy(update={"edge_boundary": 20}), n=2)
    assert inner.q.min() > 19.0
    assert inner.q.max() < 76.0
    strong, _ = detected(spec.model_copy(update={"min_absolute_intensity": 5.0}), n=2)
    assert 0 < len(strong.intensity) < len(all_peaks.intensity)
    assert strong.intensity.min() > 4.5
    wide, _ = detected(spec.model_copy(update={"min_spacing": 30.0}), n=2)
    q, _ = wide.pattern(0)
    distances = np.hypot(*(q[:, None] - q[None]).transpose(2, 0, 1))
    assert distances[distances > 0].min() > 29.0


def test_significance_is_the_correlation_over_its_noise():
    frame = np.random.default_rng(0).poisson(4.0, SHAPE)
    spec = DetectionSpec(min_significance=1.0, noise_gain=1.0)
    correlation, deviation = Correlator(KERNEL, spec).with_noise(frame)
    signed = Correlator(KERNEL, spec).signed(frame)
    assert deviation is not None
    assert (signed / deviation).std() == pytest.approx(1.0, abs=0.1)
    assert abs(signed.mean()) < 0.05 * signed.std()
    np.testing.assert_allclose(correlation.values, np.maximum(signed, 0.0), atol=1e-12)
    threshold = spec.model_copy(update={"min_significance": 3.0, "subpixel": "pixel"})
    maxima = find_maxima(correlation, threshold, deviation)
    rows, columns = maxima["x"].astype(int), maxima["y"].astype(int)
    assert np.all(maxima["intensity"] >= 3.0 * deviation[rows, columns])
    assert 0 < len(maxima) < len(find_maxima(correlation, spec, deviation))


def test_plateaus_and_edges_of_local_maxima():
    values = np.zeros((9, 9))
    values[4, 4] = values[4, 5] = 2.0  # of two equal neighbours one counts
    values[0, 0] = values[8, 4] = 5.0
    rows, columns = local_maxima(values, 1)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(4, 4)]


def test_frames_without_anything_have_no_peaks():
    found = detect_block(np.zeros((2, *SHAPE)), KERNEL, DetectionSpec(corr_power=0.5))
    assert found.counts.tolist() == [0, 0]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ScanError, match="kernel of shape"):
        detect_block(np.zeros((1, 10, 10)), KERNEL, DetectionSpec())
    with pytest.raises(ScanError, match="three dimensions"):
        detect_block(np.zeros(SHAPE), DiskKernel(np.zeros(SHAPE), 1.0), DetectionSpec())
    with pytest.raises(SpecError, match="upsample_factor"):
        DetectionSpec(upsample_factor=2)
