import math

import numpy as np
import pytest
import xarray as xr

from diffractory.errors import ScanError
from diffractory.scan.frame_scan import FRAME_DIMENSIONS, FrameScan
from diffractory.scan.reading.frame_calibration import (
    Calibrated,
    chosen,
    energy_of,
    pixel_size_of,
    semiangle_of,
    step_of,
)
from diffractory.scan.reading.raw_frames import Axis
from diffractory.scan.reading.unit_texts import angle_unit, detector_unit, length_unit, reciprocal_unit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("A^-1", 1.0), ("1/Å", 1.0), ("$A^{-1}$", 1.0), ("1 / Å", 1.0), ("angstrom-1", 1.0), ("Å⁻¹", 1.0)),
        *(
            ("1/nm", 0.1),
            ("nm^-1", 0.1),
            ("$nm^{-1}$", 0.1),
            ("nm-1", 0.1),
            ("k_nm^-1", 0.1),
            ("1/(nm)", 0.1),
        ),
        *(("q_nm^-1", 0.1 / (2 * math.pi)), ("q_A^-1", 1.0 / (2 * math.pi)), ("1/m", 1e-10), ("1/µm", 1e-4)),
        # As people and pyxem's examples write them, with TeX's fonts, signs and slips.
        *(
            (text, 1.0)
            for text in (r"$\AA^{-1}$", r"$\mathrm{\AA}^{-1}$", "/AA^{-1}", r"$\mathring{A}^{-1}$", "Ang^-1")
        ),
        *(
            (text, 0.1)
            for text in ("nm$^{-1}$", r"$\mathrm{nm}^{-1}$", r"$\rm{nm}^{-1}$", "nm\u22121", "nm⁻¹")
        ),
        *((bad, None) for bad in ("/nm", "", "nm", "px", "1/s", "eV", "mrad", "1/", "pixels", "1", "cm")),
    ],
)
def test_units_of_reciprocal_length(text, size):
    assert reciprocal_unit(text) == (None if size is None else pytest.approx(size))


def test_other_units():
    assert [length_unit(t) for t in ("A", "Å", "\u212b", "nm", "pm", "um", "µm", "μm", "m")] == [
        *(1.0, 1.0, 1.0, 10.0, 0.01, 1e4, 1e4, 1e4, 1e10)
    ]
    assert [length_unit(t) for t in (r"$\mu m$", r"\mu m", r"$\upmu$m", "micron")] == [1e4] * 4
    assert [length_unit(t) for t in ("", "px", "1/nm", "cm", "s")] == [None] * 5
    assert [angle_unit(t) for t in ("mrad", "rad", "nm")] == [1e-3, 1.0, None]
    assert angle_unit("deg") == pytest.approx(np.deg2rad(1.0))
    assert [detector_unit(t) for t in ("mm", "cm", "nm")] == [1.0, 10.0, None]


def pair(scale, units):
    return (Axis(scale, units), Axis(scale, units))


@pytest.mark.parametrize(
    ("axes", "energy", "length", "size"),
    [
        (pair(0.02, "1/Å"), None, None, 0.02),
        (pair(-0.2, "1/nm"), None, None, 0.02),
        # One milliradian at 300 keV (wavelength 0.0196875 Å).
        (pair(1.0, "mrad"), 300e3, None, 1e-3 / 0.0196875),
        (pair(1e-3, "rad"), 300e3, None, 1e-3 / 0.0196875),
        (pair(0.01, "cm"), 300e3, 200.0, 0.5e-3 / 0.0196875),
        (pair(0.1, "mm"), 300e3, 200.0, 0.5e-3 / 0.0196875),
        (pair(0.1, "mm"), 300e3, None, None),
        (pair(1.0, "nm"), 300e3, 200.0, None),
        (pair(1.0, "px"), 300e3, None, None),
        (pair(None, "1/Å"), None, None, None),
        (pair(0.0, "1/Å"), None, None, None),
        ((), None, None, None),
    ],
)
def test_pixel_size(axes, energy, length, size):
    found = pixel_size_of(axes, energy, length)
    assert found.value == (None if size is None else pytest.approx(size, rel=1e-5))
    assert found.origin.startswith("unknown" if size is None else "file")


def test_what_a_file_states_in_an_unknown_unit_is_told():
    assert (
        pixel_size_of(pair(0.0165, "Å-ish"), None, None).origin == "unknown: the file states 0.0165 'Å-ish'"
    )
    assert step_of(pair(5.0, "parsec")).origin == "unknown: the file states 5 'parsec'"
    # A number without a unit, as HyperSpy writes it where nobody calibrated, says nothing.
    assert pixel_size_of(pair(1.0, " "), None, None).origin == "unknown"
    # The other axis may tell.
    assert step_of((Axis(5.0, "parsec"), Axis(5.0, "nm"))).value == 50.0


def test_angles_without_an_energy_say_what_is_missing():
    found = pixel_size_of(pair(0.8, "mrad"), None, None)
    assert found == Calibrated(None, "unknown without --energy: file (0.8 mrad)")


def test_step():
    assert step_of(pair(2.0, "nm")).value == pytest.approx(20.0)
    assert step_of(pair(2.0, "")) == Calibrated()
    assert step_of(()) == Calibrated()


def test_two_different_numbers_are_none():
    found = step_of((Axis(2.0, "nm"), Axis(3.0, "nm")))
    assert found.value is None
    assert found.origin == "unknown: the file states two, 20 and 30 Å"
    assert step_of((Axis(2.0, "nm"), Axis(2.001, "nm"))).value == pytest.approx(20.0)


def test_energies_in_kev_and_ev():
    assert [energy_of(value).value for value in (200.0, 200e3, 30.0, None, 0.0, -1.0, math.nan)] == [
        *(200e3, 200e3, 30e3, None, None, None, None)
    ]
    assert [semiangle_of(value).value for value in (1.5, None, 0.0)] == [1.5, None, None]


def test_options_go_first_and_are_checked():
    assert chosen("step", 3.0, Calibrated(5.0, "file")) == Calibrated(3.0, "option --step")
    assert chosen("step", None, Calibrated(5.0, "file")) == Calibrated(5.0, "file")
    with pytest.raises(ScanError, match=r"--semiangle -1\. it must be finite and above 0\. Give it in mrad"):
        chosen("semiangle_mrad", -1.0, Calibrated())
    with pytest.raises(ScanError, match=r"--energy -200\. it must be finite and above 0\. Give it in keV"):
        chosen("energy_ev", -200e3, Calibrated())


@pytest.mark.parametrize(
    ("shape", "dims", "options", "says"),
    [
        ((1, 1, 2, 2), FRAME_DIMENSIONS[::-1], {}, "has dimensions"),
        ((1, 0, 2, 2), FRAME_DIMENSIONS, {}, "none of them empty"),
        ((1, 1, 2, 2), FRAME_DIMENSIONS, {"step": 0.0}, "step = 0.0 Å"),
    ],
)
def test_frames_that_are_no_scan(shape, dims, options, says):
    with pytest.raises(ScanError, match=says):
        FrameScan(xr.DataArray(np.zeros(shape), dims=dims), **options)


@pytest.mark.parametrize(
    ("shape", "swapped"),
    [
        ((144, 144, 12, 12), True),
        ((12, 12, 144, 144), False),
        ((20, 30, 12, 12), False),
        ((64, 64, 32, 32), False),
    ],
)
def test_small_frames_at_many_positions_may_be_the_scan(shape, swapped):
    scan = FrameScan(xr.DataArray(np.zeros(shape, np.uint8), dims=FRAME_DIMENSIONS))
    assert scan.looks_swapped is swapped
    assert ["the other way round" in line for line in scan.doubts()] == [True] * swapped
