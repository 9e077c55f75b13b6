from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.scan.reading.frame_blocks import FrameSource, frame_blocks, read_block


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
