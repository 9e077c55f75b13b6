"""What every model of crystal symmetry offers: crystal systems first, then what lies within them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ModelError
from diffractory.learning.aggregation import AggregatedLabels, EvidenceRule, difference_confidence
from diffractory.learning.domain import TrainingDomain
from diffractory.learning.matrices import check_features_of
from diffractory.specs import TrainingSpec


@dataclass(frozen=True, eq=False)
class SystemVotes:
    """Crystal system of each pattern.

    Parameters
    ----------
    share : ndarray of shape (n, n_systems)
        Share of the trees that vote for each crystal system, or its calibrated probability; columns in
        the order of the model's ``systems_``.
    system : ndarray of shape (n,), int8
        Code of the crystal system with the largest share; the lower code wins a tie.
    confidence : ndarray of shape (n,)
        Its share.
    difference : ndarray of shape (n,)
        Difference confidence, largest − second share.
    """

    share: NDArray[np.float64]
    system: NDArray[np.int8]
    confidence: NDArray[np.float64]
    difference: NDArray[np.float64]

    @classmethod
    def from_share(cls, share: NDArray[np.float64], systems: NDArray[np.int8]) -> Self:
        """Choose the crystal system with the largest share; ``systems`` are the codes of the columns."""
        top = share.argmax(axis=1)
        return cls(share, systems[top], share.max(axis=1), difference_confidence(share))

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return the chosen patterns (indices or a mask)."""
        return type(self)(
            self.share[chosen], self.system[chosen], self.confidence[chosen], self.difference[chosen]
        )


@dataclass(frozen=True, eq=False)
class WithinSystem:
    """What the models of one crystal system say about each pattern.

    Parameters
    ----------
    space_group : ndarray of shape (n,), int16
        Most voted space group; 0 where there is no model.
    group_confidence, group_difference : ndarray of shape (n,)
        Confidence and difference confidence of the space group; 0 where there is no model.
    lattice : ndarray of shape (n, 3)
        a, b, c in Å; NaN where there is no model.
    """

    space_group: NDArray[np.int16]
    group_confidence: NDArray[np.float64]
    group_difference: NDArray[np.float64]
    lattice: NDArray[np.float64]


@dataclass(frozen=True)
class TrainingSummary:
    """What a model saw of one crystal system: the reference that its predictions must beat.

    Parameters
    ----------
    n_patterns : int
    majority_group : int
        Most frequent space group.
    n_majority : int
        Its number of patterns.
    median_lattice : tuple of float
        Median a, b, c in Å.
    """

    n_patterns: int
    majority_group: int
    n_majority: int
    median_lattice: tuple[float, float, float]


class SystemHierarchy(ABC):
    """A model for the crystal system, and within each system models for space group and lattice.

    Attributes
    ----------
    spec : ForestSpec or BoostingSpec
    systems_ : ndarray of shape (n_systems,), int8
        Codes of the learned crystal systems, sorted.
    skipped_ : dict of str to str
        Why a crystal system was left out, or has no models of its own.
    training_ : dict of int to TrainingSummary
    domain_ : TrainingDomain
    n_features_in_ : int
    """

    spec: TrainingSpec
    systems_: NDArray[np.int8]
    skipped_: dict[str, str]
    training_: dict[int, TrainingSummary]
    domain_: TrainingDomain
    n_features_in_: int

    @property
    def classes_(self) -> NDArray[np.int8]:
        """Codes of the learned crystal systems, as scikit-learn's tools ask for them."""
        return self.systems_

    @property
    @abstractmethod
    def members_(self) -> dict[str, Any]:
        """Every trained model by its role and crystal system: ``system``, ``group-6``, ``lattice-6`` …."""

    @property
    def n_models_(self) -> int:
        """Number of trained models: 13 for six crystal systems."""
        return len(self.members_)

    @property
    @abstractmethod
    def group_classes_(self) -> dict[int, NDArray[Any]]:
        """Space groups that are told apart within each crystal system."""

    @abstractmethod
    def vote_systems(self, X: ArrayLike) -> SystemVotes:
        """Return the crystal system of each row of X (n, n_features), with the share of each.

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

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the share of each crystal system, of shape (n, n_systems).

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        ndarray of shape (n, n_systems)
            The ``share`` of :meth:`vote_systems`: of the trees' votes, which is not calibrated, or of boosted
            models the calibrated probability. Columns in the order of ``systems_``; rows add up to 1.

        Raises
        ------
        ModelError
            If the model is not trained or the features do not fit it.
        """
        return self.vote_systems(X).share

    @abstractmethod
    def pool_systems(self, votes: SystemVotes, groups: NDArray[Any]) -> AggregatedLabels:
        """Return the crystal system of each group of patterns by the model's own rule.

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

    @property
    def evidence_rule(self) -> EvidenceRule | None:
        """How evidence of several patterns is pooled; None where probabilities are not calibrated."""
        return None

    @abstractmethod
    def _within(self, code: int, part: NDArray[np.float32]) -> WithinSystem:
        """Apply the models of one crystal system to features (n, n_features)."""

    def predict(self, X: ArrayLike) -> NDArray[np.int8]:
        """Return the code of the crystal system with the largest share for each row.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        ndarray of shape (n,), int8
        """
        return self.vote_systems(X).system

    def predict_within(self, X: ArrayLike, system: ArrayLike) -> WithinSystem:
        """Predict space group and lattice of each row with the models of a given crystal system.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.
        system : array_like of shape (n,), int
            Code of the crystal system to use; −1 = none.

        Returns
        -------
        WithinSystem
            Of n patterns.

        Raises
        ------
        ModelError
            If the model is not trained, the features do not fit it, or a code does not exist.
        """
        features, codes = check_features_of(self, X), np.asarray(system)
        if codes.shape != (len(features),) or np.any((codes < -1) | (codes >= len(CRYSTAL_SYSTEMS))):
            raise ModelError(
                f"{len(features)} patterns with crystal-system codes of shape {codes.shape}",
                f"each pattern needs a code from -1 (none) to {len(CRYSTAL_SYSTEMS) - 1}",
            )
        n = len(features)
        result = WithinSystem(np.zeros(n, np.int16), np.zeros(n), np.zeros(n), np.full((n, 3), np.nan))
        for code in self.group_classes_:
            rows = np.flatnonzero(codes == code)
            if len(rows) == 0:
                continue
            # Copies only where the rows are a part: a scan is often of one system throughout.
            found = self._within(code, features if len(rows) == n else features[rows])
            for name, values in vars(found).items():
                getattr(result, name)[rows] = values
        return result

    def locate(self, X: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return where rows of X (n, n_features) lie among the training patterns.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        outside : ndarray of shape (n,), bool
            Unlike all but few training patterns.
        coordinates : ndarray of shape (n, 2)
            Along the first two principal components, in standard deviations of training.
        """
        features = check_features_of(self, X)
        return self.domain_.locate(features)


def seed_of(seed: int, role: int, code: int) -> int:
    """Return the seed of a model, by role and crystal system: adding one leaves the others as they are."""
    return int(np.random.SeedSequence([seed, role, code]).generate_state(1)[0])
