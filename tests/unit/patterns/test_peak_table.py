from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.patterns.peak_table import PeakTable


def make_table() -> PeakTable:
    q = [np.array([[0.1, 0.0], [0.0, 0.0]]), np.empty((0, 2)), np.array([[0.5, 0.5]])]
    return PeakTable.from_lists(q, [np.array([0.2, 0.7]), np.empty(0), np.array([0.3])], [1, -1, -1])


def test_from_lists_places_offsets_and_direct_beams():
    table = make_table()
    assert len(table) == 3
    assert table.offsets.tolist() == [0, 2, 2, 3]
    assert table.counts.tolist() == [2, 0, 1]
    assert table.direct.tolist() == [1, -1, -1]


def test_pattern_returns_the_peaks_of_one_pattern():
    q, intensity = make_table().pattern(2)
    assert q.tolist() == [[0.5, 0.5]]
    assert intensity.tolist() == [0.3]
    assert make_table().pattern(1)[0].shape == (0, 2)


def test_no_pattern_at_all():
    table = PeakTable.from_lists([], [], [])
    assert len(table) == 0
    assert len(table.take([])) == 0
    assert list(table.blocks(4)) == []


def test_measured_direct_beam_is_nearest_the_origin_not_the_brightest():
    q = [np.array([[0.4, 0.1], [0.01, -0.02], [0.3, 0.0]]), np.empty((0, 2))]
    table = PeakTable.from_detected(q, [np.array([9.0, 1.0, 3.0]), np.empty(0)])
    assert table.direct.tolist() == [1, -1]


def test_take_follows_the_order_given_and_moves_the_direct_beam():
    taken = make_table().take([2, 0, 0])
    assert taken.counts.tolist() == [1, 2, 2]
    assert taken.direct.tolist() == [-1, 2, 4]
    assert taken.intensity[taken.direct[1:]].tolist() == [0.7, 0.7]


@given(counts=st.lists(st.integers(0, 5), max_size=8), size=st.integers(1, 9))
def test_blocks_put_together_are_the_table(counts: list[int], size: int):
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    n_peaks = int(offsets[-1])
    direct = np.where(np.array(counts, dtype=np.int64) > 0, offsets[1:] - 1, -1)
    table = PeakTable(np.arange(2.0 * n_peaks).reshape(-1, 2), np.arange(float(n_peaks)), offsets, direct)
    blocks = list(table.blocks(size))
    assert all(len(block) <= size for block in blocks)
    assert sum(len(block) for block in blocks) == len(table)
    peaks = [block.pattern(i)[1].tolist() for block in blocks for i in range(len(block))]
    assert peaks == [table.pattern(i)[1].tolist() for i in range(len(table))]
    beams = [block.intensity[d] if d >= 0 else None for block in blocks for d in block.direct]
    assert beams == [table.intensity[d] if d >= 0 else None for d in table.direct]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.zeros((2, 2))}, r"q must have shape \(3, 2\)"),
        ({"offsets": np.array([1, 3])}, "start with 0"),
        ({"offsets": np.array([0, 2])}, "end with the number of peaks"),
        ({"offsets": np.array([0, 3, 2, 3])}, "never decrease"),
        ({"direct": np.array([0, 0])}, "point into each pattern's own peaks"),
        ({"direct": np.array([0, 3])}, "point into each pattern's own peaks"),
        ({"direct": np.array([0, -2])}, "point into each pattern's own peaks"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str):
    arrays = {
        "q": np.zeros((3, 2)),
        "intensity": np.ones(3),
        "offsets": np.array([0, 2, 3]),
        "direct": np.array([1, 2]),
    }
    PeakTable(**arrays)
    with pytest.raises(ValueError, match=message):
        PeakTable(**(arrays | change))


def test_concatenated_tables_keep_every_pattern_and_its_direct_beam() -> None:
    first = PeakTable.from_lists([np.zeros((1, 2)), np.ones((2, 2))], [np.ones(1), np.ones(2)], [0, -1])
    second = PeakTable.from_lists([np.full((3, 2), 2.0)], [np.arange(3.0)], [1])
    joined = PeakTable.concatenate([first, second])
    assert joined.counts.tolist() == [1, 2, 3]
    assert joined.direct.tolist() == [0, -1, 4]
    assert joined.pattern(2)[1].tolist() == [0.0, 1.0, 2.0]
    assert len(PeakTable.concatenate([])) == 0


def test_patterns_are_counted_from_the_end_or_marked():
    table = make_table()
    assert table.pattern(-1)[1].tolist() == [0.3]
    assert table.take([-3, -1]).intensity.tolist() == [0.2, 0.7, 0.3]
    marked = table.take(np.array([False, False, True]))
    assert (len(marked), marked.intensity.tolist()) == (1, [0.3])
    assert len(table.take(np.zeros(3, dtype=bool))) == 0


def test_patterns_that_are_not_there_are_refused():
    table = make_table()
    for ask in (lambda: table.pattern(3), lambda: table.take([3]), lambda: table.take([True])):
        with pytest.raises(IndexError):
            ask()
