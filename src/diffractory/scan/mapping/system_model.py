"""What a model must offer so that a scan can be predicted with it; scans know no more of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffractory.learning.aggregation import EvidenceRule


class Votes(Protocol):
    """Votes of n patterns, as the model gives them."""

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of trees for each crystal system, or its probability, of shape (n, n_systems)."""

    @property
    def system(self) -> NDArray[np.int8]:
        """Code of the crystal system with the largest share, of shape (n,)."""

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Share of that system, of shape (n,)."""

    @property
    def difference(self) -> NDArray[np.float64]:
        """Difference confidence, of shape (n,)."""


class Within(Protocol):
    """Space groups and lattices of n patterns, as the model gives them."""

    @property
    def space_group(self) -> NDArray[np.int16]:
        """International number, of shape (n,); 0 = none."""

    @property
    def group_confidence(self) -> NDArray[np.float64]:
        """Share of that space group, of shape (n,)."""

    @property
    def group_difference(self) -> NDArray[np.float64]:
        """Difference confidence of the space group, of shape (n,)."""

    @property
    def lattice(self) -> NDArray[np.float64]:
        """Lattice constants a, b, c in Å, of shape (n, 3); NaN = none."""


class SystemModel(Protocol):
    """What a model must offer to predict a scan; ``learning.SystemHierarchy`` does."""

    @property
    def systems_(self) -> Sequence[int] | NDArray[Any]:
        """Crystal-system codes in the order of the columns of shares."""

    def vote_systems(self, X: NDArray[np.float32], /) -> Votes:
        """Vote on the crystal systems of features of shape (n, n_features)."""

    @property
    def evidence_rule(self) -> EvidenceRule | None:
        """How evidence of several patterns is pooled; None where probabilities are not calibrated."""

    def locate(self, X: NDArray[np.float32], /) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Say which features are unlike those of training, (n,), and where they lie, (n, 2)."""

    def predict_within(self, X: NDArray[np.float32], systems: NDArray[np.int8], /) -> Within:
        """Predict space groups and lattices, given crystal systems of shape (n,); -1 = none."""
