"""Real pyxem objects, where pyxem is installed: it needs Zarr 2, so it is no dependency, not even of tests.

How to install it beside this package is told in docs/how-to/other-tools.md.
"""

import warnings

import numpy as np
import pytest

from diffractory.scan.reading.diffraction_vectors import scan_of_vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pyxem_signals = pytest.importorskip(
        "pyxem.signals", reason="pyxem is not installed", exc_type=ImportError
    )

pytestmark = pytest.mark.filterwarnings("ignore")
CENTRE, PIXEL = np.array([16.0, 14.0]), 0.05
SPOTS = {(0, 0): 90.0, (-6, 1): 40.0, (1, 8): 30.0}


@pytest.fixture(scope="module")
def patterns():
    rows, columns = np.mgrid[:32, :32]
    frame = np.zeros((32, 32))
    for spot, height in SPOTS.items():
        y, x = CENTRE + spot
        frame += height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2.0)
    scale = np.array([[1.0, 1.1, 1.2], [1.3, 1.4, 1.5]])
    signal = pyxem_signals.ElectronDiffraction2D(frame * scale[:, :, None, None])
    signal.axes_manager.navigation_axes.set(scale=2.0, units="nm")
    for axis, centre in zip(signal.axes_manager.signal_axes, CENTRE[::-1], strict=True):
        axis.scale, axis.offset, axis.units = PIXEL, -centre * PIXEL, "$A^{-1}$"
    signal.metadata.set_item("Acquisition_instrument.TEM.beam_energy", 300.0)
    return signal, scale


def found(patterns, **options):
    signal, _ = patterns
    return signal.get_diffraction_vectors(
        method="local_max", threshold_rel=0.2, min_distance=3, show_progressbar=False, **options
    )


def check(scan, scale, *, energy=300e3):
    assert (scan.shape, scan.step, scan.energy_ev) == ((2, 3), 20.0, energy)
    for number in range(6):
        q, intensity = scan.peaks.pattern(number)
        for spot, height in SPOTS.items():
            at = np.argmin(np.hypot(*(q - PIXEL * np.array(spot)).T))
            np.testing.assert_allclose(q[at], PIXEL * np.array(spot), atol=1e-9)
            assert intensity[at] == pytest.approx(height * scale.ravel()[number], rel=0.01)
        assert np.hypot(*scan.peaks.q[scan.peaks.direct[number]]) < 1e-9


def test_ragged_vectors(patterns):
    check(scan_of_vectors(found(patterns)), patterns[1])


def test_flattened_vectors(patterns):
    vectors = found(patterns).flatten_diffraction_vectors()
    check(scan_of_vectors(vectors, energy_ev=200e3), patterns[1], energy=200e3)


def test_vectors_without_intensity(patterns):
    scan = scan_of_vectors(found(patterns, get_intensity=False))
    assert scan.peaks.counts.tolist() == [3] * 6
    assert np.all(scan.peaks.intensity == 1.0)


def test_lazy_vectors(patterns):
    check(scan_of_vectors(found(patterns).as_lazy()), patterns[1])


def test_a_plain_list():
    vectors = pyxem_signals.DiffractionVectors2D(
        np.array([[0.0, 0.0], [0.5, -0.25], [-0.5, 0.25]]), column_names=["ky", "kx"], units=["1/nm", "1/nm"]
    )
    scan = scan_of_vectors(vectors)
    assert scan.shape == (1, 1)
    np.testing.assert_allclose(scan.peaks.q[1], [0.05, -0.025])


def test_uncalibrated_and_polar_vectors_are_refused(patterns):
    with pytest.raises(Exception, match="theta"):
        scan_of_vectors(found(patterns).to_polar())
    vectors = found(patterns)
    vectors.units = ["px", "px", "a.u."]
    with pytest.raises(Exception, match="calibration"):
        scan_of_vectors(vectors)
