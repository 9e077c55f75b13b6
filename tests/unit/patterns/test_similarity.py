import numpy as np
import pytest

from diffractory.errors import DiffractoryError
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.similarity import count_distinct, distinct_patterns, pattern_similarity
from lattices import table_of

PAIR = (np.array([0]), np.array([1]))


def two(first, second):
    return table_of([first, second])


def pattern(*spots):
    """A direct beam and spots given as x, y, intensity."""
    values = np.array([(0.0, 0.0, 50.0), *spots])
    return values[:, :2], values[:, 2]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (pattern((0.3, 0.0, 4.0), (0.0, 0.5, 1.0)), 1.0),
        (pattern((0.3, 0.0, 400.0), (0.0, 0.5, 100.0)), 1.0),  # exposure does not count
        (pattern((0.31, 0.0, 4.0), (0.0, 0.49, 1.0)), 1.0),  # nor do small shifts
        (pattern((0.4, 0.0, 4.0), (0.0, -0.5, 1.0)), 0.0),
        (pattern((0.3, 0.0, 1.0)), np.sqrt(4.0 / 5.0)),
        (pattern(), 0.0),
    ],
)
def test_similarity_of_pairs(second, expected):
    first = pattern((0.3, 0.0, 4.0), (0.0, 0.5, 1.0))
    table = two(first, second)
    assert pattern_similarity(table, *PAIR) == pytest.approx([expected])
    assert pattern_similarity(table, *PAIR[::-1]) == pytest.approx([expected])


def test_one_spot_answers_for_one_only():
    first, second = pattern((0.3, 0.0, 1.0), (0.305, 0.0, 1.0)), pattern((0.3, 0.0, 1.0))
    assert pattern_similarity(two(first, second), *PAIR) == pytest.approx([1.0 / np.sqrt(2.0)])


def test_patterns_without_any_spot():
    table = PeakTable.from_lists([np.empty((0, 2))] * 2, [np.empty(0)] * 2, [-1, -1])
    assert pattern_similarity(table, *PAIR).tolist() == [0.0]
    assert pattern_similarity(table, np.empty(0, int), np.empty(0, int)).shape == (0,)


@pytest.mark.parametrize(("first", "second"), [([0], [2]), ([0, 1], [0]), ([-1], [0])])
def test_pairs_that_are_not_there_are_refused(first, second):
    table = PeakTable.from_lists([np.zeros((1, 2))] * 2, [np.ones(1)] * 2, [0, 0])
    with pytest.raises(DiffractoryError, match="of a table of 2"):
        pattern_similarity(table, np.array(first), np.array(second))


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_distinct_patterns_are_alike_to_none_before(most):
    generator = np.random.default_rng(2)
    kinds = [generator.uniform(-1.0, 1.0, (6, 2)) for _ in range(5)]
    which = generator.integers(0, 5, 60)
    q = [
        np.zeros((1, 2)) if n == 3 else kinds[k] + generator.normal(0.0, 0.002, (6, 2))
        for n, k in enumerate(which)
    ]
    table = PeakTable.from_lists(
        q, [np.ones(len(each)) for each in q], [0 if n == 3 else -1 for n in range(60)]
    )
    chosen = distinct_patterns(table, most)
    asked = np.linspace(0, 59, min(60, most)).round().astype(int)
    first = [
        next(n for n in asked if which[n] == k and n != 3) for k in dict.fromkeys(which[asked[asked != 3]])
    ]
    assert chosen.tolist() == sorted(first)


def test_of_no_patterns_none_is_distinct():
    assert distinct_patterns(PeakTable.from_lists([], [], []), 10).tolist() == []


def test_groups_are_counted_as_if_each_were_alone():
    generator = np.random.default_rng(5)
    kinds = [generator.uniform(-1.0, 1.0, (6, 2)) for _ in range(4)]
    which, group = generator.integers(0, 4, 50), generator.integers(0, 5, 50).astype(np.int32)
    table = PeakTable.from_lists([kinds[k] for k in which], np.ones((50, 6)), [-1] * 50)
    counted = count_distinct(table, group, 6, 8, 100)
    for number in range(1, 7):
        alone = table.take(np.flatnonzero(group == number))
        assert counted[number - 1] == len(distinct_patterns(alone, 8))
    assert counted[5] == 0
    assert counted.max() == 4
    np.testing.assert_array_equal(count_distinct(table, group, 6, 8, 2), np.minimum(counted, 2))
