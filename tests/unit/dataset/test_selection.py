"""Choosing patterns of a run: the right ones, with their own peaks, and nothing else read."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from diffractory import select
from diffractory.dataset.reader import open_dataset, read_pattern
from diffractory.dataset.run import Run
from diffractory.errors import RunError
from small_runs import watch_reading

IDS = ("cubic-F-c-copper", "cubic-P-a-FeSi", "hexagonal-P-a-ZnO", "triclinic-P-a-invented")
GROUPS = (225, 198, 186, 1)
SYSTEMS = ("cubic", "cubic", "hexagonal", "triclinic")
THICKNESSES = (100.0, 200.0, 350.0)


@pytest.fixture(scope="module")
def dataset(original: Run) -> xr.Dataset:
    return open_dataset(original.path)


def assert_holds(
    chosen: xr.Dataset, run: Run, crystals: list[int], orientations: list[int], columns: list[int]
):
    """Check every pattern of a choice against the run itself, and that there are no other peaks."""
    assert chosen.crystal.to_numpy().tolist() == crystals
    assert chosen.orientation.to_numpy().tolist() == orientations
    assert chosen.thickness.to_numpy().tolist() == [THICKNESSES[c] for c in columns]
    assert chosen.material_id.to_numpy().tolist() == [IDS[c] for c in crystals]
    counts = chosen.peak_count.to_numpy().ravel()
    assert chosen.sizes["peak"] == counts.sum()
    np.testing.assert_array_equal(chosen.peak_start.to_numpy().ravel(), np.cumsum(counts) - counts)
    for i, j in np.ndindex(len(crystals), len(orientations)):
        q, intensity = read_pattern(run, crystals[i], orientations[j])
        start = int(chosen.peak_start[i, j])
        rows = slice(start, start + int(chosen.peak_count[i, j]))
        np.testing.assert_array_equal(chosen.q[rows], q)
        np.testing.assert_array_equal(chosen.intensity[rows], intensity[:, columns])
        assert chosen.hkl[start].to_numpy().tolist() == [0, 0, 0]
    whole = open_dataset(run.path).rotation.to_numpy()
    np.testing.assert_array_equal(chosen.rotation, whole[np.ix_(crystals, orientations)])


@pytest.mark.parametrize(
    ("criteria", "crystals", "orientations", "columns"),
    [
        ({}, [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"material_id": IDS[2]}, [2], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"material_id": [IDS[3], IDS[0], IDS[3]]}, [0, 3], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"crystal_system": "cubic"}, [0, 1], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"crystal_system": ("triclinic", "hexagonal")}, [2, 3], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"space_group": 198}, [1], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"space_group": np.array([1, 225])}, [0, 3], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"space_group": slice(186, 198)}, [1, 2], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"space_group": slice(None, 185)}, [3], [0, 1, 2, 3, 4], [0, 1, 2]),
        ({"orientation": 3}, [0, 1, 2, 3], [3], [0, 1, 2]),
        ({"orientation": slice(1, 3)}, [0, 1, 2, 3], [1, 2, 3], [0, 1, 2]),
        ({"thickness": 200}, [0, 1, 2, 3], [0, 1, 2, 3, 4], [1]),
        ({"thickness": [350.0, 100.0]}, [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 2]),
        ({"thickness": slice(150, 350.0)}, [0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2]),
        (
            {
                "crystal_system": "cubic",
                "space_group": slice(None, 200),
                "orientation": [4, 0],
                "thickness": 350,
            },
            [1],
            [0, 4],
            [2],
        ),
    ],
)
def test_the_right_patterns_with_their_own_peaks(
    dataset: xr.Dataset,
    original: Run,
    criteria: dict[str, Any],
    crystals: list[int],
    orientations: list[int],
    columns: list[int],
):
    chosen = select(dataset, **criteria)
    assert_holds(chosen, original, crystals, orientations, columns)
    assert list(chosen.data_vars) == list(dataset.data_vars)
    assert chosen.attrs == dataset.attrs
    for name in dataset.variables:
        assert chosen[name].dims == dataset[name].dims
        assert chosen[name].attrs == dataset[name].attrs
        assert chosen[name].dtype.kind == dataset[name].dtype.kind


@given(
    first=st.sets(st.integers(0, 3), min_size=1),
    later=st.sets(st.integers(0, 4), min_size=1),
    columns=st.sets(st.integers(0, 2), min_size=1),
)
def test_choosing_twice_is_choosing_at_once(
    original: Run, first: set[int], later: set[int], columns: set[int]
):
    dataset = open_dataset(original.path)
    crystals = select(dataset, material_id=[IDS[c] for c in first])
    twice = select(crystals, orientation=sorted(later), thickness=[THICKNESSES[c] for c in columns])
    assert_holds(twice, original, sorted(first), sorted(later), sorted(columns))


@given(data=st.data())
def test_peaks_of_a_choice_are_indexed_as_numpy_does(original: Run, data: st.DataObject):
    chosen = select(open_dataset(original.path), crystal_system=["cubic", "triclinic"], orientation=[0, 2, 3])
    name = data.draw(st.sampled_from(["intensity", "hkl", "q"]))
    n = chosen.sizes["peak"]
    edge = st.none() | st.integers(-n - 2, n + 2)
    index = data.draw(
        st.builds(slice, edge, edge, st.none() | st.integers(-9, 9).filter(bool))
        | st.integers(-n, n - 1)
        | st.lists(st.integers(-n, n - 1), max_size=9).map(lambda rows: np.array(rows, dtype=np.int64))
    )
    column = data.draw(st.integers(0, 1) | st.just(slice(None)) | st.just([1, 0]))
    plain = chosen[name].copy().load().to_numpy()
    expected = plain[index][..., column]
    np.testing.assert_array_equal(chosen[name][index][..., column], expected)


def test_positions_that_are_no_longer_numbers_in_the_run(dataset: xr.Dataset, original: Run):
    chosen = select(select(dataset, crystal_system=["hexagonal", "triclinic"]), orientation=slice(3, 4))
    assert_holds(select(chosen, orientation=4, space_group=1), original, [3], [4], [0, 1, 2])


def test_a_choice_of_crystals_made_by_position(dataset: xr.Dataset, original: Run):
    by_hand = dataset.isel(crystal=[3, 1], orientation=slice(None, None, -2))
    assert by_hand.sizes["peak"] == dataset.sizes["peak"]
    assert_holds(select(by_hand), original, [3, 1], [4, 2, 0], [0, 1, 2])


def test_nothing_is_read_until_it_is_used_and_then_only_that(
    finely_chunked: Run, monkeypatch: pytest.MonkeyPatch
):
    read = watch_reading(monkeypatch)
    dataset = open_dataset(finely_chunked.path)
    chosen = select(dataset, material_id=[IDS[0], IDS[3]], orientation=[1, 4], thickness=200)
    assert repr(chosen)
    assert read == []
    starts = dataset.peak_start.to_numpy()[[0, 3]][:, [1, 4]].ravel()
    counts = chosen.peak_count.to_numpy().ravel()
    chosen.intensity.to_numpy()
    rows = sum(stop - start for _, start, stop in read)
    assert {name for name, _, _ in read} == {"intensity"}
    chunks = {c for s, n in zip(starts, counts, strict=True) for c in range(s // 16, (s + n - 1) // 16 + 1)}
    assert counts.sum() <= rows <= counts.sum() + 2 * 15 * len(counts)
    assert rows < 0.5 * dataset.sizes["peak"]
    assert len(read) <= len(chunks) + 4, "each chunk once; partitions start chunks of their own"
    read.clear()
    chosen.q[: int(counts[0])].to_numpy()
    assert sum(stop - start for name, start, stop in read if name == "hkl") == counts[0]
    assert sum(stop - start for name, start, stop in read if name == "rotation") == 1


def test_what_was_loaded_or_chunked_before_gives_the_same(dataset: xr.Dataset, original: Run):
    for whole in (dataset.copy().load(), dataset.chunk(peak=50, crystal=1), dataset.transpose()):
        whole = whole.transpose(*dataset.dims)
        chosen = select(whole.transpose("peak", "crystal", ...), space_group=[1, 225], thickness=100)
        assert_holds(chosen, original, [0, 3], [0, 1, 2, 3, 4], [0])


def test_it_can_be_chunked_and_sent_to_workers(dataset: xr.Dataset, original: Run):
    chosen = select(dataset, space_group=[1, 198], orientation=[0, 3], thickness=slice(200, 400))
    for copy in (pickle.loads(pickle.dumps(chosen)), chosen.chunk(peak=11)):
        assert_holds(copy, original, [1, 3], [0, 3], [1, 2])


def test_own_labels_of_peaks_stay_with_them(dataset: xr.Dataset):
    numbered = dataset.assign_coords(number=("peak", np.arange(dataset.sizes["peak"])))
    chosen = select(numbered, crystal_system="triclinic")
    first = int(dataset.peak_start[3, 0])
    np.testing.assert_array_equal(chosen.number, np.arange(first, dataset.sizes["peak"]))
    assert "number" in chosen.coords


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        (
            {"material_id": "mp-1"},
            rf"no material_id mp-1 in this dataset\. it holds {', '.join(IDS)}\. Choose among these",
        ),
        ({"material_id": [IDS[0], "mp-2", "mp-1"]}, "no material_id mp-2, mp-1 in this dataset"),
        ({"crystal_system": "Cubic"}, "no crystal_system Cubic.*it holds cubic, hexagonal, triclinic"),
        ({"space_group": [225, 2]}, "no space_group 2 in this dataset.*1, 186, 198, 225"),
        ({"space_group": "225"}, "no space_group 225 in this dataset"),
        ({"orientation": 5}, "no orientation 5.*0, 1, 2, 3, 4"),
        ({"orientation": -1}, "no orientation -1"),
        ({"thickness": 250.0}, "no thickness 250 in this dataset.*100, 200, 350"),
        ({"thickness": float("nan")}, "no thickness nan"),
        ({"thickness": list(range(20))}, r"no thickness 0, 1, 2, 3, 4, 5, 6, 7 … \(20 in all\)"),
        ({"thickness": []}, r"thickness=\[\] leaves nothing.*it holds 100, 200, 350"),
        (
            {"thickness": slice(360, None)},
            r"thickness=slice\(360, None, None\) leaves nothing.*100, 200, 350",
        ),
        ({"space_group": slice(2, 5)}, "space_group=slice.* leaves nothing.*1, 186"),
        ({"space_group": slice(1, 9, 2)}, "cannot be used.*without a step"),
        ({"space_group": slice("a", "c")}, "cannot be used.*a first and a last number"),
        ({"material_id": slice("a", "c")}, "cannot be used.*list what you want"),
        (
            {"crystal_system": "cubic", "space_group": 1},
            "space_group=1 leaves no crystal.*not among the ones that the other criteria name",
        ),
        ({"material_id": IDS[2], "crystal_system": "cubic"}, "crystal_system='cubic' leaves no crystal"),
    ],
)
def test_what_cannot_be_chosen_is_named_with_what_can(
    dataset: xr.Dataset, criteria: dict[str, Any], says: str
):
    with pytest.raises(RunError, match=says):
        select(dataset, **criteria)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.isel(thickness=0), "no intensity with the dimensions peak, thickness.*isel"),
        (lambda d: d.isel(crystal=2), "no peak_start with the dimensions crystal, orientation"),
        (lambda d: d.drop_vars("peak_count"), "no peak_count.*open_dataset"),
        (lambda d: xr.Dataset(), "no intensity"),
        (
            lambda d: d.isel(peak=slice(0, 100)),
            "patterns of this dataset end at peak .* and it has 100.*select",
        ),
    ],
)
def test_what_is_no_dataset_of_a_run_is_refused(
    dataset: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset], says: str
):
    with pytest.raises(RunError, match=says):
        select(change(dataset), crystal_system="cubic")
