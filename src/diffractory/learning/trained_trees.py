"""What trained trees answer, from their arrays alone: nothing that trains them has to be imported.

The estimators that learn (:mod:`~diffractory.learning.forests`, :mod:`~diffractory.learning.boosting`)
answer by these classes once they are trained; a saved model is loaded into them directly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.learning.matrices import check_features_of
from diffractory.learning.trees import TreeArrays, add_up, median, vote

#: Probabilities are kept away from 0: no pattern alone may rule anything out for good.
_LEAST_PROBABILITY = 1e-6


class TrainedVoteForest:
    """Trees that cast one whole vote each.

    Attributes
    ----------
    trees_ : TreeArrays
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    """

    trees_: TreeArrays
    classes_: NDArray[Any]
    n_features_in_: int

    def votes(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the number of trees voting for each class, of shape (n, n_classes).

        Raises
        ------
        ModelError
            If the forest is not fitted or the features do not fit it.
        """
        features = check_features_of(self, X)
        return vote(features, self.trees_, len(self.classes_))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the share of trees voting for each class, of shape (n, n_classes)."""
        return self.votes(X) / self.trees_.n_trees

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most voted label of each row, of shape (n,); the lower class wins a tie."""
        top = self.votes(X).argmax(axis=1)
        chosen: NDArray[Any] = self.classes_[top]
        return chosen


class TrainedMedianForest:
    """Trees whose median is the answer.

    Attributes
    ----------
    trees_ : TreeArrays
    n_outputs_ : int
    n_features_in_ : int
    """

    trees_: TreeArrays
    n_outputs_: int
    n_features_in_: int

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the median over trees, of shape (n, n_outputs), or (n,) for one target.

        Raises
        ------
        ModelError
            If the forest is not fitted or the features do not fit it.
        """
        features = check_features_of(self, X)
        values = median(features, self.trees_)
        return values[:, 0] if self.n_outputs_ == 1 else values


class TrainedBoostedClassifier:
    """Trees whose values add up to the margin of each class.

    Attributes
    ----------
    trees_ : TreeArrays
        Tree i belongs to class i modulo the number of classes.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    """

    trees_: TreeArrays
    classes_: NDArray[Any]
    n_features_in_: int

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithm of the probability of each class, of shape (n, n_classes)."""
        features = check_features_of(self, X)
        margins = add_up(features, self.trees_, len(self.classes_))
        return normalised_log(margins)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, of shape (n, n_classes)."""
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, of shape (n,)."""
        top = self.predict_log_proba(X).argmax(axis=1)
        chosen: NDArray[Any] = self.classes_[top]
        return chosen


class TrainedBoostedRegressor:
    """Trees whose values add up to each target.

    Attributes
    ----------
    trees_ : TreeArrays
        Tree i belongs to target i modulo the number of targets.
    n_outputs_ : int
    n_features_in_ : int
    """

    trees_: TreeArrays
    n_outputs_: int
    n_features_in_: int

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the predicted medians, of shape (n, n_outputs)."""
        return add_up(check_features_of(self, X), self.trees_, self.n_outputs_)


def normalised_log(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of probabilities that sum to 1 over the last axis, none below a millionth."""
    shifted = np.exp(margins - margins.max(axis=-1, keepdims=True))
    shares = np.maximum(shifted / shifted.sum(axis=-1, keepdims=True), _LEAST_PROBABILITY)
    return np.asarray(np.log(shares / shares.sum(axis=-1, keepdims=True)))
