"""Batches of a run: every pattern once, in order or shuffled, and no more read than one batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import xarray as xr

from diffractory.dataset.batches import iterate_batches
from diffractory.dataset.reader import open_dataset, read_pattern
from diffractory.dataset.run import Run
from diffractory.dataset.selection import select
from diffractory.errors import RunError, SpecError
from small_runs import watch_reading


@pytest.fixture(scope="module")
def dataset(original: Run) -> xr.Dataset:
    return open_dataset(original.path)


def _places(dataset: xr.Dataset, size: int, seed: int | None) -> list[list[int]]:
    """Return the patterns of each batch, numbered through the dataset."""
    n = dataset.sizes["orientation"]
    return [(b.crystal * n + b.orientation).tolist() for b in iterate_batches(dataset, size, 200.0, seed)]


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("size", [1, 7, 20, 1000])
def test_every_pattern_is_there_once_and_right(
    dataset: xr.Dataset, original: Run, size: int, seed: int | None
):
    seen = []
    for batch in iterate_batches(dataset, size, 350, seed):
        assert len(batch) == len(batch.crystal) == len(batch.orientation) <= size
        for i, (crystal, orientation) in enumerate(zip(batch.crystal, batch.orientation, strict=True)):
            q, intensity = read_pattern(original, int(crystal), int(orientation))
            found = batch.peaks.pattern(i)
            np.testing.assert_array_equal(found[0], q)
            np.testing.assert_array_equal(found[1], intensity[:, 2])
            direct = batch.peaks.direct[i]
            np.testing.assert_array_equal(batch.peaks.q[direct], [0.0, 0.0])
            seen.append((int(crystal), int(orientation)))
    assert len(seen) == 20
    assert sorted(seen) == list(np.ndindex(4, 5))


def test_without_a_seed_in_order_with_one_shuffled_and_repeatable(dataset: xr.Dataset):
    assert _places(dataset, 8, None) == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    first, again, other = _places(dataset, 8, 1), _places(dataset, 8, 1), _places(dataset, 8, 2)
    assert first == again != other
    assert [len(batch) for batch in first] == [8, 8, 4]
    assert [place for batch in first for place in batch] != list(range(20))


def test_shuffled_batches_are_made_of_stretches_that_lie_together(dataset: xr.Dataset):
    batches = _places(dataset, 16, 5)
    assert any(batch != sorted(batch) for batch in batches), "patterns are mixed inside a batch"
    for batch in batches:
        # Sixteen patterns are eight stretches of two.
        firsts = [place for place in batch if place % 2 == 0]
        assert {place + 1 for place in firsts} == {place for place in batch if place % 2}
    assert not all(b - a == 2 for a, b in pairwise(sorted(p for p in batches[0] if p % 2 == 0)))


def test_positions_are_those_of_the_dataset_given(dataset: xr.Dataset, original: Run):
    chosen = select(dataset, crystal_system=["hexagonal", "triclinic"], orientation=[1, 4])
    (batch,) = iterate_batches(chosen, 10, 100.0)
    assert (batch.crystal.tolist(), batch.orientation.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    q, intensity = read_pattern(original, 3, 4)
    np.testing.assert_array_equal(batch.peaks.pattern(3)[0], q)
    np.testing.assert_array_equal(batch.peaks.pattern(3)[1], intensity[:, 0])
    by_hand = dataset.isel(crystal=[3, 0], orientation=[4])
    (batch,) = iterate_batches(by_hand, 10, 100.0)
    np.testing.assert_array_equal(batch.peaks.pattern(0)[1], intensity[:, 0])


def test_no_more_is_read_than_one_batch(finely_chunked: Run, monkeypatch: pytest.MonkeyPatch):
    read = watch_reading(monkeypatch)
    dataset = open_dataset(finely_chunked.path)
    counts = dataset.peak_count.to_numpy()
    for seed in (None, 3):
        batches = iterate_batches(dataset, 4, 200.0, seed)
        assert read == []
        for batch in batches:
            n_peaks = counts[batch.crystal, batch.orientation].sum()
            assert len(batch.peaks.q) == n_peaks
            for name in ("intensity", "hkl"):
                rows = sum(stop - start for array, start, stop in read if array == name)
                assert n_peaks <= rows <= n_peaks + 2 * 15 * len(batch)
            read.clear()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((0, 200.0), SpecError, "batches of 0 patterns"),
        ((5, 250.0), RunError, "no thickness 250 .*100, 200, 350"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(
    dataset: xr.Dataset, arguments: tuple[Any, ...], error: type[Exception], says: str
):
    with pytest.raises(error, match=says):
        iterate_batches(dataset, *arguments)
    with pytest.raises(RunError, match="no intensity"):
        iterate_batches(dataset.isel(thickness=0), 5, 200.0)
