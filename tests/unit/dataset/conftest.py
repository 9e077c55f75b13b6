"""One finished run for all tests of the dataset; each test works on a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan
from diffractory.dataset.run import Run
from small_runs import finish, small_plan, zoo_catalogue


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return zoo_catalogue()


@pytest.fixture(scope="session")
def plan(catalogue: Catalogue) -> Plan:
    return small_plan(catalogue)


@pytest.fixture(scope="session")
def original(catalogue: Catalogue, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that no test may change."""
    return finish(Run.create(tmp_path_factory.mktemp("original") / "run", plan, catalogue))


@pytest.fixture(scope="session")
def finely_chunked(catalogue: Catalogue, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, stored in chunks of 16 peaks, that no test may change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffractory.dataset.plan.PEAK_CHUNK", 16)
        patch.setattr("diffractory.dataset.store.PEAK_CHUNK", 16)
        folder = tmp_path_factory.mktemp("finely-chunked") / "run"
        return finish(Run.create(folder, small_plan(catalogue), catalogue))


@pytest.fixture
def run(original: Run, tmp_path: Path) -> Run:
    """A finished run to be damaged, in a folder with a space in its name."""
    shutil.copytree(original.path, tmp_path / "my run")
    return Run.open(tmp_path / "my run")


@pytest.fixture
def planned(catalogue: Catalogue, plan: Plan, tmp_path: Path) -> Run:
    """A run of which nothing is simulated."""
    return Run.create(tmp_path / "planned", plan, catalogue)
