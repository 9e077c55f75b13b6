import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffractory.patterns.cubic_phase import CubicPhase, find_cubic_phases, phase_probability, with_shares
from diffractory.patterns.cubic_rings import allowed_numbers
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices

FCC = CubicPhase(4.2, "F")


def grains(n, radii, seed=0, spots=8, false=0):
    """Patterns of spots at some of these radii in any direction, with a direct beam and false spots."""
    generator = np.random.default_rng(seed)
    q = []
    for _ in range(n):
        length = generator.choice(radii, spots) * generator.normal(1.0, 0.003, spots)
        length = np.concatenate([[0.0], length, generator.uniform(0.2, 1.2, false)])
        angle = generator.uniform(0.0, 2.0 * np.pi, len(length))
        q.append(np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1))
    return PeakTable.from_lists(q, [np.ones(len(each)) for each in q], [0] * n)


def rings(a, centring):
    radii = np.sqrt(allowed_numbers(centring, 200)) / a
    return radii[radii < 1.2]


def hexagonal_net(a):
    h, k = np.indices((7, 7)).reshape(2, -1)
    radii = np.unique(np.round(np.sqrt((h * h + h * k + k * k) * 4.0 / 3.0), 9))[1:] / a
    return radii[radii < 1.2]


def unread(n):
    zero = np.zeros(n)
    return SpotLattices(np.zeros((n, 3, 3)), zero, zero, zero, zero, zero, zero, np.zeros((n, 3)), zero)


def phases_in(peaks, called_cubic=True, told=np.nan):
    n = len(peaks)
    return find_cubic_phases(unread(n), peaks, np.full(n, called_cubic), np.full(n, told))


@pytest.mark.parametrize(("a", "centring"), [(4.2, "F"), (5.6, "F"), (3.1, "I"), (3.9, "P")])
def test_the_phase_of_many_grains_is_found(a, centring):
    (found,) = phases_in(grains(40, rings(a, centring), false=1))
    assert found.a == pytest.approx(a, rel=0.004)
    assert found.centring == centring
    assert found.on_rings > found.by_chance + 0.3
    assert found.patterns == 40
    assert found.margin >= 5.0


@pytest.mark.parametrize(
    "peaks",
    [
        grains(40, np.linspace(0.2, 1.2, 200)),  # spots anywhere
        grains(4, rings(4.2, "F")),  # too few grains
        grains(1, rings(4.2, "F")).take([0] * 40),  # one grain, seen forty times
        PeakTable.from_lists([], [], []),
        PeakTable.from_lists([np.zeros((1, 2))] * 9, [np.ones(1)] * 9, [0] * 9),
    ],
)
def test_no_phase_is_found_where_none_is_shown(peaks):
    assert phases_in(peaks, called_cubic=True, told=4.2) == []


def test_the_phase_of_those_that_are_called_cubic_is_found_among_others():
    peaks = PeakTable.concatenate(
        [grains(30, rings(4.2, "F")), grains(60, np.linspace(0.2, 1.2, 200), seed=3)]
    )
    called_cubic, told = np.arange(90) < 33, np.full(90, np.nan)
    assert find_cubic_phases(unread(90), peaks, np.ones(90, bool), told) == []
    (found,) = find_cubic_phases(unread(90), peaks, called_cubic, told)
    assert found.a == pytest.approx(4.2, rel=0.004)
    assert found.patterns == 33
    # Of all spots, and not of those alone that were asked.
    assert found.on_rings < 0.7


@pytest.mark.parametrize(("called", "n"), [(20, 1), (12, 0)])
def test_a_model_that_calls_few_of_them_cubic_knows_better(called, n):
    found = find_cubic_phases(
        unread(40), grains(40, rings(4.2, "F")), np.arange(40) < called, np.full(40, np.nan)
    )
    assert len(found) == n


def test_two_phases_are_both_found():
    peaks = PeakTable.concatenate([grains(50, rings(4.2, "F")), grains(30, rings(3.15, "I"), seed=3)])
    found = find_cubic_phases(unread(80), peaks, np.ones(80, bool), np.full(80, np.nan))
    assert sorted((round(phase.a, 1), phase.centring) for phase in found) == [(3.1, "I"), (4.2, "F")]
    probability, which, _ = phase_probability(np.full(80, 0.1), peaks, found)
    assert probability.min() > 0.5
    of = {phase.centring: number for number, phase in enumerate(found, start=1)}
    assert (which[:50] == of["F"]).mean() > 0.9
    assert (which[50:] == of["I"]).mean() > 0.9


def test_grains_of_a_cubic_phase_are_cubic_whatever_they_look_like():
    # Along [111] a face-centred crystal shows a hexagonal net: 220, 422, 440.
    along_111 = grains(30, np.sqrt([8.0, 24.0, 32.0]) / 4.2, seed=1)
    elsewhere = grains(30, hexagonal_net(3.3), seed=2)
    doubtful = np.full(30, 0.2)
    here, which, evidence = phase_probability(doubtful, along_111, [FCC])
    assert here.min() > 0.9
    assert set(which) == {1}
    assert evidence.min() > 0.5
    there, none, against = phase_probability(doubtful, elsewhere, [FCC])
    assert np.median(none) == 0
    assert np.median(against) < 0.0
    # Spots on no ring may be of a cubic phase that nobody knows.
    np.testing.assert_array_equal(there[none == 0], 0.2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_probabilities_stay_probabilities_keep_their_order_and_are_not_lowered(seed, low, high):
    peaks = grains(5, np.linspace(0.2, 1.2, 50), seed)
    low, high = min(low, high), max(low, high)
    less, _, _ = phase_probability(np.full(5, low), peaks, [FCC])
    more, _, _ = phase_probability(np.full(5, high), peaks, [FCC])
    assert np.all((less >= low) & (more >= high) & (more <= 1.0))
    assert np.all(less <= more + 1e-12)
    both, _, _ = phase_probability(np.full(5, high), peaks, [FCC, CubicPhase(3.1, "I")])
    assert np.all(both >= more)


def test_patterns_without_spots_keep_what_the_model_says():
    empty = PeakTable.from_lists([np.zeros((1, 2))], [np.ones(1)], [0])
    probability, phase, evidence = phase_probability(np.array([0.4]), empty, [FCC])
    assert probability.tolist() == [0.4]
    assert phase.tolist() == [0]
    assert np.isnan(evidence).all()


def test_many_patterns_are_judged_in_blocks(monkeypatch):
    peaks = grains(50, rings(4.2, "F"), false=2)
    whole = phase_probability(np.full(50, 0.3), peaks, [FCC])
    monkeypatch.setattr("diffractory.patterns.cubic_constant._BLOCK", 7)
    for once, again in zip(whole, phase_probability(np.full(50, 0.3), peaks, [FCC]), strict=True):
        np.testing.assert_array_equal(once, again)


def test_a_phase_is_told_how_many_spots_it_has():
    peaks = grains(10, rings(4.2, "F"))
    right, wrong = with_shares(FCC, peaks), with_shares(CubicPhase(3.3, "I"), peaks)
    assert (right.a, right.centring, right.patterns) == (4.2, "F", 0)
    assert right.on_rings > 0.9
    assert wrong.on_rings < 0.6
    assert np.isnan(with_shares(FCC, peaks.take([])).on_rings)
