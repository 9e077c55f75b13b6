from dataclasses import replace

import numpy as np
import pytest

from diffractory.crystals.systems import system_code
from diffractory.patterns.cubic_phase import CubicPhase
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.label_map import cubic_phase, summarise, to_dataset
from diffractory.scan.mapping.position_blocks import PositionBlock, nothing_within
from diffractory.scan.mapping.scan_phase import phase_doubt, phase_of_scan, vote_with_phase
from diffractory.specs import MapSpec
from particle_examples import prediction, scan, votes

TETRAGONAL, CUBIC = system_code("tetragonal"), system_code("cubic")
COLUMNS = (TETRAGONAL, CUBIC)
FCC = CubicPhase(4.2, "F")


def patterns(radii, n):
    angle = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, (n, len(radii)))
    q = np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=2)
    return PeakTable.from_lists(q, np.ones(angle.shape), [-1] * n)


def test_positions_on_the_rings_become_cubic_and_others_less_so():
    share = np.array([0.3, 0.3, 0.9, np.nan])
    on, off = patterns(np.sqrt([3.0, 8.0, 11.0, 16.0]) / 4.2, 4), patterns(np.array([0.3, 0.57, 0.9]), 4)
    peaks = PeakTable.concatenate([on.take([0]), off.take([1]), on.take([2]), on.take([3])])
    before = votes(share)
    after, phase = vote_with_phase(before, peaks, FCC, COLUMNS)
    assert after.system.tolist() == [CUBIC, TETRAGONAL, CUBIC, -1]
    np.testing.assert_allclose(after.share[:3].sum(axis=1), 1.0, rtol=1e-6)
    assert after.share[0, 1] > 0.8
    assert after.share[1, 1] < 0.1
    np.testing.assert_allclose(after.confidence[:3], after.share[:3].max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        after.difference[:3], np.abs(after.share[:3, 0] - after.share[:3, 1]), rtol=1e-5, atol=1e-7
    )
    assert np.isnan(after.confidence[3])
    assert np.isnan(phase.evidence).tolist() == [False, False, False, True]
    assert phase.changed == 1
    np.testing.assert_array_equal(before.system, [TETRAGONAL, TETRAGONAL, CUBIC, -1])


def test_the_other_systems_keep_their_proportions():
    systems = votes([0.3])
    columns = (TETRAGONAL, system_code("hexagonal"), CUBIC)
    three = replace(systems, share=np.array([[0.2, 0.4, 0.4]], np.float32))
    after, _ = vote_with_phase(three, patterns(np.array([0.3, 0.57, 0.9]), 1), FCC, columns)
    assert after.share[0, 1] / after.share[0, 0] == pytest.approx(2.0, rel=1e-5)
    assert after.share[0, 2] < 0.4


def test_a_told_phase_asks_no_lattices_and_none_is_none():
    n, block = 12, nothing_within(12)
    found = PositionBlock(votes(np.full(n, 0.5)), block, None, None, None)
    peaks = patterns(np.sqrt([3.0, 8.0, 11.0, 16.0]) / 4.2, n)
    assert phase_of_scan("none", found, peaks) is None
    assert phase_of_scan("auto", found, peaks) is None
    told = phase_of_scan("4.2:F", found, peaks)
    assert (told.a, told.centring, told.patterns, told.on_rings) == (4.2, "F", n, 1.0)


def test_a_phase_that_hardly_shows_is_doubted():
    assert phase_doubt(CubicPhase(4.2, "F", 0.8, 0.2)) is None
    said = phase_doubt(CubicPhase(4.2, "F", 0.25, 0.2))
    assert "F, a = 4.200 Å hardly shows: 25 % of the spots lie on its rings, 20 % would by chance" in said
    # Of a scan without any spot nothing is known, and that is said too.
    assert phase_doubt(CubicPhase(4.2, "F")) is not None


def test_the_dataset_says_which_phase_counted():
    whole = prediction()
    assert "phase_evidence" not in to_dataset(scan(), whole, MapSpec())
    assert cubic_phase(to_dataset(scan(), whole, MapSpec())) is None
    systems, phase = vote_with_phase(whole.systems, scan().peaks, FCC, whole.columns)
    dataset = to_dataset(scan(), replace(whole, systems=systems, phase=phase), MapSpec())
    told = cubic_phase(dataset)
    assert (told["a"], told["centring"], told["margin"]) == (4.2, "F", None)
    assert told["changed"] == phase.changed
    assert summarise(dataset)["phase"] == told
    np.testing.assert_array_equal(
        np.isnan(dataset["phase_evidence"].to_numpy().ravel()), np.isnan(phase.evidence)
    )
