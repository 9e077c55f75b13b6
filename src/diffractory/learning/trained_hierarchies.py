"""The two hierarchies once they are trained: what they answer, without what trains them.

:class:`~diffractory.learning.hierarchy.SymmetryHierarchy` and
:class:`~diffractory.learning.boosted_hierarchy.BoostedHierarchy` learn and answer by these classes; a
saved model is loaded into them directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.learning.aggregation import (
    AggregatedLabels,
    EvidenceRule,
    aggregate_labels,
    difference_confidence,
)
from diffractory.learning.calibration import Calibration, scaled
from diffractory.learning.matrices import check_features_of
from diffractory.learning.system_hierarchy import SystemHierarchy, SystemVotes, WithinSystem
from diffractory.learning.trained_trees import (
    TrainedBoostedClassifier,
    TrainedBoostedRegressor,
    TrainedMedianForest,
    TrainedVoteForest,
)
from diffractory.patterns.invariants import cells_of_system
from diffractory.specs import BoostingSpec, ForestSpec, InvariantSpec


class TrainedForests(SystemHierarchy):
    """One forest for the crystal system; for each system one for the space group, one for a, b, c.

    Attributes
    ----------
    spec : ForestSpec
    system_forest_ : TrainedVoteForest
    group_forests_ : dict of int to TrainedVoteForest
    lattice_forests_ : dict of int to TrainedMedianForest
    """

    spec: ForestSpec
    system_forest_: TrainedVoteForest
    group_forests_: dict[int, TrainedVoteForest]
    lattice_forests_: dict[int, TrainedMedianForest]

    @property
    def members_(self) -> dict[str, Any]:
        """Every trained model by its role and crystal system."""
        return _by_role(self.system_forest_, self.group_forests_, self.lattice_forests_)

    def vote_systems(self, X: ArrayLike) -> SystemVotes:
        """Let the trees vote for the crystal system of each row of X (n, n_features).

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        SystemVotes
            Of n patterns.

        Raises
        ------
        ModelError
            If the model is not trained or the features do not fit it.
        """
        features = check_features_of(self, X)
        votes = self.system_forest_.votes(features)
        top = votes.argmax(axis=1)
        share = votes / self.system_forest_.trees_.n_trees
        # From whole votes: shares would round.
        return SystemVotes(share, self.systems_[top], share.max(axis=1), difference_confidence(votes))

    @property
    def group_classes_(self) -> dict[int, NDArray[Any]]:
        """Space groups that are told apart within each crystal system."""
        return {code: forest.classes_ for code, forest in self.group_forests_.items()}

    def pool_systems(self, votes: SystemVotes, groups: NDArray[Any]) -> AggregatedLabels:
        """Return the crystal system of each group of patterns by the paper's rule.

        Parameters
        ----------
        votes : SystemVotes
            Of n patterns.
        groups : ndarray of shape (n,)
            Group of each pattern.

        Returns
        -------
        AggregatedLabels
            One for each group, sorted by group.
        """
        return aggregate_labels(votes.system, votes.difference, groups)

    def _within(self, code: int, part: NDArray[np.float32]) -> WithinSystem:
        forest = self.group_forests_[code]
        votes = forest.votes(part)
        confidence = votes.max(axis=1) / forest.trees_.n_trees
        lattice = self.lattice_forests_[code].predict(part)
        group = forest.classes_[votes.argmax(axis=1)]
        return WithinSystem(group, confidence, difference_confidence(votes), lattice)


class TrainedBoosting(SystemHierarchy):
    """Boosted models: one for the crystal system; for each system one for space group, one for a, b, c.

    Attributes
    ----------
    spec : BoostingSpec
    features : InvariantSpec
    prior_ : ndarray of shape (n_systems,)
        Share of each crystal system in training.
    calibration_ : Calibration
    system_model_ : TrainedBoostedClassifier
    group_models_ : dict of int to TrainedBoostedClassifier
    lattice_models_ : dict of int to TrainedBoostedRegressor
    """

    spec: BoostingSpec
    features: InvariantSpec
    prior_: NDArray[np.float64]
    calibration_: Calibration
    system_model_: TrainedBoostedClassifier
    group_models_: dict[int, TrainedBoostedClassifier]
    lattice_models_: dict[int, TrainedBoostedRegressor]

    @property
    def members_(self) -> dict[str, Any]:
        """Every trained model by its role and crystal system."""
        return _by_role(self.system_model_, self.group_models_, self.lattice_models_)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the calibrated log-probability of each crystal system, of shape (n, n_systems).

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        ndarray of shape (n, n_systems)
            Columns in the order of ``systems_``.

        Raises
        ------
        ModelError
            If the model is not trained or the features do not fit it.
        """
        features = check_features_of(self, X)
        return scaled(self.system_model_.predict_log_proba(features), self.calibration_.temperature)

    def vote_systems(self, X: ArrayLike) -> SystemVotes:
        """Return crystal system and calibrated probabilities of each row of X (n, n_features).

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        SystemVotes
            Of n patterns.

        Raises
        ------
        ModelError
            If the model is not trained or the features do not fit it.
        """
        return SystemVotes.from_share(np.exp(self.predict_log_proba(X)), self.systems_)

    @property
    def group_classes_(self) -> dict[int, NDArray[Any]]:
        """Space groups that are told apart within each crystal system."""
        return {code: model.classes_ for code, model in self.group_models_.items()}

    def pool_systems(self, votes: SystemVotes, groups: NDArray[Any]) -> AggregatedLabels:
        """Return the crystal system of each group of patterns by calibrated log-probability.

        Parameters
        ----------
        votes : SystemVotes
            Of n patterns.
        groups : ndarray of shape (n,)
            Group of each pattern.

        Returns
        -------
        AggregatedLabels
            One for each group, sorted by group.
        """
        return self.evidence_rule.pool(votes.share, groups)

    @property
    def evidence_rule(self) -> EvidenceRule:
        """How evidence of several patterns is pooled."""
        return EvidenceRule(self.systems_, self.prior_, self.calibration_.dependence)

    def _within(self, code: int, part: NDArray[np.float32]) -> WithinSystem:
        model = self.group_models_[code]
        share = model.predict_proba(part)
        cells = self._cells(code, part) * np.exp(self.lattice_models_[code].predict(part))
        group = model.classes_[share.argmax(axis=1)].astype(np.int16)
        return WithinSystem(group, share.max(axis=1), difference_confidence(share), cells)

    def _cells(self, code: int, part: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the cell read from the spots; where there is none, the median of training."""
        read = cells_of_system(part, CRYSTAL_SYSTEMS[code], self.features)
        return np.where(np.isnan(read), np.array(self.training_[code].median_lattice), read)


def _by_role(system: Any, groups: Mapping[int, Any], lattices: Mapping[int, Any]) -> dict[str, Any]:
    members = {"system": system} | {f"group-{code}": part for code, part in groups.items()}
    return members | {f"lattice-{code}": part for code, part in lattices.items()}
