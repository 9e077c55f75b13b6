"""export: what is written is what was chosen; nothing is replaced that was not meant."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import py4DSTEM
import pytest

from cli_runs import Workshop, refused, succeeds
from diffractory.dataset.reader import open_dataset
from diffractory.dataset.run import PEAKS, Run


def test_a_table_of_a_choice(workshop: Workshop, tmp_path: Path) -> None:
    target = tmp_path / "new" / "some.parquet"
    choice = ("--system", "cubic, hexagonal", "--space-group", "150:230", "--thickness", "100,300")
    report = succeeds("export", workshop.run, "--out", target, *choice, "--json").json
    table = pd.read_parquet(target)
    catalogue = Run.open(workshop.run).catalogue.table
    groups = catalogue.set_index("material_id")["space_group"]
    ids = groups[(groups >= 168)].index
    assert set(table["material_id"]) == set(ids)
    assert sorted(set(table["thickness"])) == report["thicknesses"] == [100.0, 300.0]
    assert report["peaks"] == len(table)
    assert report["patterns"] == len(ids) * 10 * 2
    assert (report["crystals"], report["orientations"]) == (len(ids), 10)
    assert report["bytes"] == target.stat().st_size
    assert (report["run"], report["file"]) == (str(workshop.run), str(target))
    assert [p.name for p in target.parent.iterdir()] == ["some.parquet"]


def test_everything_in_text_with_a_bar(workshop: Workshop, tmp_path: Path) -> None:
    target = tmp_path / "all.parquet"
    answer = succeeds("export", workshop.run, "--out", target)
    run = Run.open(workshop.run)
    assert f"{target}: {3 * run.plan.n_items} patterns of {run.plan.n_crystals} crystals" in answer.stdout
    assert f"{3 * run.plan.n_peaks:,} peaks" in answer.stdout
    assert f"{run.plan.n_items}/{run.plan.n_items}" in answer.stderr
    assert len(pd.read_parquet(target)) == 3 * run.plan.n_peaks


def test_a_scan_for_py4dstem_and_for_map(workshop: Workshop, tmp_path: Path) -> None:
    target = tmp_path / "scan.h5"
    dataset = open_dataset(workshop.run)
    name = str(dataset.material_id.to_numpy()[4])
    choice = ("--material", name, "--thickness", "200")
    answer = succeeds("export", workshop.run, "--out", target, *choice)
    assert f"{target}: 10 patterns of 1 crystals" in answer.stdout
    vectors = py4DSTEM.read(str(target))
    assert vectors.Rshape == (1, 10)
    start, count = int(dataset.peak_start[4, 7]), int(dataset.peak_count[4, 7])
    found = vectors.cal[0, 7]
    np.testing.assert_allclose(found.qx, dataset.q[start : start + count, 0], atol=1e-12)
    np.testing.assert_array_equal(found.I, dataset.intensity[start : start + count, 1])
    maps = tmp_path / "maps"
    report = succeeds(
        "map", target, "--model", workshop.model, "--out", maps, "--cluster", "inline", "--json"
    ).json
    assert report["positions"] == 10


def test_an_existing_file_is_kept_unless_told(workshop: Workshop, tmp_path: Path) -> None:
    target = tmp_path / "peaks.parquet"
    target.write_text("mine")
    command = ("export", workshop.run, "--out", target, "--thickness", "200", "--system", "triclinic")
    refused(*command, untouched=tmp_path, says=(f"{target} exists already", "--force"))
    succeeds(*command, "--force")
    assert set(pd.read_parquet(target)["thickness"]) == {200.0}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--out", "peaks.csv"), ("peaks.csv is no name for an export", "FILE.parquet", "FILE.h5")),
        (("--out", "peaks"), ("peaks is no name for an export",)),
        (("--out", "p.parquet", "--system", "cubik"), ("no crystal_system cubik", "it holds cubic,")),
        (("--out", "p.parquet", "--material", "mp-1"), ("no material_id mp-1", "… (17 in all)")),
        (("--out", "p.parquet", "--space-group", "two"), ("--space-group 'two' cannot be read", "221,225")),
        (("--out", "p.parquet", "--space-group", "1:2:3"), ("--space-group '1:2:3' cannot be read",)),
        (("--out", "p.parquet", "--space-group", "230"), ("no space_group 230",)),
        (("--out", "p.parquet", "--space-group", "226:230"), ("leaves nothing",)),
        (("--out", "p.parquet", "--thickness", "250"), ("no thickness 250", "100, 200, 300")),
        (("--out", "p.parquet", "--thickness", "thin"), ("--thickness 'thin' cannot be read",)),
        (
            ("--out", "p.parquet", "--system", "cubic", "--space-group", "1"),
            ("space_group=[1] leaves no crystal",),
        ),
        (("--out", "scan.h5"), ("scan.h5 would hold 3 thicknesses", "--thickness", "FILE.parquet")),
    ],
)
def test_what_cannot_be_exported_is_said(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused("export", workshop.run, *arguments, untouched=tmp_path, says=says)


def test_unfinished_runs_and_none_at_all_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    run = Path(shutil.copytree(workshop.run, tmp_path / "run"))
    Run.open(run).record_path(PEAKS, 1).unlink()
    target = tmp_path / "peaks.parquet"
    says = (f"{run} is not complete", "diffractory simulate")
    refused("export", run, "--out", target, untouched=tmp_path, says=says)
    says = ("nowhere is not a run folder", "diffractory plan")
    refused("export", tmp_path / "nowhere", "--out", target, untouched=tmp_path, says=says)


def test_a_damaged_run_is_named_and_leaves_no_file(workshop: Workshop, tmp_path: Path) -> None:
    run = Path(shutil.copytree(workshop.run, tmp_path / "run"))
    shard = next(p for p in sorted((run / "peaks.zarr" / "hkl" / "c").rglob("*")) if p.is_file())
    shard.write_bytes(b"0" * shard.stat().st_size)
    for name in ("peaks.parquet", "scan.h5"):
        command = ("export", run, "--out", tmp_path / name, "--thickness", "200")
        refused(*command, untouched=tmp_path, says=("cannot be decoded", "diffractory verify"))


def test_places_that_cannot_be_written(workshop: Workshop, tmp_path: Path) -> None:
    run = Path(shutil.copytree(workshop.run, tmp_path / "run"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.h5").mkdir()
    for target, says in (
        (tmp_path / "folder.h5", ("folder.h5", "it is a folder", "Name a file")),
        (tmp_path / "file" / "p.parquet", ("nothing can be written", "is a file, not a folder")),
        (run / "catalogue.parquet", ("is inside the run", "another folder")),
    ):
        command = ("export", run, "--out", target, "--force", "--thickness", "200")
        refused(*command, untouched=tmp_path, says=says)


@pytest.mark.parametrize("name", ["peaks.parquet", "scan.h5"])
def test_a_disk_that_fills_up(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28), str(tmp_path / name))

    monkeypatch.setattr("diffractory.storage._rename_into_place", full)
    command = ("export", workshop.run, "--out", tmp_path / name, "--thickness", "200")
    refused(*command, untouched=tmp_path, says=("No space left",))
