from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

import scan_files
from diffractory.errors import ScanError
from diffractory.scan.reading.frame_blocks import FrameSource, frame_blocks, read_block
from diffractory.scan.reading.recording_files import files_beside


@pytest.fixture
def frames(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An HDF5 file: its open handle cannot be sent anywhere."""
    array = np.random.default_rng(0).integers(0, 1000, (6, 5, 16, 16)).astype(np.uint16)
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file.create_dataset("scan", data=array, chunks=(1, 5, 16, 16))
    return tmp_path / "frames.h5", array


def test_blocks_of_a_file_can_be_sent_and_hold_no_frames(frames: tuple[Path, np.ndarray]):
    path, array = frames
    source = FrameSource.of(path, pixel_size=0.02)
    scan = source.open()
    assert scan.pixel_size == 0.02
    np.testing.assert_array_equal(scan.frames.to_numpy(), array)
    for block in frame_blocks(scan):
        sent = pickle.dumps((source, block))
        assert len(sent) < 3000 < array.nbytes
        np.testing.assert_array_equal(read_block(*pickle.loads(sent)), array[block.slices])


def test_a_file_that_changed_is_noticed_where_it_is_read(frames: tuple[Path, np.ndarray]):
    path, _ = frames
    source = FrameSource.of(path)
    block = frame_blocks(source.open())[0]
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ScanError, match="changed while it was read"):
        read_block(source, block)


def recording(kind: str, folder: Path, array: np.ndarray) -> tuple[Path, Path]:
    """Write a recording of several files; return the one that opens it and another one."""
    if kind == "DECTRIS":
        path = scan_files.write_dectris(folder / "scan_master.h5", array)
        return path, folder / "scan_master_data_000002.h5"
    path = scan_files.write_tvips(folder / "scan_000.tvips", array)
    whole, frame = path.read_bytes(), array[0, 0].nbytes
    header = len(whole) - array.shape[0] * array.shape[1] * (len(whole) - 256) // (
        array.shape[0] * array.shape[1]
    )
    record = (len(whole) - header) // (array.shape[0] * array.shape[1])
    assert record > frame
    cut = header + 7 * record
    path.write_bytes(whole[:cut])
    (folder / "scan_001.tvips").write_bytes(whole[cut:])
    return path, folder / "scan_001.tvips"


@pytest.mark.parametrize("kind", ["DECTRIS", "TVIPS"])
def test_further_files_of_a_recording_are_watched_too(kind: str, tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 1000, (6, 5, 16, 16)).astype(np.uint16)
    path, beside = recording(kind, tmp_path, array)
    source = FrameSource.of(path, scan_shape=(6, 5))
    np.testing.assert_array_equal(source.open().frames.to_numpy(), array)
    assert source.state.files == len(list(tmp_path.iterdir()))
    assert source.state.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    os.utime(beside, ns=(0, 1))
    with pytest.raises(ScanError, match="changed while it was read"):
        source.open()


def test_files_of_other_recordings_are_not(tmp_path: Path):
    (tmp_path / "scan.xml").write_text("<root><raw_file filename='scan_x2_y2.raw'/></root>")
    for name in ("scan_x2_y2.raw", "other_x4_y4.raw"):
        (tmp_path / name).write_bytes(b"0")
    assert files_beside(tmp_path / "scan.xml") == (tmp_path / "scan_x2_y2.raw",)
