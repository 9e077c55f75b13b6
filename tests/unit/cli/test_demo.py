"""The demo, small: the whole road in one process tree, and again without doing it twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import xarray as xr

from diffractory.cli import mapping
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
    # Smaller than what is shown to people: fewer patterns to learn from, and fewer positions to map.
    monkeypatch.setattr("diffractory.cli.demo._ORIENTATIONS", 12)
    monkeypatch.setattr("diffractory.cli.demo._SCAN_SHAPE", (32, 32))
    # Pictures of one of the four maps: drawing them takes longer than everything before.
    draw, drawn = mapping.write_map_report, []
    monkeypatch.setattr(
        mapping,
        "write_map_report",
        lambda *parts, **more: [] if drawn else drawn.append(draw(*parts, **more)) or drawn[0],
    )
    summary = run_demo(folder, monkeypatch, capsys)
    assert summary["patterns"] == 30 * 12 * 5
    for name in ("catalogue", "dataset"):
        assert Path(summary[name]).exists()
    assert len(summary["pictures"]) >= 14
    assert "map.html" in drawn[0]
    assert all(Path(path).stat().st_size > 5_000 for path in summary["pictures"])
    assert list(summary["presets"]) == ["paper", "robust"]
    for learned in summary["presets"].values():
        assert Path(learned["model"]).is_dir()
        assert "data:image/png" in Path(learned["evaluation"]).read_text(encoding="utf-8")
        for path, accuracy in zip(learned["maps"], learned["map_accuracy"].values(), strict=True):
            labelled = xr.open_zarr(path)
            assert labelled["crystal_system"].dims == ("scan_y", "scan_x")
            assert accuracy is None or 0.0 <= accuracy <= 1.0
    # Turned patterns of unseen crystals: what the paper's features cannot tell, the lattice can.
    paper, robust = (summary["presets"][name]["system_accuracy"]["lab"] for name in ("paper", "robust"))
    assert robust["1 pattern"] > paper["1 pattern"]
    records = sorted((folder / "run" / "records" / "peaks").iterdir())
    before = [record.stat().st_mtime_ns for record in records]
    # Again: the dataset is not computed twice. What follows it would be: a part of that will do.
    monkeypatch.setattr("diffractory.cli.demo._PRESETS", ("paper",))
    monkeypatch.setattr("diffractory.cli.demo._map_synthetic", lambda *_: {"accuracy": None})
    again = run_demo(folder, monkeypatch, capsys)
    assert [record.stat().st_mtime_ns for record in records] == before
    paper = summary["presets"]["paper"]
    assert again["presets"]["paper"]["system_accuracy"] == paper["system_accuracy"]
