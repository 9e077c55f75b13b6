"""Settings of features and models are searched on worker processes of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import dask_ml.model_selection
import pytest
from distributed import Client
from sklearn.model_selection import GroupKFold

import searches
from diffractory.execution.engine import DaskEngine, open_engine


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskEngine]:
    # Workers import the scorer by name.
    tests = str(Path(searches.__file__).parent)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONPATH": tests}),
        open_engine("local", 2, 2_000_000_000) as engine,
    ):
        assert isinstance(engine, DaskEngine)
        yield engine


def test_joblib_searches_on_worker_processes_and_finds_what_one_process_finds(cluster: DaskEngine) -> None:
    with cluster.joblib():
        there = searches.searched(n_jobs=-1)
    workers = set(cluster._client.run(os.getpid).values())
    asked = searches.processes_of(there)
    assert asked
    assert asked <= workers
    assert os.getpid() not in workers
    searches.assert_same_search(there, searches.searched(n_jobs=None))


def test_dask_ml_searches_on_the_same_workers(cluster: DaskEngine) -> None:
    table, labels, materials = searches.labelled_patterns()
    client: Client = cluster._client
    search = dask_ml.model_selection.GridSearchCV(
        searches.pipeline(), searches.SETTINGS, cv=GroupKFold(searches.FOLDS), scheduler=client,
        error_score="raise", scoring=searches.SCORING, refit="accuracy",
    )  # fmt: skip
    search.fit(table, labels, groups=materials)
    workers = set(client.run(os.getpid).values())
    asked = searches.processes_of(search)
    assert asked
    assert asked <= workers
    assert search.best_score_ > 0.9
    assert len(search.cv_results_["params"]) == 4
