"""map divides a scan: known grains come back, every file says the same, and options matter."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import worker_tasks
from cli_runs import CRYSTALS, SCAN_SHAPE, Workshop, refused, succeeds
from diffractory.cli import map_scan, mapping
from diffractory.cli.mapping import parse_regions
from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.dataset.partition import read_partition
from diffractory.dataset.run import Run
from diffractory.execution.helper import helper_process
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from diffractory.specs import OrientationSpec, SimulationSpec
from small_runs import finish, small_plan, zoo_catalogue

INLINE = ("--cluster", "inline")
#: Without pictures, which take most of the time of a small map.
QUICK = (*INLINE, "--no-report")
SHAPE = (24, 30)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeakTable, GrainLabels]:
    """Return patterns of crystals in random orientations, as grains have them, and what they are of."""
    crystals, orientations = zoo_catalogue(CRYSTALS), OrientationSpec(count=6, axes="random")
    plan = small_plan(crystals, 6, orientations, SimulationSpec(thicknesses=(200.0,)))
    run = finish(Run.create(tmp_path_factory.mktemp("patterns") / "run", plan, crystals))
    parts = [read_partition(run, index).table(0) for index in range(len(run.plan.partitions))]
    table, owners = run.catalogue.table, np.arange(run.plan.n_items) // run.plan.orientations.count
    labels = GrainLabels(
        np.array([system_code(name) for name in table["crystal_system"]], dtype=np.int8)[owners],
        table["space_group"].to_numpy(dtype=np.int16)[owners],
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[owners],
        np.array(run.catalogue.ids)[owners],
    )
    return PeakTable.concatenate(parts), labels


@pytest.fixture(scope="module")
def grains(
    patterns: tuple[PeakTable, GrainLabels], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, xr.Dataset]:
    """Return a scan of nine grains, each of another pattern, and its truth."""
    scan, truth = synthetic_scan(*patterns, SHAPE, 9, seed=4, energy_ev=300e3)
    path = tmp_path_factory.mktemp("grains") / "scan.h5"
    scan.to_emd(path)
    return path, truth


@pytest.fixture(scope="module")
def mapped(
    grains: tuple[Path, xr.Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a map of the grains by the included model, and what was said."""
    out = tmp_path_factory.mktemp("mapped") / "map"
    said = succeeds("map", grains[0], "--out", out, "--regions", "grains", *INLINE, "--json").json
    return out, said


@pytest.mark.parametrize("dies", [False, True])
def test_two_processes_write_and_draw_what_one_does(
    grains: tuple[Path, xr.Dataset],
    mapped: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dies: bool,
) -> None:
    asked: list[str] = []

    @contextmanager
    def helper_that_may_die(*modules: str) -> Iterator[Executor]:
        asked.extend(modules)
        with helper_process(*modules) as helper:
            if dies:
                os.kill(helper.submit(worker_tasks.process_id).result(), signal.SIGKILL)
            yield helper

    monkeypatch.setattr(map_scan, "_LARGE_SCAN", 1)
    monkeypatch.setattr(map_scan, "helper_process", helper_that_may_die)
    said = succeeds("map", grains[0], "--out", tmp_path / "map", "--regions", "grains", "--json").json
    assert asked == [*map_scan._HELPER_NEEDS]
    assert said == mapped[1]
    pictures = sorted(path.name for path in mapped[0].glob("*.png"))
    assert pictures == sorted(path.name for path in (tmp_path / "map").glob("*.png"))
    for name in pictures:
        assert (tmp_path / "map" / name).read_bytes() == (mapped[0] / name).read_bytes()
    xr.testing.assert_identical(
        xr.load_dataset(tmp_path / "map/map.nc"), xr.load_dataset(mapped[0] / "map.nc")
    )
    there, here = (xr.open_zarr(folder / "map.zarr") for folder in (tmp_path / "map", mapped[0]))
    xr.testing.assert_identical(there.load(), here.load())


def test_every_grain_is_found(grains: tuple[Path, xr.Dataset], mapped: tuple[Path, dict[str, Any]]) -> None:
    truth, table = grains[1], pd.read_parquet(mapped[0] / "particles.parquet")
    data = xr.load_dataset(mapped[0] / "map.nc")
    particle, seen = data["particle"].to_numpy(), data["n_spots"].to_numpy() >= 5
    grain = truth["grain"].to_numpy()
    assert not particle[grain < 0].any()
    sizes = np.bincount(grain[grain >= 0], minlength=9)
    large = [index for index in np.flatnonzero(sizes >= 20) if seen[grain == index].all()]
    for index in large:
        found, counts = np.unique(particle[grain == index], return_counts=True)
        assert counts.max() >= 0.95 * sizes[index], f"grain {index} is in pieces"
        row = table.set_index("particle").loc[found[counts.argmax()]]
        y, x = (np.mean(places) for places in np.nonzero(grain == index))
        if (particle == row.name).sum() == sizes[index]:
            np.testing.assert_allclose([row["centroid_y"], row["centroid_x"]], [y, x])
            assert row["area_nm2"] == pytest.approx(sizes[index] * 4.0)
    assert len(large) >= 5


def test_most_grains_are_named_right(patterns: tuple[PeakTable, GrainLabels], tmp_path: Path) -> None:
    scan, truth = synthetic_scan(*patterns, (50, 60), 60, seed=4, energy_ev=300e3)
    scan.to_emd(tmp_path / "scan.h5")
    succeeds("map", tmp_path / "scan.h5", "--out", tmp_path / "map", "--regions", "grains", *QUICK)
    table = pd.read_parquet(tmp_path / "map" / "particles.parquet").set_index("particle")
    particle = xr.load_dataset(tmp_path / "map" / "map.nc")["particle"].to_numpy()
    grain, systems = truth["grain"].to_numpy(), truth["crystal_system"].to_numpy()
    right = []
    for index in range(60):
        found, counts = np.unique(particle[grain == index], return_counts=True)
        if (grain == index).sum() >= 20 and found[counts.argmax()] > 0:
            answer = table.loc[found[counts.argmax()], "crystal_system"]
            right.append(answer == CRYSTAL_SYSTEMS[int(systems[grain == index][0])])
    assert len(right) >= 40
    assert np.mean(right) >= 0.7


def test_every_file_says_the_same(mapped: tuple[Path, dict[str, Any]]) -> None:
    out, said = mapped
    zarr, classic = xr.open_zarr(out / "map.zarr").load(), xr.load_dataset(out / "map.nc")
    xr.testing.assert_equal(zarr, classic)
    csv, parquet = pd.read_csv(out / "particles.csv"), pd.read_parquet(out / "particles.parquet")
    assert csv["particle"].tolist() == parquet["particle"].tolist() == list(range(1, len(csv) + 1))
    np.testing.assert_allclose(csv["a"], parquet["a"])
    particle = zarr["particle"].to_numpy()
    assert np.bincount(particle.ravel())[1:].tolist() == parquet["n_positions"].tolist()
    assert json.loads((out / "summary.json").read_text()) == said
    assert said["particles"]["count"] == len(csv)
    assert said["particles"]["positions"] == int((particle > 0).sum())
    counted = parquet["crystal_system"].value_counts()
    assert {name: n for name, n in said["particles"]["systems"].items() if n} == counted.to_dict()
    flags = zarr["flags"].to_numpy()
    for name, mask in zip(
        zarr["flags"].attrs["flag_meanings"].split(), zarr["flags"].attrs["flag_masks"], strict=True
    ):
        assert said["flags"][name] == int(((flags & mask) > 0).sum())
    assert said["flags"]["few_spots"] == said["unlabelled"]["few_spots"]
    assert said["flags"]["outside_training"] == said["outside_training"]["count"]
    page = (out / "map.html").read_text()
    pictures, vectors = list(out.glob("*.png")), list(out.glob("*.svg"))
    assert page.count("data:image/png;base64,") == len(pictures) == len(vectors)
    assert not re.search("https?:", page)


def test_one_position_of_a_particle_is_the_particle(grains: tuple[Path, xr.Dataset], tmp_path: Path) -> None:
    """Blocks of one position: the particle's answer is the position's own, by both rules."""
    out = tmp_path / "map"
    succeeds("map", grains[0], "--out", out, "--regions", "grid:1", "--median-size", "1", *QUICK)
    data, table = xr.load_dataset(out / "map.nc"), pd.read_parquet(out / "particles.parquet")
    assert len(table) == SHAPE[0] * SHAPE[1]
    raw = data["crystal_system_raw"].to_numpy().ravel()
    names = [CRYSTAL_SYSTEMS[code] if code >= 0 else "" for code in raw]
    for rule in ("crystal_system", "system_by_difference", "system_by_evidence"):
        assert table[rule].fillna("").tolist() == names
    np.testing.assert_allclose(table["confidence"], data["confidence"].to_numpy().ravel(), rtol=1e-5)
    labelled = data["crystal_system"].to_numpy().ravel() >= 0
    np.testing.assert_allclose(table["a"][labelled], data["a"].to_numpy().ravel()[labelled], rtol=1e-5)
    few = data["n_spots"].to_numpy().ravel() < 5
    assert (table["flags"] == "few_spots").tolist() == few.tolist()


def test_options_of_particles(workshop: Workshop, tmp_path: Path) -> None:
    def particles(*options: object) -> tuple[dict[str, Any], xr.Dataset]:
        out = tmp_path / "map"
        said = succeeds(
            "map", workshop.scan, "--model", workshop.model, "--out", out, *QUICK, "--json", *options
        ).json
        return said, xr.load_dataset(out / "map.nc")

    said, data = particles("--regions", "grid:4")
    assert said["particles"]["count"] == 3 * 4
    assert json.loads(data.attrs["particle_spec"])["grid"] == 4
    assert "were looked for" not in data["flags"].attrs["comment"]  # this model reads no lattices
    said, data = particles("--flag-overlap", "--regions", "labels", "--min-size", "1")
    assert "were looked for" in data["flags"].attrs["comment"]
    assert said["particles"]["positions"] == said["labelled"]
    said, data = particles("--threshold", "1e9")
    assert said["particles"]["count"] == 0
    assert pd.read_csv(tmp_path / "map" / "particles.csv").empty
    said, data = particles("--dark-field", "0.1", "0.5", "--smoothing", "0", "--split", "--seed", "3")
    spec = json.loads(data.attrs["particle_spec"])
    assert (spec["q_range"], spec["smoothing"], spec["split"], spec["seed"]) == ([0.1, 0.5], 0.0, True, 3)
    (tmp_path / "map" / "mine.txt").write_text("mine")
    (tmp_path / "map" / "map.html").write_text("of an earlier map")
    said, data = particles("--no-particles")
    left = sorted(path.name for path in (tmp_path / "map").iterdir())
    assert left == ["map.nc", "map.zarr", "mine.txt", "summary.json"]
    assert "particles" not in said
    assert "particle" not in data
    assert data["crystal_system"].shape == SCAN_SHAPE


def test_the_papers_forest_answers_by_its_own_rule(workshop: Workshop, tmp_path: Path) -> None:
    succeeds("map", workshop.scan, "--model", workshop.model, "--out", tmp_path / "m", *QUICK,
             "--regions", "grid:6", "--patterns", "3")  # fmt: skip
    table = pd.read_parquet(tmp_path / "m" / "particles.parquet")
    assert table["system_by_evidence"].isna().all()
    assert table["crystal_system"].equals(table["system_by_difference"])
    assert table["n_by_difference"].max() == 3


@pytest.mark.parametrize("compiled", [True, False])
def test_whoever_waits_for_the_compiler_is_told_so(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    monkeypatch.setattr(mapping, "search_is_compiled", lambda: compiled)
    words = "compiling the lattice search for this machine: half a minute or more, this once"
    said = succeeds("map", workshop.scan, "--out", tmp_path / "robust", "--no-particles", *QUICK)
    assert (words in said.flat) is not compiled
    paper = ("map", workshop.scan, "--out", tmp_path / "paper", "--model", workshop.model, "--no-particles")
    assert words not in succeeds(*paper, *QUICK).flat
    assert (words in succeeds(*paper, *QUICK, "--flag-overlap").flat) is not compiled


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("particles", {"regions": "particles"}),
        ("grains", {"regions": "grains"}),
        ("labels", {"regions": "labels"}),
        ("grid:7", {"regions": "grid", "grid": 7}),
    ],
)
def test_regions_are_read(text: str, values: dict[str, Any]) -> None:
    assert parse_regions(text) == values


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--regions", "circles"), ("--regions 'circles'", "grid:10")),
        (("--regions", "grid"), ("--regions 'grid'", "grid:10")),
        (("--regions", "grid:"), ("cannot be read",)),
        (("--regions", "grid:-3"), ("cannot be read",)),
        (("--regions", "grid:²"), ("cannot be read",)),
        (("--regions", "particles:3"), ("cannot be read",)),
        (("--regions", "grid:0"), ("grid", "greater than or equal to 1")),
        (("--dark-field", "0.9", "0.1"), ("q_range", "smaller distance comes first")),
        (("--dark-field", "nan", "1"), ("q_range",)),
        (("--smoothing", "-1"), ("smoothing", "greater than or equal to 0")),
        (("--threshold", "inf"), ("threshold", "finite")),
        (("--similarity", "0"), ("similarity", "greater than 0")),
        (("--min-size", "0"), ("min_size", "greater than or equal to 1")),
        (("--patterns", "0"), ("patterns", "greater than or equal to 1")),
        (("--seed", "-1"), ("seed", "greater than or equal to 0")),
    ],
)
def test_options_out_of_range_are_refused_before_any_work(
    workshop: Workshop, tmp_path: Path, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    arguments = ("map", workshop.scan, "--model", workshop.model, "--out", tmp_path / "map", *INLINE)
    refused(*arguments, *options, untouched=tmp_path, says=says)


def test_files_of_others_in_the_folder_stay(workshop: Workshop, tmp_path: Path) -> None:
    mine = tmp_path / "examples.png"
    mine.write_bytes(b"mine")
    command = ("map", workshop.scan, "--model", workshop.model, "--out", tmp_path, "--cluster", "inline")
    succeeds(*command, "--no-report", "--no-particles")
    assert mine.read_bytes() == b"mine"
    succeeds(*command)
    assert (tmp_path / "particles.csv").is_file()
    succeeds(*command, "--no-report", "--no-particles")
    assert not (tmp_path / "particles.csv").exists()
    assert not mine.exists()  # by then it was the map's own
