"""The robust preset through the command line, and the model that comes with the package."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cli_runs import Workshop, diffractory, succeeds
from diffractory.dataset.run import Run
from diffractory.learning.artefact import load_model
from diffractory.learning.evaluation_record import recorded_evaluations
from diffractory.learning.saved_model import packaged_model
from diffractory.learning.trained_hierarchies import TrainedBoosting

INLINE = ("--cluster", "inline")


@pytest.fixture(scope="module")
def run(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the features of the robust preset besides those of the paper's."""
    copy = tmp_path_factory.mktemp("robust") / "run"
    shutil.copytree(workshop.run, copy)
    report = succeeds("features", copy, "--preset", "robust", *INLINE, "--json").json
    assert [each["protocol"] for each in report["sets"]] == ["turned", "lab"]
    assert report["sets"][0]["thicknesses"] == [200.0]
    assert {each["patterns"] for each in report["sets"]} == {Run.open(copy).plan.n_items}
    return copy


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    target = run.parent / "model"
    answer = succeeds("train", run, "--preset", "robust", "--out", target, *INLINE)
    assert " models from 200 patterns of 10 materials" in answer.flat
    return target


def test_training_before_the_features_names_the_command(workshop: Workshop, tmp_path: Path) -> None:
    answer = diffractory("train", workshop.run, "--preset", "robust", "--out", tmp_path / "m", *INLINE)
    assert answer.code != 0
    assert f"diffractory features {workshop.run} --preset robust" in answer.flat
    assert not (tmp_path / "m").exists()


def test_the_model_is_a_boosted_one_with_a_card(model: Path, run: Path) -> None:
    loaded, provenance = load_model(model)
    assert isinstance(loaded, TrainedBoosting)
    assert len(loaded.systems_) == 7
    turned, noisy = (each["lab"] for each in provenance["patterns"])
    assert (turned["position_sigma"], turned["rotate"], noisy["rotate"]) == (0.0, True, True)
    assert noisy["position_spread"] > 1.0
    card = (model / "card.md").read_text(encoding="utf-8")
    assert "Boosted trees" in card
    assert re.search(r"zone axes of each material \| \d+ evenly spread \|", card)
    assert not list(run.glob(".training-*"))


def test_evaluation_of_both_presets_lies_beside_each_other(model: Path, run: Path, tmp_path: Path) -> None:
    results = succeeds("evaluate", model, run, "--out", tmp_path / "e", *INLINE, "--json").json
    for protocol in ("paper", "turned", "lab"):
        numbers = results[protocol]["without_triclinic"]["system_by_number"]
        assert 0.0 <= numbers["1"]["accuracy"] <= 1.0
        assert results[protocol]["without_triclinic"] != results[protocol]["system_by_number"]
        cubic = results[protocol]["cubic_constant"]
        assert set(cubic) == {"1", "3", "10", "30"}
        assert cubic["1"]["n"] == results[protocol]["single"]["lattice"]["cubic"]["n"]
    assert results["training_materials"] == {"number": 10, "in_this_run": 10}
    assert results["same_zone_axes_as_training"]
    page = (tmp_path / "e" / "evaluation.html").read_text(encoding="utf-8")
    assert "Median error of the cubic constant where the system is right, Å" in page
    # The figures of the whole test, then two of what is unlike all of training.
    assert page.count("data:image/png") == 7
    strict = results["lab"]["subsets"]["unseen_families"]
    assert strict["cubic_constant"]["1"]["n"] == strict["single"]["lattice"]["cubic"]["n"]
    assert "is right, Å, lab protocol, nothing isostructural in training" in page
    assert "triclinic neither asked nor answered" in page
    assert "Note: the patterns lie along the zone axes of the training" in page
    assert 'src="http' not in page
    assert "href=" not in page


def test_an_unknown_preset_is_refused(run: Path) -> None:
    answer = diffractory("train", run, "--preset", "best", "--out", run.parent / "x", *INLINE)
    assert answer.code == 2
    assert "'best' is not one of 'paper', 'robust'" in answer.flat


def test_the_packaged_model_is_small_whole_and_knows_its_origin() -> None:
    folder = packaged_model()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000_000
    loaded, provenance = load_model(folder)
    assert isinstance(loaded, TrainedBoosting)
    assert loaded.systems_.tolist() == list(range(7))
    assert len(set(provenance["training_materials"])) > 10_000
    assert provenance["held_out_materials"] > 4_000
    assert provenance["simulation"]["energy_ev"] == 300e3
    assert {"numpy", "numba", "lightgbm", "scikit-learn", "dask-ml"} <= set(provenance["versions"])
    tested = recorded_evaluations(provenance)
    # Along random axes and along evenly spread ones that training lacked.
    assert [(each.axes, each.orientations) for each in tested] == [("random", 14), ("even", 30)]
    assert all(each.protocols["lab"]["10"].calibration_interval for each in tested)


def test_a_map_needs_no_model_of_ones_own(workshop: Workshop, tmp_path: Path) -> None:
    report = succeeds("map", workshop.scan, "--out", tmp_path / "map", *INLINE, "--json").json
    assert 0 < report["labelled"] <= report["positions"]
    assert 0.0 <= report["outside_training"]["fraction"] <= 1.0
    labelled = xr.open_zarr(tmp_path / "map" / "map.zarr")
    shares = labelled["system_share"].to_numpy()
    asked = np.isfinite(labelled["confidence"].to_numpy())
    np.testing.assert_allclose(shares[asked].sum(axis=-1), 1.0, atol=1e-5)
    assert json.loads(labelled.attrs["model"])["training"]["kind"] == "boosting"
