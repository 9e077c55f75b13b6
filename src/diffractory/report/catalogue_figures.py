"""Figures of a catalogue."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_of_space_group
from diffractory.report.style import INK, SYSTEM_COLOURS, new_figure, tidy, title

_LAST_GROUP: Final = 230


def figure_of_counts(counts: pd.DataFrame) -> Figure:
    """Draw how many crystals each crystal system and each space group has.

    Parameters
    ----------
    counts : DataFrame
        Result of :meth:`Catalogue.counts`: columns ``crystal_system``, ``space_group`` and
        ``n_crystals``.

    Returns
    -------
    Figure
        Left: bars by crystal system. Right: one bar a space group, 1 … 230, on a logarithmic
        axis, in the colour of its crystal system.
    """
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2.6])
    _draw_systems(left, counts)
    _draw_groups(right, counts)
    return figure


def _draw_systems(axes: Axes, counts: pd.DataFrame) -> None:
    totals = counts.groupby("crystal_system")["n_crystals"].sum()
    values = [int(totals.get(system, 0)) for system in CRYSTAL_SYSTEMS]
    places = np.arange(len(CRYSTAL_SYSTEMS))
    colours = [SYSTEM_COLOURS[system] for system in CRYSTAL_SYSTEMS]
    bars = axes.barh(places, values, color=colours, edgecolor=INK, linewidth=0.5)
    axes.bar_label(bars, labels=[f"{value:,}" for value in values], padding=3, fontsize=8, color=INK)
    axes.set_yticks(places, CRYSTAL_SYSTEMS)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * max(values))
    axes.set_xlabel("crystals")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    tidy(axes)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    title(axes, f"{sum(values):,} crystals by crystal system")


def _draw_groups(axes: Axes, counts: pd.DataFrame) -> None:
    groups = counts["space_group"].to_numpy()
    systems = [system_of_space_group(int(group)) for group in groups]
    colours = [SYSTEM_COLOURS[system] for system in systems]
    # Bars start below 1 so that a group with one crystal shows on the logarithmic axis.
    floor = 0.6
    axes.bar(
        groups,
        counts["n_crystals"] - floor,
        bottom=floor,
        width=1.0,
        color=colours,
        edgecolor=INK,
        linewidth=0.25,
    )
    axes.set_yscale("log")
    # The highest bar ends at 70 % of the height: above it stand the names of the crystal systems.
    axes.set_ylim(floor, floor * (float(counts["n_crystals"].max()) / floor) ** (1 / 0.7))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, _LAST_GROUP + 1)
    axes.set_xlabel("space group number")
    axes.set_ylabel("crystals")
    tidy(axes)
    _mark_systems(axes)
    title(axes, f"{len(groups)} of {_LAST_GROUP} space groups")


def _mark_systems(axes: Axes) -> None:
    """Name the stretch of space groups of each crystal system above the bars."""
    numbers = np.arange(1, _LAST_GROUP + 1)
    systems = np.array([system_of_space_group(int(number)) for number in numbers])
    for system in CRYSTAL_SYSTEMS:
        own = numbers[systems == system]
        axes.axvspan(own[0] - 0.5, own[-1] + 0.5, 0.94, 1.0, color=SYSTEM_COLOURS[system], linewidth=0)
        axes.axvline(own[-1] + 0.5, color="#CCCCCC", linewidth=0.6, zorder=0)
        axes.annotate(
            system,
            (own.mean(), 0.925),
            xycoords=("data", "axes fraction"),
            ha="left" if own[-1] < 3 else "center",
            va="top",
            fontsize=7.5,
            rotation=90 if len(own) < 30 else 0,
            color=INK,
        )
