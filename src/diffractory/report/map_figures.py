"""Figures of a map: crystal systems with their confidence, lattice constants, comparison with the truth."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.errors import ScanError
from diffractory.report.map_axes import draw_map, map_beside, system_image
from diffractory.report.style import (
    INK,
    SYSTEM_COLOURS,
    UNLABELLED_COLOUR,
    figure_of,
    new_figure,
    patch,
    tidy,
    title,
)
from diffractory.scan.mapping.label_map import (
    LATTICE_AXES,
    REASONS,
    assumed_system,
    label_confidence,
    summarise,
)

#: Share of its colour that a position of the lowest confidence keeps; the rest is white.
_PALEST: Final = 0.15
#: Colour of positions whose frame could not be used: darker than any system, and than what has no label.
_BAD_FRAME: Final = "#222222"
#: Colour of what several patterns tell together.
_TOGETHER: Final = "#D55E00"
_RIGHT, _WRONG, _MISSED, _VACUUM = "#8CC6A9", "#A4243B", UNLABELLED_COLOUR, "#FFFFFF"


def figure_of_systems(dataset: xr.Dataset) -> Figure:
    """Draw the crystal system of every position, paler where the forest was less sure.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.

    Returns
    -------
    Figure
        Left: the map; grey = unlabelled, nearly black = a frame that could not be used; a scale bar where
        the scan step is known. Right: share of each crystal system among the labelled positions, plain
        (bars) and weighted by confidence (ticks), and the scale of the paleness.
    """
    left, right = map_beside(dataset, 4.0)
    lowest, highest = _confidence_range(dataset)
    image = system_image(dataset["crystal_system"].to_numpy(), _paleness(dataset, lowest, highest))
    bad = dataset["unlabelled_reason"].to_numpy() == REASONS.index("bad_frame")
    image[bad] = to_rgb(_BAD_FRAME)
    draw_map(left, image, dataset)
    summary = summarise(dataset)
    title(left, f"Crystal system of {summary['labelled']:,} of {summary['positions']:,} positions")
    _draw_shares(right, summary)
    _draw_confidence_key(right, lowest, highest)
    if bad.any():
        handles = [
            patch(UNLABELLED_COLOUR, "few spots or undecided"),
            patch(_BAD_FRAME, f"bad frame: {int(bad.sum()):,}"),
        ]
        figure_of(left).legend(
            handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=8, labelcolor=INK,
            handlelength=1.2,
        )  # fmt: skip
    return figure_of(left)


def figure_of_lattice(
    dataset: xr.Dataset, axis: str = "a", together: tuple[str, float] | None = None
) -> Figure:
    """Draw one lattice constant of every position, and its histogram with the median.

    The histogram is split by crystal system, unless one was assumed: then all lattices are of that one.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.
    axis : {"a", "b", "c"}
        Which lattice constant.
    together : tuple of str and float, optional
        What all patterns of something, such as a particle, tell together, in Å: drawn beside the median.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ScanError
        If there is no such axis.
    """
    if axis not in LATTICE_AXES:
        raise ScanError(f"'{axis}' is not a lattice constant", "", f"Use one of {', '.join(LATTICE_AXES)}")
    values = dataset[axis].to_numpy().astype(float)
    known = values[np.isfinite(values)]
    left, right = map_beside(dataset, 4.0)
    low, high = _value_range(known)
    draw_map(left, values, dataset, cmap="viridis", vmin=low, vmax=high)
    left.set_facecolor(UNLABELLED_COLOUR)
    bar = figure_of(left).colorbar(left.images[0], ax=left, shrink=0.9, pad=0.02, extend="both")
    bar.set_label(f"{axis} (Å)", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    assumed = assumed_system(dataset)
    what = f"{axis}, {assumed} assumed" if assumed else f"Lattice constant {axis}"
    title(left, f"{what} (grey: none)")
    _draw_histogram(right, known, axis, dataset, together)
    return figure_of(left)


def figure_of_truth(dataset: xr.Dataset, truth: xr.Dataset, accuracy: float | None) -> Figure:
    """Draw truth, map and where they agree, side by side, for a synthetic scan.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.
    truth : xarray.Dataset
        Of the same scan, as :func:`diffractory.scan.synthetic.scans.synthetic_scan` makes it.
    accuracy : float or None
        Share of the labels that are right, as :func:`diffractory.scan.synthetic.scans.score_map` counts
        them; None = no label.

    Returns
    -------
    matplotlib.figure.Figure
    """
    guess, true = dataset["crystal_system"].to_numpy(), truth["crystal_system"].to_numpy()
    figure = new_figure(10.4, 3.35 * float(np.clip(true.shape[0] / true.shape[1], 0.3, 2.0)) + 0.75)
    axes = figure.subplots(1, 3)
    draw_map(axes[0], system_image(true, np.ones(true.shape), absent=_VACUUM), dataset)
    title(axes[0], "Truth")
    draw_map(axes[1], system_image(guess, _paleness(dataset, *_confidence_range(dataset))), dataset)
    title(axes[1], "Map, paler = less sure")
    _draw_agreement(axes[2], guess, true, dataset)
    title(axes[2], "no label" if accuracy is None else f"{100 * accuracy:.0f} % of labels right")
    present = [code for code in range(len(CRYSTAL_SYSTEMS)) if np.any(true == code) or np.any(guess == code)]
    handles = [patch(SYSTEM_COLOURS[CRYSTAL_SYSTEMS[code]], CRYSTAL_SYSTEMS[code]) for code in present]
    handles += [patch(UNLABELLED_COLOUR, "unlabelled"), patch(_VACUUM, "vacuum")]
    handles += [patch(_RIGHT, "right"), patch(_WRONG, "wrong")]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8,
        labelcolor=INK, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    return figure


def figure_of_domain(dataset: xr.Dataset, training: NDArray[np.float64]) -> Figure:
    """Draw where the positions of a scan lie among the training patterns, and which lie outside.

    Parameters
    ----------
    dataset : xarray.Dataset
        Map made by :func:`diffractory.scan.mapping.label_map.to_dataset`.
    training : ndarray of shape (n, 2)
        Coordinates of training patterns along their first two principal components.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(9.0, 4.2)
    left, right = figure.subplots(1, 2)
    left.scatter(*training.T, s=3, color=UNLABELLED_COLOUR, label="training patterns", rasterized=True)
    outside = dataset["outside_training"].to_numpy().ravel() > 0
    here = np.stack([dataset[f"training_component_{n}"].to_numpy().ravel() for n in (1, 2)])
    asked = np.isfinite(here).all(axis=0)
    for chosen, colour, what in ((~outside, "#0072B2", "inside"), (outside, "#D55E00", "outside")):
        used = asked & chosen
        share = used.sum() / max(int(asked.sum()), 1)
        label = f"scan, {what}: {100 * share:.1f} %"
        left.scatter(*here[:, used], s=3, color=colour, alpha=0.5, label=label, rasterized=True)
    left.set_xlabel("principal component 1 (standard deviations)")
    left.set_ylabel("principal component 2 (standard deviations)")
    tidy(left)
    title(left, "The scan among the training patterns")
    # Not where matplotlib finds most room: among many positions that takes seconds.
    left.legend(frameon=False, fontsize=8, markerscale=3, loc="upper right")
    shape = dataset["outside_training"].shape
    values = np.where(asked, 1.0 + outside, 0.0).reshape(shape)
    colours = ListedColormap([UNLABELLED_COLOUR, "#0072B2", "#D55E00"])
    draw_map(right, values, dataset, cmap=colours, vmin=0, vmax=2)
    title(right, "Where it lies outside (orange)")
    return figure


def _confidence_range(dataset: xr.Dataset) -> tuple[float, float]:
    """Return the confidence of a guess among all systems, and the highest that is common in the map."""
    labelled = dataset["crystal_system"].to_numpy() >= 0
    values = label_confidence(dataset)[labelled]
    values = values[np.isfinite(values)]
    lowest = 1.0 / max(dataset.sizes["crystal_system_class"], 2)
    highest = float(np.percentile(values, 98)) if values.size else 1.0
    return lowest, max(highest, lowest + 0.05)


def _paleness(dataset: xr.Dataset, lowest: float, highest: float) -> NDArray[np.float64]:
    confidence = label_confidence(dataset)
    weight: NDArray[np.float64] = np.clip((confidence - lowest) / (highest - lowest), 0.0, 1.0)
    return _PALEST + (1.0 - _PALEST) * weight


def _draw_shares(axes: Axes, summary: dict[str, Any]) -> None:
    systems = summary["systems"]
    places = np.arange(len(CRYSTAL_SYSTEMS))
    plain = np.array([100 * systems[name]["fraction"] for name in CRYSTAL_SYSTEMS])
    weighted = np.array([100 * systems[name]["weighted_fraction"] for name in CRYSTAL_SYSTEMS])
    colours = [SYSTEM_COLOURS[name] for name in CRYSTAL_SYSTEMS]
    axes.barh(places, plain, height=0.68, color=colours, edgecolor=INK, linewidth=0.5)
    axes.vlines(
        weighted[weighted > 0], places[weighted > 0] - 0.42, places[weighted > 0] + 0.42,
        color=INK, linewidth=2.2,
    )  # fmt: skip
    for place, share, other in zip(places, plain, weighted, strict=True):
        text = f"{share:.1f} %" if share else "–"
        axes.annotate(
            text, (max(share, other), place), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_yticks(places, CRYSTAL_SYSTEMS)
    axes.set_ylim(len(places) - 0.4, -1.7)  # room above the bars for the key
    axes.set_xlim(0, 1.25 * max(plain.max(), weighted.max(), 1.0))
    axes.set_xlabel("share of the labelled positions (%)\nblack tick: weighted by confidence")
    tidy(axes)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    unlabelled = summary["unlabelled"]
    title(
        axes, f"Unlabelled: {unlabelled['few_spots']:,} few spots, {unlabelled['low_difference']:,} undecided"
    )


def _draw_confidence_key(axes: Axes, lowest: float, highest: float) -> None:
    """Draw how colour pales with confidence, as a small ramp inside the axes."""
    key = axes.inset_axes((0.5, 0.9, 0.44, 0.04))
    weight = _PALEST + (1.0 - _PALEST) * np.linspace(0.0, 1.0, 64)
    ramp = 1.0 - weight[None, :, None] * (1.0 - np.array(to_rgb(INK)))
    key.imshow(ramp, aspect="auto", extent=(lowest, highest, 0.0, 1.0))
    key.set_yticks([])
    key.set_xticks([lowest, highest], [f"≤ {lowest:.2f}", f"≥ {highest:.2f}"])
    key.tick_params(length=2, labelsize=7, colors=INK)
    key.set_title("confidence", fontsize=8, color=INK, pad=3)
    for spine in key.spines.values():
        spine.set_linewidth(0.5)


def _value_range(known: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of colours: nearly all values, and never empty."""
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, [2, 98])
    return (float(low), float(high)) if high - low > 1e-3 else (float(low) - 0.05, float(high) + 0.05)


def _draw_histogram(
    axes: Axes,
    known: NDArray[np.float64],
    axis: str,
    dataset: xr.Dataset,
    together: tuple[str, float] | None,
) -> None:
    axes.set_xlabel(f"{axis} (Å)")
    axes.set_ylabel("positions")
    tidy(axes)
    if not known.size:
        title(axes, "No position has a lattice")
        return
    labels = dataset["crystal_system"].to_numpy()
    values = dataset[axis].to_numpy().astype(float)
    assumed = assumed_system(dataset)
    if assumed is not None:
        # What a position was called does not make this lattice: it would be read as one of that system.
        labels = np.full(labels.shape, system_code(assumed))
    # A few wild values would leave nothing to be seen of the others: the outermost bars hold them.
    low, high = np.percentile(known, [0.5, 99.5])
    edges = np.linspace(low - 0.05, high + 0.05, 41)
    if known.min() < edges[0] or known.max() > edges[-1]:
        axes.set_xlabel(f"{axis} (Å); the outermost bars hold what lies beyond")
    values = np.clip(values, edges[0], edges[-1])
    present = [code for code in range(len(CRYSTAL_SYSTEMS)) if np.isfinite(values[labels == code]).any()]
    axes.hist(
        [values[(labels == code) & np.isfinite(values)] for code in present], edges, stacked=True,
        histtype="stepfilled",  # one outline a system: bars, hundreds of them, take longer than the map
        color=[SYSTEM_COLOURS[CRYSTAL_SYSTEMS[code]] for code in present], edgecolor="white", linewidth=0.3,
        label=[CRYSTAL_SYSTEMS[code] + (" (assumed)" if assumed else "") for code in present],
    )  # fmt: skip
    median = float(np.median(known))
    axes.axvline(median, color=INK, linewidth=1.2, linestyle="--", label=f"median {median:.2f} Å")
    if together is not None:
        axes.axvline(together[1], color=_TOGETHER, linewidth=1.6, label=f"{together[0]}: {together[1]:.3f} Å")
    # Lines of constants may pass behind it.
    axes.legend(facecolor="white", edgecolor="none", fontsize=8, labelcolor=INK, loc="upper right")
    title(axes, f"{axis} of {known.size:,} positions" + (f", {assumed} assumed" if assumed else ""))


def _draw_agreement(axes: Axes, guess: NDArray[Any], true: NDArray[Any], dataset: xr.Dataset) -> None:
    kind = np.where(guess < 0, np.where(true < 0, 0, 1), np.where(guess == true, 2, 3))
    colours = ListedColormap([_VACUUM, _MISSED, _RIGHT, _WRONG])
    draw_map(axes, kind, dataset, cmap=colours, vmin=-0.5, vmax=3.5)
