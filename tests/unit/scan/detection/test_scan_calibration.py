from dataclasses import replace

import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.detect import BlockPeaks, find_peaks
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from diffractory.scan.detection.scan_calibration import CalibrationRequest, calibrate_scan, check_request
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.frame_checks import GOOD, NO_DIRECT_BEAM
from diffractory.scan.reading.emd_reader import read_bragg_scan
from frame_scans import POWDER_A, frames_of, powder_patterns

SHAPE = (10, 12)
RINGS = ring_radii(cubic_crystal(f"{POWDER_A}:F"), 2.0)


@pytest.fixture(scope="module")
def detected():
    scan, truth = frames_of(powder_patterns(120), SHAPE, drift=5.0, ellipticity=0.03, ellipse_angle=40.0)
    setup = prepare_detection(scan, SetupRequest())
    found = find_peaks(scan, setup.detector)
    return scan, truth, setup, found


def calibrate(detected, scan=None, **request):
    frames, _, setup, found = detected
    return calibrate_scan(
        found, scan or frames, setup.template.radius, CalibrationRequest(**request), {}, setup.brightest
    )


def test_everything_from_a_known_material(detected):
    scan, truth, _, _ = detected
    unknown = FrameScan(scan.frames, None, 20.0, 200e3)
    result = calibrate(detected, unknown, ellipse="fit", rings=RINGS)
    assert result.pixel_size == pytest.approx(0.03, rel=0.002)
    assert result.ellipse.ratio == pytest.approx(1.03, abs=0.004)
    assert result.ellipse.angle == pytest.approx(40.0, abs=5.0)
    assert np.abs(result.origin.fitted - truth.center).max() < 0.05
    summary = result.summary()
    assert summary["ellipse"]["from"] == "fit"
    assert "material" in summary["pixel_size_from"]
    assert result.scan.attrs["calibration"] == summary


def test_with_a_stated_pixel_size_spots_lie_where_they_are(detected):
    _, truth, _, _ = detected
    result = calibrate(detected, ellipse=(1.03, 40.0))
    assert result.pixel_size == 0.03
    errors = []
    for index in range(len(result.scan.peaks)):
        q, _ = result.scan.peaks.pattern(index)
        true, _ = truth.peaks.pattern(index)
        errors.append(np.hypot(*(q[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1))
    assert np.quantile(np.concatenate(errors), 0.9) < 0.4 * 0.03
    direct = result.scan.peaks.direct
    assert (direct >= 0).all()
    assert np.hypot(*result.scan.peaks.q[direct].T).max() < 0.003
    assert (result.status == GOOD).all()


@pytest.mark.parametrize(("stated", "error"), [(0.033, None), (1.0, None), (0.05, "give --pixel-size 0.03")])
def test_a_stated_size_that_a_known_material_contradicts(detected, stated, error):
    """Ten per cent are corrected, a size no detector has is ignored; in between the user is asked."""
    wrong = FrameScan(detected[0].frames, stated, 20.0, 200e3)
    if error is not None:
        words = rf"stated size of a pixel, {stated}.*fit the lattice 4\.05:F.*{error}.*centring too"
        with pytest.raises(ScanError, match=words):
            calibrate(detected, wrong, ellipse=(1.03, 40.0), rings=RINGS, material="lattice 4.05:F")
        return
    result = calibrate(detected, wrong, ellipse=(1.03, 40.0), rings=RINGS)
    assert result.pixel_size == pytest.approx(0.03, rel=0.003)
    assert result.summary()["pixel_size_stated"] == stated
    assert ["changed by -9.1 %" in line for line in result.doubts()] == [True] * (stated == 0.033)


def test_an_origin_that_does_not_fit_is_worth_a_look(detected):
    result = calibrate(detected, ellipse=(1.03, 40.0))
    assert result.doubts() == []
    wander = np.random.default_rng(0).normal(0.0, 1.0, result.origin.measured.shape)
    restless = replace(result.origin, measured=result.origin.measured + wander)
    assert "from the fitted origin" in " ".join(replace(result, origin=restless).doubts())


def test_few_grains_that_fill_no_ring_but_all_rings_together(detected):
    """Each ring has spots on two of four sides, others than the next: only the material tells the ellipse."""
    scan, truth, setup, found = detected
    lists = []
    for index, center in enumerate(truth.center.reshape(-1, 2)):
        q, intensity = found.peaks.pattern(index)
        y, x = (q - center).T
        radius = np.hypot(y, x)
        kept = ((np.arctan2(y, x) + 0.7 * np.rint(radius / 3.0)) % np.pi < 0.45 * np.pi) | (radius < 2.0)
        lists.append((q[kept], intensity[kept]))
    fewer = PeakTable.from_lists([q for q, _ in lists], [i for _, i in lists], [-1] * len(lists))
    some = (scan, truth, setup, BlockPeaks(fewer, found.status))
    with pytest.raises(ScanError, match=r"in \d+ of 18 directions"):
        calibrate(some, ellipse="fit")
    result = calibrate(some, ellipse="fit", rings=RINGS)
    assert result.ellipse.ratio == pytest.approx(1.03, abs=0.006)
    assert result.summary()["ellipse"]["from"] == "fit"
    assert result.pixel_size == pytest.approx(0.03, rel=0.003)


def test_without_an_ellipse_the_projection_is_left_as_it_is(detected):
    result = calibrate(detected)
    np.testing.assert_array_equal(result.ellipse.matrix, np.eye(2))
    assert result.summary()["ellipse"]["from"] == "none"


def test_a_given_centre_is_taken(detected):
    result = calibrate(detected, center=(47.5, 47.5))
    assert np.all(result.origin.fitted == 47.5)
    assert result.summary()["origin"]["model"] == "given"


def test_a_direct_beam_outside_the_frame_is_flagged(detected):
    result = calibrate(detected, center=(-40.0, 47.5))
    assert (result.status == NO_DIRECT_BEAM).all()
    assert (result.scan.peaks.direct == -1).all()
    assert result.summary()["origin"]["residual_pixels"] is None


def test_status_and_provenance_come_back_from_the_file(detected, tmp_path):
    result = calibrate(detected)
    result.scan.to_emd(tmp_path / "scan.h5")
    again = read_bragg_scan(tmp_path / "scan.h5")
    np.testing.assert_array_equal(again.status, result.status)
    assert again.attrs["provenance"]["calibration"] == result.summary()
    assert (again.shape, again.step, again.energy_ev) == (SHAPE, 20.0, 200e3)
    np.testing.assert_allclose(again.peaks.q, result.scan.peaks.q, atol=1e-9)
    np.testing.assert_array_equal(again.peaks.direct, result.scan.peaks.direct)


@pytest.mark.parametrize(
    ("pixel_size", "request_", "words"),
    [
        (None, CalibrationRequest(), "--material"),
        (1.0, CalibrationRequest(), "half a frame 48 Å⁻¹"),
        (0.03, CalibrationRequest(ellipse=(3.0, 0.0)), "--ellipse 3 0"),
        (0.03, CalibrationRequest(ellipse=(1.0, np.nan)), "--ellipse"),
        (0.03, CalibrationRequest(center=(np.inf, 0.0)), "--center"),
    ],
)
def test_what_cannot_come_about_is_refused_first(detected, pixel_size, request_, words):
    scan = FrameScan(detected[0].frames, pixel_size)
    with pytest.raises(ScanError, match=words):
        check_request(scan, request_)


def test_a_status_of_another_scan_is_refused(detected):
    result = calibrate(detected)
    with pytest.raises(ScanError, match="status of shape"):
        BraggScan(result.scan.peaks, SHAPE, status=np.zeros(3, np.int8))


def test_vacuum_tells_no_pixel_size(detected):
    scan, _, setup, _ = detected
    middle = np.full((len(scan.frames.data.reshape(-1, 96, 96)), 1, 2), 47.5)
    beams = PeakTable.from_lists(list(middle), [np.ones(1)] * len(middle), [-1] * len(middle))
    found = BlockPeaks(beams, np.full(len(middle), GOOD, np.int8))
    with pytest.raises(ScanError, match="spots"):
        calibrate((scan, None, setup, found), rings=RINGS)
