from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from diffractory.learning import growing
from diffractory.learning.forests import VoteForestClassifier
from diffractory.learning.growing import grow_trees, training_memory
from diffractory.learning.trees import TreeArrays
from tree_checks import assert_same_trees

GENERATOR = np.random.default_rng(3)
X = GENERATOR.random((90, 6)).astype(np.float32)
LABELS = (X[:, 0] * 3).astype(int)
VALUES = X[:, :2].astype(np.float64) @ np.array([[1.0, 2.0], [0.5, -1.0]])
SETTINGS = {"max_depth": 5, "max_features": "sqrt"}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_trees_are_those_of_scikit_learns_forests_whatever_the_number_of_tasks(n_jobs: int):
    forest = RandomForestClassifier(9, **SETTINGS, random_state=5).fit(X, LABELS)
    expected = TreeArrays.from_trees([tree.tree_ for tree in forest.estimators_], classifier=True)
    assert_same_trees(grow_trees("classifier", X, LABELS, 9, SETTINGS, 5, n_jobs), expected)
    regressor = RandomForestRegressor(9, **SETTINGS, random_state=5).fit(X, VALUES)
    expected = TreeArrays.from_trees([tree.tree_ for tree in regressor.estimators_], classifier=False)
    assert_same_trees(grow_trees("regressor", X, VALUES, 9, SETTINGS, 5, n_jobs), expected)


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "features.npy", X)
    rows: np.ndarray = np.load(tmp_path / "features.npy", mmap_mode="r")
    return rows


SLICES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda rows: rows,
    "some": lambda rows: rows[20:70],
    "some of some": lambda rows: np.asarray(rows[10:80])[10:60],
    "one": lambda rows: rows[33:34],
}


@pytest.mark.parametrize("name", SLICES)
def test_mapped_rows_give_the_same_trees_and_are_not_sent(
    mapped: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
):
    chosen, taken = SLICES[name](mapped), SLICES[name](np.arange(90)[:, None])[:, 0]
    sent = []
    grow = growing._grow

    def watched(kind: str, rows: Any, *others: Any) -> TreeArrays:
        sent.append(rows)
        return grow(kind, rows, *others)

    monkeypatch.setattr(growing, "_grow", watched)
    found = grow_trees("classifier", chosen, LABELS[taken], 4, SETTINGS, 0, 1)
    assert_same_trees(found, grow_trees("classifier", X[taken], LABELS[taken], 4, SETTINGS, 0, 1))
    assert [isinstance(rows, np.ndarray) for rows in sent] == [False] * (len(sent) // 2) + [True] * (
        len(sent) // 2
    )


@pytest.mark.parametrize(
    "spoil",
    [lambda rows: rows[::2], lambda rows: rows[::-1], lambda rows: rows[:, :4], lambda rows: rows[:, ::-1]],
)
def test_rows_that_do_not_follow_each_other_are_right_too(mapped: np.ndarray, spoil: Callable):
    n = len(spoil(X))
    expected = grow_trees("classifier", np.ascontiguousarray(spoil(X)), LABELS[:n], 3, SETTINGS, 0, 1)
    assert_same_trees(grow_trees("classifier", spoil(mapped), LABELS[:n], 3, SETTINGS, 0, 1), expected)


def test_other_workers_map_the_rows_themselves(mapped: np.ndarray):
    found = grow_trees("regressor", mapped[15:75], VALUES[15:75], 6, SETTINGS, 1, 2)
    assert_same_trees(found, grow_trees("regressor", X[15:75], VALUES[15:75], 6, SETTINGS, 1, 1))


def test_a_map_of_plain_numbers_is_learned_from_too(tmp_path: Path):
    X.tofile(tmp_path / "features.dat")
    rows = np.memmap(tmp_path / "features.dat", np.float32, "r", shape=X.shape)
    found = VoteForestClassifier(3, random_state=0, n_jobs=1).fit(rows, LABELS)
    assert_same_trees(found.trees_, VoteForestClassifier(3, random_state=0, n_jobs=1).fit(X, LABELS).trees_)


def test_rows_changed_in_memory_only_are_learned_from_as_they_are(mapped: np.ndarray):
    changed = np.load(mapped.filename, mmap_mode="c")
    changed[:, 0] = 0.0
    assert_same_trees(
        grow_trees("classifier", changed, LABELS, 3, SETTINGS, 0, 1),
        grow_trees("classifier", np.array(changed), LABELS, 3, SETTINGS, 0, 1),
    )


def test_memory_counts_the_matrix_once_and_the_rest_for_each_worker():
    one, two, three = (training_memory(1000, 50, 3, workers) for workers in (1, 2, 3))
    assert three - two == two - one > 8 * 1000 * 3
    assert one - (two - one) == 4 * 1000 * 50


def test_a_file_that_is_no_npy_is_sent_and_not_named(tmp_path: Path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(64) + X.tobytes())
    raw: np.ndarray = np.memmap(path, np.float32, "r", offset=64, shape=X.shape)
    assert growing._mapped_rows(raw) is None
    found = grow_trees("classifier", raw, LABELS, 4, SETTINGS, 0, 1)
    assert_same_trees(found, grow_trees("classifier", X, LABELS, 4, SETTINGS, 0, 1))


def test_beside_a_matrix_where_nothing_can_be_written(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(growing.os, "access", lambda *_: False)
    monkeypatch.setattr(growing, "_beside", lambda *_: pytest.fail("it was tried"))
    found = grow_trees("classifier", mapped, LABELS, 4, SETTINGS, 0, 1)
    assert_same_trees(found, grow_trees("classifier", X, LABELS, 4, SETTINGS, 0, 1))
