"""Plain-array forests against scikit-learn's own trees, and Dask against plain training."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from distributed import Client
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from diffractory.learning.forests import MedianForestRegressor, VoteForestClassifier

GENERATOR = np.random.default_rng(2)
X = GENERATOR.random((700, 12)).astype(np.float32)
#: Few distinct values: thresholds fall midway, and many rows lie right on them after rounding.
STEPPED = np.round(GENERATOR.random((700, 12)) * 7).astype(np.float32) / 7
LABELS = ((X[:, 0] + X[:, 1] * X[:, 2] + GENERATOR.normal(0, 0.1, 700)) * 3).astype(int)
VALUES = np.column_stack([X[:, 0] * 5, X[:, 1] - X[:, 2], GENERATOR.random(700)])


@pytest.mark.parametrize("features", [X, STEPPED])
@pytest.mark.parametrize("depth", [None, 4])
def test_votes_are_those_of_scikit_learns_trees(features: np.ndarray, depth: int | None):
    forest = VoteForestClassifier(21, depth, random_state=3).fit(features[:400], LABELS[:400])
    reference = RandomForestClassifier(21, max_depth=depth, random_state=3).fit(features[:400], LABELS[:400])
    expected = np.zeros((700, len(reference.classes_)), dtype=int)
    for tree in reference.estimators_:
        expected[np.arange(700), tree.predict(features).astype(int)] += 1
    np.testing.assert_array_equal(forest.votes(features), expected)


@pytest.mark.parametrize("features", [X, STEPPED])
@pytest.mark.parametrize("n_trees", [9, 10])
def test_medians_are_those_of_scikit_learns_trees(features: np.ndarray, n_trees: int):
    forest = MedianForestRegressor(n_trees, 100, random_state=3).fit(features[:400], VALUES[:400])
    reference = RandomForestRegressor(n_trees, max_depth=100, max_features="sqrt", random_state=3)
    reference.fit(features[:400], VALUES[:400])
    expected = np.median([tree.predict(features) for tree in reference.estimators_], axis=0)
    np.testing.assert_array_equal(forest.predict(features), expected)


def test_training_on_dask_gives_the_same_trees():
    plain = VoteForestClassifier(12, random_state=3).fit(X, LABELS)
    with (
        Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client,
        joblib.parallel_config(backend="dask"),
    ):
        on_dask = VoteForestClassifier(12, random_state=3).fit(X, LABELS)
        story = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.transition_log))
    assert story > 0, "the trees were not trained on the cluster"
    for name, array in plain.trees_.to_arrays().items():
        np.testing.assert_array_equal(on_dask.trees_.to_arrays()[name], array)
