"""Figures of patterns: what is drawn is what was given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from diffractory.errors import DiffractoryError
from diffractory.report.pattern_figures import figure_of_disks, figure_of_patterns, figure_of_thickness

THICKNESSES = np.array([50.0, 100.0, 150.0])
GRID = np.linspace(-0.1, 0.1, 5)
TILTS = np.array([(x, y) for x in GRID for y in GRID])


def test_solid_lines_are_dynamical_and_dashed_ones_kinematical() -> None:
    dynamical = {"000": np.array([0.9, 0.5, 0.3]), "200": np.array([0.1, 0.2, 0.3])}
    kinematical = {"200": np.array([0.1, 0.4, 0.9])}
    (axes,) = figure_of_thickness(THICKNESSES, dynamical, kinematical).axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata())]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]
    assert lines[1].get_color() == lines[2].get_color()
    assert lines[2].get_ydata().tolist() == [0.1, 0.4, 0.9]
    assert axes.get_xlabel() == "thickness (Å)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["000", "200", "kinematical"]


@pytest.mark.parametrize(
    ("dynamical", "kinematical"),
    [({}, None), ({"000": np.ones(2)}, None), ({"000": np.ones(3)}, {"200": np.ones(3)})],
)
def test_beams_that_do_not_fit_are_refused(dynamical: dict, kinematical: dict | None) -> None:
    with pytest.raises(DiffractoryError, match="against 3 thicknesses"):
        figure_of_thickness(THICKNESSES, dynamical, kinematical)


def test_a_tilt_is_a_point_of_every_disk() -> None:
    q = np.array([[0.0, 0.0], [0.5, 0.0], [3.0, 0.0]])
    intensity = np.full((len(TILTS), 3), 0.01)
    right, up = (
        np.flatnonzero((TILTS == [0.1, 0.0]).all(axis=1)),
        np.flatnonzero((TILTS == [0.0, 0.1]).all(axis=1)),
    )
    intensity[right, 0], intensity[up, 1] = 0.5, 0.7
    figure = figure_of_disks(q, TILTS, intensity, wavelength=0.02, reach=1.0)
    images = figure.axes[0].get_images()
    assert len(images) == 2  # the third lies beyond the picture
    radius = np.sin(np.radians(0.1)) / 0.02
    pixel = 2.0 * radius / 4.0
    for image, centre, (row, column), value in zip(images, q, [(2, 4), (4, 2)], [0.5, 0.7], strict=False):
        assert np.asarray(image.get_array())[row, column] == value
        assert image.get_extent() == pytest.approx(
            [
                centre[0] - radius - pixel / 2,
                centre[0] + radius + pixel / 2,
                -radius - pixel / 2,
                radius + pixel / 2,
            ],
            rel=1e-4,
        )


def test_tilts_outside_a_circle_stay_empty() -> None:
    inside = np.hypot(*TILTS.T) <= 0.1001
    figure = figure_of_disks(np.zeros((1, 2)), TILTS[inside], np.ones((inside.sum(), 1)), 0.02, 1.0)
    (image,) = figure.axes[0].get_images()
    shown = np.ma.getmaskarray(np.ma.masked_invalid(image.get_array()))
    assert shown[0, 0]
    assert not shown[2, 2]


def test_disks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DiffractoryError, match=r"cannot draw disks of 1 beams and 25 tilts"):
        figure_of_disks(np.zeros((1, 2)), TILTS, np.ones((24, 1)), 0.02, 1.0)


def test_a_figure_shows_itself_in_notebooks() -> None:
    figure = figure_of_patterns([np.array([[0.0, 0.0], [1.0, 0.0]])], [np.array([0.5, 0.1])], ["one"])
    shown = Image.open(io.BytesIO(figure._repr_png_()))
    assert shown.size == (320, 320)
    assert len(np.unique(np.asarray(shown.convert("L")))) > 16
