"""The direct beam on a detector that it saturates."""

import numpy as np
import pytest

from diffractory.scan.detection.clipped_beam import centre_clipped_beam
from diffractory.scan.detection.detect import Detector
from diffractory.scan.detection.disk_detection import detect_block
from diffractory.scan.detection.disk_radius import measure_radius
from diffractory.scan.detection.probe_template import disk_template, kernel_of
from diffractory.specs import DetectionSpec

SHAPE = (96, 96)
SPEC = DetectionSpec(min_spacing=3.0, min_relative_intensity=0.05)
KERNEL = kernel_of(disk_template(SHAPE, 2.0, "test"), 3.0)
MAXIMA = np.array([(40.0, 50.0, 9.0), (43.0, 50.0, 8.0), (70.0, 50.0, 3.0)], dtype="f8,f8,f8")
MAXIMA.dtype.names = ("x", "y", "intensity")


def camera(center, width=5.0, seed=0, bright=150.0):
    """An 8-bit frame: a direct beam of Gaussian profile far above its end, and four disks of two pixels."""
    rows, columns = np.indices(SHAPE)
    distance = np.hypot(rows - center[0], columns - center[1])
    image = 2000.0 * np.exp(-0.5 * (distance / width) ** 2 * 4.0) + 4.0
    for row, column in ((25, 0), (-25, 0), (0, 25), (0, -25), (25, 25), (-25, -25)):
        away = np.hypot(rows - center[0] - row, columns - center[1] - column)
        image += bright * (0.5 - 0.5 * np.tanh(2.0 * (away - 2.0)))
    return np.clip(np.random.default_rng(seed).poisson(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("center", [(47.3, 50.6), (45.0, 44.5)])
def test_the_beam_is_in_the_middle_of_its_plateau(center):
    peaks = detect_block(camera(center)[None], KERNEL, SPEC)
    q, _ = peaks.pattern(0)
    distance = np.hypot(*(q - center).T)
    assert (distance < 12.0).sum() == 1
    assert distance.min() < 0.3
    assert len(q) == 7
    # Not clipped, it is left to the correlation.
    plain = detect_block(camera(center).astype(np.float64)[None], KERNEL, SPEC)
    assert np.hypot(*(plain.pattern(0)[0] - center).T).min() > 0.3


def test_a_bad_pixel_does_not_hide_that_the_beam_is_clipped():
    bad = np.zeros(SHAPE, bool)
    bad[3, 4] = True
    found = Detector(KERNEL, SPEC, bad, None).find(camera((47.3, 50.6))[None])
    q, _ = found.peaks.pattern(0)
    assert np.hypot(*(q - (47.3, 50.6)).T).min() < 0.3


def test_a_disk_beside_the_plateau_is_kept():
    frame = np.zeros(SHAPE, np.uint8)
    frame[np.hypot(*(np.indices(SHAPE) - 40)) <= 7.0] = 255
    beside = np.array([(44.0, 40.0, 9.0), (48.6, 40.0, 8.0)], dtype=MAXIMA.dtype)
    assert centre_clipped_beam(frame, beside, 3.0).tolist() == [(40.0, 40.0, 9.0), (48.6, 40.0, 8.0)]


def test_what_is_no_wide_plateau_is_left_as_it_is():
    frame = np.zeros(SHAPE, np.uint8)
    frame[40:43, 50] = 255
    for other in (frame, np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8), frame.astype(float)):
        assert centre_clipped_beam(other, MAXIMA, 2.0) is MAXIMA
    frame[38:48, 46:56] = 255
    centred = centre_clipped_beam(frame, MAXIMA, 2.0)
    assert centred.tolist() == [(42.5, 50.5, 9.0), (70.0, 50.0, 3.0)]
    assert MAXIMA["x"][0] == 40.0
    frame[:] = 0
    frame[80:90, 80:90] = 255
    assert centre_clipped_beam(frame, MAXIMA, 2.0) is MAXIMA
    assert len(centre_clipped_beam(frame, MAXIMA[:0], 2.0)) == 0


def test_diffracted_disks_tell_the_radius_where_the_beam_is_clipped():
    frames = np.stack([camera((47.0 + 0.2 * n, 48.0), seed=n) for n in range(8)])
    measured = measure_radius(frames)
    assert measured.radius == pytest.approx(2.0, abs=0.4)
    assert "is wider" in measured.origin
    # Clipped disks are wider as well, and are not asked.
    clipped = measure_radius(np.stack([camera((47.0, 48.0), seed=n, bright=900.0) for n in range(8)]))
    assert "direct beam" in clipped.origin
    assert "wider" not in clipped.origin
