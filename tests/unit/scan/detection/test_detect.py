import pickle
import zlib

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from diffractory.errors import ScanError
from diffractory.scan.detection.detect import (
    BlockPeaks,
    DetectBlocks,
    Detector,
    DetectToFile,
    assemble,
    describe_status,
    find_peaks,
    part_path,
    read_part,
    sample_pairs,
    write_part,
)
from diffractory.scan.detection.probe_template import disk_template, kernel_of
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FRAME_DIMENSIONS, FrameScan
from diffractory.scan.inspection.frame_checks import EMPTY, GOOD, NO_PEAKS, NOT_FINITE, SATURATED
from diffractory.scan.reading.frame_blocks import frame_blocks, read_block, read_places
from diffractory.scan.synthetic.frames import score_peaks
from diffractory.specs import DetectionSpec
from frame_scans import frames_of, lattice_patterns

SHAPE, FRAME = (5, 6), (96, 96)
SPEC = DetectionSpec(min_spacing=4.5, min_relative_intensity=2e-4, min_significance=4.6, noise_gain=1.0)
DETECTOR = Detector(
    kernel_of(disk_template(FRAME, 3.0, "test"), 2.0), SPEC, np.zeros(FRAME, dtype=bool), 65535.0
)


def raw(**effects):
    return frames_of(lattice_patterns(10), SHAPE, **effects)


def of_array(array, chunks="auto"):
    return FrameScan(xr.DataArray(da.from_array(array, chunks=chunks), dims=FRAME_DIMENSIONS), 0.03)


def found_in(scan):
    return find_peaks(scan, DETECTOR)


def assert_same(one, other):
    np.testing.assert_array_equal(one.peaks.offsets, other.peaks.offsets)
    np.testing.assert_array_equal(one.peaks.q, other.peaks.q)
    np.testing.assert_array_equal(one.peaks.intensity, other.peaks.intensity)
    np.testing.assert_array_equal(one.status, other.status)


@pytest.mark.parametrize("chunks", [(5, 6, 96, 96), (1, 6, 96, 96), (2, 4, 96, 96), (1, 1, 48, 96)])
def test_any_chunking_gives_the_same_peaks(chunks, monkeypatch):
    array = raw()[0].frames.to_numpy()
    whole = DETECTOR.find(array.reshape(-1, *FRAME))
    assert whole.peaks.counts.min() > 5
    assert_same(found_in(of_array(array, chunks)), whole)
    monkeypatch.setattr("diffractory.scan.reading.frame_blocks._BLOCK_BYTES", 3 * 96 * 96 * 2)
    monkeypatch.setattr("diffractory.scan.detection.detect._FRAMES_AT_ONCE", 2)
    assert_same(found_in(of_array(array, chunks)), whole)


def test_blocks_cover_the_scan_and_can_be_sent():
    scan = of_array(np.zeros((40, 30, 16, 16), np.uint8), (7, 11, 16, 16))
    blocks = frame_blocks(scan)
    covered = np.zeros((40, 30), dtype=int)
    for block in blocks:
        covered[block.slices] += 1
        (top, bottom), (left, right) = block.rows, block.columns
        assert read_block(scan, block).shape[:2] == (bottom - top, right - left)
        assert block.positions == (bottom - top) * (right - left)
    assert (covered == 1).all()
    assert len({block.name for block in blocks}) == len(blocks) > 4
    assert len(pickle.dumps(blocks[0])) < 400


def test_a_block_computes_only_its_own_frames(monkeypatch):
    rendered = []

    def render(number, *details):
        rendered.append(number.size)
        return np.zeros((*number.shape, *FRAME), np.uint16)

    monkeypatch.setattr("diffractory.scan.synthetic.frames._render_block", render)
    monkeypatch.setattr("diffractory.scan.synthetic.frames._BLOCK_BYTES", 80 * 96 * 96 * 2)
    monkeypatch.setattr("diffractory.scan.reading.frame_blocks._BLOCK_BYTES", 80 * 96 * 96 * 2)
    scan, _ = frames_of(lattice_patterns(10), (40, 40))
    blocks = frame_blocks(scan)
    assert len(blocks) > 10
    for block in blocks:
        rendered.clear()
        read_block(scan, block)
        assert sum(rendered) == block.positions


def test_bad_frames_are_flagged_and_the_rest_proceeds():
    array = raw()[0].frames.to_numpy().astype(np.float32)
    good = found_in(of_array(array))
    array[0, 1] = 0.0
    array[1, 2, 5, 5] = np.nan
    array[2, 3] = np.random.default_rng(0).poisson(0.3, FRAME)
    bad = found_in(of_array(array))
    expected = np.full(SHAPE, GOOD)
    expected[0, 1], expected[1, 2], expected[2, 3] = EMPTY, NOT_FINITE, NO_PEAKS
    np.testing.assert_array_equal(bad.status.reshape(SHAPE), expected)
    kept = np.flatnonzero(expected.ravel() == GOOD)
    np.testing.assert_array_equal(bad.peaks.take(kept).q, good.peaks.take(kept).q)
    assert bad.peaks.counts[expected.ravel() != GOOD].sum() == 0
    assert describe_status(bad.status) == "27 good, 1 empty, 1 not finite, 1 no peaks"


def test_saturated_frames_are_flagged():
    array = raw()[0].frames.to_numpy()
    array[4, 5] = 65535
    assert found_in(of_array(array)).status.reshape(SHAPE)[4, 5] == SATURATED


def test_a_scan_in_which_nothing_is_found():
    with pytest.raises(ScanError, match="30 frames: 30 empty"):
        found_in(of_array(np.zeros((*SHAPE, *FRAME), np.uint8)))


def test_parts_are_kept_and_damaged_ones_done_again(tmp_path, monkeypatch):
    scan, _ = raw()
    (block,) = frame_blocks(scan)[:1]
    work = DetectToFile(DetectBlocks(DETECTOR, scan), tmp_path)
    n = work(block)
    path = part_path(tmp_path, block)
    kept = read_part(path)
    assert kept is not None
    assert_same(kept, DetectBlocks(DETECTOR, scan)(block))
    assert n == len(kept.peaks.intensity)
    monkeypatch.setattr(Detector, "find", lambda *_: pytest.fail("done twice"))
    assert work(block) == n
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:100])
    assert read_part(path) is None
    assert work(block) == n
    assert read_part(tmp_path / "no.npz") is None


def test_a_part_of_another_block_is_not_taken(tmp_path):
    scan, _ = raw()
    (block,) = frame_blocks(scan)[:1]
    write_part(part_path(tmp_path, block), DETECTOR.find(np.zeros((1, *FRAME))))
    assert DetectToFile(DetectBlocks(DETECTOR, scan), tmp_path)(block) > 0


def test_blocks_that_do_not_cover_the_scan_are_refused():
    scan, _ = raw()
    work = DetectBlocks(DETECTOR, scan)
    parts = [(block, work(block)) for block in frame_blocks(scan)]
    with pytest.raises(ScanError, match="do not cover"):
        assemble([parts[0], parts[0]], (2 * SHAPE[0], SHAPE[1]))


def test_frames_that_cannot_be_read_say_so():
    class Broken:
        shape, dtype, ndim = (*SHAPE, 8, 8), np.dtype(np.uint8), 4

        def __getitem__(self, _: object) -> np.ndarray:
            # Of a damaged chunk of a Zarr store: no kind of error that readers share.
            raise zlib.error("incorrect header check")

    scan = of_array(Broken())
    with pytest.raises(ScanError, match=r"damaged between rows 0 and \d.*incorrect header check"):
        sample_pairs(scan, 4)
    with pytest.raises(ScanError, match=r"damaged between rows 1 and 3 .*incorrect header check"):
        read_places(scan, [(slice(1, 3), slice(0, 2))])


def test_a_scan_of_one_position_is_prepared_and_searched():
    scan, _ = frames_of(lattice_patterns(1), (1, 1))
    setup = prepare_detection(scan, SetupRequest())
    assert setup.sample.shape[0] == 1
    assert 0.5 < setup.noise.gain < 2.0  # counting, from single pixels: there is no neighbour
    assert find_peaks(scan, setup.detector).peaks.counts[0] > 5


@pytest.mark.parametrize("shape", [(7, 9), (1, 9), (9, 1), (40, 3)])
def test_pairs_are_neighbours_from_all_over_the_scan(shape):
    array = np.arange(shape[0] * shape[1]).reshape(*shape, 1, 1) * np.ones((8, 8))
    first, second, positions = sample_pairs(of_array(array), 16)
    assert 0 < len(first) == len(second) == len(positions) <= 16
    np.testing.assert_array_equal(first[:, 0, 0], positions[:, 0] * shape[1] + positions[:, 1])
    step = 1 if shape[1] > 1 else shape[1]
    np.testing.assert_array_equal(second[:, 0, 0] - first[:, 0, 0], step)
    assert np.ptp(positions[:, 0]) >= 0.6 * (shape[0] - 1)


def test_one_position_has_no_pair():
    first, second, _ = sample_pairs(of_array(np.ones((1, 1, 8, 8))), 16)
    assert (len(first), len(second)) == (1, 0)


def test_preparation_finds_everything_itself():
    scan, truth = raw(hot_pixels=10, hot_value=3000.0, drift=3.0)
    setup = prepare_detection(scan, SetupRequest())
    assert setup.template.radius == pytest.approx(3.0, abs=0.4)
    assert not (setup.detector.bad_pixels & ~truth.hot).any()
    assert setup.spec.noise_gain == pytest.approx(1.0, abs=0.15)
    np.testing.assert_allclose(setup.brightest, [47.5, 47.5], atol=2.5)
    result = score_peaks(find_peaks(scan, setup.detector).peaks, truth, weakest=1e-3)
    assert result["recall"] > 0.98
    assert result["false_a_frame"] < 0.3


def test_where_the_template_comes_from(tmp_path):
    scan, _ = raw()
    probe = np.zeros(FRAME)
    probe[40:47, 50:57] = 1.0
    np.save(tmp_path / "probe.npy", probe)
    known = FrameScan(scan.frames, 0.03, None, 200e3, 2.5)
    cases = [
        (scan, SetupRequest(disk_radius=4.2), 4.2, "--disk-radius"),
        (scan, SetupRequest(probe=tmp_path / "probe.npy"), 3.9, "probe.npy"),
        (scan, SetupRequest(vacuum=(0, 2, 1, 4)), 3.0, "vacuum, 6 frames"),
        (known, SetupRequest(), 2.5e-3 / 0.02508 / 0.03, "2.5 mrad"),
        (scan, SetupRequest(), 3.0, "direct beam"),
    ]
    for given, request, radius, words in cases:
        setup = prepare_detection(given, request)
        assert setup.template.radius == pytest.approx(radius, abs=0.3)
        assert words in setup.template.origin


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (SetupRequest(disk_radius=0.2), "--disk-radius"),
        (SetupRequest(vacuum=(0, 9, 0, 2)), "--vacuum 0 9 0 2"),
        (SetupRequest(chosen={"sigma": -1.0}), "sigma"),
        (SetupRequest(saturation=0.0), "saturated"),
    ],
)
def test_requests_that_cannot_be_met(request_, words):
    with pytest.raises(ValueError if words == "sigma" else ScanError, match=words):
        prepare_detection(raw()[0], request_)


def test_a_block_without_frames_that_are_good():
    found = DETECTOR.find(np.zeros((3, *FRAME)))
    assert isinstance(found, BlockPeaks)
    assert found.status.tolist() == [EMPTY] * 3
    assert found.peaks.counts.tolist() == [0] * 3
