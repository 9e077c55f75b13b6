"""What figures of maps share: axes for a map, its scale bar, colours of crystal systems."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.report.style import INK, SYSTEM_COLOURS, UNLABELLED_COLOUR, new_figure


def map_beside(dataset: xr.Dataset, other_width: float) -> tuple[Axes, Axes]:
    """Return axes for a map and, to its right, for something ``other_width`` inches wide."""
    height = 4.0
    width = height * float(np.clip(dataset.sizes["scan_x"] / dataset.sizes["scan_y"], 0.5, 1.6))
    figure = new_figure(width + other_width + 1.6, height + 0.6)
    left, right = figure.subplots(1, 2, width_ratios=[width + 0.6, other_width])
    return left, right


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes belong to."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def patch(colour: str, label: str) -> Patch:
    """Return a rectangle for a legend."""
    return Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=label)


def system_image(
    codes: NDArray[Any], weight: NDArray[np.float64], absent: str = UNLABELLED_COLOUR
) -> NDArray[np.float64]:
    """Return colours of shape (n_y, n_x, 3): each system's own, mixed with white by the weight."""
    palette = np.array([to_rgb(SYSTEM_COLOURS[name]) for name in CRYSTAL_SYSTEMS])
    mixed = 1.0 - weight[..., None] * (1.0 - palette[np.maximum(codes, 0)])
    image: NDArray[np.float64] = np.where((codes < 0)[..., None], to_rgb(absent), mixed)
    return image


def draw_map(axes: Axes, image: NDArray[Any], dataset: xr.Dataset, **options: Any) -> None:
    """Draw an image (n_y, n_x) or (n_y, n_x, 3) of a scan, with a scale bar where the step is known."""
    axes.imshow(image, origin="upper", interpolation="nearest", **options)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    axes.tick_params(colors=INK, labelsize=8)
    if dataset["scan_x"].attrs.get("units") == "angstrom" and dataset.sizes["scan_x"] > 1:
        axes.set_xticks([])
        axes.set_yticks([])
        x = dataset["scan_x"].to_numpy()
        _draw_scale_bar(axes, float(x[1] - x[0]), (image.shape[0], image.shape[1]))
        return
    axes.set_xlabel("scan x (positions)", fontsize=9, color=INK)
    axes.set_ylabel("scan y (positions)", fontsize=9, color=INK)


def _draw_scale_bar(axes: Axes, step: float, shape: tuple[int, int]) -> None:
    """Draw a bar of a round length, about a quarter of the width, on a white plate."""
    width = shape[1] * step / 10.0  # nm
    magnitude = 10.0 ** np.floor(np.log10(0.3 * width))
    length = max(m * magnitude for m in (1.0, 2.0, 5.0) if m * magnitude <= 0.3 * width)
    pixels = length * 10.0 / step
    x, y, margin = 0.04 * shape[1], 0.955 * shape[0], 0.022 * shape[1]
    plate = (x - margin, y - 0.085 * shape[0]), pixels + 2 * margin, 0.115 * shape[0]
    axes.add_patch(Rectangle(*plate, facecolor="white", alpha=0.85, edgecolor="none", zorder=3))
    axes.plot([x, x + pixels], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt", zorder=4)
    # Drawing the bar would stretch the axes beyond the scan.
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    axes.text(
        x + pixels / 2, y - 0.015 * shape[0], f"{length:g} nm",
        ha="center", va="bottom", fontsize=8, color=INK, zorder=4,
    )  # fmt: skip
