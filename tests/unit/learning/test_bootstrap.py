from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.learning.bootstrap import (
    bootstrap_calibration_interval,
    bootstrap_interval,
    bootstrap_median_interval,
)


def test_intervals_resample_materials():
    # All patterns of a material are right or wrong together: as uncertain as ten patterns are.
    materials = np.repeat(np.arange(10), 100)
    low, high = bootstrap_interval(materials < 5, materials, 500, 0)
    assert low < 0.3
    assert high > 0.7
    assert bootstrap_interval(np.ones(5, bool), np.zeros(5, int), 10, 0) is None
    assert bootstrap_interval(np.ones(20, bool), np.arange(20), 50, 0) == [1.0, 1.0]


def test_interval_resamples_materials_not_patterns():
    generator = np.random.default_rng(0)
    by_material = generator.random(40) < 0.5
    right, materials = np.repeat(by_material, 100), np.repeat(np.arange(40), 100)
    low, high = bootstrap_interval(right, materials, 1000, 0)
    assert low < right.mean() < high
    # 40 independent materials: about ± 2 · 0.5/√40 = 0.16; 4000 patterns would give ± 0.016.
    assert 0.2 < high - low < 0.4
    assert bootstrap_interval(right, materials, 1000, 0) == [low, high]
    assert bootstrap_interval(right, np.zeros(4000, dtype=int), 10, 0) is None


def test_interval_of_a_median_resamples_materials():
    generator = np.random.default_rng(5)
    materials = np.repeat(np.arange(40), generator.integers(1, 6, 40))
    values = generator.exponential(size=len(materials)) + 0.2 * materials
    found = bootstrap_median_interval(values, materials, 1000, 3)
    assert found is not None
    drawn = np.random.default_rng([3, 40])
    members = [values[materials == number] for number in range(40)]
    medians = [
        np.median(np.concatenate([members[i] for i in drawn.integers(40, size=40)])) for _ in range(1000)
    ]
    np.testing.assert_allclose(found, np.percentile(medians, [2.5, 97.5]), rtol=0.02)
    assert bootstrap_median_interval(values[:1], materials[:1], 10, 0) is None
    values[materials < 30] = np.inf
    assert bootstrap_median_interval(values, materials, 100, 0) is None


def _answered(seed: int, too_sure: float, n_materials: int = 150) -> tuple[np.ndarray, ...]:
    """Return answers of materials with ten patterns each, right less often than they are sure."""
    generator = np.random.default_rng(seed)
    materials = np.repeat(np.arange(n_materials), 10)
    confidence = generator.uniform(0.4, 0.95, len(materials))
    # What is drawn for a material goes for its patterns together: they are alike.
    drawn = np.where(
        generator.random(len(materials)) < 0.5,
        generator.random(n_materials)[materials],
        generator.random(len(materials)),
    )
    right = drawn < confidence - too_sure
    return right, (10 * confidence).astype(int), confidence, materials


def _error(right: np.ndarray, place: np.ndarray, confidence: np.ndarray) -> float:
    bins = np.bincount(place, confidence - right)
    return float(np.abs(bins).sum() / len(right))


@pytest.mark.parametrize("too_sure", [0.0, 0.01, 0.04, 0.15])
@pytest.mark.parametrize("n_materials", [40, 300])
def test_calibration_interval_holds_what_is_true_as_often_as_it_says(too_sure: float, n_materials: int):
    trials = 100
    ends = np.array(
        [
            bootstrap_calibration_interval(*_answered(seed, too_sure, n_materials), 200, seed)
            for seed in range(trials)
        ]
    )
    # At least 95 of 100 are promised; 88 would be three standard deviations fewer.
    assert np.sum((ends[:, 0] <= too_sure) & (too_sure <= ends[:, 1])) >= 89
    # And it is of use: no wider than chance makes the bins.
    assert np.median(ends[:, 1] - ends[:, 0]) < 2.6 / np.sqrt(n_materials)


def test_answers_that_are_as_sure_as_right_are_told_from_those_that_are_not():
    assert bootstrap_calibration_interval(*_answered(0, 0.0), 200, 0)[0] == 0.0
    assert bootstrap_calibration_interval(*_answered(0, 0.2), 200, 0)[0] > 0.1


def test_calibration_interval_by_hand():
    # Each material has one answer in a bin of its own: what is drawn is what counts.
    right, confidence = np.array([True, False]), np.array([0.75, 0.25])
    found = bootstrap_calibration_interval(right, np.array([1, 0]), confidence, np.array([4, 9]), 100, 0)
    # Both are off by 0.25 in bins of their own; one drawn twice doubles its bin, the other is empty.
    assert found == [0.0, pytest.approx(0.5)]
    nothing = bootstrap_calibration_interval(right, np.zeros(2, int), confidence, np.zeros(2, int), 100, 0)
    assert nothing is None


@given(
    answers=st.lists(
        st.tuples(st.booleans(), st.floats(0.0, 1.0), st.integers(0, 5)), min_size=1, max_size=40
    )
)
def test_calibration_interval_holds_the_estimate(answers: list[tuple[bool, float, int]]):
    right, confidence, materials = (np.array(column) for column in zip(*answers, strict=True))
    place = np.minimum((10 * confidence).astype(int), 9)
    found = bootstrap_calibration_interval(right, place, confidence, materials, 50, 1)
    if len(set(materials.tolist())) < 2:
        assert found is None
        return
    low, high = found
    assert 0.0 <= low <= _error(right, place, confidence) + 1e-12
    assert high >= _error(right, place, confidence) - 1e-12
    again = bootstrap_calibration_interval(right, place, confidence, materials, 50, 1)
    assert again == found
