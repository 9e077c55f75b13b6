from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import cross_val_score

from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.boosting import BoostedClassifier, BoostedRegressor
from diffractory.learning.forests import MedianForestRegressor, VoteForestClassifier
from diffractory.learning.hierarchy import SymmetryHierarchy
from diffractory.specs import BoostingSpec

X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
ABOVE = np.where(X[:, 0] > 0.0, "above", "below")
MODELS = [
    BoostedClassifier(7, n_leaves=5),
    BoostedRegressor(7, l2=0.5),
    VoteForestClassifier(9, max_features=None),
    MedianForestRegressor(9, random_state=3),
    BoostedHierarchy(BoostingSpec(seed=4), n_jobs=2),
    SymmetryHierarchy(),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_clone_has_the_same_parameters_and_is_another(model: Any) -> None:
    copy = clone(model)
    assert copy is not model
    assert type(copy) is type(model)
    assert copy.get_params() == model.get_params() == vars(model)


def test_parameters_are_set_by_name() -> None:
    model = BoostedClassifier()
    assert model.set_params(n_rounds=3, l2=0.0) is model
    assert (model.n_rounds, model.l2, model.n_leaves) == (3, 0.0, BoostedClassifier().n_leaves)


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="BoostedClassifier has no parameter 'rounds', only n_rounds"):
        BoostedClassifier().set_params(rounds=3)


def test_an_estimator_tells_what_was_chosen() -> None:
    assert (
        repr(VoteForestClassifier(9, max_depth=None))
        == "VoteForestClassifier(n_estimators=9, max_depth=None)"
    )
    assert repr(MedianForestRegressor()) == "MedianForestRegressor()"


def test_scikit_learn_tells_classifiers_from_regressors() -> None:
    for classifier in (VoteForestClassifier(), BoostedClassifier()):
        assert is_classifier(classifier)
        assert not is_regressor(classifier)
    for regressor in (MedianForestRegressor(), BoostedRegressor()):
        assert is_regressor(regressor)
        assert not is_classifier(regressor)


def test_scores_are_those_of_scikit_learn() -> None:
    forest = VoteForestClassifier(5, max_depth=1, random_state=0).fit(X, ABOVE)
    weight = np.arange(len(X), dtype=float)
    assert forest.score(X, ABOVE, weight) == accuracy_score(ABOVE, forest.predict(X), sample_weight=weight)
    medians = MedianForestRegressor(5, max_depth=2, random_state=0).fit(X, X[:, :2])
    assert 0.0 < medians.score(X, X[:, :2]) == r2_score(X[:, :2], medians.predict(X)) < 1.0


def test_scikit_learn_validates_a_forest_across_parts() -> None:
    found = cross_val_score(VoteForestClassifier(10, random_state=0), X, ABOVE, cv=3)
    assert found.shape == (3,)
    assert found.min() > 0.9
