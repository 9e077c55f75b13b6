"""Matrices of features as models take them: finite, contiguous, with one target a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.errors import ModelError


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


def check_labelled(X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return features and labels of classes as arrays with the same number of rows, at least one.

    Raises
    ------
    ModelError
        If they do not fit each other, or a label is missing.
    """
    features, labels = check_training(X, y)
    if labels.ndim != 1:
        raise ModelError(f"labels must have shape ({len(features)},), got {labels.shape}")
    # Imported here: only training needs it.
    from pandas import isna

    missing = isna(labels)
    if np.any(missing):
        raise ModelError(
            f"the label of pattern {int(np.argmax(missing))} is missing",
            "it would be learned as a class of its own",
            "Leave out the patterns that have no label",
        )
    return features, labels


def check_features_of(model: Any, X: ArrayLike) -> NDArray[np.float32]:
    """Return features as a matrix that a fitted model can be applied to.

    Raises
    ------
    ModelError
        If the model is not fitted, or was trained on another number of features.
    """
    if not hasattr(model, "n_features_in_"):
        # Imported here: a trained model is applied without scikit-learn, which takes long to import.
        from diffractory.learning.untrained import UntrainedModelError

        raise UntrainedModelError(
            f"this {type(model).__name__} is not trained", fix="Call fit first, or load a model"
        )
    features = check_matrix(X)
    if features.shape[1] != model.n_features_in_:
        raise ModelError(
            f"the model was trained on {model.n_features_in_} features, got {features.shape[1]}",
            "features and model must come from the same settings",
            "Compute the features with the settings stored with the model",
        )
    return features
