"""Rings of a film are not taken for disks, and disks on a ring are still found."""

import numpy as np
import pytest

from diffractory.scan.detection.disk_detection import detect_block
from diffractory.scan.detection.parameters import choose_parameters
from diffractory.scan.detection.probe_template import disk_template, kernel_of
from diffractory.scan.detection.ring_background import ring_background

SHAPE, CENTER, RADIUS = (128, 128), (61.0, 66.0), 2.0
KERNEL = kernel_of(disk_template(SHAPE, RADIUS, "test"), 3.0)


def disk(row, column, height):
    distance = np.hypot(np.indices(SHAPE)[0] - row, np.indices(SHAPE)[1] - column)
    return height * (0.5 - 0.5 * np.tanh(2.0 * (distance - RADIUS)))


def film(n, disks=(), seed=0):
    """Counted frames of a direct beam, a film's ring 30 pixels wide of it, and disks."""
    distance = np.hypot(*(axis - at for axis, at in zip(np.indices(SHAPE), CENTER, strict=True)))
    expected = disk(*CENTER, 20_000.0) + 60.0 * np.exp(-0.5 * ((distance - 30.0) / 3.5) ** 2) + 1.0
    for row, column, height in disks:
        expected = expected + disk(row, column, height)
    return np.random.default_rng(seed).poisson(expected, (n, *SHAPE)).astype(np.float64)


def found(frames):
    spec, _ = choose_parameters(film(12, seed=1), film(12, seed=2), KERNEL, {})
    assert spec.min_significance > 4.0
    return detect_block(frames, KERNEL, spec)


def test_a_ring_shows_no_disks(monkeypatch):
    frames = film(8)
    assert found(frames).counts.tolist() == [1] * 8
    # Without asking for it the crest of the ring is full of them.
    monkeypatch.setattr(
        "diffractory.scan.detection.disk_detection.ring_background", lambda *_: np.zeros(len(_[1]))
    )
    assert found(frames).counts.min() > 5


@pytest.mark.parametrize("disks", [1, 4, 6])
def test_disks_on_a_ring_are_found(disks):
    angles = np.arange(disks) * 2.0 * np.pi / disks + 0.2
    there = [(CENTER[0] + 30.0 * np.cos(t), CENTER[1] + 30.0 * np.sin(t), 150.0) for t in angles]
    peaks = found(film(4, there))
    assert peaks.counts.tolist() == [1 + disks] * 4
    for index in range(4):
        q, _ = peaks.pattern(index)
        nearest = np.hypot(*(q[:, None] - np.array(there)[None, :, :2]).transpose(2, 0, 1)).min(axis=0)
        assert nearest.max() < 0.5


def test_the_height_is_that_of_the_ring():
    distance = np.hypot(*(axis - 64 for axis in np.indices(SHAPE)))
    values = np.where(distance < 2.0, 100.0, 0.0) + 5.0 * (np.abs(distance - 30.0) < 2.0)
    noise = np.ones(4)
    rows, columns = np.array([64, 94, 64, 64]), np.array([64, 64, 34, 84])
    height = ring_background(values, rows, columns, noise)
    np.testing.assert_allclose(height, [0.0, 5.6745, 5.6745, 0.0])
    assert ring_background(values, rows[:0], columns[:0], noise[:0]).shape == (0,)


def test_where_the_circle_leaves_the_frame_nothing_is_said():
    values = np.ones(SHAPE)
    values[2, 2] = 9.0
    far = ring_background(values, np.array([2, 125]), np.array([2, 125]), np.ones(2))
    assert far.tolist() == [0.0, 0.0]
