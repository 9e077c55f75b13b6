"""Run folders that are missing, damaged, of another version, or hold another plan's data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli_runs import Workshop, diffractory, fingerprint, refused, succeeds
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.run import PEAKS, Run
from diffractory.settings import Resources
from small_runs import edit_json, rewrite_record, shard_bytes

INLINE = ("--cluster", "inline")


@pytest.fixture
def run(workshop: Workshop, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may damage."""
    return Path(shutil.copytree(workshop.run, tmp_path / "run"))


def _commands(run: Path, workshop: Workshop, out: Path) -> list[tuple[object, ...]]:
    return [
        ("simulate", run, *INLINE),
        ("verify", run, *INLINE),
        ("status", run),
        ("features", run, *INLINE),
        ("export", run, "--out", out / "peaks.parquet"),
        ("train", run, "--out", out, *INLINE),
        ("evaluate", workshop.model, run, "--out", out, *INLINE),
    ]


def _shard(run: Path, array: str = "intensity") -> Path:
    return next(path for path in sorted((run / "peaks.zarr" / array / "c").rglob("*")) if path.is_file())


def test_every_command_refuses_what_is_no_run(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file", "nowhere"):
        for command in _commands(tmp_path / name, workshop, tmp_path / "out"):
            says = (f"{tmp_path / name} is not a run folder", "plan.json", "diffractory plan")
            refused(*command, untouched=tmp_path, says=says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 99}, ("format version 99", "plan a new run folder")),
        ({"format_version": 1}, ("format version 1, this program writes and reads 2", "plan a new run")),
        ({"code_version": "99.0.0"}, ("does not match its own id", "edited or damaged")),
        ({"largest_solve": 1}, ("does not match its own id",)),
        ({"plan_id": "0" * 64}, ("does not match its own id",)),
    ],
)
def test_every_command_refuses_an_altered_plan(
    workshop: Workshop, run: Path, changes: dict[str, object], says: tuple[str, ...]
) -> None:
    edit_json(run / "plan.json", **changes)
    for command in _commands(run, workshop, run.parent / "out"):
        refused(*command, untouched=run.parent, says=says)


def test_a_run_of_another_version_is_read_but_not_gone_on_with(
    workshop: Workshop, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffractory.dataset.run.__version__", "7.0.0")
    for options in (INLINE, ("--partition", "0")):
        says = ("was planned with diffractory", "this is 7.0.0", "Install")
        refused("simulate", run, *options, untouched=run.parent, says=says)
    succeeds("verify", run, *INLINE)
    succeeds("status", run)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 2}', "\x00\x01"])
def test_a_cut_plan_is_refused(workshop: Workshop, run: Path, text: str) -> None:
    (run / "plan.json").write_text(text)
    for command in _commands(run, workshop, run.parent / "out"):
        refused(*command, untouched=run.parent, says=("plan.json",))


def test_another_catalogue_is_refused(workshop: Workshop, run: Path) -> None:
    succeeds("catalogue", "build", run / "catalogue.parquet", "--limit", "5", "--max-volume", "60")
    for command in _commands(run, workshop, run.parent / "out"):
        if command[0] not in ("status", "features"):  # these two need no crystals
            says = ("is not the catalogue this run was planned with", "Put the original back")
            refused(*command, untouched=run.parent, says=says)


@pytest.mark.parametrize(
    "damage", ["cut record", "empty record", "record of another plan", "cut shard", "no shard"]
)
def test_truncated_data_are_refused_by_readers_and_computed_anew(
    workshop: Workshop, run: Path, damage: str
) -> None:
    record = Run.open(run).record_path(PEAKS, 0)
    whole = record.read_bytes()
    if damage == "cut record":
        record.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty record":
        record.write_bytes(b"")
    elif damage == "record of another plan":
        rewrite_record(record, plan_id="f" * 64)
    elif damage == "cut shard":
        _shard(run).write_bytes(_shard(run).read_bytes()[:-7])
    else:
        _shard(run).unlink()
    readers = [
        ("features", run, *INLINE, "--thickness", "100"),
        ("export", run, "--out", run.parent / "peaks.parquet"),
        ("evaluate", workshop.model, run, *INLINE, "--out", run.parent / "out"),
    ]
    for command in readers:
        refused(*command, untouched=run.parent, says=("diffractory simulate",))
    says = ("1 of 5 partitions are missing or damaged", "partition 0", "verify", "--repair")
    refused("verify", run, *INLINE, untouched=run.parent, says=says)
    assert succeeds("status", run, "--json").json["stages"]["peaks"]["damaged"] == 1
    answer = succeeds("simulate", run, *INLINE, "--json")
    assert answer.json["partitions_computed"] == 1
    assert "partition 0 is computed anew" in answer.stderr
    succeeds("verify", run, *INLINE)
    assert shard_bytes(Run.open(run)) == shard_bytes(Run.open(workshop.run))


def test_a_run_that_is_driven_is_not_repaired(workshop: Workshop, run: Path) -> None:
    Run.open(run).record_path("peaks", 0).unlink()
    with sole_driver(Run.open(run)):
        says = ("is driven by another command", f"process {os.getpid()}")
        refused("verify", run, *INLINE, "--repair", untouched=run, says=says)


def test_a_run_goes_on_where_the_disk_holds_what_is_missing(
    workshop: Workshop, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Run.open(run).plan
    last = len(plan.partitions) - 1
    share = plan.partitions[last].n_peaks / plan.n_peaks
    free = {"bytes": 0}

    def measure(cls: Any, folder: Path, workers: int | None = None) -> Resources:
        return Resources(1, 10**12, free["bytes"])

    monkeypatch.setattr(Resources, "of_this_machine", classmethod(measure))
    # A full disk is no matter to a run that is finished.
    assert succeeds("simulate", run, *INLINE, "--json").json["partitions_computed"] == 0
    Run.open(run).record_path("peaks", last).unlink()
    free["bytes"] = int(share * plan.wanted_disk_bytes)
    says = ("of disk and", "are free", "Give another run folder")
    refused("simulate", run, *INLINE, untouched=run, says=says)
    free["bytes"] += 1
    assert succeeds("simulate", run, *INLINE, "--json").json["partitions_computed"] == 1


def test_a_flipped_bit_is_found_repaired_and_computed_anew(workshop: Workshop, run: Path) -> None:
    data = bytearray(_shard(run).read_bytes())
    data[len(data) // 2] ^= 1
    _shard(run).write_bytes(data)
    refused("verify", run, *INLINE, untouched=run, says=("partition 0", "checksum", "--repair"))
    answer = diffractory("verify", run, *INLINE, "--repair", "--json")
    assert answer.code == 2
    assert list(answer.json["problems"]) == ["0"]
    assert not answer.json["whole"]
    assert f"Run `diffractory simulate {run}`" in answer.stderr
    assert succeeds("simulate", run, *INLINE, "--json").json["partitions_computed"] == 1
    assert succeeds("verify", run, *INLINE, "--json").json["whole"]
    assert shard_bytes(Run.open(run)) == shard_bytes(Run.open(workshop.run))


def test_an_unfinished_run_is_refused_by_readers(workshop: Workshop, run: Path) -> None:
    Run.open(run).record_path(PEAKS, 2).unlink()
    out = run.parent / "out"
    for command in (
        ("features", run, *INLINE),
        ("export", run, "--out", out / "peaks.parquet"),
        ("evaluate", workshop.model, run, "--out", out, *INLINE),
        ("verify", run, *INLINE),
    ):
        refused(*command, untouched=run.parent, says=("diffractory simulate",))


def test_training_without_features_says_how_to_get_them(run: Path) -> None:
    out = run.parent / "model"
    refused(
        *("train", run, "--out", out, "--thickness", "250", *INLINE),
        untouched=run.parent,
        says=("no finished features at 250.0 Å", "[100.0, 200.0, 300.0]", "diffractory features"),
    )
    for path in run.glob("features-*.json"):
        path.unlink()
    says = ("no finished features at 200.0 Å", "diffractory features")
    refused("train", run, "--out", out, *INLINE, untouched=run.parent, says=says)


def test_a_damaged_feature_plan_is_refused(run: Path) -> None:
    next(run.glob("features-*.json")).write_text("{}")
    says = ("is damaged, or of another run or version", "Remove it")
    refused("train", run, "--out", run.parent / "model", *INLINE, untouched=run.parent, says=says)
    refused("status", run, untouched=run.parent, says=says)


@pytest.mark.parametrize(
    ("thickness", "says"),
    [
        ("250", ("no patterns at [250.0] Å", "[100.0, 200.0, 300.0]")),
        ("nan", ("nan",)),
        ("-100", ("-100",)),
        ("", ("--thickness '' cannot be read",)),
        ("many", ("--thickness 'many' cannot be read", "first:last:step")),
    ],
)
def test_features_at_a_thickness_that_was_not_simulated(
    run: Path, thickness: str, says: tuple[str, ...]
) -> None:
    refused("features", run, "--thickness", thickness, *INLINE, untouched=run, says=says)


@pytest.mark.parametrize("index", ["5", "999999"])
def test_a_partition_that_is_not_there(run: Path, index: str) -> None:
    says = ("partitions 0 … 4", f"no partition {index}")
    refused("simulate", run, "--partition", index, untouched=run, says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--test-fraction", "0"), ("test_fraction", "greater than 0")),
        (("--test-fraction", "1"), ("test_fraction", "less than 1")),
        (("--test-fraction", "nan"), ("test_fraction", "nan")),
        (("--thickness", "nan"), ("thickness", "nan")),
        (("--thickness", "-5"), ("thickness", "-5")),
        (("--seed", "-1"), ("seed", "-1")),
    ],
)
def test_training_settings_out_of_range(run: Path, options: tuple[str, ...], says: tuple[str, ...]) -> None:
    refused("train", run, "--out", run.parent / "model", *INLINE, *options, untouched=run.parent, says=says)


def test_status_of_a_run_that_lost_its_store_is_honest(run: Path) -> None:
    shutil.rmtree(run / "peaks.zarr")
    before = fingerprint(run)
    peaks = succeeds("status", run, "--json").json["stages"]["peaks"]
    assert (peaks["done"], peaks["damaged"]) == (0, 5)
    assert fingerprint(run) == before
    refused("verify", run, *INLINE, untouched=run, says=("5 of 5 partitions are missing or damaged",))
    answer = diffractory("simulate", run, *INLINE)
    assert answer.code in (1, 2)
    assert "Traceback" not in answer.stderr
    assert "peaks.zarr" in answer.stderr


def test_json_on_disk_is_strict(run: Path) -> None:
    for path in run.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
