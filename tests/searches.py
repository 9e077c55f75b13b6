"""A search over settings of features and model, small enough for tests, and what it found."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

import worker_tasks
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.transformer import PatternFeatures
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import InvariantSpec

FOLDS = 3
#: Both are asked of each fold: how good a model is, and in which process it was tried.
SCORING = {"accuracy": "accuracy", "process": worker_tasks.process_of_worker}
SETTINGS = {
    "features__spec": [
        InvariantSpec(n_rings=3, n_orders=2, profile_width=0.2),
        InvariantSpec(n_rings=6, n_orders=3, profile_width=0.1),
    ],
    "model__n_leaves": [2, 4],
}


def labelled_patterns() -> tuple[PeakTable, np.ndarray, np.ndarray]:
    """Return turned patterns of square and oblong plane lattices, their labels and whose they are."""
    generator, tables = np.random.default_rng(4), []
    for index in range(48):
        steps = np.array([0.3, 0.3 if index % 2 == 0 else 0.43])
        grid = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2) * steps
        angle = generator.uniform(0.0, 2.0 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        intensity = np.exp(-2.0 * (grid**2).sum(axis=1)) * generator.uniform(0.5, 1.0, len(grid))
        tables.append(PeakTable.from_detected([grid @ turn.T], [intensity]))
    return PeakTable.concatenate(tables), np.arange(48) % 2, np.arange(48) // 4


def pipeline() -> Pipeline:
    """Return features and a model of one thread."""
    return Pipeline([("features", PatternFeatures()), ("model", BoostedClassifier(10, n_jobs=1))])


def searched(n_jobs: int | None) -> GridSearchCV:
    """Search with joblib's backend of the moment, or in this process."""
    table, labels, materials = labelled_patterns()
    search = GridSearchCV(
        pipeline(), SETTINGS, scoring=SCORING, refit="accuracy", cv=GroupKFold(FOLDS), n_jobs=n_jobs,
        error_score="raise",
    )  # fmt: skip
    return search.fit(table, labels, groups=materials)


def processes_of(search: Any) -> set[int]:
    """Return the processes in which a search tried its models."""
    return {
        int(process) for fold in range(FOLDS) for process in search.cv_results_[f"split{fold}_test_process"]
    }


def assert_same_search(there: GridSearchCV, here: GridSearchCV) -> None:
    """Both found the same, with the same scores, and predict the same."""
    for fold in range(FOLDS):
        name = f"split{fold}_test_accuracy"
        np.testing.assert_array_equal(there.cv_results_[name], here.cv_results_[name])
    assert there.best_params_ == here.best_params_
    assert there.best_score_ > 0.9
    table, _, _ = labelled_patterns()
    np.testing.assert_array_equal(there.predict_proba(table), here.predict_proba(table))
