from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.scan.detection.detect import frame_blocks
from diffractory.scan.reading.frame_blocks import FrameSource


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
    scan = source.reopening()
    assert scan.pixel_size == 0.02
    np.testing.assert_array_equal(scan.frames.to_numpy(), array)
    for block in frame_blocks(scan):
        sent = pickle.dumps(block)
        assert len(sent) < 3000 < array.nbytes
        got = pickle.loads(sent).read()
        np.testing.assert_array_equal(got, array[slice(*block.y), slice(*block.x)])


def test_a_file_that_changed_is_noticed_where_it_is_read(frames: tuple[Path, np.ndarray]):
    path, _ = frames
    block = frame_blocks(FrameSource.of(path).reopening())[0]
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ScanError, match="changed while it was read"):
        block.read()
