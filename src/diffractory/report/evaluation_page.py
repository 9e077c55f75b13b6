"""The HTML report of an evaluation: tables, figures, and the paper's numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffractory.report.accuracy_figures import (
    figure_of_conditions,
    figure_of_numbers,
    figure_of_reliability,
)
from diffractory.report.evaluation_figures import figure_of_confusion, figure_of_evaluation
from diffractory.report.page import Page

#: Protocols, and what they are called.
PROTOCOLS = {"paper": "paper protocol", "turned": "the same, turned", "lab": "lab protocol"}
#: Answers for the cubic constant, and what they are called.
ANSWERS = {"median": "the model's median", "pooled": "lattices and spots pooled", "both": "both"}
_SIX = "triclinic neither asked nor answered"
_NOVEL = "nothing isostructural in training"
#: Finds a number of ours: of an evaluation, its "single" or "aggregated" part, and the number of patterns.
_Ours = Callable[[Mapping[str, Any], str, str], str]


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
    if any("triclinic" in each["systems"] for each in shown.values()):
        six = {name: each["without_triclinic"] for name, each in shown.items()}
        _accuracy_table(page, six, "system_by_number", f"Crystal system, six: {_SIX}")
    _novel_tables(page, results, shown)
    page.figure(
        figure_of_numbers(shown), "Accuracy against the number of patterns, 95 % intervals over materials"
    )
    page.figure(
        figure_of_evaluation({name: shown[name] for name in ("paper", "lab")}),
        "Accuracy, confusion of crystal systems, and errors of lattice constants",
    )
    page.heading("What is taken for what")
    page.figure(
        figure_of_confusion(shown),
        "Of the patterns of each crystal system, the share that is called so, and how sure the model was",
    )
    page.heading("How sure, and how often right")
    _confidence_table(page, shown)
    page.figure(figure_of_reliability(shown), "Share of right answers against confidence")
    page.heading("When it is right")
    page.figure(figure_of_conditions(shown), "Single patterns against thickness, spots and tilt")
    page.heading("Space groups and lattices by crystal system")
    for name, each in shown.items():
        _space_group_table(page, PROTOCOLS[name], each)
    for name, each in shown.items():
        _lattice_tables(page, PROTOCOLS[name], each)
    # Evaluations of earlier versions do not have it.
    for name in (name for name, each in shown.items() if each.get("cubic_constant")):
        _cubic_table(page, PROTOCOLS[name], shown[name])
    _novel_details(page, shown)
    page.heading("Beside the paper")
    _paper_table(page, shown)
    page.heading("What was evaluated")
    page.pre(json.dumps({key: value for key, value in results.items() if key not in PROTOCOLS}, indent=1))
    page.write(path)


def _novel_tables(page: Page, results: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Show the accuracy on materials unlike all of training, and which they are."""
    novel = {name: each["subsets"]["unseen_families"] for name, each in shown.items()}
    caption = _novel_caption(results, novel["paper"])
    _accuracy_table(page, novel, "system_by_number", caption)
    # Evaluations of earlier versions do not have more.
    if "counts" not in novel["paper"]:
        return
    if any("triclinic" in each["systems"] for each in shown.values()):
        six = {name: each["without_triclinic"] for name, each in novel.items()}
        _accuracy_table(page, six, "system_by_number", f"{caption}, six: {_SIX}")
    by_system = novel["paper"]["counts"]["by_system"]
    rows = [
        [what, *(f"{found[what]:,}" for found in by_system.values())] for what in ("materials", "patterns")
    ]
    page.table("Materials with no isostructural one in training", ["", *by_system], rows)


def _novel_details(page: Page, shown: Mapping[str, Any]) -> None:
    """Show all that is told of the whole test for materials unlike all of training, too."""
    novel = {
        name: {key: each[key] for key in ("systems", "group_size")} | each["subsets"]["unseen_families"]
        for name, each in shown.items()
    }
    # Evaluations of earlier versions do not have it.
    if "single" not in novel["paper"]:
        return
    page.heading("Materials with no isostructural one in training, once more in detail")
    page.figure(
        figure_of_confusion(novel),
        "Of the patterns of each crystal system, the share that is called so, and how sure the model was",
    )
    page.figure(figure_of_reliability(novel), "Share of right answers against confidence")
    for name, each in novel.items():
        _space_group_table(page, f"{PROTOCOLS[name]}, {_NOVEL}", each)
    for name, each in novel.items():
        _lattice_tables(page, f"{PROTOCOLS[name]}, {_NOVEL}", each)
    for name in (name for name, each in novel.items() if each["cubic_constant"]):
        _cubic_table(page, f"{PROTOCOLS[name]}, {_NOVEL}", novel[name])


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
    for number in ("1", "10"):
        found = [each[key][number] for each in shown.values()]
        # Evaluations of earlier versions have no interval, and before that no error.
        errors = [_error(one.get("calibration_error"), one.get("calibration_interval")) for one in found]
        rows.append([f"calibration error, {number}", *errors])
    page.table(caption, header, rows)


def _confidence_table(page: Page, shown: Mapping[str, Any]) -> None:
    """Show how sure the model was on average where it was right, and where it was wrong."""
    size = next(iter(shown.values()))["group_size"]
    rows = []
    for part, label in (("single", "1 pattern"), ("aggregated", f"{size} patterns")):
        for key, what in (("confidence_right", "right"), ("confidence_wrong", "wrong")):
            cells = [_percent(each[part]["system"][key]) for each in shown.values()]
            rows.append([f"{what}, {label}", *cells])
    page.table("Mean confidence of answers", ["", *(PROTOCOLS[name] for name in shown)], rows)


def _space_group_table(page: Page, name: str, evaluation: Mapping[str, Any]) -> None:
    rows = []
    for system in (*evaluation["systems"], None):
        found = {part: evaluation[part]["space_group"] for part in ("single", "aggregated")}
        if system is not None:
            found = {part: numbers["by_system"][system] for part, numbers in found.items()}
        row = ["all" if system is None else system]
        for numbers in found.values():
            # Evaluations of earlier versions have no such interval.
            interval = numbers.get("given_right_system_interval")
            given = {"accuracy": numbers["given_right_system"], "interval": interval}
            row += [_rounded(numbers), _rounded(given)]
        rows.append([*row, _percent(found["single"]["baseline"])])
    size = f"{evaluation['group_size']} patterns"
    header = ["", "1 pattern", "given the system", size, "given the system", "always the most frequent"]
    page.table(f"Space groups right, {name}", header, rows)


def _lattice_tables(page: Page, name: str, evaluation: Mapping[str, Any]) -> None:
    size = f"{evaluation['group_size']} patterns"
    for part, number in (("single", "1 pattern"), ("aggregated", size)):
        rows = []
        for system in evaluation["systems"]:
            found = evaluation[part]["lattice"][system]
            intervals = found.get("interval", {})
            errors = [_error(found["median_error"][axis], intervals.get(axis)) for axis in "abc"]
            rows.append([system, f"{found['n']:,}", *errors, _length(found["baseline"]["a"])])
        page.table(
            f"Median error of lattice constants where the system is right, Å, {name}, {number}",
            ["", "n", "a", "b", "c", "a, always the median"],
            rows,
        )


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
    for what, single, ten, ours in _OF_THE_PAPER:
        row = [what, single, ten]
        for name in ("paper", "lab"):
            row += [
                ours(shown[name], part, number) for part, number in (("single", "1"), ("aggregated", "10"))
            ]
        rows.append(row)
    header = [
        "", "paper, 1", "paper, 10", "ours, paper protocol, 1", "10", "ours, lab protocol, 1", "10",
    ]  # fmt: skip
    page.table("Numbers of Gleason et al. (2024) on their materials, and ours on ours", header, rows)


def _six(evaluation: Mapping[str, Any], part: str, number: str) -> str:
    del part
    return _percent(evaluation["without_triclinic"]["system_by_number"][number]["accuracy"])


def _seven(evaluation: Mapping[str, Any], part: str, number: str) -> str:
    del part
    learned = "triclinic" in evaluation["systems"]
    return _percent(evaluation["system_by_number"][number]["accuracy"] if learned else None)


def _recall(system: str) -> _Ours:
    return lambda evaluation, part, number: _percent(evaluation[part]["system"]["by_system"].get(system))


def _confidence(key: str) -> _Ours:
    return lambda evaluation, part, number: _percent(evaluation[part]["system"][key])


def _space_group(system: str, key: str = "accuracy") -> _Ours:
    return lambda evaluation, part, number: _percent(
        evaluation[part]["space_group"]["by_system"].get(system, {}).get(key)
    )


def _lattice(system: str, axis: str) -> _Ours:
    def ours(evaluation: Mapping[str, Any], part: str, number: str) -> str:
        found = evaluation[part]["lattice"].get(system)
        value = None if found is None else found["median_error"][axis]
        return "–" if value is None else f"{value:.3f} Å"

    return ours


#: Gleason et al. 2024, at 2.5 million training patterns of about 27,000 materials: 1 pattern, 10, and ours.
_OF_THE_PAPER: tuple[tuple[str, str, str, _Ours], ...] = (
    ("crystal system, six", "67 %", "79 %", _six),
    ("crystal system, seven", "63 %", "–", _seven),
    ("triclinic called so", "14 %", "–", _recall("triclinic")),
    ("mean confidence where right", "55 %", "88 %", _confidence("confidence_right")),
    ("mean confidence where wrong", "38 %", "66 %", _confidence("confidence_wrong")),
    ("space group, cubic", "about 90 %", "a few points more", _space_group("cubic")),
    ("space group, hexagonal", "50–70 %", "70–90 %", _space_group("hexagonal")),
    ("space group, trigonal", "50–70 %", "70–90 %", _space_group("trigonal")),
    ("space group, tetragonal", "50–70 %", "70–90 %", _space_group("tetragonal")),
    ("space group, monoclinic", "–", "45 %", _space_group("monoclinic")),
    (
        "space group, monoclinic, given the system",
        "–",
        "63 %",
        _space_group("monoclinic", "given_right_system"),
    ),
    ("space group, orthorhombic", "–", "40 %", _space_group("orthorhombic")),
    (
        "space group, orthorhombic, given the system",
        "–",
        "56 %",
        _space_group("orthorhombic", "given_right_system"),
    ),
    ("cubic a", "0.03 Å", "0.02 Å", _lattice("cubic", "a")),
    ("tetragonal a", "about 0.1 Å", "about 0.07 Å", _lattice("tetragonal", "a")),
    ("hexagonal a", "about 0.1 Å", "about 0.07 Å", _lattice("hexagonal", "a")),
    ("trigonal a", "about 0.1 Å", "about 0.07 Å", _lattice("trigonal", "a")),
    ("tetragonal c", "0.5–0.6 Å", "0.26 Å", _lattice("tetragonal", "c")),
    ("hexagonal c", "0.26 Å", "0.14 Å", _lattice("hexagonal", "c")),
    ("trigonal c", "0.5–0.6 Å", "0.40 Å", _lattice("trigonal", "c")),
)


def _accuracy(found: Mapping[str, Any]) -> str:
    if found["accuracy"] is None:
        return "no such patterns"
    interval = found["interval"]
    spread = f" [{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * found['accuracy']:.1f} %{spread}"


def _rounded(found: Mapping[str, Any]) -> str:
    interval = found.get("interval")
    spread = f" [{100 * interval[0]:.0f}–{100 * interval[1]:.0f}]" if interval else ""
    return _percent(found["accuracy"]) + spread


def _error(value: float | None, interval: list[float] | None) -> str:
    spread = " [{:.3f}–{:.3f}]".format(*interval) if interval else ""
    return _length(value) + spread


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _length(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
