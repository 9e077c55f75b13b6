"""`calibrate` writes what `plan` reads; `plan` says whose seconds it states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_runs import PHYSICS, Workshop, refused, succeeds
from diffractory.dataset.run import Run
from diffractory.scattering import calibration
from diffractory.scattering.cost import TYPICAL, Speed


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(calibration, "_DURATION", 0.01)
    return tmp_path / "config" / "diffractory" / "speed.json"


def _plan(workshop: Workshop, run: Path, *more: object) -> tuple[object, ...]:
    return ("plan", run, "--catalogue", workshop.catalogue, *PHYSICS, *more)


def _slow(path: Path) -> Path:
    values = json.loads(TYPICAL.to_json())
    numbers = {k: v for k, v in values.items() if k not in ("speed_version", "sizes")}
    slower = {k: [10 * x for x in v] if isinstance(v, list) else 10 * v for k, v in numbers.items()}
    path.write_text(json.dumps({**values, **slower}))
    return path


def test_calibrate_writes_the_file_that_plans_look_for(workshop: Workshop, own_configuration: Path) -> None:
    tmp = own_configuration.parents[2]
    assert "typical core" in succeeds(*_plan(workshop, tmp / "before")).stderr
    answer = succeeds("calibrate")
    assert str(own_configuration) in answer.stderr
    assert "1,000" in answer.stdout
    Speed.from_json(own_configuration.read_text())
    assert "typical core" not in succeeds(*_plan(workshop, tmp / "after")).stderr


def test_calibrate_in_json_says_what_it_wrote(tmp_path: Path) -> None:
    said = succeeds("calibrate", "--out", tmp_path / "deep" / "node.json", "--json").json
    kept = Speed.from_json((tmp_path / "deep" / "node.json").read_text())
    assert tuple(said["term"]) == kept.term
    assert said["file"] == str(tmp_path / "deep" / "node.json")


def test_a_plan_is_predicted_for_the_machine_that_is_named(workshop: Workshop, tmp_path: Path) -> None:
    succeeds(*_plan(workshop, tmp_path / "a"))
    succeeds(*_plan(workshop, tmp_path / "b", "--speed", _slow(tmp_path / "s.json")))
    typical, slow = (Run.open(tmp_path / name).plan.seconds for name in "ab")
    assert slow == pytest.approx(10.0 * typical, rel=1e-3)


def test_a_speed_file_that_is_missing_or_none_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff\xfe")
    for name, says in (
        ("none", "does not hold"),
        ("nowhere", "cannot be read"),
        ("picture", "cannot be read"),
    ):
        arguments = _plan(workshop, tmp_path / "run", "--speed", tmp_path / f"{name}.json")
        refused(*arguments, untouched=tmp_path, says=(says, "diffractory calibrate"))


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused("calibrate", "--out", tmp_path, untouched=tmp_path, says=("it is a folder", "Name a file"))
    refused("calibrate", "--out", "/", untouched=tmp_path, says=("it is a folder",))
    refused("calibrate", "--out", tmp_path / "file" / "s.json", untouched=tmp_path, says=("is a file, not",))


def test_the_illumination_is_planned(workshop: Workshop, tmp_path: Path) -> None:
    succeeds(*_plan(workshop, tmp_path / "still"))
    options = ("--precession", "1.0", "--azimuths", "8", "--foil-tilt", "2", "-3")
    succeeds(*_plan(workshop, tmp_path / "turned"), *options)
    still, turned = (Run.open(tmp_path / name).plan for name in ("still", "turned"))
    assert turned.simulation.foil_tilt_deg == (2.0, -3.0)
    assert turned.seconds > still.seconds
