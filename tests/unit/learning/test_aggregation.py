from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ModelError
from diffractory.learning.aggregation import aggregate_labels, aggregate_lattice, difference_confidence


def votes(top: int, second: int) -> list[int]:
    """80 votes for six classes with a given top and second."""
    rest = 80 - top - second
    spread = [rest // 4] * 4
    spread[0] += rest - sum(spread)
    return [spread[0], second, spread[1], spread[2], top, spread[3]]


@pytest.mark.parametrize(
    ("top", "second", "difference"), [(47, 20, 0.3375), (26, 19, 0.0875), (24, 21, 0.0375)]
)
def test_worked_values_of_the_paper(top: int, second: int, difference: float):
    row = votes(top, second)
    assert sum(row) == 80
    assert difference_confidence([row])[0] == pytest.approx(difference)


def test_worked_values_aggregated():
    weights = difference_confidence([votes(47, 20), votes(26, 19), votes(24, 21)])
    # One sure pattern outweighs two unsure ones: 0.3375 against 0.0875 + 0.0375.
    result = aggregate_labels([6, 4, 4], weights, [0, 0, 0])
    assert result.label.tolist() == [6]
    assert result.confidence[0] == pytest.approx(0.3375 / 0.4625)
    agreed = aggregate_labels([6, 6, 4], weights, [0, 0, 0])
    assert agreed.confidence[0] == pytest.approx(0.425 / 0.4625)


def test_difference_of_tied_single_and_absent_votes():
    assert difference_confidence([[5, 5, 0], [0, 0, 0]]).tolist() == [0.0, 0.0]
    assert difference_confidence([[80]]).tolist() == [1.0]
    assert difference_confidence(np.empty((0, 3))).shape == (0,)


def test_groups_are_independent_and_sorted():
    result = aggregate_labels([2, 3, 3, 2], [0.5, 0.1, 0.3, 0.1], [9, 4, 9, 4])
    assert result.groups.tolist() == [4, 9]
    assert result.label.tolist() == [2, 2]
    np.testing.assert_allclose(result.confidence, [0.5, 0.625])


def test_without_any_weight_the_majority_decides():
    result = aggregate_labels([3, 5, 5, 1], [0.0, 0.0, 0.0, 0.2], [0, 0, 0, 1])
    assert result.label.tolist() == [5, 1]
    np.testing.assert_allclose(result.confidence, [2 / 3, 1.0])


def test_lower_label_wins_a_tie_whatever_the_order():
    for labels in ([6, 2], [2, 6]):
        assert aggregate_labels(labels, [0.25, 0.25], [0, 0]).label.tolist() == [2]
        assert aggregate_labels(labels, [0.0, 0.0], [0, 0]).label.tolist() == [2]


def test_nothing_to_aggregate():
    result = aggregate_labels(np.empty(0, dtype=int), [], np.empty(0, dtype=int))
    assert len(result.groups) == len(result.label) == len(result.confidence) == 0
    assert aggregate_lattice(np.empty((0, 3)), []).shape == (0, 3)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 80), st.integers(0, 3)), min_size=1, max_size=30
    ),
    order=st.randoms(use_true_random=False),
)
def test_order_of_patterns_does_not_matter_and_confidence_is_a_share(rows, order):
    first = aggregate_labels(*map(np.array, zip(*rows, strict=True)))
    assert ((first.confidence > 0.0) & (first.confidence <= 1.0)).all()
    order.shuffle(rows)
    second = aggregate_labels(*map(np.array, zip(*rows, strict=True)))
    assert first.label.tolist() == second.label.tolist()
    np.testing.assert_allclose(first.confidence, second.confidence)


def test_lattice_is_the_median_of_patterns_that_have_one():
    lattice = [[4, 4, 4], [5, 6, 7], [np.nan] * 3, [9, 9, 9], [4.2, 4.2, 4.2], [np.nan] * 3]
    result = aggregate_lattice(lattice, [1, 1, 1, 1, 0, 7])
    np.testing.assert_allclose(result, [[4.2, 4.2, 4.2], [5, 6, 7], [np.nan] * 3])


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="must be of one length"):
        aggregate_labels([1, 2], [0.1], [0, 0])
    for weight in (-0.1, np.nan):
        with pytest.raises(ModelError, match="negative or not finite"):
            aggregate_labels([1, 2], [0.1, weight], [0, 0])
    with pytest.raises(ModelError, match="lattice values with"):
        aggregate_lattice(np.zeros((2, 3)), [0])
