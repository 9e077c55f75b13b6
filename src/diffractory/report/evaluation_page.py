"""The HTML report of an evaluation: tables, figures, and the paper's numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffractory.report.accuracy_figures import (
    figure_of_conditions,
    figure_of_numbers,
    figure_of_reliability,
)
from diffractory.report.evaluation_figures import figure_of_evaluation
from diffractory.report.page import Page

#: Protocols, and what they are called.
PROTOCOLS = {"paper": "paper protocol", "turned": "the same, turned", "lab": "lab protocol"}
#: Answers for the cubic constant, and what they are called.
ANSWERS = {"median": "the model's median", "pooled": "lattices pooled", "both": "both"}
#: Gleason et al. 2024, at 2.5 million training patterns of about 27,000 materials: 1 and 10 patterns.
_OF_THE_PAPER = {
    "crystal system, six": ("67 %", "79 %"),
    "cubic a": ("0.03 Å", "0.02 Å"),
    "tetragonal a": ("about 0.1 Å", "about 0.07 Å"),
    "hexagonal a": ("about 0.1 Å", "about 0.07 Å"),
    "trigonal a": ("about 0.1 Å", "about 0.07 Å"),
    "tetragonal c": ("0.5–0.6 Å", "0.26 Å"),
    "hexagonal c": ("0.26 Å", "0.14 Å"),
    "trigonal c": ("0.5–0.6 Å", "0.40 Å"),
}


def write_evaluation_page(results: Mapping[str, Any], path: Path) -> None:
    """Write the report of an evaluation as one HTML file.

    Parameters
    ----------
    results : mapping
        What ``diffractory evaluate`` writes to ``evaluation.json``.
    path : Path

    Raises
    ------
    DiffractoryError
        If the file cannot be written.
    """
    shown = {name: results[name] for name in PROTOCOLS if name in results}
    page = Page(f"Evaluation of {Path(results['model']).name}")
    counts = results["paper"]["counts"]
    page.text(
        f"{counts['patterns']:,} patterns of {counts['materials']:,} materials that the model was not "
        f"trained on. {results['paper']['note']}"
    )
    for note in results.get("notes", ()):
        page.text(f"Note: {note}.")
    _accuracy_table(page, shown, "system_by_number", "Crystal system")
    if any(
        each["without_triclinic"]["system_by_number"] != each["system_by_number"] for each in shown.values()
    ):
        six = {name: each["without_triclinic"] for name, each in shown.items()}
        _accuracy_table(
            page, six, "system_by_number", "Crystal system, six: triclinic neither asked nor answered"
        )
    novel = {name: each["subsets"]["unseen_families"] for name, each in shown.items()}
    _accuracy_table(page, novel, "system_by_number", _novel_caption(results, novel["paper"]))
    page.figure(
        figure_of_numbers(shown), "Accuracy against the number of patterns, 95 % intervals over materials"
    )
    page.figure(
        figure_of_evaluation({name: shown[name] for name in ("paper", "lab")}),
        "Accuracy, confusion of crystal systems, and errors of lattice constants",
    )
    page.heading("How sure, and how often right")
    page.figure(figure_of_reliability(shown), "Share of right answers against confidence")
    page.heading("When it is right")
    page.figure(figure_of_conditions(shown), "Single patterns against thickness, spots and tilt")
    page.heading("Space groups and lattices by crystal system")
    for name, each in shown.items():
        _space_group_table(page, PROTOCOLS[name], each)
    for name, each in shown.items():
        _lattice_table(page, PROTOCOLS[name], each)
    # Evaluations of earlier versions do not have it.
    for name in (name for name, each in shown.items() if each.get("cubic_constant")):
        _cubic_table(page, PROTOCOLS[name], shown[name])
    page.heading("Beside the paper")
    _paper_table(page, shown)
    page.heading("What was evaluated")
    page.pre(json.dumps({key: value for key, value in results.items() if key not in PROTOCOLS}, indent=1))
    page.write(path)


def _novel_caption(results: Mapping[str, Any], novel: Mapping[str, Any]) -> str:
    """Say of how many materials, and where near-copies may be among them after all."""
    told = (
        f"{novel['system_by_number']['1']['n_materials']:,} materials with no isostructural one in training"
    )
    trained = results.get("training_materials")
    if trained and trained["in_this_run"] < trained["number"]:
        told += (
            f" (as far as the {trained['in_this_run']:,} of {trained['number']:,} that are in this run tell)"
        )
    return f"Crystal system of {told}"


def _accuracy_table(page: Page, shown: Mapping[str, Any], key: str, caption: str) -> None:
    numbers = list(next(iter(shown.values()))[key])
    header = ["patterns", *(PROTOCOLS[name] for name in shown)]
    rows = [[number, *(_accuracy(each[key][number]) for each in shown.values())] for number in numbers]
    page.table(caption, header, rows)


def _space_group_table(page: Page, name: str, evaluation: Mapping[str, Any]) -> None:
    rows = []
    for system in evaluation["systems"]:
        row = [system]
        for part in ("single", "aggregated"):
            found = evaluation[part]["space_group"]["by_system"][system]
            row += [_percent(found["accuracy"]), _percent(found["given_right_system"])]
        rows.append([*row, _percent(evaluation["single"]["space_group"]["by_system"][system]["baseline"])])
    size = f"{evaluation['group_size']} patterns"
    header = ["", "1 pattern", "given the system", size, "given the system", "always the most frequent"]
    page.table(f"Space groups right, {name}", header, rows)


def _lattice_table(page: Page, name: str, evaluation: Mapping[str, Any]) -> None:
    rows = []
    for system in evaluation["systems"]:
        row = [system]
        for part in ("single", "aggregated"):
            found = evaluation[part]["lattice"][system]
            row += [str(found["n"]), *(_length(found["median_error"][axis]) for axis in "abc")]
        rows.append([*row, _length(evaluation["single"]["lattice"][system]["baseline"]["a"])])
    size = f"{evaluation['group_size']} patterns: n"
    header = ["", "1 pattern: n", "a", "b", "c", size, "a", "b", "c", "a, always the median"]
    page.table(f"Median error of lattice constants where the system is right, Å, {name}", header, rows)


def _cubic_table(page: Page, name: str, evaluation: Mapping[str, Any]) -> None:
    """Show what the model says of single patterns beside what their lattices say together."""
    rows = []
    for number, found in evaluation["cubic_constant"].items():
        answers = [found[answer] for answer in ANSWERS]
        counts = [str(found["n"]), str(found["n_materials"])]
        rows.append([number, *counts, *map(_cubic_error, answers), *map(_cubic_share, answers)])
    shares = [f"within 2 %: {told}" for told in ANSWERS.values()]
    header = ["patterns", "n", "materials", *ANSWERS.values(), *shares]
    page.table(f"Median error of the cubic constant where the system is right, Å, {name}", header, rows)


def _cubic_error(found: Mapping[str, Any]) -> str:
    if found["error"] is None:
        return "–"
    spread = " [{:.4f}–{:.4f}]".format(*found["interval"]) if found["interval"] else ""
    return f"{found['error']:.4f}{spread}"


def _cubic_share(found: Mapping[str, Any]) -> str:
    if found["within_2_percent"] is None:
        return "–"
    return _accuracy({"accuracy": found["within_2_percent"], "interval": found["within_interval"]})


def _paper_table(page: Page, shown: Mapping[str, Any]) -> None:
    rows = []
    for what, (single, ten) in _OF_THE_PAPER.items():
        row = [what, single, ten]
        for name in ("paper", "lab"):
            for part, number in (("single", "1"), ("aggregated", "10")):
                row.append(_ours(shown[name], what, part, number))
        rows.append(row)
    header = [
        "", "paper, 1", "paper, 10", "ours, paper protocol, 1", "10", "ours, lab protocol, 1", "10",
    ]  # fmt: skip
    page.table("Numbers of Gleason et al. (2024) on their materials, and ours on ours", header, rows)


def _ours(evaluation: Mapping[str, Any], what: str, part: str, number: str) -> str:
    system, _, axis = what.partition(" ")
    if system == "crystal":
        return _percent(evaluation["without_triclinic"]["system_by_number"][number]["accuracy"])
    lattice = evaluation[part]["lattice"]
    value = lattice[system]["median_error"][axis] if system in lattice else None
    return "–" if value is None else f"{value:.3f} Å"


def _accuracy(found: Mapping[str, Any]) -> str:
    if found["accuracy"] is None:
        return "no such patterns"
    interval = found["interval"]
    spread = f" [{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * found['accuracy']:.1f} %{spread}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _length(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
