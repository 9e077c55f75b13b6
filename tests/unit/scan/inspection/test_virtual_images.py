import os
import pickle
import tracemalloc

import numpy as np
import pytest

import scan_files
from diffractory.errors import ScanError
from diffractory.scan.inspection.frame_checks import EMPTY, GOOD, NOT_FINITE, SATURATED
from diffractory.scan.inspection.virtual_images import (
    DirectBeam,
    ImageBlocks,
    ScanImages,
    block_images,
    frame_status,
    locate_direct_beam,
)
from diffractory.scan.reading.frame_blocks import (
    FrameBlock,
    FrameSource,
    frame_blocks,
    read_block,
    sample_frames,
)
from diffractory.scan.reading.raw_frames import CHUNK_BYTES

FRAMES = scan_files.example((6, 5, 16, 16))
BEAM = DirectBeam((7.0, 9.0), 2.5)


@pytest.fixture
def source(tmp_path):
    return FrameSource.of(scan_files.write_npy(tmp_path / "scan.npy", FRAMES))


@pytest.fixture
def small_chunks(monkeypatch):
    """Blocks of two positions."""
    from diffractory.scan.reading import frame_blocks, raw_frames

    monkeypatch.setattr(raw_frames.frame_chunks, "__defaults__", ((1, 1), 2 * 256))
    monkeypatch.setattr(frame_blocks, "_BLOCK_BYTES", 2 * 256)


def test_blocks_cover_every_position_once(source, small_chunks):
    scan = source.open()
    blocks = frame_blocks(scan)
    assert [block.index for block in blocks] == list(range(18))
    seen = np.zeros(scan.shape, int)
    for block in blocks:
        seen[block.slices] += 1
        np.testing.assert_array_equal(read_block(source, block), FRAMES[block.slices])
    assert np.all(seen == 1)


def test_a_source_can_be_sent_to_workers(source, small_chunks):
    work = pickle.loads(pickle.dumps(ImageBlocks(source, BEAM)))
    assert work == ImageBlocks(source, BEAM)
    assert work.source.open() is source.open()
    part = work(FrameBlock(3, (1, 2), (2, 4)))
    np.testing.assert_array_equal(part.total, FRAMES[1, 2:4].sum(axis=0))


def test_samples_are_spread_over_the_scan(source):
    sampled = list(sample_frames(source, 3))
    np.testing.assert_array_equal(sampled, FRAMES.reshape(30, 16, 16)[[0, 14, 29]])
    assert len(list(sample_frames(source, 1000))) == 30


def test_a_file_that_changes_is_noticed_at_the_next_block(source, small_chunks):
    blocks = frame_blocks(source.open())
    read_block(source, blocks[0])
    os.utime(source.state.path, ns=(0, 1))
    with pytest.raises(ScanError, match="changed while it was read"):
        read_block(source, blocks[1])


def test_a_file_that_is_damaged_inside(tmp_path):
    frames = scan_files.example((6, 5, 16, 16))
    path = scan_files.write_hdf5(tmp_path / "scan.h5", frames)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    source = FrameSource.of(path)
    block = frame_blocks(source.open())[0]
    with pytest.raises(ScanError, match=r"scan\.h5 is damaged between rows 0 and 6 of the scan"):
        read_block(source, block)


def test_absent_files(tmp_path):
    with pytest.raises(ScanError, match="does not exist"):
        FrameSource.of(tmp_path / "absent.npy")


def bad_frames():
    frames = np.random.default_rng(0).poisson(5.0, (6, 4, 4)).astype(float)
    frames[1], frames[2] = 0.0, 7.0
    frames[3, 0, 0], frames[4, 1, 1] = np.nan, np.inf
    return frames


def test_bad_frames_are_told_apart():
    status, clipped = frame_status(bad_frames())
    assert status.tolist() == [GOOD, EMPTY, EMPTY, NOT_FINITE, NOT_FINITE, GOOD]
    assert not clipped.any()
    counts = np.nan_to_num(bad_frames(), posinf=0).astype(np.uint8)
    counts[5] = 255
    counts[0, 0, :2] = 255
    counts[4, :3] = 255
    status, clipped = frame_status(counts)
    assert status.tolist() == [SATURATED, EMPTY, EMPTY, GOOD, SATURATED, SATURATED]
    np.testing.assert_allclose(clipped, [2 / 16, 0, 0, 0, 12 / 16, 1])


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "f4", "bool"])
def test_images_equal_what_numpy_gives(tmp_path, small_chunks, dtype):
    frames = (FRAMES > 3) if dtype == "bool" else FRAMES.astype(dtype)
    frames[2, 3] = 0
    source = FrameSource.of(scan_files.write_npy(tmp_path / "scan.npy", frames))
    scan = source.open()
    images = ScanImages(scan.shape, scan.frame_shape)
    for block in reversed(frame_blocks(scan)):
        images.add(ImageBlocks(source, BEAM)(block))
    good = np.ones((6, 5), bool)
    good[2, 3] = False
    wide = frames.astype(float)
    bright, dark = BEAM.masks((16, 16))
    assert images.good == 29
    np.testing.assert_allclose(images.mean_pattern, wide[good].mean(axis=0))
    np.testing.assert_array_equal(images.max_pattern, wide[good].max(axis=0))
    np.testing.assert_allclose(images.bright, (wide * bright).sum(axis=(2, 3)))
    np.testing.assert_allclose(images.dark, (wide * dark).sum(axis=(2, 3)))
    np.testing.assert_array_equal(images.status == EMPTY, ~good)
    assert images.counts()["empty"] == 1
    assert sum(images.counts().values()) - images.counts()["with clipped pixels"] == 30


def test_the_dark_field_shows_where_the_spot_is():
    images = block_images(FRAMES, FrameBlock(0, (0, 6), (0, 5)), BEAM.masks((16, 16)))
    assert images.dark[:, ::2].mean() > images.dark[:, 1::2].mean() + 40
    assert images.bright.min() > 13 * 150


def test_frames_that_are_not_finite_harm_no_other():
    frames = bad_frames()[None]
    images = block_images(frames, FrameBlock(0, (0, 1), (0, 6)), np.ones((2, 4, 4)))
    assert images.good == 2
    np.testing.assert_allclose(images.total, frames[0, [0, 5]].sum(axis=0))
    assert images.dark[0, 3:5].tolist() == [0.0, 0.0]


def test_no_good_frame_at_all():
    images = ScanImages((1, 2), (4, 4))
    images.add(block_images(np.zeros((1, 2, 4, 4)), FrameBlock(0, (0, 1), (0, 2)), np.ones((2, 4, 4))))
    assert images.good == 0
    assert not images.mean_pattern.any()
    assert not images.max_pattern.any()


def test_the_pass_holds_no_more_than_a_few_blocks(tmp_path):
    path = tmp_path / "scan.npy"
    array = np.lib.format.open_memmap(path, "w+", "u1", (80, 50, 256, 256))  # 250 MiB
    array[::7, ::5, 100:110, 90:100] = 9
    array.flush()
    del array
    source = FrameSource.of(path)
    scan = source.open()
    images, blocks = ScanImages(scan.shape, scan.frame_shape), frame_blocks(scan)
    assert len(blocks) > 1
    tracemalloc.start()
    for block in blocks:
        images.add(ImageBlocks(source, BEAM)(block))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * CHUNK_BYTES
    assert images.good == 120


def disk(center, radius, shape=(60, 70)):
    rows, columns = np.indices(shape)
    return 100.0 * (np.hypot(rows - center[0], columns - center[1]) <= radius)


def test_the_direct_beam_is_found_beside_hot_pixels_and_spots():
    noise = np.random.default_rng(1).poisson(3.0, (5, 60, 70))
    frames = noise + disk((22.5, 41.0), 6.0) + 0.3 * disk((45, 15), 6.0)
    frames[:, 5, 5] = 60_000
    frames[0, 3, 3] = np.nan
    beam = locate_direct_beam(frames)
    assert beam.center == pytest.approx((22.5, 41.0), abs=0.3)
    assert beam.radius == pytest.approx(6.0, abs=0.7)
    assert not beam.at_edge
    assert locate_direct_beam(frames, radius=4.0).radius == 4.0


def test_a_direct_beam_at_the_edge_is_marked():
    assert locate_direct_beam([disk((1.0, 30.0), 6.0)]).at_edge


def test_a_direct_beam_of_one_pixel():
    frame = np.zeros((9, 9))
    frame[4, 5] = 1.0
    beam = locate_direct_beam([frame])
    assert beam.center == pytest.approx((4.0, 5.0), abs=0.01)


@pytest.mark.parametrize("frames", [[], [np.zeros((4, 4))], [np.full((4, 4), 9)], [np.full((4, 4), np.nan)]])
def test_no_direct_beam(frames):
    with pytest.raises(ScanError, match="no direct beam can be found"):
        locate_direct_beam(frames)


def test_virtual_detectors_leave_a_gap():
    bright, dark = DirectBeam((10.0, 10.0), 4.0).masks((21, 21))
    assert bright[10, 14] == 1
    assert bright[10, 15] == 0
    assert dark[10, 16] == 0
    assert dark[10, 17] == 1
    assert not (bright * dark).any()
