"""Learning curves of the crystal system: what `learning.py curves` measures at a point, and fits."""

from __future__ import annotations

import time
from typing import Any

import joblib
import numpy as np
from error_law import LAW, fit_law, law

from diffractory.dataset.run import Run
from diffractory.learning.accuracies import SystemAccuracies
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.forests import VoteForestClassifier
from diffractory.learning.protocol_features import ProtocolFeatures, targets_of
from diffractory.learning.system_hierarchy import SystemVotes
from diffractory.learning.training import Subset, feature_sets_of, training_set
from diffractory.settings import usable_cores
from diffractory.specs import ForestSpec, TrainingSpec

#: Parts of the training materials, and orientations of each material in each run; the smallest first.
SUBSETS = [
    Subset(1.0, 1),
    Subset(1.0, 3),
    Subset(0.125),
    Subset(0.25),
    Subset(1.0, 9),
    Subset(0.5),
    Subset(),
]
#: What the paper trained on.
PAPER_MATERIALS, PAPER_ORIENTATIONS = 27_000, 75
TRICLINIC = 0
#: Points may lie so far off a fitted curve, as a share of patterns.
LARGEST_RESIDUAL = 0.02


def system_point(
    run: Run, more: list[Run], spec: TrainingSpec, subset: Subset, tests: dict[str, ProtocolFeatures]
) -> dict[str, Any]:
    count = run.plan.orientations.count
    with training_set(run, spec, feature_sets_of(run, spec), subset, more) as training:
        # Triclinic patterns are the first rows: neither learned nor asked here.
        rows = np.flatnonzero((training.targets.system != TRICLINIC) & ~training.calibration)
        features, systems = training.features[rows[0] : rows[-1] + 1], training.targets.system[rows]
        started = time.perf_counter()
        if isinstance(spec, ForestSpec):
            with joblib.parallel_config(backend="threading"):
                model: Any = VoteForestClassifier(spec.system_trees, spec.system_depth, n_jobs=usable_cores())
                model.fit(features, systems)
        else:
            model = BoostedClassifier(
                spec.system_rounds, n_leaves=spec.system_leaves, n_jobs=usable_cores()
            ).fit(features, systems)
        point: dict[str, Any] = {
            "n_materials": len(np.unique(training.crystals[rows])),
            "n_orientations": sum(
                subset.orientations or each.plan.orientations.count for each in (run, *more)
            ),
            "n_patterns": len(rows),
            "seconds": round(time.perf_counter() - started, 1),
        }
    for name, test in tests.items():
        owners = test.items // count
        truth = targets_of(run.catalogue, owners).system
        answers = SystemVotes.from_share(model.predict_proba(test.features), model.classes_)
        accuracies = SystemAccuracies(model, answers, truth, owners, 200, 0)
        # The paper's rule for both, so that nothing has to be calibrated.
        found = accuracies.by_difference()
        point[name] = {number: found[number] for number in ("1", "10")}
    return point


def system_fits(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit error = e₀ + A m^−α + B o^−β to each curve and extrapolate it to the paper's numbers."""
    fits: dict[str, Any] = {}
    for preset in ("paper", "robust"):
        chosen = [p for p in points if p["preset"] == preset]
        if len(chosen) < 6:
            continue
        sizes = np.array([[p["n_materials"], p["n_orientations"]] for p in chosen], dtype=float).T
        for protocol in ("paper", "lab"):
            for number in ("1", "10"):
                known = [p[protocol][number]["accuracy"] for p in chosen]
                if None in known:
                    continue
                errors = 1.0 - np.array(known)
                fits.setdefault(preset, {}).setdefault(protocol, {})[number] = _fit(sizes, errors)
    return fits


def _fit(sizes: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    best, residual = fit_law(sizes, errors, 0.1)
    if residual > LARGEST_RESIDUAL:
        # A law that does not hold where it was measured says nothing beyond.
        return {"fits": False, "largest_residual": round(residual, 4)}
    there = np.array([[PAPER_MATERIALS], [PAPER_ORIENTATIONS]], dtype=float)
    return {
        "law": LAW,
        "floor_a_alpha_b_beta": [round(float(value), 4) for value in best],
        "largest_residual": round(residual, 4),
        "EXTRAPOLATED_accuracy_at_27000_x_75": round(1.0 - float(law(there, *best)[0]), 4),
    }
