"""A small scan as precession microscopes record it: grains above each other, background, a clipped beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.peak_table import PeakTable
from frame_scans import frames_of, powder_patterns

#: Å⁻¹ of a detector pixel, and the scan's shape.
PIXEL, SHAPE = 0.03, (10, 12)


def overlapping_patterns(count: int, seed: int = 4) -> PeakTable:
    """Return patterns that each show two fcc crystals, or the undiffracted beam for every fourth."""
    single = powder_patterns(2 * count, seed)
    positions, intensities = [], []
    for index in range(count):
        parts = [single.pattern(2 * index + i) for i in range(2)]
        if index % 4 == 3:
            parts = [(np.zeros((1, 2)), np.ones(1))]
        positions.append(np.concatenate([q for q, _ in parts]))
        intensities.append(np.concatenate([values for _, values in parts]) / len(parts))
    return PeakTable.from_detected(positions, intensities)


def camera_frames(count: int = 60, **effects: Any) -> NDArray[np.uint8]:
    """Return frames of an 8-bit camera: gamma 0.6, an offset with noise, the direct beam clipped."""
    scan, _ = frames_of(overlapping_patterns(count), SHAPE, pixel_size=PIXEL, disk_radius=2.0, **effects)
    counts = scan.frames.to_numpy().astype(np.float64)
    brightest = float(np.median(counts.max(axis=(2, 3))))
    noise = np.random.default_rng(5).normal(0.0, 1.5, counts.shape)
    return np.clip(600.0 * (counts / brightest) ** 0.6 + 12.0 + noise, 0.0, 255.0).astype(np.uint8)
