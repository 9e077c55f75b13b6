from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.errors import AccessError, ModelError
from diffractory.learning.artefact import load_model, record_evaluation, save_model
from diffractory.learning.evaluation_record import EvaluationRecord, recorded_evaluations
from small_models import BOOSTED, BOOSTED_PROVENANCE, MODEL, PROVENANCE, X, change_header, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(MODEL, tmp_path / "model")


@pytest.fixture
def boosted_folder(tmp_path: Path) -> Path:
    return saved(BOOSTED, tmp_path / "boosted")


def record(**changes: Any) -> EvaluationRecord:
    found = {
        "1": {"accuracy": 0.754, "interval": [0.745, 0.763], "calibration_error": 0.013},
        "10": {"accuracy": None, "interval": None, "calibration_error": None},
    }
    values = {
        "date": "2024-02-29",
        "diffractory": "0.4.0",
        "plan_id": "f" * 64,
        "axes": "random",
        "orientations": 14,
        "same_zone_axes_as_training": False,
        "materials": 4230,
        "patterns": 59220,
        "protocols": {"paper": found, "lab": found},
    }
    return EvaluationRecord.model_validate(values | changes)


def test_an_evaluation_is_recorded_in_provenance_and_card_and_the_model_stays(folder: Path):
    assert "not evaluated yet" in (folder / "card.md").read_text(encoding="utf-8")
    arrays = (folder / "trees.npz").read_bytes()
    record_evaluation(folder, record())
    model, provenance = load_model(folder)
    assert recorded_evaluations(provenance) == [record()]
    assert {name: provenance[name] for name in PROVENANCE} == PROVENANCE
    assert (folder / "trees.npz").read_bytes() == arrays
    np.testing.assert_array_equal(model.predict(X), MODEL.predict(X))
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "trees.npz"]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "not evaluated yet" not in card
    where = "4230 materials, zone axes 14 at random (plan ffffffffffff, 2024-02-29, diffractory 0.4.0)"
    for protocol in ("paper", "lab"):
        numbers = "75.4 % [74.5–76.3] | 0.013 | no such patterns | –"
        assert f"| {where} | {protocol} | {numbers} |" in card


def test_the_interval_of_a_calibration_error_goes_with_it(folder: Path):
    told = record().model_dump(mode="json")
    told["protocols"]["lab"]["1"]["calibration_interval"] = [0.004, 0.021]
    known = EvaluationRecord.model_validate(told)
    record_evaluation(folder, known)
    assert recorded_evaluations(load_model(folder)[1]) == [known]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "| lab | 75.4 % [74.5–76.3] | 0.013 [0.004–0.021] | no such patterns | – |" in card


def test_protocols_stand_in_one_order_however_often_a_card_was_written(folder: Path):
    turned = {"turned": record().protocols["lab"], **record().protocols}
    record_evaluation(folder, record(protocols=turned))
    record_evaluation(folder, record(plan_id="e" * 64, protocols=turned))
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert re.findall(r"\) \| (\w+) \|", card) == ["paper", "turned", "lab"] * 2


def test_one_evaluation_a_run_is_kept(boosted_folder: Path):
    even = record(plan_id="e" * 64, axes="even", same_zone_axes_as_training=True)
    for each in (record(materials=3), even, record()):
        record_evaluation(boosted_folder, each)
    assert recorded_evaluations(load_model(boosted_folder)[1]) == [even, record()]
    card = (boosted_folder / "card.md").read_text(encoding="utf-8")
    assert "zone axes 14 evenly spread, as in training" in card
    assert "| 3 materials" not in card
    # Of a model that is trained anew nothing is known.
    save_model(BOOSTED, boosted_folder, BOOSTED_PROVENANCE)
    assert "not evaluated yet" in (boosted_folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stored", [None, "good", [3, None, {}, {"date": 7}]])
def test_what_is_no_account_of_an_evaluation_is_left_out(folder: Path, stored: Any):
    change_header(folder, provenance=PROVENANCE | {"evaluations": stored})
    assert recorded_evaluations(load_model(folder)[1]) == []
    record_evaluation(folder, record())
    assert recorded_evaluations(load_model(folder)[1]) == [record()]


def test_nothing_is_recorded_where_nothing_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("diffractory.learning.artefact.write_atomic", full)
    with pytest.raises(AccessError, match=r"cannot be recorded in .*Permission denied.*leave --record out"):
        record_evaluation(folder, record())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_recorded_of_a_damaged_model(folder: Path):
    (folder / "trees.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="is damaged"):
        record_evaluation(folder, record())
