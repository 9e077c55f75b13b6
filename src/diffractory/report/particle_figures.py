"""Figures of particles, of flags, and of example patterns of a map."""

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
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.map_axes import draw_map, system_image
from diffractory.report.pattern_figures import draw_pattern
from diffractory.report.scale_bar import draw_scale_bar
from diffractory.report.style import INK, SYSTEM_COLOURS, UNLABELLED_COLOUR, frame, new_figure, patch, title
from diffractory.scan.mapping.flags import FLAG_MASKS
from diffractory.scan.mapping.label_map import label_confidence

#: More particles than this are not all numbered: the largest are.
_NUMBERED: Final = 60
#: Share of its colour that a particle of no confidence keeps; the rest is white.
_PALEST: Final = 0.25
_PARTS: Final = {"particles": "particle", "grains": "grain", "labels": "region", "grid": "block"}
_OUTLINE: Final = "#E69F00"
#: Inches of a panel of example patterns, of its title, of the words beside the panels, and below each.
_PANEL, _ABOVE, _LEFT, _BELOW, _AROUND = 2.3, 0.5, 0.45, 0.25, 0.1
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


def figure_of_examples(peaks: PeakTable, dataset: xr.Dataset) -> Figure:
    """Draw example patterns of every crystal system in a map: the surest one and one of middling confidence.

    Parameters
    ----------
    peaks : PeakTable
        Peaks of the scan, in row-major order.
    dataset : xarray.Dataset
        Its map.

    Returns
    -------
    Figure
        A column a crystal system, patterns as the detector shows them: qx (rows) down, qy (columns) to
        the right; spots as disks whose area grows with the logarithm of intensity, the one nearest the
        origin, the direct beam, in orange.
    """
    labels = dataset["crystal_system"].to_numpy().ravel()
    present = [code for code in range(len(CRYSTAL_SYSTEMS)) if np.any(labels == code)]
    if not present:
        figure = new_figure(5.0, 1.2)
        axes = figure.subplots()
        axes.set_axis_off()
        title(axes, "No position has a label: there is no example to show")
        return figure
    confidence = label_confidence(dataset).ravel()
    width, height = _LEFT + _PANEL * len(present) + _AROUND, 2.0 * (_PANEL + _ABOVE + _BELOW)
    figure = new_figure(width, height)
    # All panels are alike: places that are known need not be found, which takes as long as drawing them.
    figure.set_layout_engine("none")
    grid = figure.subplots(
        2, len(present), squeeze=False, sharex=True, sharey=True,
        gridspec_kw={
            "left": _LEFT / width, "right": 1.0 - _AROUND / width, "wspace": 0.06,
            "bottom": _BELOW / height, "top": 1.0 - _ABOVE / height, "hspace": (_ABOVE + _BELOW) / _PANEL,
        },
    )  # fmt: skip
    chosen = np.array(
        [_surest_and_middling(np.flatnonzero(labels == code), confidence) for code in present]
    ).T
    reach = 1.05 * max(float(np.abs(peaks.pattern(index)[0]).max(initial=0.1)) for index in chosen.ravel())
    for axes, index in zip(grid.ravel(), chosen.ravel(), strict=True):
        q, intensity = peaks.pattern(index)
        # As on the detector: qx, its rows, run down, qy, its columns, to the right.
        draw_pattern(axes, q[:, ::-1], intensity)
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal", xticks=[], yticks=[])
        frame(axes)
        y, x = divmod(int(index), dataset.sizes["scan_x"])
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


def _surest_and_middling(rows: NDArray[np.int64], confidence: NDArray[np.float64]) -> tuple[int, int]:
    ranked = rows[np.argsort(-confidence[rows], kind="stable")]
    return int(ranked[0]), int(ranked[len(ranked) // 2])


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
