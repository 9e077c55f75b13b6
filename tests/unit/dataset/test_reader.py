import pickle
import re
import shutil

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from diffractory.dataset.intensity_codes import largest_error
from diffractory.dataset.partition import read_partition, simulate_partition
from diffractory.dataset.reader import complete_records, open_dataset, read_pattern
from diffractory.dataset.run import Run
from diffractory.dataset.store import block_rows, open_array
from diffractory.errors import RunError
from diffractory.scattering.simulate import simulate
from diffractory.specs import SimulationSpec
from small_runs import SIMULATION, contents, finish, watch_reading

LAZY = {"intensity": "peak", "hkl": "peak", "q": "peak", "rotation": "crystal"}


@pytest.fixture(scope="module")
def loaded(original: Run) -> dict[str, np.ndarray]:
    """All lazy variables as plain arrays, from the partitions themselves."""
    stored = contents(original)
    positions = np.concatenate([read_partition(original, p).q for p in range(4)])
    return {
        "intensity": stored["intensity"],
        "hkl": stored["hkl"],
        "q": positions,
        "rotation": stored["rotation"].reshape(4, 5, 3, 3),
    }


def test_every_pattern_is_what_simulate_gives(original: Run):
    dataset = open_dataset(original.path)
    for crystal in range(4):
        matrices = dataset.rotation[crystal].to_numpy()
        expected = simulate(original.catalogue.crystal(crystal), matrices, SIMULATION)
        for orientation, pattern in enumerate(expected):
            start = int(dataset.peak_start[crystal, orientation])
            rows = slice(start, start + int(dataset.peak_count[crystal, orientation]))
            np.testing.assert_array_equal(dataset.hkl[rows], pattern.hkl)
            np.testing.assert_allclose(dataset.q[rows], pattern.q, atol=1e-12)
            stored, true = dataset.intensity[rows].to_numpy(), pattern.intensity.T
            assert stored.dtype == np.float32
            assert np.all(np.abs(stored - true) <= largest_error(true))
            assert np.all(stored[true >= 1e-6] > 0.0)
            q, intensity = read_pattern(original, crystal, orientation)
            np.testing.assert_array_equal(q, dataset.q[rows])
            np.testing.assert_array_equal(intensity, dataset.intensity[rows])


@pytest.mark.parametrize(("crystal", "orientation"), [(4, 0), (-1, 0), (0, 5), (0, -1)])
def test_a_pattern_that_does_not_exist_is_refused(original: Run, crystal: int, orientation: int):
    with pytest.raises(RunError, match=f"no crystal {crystal} in orientation {orientation}.*4 crystals in 5"):
        read_pattern(original, crystal, orientation)


def test_coordinates_and_attributes(original: Run):
    dataset = open_dataset(original.path)
    table = original.catalogue.table
    assert dict(dataset.sizes) == {
        "crystal": 4, "orientation": 5, "thickness": 3, "peak": original.plan.n_peaks, "detector": 2,
        "miller": 3, "row": 3, "lab_axis": 3,
    }  # fmt: skip
    for name in ("material_id", "formula", "crystal_system", "space_group", "a", "b", "c"):
        assert dataset[name].to_numpy().tolist() == table[name].tolist()
    assert dataset.thickness.to_numpy().tolist() == [100.0, 200.0, 350.0]
    assert dataset.crystal.to_numpy().tolist() == [0, 1, 2, 3]
    assert dataset.orientation.to_numpy().tolist() == [0, 1, 2, 3, 4]
    assert dataset.thickness.attrs["units"] == "angstrom"
    assert dataset.q.attrs["units"] == "angstrom-1"
    assert dataset.attrs["plan_id"] == original.plan.plan_id
    assert SimulationSpec.from_json(dataset.attrs["simulation"]) == SIMULATION
    assert int(dataset.peak_count.sum()) == original.plan.n_peaks
    counts = dataset.peak_count.to_numpy().ravel()
    np.testing.assert_array_equal(dataset.peak_start.to_numpy().ravel(), np.cumsum(counts) - counts)


def test_nothing_is_read_before_it_is_used(original: Run, monkeypatch: pytest.MonkeyPatch):
    read = watch_reading(monkeypatch)
    dataset = open_dataset(original.path)
    selected = dataset.isel(peak=slice(3, 9), crystal=[1], thickness=-1)
    assert repr(selected)
    assert read == []
    assert selected.intensity.to_numpy().shape == (6,)
    assert read == [("intensity", 3, 9)]
    read.clear()
    assert dataset.isel(peak=slice(5, 5)).q.to_numpy().shape == (0, 2)
    assert read == []
    dataset.isel(peak=-1).q.load()
    assert len(read) == 2, "one pattern: its hkl and its orientation, of the last partition only"


def test_an_index_array_reads_the_chunks_it_needs_and_each_once(
    finely_chunked: Run, monkeypatch: pytest.MonkeyPatch
):
    whole = open_dataset(finely_chunked.path).load()
    second = int(np.cumsum([sum(r.counts) for r in complete_records(finely_chunked)])[0])
    rows = np.array([second + 1, 20, 21, 3, 37, 20, 2])
    read = watch_reading(monkeypatch)
    block = block_rows(open_array(finely_chunked.path / "peaks.zarr", "intensity"))
    expected = [("intensity", 2, 4), ("intensity", 20, 22), ("intensity", 37, 38)]
    picked = open_dataset(finely_chunked.path).isel(peak=rows)
    np.testing.assert_array_equal(picked.intensity, whole.intensity.to_numpy()[rows])
    assert read == [*expected, ("intensity", block + 1, block + 2)]
    read.clear()
    np.testing.assert_array_equal(picked.q, whole.q.to_numpy()[rows])
    hkl, rotation = ([r for r in read if r[0] == name] for name in ("hkl", "rotation"))
    assert sum(stop - start for _, start, stop in hkl) == 6
    assert len(rotation) == 2, "orientations of both partitions, whose chunks hold many"
    read.clear()
    np.testing.assert_array_equal(
        open_dataset(finely_chunked.path).rotation[[0, 3], 2], whole.rotation.to_numpy()[[0, 3], 2]
    )
    assert sum(stop - start for _, start, stop in read) == 10


def test_rows_with_gaps_are_read_from_whichever_partitions_hold_them(finely_chunked: Run):
    whole = open_dataset(finely_chunked.path).load()
    for step in (2, 7, 16, 33):
        picked = open_dataset(finely_chunked.path).isel(peak=slice(None, None, step), thickness=[2, 0])
        for name in ("intensity", "hkl", "q"):
            expected = whole[name].isel(peak=slice(None, None, step))
            expected = expected.isel(thickness=[2, 0]) if name == "intensity" else expected
            np.testing.assert_array_equal(picked[name], expected)


def _index(length: int):
    """Return a strategy of everything that selects along a dimension of this length."""
    edge = st.none() | st.integers(-length - 2, length + 2)
    step = st.none() | st.integers(-length - 1, length + 1).filter(bool)
    position = st.integers(-length, length - 1)
    return (
        st.builds(slice, edge, edge, step)
        | position
        | st.lists(position, max_size=7).map(lambda values: np.array(values, dtype=np.int64))
        | st.lists(st.booleans(), min_size=length, max_size=length).map(np.array)
    )


@given(data=st.data())
def test_every_kind_of_index_gives_what_numpy_gives(original: Run, loaded, data: st.DataObject):
    dataset = open_dataset(original.path)
    name = data.draw(st.sampled_from(sorted(LAZY)))
    lazy, plain = dataset[name], loaded[name]
    expected = xr.DataArray(plain, dims=lazy.dims)
    for dim in data.draw(st.permutations(lazy.dims)):
        index = {dim: data.draw(_index(lazy.sizes[dim]), label=str(dim))}
        lazy, expected = lazy.isel(index), expected.isel(index)
        if data.draw(st.booleans()):
            break
    assert lazy.dims == expected.dims
    assert lazy.dtype == expected.dtype
    np.testing.assert_array_equal(lazy.to_numpy(), expected.to_numpy())


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2)), min_size=1, max_size=9))
def test_pointwise_indexing_gives_what_numpy_gives(original: Run, loaded, points):
    peak, thickness = (xr.DataArray(list(values), dims="point") for values in zip(*points, strict=True))
    picked = open_dataset(original.path).intensity.isel(peak=peak, thickness=thickness)
    np.testing.assert_array_equal(picked, loaded["intensity"][peak.to_numpy(), thickness.to_numpy()])


def test_an_index_outside_is_refused(original: Run):
    dataset = open_dataset(original.path)
    for name in ("q", "intensity"):
        with pytest.raises(IndexError):
            dataset[name].isel(peak=original.plan.n_peaks).load()


def test_dask_arrays_of_it_compute_the_same(original: Run, loaded):
    chunked = open_dataset(original.path).chunk(peak=37, crystal=3)
    assert chunked.q.chunks is not None
    for name, plain in loaded.items():
        assert chunked[name].chunks is not None
        np.testing.assert_array_equal(chunked[name].compute(scheduler="threads"), plain)
    total = chunked.intensity.sum().compute(scheduler="synchronous")
    assert float(total) == pytest.approx(float(loaded["intensity"].sum(dtype=np.float64)), rel=1e-5)


def test_it_can_be_sent_to_workers(original: Run, loaded):
    copy = pickle.loads(pickle.dumps(open_dataset(original.path)))
    for name, plain in loaded.items():
        np.testing.assert_array_equal(copy[name], plain)


def test_selection_by_label(original: Run):
    dataset = open_dataset(original.path)
    cubic = dataset.isel(crystal=(dataset.crystal_system == "cubic").to_numpy())
    assert cubic.material_id.to_numpy().tolist() == ["cubic-F-c-copper", "cubic-P-a-FeSi"]
    assert float(dataset.intensity.sel(thickness=200.0)[0]) == float(dataset.intensity[0, 1])


def test_an_incomplete_run_is_refused_with_what_to_do(planned: Run):
    for _ in range(2):
        with pytest.raises(RunError, match=rf"{planned.path} is not complete.*diffractory simulate"):
            open_dataset(planned.path)
        simulate_partition(planned.path, 2)
    with pytest.raises(RunError, match="3 of 4 partitions are not done"):
        complete_records(planned)
    finish(planned)
    assert len(complete_records(planned)) == 4


def test_a_damaged_run_is_refused_with_the_damage(run: Run):
    (run.path / next(iter(run.done()[1].shards))).unlink()
    with pytest.raises(RunError, match=r"is not complete.*missing or cut short.*diffractory simulate"):
        open_dataset(run.path)
    shutil.rmtree(run.path / "peaks.zarr")
    with pytest.raises(RunError, match="not complete"):
        open_dataset(run.path)


def test_a_shard_damaged_after_opening_is_named_when_it_is_read(run: Run):
    dataset = open_dataset(run.path)
    name = next(name for name in run.done()[1].shards if "/hkl/" in name)
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content[:-9] + b"123456789")
    assert dataset.hkl[0].to_numpy().tolist() == [0, 0, 0]
    with pytest.raises(RunError, match=r"partition 1 of .*hkl.* cannot be decoded.*verify RUN"):
        dataset.hkl.load()
    with pytest.raises(RunError, match=re.escape("cannot be decoded")):
        read_pattern(run, 1, 3)
