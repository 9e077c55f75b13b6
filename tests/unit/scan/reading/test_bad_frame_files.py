"""What is no scan of frames, or none any more, is refused with one clear message."""

import json
import os
import zipfile

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

import scan_files
from diffractory.errors import ScanError
from diffractory.scan.inspection.frame_checks import EMPTY
from diffractory.scan.inspection.virtual_images import frame_status
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_reader import read_frame_scan
from scan_files import FOUR_DIMENSIONAL

FRAMES = scan_files.example()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"qx qy\n1 2\n", "not a 4D-STEM file"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        (b"PK\x03\x04 and no more", "cut off"),
        (b"\x89HDF\r\n\x1a\n\x00\x00", "damaged"),
        (b"\x93NUMPY\x01\x00", "NumPy file"),
        (b"IMGBLO\x02\x01", "cut off"),
        (b"MQ1,000001,00384,01", "Merlin file"),
        (b"\x00\x00\x00\x04\x00\x00\x00\x00", "DigitalMicrograph file"),
    ],
)
@pytest.mark.parametrize("name", ["scan.h5", "scan"])
def test_what_is_no_scan(tmp_path, content, says, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=says):
        read_frame_scan(tmp_path / name)


def test_absent_and_folders(tmp_path):
    with pytest.raises(ScanError, match="does not exist"):
        read_frame_scan(tmp_path / "absent.blo")
    with pytest.raises(ScanError, match="a folder and no Zarr store"):
        read_frame_scan(tmp_path)


def test_no_permission(tmp_path, monkeypatch):
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES)
    if os.geteuid() == 0:
        # Nothing is forbidden to root: the system's answer is put in its place.
        def refuse(*_args, **_options):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(type(path), "open", refuse)
    path.chmod(0)
    with pytest.raises(ScanError, match=r"cannot be read\. Permission denied\. Check your permission"):
        read_frame_scan(path)


@pytest.mark.parametrize("name", [n for n in FOUR_DIMENSIONAL if n not in ("scan.zarr", "scan.zspy")])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
def test_truncated_files(tmp_path, name, share):
    path = FOUR_DIMENSIONAL[name](tmp_path / name, FRAMES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    if name == "scan.mib":
        # Without a header file nothing says how many frames there should be.
        path.with_suffix(".hdr").write_text(
            "HDR\nFrames per Trigger (Number):\t4\nFrames in Acquisition (Number):\t20\nEnd\t\n"
        )
    with pytest.raises(ScanError, match=r"cut off|damaged"):
        read_frame_scan(path)


@pytest.mark.parametrize("name", ["scan.zarr", "scan.zspy"])
def test_missing_chunks_of_a_zarr_store_are_frames_of_zeros(tmp_path, name):
    path = FOUR_DIMENSIONAL[name](tmp_path / name, FRAMES)
    chunks = [p for p in path.rglob("*") if p.is_file() and p.name.replace(".", "").isdigit()]
    chunks[0].unlink()
    frames = read_frame_scan(path).frames.to_numpy()
    status, _ = frame_status(frames.reshape(20, 16, 16))
    lost = status == EMPTY
    assert 0 < lost.sum() <= 20
    np.testing.assert_array_equal(frames.reshape(20, 16, 16)[~lost], FRAMES.reshape(20, 16, 16)[~lost])


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("scan_001.tvips", {}, "not the first file of a recording"),
        ("scan_000.tvips", {4: 9}, "header makes no sense"),
        ("scan_000.tvips", {16: 12}, "header makes no sense"),
    ],
)
def test_tvips_files_that_are_none(tmp_path, name, change, says):
    path = scan_files.write_tvips(tmp_path / "scan_000.tvips", FRAMES).rename(tmp_path / name)
    content = bytearray(path.read_bytes())
    for place, value in change.items():
        content[place] = value
    path.write_bytes(content)
    with pytest.raises(ScanError, match=says):
        read_frame_scan(path)
    path.write_bytes(content[:100])
    with pytest.raises(ScanError, match=r"cut off|not the first"):
        read_frame_scan(path)


def test_a_ragged_signal(tmp_path):
    # As HyperSpy writes vectors: one array of another length at each position.
    path = scan_files.write_zspy(tmp_path / "ragged.zspy", FRAMES)
    meta = path / "Experiments/scan/data/.zarray"
    stated = json.loads(meta.read_text())
    ragged = {"dtype": "|O", "filters": [{"id": "vlen-array", "dtype": "<f8"}], "fill_value": 0}
    meta.write_text(json.dumps({**stated, **ragged}))
    with pytest.raises(ScanError, match=r"no array of numbers.*ragged signal.*other-tools"):
        read_frame_scan(path)


def test_a_zarr_store_without_its_metadata(tmp_path):
    path = scan_files.write_zarr(tmp_path / "scan.zarr", FRAMES)
    (path / "zarr.json").write_text("{")
    with pytest.raises(ScanError, match=r"Zarr file.*damaged"):
        read_frame_scan(path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((8, 9)), r"not a scan but a picture of 8 × 9"),
        (np.zeros(8), r"1-dimensional data"),
        (np.zeros((2, 2, 2, 3, 3)), r"5-dimensional data of 2 × 2 × 2 × 3 × 3"),
        (np.zeros((2, 0, 3, 3)), r"is empty: 2 × 0 × 3 × 3"),
        (np.zeros((2, 2, 3, 3), complex), "complex numbers"),
        (np.full((2, 2, 3, 3), None, dtype=object), "Python objects"),
        (np.zeros((2, 2, 3, 3), "U3"), "values of type <U3"),
        (np.zeros((2, 2, 3, 3), [("a", float)]), "values of type"),
    ],
)
def test_arrays_that_are_no_scan(tmp_path, array, says):
    np.save(tmp_path / "scan.npy", array)
    with pytest.raises(ScanError, match=says):
        read_frame_scan(tmp_path / "scan.npy")


def test_hdf5_and_archives_without_frames(tmp_path):
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["text"] = "hello"
    with pytest.raises(ScanError, match="no array of frames"):
        read_frame_scan(tmp_path / "none.h5")
    np.savez(tmp_path / "several.npz", FRAMES)
    with pytest.raises(ScanError, match=r"archive of arrays.*numpy\.save"):
        read_frame_scan(tmp_path / "several.npz")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ScanError, match="not a 4D-STEM file"):
        read_frame_scan(tmp_path / "other.zip")


def test_a_picture_in_tiff(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.savefig(tmp_path / "picture.tif", dpi=20)
    with pytest.raises(ScanError, match=r"picture\.tif"):
        read_frame_scan(tmp_path / "picture.tif")


def test_dectris_files_that_were_left_behind(tmp_path):
    path = scan_files.write_dectris(tmp_path / "run_master.h5", FRAMES)
    (tmp_path / "run_master_data_000002.h5").unlink()
    with pytest.raises(ScanError, match=r"refers to run_master_data_000002\.h5.*same folder"):
        read_frame_scan(path, scan_shape=(5, 4))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("pixel_size", "--pixel-size"),
        ("step", "--step"),
        ("energy_ev", "--energy"),
        ("semiangle_mrad", "--semiangle"),
    ],
)
def test_bad_calibrations(tmp_path, option, flag, value):
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES)
    with pytest.raises(ScanError, match=rf"{flag} .*finite and above 0"):
        read_frame_scan(path, **{option: value})


def test_a_change_is_noticed(tmp_path):
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES)
    store = scan_files.write_zarr(tmp_path / "scan.zarr", FRAMES)
    states = [FileState.of(path), FileState.of(store)]
    for state in states:
        state.check()
    os.utime(path, ns=(0, 1))
    next(p for p in store.rglob("c/*/*/*/*")).write_bytes(b"other")
    for state in states:
        with pytest.raises(ScanError, match="changed while it was read"):
            state.check()
    path.unlink()
    with pytest.raises(ScanError, match="cannot be read"):
        states[0].check()
