import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.scan.inspection.frame_checks import (
    EMPTY,
    GOOD,
    NOT_FINITE,
    SATURATED,
    check_frames,
    fill_bad_pixels,
    find_bad_pixels,
    saturation_of,
)
from frame_scans import frames_of, lattice_patterns

NONE = np.zeros((20, 20), dtype=bool)


def noise(n=4, dtype=np.uint16):
    return np.random.default_rng(0).poisson(5.0, (n, 20, 20)).astype(dtype)


def test_status_of_frames():
    frames = noise(6)
    frames[1] = 0
    frames[2] = 65535
    frames[3, :2] = 65535  # a tenth of the frame
    frames[4, 0, :10] = 65535  # as much as a bright disk
    frames[5] = 7
    expected = [GOOD, EMPTY, SATURATED, SATURATED, GOOD, EMPTY]
    assert check_frames(frames, NONE, saturation_of(frames)).tolist() == expected


def test_numbers_that_are_none():
    frames = noise(4, np.float32)
    frames[1, 3, 3] = np.nan
    frames[2, 3, 3] = np.inf
    frames[3] = np.nan
    assert check_frames(frames, NONE, saturation_of(frames)).tolist() == [GOOD, *[NOT_FINITE] * 3]
    masked = NONE.copy()
    masked[3, 3] = True
    assert check_frames(frames[:3], masked, None).tolist() == [GOOD] * 3


def test_a_detector_may_end_before_its_type():
    frames = noise(1)
    frames[0, :3] = 4095
    assert check_frames(frames, NONE, 65535.0).tolist() == [GOOD]
    assert check_frames(frames, NONE, 4095.0).tolist() == [SATURATED]
    assert saturation_of(frames.astype(np.float32)) is None


def test_hot_pixels_are_found_and_disks_are_not():
    scan, truth = frames_of(lattice_patterns(6), (6, 2), hot_pixels=25, hot_value=2000.0, disk_radius=1.5)
    found = find_bad_pixels(scan.frames.to_numpy().reshape(-1, 96, 96))
    assert not (found & ~truth.hot).any()
    # One within the direct beam, dimmer than it, does no harm and is not seen.
    missed = np.argwhere(truth.hot & ~found) - truth.center[0, 0]
    assert len(missed) <= 1
    assert np.hypot(*missed.T).max(initial=0.0) < 2.0


def test_pairs_and_corners_of_hot_pixels():
    frames = noise(8)
    hot = NONE.copy()
    hot[0, 0] = hot[7, 7] = hot[7, 8] = hot[19, 10] = True
    frames[:, hot] = 900
    np.testing.assert_array_equal(find_bad_pixels(frames), hot)


def test_pixels_without_a_number_anywhere_are_bad():
    frames = noise(3, np.float64)
    frames[:, 4, 5] = np.nan
    frames[0, 9, 9] = np.nan
    assert np.argwhere(find_bad_pixels(frames)).tolist() == [[4, 5]]


def test_bad_pixels_are_filled_from_good_neighbours():
    frames = np.ones((2, 20, 20))
    frames[1] = 3.0
    bad = NONE.copy()
    bad[5:8, 5:8] = True
    bad[0, 0] = True
    frames[:, bad] = 1e9
    filled = fill_bad_pixels(frames, bad)
    assert (filled[0] == 1.0).all()
    assert (filled[1] == 3.0).all()
    assert frames[0, 0, 0] == 1e9  # the input stays
    assert fill_bad_pixels(frames, NONE) is frames
    counts = np.arange(2 * 20 * 20).reshape(2, 20, 20).astype(np.uint16)
    assert fill_bad_pixels(counts, bad).dtype == np.uint16
    assert fill_bad_pixels(counts, bad)[0, 0, 0] == np.rint(np.median([1, 20, 21]))
    with pytest.raises(ScanError, match="mask"):
        fill_bad_pixels(frames, np.zeros((3, 3), dtype=bool))
