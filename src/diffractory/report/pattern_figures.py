"""Figures of diffraction patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError
from diffractory.report.style import INK, new_figure, tidy, title

#: Spots this much weaker than the strongest are the smallest drawn.
_DYNAMIC_RANGE: Final = 1e-5
_LARGEST_AREA: Final = 90.0
_SPOT, _DIRECT = "#0072B2", "#D55E00"


def figure_of_patterns(
    q: Sequence[NDArray[np.float64]], intensity: Sequence[NDArray[np.float64]], titles: Sequence[str]
) -> Figure:
    """Draw a row of diffraction patterns as spots.

    Parameters
    ----------
    q : sequence of ndarray of shape (n_i, 2)
        Positions in Å⁻¹.
    intensity : sequence of ndarray of shape (n_i,)
        Intensities; the area of a spot grows with their logarithm, over five decades below the
        strongest spot of its pattern.
    titles : sequence of str
        One a pattern.

    Returns
    -------
    Figure
        All patterns on the same scale; the spot nearest the origin, the direct beam, in orange.

    Raises
    ------
    DiffractoryError
        If there is no pattern, or the sequences do not fit each other.
    """
    shapes_fit = all(
        np.shape(positions) == (len(values), 2) for positions, values in zip(q, intensity, strict=False)
    )
    if not len(q) or not len(q) == len(intensity) == len(titles) or not shapes_fit:
        raise DiffractoryError(
            f"cannot draw {len(q)} patterns with {len(intensity)} intensities and {len(titles)} titles",
            "each pattern needs positions (n, 2), as many intensities, and a title",
        )
    figure = new_figure(2.7 * len(q) + 0.5, 3.2)
    reach = 1.08 * max([float(np.abs(positions).max(initial=0.0)) for positions in q] + [0.1])
    row = figure.subplots(1, len(q), squeeze=False, sharex=True, sharey=True)[0]
    for axes, positions, values, text in zip(row, q, intensity, titles, strict=True):
        draw_pattern(axes, positions, values)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_xlabel("$q_x$ (Å⁻¹)")
        tidy(axes)
        axes.grid(visible=False)
        title(axes, text)
    row[0].set_ylabel("$q_y$ (Å⁻¹)")
    return figure


def draw_pattern(axes: Axes, q: NDArray[np.float64], intensity: NDArray[np.float64]) -> None:
    """Draw the spots of one pattern: their area grows with the logarithm of intensity."""
    axes.axhline(0.0, color="#DDDDDD", linewidth=0.6, zorder=0)
    axes.axvline(0.0, color="#DDDDDD", linewidth=0.6, zorder=0)
    visible = intensity > 0.0
    if not visible.any():
        return
    q, intensity = q[visible], intensity[visible]
    decades = np.log10(np.maximum(intensity / intensity.max(), _DYNAMIC_RANGE))
    area = 1.5 + _LARGEST_AREA * (1.0 - decades / np.log10(_DYNAMIC_RANGE)) ** 2.5
    colours = np.where(np.arange(len(q)) == np.hypot(*q.T).argmin(), _DIRECT, _SPOT)
    axes.scatter(q[:, 0], q[:, 1], s=area, c=colours.tolist(), linewidths=0.3, edgecolors=INK)
