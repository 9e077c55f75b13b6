from dataclasses import replace

import numpy as np
import pytest

from diffractory.crystals.systems import system_code
from diffractory.patterns.cubic_phase import CubicPhase
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.label_map import cubic_phases, summarise, to_dataset
from diffractory.scan.mapping.position_blocks import PositionBlock, nothing_within
from diffractory.scan.mapping.scan_phase import phase_doubts, phases_of_scan, vote_with_phases
from diffractory.specs import MapSpec
from particle_examples import prediction, scan, votes

TETRAGONAL, CUBIC = system_code("tetragonal"), system_code("cubic")
COLUMNS = (TETRAGONAL, CUBIC)
FCC = CubicPhase(4.2, "F")


def patterns(radii, n):
    angle = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, (n, len(radii)))
    q = np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=2)
    return PeakTable.from_lists(q, np.ones(angle.shape), [-1] * n)


def test_positions_on_the_rings_become_cubic_and_others_keep_their_votes():
    share = np.array([0.3, 0.3, 0.9, np.nan])
    on, off = patterns(np.sqrt([3.0, 8.0, 11.0, 16.0]) / 4.2, 4), patterns(np.array([0.3, 0.57, 0.9]), 4)
    peaks = PeakTable.concatenate([on.take([0]), off.take([1]), on.take([2]), on.take([3])])
    before = votes(share)
    after, phases = vote_with_phases(before, peaks, [FCC], COLUMNS)
    assert after.system.tolist() == [CUBIC, TETRAGONAL, CUBIC, -1]
    np.testing.assert_allclose(after.share[:3].sum(axis=1), 1.0, rtol=1e-6)
    assert after.share[0, 1] > 0.8
    np.testing.assert_allclose(after.share[1], before.share[1], rtol=1e-6)
    np.testing.assert_allclose(after.confidence[:3], after.share[:3].max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        after.difference[:3], np.abs(after.share[:3, 0] - after.share[:3, 1]), rtol=1e-5, atol=1e-7
    )
    assert np.isnan(after.confidence[3])
    assert phases.phase.tolist() == [1, 0, 1, 0]
    assert np.isnan(phases.evidence).tolist() == [False, False, False, True]
    assert phases.changed == 1
    assert [told["positions"] for told in phases.listed()] == [2]
    np.testing.assert_array_equal(before.system, [TETRAGONAL, TETRAGONAL, CUBIC, -1])


def test_the_other_systems_keep_their_proportions():
    columns = (TETRAGONAL, system_code("hexagonal"), CUBIC)
    three = replace(votes([0.3]), share=np.array([[0.2, 0.4, 0.4]], np.float32))
    on = patterns(np.sqrt([3.0, 8.0, 11.0]) / 4.2, 1)
    after, _ = vote_with_phases(three, on, [FCC], columns)
    assert after.share[0, 1] / after.share[0, 0] == pytest.approx(2.0, rel=1e-5)
    assert after.share[0, 2] > 0.5
    sure = replace(votes([0.7]), share=np.array([[0.0, 0.0, 1.0]], np.float32))
    np.testing.assert_array_equal(vote_with_phases(sure, on, [FCC], columns)[0].share, [[0.0, 0.0, 1.0]])


def test_told_phases_ask_no_lattices_and_none_is_none():
    n, block = 12, nothing_within(12)
    found = PositionBlock(votes(np.full(n, 0.5)), block, None, None, None)
    peaks = patterns(np.sqrt([3.0, 8.0, 11.0, 16.0]) / 4.2, n)

    def never(rows):
        raise AssertionError(rows)

    assert phases_of_scan("none", found, peaks, never) == []
    assert phases_of_scan("auto", found, peaks, never) == []
    first, second = phases_of_scan("4.2:F,5.431:D", found, peaks, never)
    assert (first.a, first.centring, first.patterns, first.on_rings) == (4.2, "F", 0, 1.0)
    assert (second.a, second.centring) == (5.431, "F")
    nothing = PositionBlock(votes(np.full(n, np.nan)), block, None, None, None)
    assert phases_of_scan("4.2:F", nothing, peaks, never) == []


def test_a_phase_that_hardly_shows_is_doubted():
    assert phase_doubts([CubicPhase(4.2, "F", 0.8, 0.2)]) == []
    crowded = CubicPhase(17.0, "P", 1.0, 0.99)
    (said,) = phase_doubts([CubicPhase(4.2, "F", 0.25, 0.2), crowded])
    assert "F, a = 4.200 Å hardly shows: 25 % of the spots lie on its rings, 20 % would by chance" in said


def test_the_dataset_says_which_phases_counted():
    whole = prediction()
    without = to_dataset(scan(), whole, MapSpec())
    assert "phase_evidence" not in without
    assert cubic_phases(without) == ([], 0)
    systems, phases = vote_with_phases(whole.systems, scan().peaks, [FCC], whole.columns)
    dataset = to_dataset(scan(), replace(whole, systems=systems, phases=phases), MapSpec())
    (told,), changed = cubic_phases(dataset)
    assert (told["a"], told["centring"], told["margin"], told["patterns"]) == (4.2, "F", None, 0)
    assert changed == phases.changed
    summary = summarise(dataset)
    assert (summary["phases"], summary["changed_by_phases"]) == ([told], changed)
    assert dataset["cubic_phase"].attrs["flag_meanings"] == "none F_4.200_angstrom"
    np.testing.assert_array_equal(dataset["cubic_phase"].to_numpy().ravel(), phases.phase)
    shown = dataset["phase_evidence"].to_numpy().ravel()
    np.testing.assert_array_equal(np.isnan(shown), np.isnan(phases.evidence))
