"""How figures are written: as matplotlib would, in less time."""

from __future__ import annotations

import io

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


def pixels(figure: Figure, **how: object) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", **how)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("how", [{}, {"dpi": 150}, {"dpi": "figure"}, {"dpi": 70}])
def test_a_figure_is_written_as_matplotlib_writes_it(how: dict) -> None:
    stream = io.BytesIO()
    Figure.savefig(panels(), stream, format="png", **how)
    np.testing.assert_array_equal(pixels(panels(), **how), np.asarray(Image.open(stream)))


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
