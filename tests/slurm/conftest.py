"""A real SLURM on this machine, started once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import worker_tasks
from diffractory.execution import slurm_watchdog
from slurm_testbed import TESTBED, Asked, Testbed, command, wait_until


def _missing() -> str:
    """Say what this machine lacks for a SLURM; nothing if it can have one."""
    if os.geteuid() != 0:
        return "SLURM starts jobs as their owners: root is needed"
    if shutil.which("sbatch") or shutil.which("apt-get"):
        return ""
    return "SLURM is not installed and there is no apt-get to install it"


@pytest.fixture(scope="session")
def _running_testbed() -> Iterator[Testbed]:
    reason = f"NO SLURM HERE, so cluster/ and execution/slurm.py are NOT tested: {_missing()}"
    if _missing() and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if _missing():
        pytest.skip(reason)
    testbed = Testbed(Path(os.environ.get("DIFFRACTORY_TESTBED", "/tmp/diffractory-slurm")))
    was_up = (testbed.folder / "run" / "slurmctld.pid").exists()
    testbed.up()
    yield testbed
    if not was_up:
        command(str(TESTBED / "down.sh"), str(testbed.folder))


@pytest.fixture
def testbed(_running_testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Testbed]:
    """A testbed with an empty queue and a watchdog that looks often; nothing may be left in the queue."""
    monkeypatch.setenv("SLURM_CONF", str(_running_testbed.folder / "slurm.conf"))
    # Jobs inherit it: their workers import this folder's callables by name.
    tests = str(Path(worker_tasks.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setattr(slurm_watchdog, "_LOOK_EVERY", 0.5)
    yield _running_testbed
    wait_until(lambda: not _running_testbed.jobs(), 30)


@pytest.fixture
def asked(testbed: Testbed, tmp_path: Path) -> Asked:
    folder = tmp_path / "a shared folder"
    folder.mkdir()
    return Asked(folder)
