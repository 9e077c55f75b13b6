"""How well a trained hierarchy does on materials it has not seen, for one pattern and for several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ModelError
from diffractory.learning.accuracies import SystemAccuracies, group_patterns
from diffractory.learning.aggregation import aggregate_labels, aggregate_lattice
from diffractory.learning.bootstrap import bootstrap_interval, bootstrap_median_interval
from diffractory.learning.cubic_accuracies import CubicAccuracies
from diffractory.learning.hierarchy import Targets
from diffractory.learning.matrices import check_features_of
from diffractory.learning.reliability import reliability
from diffractory.learning.system_hierarchy import SystemHierarchy, SystemVotes
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices

_TRICLINIC = CRYSTAL_SYSTEMS.index("triclinic")

_NOTE = (
    "All accuracies are over the crystal systems in 'systems'; patterns of other systems are counted "
    "in 'not_learned' and in nothing else. Intervals are 95 % bootstrap intervals over materials, those "
    "of calibration errors at least that. "
    "'baseline' always answers with what was most frequent (lattice: the median) in training. "
    "Space-group accuracies over all patterns count a wrong crystal system as wrong. Lattice errors "
    "are of patterns whose crystal system was predicted right; so are those of 'cubic_constant', where "
    "'median' is what the model says of single patterns, 'pooled' what explains their lattices and spots, "
    "and 'both' takes the first for what is expected of the second."
)


@dataclass(frozen=True, eq=False)
class _Answers:
    """Truth and prediction of n patterns, or of n groups of patterns."""

    truth: Targets
    material: NDArray[np.int64]
    system: NDArray[np.int8]
    confidence: NDArray[np.float64]
    space_group: NDArray[np.int16]
    lattice: NDArray[np.float64]

    def take(self, chosen: NDArray[np.bool_]) -> Self:
        return type(self)(
            self.truth.take(chosen),
            self.material[chosen],
            self.system[chosen],
            self.confidence[chosen],
            self.space_group[chosen],
            self.lattice[chosen],
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    """Patterns of crystal systems that the model learned, with its votes; ``read`` as far as it is known."""

    model: SystemHierarchy
    features: NDArray[np.float32]
    votes: SystemVotes
    truth: Targets
    materials: NDArray[np.int64]
    read: tuple[SpotLattices, PeakTable] | None
    group_size: int
    n_bootstrap: int
    seed: int

    def take(self, chosen: NDArray[np.bool_]) -> Self:
        return replace(
            self,
            features=self.features[chosen],
            votes=self.votes.take(chosen),
            truth=self.truth.take(chosen),
            materials=self.materials[chosen],
            read=None if self.read is None else (self.read[0].take(chosen), self.read[1].take(chosen)),
        )

    def accuracies(self) -> SystemAccuracies:
        return SystemAccuracies(
            self.model, self.votes, self.truth.system, self.materials, self.n_bootstrap, self.seed
        )

    def report(self) -> dict[str, Any]:
        """Return all that is told of a test, and of a part of it."""
        group = group_patterns(self.materials, self.group_size, self.seed)
        grouped, sizes = self._predict_grouped(group), np.bincount(group[group >= 0])
        parts = {
            "single": self._predict_single(),
            "aggregated": grouped.take(sizes == self.group_size),
            "aggregated_small_groups": grouped.take(sizes < self.group_size),
        }
        accuracies = self.accuracies()
        return {
            "counts": _counts(self.truth, self.materials),
            **{
                name: _report(self.model, answers, self.n_bootstrap, self.seed)
                for name, answers in parts.items()
            },
            **accuracies.by_number(),
            "without_triclinic": accuracies.without(_TRICLINIC).by_number(),
            "cubic_constant": self._cubic_constant(),
        }

    def _cubic_constant(self) -> dict[str, Any] | None:
        if self.read is None:
            return None
        return CubicAccuracies(
            self.model, self.features, self.votes, self.truth, self.materials, *self.read,
            self.n_bootstrap, self.seed,
        ).by_number()  # fmt: skip

    def _predict_single(self) -> _Answers:
        within = self.model.predict_within(self.features, self.votes.system)
        return _Answers(
            self.truth,
            self.materials,
            self.votes.system,
            self.votes.confidence,
            within.space_group,
            within.lattice,
        )

    def _predict_grouped(self, group: NDArray[np.int64]) -> _Answers:
        used = group >= 0
        members = group[used]
        systems = self.model.pool_systems(self.votes.take(used), members)
        # The whole group goes through the models of the system it was given, whatever each said alone.
        codes = np.full(len(group), -1)
        codes[used] = systems.label[members]
        within = self.model.predict_within(self.features, codes)
        space_groups = aggregate_labels(within.space_group[used], within.group_difference[used], members)
        first = np.unique(members, return_index=True)[1]
        return _Answers(
            self.truth.take(np.flatnonzero(used)[first]),
            self.materials[used][first],
            systems.label,
            systems.confidence,
            space_groups.label,
            aggregate_lattice(within.lattice[used], members),
        )


def evaluate(
    model: SystemHierarchy,
    X: ArrayLike,
    targets: Targets,
    materials: ArrayLike,
    *,
    group_size: int = 10,
    n_bootstrap: int = 1000,
    seed: int = 0,
    conditions: Mapping[str, ArrayLike] | None = None,
    subsets: Mapping[str, ArrayLike] | None = None,
    lattices: SpotLattices | None = None,
    peaks: PeakTable | None = None,
) -> dict[str, Any]:
    """Evaluate a trained hierarchy on the patterns of test materials.

    Parameters
    ----------
    model : SystemHierarchy
        Trained.
    X : array_like of shape (n, n_features)
        Features of the test patterns.
    targets : Targets
        Truth of the same n patterns.
    materials : array_like of shape (n,), int
        Material of each pattern, ≥ 0.
    group_size : int
        Patterns that are aggregated: disjoint groups of orientations of one material, drawn at
        random. A material with fewer gives one group of all it has, reported apart as
        ``aggregated_small_groups``.
    n_bootstrap : int
        Resamplings of the materials behind each interval.
    seed : int
        Of groups and resampling.
    conditions : mapping of str to array_like of shape (n,), optional
        Numbers, such as the thickness, that single-pattern accuracy is shown against.
    subsets : mapping of str to array_like of shape (n,), bool, optional
        Parts of the patterns that are reported on apart, such as those of unseen prototypes.
    lattices : SpotLattices, optional
        Read from the same n patterns; then the cubic constant is told from several together as well.
    peaks : PeakTable, optional
        The same n patterns; needed with ``lattices``.

    Returns
    -------
    dict
        Plain JSON data. ``single``, ``aggregated`` and ``aggregated_small_groups`` hold the same
        keys: ``n``, ``n_materials``, ``system``, ``space_group``, ``lattice``; a value that no
        pattern supports is None. ``system_by_number``: accuracy of the crystal system and calibration
        error for 1, 3, 10 and 30 patterns together by the model's own rule, full groups only;
        ``system_by_difference``: by the paper's rule; ``without_triclinic``: both, of patterns of other
        systems, where triclinic is no possible answer; ``cubic_constant``: errors of the constant of cubic
        materials for 1, 3, 10 and 30 patterns, by the model's ``median``, all spots ``pooled``, and
        ``both``, None without ``lattices``; ``conditions`` and ``subsets``: as asked for, a subset with all
        keys named so far and its ``counts``. ``note`` says how to read the numbers.

    Raises
    ------
    ModelError
        If features, targets and materials do not fit each other or the model.
    """
    features = check_features_of(model, X)
    owners = _check_materials(materials, len(features), len(targets))
    _check_lattices(lattices, peaks, len(features))
    for name, value in (("group_size", group_size), ("n_bootstrap", n_bootstrap)):
        if value < 1:
            raise ModelError(f"{name} = {value} is below 1")
    learned = np.isin(targets.system, model.systems_)
    if not learned.all():
        features = features[learned]
    read = None if lattices is None or peaks is None else (lattices.take(learned), peaks.take(learned))
    asked = _Asked(
        model, features, model.vote_systems(features), targets.take(learned), owners[learned], read,
        group_size, n_bootstrap, seed,
    )  # fmt: skip
    accuracies = asked.accuracies()
    return {
        "format": 1,
        "note": _NOTE,
        "systems": [CRYSTAL_SYSTEMS[code] for code in model.systems_],
        "group_size": group_size,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "not_learned": _counts(targets.take(~learned), owners[~learned]),
        **asked.report(),
        "conditions": {
            name: accuracies.against(np.asarray(values)[learned])
            for name, values in (conditions or {}).items()
        },
        "subsets": {
            name: asked.take(np.asarray(chosen, dtype=bool)[learned]).report()
            for name, chosen in (subsets or {}).items()
        },
    }


def _check_materials(materials: ArrayLike, n_rows: int, n_targets: int) -> NDArray[np.int64]:
    owners = np.asarray(materials)
    if owners.shape != (n_rows,) or n_targets != n_rows:
        raise ModelError(
            f"{n_rows} rows of features, {n_targets} targets and materials of shape {owners.shape}"
        )
    if n_rows == 0 or owners.dtype.kind not in "iu" or owners.min() < 0:
        raise ModelError("evaluation needs at least one pattern, and a material index ≥ 0 for each")
    return owners.astype(np.int64)


def _check_lattices(lattices: SpotLattices | None, peaks: PeakTable | None, n_rows: int) -> None:
    if lattices is None:
        return
    n_peaks = 0 if peaks is None else len(peaks)
    if len(lattices.score) != n_rows or n_peaks != n_rows:
        raise ModelError(
            f"{n_rows} rows of features with {len(lattices.score)} lattices and {n_peaks} lists of peaks",
            "the cubic constant is told from the lattice and the spots of every pattern",
            "Give both for the same patterns, or neither",
        )


def _counts(truth: Targets, owners: NDArray[np.int64]) -> dict[str, Any]:
    by_system = {
        CRYSTAL_SYSTEMS[code]: {
            "patterns": int(np.sum(truth.system == code)),
            "materials": len(np.unique(owners[truth.system == code])),
        }
        for code in np.unique(truth.system)
    }
    return {"patterns": len(truth), "materials": len(np.unique(owners)), "by_system": by_system}


def _report(model: SystemHierarchy, answers: _Answers, n_bootstrap: int, seed: int) -> dict[str, Any]:
    codes = [int(code) for code in model.systems_]
    return {
        "n": len(answers.truth),
        "n_materials": len(np.unique(answers.material)),
        "system": _report_system(model, answers, codes, n_bootstrap, seed),
        "space_group": _report_space_group(model, answers, codes, n_bootstrap, seed),
        "lattice": {
            CRYSTAL_SYSTEMS[code]: _report_lattice(model, answers, code, n_bootstrap, seed) for code in codes
        },
    }


def _report_system(
    model: SystemHierarchy, answers: _Answers, codes: list[int], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    right = answers.system == answers.truth.system
    majority = _majority_system(model)
    cells = [
        [(answers.truth.system == true) & (answers.system == predicted) for predicted in codes]
        for true in codes
    ]
    return {
        "accuracy": _mean(right),
        "interval": bootstrap_interval(right, answers.material, n_bootstrap, seed),
        "baseline": _mean(answers.truth.system == majority),
        "baseline_answer": CRYSTAL_SYSTEMS[majority],
        "confidence_right": _mean(answers.confidence[right]),
        "confidence_wrong": _mean(answers.confidence[~right]),
        "reliability": reliability(
            right, answers.confidence, answers.material, n_bootstrap=n_bootstrap, seed=seed
        ),
        "by_system": {CRYSTAL_SYSTEMS[code]: _mean(right[answers.truth.system == code]) for code in codes},
        "confusion": [[int(cell.sum()) for cell in row] for row in cells],
        "confidence": [[_mean(answers.confidence[cell]) for cell in row] for row in cells],
    }


def _report_space_group(
    model: SystemHierarchy, answers: _Answers, codes: list[int], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    truth = answers.truth
    right_system = answers.system == truth.system
    right = right_system & (answers.space_group == truth.space_group)
    learned = list(model.group_classes_.values())
    unseen = ~np.isin(truth.space_group, np.concatenate([np.empty(0), *learned]))
    by_system = {}
    for code in codes:
        here = truth.system == code
        by_system[CRYSTAL_SYSTEMS[code]] = {
            "n": int(here.sum()),
            "accuracy": _mean(right[here]),
            "interval": bootstrap_interval(right[here], answers.material[here], n_bootstrap, seed),
            "n_right_system": int((here & right_system).sum()),
            **_given(right, here & right_system, answers.material, n_bootstrap, seed),
            "baseline": _mean(truth.space_group[here] == model.training_[code].majority_group),
        }
    majority = max(model.training_.values(), key=lambda seen: seen.n_majority).majority_group
    return {
        "accuracy": _mean(right),
        "interval": bootstrap_interval(right, answers.material, n_bootstrap, seed),
        **_given(right, right_system, answers.material, n_bootstrap, seed),
        "baseline": _mean(truth.space_group == majority),
        "n_unseen_in_training": int(unseen.sum()),
        "by_system": by_system,
    }


def _given(
    right: NDArray[np.bool_],
    right_system: NDArray[np.bool_],
    materials: NDArray[np.int64],
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    hits, owners = right[right_system], materials[right_system]
    return {
        "given_right_system": _mean(hits),
        "given_right_system_interval": bootstrap_interval(hits, owners, n_bootstrap, seed),
    }


def _report_lattice(
    model: SystemHierarchy, answers: _Answers, code: int, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    right = (answers.truth.system == code) & (answers.system == code)
    right &= ~np.isnan(answers.lattice).any(axis=1)
    truth = answers.truth.lattice[right]
    reference = np.array(model.training_[code].median_lattice)
    errors, materials = answers.lattice[right] - truth, answers.material[right]
    return {
        "n": int(right.sum()),
        "median_error": _median_errors(errors),
        "interval": {
            axis: bootstrap_median_interval(np.abs(along), materials, n_bootstrap, seed)
            for axis, along in zip("abc", errors.T, strict=True)
        },
        "baseline": _median_errors(reference - truth),
    }


def _majority_system(model: SystemHierarchy) -> int:
    return max(model.training_, key=lambda code: model.training_[code].n_patterns)


def _median_errors(errors: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the median absolute error of a, b and c in Å."""
    medians = np.median(np.abs(errors), axis=0).tolist() if len(errors) else [None] * 3
    return dict(zip("abc", medians, strict=True))


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None
