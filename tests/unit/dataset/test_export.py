"""Exports hold what the run holds: py4DSTEM's lists and scans, and Parquet tables."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import py4DSTEM
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal

from diffractory.dataset import export as export_module
from diffractory.dataset.export import (
    PEAK_SCHEMA,
    to_bragg_vectors,
    to_pointlist,
    write_bragg_file,
    write_parquet,
)
from diffractory.dataset.reader import open_dataset, read_pattern
from diffractory.dataset.run import Run
from diffractory.dataset.selection import select
from diffractory.errors import AccessError, RunError
from diffractory.scan.reading.emd_reader import read_bragg_scan
from small_runs import NAMES, SIMULATION, watch_reading


@pytest.fixture(scope="module")
def dataset(original: Run) -> xr.Dataset:
    return open_dataset(original.path)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks of about 60 peaks and row groups of about 100 rows."""
    monkeypatch.setattr(export_module, "_GROUP_ROWS", 100)
    monkeypatch.setattr(export_module, "_BLOCK_BYTES", 4 * 3 * 60)


def test_a_pointlist_is_the_pattern_with_its_indices(dataset: xr.Dataset, original: Run) -> None:
    for crystal, orientation in ((0, 0), (2, 4), (3, 1)):
        points = to_pointlist(dataset, crystal, orientation, 350)
        q, intensity = read_pattern(original, crystal, orientation)
        np.testing.assert_array_equal(np.stack([points["qx"], points["qy"]], axis=1), q)
        np.testing.assert_array_equal(points["intensity"], intensity[:, 2])
        start = int(dataset.peak_start[crystal, orientation])
        hkl = np.stack([points[name] for name in "hkl"], axis=1)
        np.testing.assert_array_equal(hkl, dataset.hkl[start : start + len(q)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("crystal", range(4))
def test_a_pointlist_is_as_py4dstem_would_simulate_it(
    dataset: xr.Dataset, original: Run, crystal: int
) -> None:
    ours = original.catalogue.crystal(crystal)
    reference = ReferenceCrystal(ours.frac_coords, ours.numbers, ours.lattice)
    reference.setup_diffraction(300e3)
    reference.calculate_structure_factors(k_max=2.0)
    reference.calculate_dynamical_structure_factors(
        300e3, "WK-CP", k_max=4.0, thermal_sigma=SIMULATION.thermal_sigma, tol_structure_factor=0.0
    )
    rotation = dataset.rotation[crystal, 2].to_numpy()
    points = to_pointlist(dataset, crystal, 2, 200.0)
    beams = reference.generate_diffraction_pattern(
        orientation_matrix=rotation, k_max=0.9, sigma_excitation_error=0.02, tol_intensity=0.0
    )
    assert points.dtype == beams.dtype
    assert points.fields == beams.fields
    theirs = {(p["h"], p["k"], p["l"]): (p["qx"], p["qy"]) for p in beams.data}
    shared = [p for p in points.data if (p["h"], p["k"], p["l"]) in theirs]
    assert len(shared) > 5
    for p in shared:
        # py4DSTEM holds its reciprocal vectors in single precision here and there.
        assert (p["qx"], p["qy"]) == pytest.approx(theirs[p["h"], p["k"], p["l"]], abs=1e-6)
    solved = reference.generate_dynamical_diffraction_pattern(
        points, 200.0, zone_axis_cartesian=rotation[:, 2]
    )
    assert solved.dtype == points.dtype
    np.testing.assert_allclose(solved["intensity"], points["intensity"], atol=5e-5)


def assert_scan_holds(vectors: Any, dataset: xr.Dataset, column: int) -> None:
    whole = dataset.copy().load()
    assert vectors.Rshape == (dataset.sizes["crystal"], dataset.sizes["orientation"])
    assert vectors.calstate == {"center": True, "ellipse": False, "pixel": True, "rotate": False}
    assert vectors.calibration.get_Q_pixel_units() == "A^-1"
    for i, j in np.ndindex(*vectors.Rshape):
        start = int(whole.peak_start[i, j])
        rows = slice(start, start + int(whole.peak_count[i, j]))
        found, raw = vectors.cal[i, j], vectors.raw[i, j]
        np.testing.assert_allclose(np.stack([found.qx, found.qy], axis=1), whole.q[rows], atol=1e-12)
        np.testing.assert_array_equal(found.I, whole.intensity[rows, column])
        inside = np.stack([raw.qx, raw.qy], axis=1)
        assert np.all((inside > 0) & (inside < vectors.Qshape))


def test_bragg_vectors_are_calibrated_and_survive_py4dstem(
    dataset: xr.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counted: list[int] = []
    vectors = to_bragg_vectors(dataset, 200.0, counted.append)
    assert_scan_holds(vectors, dataset, 1)
    assert sum(counted) == 20
    write_bragg_file(dataset, tmp_path / "made" / "scan.h5", 200.0, counted.append)
    assert sum(counted) == 40
    assert capfd.readouterr() == ("", "")
    again = py4DSTEM.read(str(tmp_path / "made" / "scan.h5"))
    assert_scan_holds(again, dataset, 1)
    notes = again.metadata["diffractory"]
    assert notes["thickness"] == 200.0
    assert notes["energy_ev"] == SIMULATION.energy_ev
    assert notes["plan_id"] == dataset.attrs["plan_id"]
    assert [name.decode() for name in notes["material_id"]] == list(NAMES)
    assert notes["orientation"].tolist() == [0, 1, 2, 3, 4]


def test_an_exported_scan_is_one_of_ours(dataset: xr.Dataset, original: Run, tmp_path: Path) -> None:
    chosen = select(dataset, crystal_system="triclinic", orientation=[0, 3])
    write_bragg_file(chosen, tmp_path / "scan.h5", 100.0)
    scan = read_bragg_scan(tmp_path / "scan.h5")
    assert (scan.shape, scan.energy_ev) == ((1, 2), SIMULATION.energy_ev)
    q, intensity = read_pattern(original, 3, 3)
    seen = intensity[:, 0] > 0.0
    np.testing.assert_allclose(scan.peaks.pattern(1)[0], q[seen], atol=1e-12)
    np.testing.assert_array_equal(scan.peaks.pattern(1)[1], intensity[seen, 0])
    assert np.hypot(*scan.peaks.q[scan.peaks.direct].T).max() < 1e-12


def contents_of(path: Path) -> dict[str, object]:
    """Return attributes, kinds and values of everything in an HDF5 file, but for who wrote it."""
    found: dict[str, object] = {}

    def note(name: str, node: h5py.Group | h5py.Dataset) -> None:
        attributes = {key: (str(value), type(value)) for key, value in node.attrs.items()}
        found[name] = {k: v for k, v in attributes.items() if k not in ("UUID", "authoring_program")}
        if isinstance(node, h5py.Dataset):
            values = np.array(node[()], dtype=object).ravel().tolist()
            listed = [item.tolist() if isinstance(item, np.ndarray) else item for item in values]
            found[f"{name}: values"] = (node.shape, node.dtype, h5py.check_vlen_dtype(node.dtype), listed)

    with h5py.File(path) as file:
        note("/", file)
        file.visititems(note)
    return found


def test_the_file_is_the_one_that_py4dstem_writes(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_bragg_file(dataset, tmp_path / "ours.h5", 200.0)
    py4DSTEM.save(str(tmp_path / "theirs.h5"), to_bragg_vectors(dataset, 200.0))
    ours, theirs = (contents_of(tmp_path / name) for name in ("ours.h5", "theirs.h5"))
    assert len(theirs) > 20
    assert ours == theirs


@pytest.mark.parametrize(
    ("export", "memory"),
    [
        (lambda d, path: to_bragg_vectors(d, 200.0), 100_000),
        (lambda d, path: write_bragg_file(d, path, 200.0), 10_000),
    ],
)
def test_more_vectors_than_memory_holds_are_refused(
    dataset: xr.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    export: Callable[[xr.Dataset, Path], object],
    memory: int,
) -> None:
    monkeypatch.setattr(export_module, "machine_memory", lambda: memory)
    read = watch_reading(monkeypatch)
    with pytest.raises(RunError, match=r"20 patterns with .* peaks need about .*memory.*\d+\.0 kB.*Parquet"):
        export(dataset, tmp_path / "scan.h5")
    assert read == []
    assert list(tmp_path.iterdir()) == []


def test_a_scan_that_cannot_be_written(dataset: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AccessError, match=r"scan\.h5 cannot be written \(.*writable"):
        write_bragg_file(dataset, tmp_path / "file" / "scan.h5", 200.0)


def expected_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the whole table of a dataset, made the simple way."""
    whole = dataset.copy().load()
    rows = []
    for t, i, j in np.ndindex(*(whole.sizes[name] for name in ("thickness", "crystal", "orientation"))):
        start = int(whole.peak_start[i, j])
        for peak in range(start, start + int(whole.peak_count[i, j])):
            rows.append(
                (
                    str(whole.material_id.to_numpy()[i]),
                    int(whole.crystal[i]),
                    int(whole.orientation[j]),
                    float(whole.thickness[t]),
                    *whole.hkl.to_numpy()[peak],
                    *whole.q.to_numpy()[peak],
                    whole.intensity.to_numpy()[peak, t],
                )
            )
    return pd.DataFrame(rows, columns=PEAK_SCHEMA.names)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["thickness", "crystal", "orientation", "h", "k", "l"]
    return table.astype({"material_id": str}).sort_values(keys, kind="stable", ignore_index=True)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("thickness", [None, 200.0, [350.0, 100.0]])
def test_a_table_holds_every_peak_once(
    dataset: xr.Dataset, tmp_path: Path, thickness: float | list[float] | None
) -> None:
    chosen = select(dataset, space_group=[1, 186], orientation=[1, 2, 4], thickness=thickness)
    counted: list[int] = []
    path = tmp_path / "made" / "peaks.parquet"
    n_rows = write_parquet(select(chosen, thickness=None), path, thickness, counted.append)
    assert [p.name for p in path.parent.iterdir()] == ["peaks.parquet"]
    assert sum(counted) == 6
    table = pd.read_parquet(path)
    assert len(table) == n_rows == chosen.sizes["peak"] * chosen.sizes["thickness"]
    pd.testing.assert_frame_equal(in_order(table), in_order(expected_table(chosen)), check_dtype=False)


@pytest.mark.usefixtures("small_groups")
def test_the_file_is_typed_and_grouped_by_thickness(dataset: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "peaks.parquet"
    write_parquet(dataset, path)
    with pq.ParquetFile(path) as stored:
        assert stored.schema_arrow.equals(PEAK_SCHEMA)
        assert stored.schema_arrow.metadata[b"plan_id"].decode() == dataset.attrs["plan_id"]
        assert stored.schema_arrow.field("qx").metadata[b"units"] == b"angstrom-1"
        n_groups = stored.metadata.num_row_groups
        assert n_groups > 20
        groups = [stored.read_row_group(index) for index in range(n_groups)]
    assert pa.types.is_dictionary(groups[0].schema.field("material_id").type)
    for group in groups:
        assert group.num_rows <= 150
        # A dictionary is stored whole with every group: only names that occur are in it.
        assert len(group["material_id"].chunk(0).dictionary) == len(group["crystal"].unique())
    thin = pq.read_table(path, filters=[("thickness", "==", 100.0)])
    assert thin.num_rows == dataset.sizes["peak"]
    assert sum(len(group["thickness"].unique()) == 1 for group in groups) > n_groups / 2


def test_no_more_is_read_than_a_block(
    finely_chunked: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_groups: None
) -> None:
    read = watch_reading(monkeypatch)
    dataset = open_dataset(finely_chunked.path)
    largest = int(dataset.peak_count.max())
    seen: list[int] = []

    def on_batch(_: int) -> None:
        seen.append(sum(stop - start for name, start, stop in read if name == "intensity"))
        read.clear()

    write_parquet(dataset, tmp_path / "peaks.parquet", on_batch=on_batch)
    assert sum(seen) == dataset.sizes["peak"], "every row is read once"
    assert max(seen) <= max(60, largest)


def test_a_pattern_larger_than_a_block_is_written(
    dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_GROUP_ROWS", 1)
    n_rows = write_parquet(dataset, tmp_path / "peaks.parquet", 100.0)
    assert n_rows == dataset.sizes["peak"]
    assert pq.read_metadata(tmp_path / "peaks.parquet").num_row_groups == 20


def test_a_failed_export_leaves_what_was_there(run: Run, tmp_path: Path) -> None:
    dataset = open_dataset(run.path)
    path = tmp_path / "peaks.parquet"
    write_parquet(dataset, path, 100.0)
    before = path.read_bytes()
    shard = next(name for name in run.done()[2].shards if "/intensity/" in name)
    (run.path / shard).write_bytes(b"0" * (run.path / shard).stat().st_size)
    with pytest.raises(RunError, match=r"partition 2 .*cannot be decoded"):
        write_parquet(dataset, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my run", "peaks.parquet"]


def test_folders_and_full_disks_are_refused(
    dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    with pytest.raises(AccessError, match=r"folder\.parquet is a folder"):
        write_parquet(dataset, folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AccessError, match="cannot be written"):
        write_parquet(dataset, tmp_path / "file" / "peaks.parquet")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_module.pq.ParquetWriter, "write_table", full)
    with pytest.raises(AccessError, match=r"peaks\.parquet cannot be written \(No space left"):
        write_parquet(dataset, tmp_path / "peaks.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.parquet"]


@pytest.mark.parametrize(
    ("export", "says"),
    [
        (lambda d, path: to_pointlist(d, 4, 0, 100.0), "no crystal 4 in orientation 0.*4 crystals in 5"),
        (lambda d, path: to_pointlist(d, 0, -1, 100.0), "no crystal 0 in orientation -1"),
        (lambda d, path: to_pointlist(d, 0, 0, 101.0), "no thickness 101 .*100, 200, 350"),
        (lambda d, path: to_bragg_vectors(d, 101.0), "no thickness 101"),
        (lambda d, path: write_bragg_file(d, path, 101.0), "no thickness 101"),
        (lambda d, path: write_parquet(d, path, 101.0), "no thickness 101"),
        (lambda d, path: write_parquet(d.isel(thickness=0), path), "no intensity with the dimensions"),
        (lambda d, path: to_pointlist(d.isel(crystal=0), 0, 0, 100.0), "no peak_start with"),
    ],
)
def test_what_is_not_there_cannot_be_exported(
    dataset: xr.Dataset, tmp_path: Path, export: Callable[[xr.Dataset, Path], object], says: str
) -> None:
    with pytest.raises(RunError, match=says):
        export(dataset, tmp_path / "peaks.parquet")
    assert not list(tmp_path.iterdir())


def test_py4dstem_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, diffractory.dataset.export as e; print(e.__name__, 'py4DSTEM' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["diffractory.dataset.export", "False"]
