import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ScanError
from diffractory.scan.reading.raw_frames import (
    Axis,
    FrameGrid,
    RawFrames,
    axis_order,
    frame_chunks,
    scan_array,
)

NM = Axis(1.0, "nm", False)
SCAN, DETECTOR = Axis(1.0, "nm", True), Axis(0.1, "1/nm", False)


@given(
    scan=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    frame=st.integers(1, 2**24),
    stored=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_chunks_are_bounded_and_keep_stored_chunks_whole(scan, frame, stored):
    limit = 2**22
    rows, columns = frame_chunks(scan, frame, stored, limit)
    assert 1 <= rows <= scan[0]
    assert 1 <= columns <= scan[1]
    assert rows * columns * frame <= max(limit, frame)
    assert rows == 1 or columns == scan[1] or rows == min(stored[0], scan[0])
    together = min(stored[0], scan[0]) * min(stored[1], scan[1]) * frame
    if together <= limit:
        assert columns == scan[1] or columns % min(stored[1], scan[1]) == 0
        assert rows == scan[0] or rows % min(stored[0], scan[0]) == 0


def test_chunks_fill_the_bound():
    assert frame_chunks((1000, 1000), 256 * 256, limit=2**26) == (1, 1000)
    assert frame_chunks((1000, 100), 256 * 256, limit=2**26) == (10, 100)
    assert frame_chunks((10, 10), 2**27, limit=2**26) == (1, 1)
    assert frame_chunks((10, 10), 1, limit=2**26) == (10, 10)


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ((), (0, 1, 2, 3)),
        ((SCAN, SCAN, DETECTOR, DETECTOR), (0, 1, 2, 3)),
        ((DETECTOR, DETECTOR, SCAN, SCAN), (2, 3, 0, 1)),
        ((DETECTOR, SCAN, DETECTOR, SCAN), (1, 3, 0, 2)),
        # Units tell, where the flags are those of every file of a format.
        ((Axis(1, "mrad", True), Axis(1, "mrad", True), NM, NM), (2, 3, 0, 1)),
        ((Axis(1, "", True), Axis(1, "", True), NM, NM), (2, 3, 0, 1)),
        # A detector in nm beside a scan in nm: flags tell.
        ((NM, NM, SCAN, SCAN), (2, 3, 0, 1)),
        ((Axis(None, "", False),) * 4, (0, 1, 2, 3)),
        ((Axis(),) * 4, (0, 1, 2, 3)),
    ],
)  # fmt: skip
def test_order_of_axes(axes, order):
    assert axis_order(axes, 4, "scan") == order


def test_order_of_a_stack():
    assert axis_order((DETECTOR, DETECTOR, Axis(1.0, "s", True)), 3, "stack") == (2, 0, 1)


@pytest.mark.parametrize(
    "axes",
    [
        (Axis(navigate=True), *(Axis(navigate=False),) * 3),
        (DETECTOR, DETECTOR, DETECTOR, Axis(1.0, "eV", True)),
    ],
)
def test_axes_of_something_else(axes):
    with pytest.raises(ScanError, match="1 scan axes and 3 detector axes"):
        axis_order(axes, 4, "scan")


@given(
    cuts=st.lists(st.integers(0, 12), max_size=3),
    index=st.tuples(*(st.slices(n) for n in (3, 4, 5, 2))),
)
def test_a_grid_of_frames_is_sliced_as_an_array(cuts, index):
    stack = np.arange(12 * 5 * 2).reshape(12, 5, 2)
    parts = [part for part in np.split(stack, sorted(cuts)) if len(part)]
    index = tuple(slice(s.start, s.stop, abs(s.step or 1)) for s in index)
    expected = stack.reshape(3, 4, 5, 2)[index]
    if expected.size:
        np.testing.assert_array_equal(FrameGrid(parts, (3, 4))[index], expected)


def test_a_grid_of_frames_takes_single_numbers():
    stack = np.arange(12 * 5 * 2).reshape(12, 5, 2)
    grid, array = FrameGrid([stack[:5], stack[5:]], (3, 4)), stack.reshape(3, 4, 5, 2)
    for index in ((1, slice(1, 3), 2, slice(None)), (2, 3, slice(None), 1), (slice(0, 2), 0, 0, 0)):
        np.testing.assert_array_equal(grid[index], array[index])


def test_a_stack_whose_scan_axis_is_last():
    stack = np.arange(6 * 3 * 2).reshape(3, 2, 6)
    frames = scan_array(RawFrames(stack), (2, 0, 1), (2, 3))
    np.testing.assert_array_equal(frames.compute(), stack.transpose(2, 0, 1).reshape(2, 3, 3, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has mapped is read from /proc")
@pytest.mark.parametrize("shape", [(8, 8, 512, 512), (64, 512, 512)])
def test_pages_of_a_mapped_file_are_given_back(tmp_path, shape):
    path = tmp_path / "scan.npy"
    np.save(path, np.ones(shape, np.uint8))
    frames = scan_array(RawFrames(np.load(path, mmap_mode="r")), tuple(range(len(shape))), (8, 8))

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))

    before = mapped()
    assert (frames[:, :4].compute(scheduler="synchronous") == 1).all()
    assert mapped() - before < 2**20 < path.stat().st_size // 8


class Counting:
    """An array that notes how many positions were asked for at once."""

    ndim = 4

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        part = self.array[index]
        self.most = max(self.most, part.shape[0] * part.shape[1])
        return part


def test_a_corrected_shape_reads_no_more_than_a_row_of_positions():
    array = np.arange(6 * 8 * 3 * 4).reshape(6, 8, 3, 4)
    stored = Counting(array)
    lazy = scan_array(RawFrames(stored), (0, 1, 2, 3), (4, 12))
    np.testing.assert_array_equal(
        lazy[2, 5].compute(scheduler="synchronous"), array.reshape(4, 12, 3, 4)[2, 5]
    )
    assert stored.most <= 8
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), array.reshape(4, 12, 3, 4))


@pytest.mark.parametrize("shape", [None, (6, 8), (4, 12)])
def test_a_grid_in_several_parts_is_one_grid(shape):
    array = np.arange(6 * 8 * 3 * 4).reshape(6, 8, 3, 4)
    raw = RawFrames([array[:2], array[2:]])
    lazy = scan_array(raw, (0, 1, 2, 3), shape)
    assert lazy.shape == (*(shape or (6, 8)), 3, 4)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), array.reshape(lazy.shape))
