"""Two forests as the paper uses them: trees that vote, and the median over trees.

Both grow the trees of scikit-learn's random forests, under whatever joblib backend is active, and
keep only plain arrays of them.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from diffractory.errors import ModelError
from diffractory.learning.growing import grow_trees
from diffractory.learning.matrices import check_labelled, check_training
from diffractory.learning.trained_trees import TrainedMedianForest, TrainedVoteForest
from diffractory.learning.trees import TreeArrays


class _Forest(BaseEstimator):
    """Parameters of both kinds and the growing they share."""

    def __init__(
        self,
        n_estimators: int = 80,
        max_depth: int | None = 40,
        max_features: str | float | None = "sqrt",
        n_jobs: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.max_features = max_features
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _grow(
        self, kind: Literal["classifier", "regressor"], features: NDArray[np.float32], targets: NDArray[Any]
    ) -> TreeArrays:
        settings = {"max_depth": self.max_depth, "max_features": self.max_features}
        return grow_trees(
            kind, features, targets, self.n_estimators, settings, self.random_state, self.n_jobs
        )


class VoteForestClassifier(ClassifierMixin, _Forest, TrainedVoteForest):
    """Random forest in which every tree casts one whole vote.

    Parameters
    ----------
    n_estimators : int
        Number of trees.
    max_depth : int or None
        Largest depth of a tree.
    max_features : {"sqrt", "log2"}, int, float or None
        Features tried at each split, as in scikit-learn.
    n_jobs : int or None
        Trees trained at the same time; None = what the active joblib backend offers.
    random_state : int or None
        Seed of the trees.

    Attributes
    ----------
    trees_ : TreeArrays
    classes_ : ndarray of shape (n_classes,)
        Sorted labels. One class alone is learned as a constant.
    n_features_in_ : int
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features (n, n_features) and labels (n,).

        Raises
        ------
        ModelError
            If the features are not a finite matrix with one label for each row, none missing.
        """
        features, labels = check_labelled(X, y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.trees_ = self._grow("classifier", features, codes)
        self.n_features_in_ = features.shape[1]
        return self


class MedianForestRegressor(RegressorMixin, _Forest, TrainedMedianForest):
    """Random forest that predicts the median over its trees, for several targets at once.

    Parameters
    ----------
    n_estimators : int
        Number of trees.
    max_depth : int or None
        Largest depth of a tree.
    max_features : {"sqrt", "log2"}, int, float or None
        Features tried at each split, as in scikit-learn.
    n_jobs : int or None
        Trees trained at the same time; None = what the active joblib backend offers.
    random_state : int or None
        Seed of the trees.

    Attributes
    ----------
    trees_ : TreeArrays
    n_outputs_ : int
    n_features_in_ : int
    """

    def __init__(
        self,
        n_estimators: int = 80,
        max_depth: int | None = 100,
        max_features: str | float | None = "sqrt",
        n_jobs: int | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(n_estimators, max_depth, max_features, n_jobs, random_state)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features (n, n_features) and targets (n,) or (n, n_outputs).

        Raises
        ------
        ModelError
            If features or targets are not finite, or their numbers of rows differ.
        """
        features, values = check_training(X, y)
        targets = values.astype(np.float64)
        if targets.ndim > 2 or not np.all(np.isfinite(targets)):
            raise ModelError(f"targets must be finite and of shape (n, n_outputs), got {targets.shape}")
        self.n_outputs_ = 1 if targets.ndim == 1 else targets.shape[1]
        self.trees_ = self._grow("regressor", features, targets)
        self.n_features_in_ = features.shape[1]
        return self
