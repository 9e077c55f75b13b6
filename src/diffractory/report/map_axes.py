"""What figures of maps share: axes for a map, its scale bar, colours of crystal systems."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.report.scale_bar import draw_scale_bar
from diffractory.report.style import INK, SYSTEM_COLOURS, UNLABELLED_COLOUR, frame, new_figure


def map_beside(dataset: xr.Dataset, other_width: float) -> tuple[Axes, Axes]:
    """Return axes for a map and, to its right, for something ``other_width`` inches wide."""
    height = 4.0
    width = height * float(np.clip(dataset.sizes["scan_x"] / dataset.sizes["scan_y"], 0.5, 1.6))
    figure = new_figure(width + other_width + 1.6, height + 0.6)
    left, right = figure.subplots(1, 2, width_ratios=[width + 0.6, other_width])
    return left, right


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
    frame(axes)
    axes.tick_params(colors=INK, labelsize=8)
    if dataset["scan_x"].attrs.get("units") == "angstrom" and dataset.sizes["scan_x"] > 1:
        axes.set_xticks([])
        axes.set_yticks([])
        x = dataset["scan_x"].to_numpy()
        draw_scale_bar(axes, float(x[1] - x[0]) / 10.0, "nm", (image.shape[0], image.shape[1]))
        return
    axes.set_xlabel("scan x (positions)", fontsize=9, color=INK)
    axes.set_ylabel("scan y (positions)", fontsize=9, color=INK)
