import numpy as np
import pytest

from diffractory.crystals.crystal import Crystal
from diffractory.errors import ScanError
from diffractory.patterns.lab_protocol import deformation
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.peak_calibration import calibrated, fit_origin, fixed_origin
from diffractory.scan.detection.ring_calibration import (
    EllipseFit,
    fit_ellipse,
    fit_pixel_size,
    refine_on_rings,
)
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from frame_scans import POWDER_A, powder_patterns

SHAPE = (9, 11)
PIXEL = 0.025


def detected(seed=0, drift=8.0, scatter=0.05, ellipticity=0.0, bend=0.0):
    """Return peaks in pixels as detection gives them, and the origin of every position."""
    generator = np.random.default_rng(seed)
    patterns = powder_patterns(99)
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(-0.5, 0.5, 11), indexing="ij")
    origin = np.stack([60.0 + drift * u + bend * v**2, 64.0 - 0.5 * drift * v], axis=-1)
    matrix = deformation(1.0, ellipticity, np.radians(25.0))
    pixels = patterns.q @ matrix.T / PIXEL + np.repeat(origin.reshape(-1, 2), patterns.counts, axis=0)
    pixels += generator.normal(0.0, scatter, pixels.shape)
    none = np.full(len(patterns), -1)
    return PeakTable(pixels, patterns.intensity, patterns.offsets, none), origin, patterns


def spots(ellipticity=0.03):
    peaks, origin, patterns = detected(ellipticity=ellipticity, drift=0.0)
    vectors = peaks.q - np.repeat(origin.reshape(-1, 2), peaks.counts, axis=0)
    keep = np.ones(len(vectors), dtype=bool)
    keep[patterns.direct] = False
    return vectors[keep]


def test_origin_is_the_plane_through_the_direct_beams():
    peaks, origin, patterns = detected()
    fit = fit_origin(peaks, SHAPE, reach=3.0)
    assert np.abs(fit.fitted - origin).max() < 0.03
    assert np.nanmax(np.abs(fit.measured - origin)) < 0.3
    np.testing.assert_array_equal(fit.direct, patterns.direct)
    assert fit.used.sum() > 0.95 * fit.used.size
    assert fit.residual == pytest.approx(0.05 * np.sqrt(2.0), rel=0.2)


def test_wrong_direct_beams_do_no_harm():
    peaks, origin, patterns = detected()
    q, intensity = peaks.q.copy(), peaks.intensity.copy()
    q[patterns.direct[:20]] += 40.0  # elsewhere at a fifth of the positions
    spot = patterns.offsets[:-1] + (patterns.direct == patterns.offsets[:-1])
    intensity[spot[30:50]] = 5.0  # and a brighter diffracted beam at another
    fit = fit_origin(PeakTable(q, intensity, peaks.offsets, peaks.direct), SHAPE, reach=3.0)
    assert np.abs(fit.fitted - origin).max() < 0.05
    assert (fit.direct[:20] == -1).all()
    assert np.isnan(fit.measured.reshape(-1, 2)[:20]).all()
    np.testing.assert_array_equal(fit.direct[30:50], patterns.direct[30:50])


def test_a_brighter_beam_everywhere_needs_a_guess():
    peaks, origin, _ = detected(drift=1.0)
    bright = PeakTable.from_lists(
        [np.vstack([peaks.pattern(i)[0], origin.reshape(-1, 2)[i] + [20.0, 5.0]]) for i in range(99)],
        [np.append(peaks.pattern(i)[1], 9.0) for i in range(99)], [-1] * 99,
    )  # fmt: skip
    assert np.abs(fit_origin(bright, SHAPE, 3.0).fitted - origin).max() > 15.0
    assert np.abs(fit_origin(bright, SHAPE, 3.0, guess=(60.5, 63.0)).fitted - origin).max() < 0.05


def test_models_of_the_origin():
    peaks, origin, _ = detected(bend=12.0)
    assert np.abs(fit_origin(peaks, SHAPE, 3.0, "parabola").fitted - origin).max() < 0.06
    assert np.abs(fit_origin(peaks, SHAPE, 3.0, "plane").fitted - origin).max() > 0.5
    measured = fit_origin(peaks, SHAPE, 3.0, "measured")
    assert np.abs(measured.fitted - origin).max() < 0.3
    still, fixed, _ = detected(drift=0.0)
    constant = fit_origin(still, SHAPE, 3.0, "constant")
    assert np.ptp(constant.fitted, axis=(0, 1)).max() == 0.0
    assert np.abs(constant.fitted - fixed).max() < 0.03


def test_a_given_origin():
    peaks, _, patterns = detected(drift=0.0)
    fit = fixed_origin(peaks, SHAPE, (60.0, 64.0), 2.0)
    assert np.all(fit.fitted == [60.0, 64.0])
    np.testing.assert_array_equal(fit.direct, patterns.direct)
    outside = fixed_origin(peaks, SHAPE, (-500.0, 64.0), 2.0)
    assert (outside.direct == -1).all()
    assert np.isnan(outside.residual)


def test_positions_that_do_not_agree_have_no_direct_beam():
    generator = np.random.default_rng(0)
    table = PeakTable.from_lists(list(generator.uniform(0, 200, (99, 1, 2))), [np.ones(1)] * 99, [-1] * 99)
    with pytest.raises(ScanError, match="--center"):
        fit_origin(table, SHAPE, 3.0)
    empty = PeakTable.from_lists([np.empty((0, 2))] * 99, [np.empty(0)] * 99, [-1] * 99)
    with pytest.raises(ScanError, match="no position has a peak"):
        fit_origin(empty, SHAPE, 3.0)
    with pytest.raises(ScanError, match="99 patterns"):
        fit_origin(table, (3, 3), 3.0)


@pytest.mark.parametrize("model", ["plane", "parabola", "measured", "constant"])
def test_a_scan_of_one_position(model):
    table = PeakTable.from_lists([np.array([[5.0, 6.0], [9.0, 9.0]])], [np.array([2.0, 1.0])], [-1])
    fit = fit_origin(table, (1, 1), 2.0, model)
    np.testing.assert_allclose(fit.fitted[0, 0], [5.0, 6.0])


def test_ellipse_of_a_ring():
    fit = fit_ellipse(spots())
    assert fit.ratio == pytest.approx(1.03, abs=0.004)
    assert fit.angle == pytest.approx(25.0, abs=5.0)
    assert np.linalg.det(fit.matrix) == pytest.approx(1.0)
    radius = 2.0 * np.sqrt(2.0) / POWDER_A / PIXEL
    named = fit_ellipse(spots(), (0.94 * radius, 1.06 * radius))
    assert named.ring == pytest.approx(radius, rel=0.003)
    assert named.ratio == pytest.approx(1.03, abs=0.004)


def test_a_round_ring_has_no_ellipse():
    assert fit_ellipse(spots(ellipticity=0.0)).ratio == pytest.approx(1.0, abs=0.003)


def test_a_single_crystal_has_no_ring():
    few = np.repeat([[20.0, 0.0], [0.0, 20.0], [-20.0, 0.0], [0.0, -20.0]], 50, axis=0)
    with pytest.raises(ScanError, match="--ellipse none"):
        fit_ellipse(few)
    with pytest.raises(ScanError, match="--ellipse none"):
        fit_ellipse(np.empty((0, 2)))
    with pytest.raises(ScanError, match="--ring"):
        fit_ellipse(spots(), (30.0, 20.0))


@pytest.mark.parametrize("guess", [(0.02, 0.03), (0.004, 0.07)])
def test_pixel_size_of_a_known_material(guess):
    rings = ring_radii(cubic_crystal(f"{POWDER_A}:F"), 1.6)
    fit = fit_pixel_size(np.hypot(*spots(ellipticity=0.0).T), rings, guess)
    assert fit.pixel_size == pytest.approx(PIXEL, rel=0.001)
    assert fit.matched > 0.95 > 0.4 > fit.by_chance


def test_another_material_does_not_fit():
    rings = ring_radii(cubic_crystal("3.62:F"), 1.6)
    with pytest.raises(ScanError, match="by chance"):
        fit_pixel_size(np.hypot(*spots(ellipticity=0.0).T), rings, (0.0245, 0.0255))
    with pytest.raises(ScanError, match="at least"):
        fit_pixel_size(np.ones(3), rings, (0.02, 0.03))


def test_one_ring_tells_the_size_too():
    radius = np.random.default_rng(0).normal(20.0, 0.1, 200)
    assert fit_pixel_size(radius, np.array([0.5]), (0.024, 0.026)).pixel_size == pytest.approx(
        0.025, rel=0.001
    )


def test_all_rings_together_sharpen_both():
    rings = ring_radii(cubic_crystal(f"{POWDER_A}:F"), 1.6)
    vectors = spots()
    rough = EllipseFit(np.eye(2), None)
    start = fit_pixel_size(np.hypot(*vectors.T), rings, (0.02, 0.03))
    ellipse, pixel = refine_on_rings(vectors, rings, rough, start)
    assert ellipse.ratio == pytest.approx(1.03, abs=0.001)
    assert ellipse.angle == pytest.approx(25.0, abs=1.0)
    assert pixel.pixel_size == pytest.approx(PIXEL, rel=3e-4)


def test_rings_of_crystals():
    aluminium = ring_radii(cubic_crystal("4.05:F"), 0.9)
    np.testing.assert_allclose(aluminium * 4.05, np.sqrt([3, 4, 8, 11, 12]), rtol=1e-4)
    np.testing.assert_allclose(
        ring_radii(cubic_crystal("5.43:D"), 0.7) * 5.43, np.sqrt([3, 8, 11]), rtol=1e-4
    )
    iron = ring_radii(cubic_crystal("2.87:I"), 0.9)
    np.testing.assert_allclose(iron * 2.87, np.sqrt([2, 4, 6]), rtol=1e-4)
    np.testing.assert_allclose(ring_radii(cubic_crystal("4:P"), 0.4), [0.25, 0.35355], atol=1e-5)


@pytest.mark.parametrize("text", ["", "gold", "4.0:X", "-3:F", "nan"])
def test_lattices_that_cannot_be_read(text):
    with pytest.raises(ScanError, match="--lattice"):
        cubic_crystal(text)


@pytest.mark.parametrize("text", ["4.212", "4.212:", " 4.212 : "])
def test_a_lattice_without_its_centring_is_not_taken_for_a_primitive_one(text):
    with pytest.raises(ScanError, match=r"names no centring.*write 4\.212:F for face-centred"):
        cubic_crystal(text)


def test_rings_that_are_not_there():
    with pytest.raises(ScanError, match="no reflection"):
        ring_radii(cubic_crystal("4.05:F"), 0.1)
    huge = Crystal(np.eye(3) * 300.0, [6], [[0.0, 0.0, 0.0]])
    with pytest.raises(ScanError, match="too many"):
        ring_radii(huge, 2.0)


def test_calibrated_peaks_are_the_true_ones():
    peaks, _, patterns = detected(scatter=0.0, ellipticity=0.05)
    origin = fit_origin(peaks, SHAPE, 3.0)
    table = calibrated(peaks, origin, EllipseFit(deformation(1.0, 0.05, np.radians(25.0))), PIXEL)
    np.testing.assert_allclose(table.q, patterns.q, atol=1e-6)
    np.testing.assert_array_equal(table.direct, patterns.direct)
