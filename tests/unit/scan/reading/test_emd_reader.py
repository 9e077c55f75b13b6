import hashlib
from pathlib import Path

import h5py
import numpy as np
import py4DSTEM
import pytest
from emdfile import PointListArray, Root
from py4DSTEM.braggvectors import BraggVectors

from diffractory.errors import ScanError
from diffractory.scan.reading.emd_reader import read_bragg_scan

REAL = Path(__file__).parents[4] / "../shared/data/py4dstem_bragg/braggdisks_cali.h5"
DTYPE = np.dtype([("qx", np.float64), ("qy", np.float64), ("intensity", np.float64)])
SHAPE = (3, 2)


def peaks(q, intensity=1.0):
    result = np.zeros(len(q), DTYPE)
    result["qx"], result["qy"] = np.reshape(q, (-1, 2)).T
    result["intensity"] = intensity
    return result


def write_vectors(path, lists, name="bragg", **calibration):
    """Save BraggVectors as py4DSTEM does, with some of its calibrations."""
    shape = lists.shape
    vectors = BraggVectors(shape, (64, 64), name=name)
    for position in np.ndindex(*shape):
        vectors._v_uncal[position].add(lists[position])
    for key, value in calibration.items():
        getattr(vectors.calibration, f"set_{key}")(value)
    py4DSTEM.save(str(path), vectors)
    return vectors


def detector_lists(shape=SHAPE, seed=0, origin=(32.0, 30.0)):
    generator = np.random.default_rng(seed)
    lists = np.empty(shape, dtype=object)
    for position in np.ndindex(*shape):
        spots = generator.uniform(-20.0, 20.0, (6, 2))
        spots[np.hypot(*spots.T) < 4.0] = 15.0
        lists[position] = peaks(np.concatenate([[[0.2, -0.1]], spots]) + origin)
    return lists


def write_legacy(path, lists, version=13, name="braggpeaks", calibration=None):
    """Write a PointListArray as py4DSTEM 0.12 and 0.13 laid it out."""
    with h5py.File(path, "a") as file:
        root = file.require_group("4DSTEM" if version == 13 else "4DSTEM_experiment")
        root.attrs.update({"emd_group_type": "root" if version == 13 else 2})
        root.attrs.update({"version_major": 0, "version_minor": version})
        place = name if version == 13 else f"data/pointlistarrays/{name}"
        group = root.create_group(place)
        group.attrs.update({"emd_group_type": 3, "py4dstem_class": "PointListArray"})
        data = group.create_dataset("data", lists.shape, h5py.vlen_dtype(DTYPE))
        for position in np.ndindex(*lists.shape):
            data[position] = lists[position]
        if calibration is not None:
            group = root.create_group("calibration")
            group.attrs.update({"emd_group_type": 0, "py4dstem_class": "Calibration"})
            for key, value in calibration.items():
                item = group.create_dataset(key, data=value.encode() if isinstance(value, str) else value)
                kind = "string" if isinstance(value, str) else "number"
                item.attrs["type"] = np.bytes_("array" if isinstance(value, np.ndarray) else kind)


def centred_lists(scale=1.0, shape=SHAPE):
    lists = np.empty(shape, dtype=object)
    for position in np.ndindex(*shape):
        lists[position] = peaks(scale * np.array([[0.01, 0.0], [0.5, 0.3], [-0.5, -0.3], [0.0, 1.2]]))
    return lists


@pytest.mark.skipif(not REAL.is_file(), reason="the real scan lies beside the repository")
def test_real_scan():
    scan = read_bragg_scan(REAL)
    assert scan.shape == (80, 58)
    assert len(scan.peaks.q) == 121_390
    assert scan.step is None
    assert scan.energy_ev is None
    assert scan.attrs["dataset"] == "4DSTEM/braggpeaks_cal_raw"
    assert "taken as Å⁻¹" in scan.attrs["units_from"]
    assert scan.attrs["sha256"] == hashlib.sha256(REAL.read_bytes()).hexdigest()
    assert scan.attrs["dropped_peaks"] == 0
    assert np.all(scan.peaks.direct >= 0)
    assert np.hypot(*scan.peaks.q[scan.peaks.direct].T).max() < 0.03
    # The strongest ring is 440 of the spinel candidate, a = 8.26 Å: the units are Å⁻¹.
    radius = np.hypot(*scan.peaks.q.T)
    rings, edges = np.histogram(
        radius[radius > 0.1], 100, (0.1, 2.1), weights=scan.peaks.intensity[radius > 0.1]
    )
    strongest = edges[rings.argmax()] + 0.01
    assert strongest == pytest.approx(np.sqrt(32) / 8.26, abs=0.02)


@pytest.mark.skipif(not REAL.is_file(), reason="the real scan lies beside the repository")
def test_real_scan_equals_what_py4dstem_reads(capfd):
    scan = read_bragg_scan(REAL)
    assert capfd.readouterr() == ("", "")
    reference = py4DSTEM.read(str(REAL))
    for y, x in [(0, 0), (3, 57), (79, 1), (40, 20)]:
        q, intensity = scan.peaks.pattern(y * 58 + x)
        np.testing.assert_array_equal(q[:, 0], reference[y, x].data["qx"])
        np.testing.assert_array_equal(q[:, 1], reference[y, x].data["qy"])
        np.testing.assert_array_equal(intensity, reference[y, x].data["intensity"])


CALIBRATIONS = {
    "pixel": {"Q_pixel_size": 0.05, "Q_pixel_units": "A^-1", "origin": (32.0, 30.0)},
    "all": {
        "origin": (np.linspace(31, 33, 6).reshape(SHAPE), np.full(SHAPE, 30.0)),
        "ellipse": (1.0, 1.05, 0.3),
        "Q_pixel_size": 0.05,
        "Q_pixel_units": "A^-1",
        "QR_rotation": 0.4,
        "QR_flip": True,
    },
}


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize("suffix", [".h5", ".emd"])
def test_bragg_vectors_are_calibrated_as_py4dstem_does(tmp_path, name, suffix, capfd):
    path = tmp_path / f"scan{suffix}"
    write_vectors(path, detector_lists(), **CALIBRATIONS[name])
    capfd.readouterr()
    scan = read_bragg_scan(path)
    assert capfd.readouterr() == ("", "")
    assert scan.attrs["units_from"] == "file"
    reference = py4DSTEM.read(str(path))
    reference.setcal()
    for index, (y, x) in enumerate(np.ndindex(*SHAPE)):
        q, _ = scan.peaks.pattern(index)
        np.testing.assert_allclose(q[:, 0], reference.cal[y, x].qx, atol=1e-14)
        np.testing.assert_allclose(q[:, 1], reference.cal[y, x].qy, atol=1e-14)


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "scan.dat"
    write_vectors(tmp_path / "scan.h5", detector_lists(), **CALIBRATIONS["pixel"])
    (tmp_path / "scan.h5").rename(path)
    assert read_bragg_scan(path).shape == SHAPE


@pytest.mark.parametrize(
    ("units", "size", "step"),
    [("A", 3.0, 3.0), ("nm", 2.1, 21.0), ("nanometer", 2.1, 21.0), ("pixels", 1, None)],
)
def test_scan_step_is_in_angstrom(tmp_path, units, size, step):
    path = tmp_path / "scan.h5"
    write_vectors(path, detector_lists(), **CALIBRATIONS["pixel"], R_pixel_size=size, R_pixel_units=units)
    assert read_bragg_scan(path).step == (None if step is None else pytest.approx(step))


@pytest.mark.parametrize("version", [12, 13])
def test_legacy_point_list_array(tmp_path, version):
    path = tmp_path / "old.h5"
    write_legacy(path, centred_lists(), version)
    scan = read_bragg_scan(path)
    assert scan.shape == SHAPE
    np.testing.assert_allclose(scan.peaks.pattern(5)[0][1], [0.5, 0.3])


def test_legacy_calibration_is_used(tmp_path):
    path = tmp_path / "old.h5"
    calibration = {"Q_pixel_size": 0.02, "Q_pixel_units": "A^-1", "R_pixel_size": 5.0, "R_pixel_units": "nm"}
    write_legacy(path, centred_lists(50.0), calibration=calibration)
    scan = read_bragg_scan(path)
    np.testing.assert_allclose(scan.peaks.pattern(0)[0][1], [0.5, 0.3])
    assert scan.step == 50.0
    assert scan.attrs["units_from"].startswith("file")


def test_uncalibrated_scan_names_the_option(tmp_path):
    path = tmp_path / "raw.h5"
    write_vectors(path, detector_lists())
    with pytest.raises(ScanError, match=r"no calibration in Å⁻¹.*pixels.*--pixel-size"):
        read_bragg_scan(path)


def test_pixel_size_and_center_complete_the_calibration(tmp_path):
    path = tmp_path / "raw.h5"
    lists = detector_lists()
    write_vectors(path, lists)
    scan = read_bragg_scan(path, pixel_size=0.05, center=(32.0, 30.0))
    np.testing.assert_allclose(scan.peaks.q[:, 0], (np.concatenate(lists.ravel())["qx"] - 32.0) * 0.05)
    with pytest.raises(ScanError, match=r"does not say where the direct beam is.*--center"):
        read_bragg_scan(path, pixel_size=0.05)


def test_pixel_size_alone_is_enough_where_positions_are_centred(tmp_path):
    path = tmp_path / "old.h5"
    write_legacy(path, centred_lists(50.0))
    with pytest.raises(ScanError, match="--pixel-size"):
        read_bragg_scan(path)
    scan = read_bragg_scan(path, pixel_size=0.02)
    np.testing.assert_allclose(scan.peaks.pattern(0)[0][1], [0.5, 0.3])


def test_milliradians_are_refused(tmp_path):
    path = tmp_path / "scan.h5"
    write_vectors(path, detector_lists(), Q_pixel_units="mrad", Q_pixel_size=0.4, origin=(32.0, 30.0))
    with pytest.raises(ScanError, match="in mrad"):
        read_bragg_scan(path)


def test_calibrated_file_without_an_origin(tmp_path):
    path = tmp_path / "scan.h5"
    write_vectors(path, detector_lists(), Q_pixel_units="A^-1", Q_pixel_size=0.05)
    with pytest.raises(ScanError, match="--center"):
        read_bragg_scan(path)


def test_senseless_calibrations(tmp_path):
    path = tmp_path / "zero.h5"
    write_vectors(path, detector_lists(), **{**CALIBRATIONS["pixel"], "Q_pixel_size": 0.0})
    with pytest.raises(ScanError, match="detector pixel of 0"):
        read_bragg_scan(path)
    path = tmp_path / "misfit.h5"
    origin = (np.full((2, 2), 32.0), np.full((2, 2), 30.0))
    write_vectors(path, detector_lists(), **{**CALIBRATIONS["pixel"], "origin": origin})
    with pytest.raises(ScanError, match="does not fit its 3 × 2 positions"):
        read_bragg_scan(path)
    write_vectors(tmp_path / "far.h5", detector_lists(), **{**CALIBRATIONS["pixel"], "Q_pixel_size": 2.0})
    with pytest.raises(ScanError, match="calibration is wrong"):
        read_bragg_scan(tmp_path / "far.h5")


def test_unusable_peaks_are_left_out_and_counted(tmp_path):
    lists = centred_lists()
    lists[1, 1] = peaks([[0.0, 0.0], [np.nan, 0.1], [0.4, 0.4], [0.3, 0.3]], [5.0, 1.0, np.inf, -1.0])
    write_legacy(tmp_path / "old.h5", lists)
    scan = read_bragg_scan(tmp_path / "old.h5")
    assert scan.attrs["dropped_peaks"] == 3
    assert scan.peaks.counts.tolist() == [4, 4, 4, 1, 4, 4]


def test_direct_beam_is_the_nearest_spot_unless_it_is_missing(tmp_path):
    lists = centred_lists()
    lists[0, 1] = peaks([[0.5, 0.3], [0.0, 0.02], [0.03, 0.0]])
    lists[2, 0] = peaks([[0.5, 0.3], [0.3, 0.2]])
    lists[2, 1] = peaks([])
    write_legacy(tmp_path / "old.h5", lists)
    table = read_bragg_scan(tmp_path / "old.h5").peaks
    assert (table.direct - table.offsets[:-1])[:4].tolist() == [0, 1, 0, 0]
    assert table.direct[4:].tolist() == [-1, -1]


def test_several_data_sets_must_be_chosen_from(tmp_path):
    path = tmp_path / "two.h5"
    write_legacy(path, centred_lists(), name="first")
    write_legacy(path, centred_lists(0.5), name="second")
    with pytest.raises(ScanError, match=r"2 sets of Bragg peaks: '4DSTEM/first', '4DSTEM/second'.*--dataset"):
        read_bragg_scan(path)
    np.testing.assert_allclose(read_bragg_scan(path, dataset="second").peaks.q[1], [0.25, 0.15])
    assert read_bragg_scan(path, dataset="4DSTEM/first").attrs["dataset"] == "4DSTEM/first"
    with pytest.raises(ScanError, match=r"no single set of Bragg peaks 'third'.*'4DSTEM/first'"):
        read_bragg_scan(path, dataset="third")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_size": 0.0}, "--pixel-size 0"),
        ({"pixel_size": np.nan}, "--pixel-size nan"),
        ({"center": (np.inf, 0.0)}, "--center"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ScanError, match=message):
        read_bragg_scan(tmp_path / "absent.h5", **options)


def test_absent_folder_and_foreign_files(tmp_path):
    with pytest.raises(ScanError, match="does not exist"):
        read_bragg_scan(tmp_path / "absent.h5")
    with pytest.raises(ScanError, match="is a folder"):
        read_bragg_scan(tmp_path)
    for name, content in (("text.h5", b"a b c\n"), ("empty.h5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScanError, match="not an HDF5 file"):
            read_bragg_scan(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_file(tmp_path, share):
    whole = tmp_path / "whole.h5"
    write_legacy(whole, centred_lists())
    cut = tmp_path / "cut.h5"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ScanError, match="damaged"):
        read_bragg_scan(cut)


def test_overwritten_inside(tmp_path):
    path = tmp_path / "scan.h5"
    write_vectors(path, detector_lists(), **CALIBRATIONS["pixel"])
    with h5py.File(path, "r+") as file:
        del file["bragg_root/metadatabundle/calibration/Q_pixel_units"].attrs["type"]
    with pytest.raises(ScanError, match="damaged"):
        read_bragg_scan(path)


def test_hdf5_without_bragg_peaks(tmp_path):
    path = tmp_path / "cube.h5"
    other = PointListArray(dtype=[("x", float), ("y", float)], shape=SHAPE, name="other")
    root = Root("root")
    root.tree(other)
    py4DSTEM.save(str(path), root)
    with h5py.File(path, "r+") as file:
        file["cube/data"] = np.zeros((4, 5))
    with pytest.raises(ScanError, match=r"holds no Bragg peaks.*py4DSTEM\.save"):
        read_bragg_scan(path)


def test_empty_scans(tmp_path):
    write_legacy(tmp_path / "none.h5", np.empty((0, 4), dtype=object))
    with pytest.raises(ScanError, match="0 × 4 positions"):
        read_bragg_scan(tmp_path / "none.h5")
    lists = np.empty(SHAPE, dtype=object)
    for position in np.ndindex(*SHAPE):
        lists[position] = peaks([])
    write_legacy(tmp_path / "blank.h5", lists)
    with pytest.raises(ScanError, match="all 6 positions"):
        read_bragg_scan(tmp_path / "blank.h5")
