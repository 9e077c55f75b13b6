"""Scale bars on images of the sample and of diffraction patterns."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from diffractory.report.style import INK, figure_of

#: Points between an image and the middle of the bar below it.
_BELOW: Final = 8.0


def draw_scale_bar(axes: Axes, pixel: float, unit: str, shape: tuple[int, int]) -> None:
    """Draw a bar of a round length, about a quarter of the width, below an image, where it hides nothing.

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
    share = length / width
    # So many points below the axes, and in shares of their width: neither may widen the limits of the image.
    below = axes.transAxes + ScaledTranslation(0.0, -_BELOW / 72.0, figure_of(axes).dpi_scale_trans)
    axes.plot(
        [0.0, share], [0.0, 0.0], color=INK, linewidth=2.5, solid_capstyle="butt", clip_on=False,
        transform=below, scalex=False, scaley=False,
    )  # fmt: skip
    axes.annotate(
        f"{length:g} {unit}", (share, 0.0), xycoords=below, xytext=(4.0, 0.0), textcoords="offset points",
        ha="left", va="center", fontsize=8, color=INK, annotation_clip=False,
    )  # fmt: skip
