"""Small synthetic raw scans with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.synthetic.frames import FrameTruth, synthetic_frames
from diffractory.specs import FrameEffectsSpec

#: Lattice constant of the powder, in Å: aluminium.
POWDER_A = 4.05


def lattice_patterns(n: int, seed: int = 1, spacing: tuple[float, float] = (0.35, 0.5)) -> PeakTable:
    """Return square spot patterns of random spacing, turn and intensity, the direct beam brightest."""
    generator = np.random.default_rng(seed)
    q, intensity = [], []
    for _ in range(n):
        angle, g = generator.uniform(0.0, np.pi), generator.uniform(*spacing)
        points = np.stack(np.meshgrid(np.arange(-5, 6), np.arange(-5, 6), indexing="ij"), -1).reshape(-1, 2)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        position = g * points @ turn
        share = 0.05 * np.exp(-2.0 * np.hypot(*position.T)) * generator.uniform(0.02, 1.0, len(position))
        share[np.hypot(*position.T) < 1e-9] = 0.6
        kept = np.hypot(*position.T) < 1.5
        q.append(position[kept])
        intensity.append(share[kept])
    return PeakTable.from_detected(q, intensity)


def powder_patterns(n: int, seed: int = 3) -> PeakTable:
    """Return kinematic patterns of an fcc crystal in random orientations."""
    generator = np.random.default_rng(seed)
    hkl = np.array(list(np.ndindex(13, 13, 13))) - 6
    g = hkl[np.ptp(hkl % 2, axis=1) == 0] / POWDER_A
    q, intensity = [], []
    for _ in range(n):
        orientation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        turned = g @ orientation.T
        off = turned[:, 2] + 0.00984 * (turned**2).sum(axis=1)
        radius = np.hypot(turned[:, 0], turned[:, 1])
        kept = (np.abs(off) < 0.02) & (radius < 1.5)
        share = 0.05 * np.exp(-((off[kept] / 0.01) ** 2) - 1.5 * radius[kept])
        share[np.argmin(radius[kept])] = 0.5
        q.append(turned[kept][:, :2])
        intensity.append(share)
    return PeakTable.from_detected(q, intensity)


def frames_of(
    patterns: PeakTable, shape: tuple[int, int], seed: int = 0, **effects: Any
) -> tuple[FrameScan, FrameTruth]:
    """Return raw frames of a scan that shows the patterns, each over a run of neighbouring positions."""
    n = shape[0] * shape[1]
    chosen = np.arange(n) * len(patterns) // n
    scan = BraggScan(patterns.take(chosen), shape, 20.0, 200e3)
    chosen_effects = {"frame_shape": (96, 96), "pixel_size": 0.03, "disk_radius": 3.0, **effects}
    return synthetic_frames(scan, FrameEffectsSpec(**chosen_effects), seed)
