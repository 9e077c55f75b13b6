import numpy as np
import py4DSTEM
import pytest

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan, write_bragg_emd
from diffractory.scan.reading.emd_reader import read_bragg_scan


def random_scan(shape=(3, 4), seed=0, **options):
    """Patterns of 0 … 7 spots around a direct beam at the origin."""
    generator = np.random.default_rng(seed)
    q, intensity = [], []
    for index in range(shape[0] * shape[1]):
        n = index % 8
        ring = generator.uniform(-1.5, 1.5, (n, 2))
        ring[np.hypot(*ring.T) < 0.2] = 0.5
        q.append(np.concatenate([np.zeros((1, 2)), ring]) if n else np.empty((0, 2)))
        intensity.append(generator.uniform(0.01, 1.0, n + 1 if n else 0))
    return BraggScan(PeakTable.from_detected(q, intensity), shape, **options)


def assert_same_peaks(left, right):
    np.testing.assert_array_equal(left.offsets, right.offsets)
    np.testing.assert_array_equal(left.direct, right.direct)
    np.testing.assert_allclose(left.q, right.q, atol=1e-12)
    np.testing.assert_array_equal(left.intensity, right.intensity)


def test_round_trip_through_own_reader(tmp_path, capfd):
    scan = random_scan(step=25.0, energy_ev=200e3, source="somewhere")
    path = tmp_path / "made" / "scan.emd"
    scan.to_emd(path)
    again = read_bragg_scan(path)
    assert_same_peaks(scan.peaks, again.peaks)
    assert (again.shape, again.step, again.energy_ev) == ((3, 4), 25.0, 200e3)
    assert again.source == str(path)
    assert len(again) == 12
    assert [p.name for p in path.parent.iterdir()] == ["scan.emd"]
    assert capfd.readouterr() == ("", "")


def test_round_trip_keeps_the_unknown_unknown(tmp_path):
    random_scan().to_emd(tmp_path / "scan.h5")
    again = read_bragg_scan(tmp_path / "scan.h5")
    assert again.step is None
    assert again.energy_ev is None


@pytest.mark.parametrize("lengths", [[3] * 6, [0, 0, 0, 4, 4, 4], [1, 1, 1, 2, 2, 2], [1, 0, 2, 0, 0, 5]])
def test_rows_of_equal_and_of_other_lengths_are_kept(tmp_path, lengths):
    generator = np.random.default_rng(1)
    q = [generator.uniform(-1.5, 1.5, (n, 2)) for n in lengths]
    peaks = PeakTable.from_detected(q, [generator.uniform(0.01, 1.0, n) for n in lengths])
    BraggScan(peaks, (2, 3)).to_emd(tmp_path / "scan.h5")
    vectors = py4DSTEM.read(str(tmp_path / "scan.h5"))
    assert [len(vectors.cal[y, x].qx) for y, x in np.ndindex(2, 3)] == lengths
    again = read_bragg_scan(tmp_path / "scan.h5").peaks
    np.testing.assert_array_equal(again.offsets, peaks.offsets)
    np.testing.assert_allclose(again.q, peaks.q, atol=1e-12)


def test_py4dstem_reads_the_same_calibrated_vectors(tmp_path):
    scan = random_scan(step=25.0)
    path = tmp_path / "scan.h5"
    write_bragg_emd(scan, path)
    vectors = py4DSTEM.read(str(path))
    assert vectors.calstate == {"center": True, "ellipse": False, "pixel": True, "rotate": False}
    assert vectors.calibration.get_Q_pixel_units() == "A^-1"
    assert vectors.calibration.get_R_pixel_size() == 25.0
    for index, (y, x) in enumerate(np.ndindex(*scan.shape)):
        q, intensity = scan.peaks.pattern(index)
        found = vectors.cal[y, x]
        np.testing.assert_allclose(np.stack([found.qx, found.qy], axis=1), q, atol=1e-12)
        np.testing.assert_array_equal(found.I, intensity)


def test_writing_again_replaces_the_file(tmp_path):
    path = tmp_path / "scan.h5"
    random_scan(seed=1).to_emd(path)
    scan = random_scan(seed=2)
    scan.to_emd(path)
    assert_same_peaks(scan.peaks, read_bragg_scan(path).peaks)


def test_unwritable_target_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ScanError, match="cannot write"):
        random_scan().to_emd(tmp_path / "file" / "scan.h5")


def table(n, q=0.5, intensity=1.0):
    return PeakTable.from_detected([np.full((1, 2), q)] * n, [np.full(1, intensity)] * n)


@pytest.mark.parametrize(
    ("peaks", "shape", "options", "message"),
    [
        (table(5), (2, 3), {}, "5 patterns for a scan of 2 × 3 positions"),
        (table(0), (0, 3), {}, "at least one position"),
        (table(6), (6,), {}, "two dimensions"),
        (table(6), (2, 3), {"step": 0.0}, "step = 0"),
        (table(6), (2, 3), {"step": np.inf}, "step = inf"),
        (table(6), (2, 3), {"energy_ev": -1.0}, "energy_ev = -1"),
        (table(6, q=np.nan), (2, 3), {}, "not finite"),
        (table(6, intensity=np.inf), (2, 3), {}, "not finite"),
        (table(6, q=64.0), (2, 3), {}, "reach 64.*--pixel-size"),
    ],
)
def test_bad_scans_are_refused(peaks, shape, options, message):
    with pytest.raises(ScanError, match=message):
        BraggScan(peaks, shape, **options)
