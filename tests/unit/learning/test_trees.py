from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from diffractory.errors import ModelError
from diffractory.learning.trees import TreeArrays, add_up, median, vote

GENERATOR = np.random.default_rng(4)
X = GENERATOR.random((60, 5)).astype(np.float32)
LABELS = (X[:, 0] * 3).astype(int)
VALUES = X[:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]])


def classifier_trees() -> TreeArrays:
    forest = RandomForestClassifier(4, random_state=0).fit(X, LABELS)
    return TreeArrays.from_trees([tree.tree_ for tree in forest.estimators_], classifier=True)


def regressor_trees() -> TreeArrays:
    forest = RandomForestRegressor(4, random_state=0).fit(X, VALUES)
    return TreeArrays.from_trees([tree.tree_ for tree in forest.estimators_], classifier=False)


def stump(leaves: tuple[int, int] = (0, 1), threshold: float = 0.5) -> dict[str, Any]:
    return {
        "left": np.array([1, -1, -1], dtype=np.int32),
        "right": np.array([2, -1, -1], dtype=np.int32),
        "feature": np.array([0, -1, -1], dtype=np.int32),
        "threshold": np.array([threshold, 0.0, 0.0]),
        "offsets": np.array([0, 3]),
        "leaf_class": np.array([-1, *leaves], dtype=np.int32),
    }


def test_a_row_goes_left_up_to_and_including_the_threshold():
    rows = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(1.0))], [-9.0]], dtype=np.float32)
    votes = vote(rows, TreeArrays.from_arrays(stump(), 1, 2), 2)
    assert votes.tolist() == [[1, 0], [0, 1], [1, 0]]


def test_median_of_an_even_number_of_trees_is_the_mean_of_the_middle_two():
    leaf = {name: array[1:2] for name, array in stump().items() if name not in ("offsets", "leaf_class")}
    arrays = {name: np.tile(array, 4) for name, array in leaf.items()}
    arrays |= {"offsets": np.arange(5), "leaf_value": np.array([[1.0], [9.0], [2.0], [5.0]])}
    assert (
        median(np.zeros((2, 1), dtype=np.float32), TreeArrays.from_arrays(arrays, 1, 1)).tolist()
        == [[3.5]] * 2
    )


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 60, 300])
def test_boosted_trees_add_up_whatever_the_number_of_rows(n: int):
    forest = RandomForestRegressor(5, random_state=0).fit(X, VALUES[:, 0])
    trees = [tree.tree_ for tree in forest.estimators_]
    rows = np.resize(X, (n, X.shape[1]))
    each = np.array([tree.predict(rows)[:, 0] for tree in trees]).reshape(5, n)
    sums = add_up(rows, TreeArrays.from_trees(trees, classifier=False), 2)
    np.testing.assert_allclose(sums[:, 0], each[[0, 2, 4]].sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums[:, 1], each[[1, 3]].sum(axis=0), rtol=1e-12)


def test_no_rows_give_no_votes():
    empty = np.empty((0, 5), dtype=np.float32)
    assert vote(empty, classifier_trees(), 3).shape == (0, 3)
    assert median(empty, regressor_trees()).shape == (0, 2)


def test_arrays_can_be_stored_without_pickle_and_come_back(tmp_path):
    for trees, n_outputs in ((classifier_trees(), 3), (regressor_trees(), 2)):
        np.savez(tmp_path / "trees.npz", **trees.to_arrays())
        with np.load(tmp_path / "trees.npz", allow_pickle=False) as stored:
            loaded = TreeArrays.from_arrays(dict(stored), 5, n_outputs)
        assert loaded.n_trees == 4
        for name, array in trees.to_arrays().items():
            np.testing.assert_array_equal(loaded.to_arrays()[name], array)


def test_kinds_of_forest_are_not_mixed_up():
    with pytest.raises(ValueError, match="predict values"):
        vote(X, regressor_trees(), 3)
    with pytest.raises(ValueError, match="predict classes"):
        median(X, classifier_trees())


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": int32(3, -1, -1)}, "children outside its tree"),
        ({"left": int32(0, -1, -1)}, "children outside its tree"),  # round in a circle
        ({"right": int32(-1, -1, -1)}, "children outside its tree"),
        ({"left": int32(-2, -1, -1)}, "children outside its tree"),
        ({"right": int32(2, 2, -1)}, "children outside its tree"),
        ({"right": int32(1, -1, -1)}, "the child of none or of several"),
        ({"feature": int32(7, -1, -1)}, "a feature outside 0 … 0"),
        ({"feature": int32(-1, -1, -1)}, "a feature outside"),
        ({"leaf_class": int32(-1, 0, 2)}, "a class outside 0 … 1"),
        ({"leaf_class": int32(-1, -1, 1)}, "a class outside"),
        ({"threshold": np.array([np.nan, 0.0, 0.0])}, "not finite"),
        ({"threshold": np.zeros(2)}, "different lengths"),
        ({"threshold": np.zeros(3, dtype=np.float32)}, "'threshold' of a forest has float32"),
        ({"left": np.zeros((3, 1), dtype=np.int32)}, r"'left' of a forest has int32 \(3, 1\)"),
        ({"offsets": np.array([0, 2])}, "offsets"),
        ({"offsets": np.array([0, 4])}, "offsets"),
        ({"offsets": np.array([0, 0, 3])}, "offsets"),
        ({"offsets": np.array([3])}, "offsets"),
        ({"offsets": np.array([0, 9, 3])}, "offsets"),
        ({"leaf_value": np.zeros((3, 1))}, "not complete"),
        ({"extra": np.zeros(3)}, "not complete"),
    ],
)
def test_hostile_arrays_are_refused(change: dict[str, np.ndarray], message: str):
    TreeArrays.from_arrays(stump(), 1, 2)
    with pytest.raises(ModelError, match=message):
        TreeArrays.from_arrays(stump() | change, 1, 2)


def test_hostile_leaf_values_are_refused():
    arrays = {name: array for name, array in stump().items() if name != "leaf_class"}
    with pytest.raises(ModelError, match="not complete"):
        TreeArrays.from_arrays(arrays, 1, 3)
    with pytest.raises(ModelError, match="hold 2 values, expected 3"):
        TreeArrays.from_arrays(arrays | {"leaf_value": np.zeros((3, 2))}, 1, 3)
    with pytest.raises(ModelError, match="not finite"):
        TreeArrays.from_arrays(arrays | {"leaf_value": np.full((3, 3), np.inf)}, 1, 3)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        # Children shared: 32 leaves by the count that compiled code makes, in 6 nodes.
        ((1, 2, 3, 4, 5, -1), (1, 2, 3, 4, 5, -1)),
        # A leaf that nothing leads to: where its value would be written is left to chance.
        ((1, -1, -1, -1), (2, -1, -1, -1)),
        # Two nodes share a child, and another is nobody's.
        ((1, 3, 3, -1, -1, -1), (2, 4, 4, -1, -1, -1)),
    ],
)
def test_nodes_met_twice_or_never_are_refused(left: tuple[int, ...], right: tuple[int, ...]):
    n = len(left)
    inner = np.array(left) >= 0
    arrays = {
        "left": int32(*left),
        "right": int32(*right),
        "feature": np.where(inner, 0, -1).astype(np.int32),
        "threshold": np.zeros(n),
        "offsets": np.array([0, n]),
        "leaf_value": np.ones((n, 1)),
    }
    with pytest.raises(ModelError, match="the child of none or of several"):
        TreeArrays.from_arrays(arrays, 1, 1)


def test_the_second_tree_may_not_lead_into_the_first():
    first, second = stump(), stump()
    arrays = {name: np.concatenate([first[name], second[name]]) for name in first if name != "offsets"}
    arrays["offsets"] = np.array([0, 3, 6])
    assert TreeArrays.from_arrays(arrays, 1, 2).n_trees == 2
    arrays["right"][3] = 1
    with pytest.raises(ModelError, match="the child of none or of several"):
        TreeArrays.from_arrays(arrays, 1, 2)
