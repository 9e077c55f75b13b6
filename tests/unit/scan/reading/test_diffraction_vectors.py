from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.scan.reading.diffraction_vectors import scan_of_vectors
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.units import electron_wavelength

# What pyxem 0.21 shows of a signal: tests/agreement/test_pyxem.py holds these against pyxem itself.
NAMES, UNITS = ["ky", "kx", "intensity"], ["$A^{-1}$", "$A^{-1}$", "a.u."]
SHAPE = (2, 3)


def signal(data, names=NAMES, units=UNITS, scan=(2.0, "nm"), energy=300.0):
    axis = SimpleNamespace(name="x", scale=scan[0], units=scan[1])
    metadata = SimpleNamespace(
        get_item=lambda path, default: energy if path.endswith("TEM.beam_energy") and energy else default
    )
    return SimpleNamespace(
        data=data, column_names=list(names), units=list(units), metadata=metadata,
        axes_manager=SimpleNamespace(navigation_axes=(axis, axis)),
    )  # fmt: skip


def pattern(number, n_spots=3):
    """Return a direct beam and spots of a pattern, no two patterns alike."""
    spots = [[-0.3 - 0.01 * number, 0.1 * spot, 10.0 * number + spot] for spot in range(1, n_spots)]
    return np.array([[0.001, -0.002, 500.0], *spots, [0.3, -0.2, 5.0]])


def ragged(columns=3, **changes):
    data = np.empty(SHAPE, dtype=object)
    for number, place in enumerate(np.ndindex(*SHAPE)):
        data[place] = pattern(number, 2 + number)[:, :columns]
    return signal(data, NAMES[:columns], UNITS[:columns], **changes)


def test_ragged_vectors_become_the_peaks_of_a_scan():
    scan = scan_of_vectors(ragged())
    assert (scan.shape, scan.step, scan.energy_ev) == (SHAPE, 20.0, 300e3)
    assert scan.peaks.counts.tolist() == [3, 4, 5, 6, 7, 8]
    for number in range(6):
        q, intensity = scan.peaks.pattern(number)
        np.testing.assert_array_equal(np.column_stack([q, intensity]), pattern(number, 2 + number))
        assert scan.peaks.direct[number] == scan.peaks.offsets[number]


def test_lazy_vectors_are_computed():
    eager, lazy = ragged(), ragged()
    lazy.data = da.from_array(eager.data, chunks=1)
    np.testing.assert_array_equal(scan_of_vectors(lazy).peaks.q, scan_of_vectors(eager).peaks.q)


def test_without_intensities_spots_count_alike():
    scan = scan_of_vectors(ragged(columns=2))
    assert np.all(scan.peaks.intensity == 1.0)
    assert scan.attrs["with_intensity"] is False


@pytest.mark.parametrize(
    ("unit", "size"),
    [("1/nm", 0.1), ("k_nm^-1", 0.1), ("q_A^-1", 0.5 / np.pi), ("mrad", 1e-3 / electron_wavelength(300e3))],
)
def test_units_are_converted(unit, size):
    found = scan_of_vectors(ragged_in(unit)).peaks.q
    np.testing.assert_allclose(found, size * scan_of_vectors(ragged()).peaks.q, rtol=1e-12)


def ragged_in(unit, **changes):
    vectors = ragged(**changes)
    vectors.units[:2] = [unit, unit]
    return vectors


def test_names_tell_rows_from_columns():
    swapped = ragged()
    swapped.column_names[:2] = ["kx", "ky"]
    np.testing.assert_array_equal(
        scan_of_vectors(swapped).peaks.q, scan_of_vectors(ragged()).peaks.q[:, ::-1]
    )


def flattened(unit="nm", names=("x", "y")):
    """Return the list that flatten_diffraction_vectors() makes of ragged()."""
    step = 2.0 if unit == "nm" else 1.0
    rows = [
        np.column_stack([np.full(len(part), step * x), np.full(len(part), step * y), part])
        for (y, x), part in np.ndenumerate(ragged().data)
    ]
    # In any order: positions are told by the coordinates alone.
    data = np.concatenate(rows[::-1])
    return signal(data, [*names, *NAMES], [unit, unit, *UNITS], energy=None)


def test_a_list_with_scan_coordinates_is_the_scan_again():
    direct, listed = scan_of_vectors(ragged()), scan_of_vectors(flattened(), energy_ev=200e3)
    assert (listed.shape, listed.step, listed.energy_ev) == (SHAPE, 20.0, 200e3)
    np.testing.assert_array_equal(listed.peaks.q, direct.peaks.q)
    np.testing.assert_array_equal(listed.peaks.offsets, direct.peaks.offsets)
    in_pixels = scan_of_vectors(flattened("pixels", names=("<undefined>", "<undefined>")))
    assert (in_pixels.shape, in_pixels.step, in_pixels.energy_ev) == (SHAPE, None, None)
    np.testing.assert_array_equal(in_pixels.peaks.intensity, direct.peaks.intensity)
    other_order = scan_of_vectors(flattened(names=("y", "x")))
    assert other_order.shape == SHAPE[::-1]


def test_a_list_without_them_is_one_pattern_and_a_line_one_row():
    assert scan_of_vectors(signal(pattern(4))).shape == (1, 1)
    line = ragged()
    line.data = line.data[0]
    assert scan_of_vectors(line).shape == (1, 3)
    equal = signal(np.stack([pattern(n) for n in range(6)]).reshape(*SHAPE, 4, 3))
    scan = scan_of_vectors(equal)
    assert (scan.shape, scan.peaks.counts.tolist()) == (SHAPE, [4] * 6)
    np.testing.assert_array_equal(scan.peaks.pattern(5)[0], pattern(5)[:, :2])


def test_positions_without_vectors_and_unusable_vectors():
    vectors = ragged()
    vectors.data[0, 1] = np.empty((0, 3))
    vectors.data[1, 0] = np.array([])
    vectors.data[0, 0] = np.array(
        [[0.2, 0.2, np.nan], [-0.1, np.inf, 1.0], [0.1, 0.1, 0.0], [0.5, -0.5, 2.0]]
    )
    scan = scan_of_vectors(vectors)
    assert scan.peaks.counts.tolist() == [1, 0, 5, 0, 7, 8]
    assert scan.attrs["dropped_peaks"] == 3
    assert scan.peaks.direct[0] == -1  # half an Å⁻¹ off is no direct beam


def test_peaks_go_to_a_file_that_map_reads(tmp_path):
    scan = scan_of_vectors(ragged())
    scan.to_emd(tmp_path / "scan.h5")
    back = read_bragg_scan(tmp_path / "scan.h5")
    np.testing.assert_allclose(back.peaks.q, scan.peaks.q, atol=1e-12)
    assert (back.shape, back.step, back.energy_ev) == (SHAPE, 20.0, 300e3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: np.zeros((2, 2)), "no pyxem DiffractionVectors.*column_names"),
        (lambda: ragged_in("px"), r"two of them must be.*calibration"),
        (lambda: ragged_in("<undefined>"), r"two of them must be.*calibration"),
        (lambda: ragged_in("mrad", energy=None), r"need the beam energy.*energy_ev"),
        (lambda: signal(pattern(0), units=["$A^{-1}$", "1/nm", "a.u."]), "components in"),
        (lambda: signal(pattern(0), ["r", "theta", "intensity"], ["1/Å", "rad", "a.u."]), "theta"),
        (lambda: signal(pattern(0)[:, :2]), r"shape \(4, 2\) with 3 named columns"),
        (lambda: texts(), "does not consist of numbers"),
        (lambda: signal(np.zeros((2, 2, 2, 4, 3))), "3 scan axes"),
        (lambda: signal(pattern(0) * [1, 1, 0]), "no usable peak"),
        (lambda: signal(np.abs(pattern(0))), "one quadrant"),
        (lambda: signal(pattern(0) * 100.0), "calibration is wrong"),
        (lambda: off_grid(), "no even grid"),
        (lambda: signal(np.zeros((1, 6)), [*"abc", *NAMES], ["nm"] * 3 + UNITS), "may be two coordinates"),
    ],
)  # fmt: skip
def test_what_is_refused(change, message):
    with pytest.raises(ScanError, match=f"(?s){message}"):
        scan_of_vectors(change())


def texts():
    vectors = ragged()
    vectors.data[0, 0] = [["a", "b", "c"]]
    return vectors


def off_grid():
    vectors = flattened()
    vectors.data[3, 0] += 0.7
    return vectors
