"""train, evaluate and map on a tiny run: what they say is what is on disk, and options matter."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from joblib import effective_n_jobs

from cli_runs import SCAN_SHAPE, Answer, Workshop, diffractory, fingerprint, succeeds
from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.dataset.run import Run
from diffractory.errors import AccessError, ModelError
from diffractory.execution.engine import Engine
from diffractory.learning.artefact import load_model
from diffractory.learning.evaluation_record import EvaluationRecord, recorded_evaluations
from diffractory.scan.reading.emd_reader import read_bragg_scan

INLINE = ("--cluster", "inline")
PNG = b"\x89PNG"
#: What a map of the workshop's scan writes.
FILES = sorted(
    [
        *("map.html", "map.nc", "map.zarr", "particles.csv", "particles.parquet", "summary.json"),
        *(
            f"{name}.{suffix}"
            for name in (
                "domain",
                "examples",
                "flags",
                "lattice",
                "lattice-c",
                "particles",
                "system",
            )
            for suffix in ("png", "svg")
        ),
    ]
)


def test_train_says_what_the_model_is(workshop: Workshop) -> None:
    report = workshop.said["train"].json
    model, provenance = load_model(workshop.model)
    plan = Run.open(workshop.run).plan
    assert report["models"] == model.n_models_ > 1
    assert report["bytes"] == sum(path.stat().st_size for path in workshop.model.iterdir())
    assert report["training_materials"] == len(provenance["training_materials"])
    assert report["training_materials"] + report["held_out_materials"] == plan.n_crystals
    catalogue = Run.open(workshop.run).catalogue
    system = dict(zip(catalogue.ids, catalogue.table["crystal_system"], strict=True))
    learned = [name for name in provenance["training_materials"] if system[name] != "triclinic"]
    assert report["training_patterns"] == len(learned) * plan.orientations.count
    assert report["skipped"] == model.skipped_
    assert report["model"] == str(workshop.model)
    assert provenance["plan_id"] == plan.plan_id
    assert provenance["simulation"] == plan.simulation.model_dump(mode="json")
    assert provenance["training"] == model.spec.model_dump(mode="json")
    assert provenance["training"]["thickness"] == 200.0
    assert provenance["training_patterns"] == report["training_patterns"]


def test_train_again_gives_the_same_forests_and_says_so_in_text(workshop: Workshop, tmp_path: Path) -> None:
    model = tmp_path / "model"
    for _ in range(2):  # the second replaces the first
        answer = succeeds("train", workshop.run, "--out", model, *INLINE)
    report = workshop.said["train"].json
    said = f"{report['models']} models from {report['training_patterns']} patterns of"
    assert f"{model}: {said} {report['training_materials']} materials" in answer.stdout
    for name in report["skipped"]:
        assert f"left out, {name}: " in answer.stderr
    assert f"next: diffractory evaluate {model} {workshop.run}" in answer.stderr
    assert fingerprint(model) == fingerprint(workshop.model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("preset", ["paper", "robust"])
def test_workers_are_the_threads_of_a_training(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    seen = []

    def look(*_: object, n_jobs: int | None, **__: object) -> None:
        # LightGBM has threads of its own, which joblib knows nothing of.
        seen.append(effective_n_jobs(n_jobs) if preset == "paper" else n_jobs)
        raise ModelError("seen enough")

    monkeypatch.setattr("diffractory.cli.train.train_on_run", look)
    words = ("--preset", preset, "--out", tmp_path / "model", "--cluster", "threads", "--workers", "3")
    answer = diffractory("train", workshop.run, *words)
    assert (answer.code, seen) == (2, [3])
    assert "running on 3 thread(s)" in answer.flat


def test_a_run_given_twice_is_refused_before_a_model_is_written(workshop: Workshop, tmp_path: Path) -> None:
    answer = diffractory("train", workshop.run, workshop.run, "--out", tmp_path / "model", *INLINE)
    assert answer.code == 2
    assert "their patterns would count twice" in answer.flat
    assert list(tmp_path.iterdir()) == []


def test_options_of_train_reach_the_model(workshop: Workshop, tmp_path: Path) -> None:
    options = ("--thickness", "100", "--test-fraction", "0.5", "--with-triclinic", "--seed", "3")
    report = succeeds("train", workshop.run, "--out", tmp_path / "model", *options, *INLINE, "--json").json
    model, provenance = load_model(tmp_path / "model")
    spec = provenance["training"]
    assert (spec["thickness"], spec["test_fraction"], spec["seed"]) == (100.0, 0.5, 3)
    assert len(model.systems_) == 7
    assert not any("left out as in the paper" in reason for reason in report["skipped"].values())


def _evaluate(workshop: Workshop, out: Path, *options: object) -> Answer:
    return succeeds("evaluate", workshop.model, workshop.run, "--out", out, *INLINE, *options)


def test_evaluate_writes_what_it_prints(workshop: Workshop, tmp_path: Path) -> None:
    results = _evaluate(workshop, tmp_path / "e", "--json").json
    stored = json.loads((tmp_path / "e" / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert stored == results
    assert (tmp_path / "e" / "evaluation.png").read_bytes().startswith(PNG)
    assert "<table" in (tmp_path / "e" / "evaluation.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "e").iterdir())) == 3
    held_out = workshop.said["train"].json["held_out_materials"]
    for protocol in ("paper", "lab"):
        # Triclinic is evaluated neither: the model of the paper does not know it.
        assert results[protocol]["counts"]["patterns"] <= held_out * 10
        accuracy = results[protocol]["single"]["system"]["accuracy"]
        assert 0.0 <= accuracy <= 1.0
        low, high = results[protocol]["single"]["system"]["interval"]
        assert low <= accuracy <= high
        conditions = results[protocol]["conditions"]
        assert set(conditions) == {"thickness", "spots", "tilt"}
        for bins in conditions.values():
            assert sum(each["n"] for each in bins) == results[protocol]["single"]["n"]
        assert list(results[protocol]["subsets"]) == ["unseen_families"]
    assert results["paper"]["thickness"] == 200.0
    assert results["lab"]["thicknesses_drawn_from"] == [100.0, 200.0, 300.0]
    assert results["plan_id"] == Run.open(workshop.run).plan.plan_id


def test_evaluate_in_text_and_its_seed(workshop: Workshop, tmp_path: Path) -> None:
    said, _ = (_evaluate(workshop, tmp_path / f"e{seed}", "--seed", seed) for seed in (0, 1))
    results, others = (json.loads((tmp_path / f"e{s}" / "evaluation.json").read_text()) for s in (0, 1))
    accuracy = results["paper"]["single"]["system"]["accuracy"]
    assert f"{100 * accuracy:.1f} %" in said.flat
    written = f"written: evaluation.html, evaluation.json and evaluation.png in {tmp_path / 'e0'}"
    assert written in said.stderr
    assert f"{results['paper']['counts']['patterns']} patterns of" in said.stdout
    # The seed moves noise and bootstrap; what is simulated stays.
    assert others["paper"]["single"]["system"]["accuracy"] == accuracy
    assert others["lab"]["single"] != results["lab"]["single"]


def test_evaluate_records_how_a_model_fared_where_asked(workshop: Workshop, tmp_path: Path) -> None:
    model = Path(shutil.copytree(workshop.model, tmp_path / "model"))
    words = ("evaluate", model, workshop.run, "--out", tmp_path / "e", *INLINE)
    answer = succeeds(*words, "--record")
    assert f"recorded in {model / 'card.md'}" in answer.flat
    results = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    (found,) = recorded_evaluations(load_model(model)[1])
    assert found == EvaluationRecord.from_results(results).model_copy(update={"date": found.date})
    accuracy = results["lab"]["system_by_number"]["1"]["accuracy"]
    assert f"| lab | {100 * accuracy:.1f} % [" in (model / "card.md").read_text(encoding="utf-8")
    # What is asked of a model that was evaluated is answered as before.
    assert fingerprint(model)["trees.npz"] == fingerprint(workshop.model)["trees.npz"]


def test_a_model_that_nothing_can_be_recorded_in_is_told_before_the_work(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diffractory.cli.evaluate.evaluate_on_run", lambda *_: pytest.fail("it was evaluated")
    )

    def refuse(path: Path) -> None:
        if path == workshop.model:
            raise AccessError(f"nothing can be written to {path}")

    monkeypatch.setattr("diffractory.cli.evaluate.check_output_folder", refuse)
    words = ("evaluate", workshop.model, workshop.run, "--out", tmp_path / "e", *INLINE, "--record")
    answer = diffractory(*words)
    assert answer.code == 2
    assert f"nothing can be written to {workshop.model}" in answer.flat


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(workshop: Workshop, command: str) -> None:
    arguments = (workshop.run,) if command == "train" else (workshop.model, workshop.run)
    answer = diffractory(command, *arguments, "--out", "/proc/x", *INLINE)
    assert answer.code == 2
    assert "nothing can be written to /proc/x" in answer.flat


@pytest.mark.parametrize("name", ["model", ".", "../model"])
def test_evaluation_goes_beside_the_model(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def write_only(model: Path, run: Run, engine: Engine, target: Path, seed: int) -> dict[str, Any]:
        # Another test evaluates: this one asks where to.
        target.mkdir()
        return {}

    monkeypatch.setattr("diffractory.cli.evaluate.evaluate_on_run", write_only)
    shutil.copytree(workshop.model, tmp_path / "model")
    monkeypatch.chdir(tmp_path if name == "model" else tmp_path / "model")
    succeeds("evaluate", name, workshop.run, *INLINE, "--json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model-evaluation"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "card.md",
        "model.json",
        "trees.npz",
    ]


def _map(workshop: Workshop, out: Path, *options: object) -> dict[str, Any]:
    arguments = ("map", workshop.scan, "--model", workshop.model, "--out", out, *INLINE, "--json")
    return succeeds(*arguments, "--no-report", *options).json


@pytest.fixture(scope="module")
def plain(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], xr.Dataset]:
    """Return the summary and the data of the map with default options."""
    out = tmp_path_factory.mktemp("map")
    report = _map(workshop, out)
    return report, xr.load_dataset(out / "map.zarr", engine="zarr")


def test_map_writes_what_it_prints(workshop: Workshop, tmp_path: Path) -> None:
    report = _map(workshop, tmp_path / "m", "--report")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES
    assert json.loads((tmp_path / "m" / "summary.json").read_text(), parse_constant=pytest.fail) == report
    for picture in (tmp_path / "m").glob("*.png"):
        assert picture.read_bytes().startswith(PNG)
    text = succeeds(*("map", workshop.scan, "--model", workshop.model, "--out", tmp_path / "again", *INLINE))
    for name, numbers in report["systems"].items():
        assert (f"{name} {numbers['count']} {100 * numbers['fraction']:.1f} %" in text.flat) == bool(
            numbers["count"]
        )
    assert f"labelled: {report['labelled']} of {report['positions']} positions" in text.stderr
    assert f"{report['unlabelled']['few_spots']} few spots" in text.stderr
    assert f"median a, of single patterns: {report['lattice']['a']['median']:.2f} Å" in text.stderr
    outside = report["outside_training"]
    assert f"{100 * outside['fraction']:.1f} % of {outside['asked']} positions" in text.stderr
    assert str(tmp_path / "again" / "map.zarr") in text.stdout


def test_the_summary_is_that_of_the_data(plain: tuple[dict[str, Any], xr.Dataset]) -> None:
    report, data = plain
    labels = data["crystal_system"].to_numpy()
    assert labels.shape == SCAN_SHAPE
    assert report["positions"] == labels.size
    assert report["labelled"] == int((labels >= 0).sum())
    assert report["labelled"] + sum(report["unlabelled"].values()) == report["positions"]
    counts = {name: numbers["count"] for name, numbers in report["systems"].items()}
    assert counts == {name: int((labels == code).sum()) for code, name in enumerate(CRYSTAL_SYSTEMS)}
    asked = report["positions"] - report["unlabelled"]["few_spots"]
    outside = int((data["outside_training"].to_numpy() > 0).sum())
    assert report["outside_training"] == {"asked": asked, "count": outside, "fraction": outside / asked}
    assert report["lattice"]["a"]["median"] == pytest.approx(
        float(np.nanmedian(data["a"].to_numpy()[labels >= 0]))
    )


def test_a_map_can_be_made_again(workshop: Workshop, tmp_path: Path) -> None:
    first = _map(workshop, tmp_path / "m", "--median-size", "1")
    assert _map(workshop, tmp_path / "m", "--median-size", "1") == first
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == sorted(
        ["map.nc", "map.zarr", "particles.csv", "particles.parquet", "summary.json"]
    )


def test_min_spots(workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path) -> None:
    spots = read_bragg_scan(workshop.scan).peaks.counts
    for least in (1, 20):
        report = _map(workshop, tmp_path / str(least), "--min-spots", least)
        assert report["unlabelled"]["few_spots"] == int((spots < least).sum())
    assert plain[0]["unlabelled"]["few_spots"] == int((spots < 5).sum()) > 0


def test_median_size(workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path) -> None:
    def changes(path: Path) -> int:
        labels = xr.load_dataset(path / "map.zarr", engine="zarr")["crystal_system"].to_numpy()
        return int((np.diff(labels, axis=0) != 0).sum() + (np.diff(labels, axis=1) != 0).sum())

    for size in (1, 9):
        _map(workshop, tmp_path / str(size), "--median-size", size)
    assert changes(tmp_path / "1") > changes(tmp_path / "9")


def test_min_difference(workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path) -> None:
    everything = _map(workshop, tmp_path / "0", "--min-difference", "0")
    nothing = _map(workshop, tmp_path / "1", "--min-difference", "1")
    assert everything["unlabelled"]["low_difference"] == 0
    assert nothing["labelled"] < plain[0]["labelled"]
    assert nothing["unlabelled"]["low_difference"] > 0


def test_assume(workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path) -> None:
    report = _map(workshop, tmp_path / "m", "--assume", "cubic")
    assert (report["assumed"], plain[0]["assumed"]) == ("cubic", None)
    data = xr.load_dataset(tmp_path / "m" / "map.zarr", engine="zarr")
    labelled = data["crystal_system"].to_numpy() >= 0
    # What a position is called stays; the lattice at all of them is that of the cubic model.
    assert report["labelled"] == plain[0]["labelled"]
    np.testing.assert_array_equal(data["crystal_system"], plain[1]["crystal_system"])
    a, b, c = (data[axis].to_numpy()[labelled] for axis in "abc")
    assert np.all(np.isfinite(a))
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(a, c)
    assert not np.array_equal(plain[1]["a"].to_numpy()[labelled], a, equal_nan=True)


def test_pixel_size(workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path) -> None:
    right = read_bragg_scan(workshop.scan)
    wrong = _map(workshop, tmp_path / "wrong", "--pixel-size", "0.02")
    data = xr.load_dataset(tmp_path / "wrong" / "map.zarr", engine="zarr")
    assert wrong["positions"] == plain[0]["positions"]
    assert not np.array_equal(data["system_share"], plain[1]["system_share"])
    scaled = read_bragg_scan(workshop.scan, pixel_size=0.02)
    ratio = np.abs(scaled.peaks.q).max() / np.abs(right.peaks.q).max()
    same = _map(workshop, tmp_path / "same", "--pixel-size", str(0.02 / ratio))
    assert same == plain[0]


def test_energy_and_step_of_a_file_of_peaks(
    workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset], tmp_path: Path
) -> None:
    given = ("--out", tmp_path / "m", "--energy", "200", "--step", "40", *INLINE)
    said = succeeds("map", workshop.scan, *given, "--json").json
    assert [note.partition(":")[0] for note in said["notes"]] == [
        "distance of neighbouring positions",
        "beam energy",
        "recorded at 200 keV, the model was trained at 300 keV",
    ]
    page = (tmp_path / "m" / "map.html").read_text()
    assert all(html.escape(note) in page for note in said["notes"])
    data = xr.load_dataset(tmp_path / "m" / "map.zarr", engine="zarr")
    assert data.attrs["scan_energy_ev"] == 200e3
    assert float(data["scan_x"][1] - data["scan_x"][0]) == 40.0
    assert _map(workshop, tmp_path / "same", "--energy", "300", "--step", "20") == plain[0]


def test_the_vacuum_of_the_scan_stays_empty(plain: tuple[dict[str, Any], xr.Dataset]) -> None:
    report, data = plain
    assert report["unlabelled"]["few_spots"] == round(0.15 * data["crystal_system"].size)


def test_provenance_says_where_a_map_comes_from(
    workshop: Workshop, plain: tuple[dict[str, Any], xr.Dataset]
) -> None:
    text = json.dumps({key: str(value) for key, value in plain[1].attrs.items()})
    assert str(workshop.model) in text
    assert Run.open(workshop.run).plan.plan_id in text
    assert "training_materials" not in text
