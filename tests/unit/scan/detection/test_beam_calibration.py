"""The size of a pixel from the disk of the direct beam, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from xarray import DataArray

from diffractory.scan.detection.beam_calibration import pixel_size_of_beam
from diffractory.scan.frame_scan import FrameScan
from scan_files import example


@pytest.mark.parametrize(
    ("radius", "semiangle", "energy_ev", "size"),
    # Wavelengths of De Graef's table: 0.019687, 0.025079 and 0.037014 Å.
    [(4.0, 1.0, 300e3, 0.012699), (10.0, 2.0, 200e3, 0.0079748), (50.0, 20.0, 100e3, 0.0108061)],
)
def test_known_numbers(radius: float, semiangle: float, energy_ev: float, size: float) -> None:
    assert pixel_size_of_beam(radius, semiangle, energy_ev) == pytest.approx(size, rel=1e-4)


def test_it_undoes_the_radius_that_a_scan_expects() -> None:
    frames = DataArray(example(), dims=("scan_y", "scan_x", "q_row", "q_column"))
    radius = FrameScan(frames, 0.02, None, 300e3, 1.5).disk_radius
    assert radius is not None
    assert pixel_size_of_beam(radius, 1.5, 300e3) == pytest.approx(0.02, rel=1e-12)
