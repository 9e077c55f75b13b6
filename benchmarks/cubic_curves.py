"""Learning curves of the constant of cubic crystals: what `learning.py cubic_curves` measures and fits.

Only the lattice model of cubic crystals is trained again. Which patterns are called cubic is said by the
included model throughout, so that every point is asked of the same patterns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cubic_constant import CUBIC, SEED, floor
from error_law import LAW, fit_law, law

from diffractory.dataset.run import Run
from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.cubic_accuracies import CubicAccuracies
from diffractory.learning.hierarchy import Targets, summary_of
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.learning.system_hierarchy import SystemVotes
from diffractory.learning.trained_hierarchies import TrainedBoosting
from diffractory.learning.training import Subset, feature_sets_of, split_of, training_set
from diffractory.settings import usable_cores
from diffractory.specs import LabProtocolSpec

#: Parts of the training materials, and orientations of each material in each run.
CUBIC_SUBSETS = [
    *(Subset(share) for share in (0.03125, 0.0625, 0.125, 0.25, 0.5)),
    *(Subset(1.0, count) for count in (1, 3, 9)),
    Subset(),
]
NUMBERS = ("1", "10")
#: Points may lie so far off a fitted curve, in Å.
LARGEST_RESIDUAL = 0.002
FITTED = ("median", "both")


@dataclass(frozen=True, eq=False)
class CubicTest:
    """Patterns of cubic materials that no model learned from.

    Parameters
    ----------
    model : TrainedBoosting
        Says which of them are called cubic.
    found : ProtocolFeatures
    exact : ProtocolFeatures
        The same patterns without errors of the pixel size.
    votes : SystemVotes
    truth : Targets
    owners : ndarray of shape (n,), int64
    """

    model: TrainedBoosting
    found: ProtocolFeatures
    exact: ProtocolFeatures
    votes: SystemVotes
    truth: Targets
    owners: np.ndarray

    @classmethod
    def of_run(cls, run: Run, model: TrainedBoosting) -> CubicTest:
        """Collect the patterns under the lab protocol, as benchmarks/cubic_constant.py does."""
        systems = targets_of(run.catalogue, np.arange(run.plan.n_crystals)).system
        crystals = np.flatnonzero(split_of(run, model.spec) & (systems == CUBIC))
        found, exact = (
            ProtocolFeatures.concatenate(
                [
                    protocol_features(run.path, crystals, Protocol(model.features, 200.0, lab, SEED), index)
                    for index in range(len(run.plan.partitions))
                ]
            )
            for lab in (LabProtocolSpec(), LabProtocolSpec(scale_error=0.0))
        )
        assert np.array_equal(found.items, exact.items)
        owners = found.items // run.plan.orientations.count
        votes = model.vote_systems(found.features)
        return cls(model, found, exact, votes, targets_of(run.catalogue, owners), owners)

    def errors(self, model: TrainedBoosting) -> dict[str, Any]:
        """Return the errors of one and of ten patterns, by which are asked and what was done to them."""
        cubic = np.tile(model.systems_ == CUBIC, (len(self.owners), 1)).astype(float)
        everyone = SystemVotes.from_share(cubic, model.systems_)
        asked = {
            "called_cubic": (self.found, self.votes),
            "all_cubic": (self.found, everyone),
            "called_cubic_with_exact_pixel_sizes": (self.exact, self.votes),
        }
        return {name: self._errors(model, *each) for name, each in asked.items()}

    def _errors(
        self, model: TrainedBoosting, patterns: ProtocolFeatures, votes: SystemVotes
    ) -> dict[str, Any]:
        assert patterns.lattices is not None
        accuracies = CubicAccuracies(
            model, patterns.features, votes, self.truth, self.owners, patterns.lattices, patterns.peaks,
            1000, SEED,
        )  # fmt: skip
        found = accuracies.by_number()
        return {number: found[number] for number in NUMBERS}

    def floor(self) -> dict[str, float]:
        """Return what wrong pixel sizes alone make of the patterns that are called cubic."""
        called = self.truth.lattice[self.votes.system == CUBIC, 0]
        made = floor(called, LabProtocolSpec().scale_error)
        return {number: made[number] for number in NUMBERS}


def cubic_point(runs: Sequence[Run], test: CubicTest, subset: Subset) -> dict[str, Any]:
    """Train the lattice model of cubic crystals on a part of the training patterns, and test it."""
    spec, (first, *more) = test.model.spec, runs
    model = BoostedHierarchy(spec, test.model.features, usable_cores())
    # All but one of the included model's parts.
    vars(model).update(vars(test.model))
    model.training_, model.lattice_models_ = dict(test.model.training_), dict(test.model.lattice_models_)
    with training_set(first, spec, feature_sets_of(first, spec), subset, more) as training:
        rows = np.flatnonzero((training.targets.system == CUBIC) & ~training.calibration)
        targets, features = training.targets.take(rows), training.features[rows[0] : rows[-1] + 1]
        model.training_[CUBIC] = summary_of(targets)
        started = time.perf_counter()
        model._fit_lattice(CUBIC, features, targets)
        point = {
            "n_cubic_materials": len(np.unique(training.crystals[rows])),
            "n_orientations": len(np.unique(training.orientations[rows]))
            if subset.orientations is None
            else subset.orientations * len(runs),
            "n_patterns": len(rows),
            "seconds": round(time.perf_counter() - started, 1),
        }
    return point | test.errors(model)


def cubic_fits(points: Sequence[dict[str, Any]], materials: float, orientations: int) -> dict[str, Any]:
    """Fit the law to what learns: the model's median, and both; spots and lattices pooled learn nothing."""
    sizes = np.array([[p["n_cubic_materials"], p["n_orientations"]] for p in points], dtype=float).T
    there = np.array([[materials], [orientations]], dtype=float)
    asked = [name for name in points[0] if "cubic" in name and isinstance(points[0][name], dict)]
    return {
        name: {
            number: {
                answer: _fit(sizes, np.array([p[name][number][answer]["error"] for p in points]), there)
                for answer in FITTED
            }
            for number in NUMBERS
        }
        for name in asked
    }


def _fit(sizes: np.ndarray, errors: np.ndarray, there: np.ndarray) -> dict[str, Any]:
    best, residual = fit_law(sizes, errors, 0.3 * float(errors.min()))
    if residual > LARGEST_RESIDUAL:
        return {"fits": False, "largest_residual": round(residual, 5)}
    others = [np.arange(len(errors)) != left_out for left_out in range(len(errors))]
    again = [float(law(there, *fit_law(sizes[:, kept], errors[kept], best[0])[0])[0]) for kept in others]
    return {
        "law": LAW.replace("materials", "cubic materials"),
        "floor_a_alpha_b_beta": [round(float(value), 5) for value in best],
        "largest_residual": round(residual, 5),
        "EXTRAPOLATED_error": round(float(law(there, *best)[0]), 5),
        "EXTRAPOLATED_leaving_out_any_point": [round(min(again), 5), round(max(again), 5)],
    }
