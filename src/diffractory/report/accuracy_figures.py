"""Figures of how often the crystal system is right: with more patterns, under conditions, and how sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from diffractory.report.evaluation_figures import PROTOCOL_COLOURS
from diffractory.report.style import new_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CONDITIONS = {
    "thickness": ("Thickness", "thickness (Å)"),
    "spots": ("Spots", "spots in the pattern"),
    "tilt": ("Tilt", "angle to the nearest zone axis (°)"),
}
_Evaluations = Mapping[str, Mapping[str, Any]]


def figure_of_numbers(evaluations: _Evaluations) -> Figure:
    """Draw accuracy against the number of patterns that answer together, by both rules.

    Parameters
    ----------
    evaluations : mapping of str to mapping
        Name of a protocol to the result of :func:`diffractory.learning.evaluation.evaluate`.
    """
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    for colour, (name, evaluation) in zip(PROTOCOL_COLOURS, evaluations.items(), strict=False):
        for key, line, what in (
            ("system_by_number", "-", ""),
            ("system_by_difference", ":", ", paper's rule"),
        ):
            known = {int(n): v for n, v in evaluation[key].items() if v["accuracy"] is not None}
            numbers, accuracies = list(known), [value["accuracy"] for value in known.values()]
            axes.plot(numbers, accuracies, line, marker="o", color=colour, label=name + what)
            if line == "-":
                _draw_intervals(axes, numbers, [value["interval"] for value in known.values()], colour)
    axes.set_xscale("log")
    axes.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    axes.minorticks_off()
    axes.set_xlabel("patterns of one material that answer together")
    _finish(axes, "Crystal systems right, unseen materials")
    return figure


def figure_of_conditions(evaluations: _Evaluations) -> Figure:
    """Draw accuracy of single patterns against thickness, number of spots and distance from a zone axis."""
    figure = new_figure(11.0, 3.6)
    for axes, (condition, (heading, label)) in zip(
        figure.subplots(1, len(_CONDITIONS), sharey=True), _CONDITIONS.items(), strict=True
    ):
        for colour, (name, evaluation) in zip(PROTOCOL_COLOURS, evaluations.items(), strict=False):
            bins = evaluation["conditions"].get(condition, [])
            middles = [(each["low"] + each["high"]) / 2.0 for each in bins]
            axes.plot(middles, [each["accuracy"] for each in bins], "o-", color=colour, label=name)
            _draw_intervals(axes, middles, [each["interval"] for each in bins], colour)
        axes.set_xlabel(label)
        _finish(axes, f"{heading}, one pattern")
    return figure


def figure_of_reliability(evaluations: _Evaluations) -> Figure:
    """Draw the share of right answers against how sure the model was, for one and several patterns."""
    figure = new_figure(8.6, 4.2)
    for axes, part in zip(figure.subplots(1, 2, sharey=True), ("single", "aggregated"), strict=True):
        size = 1
        for colour, (name, evaluation) in zip(PROTOCOL_COLOURS, evaluations.items(), strict=False):
            size = 1 if part == "single" else evaluation["group_size"]
            found = evaluation[part]["system"]["reliability"]
            bins = [each for each in found["bins"] if each["n"]]
            error = found["expected_calibration_error"]
            label = name if error is None else f"{name}: off by {error:.3f}"
            axes.plot(
                [b["confidence"] for b in bins],
                [b["accuracy"] for b in bins],
                "o-",
                color=colour,
                label=label,
            )
        axes.plot([0, 1], [0, 1], "--", color="black", linewidth=0.8)
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("confidence")
        _finish(axes, f"{size} pattern{'s' * (size > 1)}")
    return figure


def _draw_intervals(axes: Axes, places: list[Any], intervals: list[Any], colour: str) -> None:
    for place, interval in zip(places, intervals, strict=True):
        if interval is not None:
            axes.plot([place, place], interval, color=colour, linewidth=1.0)


def _finish(axes: Axes, text: str) -> None:
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks(np.linspace(0.0, 1.0, 6))
    if axes.get_subplotspec() is None or axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        axes.set_ylabel("share right")
    tidy(axes)
    title(axes, text)
    axes.legend(frameon=False, fontsize=8)
