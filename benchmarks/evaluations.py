"""What evaluations of models found, as results/learning.json keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffractory.learning.provenance import training_runs

PROTOCOLS, PARTS = ("paper", "turned", "lab"), ("single", "aggregated")


def axes_of(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how many zone axes of each material a model knows of each run, and how they were chosen."""
    return [dict(run["orientations"]) for run in training_runs(provenance)]


def read_evaluation(model: Path) -> dict[str, Any]:
    path = model.parent / f"{model.name}-evaluation" / "evaluation.json"
    return dict(json.loads(path.read_text()))


def of_protocols(model: Path) -> dict[str, Any]:
    results = read_evaluation(model)
    return {name: of_protocol(results[name]) for name in PROTOCOLS}


def seconds_of(path: Path) -> float | None:
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else None


def difference(section: dict[str, Any], protocol: str, number: str) -> dict[str, Any]:
    """Return how many more *robust* has right; the interval is too wide: it takes materials for others."""
    robust, paper = (section[preset][protocol]["six_systems"][number] for preset in ("robust", "paper"))
    gained = robust["accuracy"] - paper["accuracy"]
    half = float(np.hypot(*(0.5 * (each["interval"][1] - each["interval"][0]) for each in (robust, paper))))
    return {
        "difference": round(gained, 4),
        "interval": [round(gained - half, 4), round(gained + half, 4)],
    }


def in_short(results: dict[str, Any]) -> dict[str, Any]:
    """Return what evaluations of any date tell."""
    return {
        "counts": results["counts"],
        "all_systems": results["system_by_number"],
        **{
            name: {part: results[part]["system"]["reliability"].get(key) for part in PARTS}
            for name, key in (
                ("calibration_error", "expected_calibration_error"),
                ("calibration_interval", "interval"),
            )
        },
        "by_system": {part: results[part]["system"]["by_system"] for part in PARTS},
    }


def of_protocol(results: dict[str, Any]) -> dict[str, Any]:
    return {
        **_of_test(results),
        "systems": results["systems"],
        "conditions": results["conditions"],
        "unseen_families": _of_test(results["subsets"]["unseen_families"]),
    }


def _of_test(results: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of all materials of a test, and of those whose family no model ever saw."""
    systems = {part: results[part]["system"] for part in PARTS}
    return {
        **in_short(results),
        "six_systems": results["without_triclinic"]["system_by_number"],
        "six_systems_by_difference": results["without_triclinic"]["system_by_difference"],
        "confidence": {
            part: [found[f"confidence_{which}"] for which in ("right", "wrong")]
            for part, found in systems.items()
        },
        "confusion": {part: found["confusion"] for part, found in systems.items()},
        "confidence_matrix": {part: found["confidence"] for part, found in systems.items()},
        "reliability": {part: found["reliability"]["bins"] for part, found in systems.items()},
        "cubic_constant": results["cubic_constant"],
        "space_group": {part: results[part]["space_group"] for part in PARTS},
        "lattice": {part: results[part]["lattice"] for part in PARTS},
    }
