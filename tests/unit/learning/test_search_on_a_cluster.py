"""Settings of features and models are searched on worker processes of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask_ml.model_selection
import numpy as np
import pytest
from distributed import Client
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

import worker_tasks
from diffractory.execution.engine import DaskEngine, open_engine
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.transformer import PatternFeatures
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import InvariantSpec

COARSE = InvariantSpec(n_rings=3, n_orders=2, profile_width=0.2)
FINE = InvariantSpec(n_rings=6, n_orders=3, profile_width=0.1)
SETTINGS = {"features__spec": [COARSE, FINE], "model__n_leaves": [2, 4]}
FOLDS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskEngine]:
    # Workers import the scorer by name.
    tests = str(Path(worker_tasks.__file__).parent)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONPATH": tests}),
        open_engine("local", 2, 2_000_000_000) as engine,
    ):
        assert isinstance(engine, DaskEngine)
        yield engine


@pytest.fixture(scope="module")
def patterns() -> tuple[PeakTable, np.ndarray, np.ndarray]:
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


def _pipeline() -> Pipeline:
    return Pipeline([("features", PatternFeatures()), ("model", BoostedClassifier(10, n_jobs=1))])


def _scores(search: Any, fold: int, name: str) -> list[float]:
    return [float(value) for value in search.cv_results_[f"split{fold}_test_{name}"]]


def test_joblib_searches_on_worker_processes_and_finds_what_one_process_finds(
    cluster: DaskEngine, patterns: tuple[PeakTable, np.ndarray, np.ndarray]
) -> None:
    table, labels, materials = patterns

    def searched() -> GridSearchCV:
        scoring = {"accuracy": "accuracy", "process": worker_tasks.process_of_worker}
        search = GridSearchCV(
            _pipeline(), SETTINGS, scoring=scoring, refit="accuracy", cv=GroupKFold(FOLDS), n_jobs=-1,
            error_score="raise",
        )  # fmt: skip
        return search.fit(table, labels, groups=materials)

    with cluster.joblib():
        there = searched()
    here = searched().set_params(n_jobs=None)
    workers = set(cluster._client.run(os.getpid).values())
    asked = {process for fold in range(FOLDS) for process in _scores(there, fold, "process")}
    assert asked
    assert asked <= workers
    assert os.getpid() not in workers
    for fold in range(FOLDS):
        assert _scores(there, fold, "accuracy") == _scores(here, fold, "accuracy")
    assert there.best_params_ == here.best_params_
    assert there.best_score_ > 0.9
    np.testing.assert_array_equal(there.predict_proba(table), here.predict_proba(table))


def test_dask_ml_searches_on_the_same_workers(
    cluster: DaskEngine, patterns: tuple[PeakTable, np.ndarray, np.ndarray]
) -> None:
    table, labels, materials = patterns
    client: Client = cluster._client
    search = dask_ml.model_selection.GridSearchCV(
        _pipeline(), SETTINGS, cv=GroupKFold(FOLDS), scheduler=client, error_score="raise",
        scoring={"accuracy": "accuracy", "process": worker_tasks.process_of_worker}, refit="accuracy",
    )  # fmt: skip
    search.fit(table, labels, groups=materials)
    workers = set(client.run(os.getpid).values())
    asked = {process for fold in range(FOLDS) for process in _scores(search, fold, "process")}
    assert asked
    assert asked <= workers
    assert search.best_score_ > 0.9
    assert len(search.cv_results_["params"]) == 4
