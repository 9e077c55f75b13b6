"""How well the constant of cubic crystals is told: by the model, and by the spots of several patterns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import system_code
from diffractory.learning.accuracies import NUMBERS, group_patterns
from diffractory.learning.aggregation import aggregate_lattice
from diffractory.learning.bootstrap import bootstrap_interval, bootstrap_median_interval
from diffractory.learning.hierarchy import Targets
from diffractory.learning.system_hierarchy import SystemHierarchy, SystemVotes
from diffractory.patterns.cubic_constant import pool_cubic_constants
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices

_CUBIC = system_code("cubic")
#: A constant within this share of the true one is right; whole factors (2, √2, √3) are far beyond.
NEAR = 0.02


@dataclass(frozen=True, eq=False)
class CubicAccuracies:
    """What n patterns of known crystals say of the cubic constant.

    Parameters
    ----------
    model : SystemHierarchy
    features : ndarray of shape (n, n_features), float32
    votes : SystemVotes
        Of the n patterns.
    truth : Targets
    materials : ndarray of shape (n,), int64
    lattices : SpotLattices
        Read from the n patterns.
    peaks : PeakTable
        The n patterns.
    n_bootstrap : int
    seed : int
    """

    model: SystemHierarchy
    features: NDArray[np.float32]
    votes: SystemVotes
    truth: Targets
    materials: NDArray[np.int64]
    lattices: SpotLattices
    peaks: PeakTable
    n_bootstrap: int
    seed: int

    def by_number(self) -> dict[str, dict[str, Any]]:
        """Return errors for 1, 3, 10 and 30 patterns of cubic materials that are called cubic.

        The same groups of patterns, and the same condition, as the errors of lattice constants have: the
        crystal system that the group was given is right. Full groups only.

        Returns
        -------
        dict
            For each number of patterns ``n`` groups of ``n_materials``, and of each answer the median
            absolute ``error`` in Å and the share ``within_2_percent``, both with a 95 % interval over
            materials. A group without an answer (``without``) counts as infinitely far off. Answers are
            the ``median`` of what the model says of single patterns, ``pooled`` from their lattices and
            spots, and ``both``, pooled where that median is expected.
        """
        cubic = np.flatnonzero(self.truth.system == _CUBIC)
        single = np.full((len(self.truth), 3), np.nan)
        if _CUBIC in self.model.systems_ and len(cubic):
            codes = np.full(len(cubic), _CUBIC)
            single[cubic] = self.model.predict_within(self.features[cubic], codes).lattice
        return {str(number): self._of_groups(number, single) for number in NUMBERS}

    def _of_groups(self, size: int, single: NDArray[np.float64]) -> dict[str, Any]:
        group = group_patterns(self.materials, size, self.seed)
        sizes = np.bincount(group[group >= 0], minlength=1)
        used = np.flatnonzero((group >= 0) & (sizes[group] == size) & (self.truth.system == _CUBIC))
        if len(used):
            called = self.model.pool_systems(self.votes.take(used), group[used])
            used = used[np.isin(group[used], called.groups[called.label == _CUBIC])]
        names, first, number = np.unique(group[used], return_index=True, return_inverse=True)
        truth, materials = self.truth.lattice[used[first], 0], self.materials[used[first]]
        median = aggregate_lattice(single[used], number)[:, 0]
        pooled, both = (
            pool_cubic_constants(
                self.lattices.take(used),
                self.peaks.take(used),
                (number + 1).astype(np.int32),
                np.ones(len(names), dtype=bool),
                expected,
            ).a
            for expected in (None, median)
        )
        answers = {"median": median, "pooled": pooled, "both": both}
        return {
            "n": len(names),
            "n_materials": len(np.unique(materials)),
            **{name: self._errors(found, truth, materials) for name, found in answers.items()},
        }

    def _errors(
        self, found: NDArray[np.float64], truth: NDArray[np.float64], materials: NDArray[np.int64]
    ) -> dict[str, Any]:
        error = np.where(np.isnan(found), np.inf, np.abs(found - truth))
        right = error < NEAR * truth
        median = float(np.median(error)) if len(error) else math.inf
        return {
            "without": int(np.isnan(found).sum()),
            "error": median if math.isfinite(median) else None,
            "interval": bootstrap_median_interval(error, materials, self.n_bootstrap, self.seed),
            "within_2_percent": float(right.mean()) if len(right) else None,
            "within_interval": bootstrap_interval(right, materials, self.n_bootstrap, self.seed),
        }
