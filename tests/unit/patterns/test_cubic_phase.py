import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffractory.patterns.cubic_phase import CubicPhase, find_cubic_phase, phase_probability, told_phase
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


@pytest.mark.parametrize(("a", "centring"), [(4.2, "F"), (5.6, "F"), (3.1, "I"), (3.9, "P")])
def test_the_phase_of_many_grains_is_found(a, centring):
    nothing = np.zeros(40, bool)
    found = find_cubic_phase(unread(40), grains(40, rings(a, centring), false=1), nothing, expected=a)
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
    ],
)
def test_no_phase_is_found_where_none_is_shown(peaks):
    assert find_cubic_phase(unread(len(peaks)), peaks, np.ones(len(peaks), bool)) is None


def test_the_phase_of_those_that_are_called_cubic_is_found_among_others():
    peaks = PeakTable.concatenate(
        [grains(30, rings(4.2, "F")), grains(60, np.linspace(0.2, 1.2, 200), seed=3)]
    )
    called_cubic = np.arange(90) < 33
    assert find_cubic_phase(unread(90), peaks, np.zeros(90, bool), 4.2) is None
    found = find_cubic_phase(unread(90), peaks, called_cubic, 4.2)
    assert found.a == pytest.approx(4.2, rel=0.004)
    assert found.patterns == 33
    # Of all spots, and not of those alone that were asked.
    assert found.on_rings < 0.7


def test_grains_of_a_cubic_phase_are_cubic_whatever_they_look_like():
    # Along [111] a face-centred crystal shows a hexagonal net: 220, 422, 440.
    along_111 = grains(30, np.sqrt([8.0, 24.0, 32.0]) / 4.2, seed=1)
    elsewhere = grains(30, hexagonal_net(3.3), seed=2)
    doubtful = np.full(30, 0.2)
    here, evidence = phase_probability(doubtful, along_111, FCC)
    there, against = phase_probability(doubtful, elsewhere, FCC)
    assert here.min() > 0.9
    assert evidence.min() > 0.5
    assert np.median(there) < 0.1
    assert np.median(against) < 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_probabilities_stay_probabilities_and_keep_their_order(seed, low, high):
    peaks = grains(5, np.linspace(0.2, 1.2, 50), seed)
    low, high = min(low, high), max(low, high)
    less, _ = phase_probability(np.full(5, low), peaks, FCC)
    more, _ = phase_probability(np.full(5, high), peaks, FCC)
    assert np.all((less >= 0.0) & (more <= 1.0))
    assert np.all(less <= more + 1e-12)
    # One of ten cubic patterns may be of another phase.
    sure = np.clip(high, 1e-4, 1.0 - 1e-4)
    assert np.all(more >= 0.09 * sure)


def test_patterns_without_spots_keep_what_the_model_says():
    empty = PeakTable.from_lists([np.zeros((1, 2))], [np.ones(1)], [0])
    probability, evidence = phase_probability(np.array([0.4]), empty, FCC)
    assert probability.tolist() == [0.4]
    assert np.isnan(evidence).all()


def test_a_phase_may_be_told():
    phase = told_phase(4.2, "F", grains(10, rings(4.2, "F")))
    assert (phase.a, phase.centring, phase.patterns) == (4.2, "F", 10)
    assert phase.on_rings > 0.9
    assert np.isnan(phase.margin)
    assert told_phase(4.2, "I", grains(10, rings(4.2, "F"))).on_rings < 0.8
