"""Two forests as the paper uses them: trees that vote, and the median over trees.

Both grow the trees of scikit-learn's random forests, under whatever joblib backend is active, and
keep only plain arrays of them.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.errors import ModelError
from diffractory.learning.estimator import ClassifierScore, Estimator, RegressorScore
from diffractory.learning.trees import TreeArrays, median, vote


class VoteForestClassifier(ClassifierScore, Estimator):
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

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features (n, n_features) and labels (n,).

        Raises
        ------
        ModelError
            If the features are not a finite matrix with one label for each row.
        """
        features, labels = check_training(X, y)
        self.classes_: NDArray[Any]
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.trees_ = _grown(self, "classifier", features, codes)
        self.n_features_in_ = features.shape[1]
        return self

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


class MedianForestRegressor(RegressorScore, Estimator):
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
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.max_features = max_features
        self.n_jobs = n_jobs
        self.random_state = random_state

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
        self.trees_ = _grown(self, "regressor", features, targets)
        self.n_features_in_ = features.shape[1]
        return self

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


def _grown(
    forest: VoteForestClassifier | MedianForestRegressor,
    kind: Literal["classifier", "regressor"],
    features: NDArray[np.float32],
    targets: NDArray[Any],
) -> TreeArrays:
    settings = {"max_depth": forest.max_depth, "max_features": forest.max_features}
    # Growing takes scikit-learn's own trees, which predicting does without.
    from diffractory.learning.growing import grow_trees

    return grow_trees(
        kind, features, targets, forest.n_estimators, settings, forest.random_state, forest.n_jobs
    )


def check_matrix(X: ArrayLike) -> NDArray[np.float32]:
    """Return features as a C-contiguous float32 matrix of shape (n, n_features).

    Raises
    ------
    ModelError
        If they are not a matrix of finite numbers.
    """
    try:
        features = np.ascontiguousarray(X, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(f"features are not a matrix of numbers ({error})") from None
    if features.ndim != 2:
        raise ModelError(f"features must have shape (n_patterns, n_features), got {features.shape}")
    # A sum is finite only if all terms are (or it overflows): no mask as large as the matrix.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = bool(np.isfinite(features.sum(dtype=np.float64)))
    if not finite:
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise ModelError(
            f"the features of pattern {row} are not finite",
            "a tree cannot compare them",
            "Check the peaks of that pattern",
        )
    return features


def rows_of(features: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows of a matrix, without copying where they follow each other."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and np.all(np.diff(rows) == 1):
        return features[rows[0] : rows[-1] + 1]
    return features[rows]


def check_training(X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return features and targets as arrays with the same number of rows, at least one.

    Raises
    ------
    ModelError
        If they do not fit each other.
    """
    features, targets = check_matrix(X), np.asarray(y)
    if len(features) == 0 or targets.ndim == 0 or len(targets) != len(features):
        raise ModelError(
            f"{len(features)} rows of features with targets of shape {targets.shape}",
            "training needs at least one row, and one target for each",
        )
    return features, targets


def check_features_of(model: Any, X: ArrayLike) -> NDArray[np.float32]:
    """Return features as a matrix that a fitted model can be applied to.

    Raises
    ------
    ModelError
        If the model is not fitted, or was trained on another number of features.
    """
    if not hasattr(model, "n_features_in_"):
        raise ModelError(f"this {type(model).__name__} is not trained", fix="Call fit first, or load a model")
    features = check_matrix(X)
    if features.shape[1] != model.n_features_in_:
        raise ModelError(
            f"the model was trained on {model.n_features_in_} features, got {features.shape[1]}",
            "features and model must come from the same radial-basis settings",
            "Compute the features with the settings stored with the model",
        )
    return features
