"""How figures are written: as matplotlib would once they are settled, in less time."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffractory.report.style import new_figure, patch, title


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
