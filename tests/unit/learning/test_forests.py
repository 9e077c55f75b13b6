from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from diffractory.errors import ModelError
from diffractory.learning.forests import MedianForestRegressor, VoteForestClassifier

GENERATOR = np.random.default_rng(8)
X = GENERATOR.random((120, 6)).astype(np.float32)
LABELS = np.array([16, 47, 62])[(X[:, 0] * 3).astype(int)]
VALUES = np.column_stack([X[:, 0] * 4 + 2, X[:, 1]])

FORESTS = [(VoteForestClassifier, LABELS), (MedianForestRegressor, VALUES)]


def test_votes_add_up_and_decide():
    forest = VoteForestClassifier(15, random_state=1).fit(X, LABELS)
    votes = forest.votes(X)
    assert votes.dtype == np.int32
    assert forest.classes_.tolist() == [16, 47, 62]
    assert forest.n_features_in_ == 6
    assert (votes.sum(axis=1) == 15).all()
    np.testing.assert_array_equal(forest.predict_proba(X), votes / 15)
    np.testing.assert_array_equal(forest.predict(X), forest.classes_[votes.argmax(axis=1)])
    assert forest.score(X, LABELS) > 0.95


def test_lower_class_wins_a_tie(monkeypatch: pytest.MonkeyPatch):
    forest = VoteForestClassifier(2, random_state=1).fit(X, LABELS)
    monkeypatch.setattr(forest, "votes", lambda X: np.array([[0, 1, 1], [1, 0, 1]]))
    assert forest.predict(X[:2]).tolist() == [47, 16]


def test_one_class_is_learned_as_a_constant():
    forest = VoteForestClassifier(3).fit(X[:5], np.full(5, 225))
    assert forest.votes(X).tolist() == [[3]] * 120
    assert set(forest.predict(X)) == {225}


def test_regressor_predicts_every_target():
    forest = MedianForestRegressor(20, max_features=None, random_state=0).fit(X, VALUES)
    predicted = forest.predict(X)
    assert predicted.shape == (120, 2)
    assert np.median(np.abs(predicted - VALUES), axis=0).max() < 0.1
    single = MedianForestRegressor(5, random_state=0).fit(X, VALUES[:, 0])
    assert single.predict(X).shape == (120,)


@pytest.mark.parametrize(("kind", "y"), FORESTS)
def test_scikit_learn_can_clone_and_configure(kind: Any, y: np.ndarray):
    forest = kind(n_estimators=4, max_depth=3, random_state=5).fit(X, y)
    copy = clone(forest)
    assert copy.get_params() == forest.get_params()
    assert not hasattr(copy, "trees_")
    np.testing.assert_array_equal(copy.fit(X, y).predict(X), forest.predict(X))
    assert copy.set_params(n_estimators=2).fit(X, y).trees_.n_trees == 2


@pytest.mark.parametrize(("kind", "y"), FORESTS)
def test_bad_input_is_refused(kind: Any, y: np.ndarray):
    with pytest.raises(ModelError, match=r"is not trained.*Call fit first"):
        kind().predict(X)
    forest = kind(2).fit(X, y)
    with pytest.raises(ModelError, match="trained on 6 features, got 4"):
        forest.predict(X[:, :4])
    for value in (np.nan, np.inf):
        bad = X.copy()
        bad[7, 2] = value
        with pytest.raises(ModelError, match="features of pattern 7 are not finite"):
            forest.predict(bad)
        with pytest.raises(ModelError, match="features of pattern 7 are not finite"):
            kind(2).fit(bad, y)
    with pytest.raises(ModelError, match=r"\(n_patterns, n_features\), got \(6,\)"):
        forest.predict(X[0])
    with pytest.raises(ModelError, match="not a matrix of numbers"):
        forest.predict([["a", "b"]])
    with pytest.raises(ModelError, match="120 rows of features with targets of shape"):
        kind(2).fit(X, y[:7])
    with pytest.raises(ModelError, match="at least one row"):
        kind(2).fit(X[:0], y[:0])


def test_targets_that_are_not_finite_are_refused():
    values = VALUES.copy()
    values[3, 0] = np.nan
    with pytest.raises(ModelError, match="targets must be finite"):
        MedianForestRegressor(2).fit(X, values)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, float("nan")], ids=["nan", "none", "na", "float"])
def test_a_missing_label_is_refused(missing: Any):
    for labels in (LABELS.astype(object), np.array([f"group {label}" for label in LABELS], dtype=object)):
        labels[7] = missing
        with pytest.raises(ModelError, match=r"label of pattern 7 is missing.*Leave out"):
            VoteForestClassifier(2).fit(X, labels)
    if isinstance(missing, float):
        with pytest.raises(ModelError, match="label of pattern 7 is missing"):
            VoteForestClassifier(2).fit(X, np.where(np.arange(len(X)) == 7, missing, LABELS))


def test_labels_are_one_column():
    with pytest.raises(ModelError, match=r"labels must have shape"):
        VoteForestClassifier(2).fit(X, np.column_stack([LABELS, LABELS]))
