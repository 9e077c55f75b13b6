"""A model whose answers tests choose."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from diffractory.learning.aggregation import AggregatedLabels, aggregate_labels
from diffractory.learning.system_hierarchy import SystemVotes, TrainingSummary, WithinSystem

SYSTEMS = np.array([3, 6], dtype=np.int8)


class ScriptedModel:
    """Predicts what its features say: system, votes of the winner out of 10, space group, a."""

    n_features_in_ = 4
    systems_ = SYSTEMS
    group_classes_: ClassVar = {3: np.array([123]), 6: np.array([225])}
    training_: ClassVar = {
        3: TrainingSummary(30, 123, 20, (4.0, 4.0, 6.0)),
        6: TrainingSummary(70, 225, 60, (5.0, 5.0, 5.0)),
    }

    def vote_systems(self, X: np.ndarray) -> SystemVotes:
        system, top = X[:, 0].astype(np.int8), X[:, 1].astype(np.int32)
        share = np.where(system[:, None] == SYSTEMS, top[:, None], 10 - top[:, None]) / 10
        return SystemVotes(share, system, top / 10, (2 * top - 10) / 10)

    def pool_systems(self, votes: SystemVotes, groups: np.ndarray) -> AggregatedLabels:
        return aggregate_labels(votes.system, votes.difference, groups)

    def predict_within(self, X: np.ndarray, system: np.ndarray) -> WithinSystem:
        n, none = len(X), np.asarray(system) == -1
        group = np.where(none, 0, X[:, 2]).astype(np.int16)
        lattice = np.where(none[:, None], np.nan, X[:, 3:4] * np.ones(3))
        return WithinSystem(group, np.ones(n), np.ones(n), lattice)
