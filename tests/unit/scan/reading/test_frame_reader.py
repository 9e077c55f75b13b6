import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import py4DSTEM
import pytest
import zarr

import scan_files
from diffractory.errors import ScanError
from diffractory.scan.reading.frame_reader import read_frame_scan
from scan_files import ENERGY, FOUR_DIMENSIONAL, PIXEL, SEMIANGLE, SHAPE, STEP

FRAMES = scan_files.example()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small scan in every format that can be written here."""
    folder = tmp_path_factory.mktemp("scans")
    for name, write in FOUR_DIMENSIONAL.items():
        write(folder / name, FRAMES)
    return folder


@pytest.mark.parametrize("name", FOUR_DIMENSIONAL)
def test_frames_are_those_that_were_written(files, name):
    scan = read_frame_scan(files / name)
    assert scan.shape == (5, 4)
    assert scan.frame_shape == (16, 16)
    assert scan.source == str(files / name)
    assert scan.attrs["axis_order"] == [0, 1, 2, 3]
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)


@pytest.mark.parametrize("name", FOUR_DIMENSIONAL)
def test_content_decides_not_the_suffix(files, tmp_path, name):
    disguised = tmp_path / "scan.data"
    disguised.symlink_to(files / name)
    if name == "scan.mib":
        with pytest.raises(ScanError, match=r"Merlin file.*Rename it to scan\.mib"):
            read_frame_scan(disguised)
        return
    np.testing.assert_array_equal(read_frame_scan(disguised).frames.to_numpy(), FRAMES)


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("scan.hspy", (PIXEL, STEP, ENERGY, SEMIANGLE)),
        ("scan.zspy", (PIXEL, STEP, ENERGY, SEMIANGLE)),
        ("zipped.zspy", (PIXEL, STEP, ENERGY, SEMIANGLE)),
        ("scan.nxs", (PIXEL, STEP, ENERGY, SEMIANGLE)),
        ("scan.emd", (PIXEL, STEP, None, None)),
        ("cube.h5", (PIXEL, STEP, None, None)),
        # 1 mm at 200 mm is 5 mrad; the wavelength at 200 keV is 0.025079 Å.
        ("scan.blo", (5e-3 / 0.025079, STEP, ENERGY, None)),
        ("scan.dm4", (PIXEL, STEP, ENERGY, None)),
        ("scan.mib", (None, None, None, None)),
        ("scan.npy", (None, None, None, None)),
    ],
)
def test_metadata_become_the_calibration(files, name, stated):
    scan = read_frame_scan(files / name)
    found = (scan.pixel_size, scan.step, scan.energy_ev, scan.semiangle_mrad)
    for value, expected in zip(found, stated, strict=True):
        assert value == (None if expected is None else pytest.approx(expected, rel=1e-4))
    origins = scan.attrs["calibration"].values()
    assert [origin == "unknown" for origin in origins] == [value is None for value in stated]


def test_options_go_before_metadata(files):
    scan = read_frame_scan(files / "scan.hspy", pixel_size=0.5, step=3.0, energy_ev=80e3, semiangle_mrad=9.0)
    assert (scan.pixel_size, scan.step, scan.energy_ev, scan.semiangle_mrad) == (0.5, 3.0, 80e3, 9.0)
    assert scan.attrs["calibration"]["pixel_size"] == "option --pixel-size"
    assert scan.attrs["calibration"]["semiangle_mrad"] == "option --semiangle"


def test_coordinates_have_units(files):
    known, unknown = (read_frame_scan(files / name).frames for name in ("scan.hspy", "scan.npy"))
    np.testing.assert_allclose(known["scan_x"], [0.0, 20.0, 40.0, 60.0])
    np.testing.assert_allclose(known["q_column"][:3], [0.0, 0.02, 0.04])
    units = {name: known[name].attrs["units"] for name in known.dims}
    assert units == {d: "angstrom" if "scan" in d else "angstrom-1" for d in known.dims}
    assert {unknown[name].attrs["units"] for name in unknown.dims} == {"1"}


def test_what_xarray_writes_is_read_with_its_coordinates(files, tmp_path):
    first = read_frame_scan(files / "scan.hspy")
    first.frames.to_dataset(name="frames").transpose("q_row", "q_column", "scan_y", "scan_x").to_zarr(
        tmp_path / "again.zarr", zarr_format=2
    )
    again = read_frame_scan(tmp_path / "again.zarr")
    assert again.attrs["axis_order"] == [2, 3, 0, 1]
    assert (again.pixel_size, again.step) == (pytest.approx(PIXEL), pytest.approx(STEP))
    np.testing.assert_array_equal(again.frames.to_numpy(), FRAMES)


def test_stacks_need_the_shape_of_the_scan(tmp_path):
    stack = FRAMES.reshape(20, 16, 16)
    paths = [
        scan_files.write_npy(tmp_path / "stack.npy", stack),
        scan_files.write_zarr(tmp_path / "stack.zarr", stack),
        scan_files.write_hdf5(tmp_path / "stack.h5", stack[:, None]).with_name("stack3.h5"),
        scan_files.write_tvips(tmp_path / "stack_000.tvips", FRAMES),
        scan_files.write_dectris(tmp_path / "run_master.h5", FRAMES, parts=3),
    ]
    with h5py.File(paths[2], "w") as file:
        file.create_dataset("entry/frames", data=stack, chunks=(3, 16, 16))
    for path in paths:
        with pytest.raises(
            ScanError, match=r"stack of 20 frames.*--scan-shape ROWSxCOLUMNS, for example 4x5"
        ):
            read_frame_scan(path)
        with pytest.raises(ScanError, match=r"--scan-shape 3x5 has 15 positions.*has 20 frames"):
            read_frame_scan(path, scan_shape=(3, 5))
        for shape in ((5, 4), (4, 5), (1, 20)):
            scan = read_frame_scan(path, scan_shape=shape)
            assert scan.shape == shape
            np.testing.assert_array_equal(scan.frames.to_numpy().reshape(20, 16, 16), stack)
            np.testing.assert_array_equal(scan.frames[-1, 0, 3], stack[20 - shape[1], 3])


def test_a_wrong_stored_shape_is_corrected(tmp_path):
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES.reshape(2, 10, 16, 16))
    np.testing.assert_array_equal(read_frame_scan(path, scan_shape=(5, 4)).frames.to_numpy(), FRAMES)


@pytest.mark.parametrize("header", [True, False])
def test_merlin_rows_without_a_pause_are_not_guessed(tmp_path, header):
    path = scan_files.write_mib(tmp_path / "scan.mib", FRAMES, rows_in_time=False)
    if header:
        scan_files.write_mib(path, FRAMES, header=True)
        assert read_frame_scan(path).shape == (5, 4)
        return
    scan = read_frame_scan(path, scan_shape=(5, 4))
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)


def test_axes_in_the_wrong_order_are_recognised(tmp_path):
    turned = np.ascontiguousarray(FRAMES.transpose(2, 3, 0, 1))
    content = scan_files.signal(FRAMES)
    axes = [content["axes"][i] for i in (2, 3, 0, 1)]
    for name, flags in (("flags", [False, False, True, True]), ("units alone", [True, True, False, False])):
        stated = [{**axis, "navigate": flag} for axis, flag in zip(axes, flags, strict=True)]
        scan = read_frame_scan(scan_files.write_hspy(tmp_path / f"{name}.hspy", turned, axes=stated))
        assert scan.attrs["axis_order"] == [2, 3, 0, 1]
        assert scan.pixel_size == pytest.approx(PIXEL)
        np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)


def test_digital_micrograph_files_with_the_detector_first(tmp_path):
    scan = read_frame_scan(scan_files.write_dm4(tmp_path / "scan.dm4", FRAMES, transposed=True))
    assert scan.attrs["axis_order"] == [2, 3, 0, 1]
    assert (scan.pixel_size, scan.step) == (pytest.approx(PIXEL), pytest.approx(STEP))
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)


def test_axes_that_are_no_scan_are_refused(tmp_path):
    axes = [
        {**axis, "units": "", "navigate": i == 0} for i, axis in enumerate(scan_files.signal(FRAMES)["axes"])
    ]
    path = scan_files.write_hspy(tmp_path / "scan.hspy", FRAMES, axes=axes)
    with pytest.raises(ScanError, match="1 scan axes and 3 detector axes"):
        read_frame_scan(path)


def with_numbers(path, numbers):
    """Write into the frames of a TVIPS file their numbers within the scan."""
    content = bytearray(path.read_bytes())
    frame = int.from_bytes(content[48:52], "little") + 256
    for i, number in enumerate(numbers):
        place = 256 + i * frame + 48
        content[place : place + 4] = int(number).to_bytes(4, "little")
    path.write_bytes(content)


def test_tvips_frames_before_and_after_the_scan_are_left_out(tmp_path):
    path = scan_files.write_tvips(tmp_path / "scan_000.tvips", FRAMES)
    with_numbers(path, [0, 0, 0, *range(1, 16), 0, 0])
    frames = read_frame_scan(path, scan_shape=(3, 5)).frames.to_numpy()
    np.testing.assert_array_equal(frames.reshape(15, 16, 16), FRAMES.reshape(20, 16, 16)[3:18])


def test_tvips_frames_with_a_gap_are_all_kept(tmp_path):
    path = scan_files.write_tvips(tmp_path / "scan_000.tvips", FRAMES)
    with_numbers(path, [0, 0, 0, *range(1, 9), *range(10, 17), 0, 0])
    np.testing.assert_array_equal(read_frame_scan(path, scan_shape=(5, 4)).frames.to_numpy(), FRAMES)


@pytest.mark.parametrize("numbers", [[0] * 20, [0, *range(1, 19), 0]])
def test_tvips_recordings_go_on_in_further_files(tmp_path, numbers):
    path = scan_files.write_tvips(tmp_path / "scan_000.tvips", FRAMES)
    with_numbers(path, numbers)
    content = path.read_bytes()
    frame = (len(content) - 256) // 20
    path.write_bytes(content[: 256 + 7 * frame])
    (tmp_path / "scan_001.tvips").write_bytes(content[256 + 7 * frame :])
    used = slice(1, 19) if any(numbers) else slice(None)
    stack = FRAMES.reshape(20, 16, 16)[used]
    frames = read_frame_scan(path, scan_shape=(2, len(stack) // 2)).frames.to_numpy()
    np.testing.assert_array_equal(frames.reshape(stack.shape), stack)


def test_a_data_cube_that_py4dstem_saved(tmp_path, capfd):
    cube = py4DSTEM.DataCube(FRAMES.copy(), name="cube")
    cube.calibration.set_Q_pixel_size(0.8)
    cube.calibration.set_Q_pixel_units("mrad")
    cube.calibration.set_R_pixel_size(2.0)
    cube.calibration.set_R_pixel_units("nm")
    py4DSTEM.save(str(tmp_path / "scan.h5"), cube)
    capfd.readouterr()
    scan = read_frame_scan(tmp_path / "scan.h5", energy_ev=300e3)
    assert capfd.readouterr() == ("", "")
    assert scan.attrs["dataset"] == "cube_root/cube"
    assert scan.pixel_size == pytest.approx(0.8e-3 / 0.0196875, rel=1e-5)
    assert scan.step == pytest.approx(20.0)
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)
    assert "--energy" in read_frame_scan(tmp_path / "scan.h5").attrs["calibration"]["pixel_size"]


def test_several_data_sets_must_be_chosen_from(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a/first"], file["b/second"] = FRAMES, FRAMES[::-1]
    with pytest.raises(ScanError, match=r"2 data sets: 'a/first', 'b/second'.*--dataset"):
        read_frame_scan(tmp_path / "two.h5")
    np.testing.assert_array_equal(
        read_frame_scan(tmp_path / "two.h5", dataset="second").frames[0], FRAMES[-1]
    )
    with pytest.raises(ScanError, match=r"no single data set 'third'.*'a/first'"):
        read_frame_scan(tmp_path / "two.h5", dataset="third")


def test_the_real_block_file(shared_data):
    scan = read_frame_scan(shared_data / "rosettasciio_sped" / "test1.blo")
    assert scan.frames.shape == (3, 2, 144, 144)
    assert (scan.step, scan.energy_ev) == (pytest.approx(128.0), 200e3)
    # 62.26 pixels a cm at 200 mm: 0.803 mrad.
    assert scan.pixel_size == pytest.approx(0.80308e-3 / 0.025079, rel=1e-4)
    assert "nominal camera length of 200 mm" in scan.attrs["calibration"]["pixel_size"]
    assert float(scan.frames.mean()) == pytest.approx(41.5105, abs=1e-4)


def test_bragg_peaks_are_not_frames(shared_data):
    path = shared_data / "py4dstem_bragg" / "braggdisks_cali.h5"
    with pytest.raises(ScanError, match=r"Bragg peaks, not frames.*diffractory map .*braggdisks_cali\.h5"):
        read_frame_scan(path)


class Counted:
    """An array that counts the elements that are read from it."""

    def __init__(self, array):
        self.array, self.read = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, index):
        part = self.array[index]
        self.read += part.size
        return part


@pytest.mark.parametrize("shape", [(5, 4, 16, 16), (20, 16, 16)])
def test_only_the_last_frame_is_read_at_opening(tmp_path, monkeypatch, shape):
    path = scan_files.write_npy(tmp_path / "scan.npy", FRAMES)
    counted = Counted(FRAMES.reshape(shape))
    monkeypatch.setattr("diffractory.scan.reading.array_files.np.load", lambda *_, **__: counted)
    scan = read_frame_scan(path, scan_shape=(5, 4))
    assert counted.read == 256
    scan.frames[1, 1:3].compute()
    assert counted.read == 3 * 256


# The two others read one chunk of RosettaSciIO's, which here is the whole small scan.
@pytest.mark.parametrize("name", [n for n in FOUR_DIMENSIONAL if n not in ("scan.emd", "scan.nxs")])
def test_opening_does_not_hold_the_scan_in_memory(tmp_path, name):
    frames = scan_files.example((24, 20, 64, 64))
    path = FOUR_DIMENSIONAL[name](tmp_path / name, frames)
    read_frame_scan(path)  # what is imported at the first time
    tracemalloc.start()
    read_frame_scan(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < frames.nbytes / 2


def test_stored_chunks_are_kept_together(tmp_path):
    stored = zarr.create_array(tmp_path / "scan.zarr", shape=SHAPE, dtype="u1", chunks=(2, 3, 8, 8))
    stored[...] = FRAMES
    scan = read_frame_scan(tmp_path / "scan.zarr")
    assert scan.frames.data.chunksize == SHAPE
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)


def test_a_store_whose_folder_was_packed(tmp_path):
    """Somebody zipped the folder scan.zspy: the store lies one level below the top."""
    scan_files.write_zspy(tmp_path / "scan.zspy", FRAMES)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "scan.zspy")
    scan = read_frame_scan(Path(packed))
    np.testing.assert_array_equal(scan.frames.to_numpy(), FRAMES)
    assert (scan.pixel_size, scan.energy_ev) == (PIXEL, ENERGY)
