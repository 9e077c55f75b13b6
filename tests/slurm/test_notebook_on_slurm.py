"""The fourth notebook, where there is a SLURM."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from notebook_runs import NOTEBOOKS, execute_notebook, said
from slurm_testbed import Testbed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_its_work_runs_in_slurm_jobs(
    testbed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    # Jobs write below it: a folder that all nodes see.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (source,) = NOTEBOOKS.glob("4-*.py")
    told = said(execute_notebook(source))
    assert "SLURM answers" in told
    assert "2 SLURM job(s) of 1 worker(s)" in told
    assert "9 of 9" in told
