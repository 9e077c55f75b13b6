"""A folder with what the examples of docstrings and documentation work on: a run and a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffractory.crystals.systems import system_code
from diffractory.dataset.batches import iterate_batches
from diffractory.dataset.reader import open_dataset
from diffractory.dataset.run import Run
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from small_runs import finish, small_plan, zoo_catalogue


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds runs/first and scan.h5; no example changes it."""
    folder = tmp_path_factory.mktemp("examples")
    catalogue = zoo_catalogue()
    (folder / "runs").mkdir()
    finish(Run.create(folder / "runs" / "first", small_plan(catalogue), catalogue))
    (batch,) = iterate_batches(open_dataset(folder / "runs" / "first"), 100, thickness=200.0)
    table = catalogue.table.iloc[batch.crystal]
    labels = GrainLabels(
        np.array([system_code(name) for name in table["crystal_system"]], dtype=np.int8),
        table["space_group"].to_numpy(dtype=np.int16),
        table[["a", "b", "c"]].to_numpy(dtype=np.float64),
        table["material_id"].to_numpy(dtype=str),
    )
    peaks: PeakTable = batch.peaks
    scan, _ = synthetic_scan(peaks, labels, (8, 8), 5, seed=1, energy_ev=300e3)
    scan.to_emd(folder / "scan.h5")
    return folder
