"""A small scan with three particles whose prediction is made up, for tests."""

from __future__ import annotations

import numpy as np

from diffractory.crystals.systems import system_code
from diffractory.learning.aggregation import EvidenceRule
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import ScanPrediction
from diffractory.scan.mapping.particle_prediction import ParticlePrediction, pool_particles
from diffractory.scan.mapping.position_blocks import SystemBlock, WithinBlock
from diffractory.specs import ParticleSpec

TETRAGONAL, CUBIC = system_code("tetragonal"), system_code("cubic")
RULE = EvidenceRule(np.array([TETRAGONAL, CUBIC], np.int8), np.array([0.5, 0.5]), 0.7)
SHAPE = (4, 6)
#: Left: one particle; right: another; its last position and the lower left corner belong to none.
PARTICLE = np.array(
    [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [0, 3, 3, 3, 2, 0]], dtype=np.int32
)
#: Of each particle, patterns that are distinct.
DISTINCT = np.array([9, 2, 0])


def votes(share_of_cubic: object) -> SystemBlock:
    """Votes at positions; NaN = not asked."""
    share = np.asarray(share_of_cubic, dtype=float)
    asked = np.isfinite(share)
    both = np.where(asked[:, None], np.stack([1.0 - share, share], axis=1), 0.0).astype(np.float32)
    system = np.where(asked, np.where(share > 0.5, CUBIC, TETRAGONAL), -1).astype(np.int8)
    outside = np.zeros(len(share), bool)
    confidence = np.where(asked, both.max(axis=1), np.nan)
    difference = np.where(asked, np.abs(2.0 * share - 1.0), np.nan)
    return SystemBlock(both, system, confidence, difference, outside, np.full((len(share), 2), np.nan))


def prediction(
    rule: EvidenceRule | None = RULE,
    overlapping: np.ndarray | None = None,
    spec: ParticleSpec | None = None,
) -> ScanPrediction:
    """Three particles: cubic, tetragonal and outside of training, and one never asked."""
    share = np.where(PARTICLE.ravel() == 2, 0.3, 0.8)
    share[PARTICLE.ravel() == 3] = np.nan  # too few spots anywhere
    systems = votes(share)
    systems.outside[[3, 4, 5, 9, 10, 11]] = True
    n, particle = len(share), PARTICLE.flatten()
    spec = spec or ParticleSpec(min_size=1)
    difference, evidence = pool_particles(systems, particle, DISTINCT, rule, spec)
    system = np.where(evidence.system >= 0, evidence.system, difference.system)
    here = (systems.system >= 0) & (particle > 0)
    lattice = np.where(here[:, None], 4.0 + 0.01 * np.arange(n)[:, None] + [0.0, 0.5, 1.0], np.nan)
    within = WithinBlock(
        np.where(here, np.where(particle == 2, 123, 225), 0).astype(np.int16),
        np.where(here, 0.6, np.nan), np.where(here, 0.2, np.nan), lattice,
    )  # fmt: skip
    image = np.arange(float(n)).reshape(SHAPE)
    divided = ParticlePrediction(
        spec, image, particle, difference, evidence, DISTINCT, *[system.astype(np.int8)] * 2, within
    )
    labels, reason = systems.system.copy(), np.where(systems.system >= 0, 0, 1).astype(np.int8)
    return ScanPrediction(systems, labels, reason, within, (TETRAGONAL, CUBIC), overlapping, divided)


def scan(step: float | None = 20.0) -> BraggScan:
    """Return a scan of as many positions, with three to seven spots each."""
    sizes = np.arange(24) % 5 + 3
    table = PeakTable.from_detected([np.ones((n, 2)) for n in sizes], [np.ones(n) for n in sizes])
    return BraggScan(table, SHAPE, step)
