"""Physics out of range, and plans that the machine cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli_runs import PHYSICS, Workshop, refused, succeeds
from diffractory.settings import Resources

CASES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--thickness", "nan"), ("thicknesses", "nan", "finite", "Correct the value")),
    (("--thickness", "-200"), ("thicknesses", "-200", "above 0")),
    (("--thickness", "0"), ("thicknesses", "above 0")),
    (("--thickness", "inf"), ("thicknesses", "finite")),
    (("--thickness", "200,100"), ("strictly increasing",)),
    (("--thickness", "100,100"), ("none twice",)),
    (("--thickness", "thick"), ("--thickness 'thick' cannot be read", "first:last:step")),
    (("--thickness", ""), ("--thickness '' cannot be read",)),
    (("--thickness", "100,"), ("cannot be read",)),
    (("--thickness", "inf:inf:1"), ("cannot be read",)),
    (("--thickness", "nan:nan:nan"), ("cannot be read",)),
    (("--thickness", "100:200:nan"), ("cannot be read",)),
    (("--thickness", "0:inf:1"), ("cannot be read",)),
    (("--thickness", "300:100:10"), ("cannot be read",)),
    (("--thickness", "100:300:0"), ("cannot be read",)),
    (("--thickness", "1:100000:0.01"), ("cannot be read",)),
    (("--energy", "300000"), ("--energy 300000", "in keV: --energy 300")),
    (("--energy", "20"), ("energy_ev", "20000", "greater than or equal to 30000")),
    (("--energy", "nan"), ("--energy nan", "in keV")),
    (("--energy", "-300"), ("--energy -300", "in keV")),
    (("--q-max", "0"), ("q_max", "greater than 0")),
    (("--q-max", "20"), ("q_max", "less than or equal to 6")),
    (("--s-max", "nan"), ("s_max", "nan")),
    (("--thermal-sigma", "-1"), ("thermal_sigma", "-1")),
    (("--orientations", "0"), ("count", "greater than or equal to 1")),
    (("--orientations", "1000000"), ("count", "less than or equal to 100000")),
    (("--seed", "-1"), ("seed", "-1")),
    (("--seed", str(10**30)), ("seed",)),
    (("--in-plane", "Paper"), ("--in-plane 'Paper' is unknown", "paper or random")),
    (("--axes", "odd"), ("--axes 'odd' is unknown", "even or random")),
    (("--form-factors", "kirkland"), ("--form-factors 'kirkland' is unknown", "wk-cp, wk, ")),
    (("--partition-seconds", "0"), ("partitions of 0.0 s", "above 0")),
    (("--partition-seconds", "nan"), ("partitions of nan s", "above 0")),
]


@pytest.mark.parametrize(("options", "says"), CASES)
def test_physics_out_of_range(
    workshop: Workshop, tmp_path: Path, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    arguments = ("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *PHYSICS, *options)
    refused(*arguments, untouched=tmp_path, says=says)


def test_the_catalogue_is_missing_or_none(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("not Parquet")
    plan = ("plan", tmp_path / "run", "--catalogue")
    refused(
        *plan, tmp_path / "nowhere.parquet", untouched=tmp_path, says=("no catalogue at", "nowhere.parquet")
    )
    refused(*plan, tmp_path / "no.parquet", untouched=tmp_path, says=("no.parquet", "Parquet"))
    refused(*plan, tmp_path, untouched=tmp_path, says=(str(tmp_path),))


def _machine(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    real = Resources(2, 10**12, 10**15)
    small = Resources(**{**vars(real), **limits})

    def measure(cls: Any, folder: Path, workers: int | None = None) -> Resources:
        return small

    monkeypatch.setattr(Resources, "of_this_machine", classmethod(measure))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"worker_memory": 1_000_000}, ("a worker and 1.0 MB are there", "largest solve", "--workers")),
        (
            {"disk_free": 1_000},
            ("of disk and 1.0 kB are free", "peaks at 3 thicknesses", "fewer orientations"),
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_not_made(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
    says: tuple[str, ...],
) -> None:
    elsewhere = tmp_path / "planned on a larger machine"
    succeeds("plan", elsewhere, "--catalogue", workshop.catalogue, *PHYSICS)
    _machine(monkeypatch, **limits)
    plan = ("plan", tmp_path / "run", "--catalogue", workshop.catalogue, *PHYSICS)
    refused(*plan, untouched=tmp_path, says=says)
    # Refused before anything is computed.
    refused("simulate", elsewhere, "--cluster", "inline", untouched=tmp_path, says=says)


def test_a_folder_with_another_plan_is_kept(workshop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = ("plan", run, "--catalogue", workshop.catalogue, *PHYSICS)
    succeeds(*plan)
    says = (
        "already holds another plan",
        "crystals, physics, orientations or partitions differ",
        "Choose another folder",
    )
    refused(*plan, "--energy", "200", untouched=tmp_path, says=says)


def test_a_folder_with_other_files_is_kept(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    plan = ("plan", tmp_path, "--catalogue", workshop.catalogue, *PHYSICS)
    refused(*plan, untouched=tmp_path, says=("exists and is not a run folder", "new or empty"))
