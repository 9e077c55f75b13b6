from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from diffractory.errors import ModelError
from diffractory.learning import boosting
from diffractory.learning.boosting import (
    BoostedClassifier,
    BoostedRegressor,
    trees_of_booster,
)
from diffractory.learning.trained_trees import normalised_log
from diffractory.learning.trees import TreeArrays, add_up, median, vote

GENERATOR = np.random.default_rng(2)
X = GENERATOR.normal(size=(300, 6)).astype(np.float32)
LABELS = np.digitize(X[:, 0] + 0.3 * X[:, 1], [-0.5, 0.5])
TARGETS = np.column_stack([X[:, 0] * X[:, 1], 5.0 + X[:, 2]]).astype(np.float64)
QUICK: dict[str, Any] = {"n_rounds": 8, "n_leaves": 7, "n_jobs": 1}


def boosted(y: np.ndarray, rows: np.ndarray = X, rounds: int = 12, **settings: Any) -> lightgbm.Booster:
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "seed": 0, **settings}
    return lightgbm.train(settings, lightgbm.Dataset(rows, y, params=settings), rounds)


def several(n_classes: int) -> dict[str, Any]:
    return {"objective": "multiclass", "num_class": n_classes}


def assert_same_margins(booster: lightgbm.Booster, rows: np.ndarray, n_outputs: int) -> TreeArrays:
    trees = trees_of_booster(booster.model_to_string())
    expected = booster.predict(rows, raw_score=True).reshape(len(rows), n_outputs)
    np.testing.assert_allclose(add_up(rows, trees, n_outputs), expected, rtol=1e-12, atol=1e-12)
    assert trees.n_trees == booster.num_trees()
    # As a model that is read from a file is checked: children after their parents, indices in range.
    TreeArrays.from_arrays(trees.to_arrays(), rows.shape[1], 1)
    return trees


def test_several_classes_add_up_as_in_lightgbm():
    assert_same_margins(boosted(LABELS, **several(3)), X, 3)
    assert_same_margins(boosted(LABELS, **several(3)), 3.0 * X[:, ::-1].copy(), 3)


def test_two_classes_and_one_target_add_up_as_in_lightgbm():
    assert_same_margins(boosted((LABELS > 0).astype(int), **several(2)), X, 2)
    assert_same_margins(boosted(TARGETS[:, 0], objective="regression_l1"), X, 1)


def test_trees_of_one_leaf_add_up_as_in_lightgbm():
    for rows in (X, np.zeros_like(X)):
        trees = assert_same_margins(boosted(LABELS, rows, **several(3), min_data_in_leaf=250), rows, 3)
        assert np.diff(trees.offsets).tolist() == [1, 1, 1]
    # A class that nobody has: its trees are single leaves among others.
    trees = assert_same_margins(boosted(np.where(LABELS == 1, 0, LABELS), **several(3)), X, 3)
    assert set(np.diff(trees.offsets)[1::3]) == {1}
    assert max(np.diff(trees.offsets)) > 3


def test_zeros_and_numbers_beside_thresholds_go_the_same_way_as_in_lightgbm():
    coarse = np.where(X > 0.2, np.round(X, 1), 0.0).astype(np.float32)
    booster = boosted(LABELS, coarse, **several(3))
    trees = assert_same_margins(booster, coarse, 3)
    used = trees.feature >= 0
    for number in (-0.0, 1e-40, -1e-40, 1e30, -1e30):
        assert_same_margins(booster, np.full((1, 6), number, dtype=np.float32), 3)
    for feature, threshold in zip(trees.feature[used], trees.threshold[used], strict=True):
        row = np.zeros((3, 6), dtype=np.float32)
        row[:, feature] = np.float32(threshold)
        row[1, feature] = np.nextafter(np.float32(threshold), np.float32(np.inf))
        row[2, feature] = np.nextafter(np.float32(threshold), np.float32(-np.inf))
        expected = booster.predict(row, raw_score=True)
        np.testing.assert_allclose(add_up(row, trees, 3), expected, rtol=1e-12, atol=1e-12)


def test_a_tree_that_splits_categories_is_refused():
    categories = np.random.default_rng(0).integers(0, 6, (300, 2)).astype(np.float32)
    data = lightgbm.Dataset(categories, categories[:, 0] % 2, categorical_feature=[0])
    booster = lightgbm.train({**several(2), "verbose": -1, "num_threads": 1, "cat_smooth": 1.0}, data, 3)
    with pytest.raises(ModelError, match="splits categories"):
        trees_of_booster(booster.model_to_string())


def test_no_trees_are_a_constant():
    assert trees_of_booster("tree\nversion=v4\n\nend of trees\n").n_trees == 1
    assert not add_up(X, trees_of_booster(""), 2).any()


def test_the_classifier_is_lightgbm_with_its_settings():
    model = BoostedClassifier(**QUICK, min_leaf=10, random_state=5).fit(X, LABELS)
    booster = boosted(
        LABELS, rounds=8, **several(3), learning_rate=0.1, num_leaves=7, min_data_in_leaf=10,
        feature_fraction=0.3, bagging_fraction=0.7, bagging_freq=1, lambda_l2=1.0, seed=5,
        deterministic=True, force_col_wise=True, max_bin=127, feature_pre_filter=False,
    )  # fmt: skip
    np.testing.assert_allclose(model.predict_proba(X), booster.predict(X), rtol=1e-9, atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), booster.predict(X).argmax(axis=1))


def test_the_classifier_learns_and_keeps_labels_as_they_are():
    names = np.array(["low", "middle", "high"])[LABELS]
    model = BoostedClassifier(40, n_leaves=7, n_jobs=1).fit(X, names)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    assert np.mean(model.predict(X) == names) > 0.95
    assert model.score(X, names) > 0.95
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    np.testing.assert_allclose(np.log(probability), model.predict_log_proba(X))
    assert probability.min() > 0.9e-6


def test_the_regressor_predicts_medians_of_each_target():
    model = BoostedRegressor(120, n_leaves=15, n_jobs=1).fit(X, TARGETS)
    predicted = model.predict(X)
    assert predicted.shape == TARGETS.shape
    assert np.median(np.abs(predicted - TARGETS), axis=0).max() < 0.25
    alone = BoostedRegressor(120, n_leaves=15, n_jobs=1).fit(X, TARGETS[:, 1])
    np.testing.assert_array_equal(alone.predict(X)[:, 0], predicted[:, 1])
    assert alone.n_outputs_ == 1


def test_targets_that_stop_early_and_late_stay_apart():
    targets = np.column_stack([np.full(300, 3.5), TARGETS[:, 1], np.full(300, -1.0)])
    predicted = BoostedRegressor(**QUICK).fit(X, targets).predict(X)
    np.testing.assert_allclose(predicted[:, 0], 3.5)
    np.testing.assert_allclose(predicted[:, 2], -1.0)
    assert np.ptp(predicted[:, 1]) > 0.5


def test_one_class_alone_is_a_constant():
    model = BoostedClassifier(**QUICK).fit(X[:9], np.full(9, 194))
    assert model.predict(X).tolist() == [194] * 300
    assert (model.predict_proba(X) == 1.0).all()
    assert (model.predict_log_proba(X) == 0.0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 30])
@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_few_rows_are_enough_for_a_classifier(n: int, n_classes: int):
    labels = np.arange(n) % n_classes
    model = BoostedClassifier(**QUICK).fit(X[:n], labels)
    assert model.classes_.tolist() == sorted(set(labels.tolist()))
    np.testing.assert_allclose(model.predict_proba(X[:20]).sum(axis=1), 1.0)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_few_rows_are_enough_for_a_regressor(n: int):
    predicted = BoostedRegressor(**QUICK).fit(X[:n], TARGETS[:n]).predict(X)
    assert (predicted >= TARGETS[:n].min(axis=0) - 1e-9).all()
    assert (predicted <= TARGETS[:n].max(axis=0) + 1e-9).all()


def test_one_row_is_learned_by_heart_by_a_regressor():
    np.testing.assert_allclose(BoostedRegressor(**QUICK).fit(X[:1], TARGETS[:1]).predict(X[:1]), TARGETS[:1])


def test_features_that_never_change_leave_the_shares_of_the_classes():
    model = BoostedClassifier(**QUICK).fit(np.ones((200, 3)), np.arange(200) % 4 == 0)
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 3))), [[0.75, 0.25]], atol=0.03)


def test_training_is_reproducible_whatever_the_threads():
    def trained(n_jobs: int, random_state: int) -> dict[str, np.ndarray]:
        model = BoostedClassifier(2, n_leaves=7, n_jobs=n_jobs, random_state=random_state)
        return model.fit(X, LABELS).trees_.to_arrays()

    first = trained(1, 3)
    for again in (trained(1, 3), trained(2, 3)):
        for name, array in again.items():
            np.testing.assert_array_equal(array, first[name])
    assert not np.array_equal(trained(1, 4)["threshold"], first["threshold"])


def test_prediction_is_the_same_row_by_row_and_for_no_row():
    model = BoostedClassifier(**QUICK).fit(X, LABELS)
    whole = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X[[290, 3]]), whole[[290, 3]])
    assert model.predict_proba(X[:0]).shape == (0, 3)
    assert model.predict(X[:0]).shape == (0,)


@pytest.mark.parametrize("kind", [BoostedClassifier, BoostedRegressor])
def test_scikit_learn_can_clone_it(kind: type):
    model = kind(n_rounds=3, learning_rate=0.2, n_leaves=5, min_leaf=7, l2=0.5, n_jobs=1, random_state=9)
    copy = clone(model.fit(X, LABELS))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "trees_")
    np.testing.assert_array_equal(copy.fit(X, LABELS).predict(X), model.predict(X))


@pytest.mark.parametrize("kind", [BoostedClassifier, BoostedRegressor])
def test_features_that_do_not_fit_are_refused(kind: type):
    spoilt = np.where(np.arange(300)[:, None] == 7, np.nan, X)
    with pytest.raises(ModelError, match="pattern 7 are not finite"):
        kind(**QUICK).fit(spoilt, LABELS)
    with pytest.raises(ModelError, match=r"300 rows of features with targets of shape \(299,\)"):
        kind(**QUICK).fit(X, LABELS[:-1])
    with pytest.raises(ModelError, match="at least one row"):
        kind(**QUICK).fit(X[:0], LABELS[:0])
    model = kind(**QUICK).fit(X, LABELS)
    with pytest.raises(ModelError, match="pattern 7 are not finite"):
        model.predict(spoilt)
    with pytest.raises(ModelError, match="trained on 6 features, got 5"):
        model.predict(X[:, :5])


def test_targets_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="targets must be finite"):
        BoostedRegressor(**QUICK).fit(X, np.where(LABELS == 1, np.inf, TARGETS[:, 0]))


def test_an_untrained_model_says_so():
    for predict in (
        BoostedClassifier().predict_proba,
        BoostedClassifier().predict_log_proba,
        BoostedRegressor().predict,
    ):
        with pytest.raises(ModelError, match="is not trained"):
            predict(X)


def test_an_untrained_classifier_says_so():
    with pytest.raises(ModelError, match="is not trained"):
        BoostedClassifier().predict(X)


def test_without_lightgbm_training_says_what_to_install_and_prediction_works(monkeypatch: pytest.MonkeyPatch):
    model = BoostedClassifier(**QUICK).fit(X, LABELS)

    def missing(name: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(boosting.importlib, "import_module", missing)
    with pytest.raises(ModelError, match=r"LightGBM cannot be loaded \(libgomp.*pip install lightgbm"):
        BoostedClassifier(**QUICK).fit(X, LABELS)
    assert len(model.predict(X)) == 300


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=5))
def test_logarithms_of_probabilities_are_normalised_and_bounded(margins: list[list[float]]):
    logs = normalised_log(np.array(margins))
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1.0)
    assert logs.min() >= np.log(1e-6 / (1.0 + 3e-6)) - 1e-9
    for row, given_row in zip(logs, margins, strict=True):
        assert row[int(np.argmax(given_row))] == row.max()


def test_normalised_logarithms_by_hand():
    np.testing.assert_allclose(np.exp(normalised_log(np.log([[1.0, 3.0]]) + 700.0)), [[0.25, 0.75]])
    np.testing.assert_allclose(np.exp(normalised_log(np.array([[0.0, -1e4]])))[0, 1], 1e-6, rtol=1e-5)


def stumps(*leaves: tuple[float, float]) -> TreeArrays:
    """Trees that ask whether feature 0 is at most ½, with a left and a right value each."""
    n = len(leaves)
    return TreeArrays(
        np.tile(np.array([1, -1, -1], dtype=np.int32), n),
        np.tile(np.array([2, -1, -1], dtype=np.int32), n),
        np.tile(np.array([0, -1, -1], dtype=np.int32), n),
        np.tile([0.5, 0.0, 0.0], n),
        np.arange(n + 1, dtype=np.int64) * 3,
        leaf_value=np.array([value for pair in leaves for value in (0.0, *pair)])[:, None],
    )


ROWS = np.array([[0.0], [0.5], [1.0]], dtype=np.float32)


def test_trees_add_to_the_outputs_in_turn():
    trees = stumps((1.0, 2.0), (10.0, 20.0), (100.0, 200.0), (1000.0, 2000.0))
    assert add_up(ROWS, trees, 2).tolist() == [[101.0, 1010.0], [101.0, 1010.0], [202.0, 2020.0]]
    assert add_up(ROWS, trees, 1).tolist() == [[1111.0], [1111.0], [2222.0]]
    assert add_up(ROWS, trees, 5)[2].tolist() == [2.0, 20.0, 200.0, 2000.0, 0.0]
    assert add_up(ROWS[:0], trees, 2).shape == (0, 2)


def test_interleaved_forests_keep_to_their_outputs():
    first, second, third = (
        stumps((1.0, 2.0)),
        stumps((10.0, 20.0), (0.5, 0.25), (3.0, 4.0)),
        TreeArrays.constant(),
    )
    joined = TreeArrays.interleave([first, second, third])
    assert joined.n_trees == 9
    expected = [add_up(ROWS, part, 1)[:, 0] for part in (first, second, third)]
    np.testing.assert_array_equal(add_up(ROWS, joined, 3), np.column_stack(expected))
    TreeArrays.from_arrays(joined.to_arrays(), 1, 1)


def test_concatenated_trees_come_one_after_another():
    joined = TreeArrays.concatenate(
        [stumps((1.0, 2.0)), TreeArrays.constant(), stumps((3.0, 4.0), (5.0, 6.0))]
    )
    assert joined.offsets.tolist() == [0, 3, 4, 7, 10]
    assert add_up(ROWS, joined, 4).tolist() == [[1.0, 0.0, 3.0, 5.0]] * 2 + [[2.0, 0.0, 4.0, 6.0]]
    assert joined.offsets.dtype == np.int64
    TreeArrays.from_arrays(joined.to_arrays(), 1, 1)


def test_a_constant_is_zero_everywhere():
    constant = TreeArrays.constant()
    assert not add_up(X, constant, 1).any()
    assert TreeArrays.from_arrays(constant.to_arrays(), 6, 1).n_trees == 1


def test_blocks_of_rows_make_no_difference():
    many = np.random.default_rng(0).normal(size=(1100, 6)).astype(np.float32)
    trees = trees_of_booster(boosted(LABELS, **several(3)).model_to_string())
    parts = [add_up(many[i : i + 100], trees, 3) for i in range(0, 1100, 100)]
    np.testing.assert_array_equal(add_up(many, trees, 3), np.concatenate(parts))


def test_kinds_of_trees_are_not_mixed_up():
    two_values = TreeArrays.from_arrays(
        stumps((1.0, 2.0)).to_arrays() | {"leaf_value": np.zeros((3, 2))}, 1, 2
    )
    with pytest.raises(ValueError, match="not boosted"):
        add_up(ROWS, two_values, 2)
    with pytest.raises(ValueError, match="predict values"):
        vote(ROWS, stumps((1.0, 2.0)), 2)
    assert median(ROWS, stumps((1.0, 2.0))).tolist() == [[1.0], [1.0], [2.0]]


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, float("nan")], ids=["nan", "none", "na", "float"])
def test_a_missing_label_is_refused(missing: Any):
    for labels in (LABELS.astype(object), np.array([f"group {label}" for label in LABELS], dtype=object)):
        labels[7] = missing
        with pytest.raises(ModelError, match=r"label of pattern 7 is missing.*Leave out"):
            BoostedClassifier(**QUICK).fit(X, labels)
    if isinstance(missing, float):
        with pytest.raises(ModelError, match="label of pattern 7 is missing"):
            BoostedClassifier(**QUICK).fit(X, np.where(np.arange(len(X)) == 7, missing, LABELS))


def test_labels_are_one_column():
    with pytest.raises(ModelError, match=r"labels must have shape"):
        BoostedClassifier(**QUICK).fit(X, np.column_stack([LABELS, LABELS]))
