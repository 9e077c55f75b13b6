"""The same run on every engine: one answer, to the code of an intensity."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.features import features_partition, plan_features, read_features
from diffractory.dataset.intensity_codes import largest_error
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.reader import open_dataset
from diffractory.dataset.run import Run
from diffractory.dataset.verify import verify_partition
from diffractory.execution.engine import DaskEngine, Engine, InlineEngine, open_engine
from diffractory.specs import OrientationSpec, RadialBasisSpec
from small_runs import (
    assert_same_contents,
    assert_same_peaks,
    contents,
    small_plan,
    zoo_catalogue,
)

BASIS = RadialBasisSpec(ring_width=0.1, n_rings=9, n_orders=4)


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskEngine]:
    with open_engine("local", 2, 2_000_000_000) as engine:
        yield engine


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return zoo_catalogue()


def _all(engine: Engine, function, run: Run) -> list:
    outcomes = list(engine.run(function, range(len(run.plan.partitions))))
    assert [o.error for o in outcomes] == [None] * len(run.plan.partitions)
    return [o.result for o in sorted(outcomes, key=lambda o: o.item)]


def _made(folder: Path, catalogue: Catalogue, frames: OrientationSpec, parts: float, engine: Engine) -> Run:
    run = Run.create(folder, small_plan(catalogue, parts, frames), catalogue)
    _all(engine, partial(simulate_partition, run.path), run)
    return run


def test_peaks_features_and_findings_agree(catalogue: Catalogue, workers: Engine, tmp_path: Path):
    frames = OrientationSpec(count=5, in_plane="random", seed=8)
    here = _made(tmp_path / "here", catalogue, frames, 3, InlineEngine())
    there = _made(tmp_path / "there", catalogue, frames, 3, workers)
    assert here.plan == there.plan
    assert_same_peaks(there, here)
    other = _made(tmp_path / "other", catalogue, frames, 2, workers)
    assert len(other.plan.partitions) != len(here.plan.partitions)
    expected = contents(here)
    assert_same_contents(contents(other), expected)
    for run, engine in ((here, InlineEngine()), (there, workers), (other, workers)):
        plan = plan_features(run, BASIS)
        _all(engine, partial(features_partition, run.path, plan), run)
        assert all(f.problems == () for f in _all(engine, partial(verify_partition, run.path), run))
    n_magnitudes = BASIS.n_features // 2
    for thickness in (100.0, 200.0, 350.0):
        first, second, third = (
            read_features(run, plan_features(run, BASIS), thickness) for run in (here, there, other)
        )
        # Magnitudes, to what a code more or less makes of them; arguments of nothing may be anything.
        for found in (second, third):
            np.testing.assert_allclose(found[:, :n_magnitudes], first[:, :n_magnitudes], atol=1e-3)
    np.testing.assert_array_equal(
        open_dataset(there.path).q.chunk(peak=50).compute(), open_dataset(here.path).q
    )


def test_workers_in_another_folder_find_a_run_named_by_a_relative_path(
    catalogue: Catalogue, workers: DaskEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = Run.create("relative run", small_plan(catalogue), catalogue)
    assert workers._client.run(lambda: str(Path.cwd())) != dict.fromkeys(
        workers._client.nthreads(), str(tmp_path)
    )
    _all(workers, partial(simulate_partition, Run.open("relative run").path), run)
    assert len(run.done()) == len(run.plan.partitions)


def test_the_gpu_engine_writes_the_same_store(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is optional")
    catalogue = zoo_catalogue()
    plan = small_plan(catalogue)
    runs = [Run.create(tmp_path / name, plan, catalogue) for name in ("cpu", "torch")]
    for partition in range(len(plan.partitions)):
        simulate_partition(runs[0].path, partition)
        simulate_partition(runs[1].path, partition, device="cpu")
    expected, found = (contents(run) for run in runs)
    np.testing.assert_array_equal(found["hkl"], expected["hkl"])
    np.testing.assert_array_equal(found["rotation"], expected["rotation"])
    difference = np.abs(found["intensity"] - expected["intensity"])
    assert np.all(difference <= 1e-5 + 2.0 * largest_error(expected["intensity"]))
