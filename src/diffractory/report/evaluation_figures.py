"""Figure of an evaluation: accuracies beside their baseline, confusion and lattice errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.report.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: One colour for each protocol, in the order given; both are told apart in print without colour.
PROTOCOL_COLOURS = ("#35618f", "#e08e45", "#6b9b5e", "#8d5a97")
_PARTS = ("single", "aggregated")


def figure_of_evaluation(evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw evaluations under one or more protocols side by side.

    Parameters
    ----------
    evaluations : mapping of str to mapping
        Name of a protocol ("paper", "lab") to the result of
        :func:`diffractory.learning.evaluation.evaluate`.

    Returns
    -------
    matplotlib.figure.Figure
        Accuracy bars with 95 % intervals for one and several patterns beside always answering the
        most frequent training system; one confusion matrix a protocol (several patterns where
        there are any, else one); median lattice errors.

    Raises
    ------
    ValueError
        If there is no evaluation.
    """
    if not evaluations:
        raise ValueError("there is no evaluation to draw")
    n = len(evaluations)
    figure = new_figure(4.6 * (n + 1), 8.4)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1.0])[:, 0]
    axes = upper.subplots(1, n + 1, squeeze=False)[0]
    _draw_accuracies(axes[0], evaluations)
    for axis, (name, evaluation) in zip(axes[1:], evaluations.items(), strict=True):
        _draw_confusion(axis, name, evaluation)
    panels = lower.subplots(1, 3, sharey=True, squeeze=False)[0]
    for axis, letter in zip(panels, "abc", strict=True):
        _draw_lattice(axis, letter, evaluations)
    # Only now: a limit set while drawing would end the autoscaling that the panels share.
    panels[0].set_ylim(bottom=0.0)
    panels[0].set_ylabel("median absolute error (Å)")
    lower.suptitle("Lattice constants, where the crystal system was right", fontsize=10)
    lower.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def figure_of_confusion(evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what is taken for what, and beside it how sure the model was, a row for each protocol.

    Parameters
    ----------
    evaluations : mapping of str to mapping
        As of :func:`figure_of_evaluation`.

    Returns
    -------
    matplotlib.figure.Figure
        Share of each row of the confusion matrix, and mean confidence of the answers in each of its cells;
        several patterns where there are any, else one.
    """
    figure = new_figure(9.6, 4.4 * len(evaluations))
    axes = figure.subplots(len(evaluations), 2, squeeze=False)
    for (left, right), (name, evaluation) in zip(axes, evaluations.items(), strict=True):
        _draw_confusion(left, name, evaluation)
        part, size = _largest_part(evaluation)
        means = evaluation[part]["system"]["confidence"]
        confidence = np.array([[np.nan if mean is None else mean for mean in row] for row in means])
        _draw_matrix(right, evaluation["systems"], confidence)
        right.set_title(f"{name} protocol, {_patterns(size)}: mean confidence, %", fontsize=10)
        right.set_yticks(range(len(means)), evaluation["systems"], fontsize=8)
        right.set_ylabel("true")
    return figure


def _draw_accuracies(axis: Axes, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    width = 0.8 / len(evaluations)
    for row, part in enumerate(_PARTS):
        for column, (name, evaluation) in enumerate(evaluations.items()):
            system = evaluation[part]["system"]
            left = row - 0.4 + column * width
            _draw_bar(
                axis,
                left,
                width,
                system,
                PROTOCOL_COLOURS[column % len(PROTOCOL_COLOURS)],
                name if row == 0 else None,
            )
    labels = ["1 pattern", _patterns(next(iter(evaluations.values()))["group_size"])]
    axis.plot([], [], color="black", linestyle="--", label="always the most frequent")
    axis.set_xticks(range(len(_PARTS)), labels)
    # Room above for the legend: bars may reach the top.
    axis.set_ylim(0.0, 1.4)
    axis.set_yticks(np.linspace(0.0, 1.0, 6))
    axis.set_ylabel("crystal systems right (share)")
    axis.set_title("Materials not trained on", fontsize=10)
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_bar(
    axis: Axes, left: float, width: float, system: Mapping[str, Any], colour: str, label: str | None
) -> None:
    accuracy, interval, baseline = system["accuracy"], system["interval"], system["baseline"]
    middle = left + width / 2.0
    axis.bar(middle, accuracy or 0.0, width * 0.92, color=colour, label=label)
    if accuracy is None:
        axis.text(middle, 0.02, "no groups", ha="center", va="bottom", rotation=90, fontsize=8)
        return
    top = accuracy
    if interval is not None:
        axis.plot([middle, middle], interval, color="black", linewidth=1.2)
        top = max(top, interval[1])
    axis.text(middle, top + 0.012, f"{100 * accuracy:.0f} %", ha="center", va="bottom", fontsize=9)
    axis.plot([left, left + width], [baseline, baseline], color="black", linestyle="--", linewidth=1.0)


def _draw_confusion(axis: Axes, name: str, evaluation: Mapping[str, Any]) -> None:
    part, size = _largest_part(evaluation)
    counts = np.array(evaluation[part]["system"]["confusion"], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    names = evaluation["systems"]
    _draw_matrix(axis, names, np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0))
    rows = [f"{system} ({int(total)})" for system, total in zip(names, totals[:, 0], strict=True)]
    axis.set_yticks(range(len(names)), rows, fontsize=8)
    axis.set_ylabel("true (count)")
    axis.set_title(f"{name} protocol, {_patterns(size)}: % of each row", fontsize=10)


def _largest_part(evaluation: Mapping[str, Any]) -> tuple[str, int]:
    """Return the part with most patterns together that has answers, and their number."""
    if evaluation["aggregated"]["n"]:
        return "aggregated", evaluation["group_size"]
    return "single", 1


def _draw_matrix(axis: Axes, names: list[str], shares: NDArray[np.float64]) -> None:
    """Draw shares (n, n) as colours and percent; NaN stays empty."""
    axis.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share):
            colour = "white" if share > 0.55 else "black"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_xlabel("predicted")


def _draw_lattice(axis: Axes, letter: str, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    names = next(iter(evaluations.values()))["systems"]
    for column, (protocol, evaluation) in enumerate(evaluations.items()):
        colour = PROTOCOL_COLOURS[column % len(PROTOCOL_COLOURS)]
        shift = 0.16 * (column - (len(evaluations) - 1) / 2.0)
        for part, marker in (("single", "o"), ("aggregated", "D")):
            values = _errors(evaluation, part, names, "median_error", letter)
            size = 1 if part == "single" else evaluation["group_size"]
            axis.plot(
                np.arange(len(names)) + shift,
                values,
                marker,
                color=colour,
                markerfacecolor="white" if part == "single" else colour,
                label=f"{protocol}, {_patterns(size)}",
            )
    reference = _errors(next(iter(evaluations.values())), "single", names, "baseline", letter)
    for index, value in enumerate(reference):
        name = "always the training median" if index == 0 else None
        axis.plot([index - 0.3, index + 0.3], [value, value], color="black", linestyle="--", label=name)
    axis.set_title(letter, fontsize=10)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.spines[["top", "right"]].set_visible(False)


def _errors(evaluation: Mapping[str, Any], part: str, names: list[str], key: str, letter: str) -> list[float]:
    lattice = evaluation[part]["lattice"]
    values = [lattice[name][key][letter] if name in lattice else None for name in names]
    return [np.nan if value is None else float(value) for value in values]


def _patterns(count: int) -> str:
    return "1 pattern" if count == 1 else f"{count} patterns"
