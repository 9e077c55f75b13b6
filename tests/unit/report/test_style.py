"""How figures are written: as matplotlib would once they are settled, in less time."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffractory.report.scale_bar import draw_scale_bar
from diffractory.report.style import new_figure, patch, settle_layout, title


def panels() -> Figure:
    figure = new_figure(5, 3)
    for number, axes in enumerate(figure.subplots(1, 2)):
        image = axes.imshow(np.arange(6.0).reshape(2, 3) * 10.0**number)
        figure.colorbar(image, ax=axes, label="a label")
        title(axes, f"panel {number}")
    figure.legend(handles=[patch("#0072B2", "one")], loc="outside lower center")
    return figure


def squares_above_a_legend() -> Figure:
    figure = new_figure(9.4, 5.1)
    for axes in figure.subplots(1, 2):
        axes.imshow(np.eye(256))
        axes.set_xticks([])
        axes.set_yticks([])
        title(axes, "its letters reach to the edge")
    figure.legend(handles=[patch("#0072B2", "one")], loc="outside lower center")
    return figure


def pixels(figure: Figure, **how: object) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", **how)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("how", [{}, {"dpi": 150}, {"dpi": "figure"}, {"dpi": 70}])
@pytest.mark.parametrize("made", [panels, squares_above_a_legend])
def test_a_figure_is_written_as_matplotlib_writes_it_the_second_time(
    made: Callable[[], Figure], how: dict
) -> None:
    figure = made()
    for stream in (io.BytesIO(), io.BytesIO()):
        # The first time it cuts titles off: images that keep their shape move when a legend takes room.
        Figure.savefig(figure, stream, format="png", **how)
    np.testing.assert_array_equal(pixels(made(), **how), np.asarray(Image.open(stream)))


def test_a_figure_that_was_written_still_lays_itself_out() -> None:
    figure = panels()
    before, dpi = figure.get_layout_engine(), figure.dpi
    pixels(figure, dpi=150)
    assert (figure.get_layout_engine(), figure.dpi) == (before, dpi)
    with pytest.raises(ValueError, match="Format 'nothing' is not supported"):
        figure.savefig(io.BytesIO(), format="nothing", dpi=150)
    assert (figure.get_layout_engine(), figure.dpi) == (before, dpi)


def test_an_empty_figure_can_be_written() -> None:
    assert pixels(new_figure(2, 1), dpi=50).shape == (50, 100, 4)


@pytest.mark.parametrize("shape", [(3, 2), (5, 4), (1, 1)])
@pytest.mark.parametrize("height", [7.2, 6.0, 5.1])
def test_titles_over_images_are_not_cut_off(shape: tuple[int, int], height: float) -> None:
    figure = new_figure(9.4, height)
    for axes in figure.subplots(1, 2):
        axes.imshow(np.zeros(shape))
        axes.set(xticks=[], yticks=[])
        title(axes, "Dark field")
    settle_layout(figure)
    figure.draw_without_rendering()
    assert max(axes.get_tightbbox().y1 for axes in figure.axes) < figure.bbox.height


def test_a_scale_bar_hides_nothing() -> None:
    figure = new_figure(4.0, 4.0)
    axes = figure.subplots()
    axes.imshow(np.zeros((20, 30)))
    draw_scale_bar(axes, 2.0, "nm", (20, 30))
    settle_layout(figure)
    figure.draw_without_rendering()
    (bar,), (text,) = axes.lines, axes.texts
    assert text.get_text() == "10 nm"
    (left, y), (right, _) = bar.get_transform().transform(bar.get_xydata())
    image = axes.get_window_extent()
    assert right - left == pytest.approx(image.width * 10.0 / 60.0)
    for box in (text.get_window_extent(), bar.get_window_extent()):
        assert box.y1 < image.y0
        assert box.y0 > 0.0
    assert axes.get_xlim() == (-0.5, 29.5)
    assert axes.get_ylim() == (19.5, -0.5)
    assert y < image.y0
