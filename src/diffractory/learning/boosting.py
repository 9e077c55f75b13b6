"""Gradient-boosted trees: LightGBM trains them, plain arrays keep them, compiled code adds them up.

LightGBM is needed for training only. What it leaves is read from its text form, so a model is
applied without it and saved without pickle.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from diffractory.errors import ModelError
from diffractory.learning.matrices import check_labelled, check_training
from diffractory.learning.trained_trees import TrainedBoostedClassifier, TrainedBoostedRegressor
from diffractory.learning.trees import TreeArrays

_FEW_ROWS = 20


class _Boosted(BaseEstimator):
    """Parameters of both kinds and the training they share."""

    def __init__(
        self,
        n_rounds: int = 200,
        learning_rate: float = 0.1,
        n_leaves: int = 63,
        min_leaf: int = 50,
        feature_fraction: float = 0.3,
        row_fraction: float = 0.7,
        l2: float = 1.0,
        n_jobs: int | None = None,
        random_state: int = 0,
        on_round: Callable[[int, int], None] | None = None,
    ) -> None:
        self.n_rounds = n_rounds
        self.learning_rate = learning_rate
        self.n_leaves = n_leaves
        self.min_leaf = min_leaf
        self.feature_fraction = feature_fraction
        self.row_fraction = row_fraction
        self.l2 = l2
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.on_round = on_round

    def _train(self, X: NDArray[np.float32], y: NDArray[Any], objective: dict[str, Any]) -> TreeArrays:
        lightgbm = _lightgbm()
        settings = {
            **objective,
            "learning_rate": self.learning_rate,
            "num_leaves": self.n_leaves,
            "min_data_in_leaf": min(self.min_leaf, max(1, len(X) // 20)),
            "feature_fraction": self.feature_fraction,
            # Of few rows a share may be none at all.
            "bagging_fraction": self.row_fraction if len(X) >= _FEW_ROWS else 1.0,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "num_threads": self.n_jobs or 0,
            "seed": self.random_state,
            "deterministic": True,
            "force_col_wise": True,
            "max_bin": 127,
            "feature_pre_filter": False,
            "verbose": -1,
        }
        told = [self._tell] if self.on_round else []
        data = lightgbm.Dataset(X, y, params=settings)
        booster = lightgbm.train(settings, data, self.n_rounds, callbacks=told)
        return trees_of_booster(booster.model_to_string())

    def _tell(self, state: Any) -> None:
        if self.on_round:
            self.on_round(state.iteration + 1, self.n_rounds)


class BoostedClassifier(ClassifierMixin, _Boosted, TrainedBoostedClassifier):
    """Gradient-boosted classifier with one tree a class and round.

    Parameters
    ----------
    n_rounds : int
    learning_rate : float
    n_leaves : int
        Most leaves of a tree.
    min_leaf : int
        Fewest rows in a leaf; fewer where there are less than 20 times as many rows.
    feature_fraction, row_fraction : float
        Shares of the columns and rows that each tree sees.
    l2 : float
        Penalty on leaf values.
    n_jobs : int or None
        Threads; None = all cores.
    random_state : int
    on_round : callable, optional
        Told the round that is done and their number.

    Attributes
    ----------
    trees_ : TreeArrays
        Tree i belongs to class i modulo the number of classes.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features (n, n_features) and labels (n,). One class alone is learned as a constant.

        Raises
        ------
        ModelError
            If the features are not a finite matrix with one label for each row, a label is missing, or
            LightGBM is.
        """
        features, labels = check_labelled(X, y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_features_in_ = features.shape[1]
        if len(self.classes_) == 1:
            self.trees_ = TreeArrays.constant()
            return self
        objective = {"objective": "multiclass", "num_class": len(self.classes_)}
        self.trees_ = self._train(features, codes, objective)
        return self


class BoostedRegressor(RegressorMixin, _Boosted, TrainedBoostedRegressor):
    """Gradient-boosted regressor of medians, one target after the other.

    Parameters
    ----------
    n_rounds, learning_rate, n_leaves, min_leaf, feature_fraction, row_fraction, l2, n_jobs, random_state
        As of :class:`BoostedClassifier`.
    on_round : callable, optional
        As there; rounds start again with each target.

    Attributes
    ----------
    trees_ : TreeArrays
        Tree i belongs to target i modulo the number of targets.
    n_outputs_ : int
    n_features_in_ : int
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features (n, n_features) and targets (n, n_outputs) or (n,).

        Raises
        ------
        ModelError
            If features or targets are not finite, or their numbers of rows differ.
        """
        features, values = check_training(X, y)
        if values.ndim > 2 or not np.all(np.isfinite(values.astype(np.float64))):
            raise ModelError(f"targets must be finite and of shape (n, n_outputs), got {values.shape}")
        targets = values.astype(np.float64).reshape(len(values), -1)
        self.n_outputs_, self.n_features_in_ = targets.shape[1], features.shape[1]
        parts = [self._train(features, column, {"objective": "regression_l1"}) for column in targets.T]
        self.trees_ = TreeArrays.interleave(parts)
        return self


def trees_of_booster(text: str) -> TreeArrays:
    """Read the trees of LightGBM's text form.

    Children follow their parents: inner nodes keep their order and leaves come after them. Features are
    finite, so what LightGBM does with missing values is of no concern.

    Raises
    ------
    ModelError
        If a split is not a comparison of numbers.
    """
    parts = []
    for block in text.split("\nTree=")[1:]:
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        values = np.array(fields["leaf_value"].split(), dtype=np.float64)
        inner = len(values) - 1
        n_nodes = inner + len(values)
        left, right, feature = (np.full(n_nodes, -1, dtype=np.int32) for _ in range(3))
        threshold, leaf = np.zeros(n_nodes), np.zeros((n_nodes, 1))
        leaf[inner:, 0] = values
        if inner:
            if any(int(kind) & 1 for kind in fields["decision_type"].split()):
                raise ModelError("a tree splits categories, which these features have none of")
            for child, name in ((left, "left_child"), (right, "right_child")):
                numbers = np.array(fields[name].split(), dtype=np.int64)
                child[:inner] = np.where(numbers >= 0, numbers, inner + ~numbers)
            feature[:inner] = np.array(fields["split_feature"].split(), dtype=np.int64)
            threshold[:inner] = np.array(fields["threshold"].split(), dtype=np.float64)
        offsets = np.array([0, n_nodes], dtype=np.int64)
        parts.append(TreeArrays(left, right, feature, threshold, offsets, leaf_value=leaf))
    return TreeArrays.concatenate(parts) if parts else TreeArrays.constant()


def _lightgbm() -> Any:
    # Threads that spin while they wait for each other make training many times slower where other
    # processes use the cores too; the library reads this once, when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return importlib.import_module("lightgbm")
    except (ImportError, OSError) as error:
        raise ModelError(
            f"LightGBM cannot be loaded ({error})",
            "boosted models are trained with it (a trained one is applied without)",
            "Install it with `pip install lightgbm`; on Debian it needs the package libgomp1",
        ) from None
