"""plan, simulate, status, verify, features on a tiny run: what they say is what is on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli_runs import PHYSICS, Workshop, diffractory, fingerprint, refused, succeeds
from diffractory.dataset.features import find_features, read_features
from diffractory.dataset.reader import open_dataset
from diffractory.dataset.run import Run
from diffractory.dataset.verify import Verification
from diffractory.specs import RadialBasisSpec
from diffractory.units import human_bytes
from small_runs import shard_bytes

INLINE = ("--cluster", "inline")
N_CRYSTALS, N_ORIENTATIONS, THICKNESSES = 17, 10, (100.0, 200.0, 300.0)
N_PATTERNS = N_CRYSTALS * N_ORIENTATIONS * len(THICKNESSES)


def _plan(workshop: Workshop, run: Path) -> tuple[object, ...]:
    return ("plan", run, "--catalogue", workshop.catalogue, *PHYSICS, "--partition-seconds", "0.025")


def _copy(workshop: Workshop, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workshop.run, tmp_path / "run"))


def _only_set(said: dict[str, Any]) -> dict[str, Any]:
    """Return the one feature set of the paper's preset."""
    (report,) = said["sets"]
    return report


def test_plan_says_in_text_what_it_says_in_json(workshop: Workshop) -> None:
    before = fingerprint(workshop.run)
    summary = succeeds(*_plan(workshop, workshop.run), "--json").json
    assert fingerprint(workshop.run) == before
    run = Run.open(workshop.run)
    assert summary["plan_id"] == run.plan.plan_id
    assert summary["patterns"] == N_PATTERNS
    assert (summary["crystals"], summary["orientations"], summary["thicknesses"]) == (N_CRYSTALS, 10, 3)
    assert summary["partitions"] == len(run.plan.partitions) > 2
    assert summary["peaks"] == run.plan.n_peaks
    assert summary["disk_bytes_at_most"] == run.plan.disk_bytes
    assert summary["wall_seconds"] <= summary["core_seconds"]
    text = workshop.said["plan"].flat
    assert f"patterns {N_PATTERNS}" in text
    assert f"partitions {len(run.plan.partitions)}, at " in text
    assert f": {run.plan.largest_solve} beams, " in text
    assert summary["disk_bytes_likely"] == run.plan.likely_disk_bytes
    likely, bound = human_bytes(run.plan.likely_disk_bytes), human_bytes(run.plan.disk_bytes)
    assert f"disk about {likely}, at most {bound} of" in text
    assert run.plan.plan_id[:12] in text
    assert f"next: diffractory simulate {workshop.run}" in workshop.said["plan"].stderr


def test_plan_counts_the_peaks_that_are_there_in_the_end(workshop: Workshop) -> None:
    assert open_dataset(workshop.run).sizes["peak"] == Run.open(workshop.run).plan.n_peaks
    stored = sum(
        path.stat().st_size for path in (workshop.run / "peaks.zarr").rglob("c/**/*") if path.is_file()
    )
    assert stored <= Run.open(workshop.run).plan.disk_bytes


def test_options_of_plan_reach_the_plan(workshop: Workshop, tmp_path: Path) -> None:
    options = (
        *("--energy", "200", "--q-max", "0.8", "--s-max", "0.05", "--thermal-sigma", "0.07"),
        *(
            "--form-factors",
            "wk",
            "--thickness",
            "150",
            "--orientations",
            "2",
            "--in-plane",
            "random",
            "--axes",
            "random",
        ),
        *("--seed", "7", "--foil-tilt", "3", "-4", "--precession", "0.5", "--azimuths", "36"),
    )
    succeeds("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *options)
    plan = Run.open(tmp_path / "run").plan
    assert plan.simulation.model_dump() == {
        "energy_ev": 200e3,
        "q_max": 0.8,
        "s_max": 0.05,
        "thermal_sigma": 0.07,
        "thicknesses": (150.0,),
        "form_factors": "wk",
        "foil_tilt_deg": (3.0, -4.0),
        "precession_deg": 0.5,
        "precession_azimuths": 36,
    }
    assert plan.orientations.model_dump() == {"count": 2, "in_plane": "random", "seed": 7, "axes": "random"}


def test_status_before_and_after(workshop: Workshop) -> None:
    planned = workshop.said["status-planned"].json["stages"]
    assert list(planned) == ["peaks"]
    assert planned["peaks"]["done"] == planned["peaks"]["bytes"] == planned["peaks"]["share_of_work"] == 0
    report = succeeds("status", workshop.run, "--json").json
    assert report["plan_id"] == Run.open(workshop.run).plan.plan_id
    stage = _only_set(workshop.said["features"].json)["stage"]
    assert set(report["stages"]) == {"peaks", stage}
    for name, store in (("peaks", "peaks.zarr"), (stage, f"{stage}.zarr")):
        numbers = report["stages"][name]
        assert numbers["done"] == numbers["partitions"] == len(Run.open(workshop.run).plan.partitions)
        assert numbers["share_of_work"] == pytest.approx(1.0)
        assert numbers["damaged"] == 0
        shards = [path for path in (workshop.run / store).glob("*/c/**/*") if path.is_file()]
        assert numbers["bytes"] == sum(path.stat().st_size for path in shards)


def test_status_in_text(workshop: Workshop) -> None:
    text = succeeds("status", workshop.run).flat
    n = len(Run.open(workshop.run).plan.partitions)
    assert f"peaks {n} of {n} 100 %" in text
    assert text.count(f"{n} of {n} 100 %") == 2


def test_simulate_computed_everything_and_says_so(workshop: Workshop) -> None:
    report = workshop.said["simulate"].json
    run = Run.open(workshop.run)
    assert report["partitions_computed"] == len(run.plan.partitions)
    assert report["partitions_done_before"] == 0
    assert report["plan_id"] == run.plan.plan_id
    assert report["core_seconds"] == pytest.approx(
        sum(r.processor_seconds for r in run.done().values()), abs=0.01
    )
    assert "running on this process" in workshop.said["simulate"].stderr
    assert f"{len(run.plan.partitions)}/{len(run.plan.partitions)} parts" in workshop.said["simulate"].stderr


def test_simulate_again_computes_nothing(workshop: Workshop) -> None:
    before = fingerprint(workshop.run)
    report = succeeds("simulate", workshop.run, *INLINE, "--json").json
    n = len(Run.open(workshop.run).plan.partitions)
    assert (report["partitions_computed"], report["partitions_done_before"]) == (0, n)
    answer = succeeds("simulate", workshop.run, *INLINE)
    assert f"{n} of {n} partitions are done already" in answer.stderr
    assert f"{workshop.run}: simulated in" in answer.stdout
    assert f"next: diffractory verify {workshop.run}" in answer.stderr
    assert fingerprint(workshop.run) == before


def test_simulate_goes_on_where_it_was(workshop: Workshop, tmp_path: Path) -> None:
    run = _copy(workshop, tmp_path)
    for index in (1, 3):
        Run.open(run).record_path("peaks", index).unlink()
    report = succeeds("simulate", run, *INLINE, "--json").json
    assert report["partitions_computed"] == 2
    assert shard_bytes(Run.open(run)) == shard_bytes(Run.open(workshop.run))


def test_one_partition_at_a_time_gives_the_same_run(workshop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeeds(*_plan(workshop, run))
    n = len(Run.open(run).plan.partitions)
    for index in reversed(range(n)):
        report = succeeds("simulate", run, "--partition", index, "--json").json
        assert report["partition"] == index
        assert succeeds("status", run, "--json").json["stages"]["peaks"]["done"] == n - index
    assert shard_bytes(Run.open(run)) == shard_bytes(Run.open(workshop.run))


def test_verify_solves_a_sample_again(workshop: Workshop) -> None:
    before = fingerprint(workshop.run)
    report = succeeds("verify", workshop.run, *INLINE, "--sample", "0.1", "--json").json
    assert report["whole"]
    assert report["problems"] == {}
    assert report["patterns"] == N_PATTERNS
    assert report["partitions"] == len(Run.open(workshop.run).plan.partitions)
    assert 1 <= report["solved_again"] < N_CRYSTALS * N_ORIENTATIONS
    assert 0.0 <= report["largest_difference"] < 1e-5
    none = succeeds("verify", workshop.run, *INLINE, "--sample", "0", "--json").json
    assert none["solved_again"] == 0
    text = succeeds("verify", workshop.run, *INLINE, "--sample", "0.1").stdout
    assert f"{workshop.run}: whole. {report['partitions']} partitions, {N_PATTERNS} patterns" in text
    assert f"{report['solved_again']} orientations solved again" in text
    assert fingerprint(workshop.run) == before


def test_what_another_version_computed_is_neither_compared_nor_repaired(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(workshop.run)
    monkeypatch.setattr("diffractory.dataset.run.__version__", "7.0.0")
    answer = succeeds("verify", workshop.run, *INLINE, "--sample", "1")
    assert "orientations and intensities are not compared" in answer.flat
    assert "0 orientations solved again" in answer.flat
    refused("verify", workshop.run, *INLINE, "--repair", untouched=workshop.run, says="this is 7.0.0")
    assert fingerprint(workshop.run) == before


def test_repair_keeps_what_the_machine_did_not_give(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(_copy(workshop, tmp_path))
    monkeypatch.setattr(
        "diffractory.cli.verify.verify_partition",
        lambda _, partition, sample: Verification(partition, 0, 0, 0.0, ("no files left",), partition == 1),
    )
    answer = diffractory("verify", run.path, *INLINE, "--repair")
    assert answer.code == 2
    assert "no files left" in answer.flat
    assert set(range(len(run.plan.partitions))) - set(run.done()) == {1}


def test_features_are_those_on_disk(workshop: Workshop) -> None:
    said = workshop.said["features"].json
    assert (said["run"], said["preset"]) == (str(workshop.run), "paper")
    report = _only_set(said)
    run = Run.open(workshop.run)
    assert report["thicknesses"] == list(THICKNESSES)
    assert report["protocol"] == "paper"
    assert report["patterns"] == N_PATTERNS
    assert report["features"] == RadialBasisSpec().n_features
    plan = find_features(run, RadialBasisSpec(), 200.0)
    assert plan.stage == report["stage"]
    features = read_features(run, plan, 200.0)
    assert features.shape == (N_CRYSTALS * N_ORIENTATIONS, report["features"])
    assert np.all(np.abs(features).sum(axis=1) > 0)


def test_features_again_computes_nothing(workshop: Workshop) -> None:
    before = fingerprint(workshop.run)
    report = _only_set(succeeds("features", workshop.run, *INLINE, "--json").json)
    assert report["partitions_computed"] == 0
    text = succeeds("features", workshop.run, *INLINE)
    what = f"{N_PATTERNS} patterns as simulated at {list(THICKNESSES)} Å × "
    what += f"{RadialBasisSpec().n_features} features"
    assert f"{workshop.run}: {what}" in text.stdout
    assert f"next: diffractory train {workshop.run}" in text.stderr
    assert fingerprint(workshop.run) == before


def test_features_of_some_thicknesses_are_a_set_of_their_own(workshop: Workshop, tmp_path: Path) -> None:
    run = _copy(workshop, tmp_path)
    command = ("features", run, *INLINE, "--json", "--thickness")
    report = _only_set(succeeds(*command, "300,100").json)
    assert report["thicknesses"] == [100.0, 300.0]
    assert report["partitions_computed"] == len(Run.open(run).plan.partitions)
    assert report["stage"] != _only_set(workshop.said["features"].json)["stage"]
    # The same thicknesses are the same set, however they are written.
    for same in ("100,300", "100:300:200", "300,100,300"):
        again = _only_set(succeeds(*command, same).json)
        assert (again["stage"], again["partitions_computed"]) == (report["stage"], 0)


def test_records_are_strict_json(workshop: Workshop) -> None:
    for path in (workshop.run / "records").rglob("*.json"):
        assert json.loads(path.read_text(), parse_constant=pytest.fail)["checksum"]


SITE = 'walltime = "01:00:00"\ncores = 4\nmemory = "16 GiB"\njobs = 8\n'


def test_an_estimate_makes_nothing(workshop: Workshop, tmp_path: Path) -> None:
    words = ("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *PHYSICS, "--estimate")
    answer = succeeds(*words)
    assert "nothing was made" in answer.flat
    assert "on one core" in answer.flat
    costs = succeeds(*words, "--json").json
    assert costs["patterns"] == N_PATTERNS
    assert costs["estimate"]["core_seconds"] == pytest.approx(costs["core_seconds"], abs=0.1)
    assert costs["estimate"]["files"] >= 4 * costs["partitions"]
    assert costs["estimate"]["largest_crystal"] in Run.open(workshop.run).catalogue.ids
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_site_counts_its_workers_and_their_memory(workshop: Workshop, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    words = ("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *PHYSICS, "--site", site)
    costs = succeeds(*words, "--estimate", "--json").json
    assert costs["workers"] == 32
    assert succeeds(*words, "--estimate", "--jobs", "2", "--json").json["workers"] == 8
    site.write_text(SITE.replace("16 GiB", "2 GiB"))
    answer = diffractory(*words)
    assert answer.code == 2
    # The table first: it shows by how much.
    assert "memory a worker" in answer.stdout
    assert "a worker and" in answer.stderr
    answer = diffractory(*words, "--estimate", "--json")
    assert (answer.code, answer.json["workers"]) == (2, 32)
    assert "a worker and" in answer.stderr
    assert not (tmp_path / "run").exists()


def test_jobs_of_no_site_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    answer = diffractory("plan", tmp_path / "run", "--catalogue", workshop.catalogue, "--jobs", "2")
    assert answer.code == 2
    assert "--jobs needs --site FILE" in answer.stderr
