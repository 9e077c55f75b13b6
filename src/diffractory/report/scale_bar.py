"""Scale bars on images of the sample and of diffraction patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffractory.report.style import INK


def draw_scale_bar(axes: Axes, pixel: float, unit: str, shape: tuple[int, int]) -> None:
    """Draw a bar of a round length, about a quarter of the width, on a white plate.

    Parameters
    ----------
    axes : Axes
        Shows the whole image.
    pixel : float
        Size of a pixel, in ``unit``.
    unit : str
        As it is written beside the number.
    shape : tuple of int
        Rows and columns of the image.
    """
    width = shape[1] * pixel
    magnitude = 10.0 ** np.floor(np.log10(0.3 * width))
    length = max(m * magnitude for m in (1.0, 2.0, 5.0) if m * magnitude <= 0.3 * width)
    share, x, y, margin = length / width, 0.04, 0.05, 0.022
    # In shares of the axes: what is drawn over an image must not widen its limits.
    place: dict[str, Any] = {"transform": axes.transAxes, "zorder": 4}
    plate = (x - margin, y - 0.025), share + 2 * margin, 0.115
    axes.add_patch(Rectangle(*plate, facecolor="white", alpha=0.85, edgecolor="none", **place))
    axes.plot([x, x + share], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt", **place)
    text = f"{length:g} {unit}"
    axes.text(x + share / 2, y + 0.015, text, ha="center", va="bottom", fontsize=8, color=INK, **place)
