"""Figures of particles and of flags of a map."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.report.map_axes import draw_map, system_image
from diffractory.report.style import INK, SYSTEM_COLOURS, UNLABELLED_COLOUR, new_figure, patch, title
from diffractory.scan.mapping.flags import FLAG_MASKS

#: More particles than this are not all numbered: the largest are.
_NUMBERED: Final = 60
#: Share of its colour that a particle of no confidence keeps; the rest is white.
_PALEST: Final = 0.25
_PARTS: Final = {"particles": "particle", "grains": "grain", "labels": "region", "grid": "block"}
_OUTLINE: Final = "#E69F00"
#: Kinds of positions in the figure of flags, and their colours: told apart by lightness too.
_KINDS: Final = {
    "few spots": UNLABELLED_COLOUR,
    "no flag": "#E8F1F8",
    "outside the training domain": "#D55E00",
    "likely overlapping grains": "#56B4E9",
    "both": "#222222",
}


def part_name(dataset: xr.Dataset) -> str:
    """Return what one part of a divided map is called: particle, grain, region or block."""
    return _PARTS[json.loads(dataset.attrs["particle_spec"])["regions"]]


def figure_of_particles(dataset: xr.Dataset, table: pd.DataFrame) -> Figure:
    """Draw the particles of a map over its dark field, and the crystal system of each.

    Parameters
    ----------
    dataset : xarray.Dataset
        Map with particles.
    table : pandas.DataFrame
        Its particles.

    Returns
    -------
    Figure
        Left: dark field (root of intensity) with outlines and numbers; right: each particle in the
        colour of its crystal system, paler where it is less sure; white = no particle, grey = no answer.
    """
    particle = dataset["particle"].to_numpy()
    shape = particle.shape
    height = 4.2 * float(np.clip(shape[0] / shape[1], 0.3, 1.6)) + 0.9
    figure = new_figure(10.2, height)
    left, right = figure.subplots(1, 2)
    draw_map(left, np.sqrt(np.maximum(dataset["dark_field"].to_numpy(), 0.0)), dataset, cmap="gray")
    bar = figure.colorbar(left.images[0], ax=left, shrink=0.9, pad=0.02)
    bar.set_label("root of the summed intensity", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    title(left, f"Dark field and {len(table):,} {part_name(dataset)}{'s' * (len(table) != 1)}")
    codes = np.array(
        [
            -1,
            *(
                CRYSTAL_SYSTEMS.index(name) if isinstance(name, str) else -1
                for name in table["crystal_system"]
            ),
        ]
    )
    sure = np.nan_to_num(np.concatenate([[0.0], table["confidence"].to_numpy(dtype=np.float64)]))
    image = system_image(codes[particle], _PALEST + (1.0 - _PALEST) * sure[particle])
    image[particle == 0] = 1.0
    draw_map(right, image, dataset)
    title(right, "Crystal system of each, paler = less sure")
    outlines = _outlines(particle)
    for axes, colour in ((left, _OUTLINE), (right, INK)):
        # Not as a patch: matplotlib would go through thousands of corners to learn where the image ends.
        axes.add_artist(PathPatch(outlines, facecolor="none", edgecolor=colour, linewidth=0.8))
    _number(left, table)
    present = [code for code in range(len(CRYSTAL_SYSTEMS)) if np.any(codes[1:] == code)]
    handles = [patch(SYSTEM_COLOURS[CRYSTAL_SYSTEMS[code]], CRYSTAL_SYSTEMS[code]) for code in present]
    if np.any(codes[1:] < 0):
        handles.append(patch(UNLABELLED_COLOUR, "no answer"))
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8,
            labelcolor=INK, handlelength=1.2,
        )  # fmt: skip
    return figure


def figure_of_flags(dataset: xr.Dataset) -> Figure:
    """Draw which positions should not be trusted, and why.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    flags = dataset["flags"].to_numpy()
    few, outside, overlap = ((flags & mask) > 0 for mask in FLAG_MASKS)
    kind = np.where(few, 0, np.where(outside & overlap, 4, np.where(overlap, 3, np.where(outside, 2, 1))))
    width = 4.2 * float(np.clip(flags.shape[1] / flags.shape[0], 0.5, 1.8))
    figure = new_figure(width + 3.2, 4.8)
    axes = figure.subplots()
    colours = ListedColormap(list(_KINDS.values()))
    draw_map(axes, kind, dataset, cmap=colours, vmin=-0.5, vmax=len(_KINDS) - 0.5)
    title(axes, "Positions not to trust, and why")
    handles = [
        patch(colour, f"{name}: {int((kind == number).sum()):,}")
        for number, (name, colour) in enumerate(_KINDS.items())
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _outlines(particle: NDArray[np.int32]) -> Path:
    """Return the edges of positions where one particle ends, as one path."""
    padded = np.pad(particle, 1)
    y, x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([np.stack([x, y], -1), np.stack([x, y + 1], -1)], 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = np.stack([np.stack([x, y], -1), np.stack([x + 1, y], -1)], 1)
    corners = np.concatenate([upright, level]).reshape(-1, 2) - 0.5
    return Path(corners, np.tile([Path.MOVETO, Path.LINETO], len(corners) // 2))


def _number(axes: Axes, table: pd.DataFrame) -> None:
    """Write the numbers of the largest particles at their middles."""
    largest = table.nlargest(_NUMBERED, "n_positions", keep="first")
    for number, y, x in largest[["particle", "centroid_y", "centroid_x"]].itertuples(index=False):
        axes.annotate(
            str(number), (x, y), ha="center", va="center", fontsize=8, color="white",
            path_effects=[withStroke(linewidth=1.6, foreground=INK)],
        )  # fmt: skip
