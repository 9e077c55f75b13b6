"""The figure of example patterns of a map: recorded frames with the peaks found in them, or peaks alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.frame_image import draw_frame
from diffractory.report.pattern_figures import DIRECT_COLOUR, SPOT_COLOUR, draw_pattern
from diffractory.report.scale_bar import draw_scale_bar
from diffractory.report.style import INK, frame, new_figure, title
from diffractory.scan.frame_places import PlacedFrame
from diffractory.scan.mapping.examples import example_positions
from diffractory.scan.mapping.label_map import label_confidence

#: Inches of a panel, of its title, of the words beside the panels, and below each.
_PANEL, _ABOVE, _LEFT, _BELOW, _AROUND = 2.3, 0.5, 0.45, 0.25, 0.1
#: Circles are wider than the disks they mark by this, and at least so many points across.
_WIDER, _LEAST_CIRCLE = 1.5, 5.0
#: What lies outside of a frame.
_OUTSIDE: Final = "#E8F1F8"


def figure_of_examples(
    peaks: PeakTable,
    dataset: xr.Dataset,
    frames: Mapping[int, PlacedFrame] = MappingProxyType({}),
) -> Figure:
    """Draw example patterns of every crystal system in a map: the surest one and one of middling confidence.

    Parameters
    ----------
    peaks : PeakTable
        Peaks of the scan, in row-major order.
    dataset : xarray.Dataset
        Its map.
    frames : mapping of int to PlacedFrame, optional
        Recorded frames of the positions that :func:`~diffractory.scan.mapping.examples.example_positions`
        chooses; where one is missing, peaks alone are drawn.

    Returns
    -------
    Figure
        A column a crystal system, patterns as the detector shows them: qx (rows) down, qy (columns) to
        the right. Frames in grey, dark where intensity is, with a circle around each peak; without a frame,
        spots as disks whose area grows with the logarithm of intensity. The one nearest the origin, the
        direct beam, is orange.
    """
    chosen = example_positions(dataset)
    if not chosen.size:
        figure = new_figure(5.0, 1.2)
        axes = figure.subplots()
        axes.set_axis_off()
        title(axes, "No position has a label: there is no example to show")
        return figure
    labels = dataset["crystal_system"].to_numpy().ravel()
    confidence = label_confidence(dataset).ravel()
    width, height = _LEFT + _PANEL * chosen.shape[1] + _AROUND, 2.0 * (_PANEL + _ABOVE + _BELOW)
    figure = new_figure(width, height)
    # All panels are alike: places that are known need not be found, which takes as long as drawing them.
    figure.set_layout_engine("none")
    grid = figure.subplots(
        2, chosen.shape[1], squeeze=False, sharex=True, sharey=True,
        gridspec_kw={
            "left": _LEFT / width, "right": 1.0 - _AROUND / width, "wspace": 0.06,
            "bottom": _BELOW / height, "top": 1.0 - _ABOVE / height, "hspace": (_ABOVE + _BELOW) / _PANEL,
        },
    )  # fmt: skip
    reach = max(_reach(peaks, int(index), frames.get(int(index))) for index in chosen.ravel())
    for axes, index in zip(grid.ravel(), chosen.ravel().tolist(), strict=True):
        q, intensity = peaks.pattern(index)
        if (placed := frames.get(index)) is None:
            # As on the detector: qx, its rows, run down, qy, its columns, to the right.
            draw_pattern(axes, q[:, ::-1], intensity)
        else:
            _draw_peaks_on(axes, placed, q, reach)
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal", xticks=[], yticks=[])
        frame(axes)
        y, x = divmod(index, dataset.sizes["scan_x"])
        words = f"{CRYSTAL_SYSTEMS[labels[index]]}, {100 * confidence[index]:.0f} %"
        title(axes, words + "\n")
        axes.annotate(
            f"y {y}, x {x}: {len(q)} spots", (0.0, 1.0), xytext=(0.0, 5.0), xycoords="axes fraction",
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
        draw_scale_bar(axes, 2.0 * reach, "Å⁻¹", (1, 1))
    for axes, words in zip(grid[:, 0], ("surest", "middling"), strict=True):
        axes.set_ylabel(words, fontsize=9, color=INK)
    return figure


def _reach(peaks: PeakTable, index: int, placed: PlacedFrame | None) -> float:
    """Return how far from the middle a panel must show: the whole frame, or all peaks."""
    if placed is not None:
        return max(abs(edge) for edge in placed.extent)
    return 1.05 * float(np.abs(peaks.pattern(index)[0]).max(initial=0.1))


def _draw_peaks_on(axes: Axes, placed: PlacedFrame, q: NDArray[np.float64], reach: float) -> None:
    """Draw a frame around its direct beam, and a circle around each peak."""
    draw_frame(axes, placed.pixels, placed.extent)
    axes.set_facecolor(_OUTSIDE)
    if not len(q):
        return
    radius = 0.0 if placed.disk_radius is None else placed.disk_radius * placed.pixel_size
    points = max(_WIDER * radius * _PANEL * 72.0 / reach, _LEAST_CIRCLE)
    vectors = placed.on_detector(q)
    colours = np.where(np.arange(len(q)) == np.hypot(*q.T).argmin(), DIRECT_COLOUR, SPOT_COLOUR)
    # A white edge, or a circle would not be seen where the frame is dark.
    axes.scatter(
        vectors[:, 1], vectors[:, 0], s=points**2, facecolors="none", edgecolors=colours.tolist(),
        linewidths=0.9, path_effects=[withStroke(linewidth=1.9, foreground="white")],
    )  # fmt: skip
