"""Scans that cannot be read or lack a calibration, and models that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest

from cli_runs import PHYSICS, Workshop, refused, succeeds
from diffractory.crystals.catalogue import Catalogue
from small_runs import edit_json

INLINE = ("--cluster", "inline")


def _map(workshop: Workshop, scan: Path, out: Path, *options: object, model: Path | None = None) -> tuple:
    return ("map", scan, "--model", model or workshop.model, "--out", out / "map", *INLINE, *options)


def _without_calibration(scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        del file[next(name for name in names if name.endswith("calibration"))]


def test_a_scan_without_calibration(workshop: Workshop, tmp_path: Path) -> None:
    scan = Path(shutil.copy(workshop.scan, tmp_path / "scan.h5"))
    _without_calibration(scan)
    says = ("scan.h5", "direct beam", "--pixel-size")
    refused(*_map(workshop, scan, tmp_path), untouched=tmp_path, says=says)


def test_what_is_not_hdf5(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "scan.h5").write_text("qx qy intensity\n1 2 3\n")
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("scan.h5", "empty.h5"):
        says = (f"{name} is not an HDF5 file", "py4DSTEM")
        refused(*_map(workshop, tmp_path / name, tmp_path), untouched=tmp_path, says=says)


def test_a_scan_that_is_cut_off(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.scan.read_bytes()
    (tmp_path / "scan.h5").write_bytes(data[: len(data) // 2])
    says = ("scan.h5 is damaged", "Copy the file again")
    refused(*_map(workshop, tmp_path / "scan.h5", tmp_path), untouched=tmp_path, says=says)


def test_a_scan_without_bragg_peaks(workshop: Workshop, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = [[1.0, 2.0]]
    says = ("image.h5 holds no Bragg peaks",)
    refused(*_map(workshop, tmp_path / "image.h5", tmp_path), untouched=tmp_path, says=says)


def test_a_scan_that_is_not_there(workshop: Workshop, tmp_path: Path) -> None:
    refused(
        *_map(workshop, tmp_path / "no.h5", tmp_path),
        untouched=tmp_path,
        says=("no.h5 does not exist", "Give"),
    )
    refused(*_map(workshop, tmp_path, tmp_path), untouched=tmp_path, says=("is a folder", "Give the path"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--assume", "Cubic"), ("'Cubic' is not a crystal system", "cubic")),
        (("--assume", ""), ("is not a crystal system",)),
        (("--assume", "triclinic"), ("knows nothing of 'triclinic'", "trained on")),
        (("--pixel-size", "nan"), ("--pixel-size nan", "above 0", "Å⁻¹")),
        (("--pixel-size", "-0.01"), ("--pixel-size -0.01", "above 0")),
        (("--pixel-size", "3000"), ("calibration is wrong", "--pixel-size")),
        (("--center", "nan", "0"), ("--center", "finite")),
        (("--dataset", "nothing"), ("nothing", "braggvectors")),
        (("--min-spots", "0"), ("min_spots", "greater than or equal to 1")),
        (("--median-size", "4"), ("median_size", "odd")),
        (("--min-difference", "nan"), ("min_difference", "nan")),
        (("--min-difference", "2"), ("min_difference", "less than or equal to 1")),
        (("--total-intensity", "0"), ("total_intensity", "greater than 0")),
    ],
)
def test_map_options_out_of_range(
    workshop: Workshop, tmp_path: Path, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(*_map(workshop, workshop.scan, tmp_path, *options), untouched=tmp_path, says=says)


def test_a_model_that_is_not_there(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file", "nowhere"):
        model = tmp_path / name
        says = (f"{model} is not a model", "model.json", "diffractory train")
        refused(*_map(workshop, workshop.scan, tmp_path, model=model), untouched=tmp_path, says=says)
        evaluate = ("evaluate", model, workshop.run, "--out", tmp_path / "out", *INLINE)
        refused(*evaluate, untouched=tmp_path, says=says)


@pytest.mark.parametrize("damage", ["cut header", "cut arrays", "no arrays", "other format", "other arrays"])
def test_a_damaged_model(workshop: Workshop, tmp_path: Path, damage: str) -> None:
    model = Path(shutil.copytree(workshop.model, tmp_path / "model"))
    header, arrays = model / "model.json", model / "trees.npz"
    if damage == "cut header":
        header.write_text(header.read_text()[:100])
    elif damage == "cut arrays":
        arrays.write_bytes(arrays.read_bytes()[:-100])
    elif damage == "no arrays":
        arrays.unlink()
    elif damage == "other format":
        edit_json(header, format_version=99)
    else:
        edit_json(header, arrays_sha256="0" * 64)
    says = (
        ("model format 99", "Train the model again") if damage == "other format" else ("is damaged", "again")
    )
    refused(
        *_map(workshop, workshop.scan, tmp_path, model=model), untouched=tmp_path, says=(str(model), *says)
    )
    evaluate = ("evaluate", model, workshop.run, "--out", tmp_path / "out", *INLINE)
    refused(*evaluate, untouched=tmp_path, says=(str(model), *says))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--energy", "200"), "energy_ev = 300000.0 in the model, 200000.0 here"),
        (("--q-max", "0.9"), "q_max = 1.0 in the model, 0.9 here"),
        (("--form-factors", "wk"), "form_factors = wk-cp in the model, wk here"),
    ],
)
def test_a_model_trained_with_other_settings(
    workshop: Workshop, tmp_path: Path, option: tuple[str, str], says: str
) -> None:
    run = tmp_path / "run"
    succeeds("plan", run, "--catalogue", workshop.catalogue, *PHYSICS, *option)
    evaluate = ("evaluate", workshop.model, run, "--out", tmp_path / "out", *INLINE)
    refused(
        *evaluate, untouched=tmp_path, says=("trained with other simulation settings", says, "train another")
    )


@pytest.mark.parametrize("thickness", ["150", "50"])
def test_a_run_without_the_training_thickness(workshop: Workshop, tmp_path: Path, thickness: str) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    succeeds("plan", run, "--catalogue", workshop.catalogue, *PHYSICS, "--thickness", thickness)
    succeeds("simulate", run, *INLINE)
    evaluate = ("evaluate", workshop.model, run, "--out", out, *INLINE)
    says = (f"at [{float(thickness)}] Å only", "trained at 200.0 Å", "100.0 … 500.0 Å", "diffractory plan")
    refused(*evaluate, untouched=tmp_path, says=says)


def test_a_run_without_unseen_materials(workshop: Workshop, tmp_path: Path) -> None:
    seen = json.loads((workshop.model / "model.json").read_text())["provenance"]["training_materials"]
    table = Catalogue.from_parquet(workshop.catalogue).table
    Catalogue(table[table["material_id"].isin(seen)].reset_index(drop=True)).to_parquet(
        tmp_path / "c.parquet"
    )
    run, out = tmp_path / "run", tmp_path / "out"
    succeeds("plan", run, "--catalogue", tmp_path / "c.parquet", *PHYSICS)
    succeeds("simulate", run, *INLINE)
    evaluate = ("evaluate", workshop.model, run, "--out", out, *INLINE)
    says = (f"all {len(seen)} materials of", "says nothing", "--test-fraction")
    refused(*evaluate, untouched=tmp_path, says=says)


def test_no_workers_are_started_for_a_bad_scan(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffractory.cli.engines.open_engine", lambda *_: pytest.fail("workers were started"))
    bad = ("map", tmp_path / "no.h5", "--model", workshop.model, "--out", tmp_path / "map")
    refused(*bad, untouched=tmp_path, says=("does not exist",))
