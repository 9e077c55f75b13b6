from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from diffractory.learning.accuracies import SystemAccuracies, group_patterns
from diffractory.learning.aggregation import AggregatedLabels, aggregate_labels
from diffractory.learning.system_hierarchy import SystemVotes


@dataclass
class Paper:
    """A model with three systems and the paper's rule."""

    systems_: np.ndarray

    def pool_systems(self, votes: SystemVotes, groups: np.ndarray) -> AggregatedLabels:
        return aggregate_labels(votes.system, votes.difference, groups)


SYSTEMS = np.array([0, 3, 6], dtype=np.int8)


def answers(share: np.ndarray, truth: np.ndarray, materials: np.ndarray) -> SystemAccuracies:
    votes = SystemVotes.from_share(np.asarray(share, dtype=float), SYSTEMS)
    model: Any = Paper(SYSTEMS)
    return SystemAccuracies(model, votes, np.asarray(truth, np.int8), np.asarray(materials), 200, 0)


def test_accuracy_for_several_patterns_counts_full_groups_only():
    share = np.tile([[0.1, 0.2, 0.7], [0.1, 0.5, 0.4], [0.1, 0.2, 0.7]], (5, 1))
    found = answers(share, np.full(15, 6), np.repeat([4, 9], [12, 3])).by_number()
    assert set(found) == {"system_by_number", "system_by_difference"}
    numbers = found["system_by_number"]
    assert list(numbers) == ["1", "3", "10", "30"]
    assert (numbers["1"]["n"], numbers["1"]["n_materials"]) == (15, 2)
    assert numbers["1"]["accuracy"] == pytest.approx(2 / 3)
    assert (numbers["3"]["n"], numbers["3"]["n_materials"]) == (5, 2)
    assert (numbers["10"]["n"], numbers["10"]["n_materials"], numbers["10"]["interval"]) == (1, 1, None)
    assert numbers["10"]["accuracy"] == 1.0
    nothing = dict.fromkeys(("accuracy", "interval", "calibration_error", "calibration_interval"))
    assert numbers["30"] == {"n": 0, "n_materials": 0, **nothing}
    assert found["system_by_difference"] == numbers


def test_without_a_system_its_share_goes_to_the_others():
    share = [[0.6, 0.3, 0.1], [0.6, 0.1, 0.3], [0.2, 0.4, 0.4], [1.0, 0.0, 0.0]]
    known = answers(share, [3, 6, 0, 6], [1, 2, 3, 4])
    others = known.without(0)
    assert others.truth.tolist() == [3, 6, 6]
    assert others.materials.tolist() == [1, 2, 4]
    np.testing.assert_allclose(others.votes.share[:2], [[0.0, 0.75, 0.25], [0.0, 0.25, 0.75]])
    assert others.votes.system[:2].tolist() == [3, 6]
    np.testing.assert_allclose(others.votes.difference[:2], 0.5)
    assert np.isfinite(others.votes.share).all()
    # The answers themselves stay as they were.
    np.testing.assert_array_equal(known.votes.share, share)
    untouched = known.without(5)
    np.testing.assert_array_equal(untouched.votes.share, share)


def test_accuracy_against_a_condition_of_few_values_has_a_bin_for_each():
    share = np.eye(3)[[2, 2, 1, 2, 2, 0]]
    bins = answers(share, np.full(6, 6), [1, 1, 2, 2, 3, 3]).against(
        [200.0, 100.0, 100.0, 200.0, 350.0, 350.0]
    )
    assert [(b["low"], b["high"], b["n"], b["accuracy"]) for b in bins] == [
        (100.0, 100.0, 2, 0.5),
        (200.0, 200.0, 2, 1.0),
        (350.0, 350.0, 2, 0.5),
    ]
    assert answers(np.empty((0, 3)), [], np.empty(0, int)).against([]) == []


def test_accuracy_against_a_condition_of_many_values_has_bins_of_equal_size():
    generator = np.random.default_rng(0)
    condition = generator.normal(size=600)
    # Right where the condition is high.
    share = np.eye(3)[np.where(condition > 0.0, 2, 1)]
    bins = answers(share, np.full(600, 6), generator.integers(20, size=600)).against(condition)
    assert [round(b["n"], -1) for b in bins] == [100] * 6
    assert all(first["high"] < second["low"] for first, second in itertools.pairwise(bins))
    assert [b["accuracy"] for b in bins[:2]] == [0.0, 0.0]
    assert [b["accuracy"] for b in bins[-2:]] == [1.0, 1.0]
    assert (bins[0]["low"], bins[-1]["high"]) == (condition.min(), condition.max())
    for b in bins:
        assert b["interval"][0] <= b["accuracy"] <= b["interval"][1]


def test_many_equal_values_of_a_condition_share_a_bin():
    condition = np.concatenate([np.zeros(500), np.arange(1.0, 101.0)])
    bins = answers(np.tile([0.0, 0.0, 1.0], (600, 1)), np.full(600, 6), np.arange(600) % 9).against(condition)
    assert sum(b["n"] for b in bins) == 600
    assert bins[0]["n"] >= 500
    assert bins[0]["low"] == 0.0


def test_groups_are_disjoint_full_and_of_one_material():
    materials = np.random.default_rng(0).permutation(np.repeat([3, 8, 1], [25, 4, 10]))
    groups = group_patterns(materials, 10, 0)
    for group in np.unique(groups[groups >= 0]):
        assert len(set(materials[groups == group])) == 1
    assert np.bincount(groups[groups >= 0]).tolist() == [10, 10, 10, 4]
    assert np.sum(groups == -1) == 5
    assert not np.array_equal(groups, group_patterns(materials, 10, 1))
