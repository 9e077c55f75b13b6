"""How often the crystal system is right: for several patterns, under conditions, on parts of a test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.learning.aggregation import aggregate_labels
from diffractory.learning.bootstrap import bootstrap_interval
from diffractory.learning.reliability import reliability
from diffractory.learning.system_hierarchy import SystemHierarchy, SystemVotes

#: Patterns of one material that answer together.
NUMBERS = (1, 3, 10, 30)
#: Bins that a condition is divided into where it has more values.
_BINS = 6


@dataclass(frozen=True, eq=False)
class SystemAccuracies:
    """Answers of a model to test patterns.

    Parameters
    ----------
    model : SystemHierarchy
    votes : SystemVotes
        Of n patterns.
    truth : ndarray of shape (n,), int8
        Code of the crystal system of each.
    materials : ndarray of shape (n,), int64
    n_bootstrap : int
    seed : int
    """

    model: SystemHierarchy
    votes: SystemVotes
    truth: NDArray[np.int8]
    materials: NDArray[np.int64]
    n_bootstrap: int
    seed: int

    def take(self, chosen: NDArray[np.bool_]) -> SystemAccuracies:
        """Return the answers to some of the patterns."""
        return replace(
            self,
            votes=self.votes.take(chosen),
            truth=self.truth[chosen],
            materials=self.materials[chosen],
        )

    def without(self, system: int) -> SystemAccuracies:
        """Return the answers to patterns of other crystal systems where one is no possible answer."""
        column = np.flatnonzero(self.model.systems_ == system)
        others = self.take(self.truth != system)
        if len(column) == 0:
            return others
        share = others.votes.share.copy()
        share[:, column] = 0.0
        sums = share.sum(axis=1, keepdims=True)
        # What had no share but this one says nothing of the others.
        share = np.divide(share, sums, out=np.full_like(share, 1.0 / (share.shape[1] - 1)), where=sums > 0.0)
        share[:, column] = 0.0
        return replace(others, votes=SystemVotes.from_share(share, self.model.systems_))

    def by_number(self) -> dict[str, dict[str, Any]]:
        """Return accuracies for 1, 3, 10 and 30 patterns, by the model's rule and by the paper's.

        With each goes the expected calibration error of the rule's own confidence, and its interval.
        """
        return {
            "system_by_number": {str(number): self._of_groups(number, own=True) for number in NUMBERS},
            "system_by_difference": self.by_difference(),
        }

    def by_difference(self) -> dict[str, dict[str, Any]]:
        """Return accuracies for 1, 3, 10 and 30 patterns by the paper's rule, which needs no model."""
        return {str(number): self._of_groups(number, own=False) for number in NUMBERS}

    def against(self, condition: NDArray[Any]) -> list[dict[str, Any]]:
        """Return the accuracy of single patterns in each bin of a condition, lowest first.

        Each distinct value is a bin; many values are divided into bins of equal numbers of patterns.
        """
        values = np.asarray(condition, dtype=np.float64)
        edges = np.unique(values)
        if len(edges) > 2 * _BINS:
            edges = np.unique(np.quantile(values, np.arange(_BINS) / _BINS, method="lower"))
        place = np.searchsorted(edges, values, side="right") - 1
        right = self.votes.system == self.truth
        bins = []
        for number in range(len(edges)):
            here = place == number
            bins.append(
                {
                    "low": float(values[here].min()),
                    "high": float(values[here].max()),
                    "n": int(here.sum()),
                    "accuracy": float(right[here].mean()),
                    "interval": bootstrap_interval(
                        right[here], self.materials[here], self.n_bootstrap, self.seed
                    ),
                }
            )
        return bins

    def _of_groups(self, size: int, *, own: bool) -> dict[str, Any]:
        group = group_patterns(self.materials, size, self.seed)
        sizes = np.bincount(group[group >= 0], minlength=1)
        group[np.isin(group, np.flatnonzero(sizes < size))] = -1
        used = np.flatnonzero(group >= 0)
        if len(used) == 0:
            nothing = dict.fromkeys(("accuracy", "interval", "calibration_error", "calibration_interval"))
            return {"n": 0, "n_materials": 0, **nothing}
        votes = self.votes.take(used)
        if own:
            pooled = self.model.pool_systems(votes, group[used])
        else:
            pooled = aggregate_labels(votes.system, votes.difference, group[used])
        first = used[np.unique(group[used], return_index=True)[1]]
        right, materials = pooled.label == self.truth[first], self.materials[first]
        # One vote has the whole weight: the confidence of a pattern alone is its own.
        confidence = self.votes.confidence[first] if size == 1 else pooled.confidence
        sure = reliability(right, confidence, materials, n_bootstrap=self.n_bootstrap, seed=self.seed)
        return {
            "n": len(first),
            "n_materials": len(np.unique(materials)),
            "accuracy": float(np.mean(right)),
            "interval": bootstrap_interval(right, materials, self.n_bootstrap, self.seed),
            "calibration_error": sure["expected_calibration_error"],
            "calibration_interval": sure["interval"],
        }


def group_patterns(materials: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Divide the patterns of each material into disjoint random groups of ``size``.

    Parameters
    ----------
    materials : ndarray of shape (n,), int
        Material of each pattern, ≥ 0.
    size : int
    seed : int

    Returns
    -------
    ndarray of shape (n,), int
        Group of each pattern, numbered from 0; −1 for the rest of a material that does not fill
        another group. A material with fewer than ``size`` patterns is one smaller group.
    """
    groups = np.full(len(materials), -1, dtype=np.int64)
    next_group = 0
    order = np.argsort(materials, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(materials[order])) + 1) if len(order) else []
    for patterns in members:
        material = int(materials[patterns[0]])
        shuffled = np.random.default_rng([seed, material]).permutation(patterns)
        n_groups = max(len(patterns) // size, 1)
        numbers = np.repeat(np.arange(n_groups), size)[: len(patterns)]
        groups[shuffled[: len(numbers)]] = next_group + numbers
        next_group += n_groups
    return groups
