from dataclasses import replace

import numpy as np
import pytest

from diffractory.report.detection_figures import (
    figure_of_bragg_map,
    figure_of_disks,
    figure_of_ellipse,
    figure_of_frame_status,
    figure_of_origin,
    figure_of_rings,
    figure_of_template,
    figure_of_threshold,
)
from diffractory.report.style import save_figure
from diffractory.scan.detection.detect import find_peaks
from diffractory.scan.detection.parameters import significance_of_maxima
from diffractory.scan.detection.ring_calibration import EllipseFit
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from diffractory.scan.detection.scan_calibration import CalibrationRequest, calibrate_scan
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from frame_scans import POWDER_A, frames_of, powder_patterns

SHAPE = (10, 12)


@pytest.fixture(scope="module")
def made():
    scan, _ = frames_of(powder_patterns(120), SHAPE, drift=4.0, hot_pixels=5, hot_value=5000.0)
    setup = prepare_detection(scan, SetupRequest())
    found = find_peaks(scan, setup.detector)
    found.status[7] = 1
    rings = ring_radii(cubic_crystal(f"{POWDER_A}:F"), 2.0)
    request = CalibrationRequest(ellipse="fit", rings=rings)
    return setup, calibrate_scan(found, scan, setup.template.radius, request, {}, setup.brightest)


def texts(figure):
    words = [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]
    return " | ".join(words)


def test_template(made):
    figure = figure_of_template(made[0])
    assert "5 bad pixels" in texts(figure)
    assert f"disk radius {made[0].template.radius:.2f} px" in texts(figure)


def test_the_circle_lies_on_a_clipped_beam(made):
    rows, columns = np.indices((96, 96))
    beam = 255.0 * (np.hypot(rows - 40.0, columns - 52.0) <= 6.0)
    clipped = np.minimum(beam + np.random.default_rng(0).poisson(2.0, (8, 96, 96)), 255.0)
    figure = figure_of_template(replace(made[0], sample=clipped))
    (circle,) = figure.axes[0].patches
    assert circle.get_center() == pytest.approx((52.0, 40.0), abs=0.2)
    flat = figure_of_template(replace(made[0], sample=np.ones((2, 96, 96))))
    assert not flat.axes[0].patches


def test_examples_show_a_circle_for_every_disk(made):
    setup, _ = made
    peaks = setup.detector.find(setup.sample).peaks
    figure = figure_of_disks(setup, peaks, 3)
    found = peaks.counts
    drawn = [len(ax.patches) for ax in figure.axes if ax.get_visible()]
    assert len(drawn) == 3
    assert set(drawn) <= set(found.tolist())
    assert (min(drawn), max(drawn)) == (found.min(), found.max())


def test_threshold(made):
    setup, _ = made
    shown = significance_of_maxima(setup.sample, setup.detector.kernel, setup.spec)
    figure = figure_of_threshold(setup, shown)
    above = int((shown >= setup.spec.min_significance).sum())
    assert f"{above:,} of {shown.size:,} above" in texts(figure)
    assert "significance not asked" in texts(figure_of_threshold(setup, np.empty(0)))


def test_origin(made):
    _, result = made
    figure = figure_of_origin(result)
    assert f"{result.origin.residual:.3f} px" in texts(figure)
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_allclose(np.ma.filled(images[1], np.nan) - np.ma.filled(images[0], np.nan),
                               -np.ma.filled(images[2], np.nan), atol=1e-9)  # fmt: skip


def test_ellipse_and_rings(made):
    _, result = made
    assert f"{result.ellipse.ratio:.4f}" in texts(figure_of_ellipse(result))
    assert len(figure_of_ellipse(result).axes) == 2
    unasked = replace(result, request=replace(result.request, ellipse=None), ellipse=EllipseFit(np.eye(2)))
    figure = figure_of_ellipse(unasked)
    assert len(figure.axes) == 1
    assert "no ellipse was taken out" in texts(figure)
    figure = figure_of_rings(result)
    assert "fitted" in texts(figure)
    at = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(at[:3], result.request.rings[:3])


def test_frames_say_what_is_flagged(made):
    words = texts(figure_of_frame_status(made[1]))
    assert "1 of 120 flagged" in words
    assert "empty: 1" in words
    assert "good: 119" in words


def test_all_of_them_can_be_written(made, tmp_path):
    setup, result = made
    peaks = setup.detector.find(setup.sample).peaks
    figures = [figure_of_template(setup), figure_of_disks(setup, peaks), figure_of_bragg_map(result)]
    figures += [
        figure_of_origin(result),
        figure_of_ellipse(result),
        figure_of_rings(result),
        figure_of_frame_status(result),
    ]
    for number, figure in enumerate(figures):
        for suffix in ("png", "svg"):
            path = tmp_path / f"{number}.{suffix}"
            save_figure(figure, path, dpi=60)
            assert path.stat().st_size > 5000
    words = texts(figures[2])
    assert f"{len(result.scan.peaks.intensity):,} peaks of 120 positions" in words
