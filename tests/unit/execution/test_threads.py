"""One thread a worker: the engine sets it, keeps it while it solves, and restores what was there."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from diffractory import Crystal, SimulationSpec
from diffractory.execution.engine import Engine, InlineEngine, ThreadEngine, open_engine
from diffractory.scattering.simulate import iterate_patterns, simulate_tilts
from worker_simulations import busy_threads_of_a_solve
from zoo import ZOO


def _blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_engine_sets_one_thread_and_restores_what_was_there() -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    spec = SimulationSpec(q_max=0.8)
    with threadpool_limits(limits=2, user_api="blas"):
        patterns = iterate_patterns(crystal, np.eye(3)[None], spec)
        next(patterns)
        assert _blas_threads() == {1}
        assert next(patterns, None) is None
        assert _blas_threads() == {2}
        simulate_tilts(crystal, np.eye(3), np.zeros((2, 2)), spec)
        assert _blas_threads() == {2}


def test_workers_are_not_oversubscribed() -> None:
    with open_engine("local", workers=2, worker_memory=2 * 10**9) as engine:
        outcomes = list(engine.run(busy_threads_of_a_solve, [0, 1]))
    for outcome in outcomes:
        assert outcome.error is None
        assert outcome.result == (1, {4})


@pytest.mark.parametrize("kind", [InlineEngine(), ThreadEngine(2)], ids=["inline", "threads"])
def test_blas_has_one_thread_wherever_work_runs(kind: Engine) -> None:
    # With more, sums end in other bits than on workers of a cluster.
    with threadpool_limits(2, user_api="blas"):
        assert _blas_threads() == {2}
        assert [outcome.result for outcome in kind.run(lambda _: _blas_threads(), range(3))] == [{1}] * 3
        assert _blas_threads() == {2}
