from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from diffractory.report.evaluation_figures import figure_of_confusion, figure_of_evaluation


def report(accuracy: float | None, n: int) -> dict[str, Any]:
    errors = {"a": 0.2, "b": 0.3, "c": None} if n else dict.fromkeys("abc")
    lattice = {"n": n, "median_error": errors, "baseline": dict.fromkeys("abc", 0.5 if n else None)}
    return {
        "n": n,
        "system": {
            "accuracy": accuracy,
            "interval": [accuracy - 0.1, accuracy + 0.1] if accuracy else None,
            "baseline": 0.25 if n else None,
            "confusion": [[n, 0], [n // 2, n // 2]],
            "confidence": [[0.91, None], [0.43, 0.87]],
        },
        "lattice": {"tetragonal": lattice, "cubic": lattice},
    }


def evaluation(single: float, aggregated: float | None) -> dict[str, Any]:
    return {
        "systems": ["tetragonal", "cubic"],
        "group_size": 10,
        "single": report(single, 40),
        "aggregated": report(aggregated, 4 if aggregated else 0),
    }


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_both_protocols_are_drawn_with_their_numbers(tmp_path):
    figure = figure_of_evaluation({"paper": evaluation(0.41, 0.52), "lab": evaluation(0.33, 0.37)})
    figure.savefig(tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").stat().st_size > 10_000
    shown = texts(figure)
    for text in ("41 %", "52 %", "33 %", "37 %", "1 pattern", "10 patterns", "always the most frequent"):
        assert text in shown
    assert "paper protocol, 10 patterns: % of each row" in shown
    assert "lab protocol, 10 patterns: % of each row" in shown
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    assert bars == [0.41, 0.33, 0.52, 0.37]


def test_without_groups_of_full_size_the_figure_says_so(tmp_path):
    figure = figure_of_evaluation({"paper": evaluation(0.41, None)})
    figure.savefig(tmp_path / "evaluation.png")
    assert "no groups" in texts(figure)
    assert "paper protocol, 1 pattern: % of each row" in texts(figure)


def test_how_sure_stands_beside_what_is_taken_for_what():
    figure = figure_of_confusion({"paper": evaluation(0.41, 0.52), "lab": evaluation(0.33, None)})
    shares, means, *_ = figure.axes
    assert len(figure.axes) == 4
    assert [text.get_text() for text in shares.texts] == ["100", "0", "50", "50"]
    # Where there is no answer there is no confidence.
    assert [text.get_text() for text in means.texts] == ["91", "43", "87"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1] == "paper protocol, 10 patterns: mean confidence, %"
    assert titles[3] == "lab protocol, 1 pattern: mean confidence, %"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no evaluation to draw"):
        figure_of_evaluation({})
