"""The fourth notebook, where there is a SLURM."""

from __future__ import annotations

from pathlib import Path

from notebook_runs import execute_notebook, said
from slurm_testbed import Testbed


def test_its_work_runs_in_slurm_jobs(testbed: Testbed, tmp_path: Path) -> None:
    executed = execute_notebook("4-scale-out-on-slurm", tmp_path)
    assert any(
        "image/png" in out.get("data", {}) for cell in executed.cells for out in cell.get("outputs", [])
    )
    told = said(executed)
    assert "SLURM answers" in told
    assert "2 SLURM job(s) of 1 worker(s)" in told
    assert "9 of 9" in told
