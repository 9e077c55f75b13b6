"""joblib, and so forests and searches, on workers in jobs of a real SLURM."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from joblib import Parallel, delayed

import searches
import worker_tasks
from cli_runs import refused, succeeds
from diffractory.dataset.run import Run
from diffractory.errors import ExecutionError
from diffractory.execution.slurm import SlurmEngine, open_slurm
from diffractory.learning.forests import VoteForestClassifier
from slurm_testbed import SITE, Asked, Testbed, command, wait_until
from small_runs import small_plan, zoo_catalogue
from tree_checks import assert_same_trees


def _features(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features that lie in a file, and labels that follow from some of them."""
    X = np.random.default_rng(0).normal(size=(6000, 40)).astype(np.float32)
    np.save(folder / "features.npy", X)
    return np.load(folder / "features.npy", mmap_mode="r"), (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


def test_a_forest_is_the_same_although_a_job_is_cancelled(testbed: Testbed, asked: Asked):
    X, y = _features(asked.folder)
    forest = VoteForestClassifier(40, random_state=0, n_jobs=-1)
    cancelled: list[str] = []

    def cancel_one() -> None:
        wait_until(lambda: testbed.jobs("RUNNING"))
        # Once it holds work: until then nothing would be lost with it.
        wait_until(lambda: any(client.processing().values()))
        cancelled.extend(testbed.jobs("RUNNING")[:1])
        command("scancel", *cancelled)
        wait_until(lambda: [told for told in asked.told if f"job {cancelled[0]} " in told])

    with open_slurm(asked.jobs(2)) as engine, engine.joblib():
        assert isinstance(engine, SlurmEngine)
        client = engine._client
        fault = Thread(target=cancel_one)
        fault.start()
        forest.fit(X, y)
        fault.join()
    assert cancelled
    assert asked.told
    assert_same_trees(forest.trees_, VoteForestClassifier(40, random_state=0).fit(X, y).trees_)
    # Neither the targets nor anything else of the training is left beside the features.
    assert {path.suffix for path in asked.folder.iterdir() if path.is_file()} <= {".npy", ".log"}
    assert len(list(asked.folder.glob("**/*.npy"))) == 1


def test_a_search_of_hyper_parameters_runs_in_jobs_and_finds_what_one_process_finds(asked: Asked):
    with open_slurm(asked.jobs(2)) as engine, engine.joblib():
        there = searches.searched(n_jobs=-1)
        assert isinstance(engine, SlurmEngine)
        client = engine._client
        workers = set(client.run(os.getpid).values())
    asked_processes = searches.processes_of(there)
    assert asked_processes
    assert asked_processes <= workers
    assert os.getpid() not in workers
    searches.assert_same_search(there, searches.searched(n_jobs=None))


def test_joblib_ends_when_jobs_die_at_their_start(asked: Asked):
    request = asked.jobs(1, prologue=("echo no such module >&2", "exit 7"))
    with (
        open_slurm(request) as engine,
        pytest.raises(ExecutionError, match="before a worker came up") as caught,
        engine.joblib(),
    ):
        Parallel(n_jobs=-1)(delayed(worker_tasks.square)(number) for number in range(10))
    assert "no such module" in str(caught.value)


def test_train_prints_its_job_script_and_leaves_boosted_trees_to_one_machine(tmp_path: Path):
    catalogue = zoo_catalogue()
    run = Run.create(tmp_path / "run", small_plan(catalogue, 2), catalogue).path
    site = tmp_path / "site.toml"
    site.write_text("\n".join(f"{key} = {value!r}" for key, value in SITE.items()))
    words = ("train", run, "--out", tmp_path / "model", "--cluster", "slurm", "--site", site)
    assert "#SBATCH -p main" in succeeds(*words, "--dry-run").stdout
    refused(*words, "--preset", "robust", untouched=tmp_path, says="inside one job with --cluster local")
