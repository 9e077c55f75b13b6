"""The demo, small: the whole road in one process tree, and again without doing it twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import xarray as xr

from diffractory.cli.app import main


def run_demo(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict:
    monkeypatch.setattr(
        sys,
        "argv",
        ["diffractory", "demo", "--out", str(folder), "--crystals", "30", "--json", "--workers", "1"],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_demo_leaves_everything_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    summary = run_demo(folder, monkeypatch, capsys)
    assert summary["patterns"] == 30 * 20 * 5
    for name in ("catalogue", "dataset", "model", "evaluation"):
        assert Path(summary[name]).exists()
    assert len(summary["maps"]) == 2
    assert len(summary["pictures"]) >= 8
    assert all(Path(path).stat().st_size > 5_000 for path in summary["pictures"])
    for path, accuracy in zip(summary["maps"], summary["map_accuracy"].values(), strict=True):
        labelled = xr.open_zarr(path)
        assert labelled["crystal_system"].dims == ("scan_y", "scan_x")
        assert accuracy is None or 0.0 <= accuracy <= 1.0
    for protocol in ("paper", "lab"):
        assert 0.0 <= summary["system_accuracy"][protocol]["1 pattern"] <= 1.0
    records = sorted((folder / "run" / "records" / "peaks").iterdir())
    before = [record.stat().st_mtime_ns for record in records]
    again = run_demo(folder, monkeypatch, capsys)
    assert [record.stat().st_mtime_ns for record in records] == before
    assert again["system_accuracy"] == summary["system_accuracy"]
