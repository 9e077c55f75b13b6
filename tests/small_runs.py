"""Small runs for tests: a few crystals of the zoo, planned and simulated in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import Candidate
from diffractory.dataset import lazy_rows
from diffractory.dataset.intensity_codes import decode_intensity, encode_intensity
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import Plan, make_plan
from diffractory.dataset.records import Record, ShardSum
from diffractory.dataset.run import PEAKS, Run
from diffractory.specs import OrientationSpec, SimulationSpec
from zoo import ZOO

NAMES = ("cubic-F-c-copper", "cubic-P-a-FeSi", "hexagonal-P-a-ZnO", "triclinic-P-a-invented")
SIMULATION = SimulationSpec(q_max=0.9, thicknesses=(100.0, 200.0, 350.0))
ORIENTATIONS = OrientationSpec(count=5)


def zoo_catalogue(names: tuple[str, ...] = NAMES) -> Catalogue:
    """Return some crystals of the zoo as a catalogue, in their own cells."""
    candidates = [Candidate(name, ZOO[name], None, "test", "CC0") for name in names]
    return build_catalogue(candidates, CatalogueFilter(keep_setting=True)).catalogue


def small_plan(
    catalogue: Catalogue,
    parts: float = 3,
    orientations: OrientationSpec = ORIENTATIONS,
    simulation: SimulationSpec = SIMULATION,
) -> Plan:
    """Plan a run in about ``parts`` partitions."""
    seconds = make_plan(catalogue, simulation, orientations).seconds
    return make_plan(catalogue, simulation, orientations, seconds / parts)


def finish(run: Run) -> Run:
    """Simulate what a run lacks, here."""
    for partition in range(len(run.plan.partitions)):
        if partition not in run.done():
            simulate_partition(run.path, partition)
    return run


def reference_run(
    folder: Path, parts: float, orientations: OrientationSpec, simulation: SimulationSpec
) -> Run:
    """Return a finished run, computed here, that one computed elsewhere must equal."""
    catalogue = zoo_catalogue()
    return finish(Run.create(folder, small_plan(catalogue, parts, orientations, simulation), catalogue))


def contents(run: Run) -> dict[str, np.ndarray]:
    """Return the peaks of a finished run, item by item, whatever its partitions; intensities decoded."""
    group = zarr.open_group(run.path / "peaks.zarr", mode="r")
    blocks: dict[str, list[np.ndarray]] = {"intensity": [], "hkl": [], "rotation": []}
    counts: list[int] = []
    for index, record in sorted(run.done().items()):
        for name, parts in blocks.items():
            array = group[name]
            start = index * array.shards[0]
            rows = len(record.counts) if name == "rotation" else sum(record.counts)
            parts.append(array[start : start + rows])
        counts += record.counts
    arrays = {name: np.concatenate(parts) for name, parts in blocks.items()}
    return arrays | {"intensity": decode_intensity(arrays["intensity"]), "counts": np.array(counts)}


def shard_bytes(run: Run) -> dict[str, bytes]:
    """Return the bytes of every shard of the peaks."""
    store = run.path / "peaks.zarr"
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.glob("*/c/**/*"))
        if path.is_file() and not path.name.endswith(".partial")
    }


def assert_same_peaks(run: Run, expected: Run) -> None:
    """Assert that two runs, computed by different processes or processors, hold the same peaks.

    The same beams in the same frames to the last bit; intensities may round to neighbouring codes, as
    nodes of another kind fuse or reorder operations in single precision.
    """
    assert run.plan == expected.plan
    assert list(run.done()) == list(expected.done()) == list(range(len(run.plan.partitions)))
    assert_same_contents(contents(run), contents(expected))


def assert_same_contents(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Assert that two lots of peaks are the same, as :func:`assert_same_peaks` does."""
    for name in ("counts", "hkl", "rotation"):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    codes = (encode_intensity(values["intensity"]).astype(np.int64) for values in (first, second))
    assert np.abs(np.subtract(*codes)).max() <= 1


def assert_same_features(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that features agree: compilers fuse operations as they see fit, process by process."""
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def forge(run: Run, name: str, partition: int, change) -> None:
    """Change stored rows (intensities decoded) of one partition; make the record's checksum right again."""
    array = zarr.open_array(run.path / "peaks.zarr" / name, mode="r+", config={"write_empty_chunks": True})
    first = partition * array.shards[0]
    rows = array[first : first + array.shards[0]]
    rows = decode_intensity(rows) if name == "intensity" else rows
    change(rows)
    rows = encode_intensity(rows) if name == "intensity" else rows
    array[first : first + array.shards[0]] = rows
    path = run.record_path(PEAKS, partition)
    shards = {key: ShardSum.of_file(run.path / key) for key in Record.read(path).shards}
    rewrite_record(path, shards=shards)


def rewrite_record(path: Path, **changes: object) -> None:
    """Change fields of a record, checksum included, as somebody hostile would."""
    record = Record.read(path)
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    Record(**(fields | changes)).write(path)


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON file and leave everything else, checksums too, as it was."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def watch_reading(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Return a list to which every read of stored rows adds its array and its first and last row."""
    read: list[tuple[str, int, int]] = []
    read_rows = lazy_rows.read_rows

    def watched(array, start: int, stop: int):
        read.append((Path(str(array.store_path)).name, start, stop))
        return read_rows(array, start, stop)

    monkeypatch.setattr(lazy_rows, "read_rows", watched)
    return read
