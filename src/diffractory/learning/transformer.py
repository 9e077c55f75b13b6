"""Features as the first step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from diffractory.errors import ModelError
from diffractory.patterns.feature_sets import compute_features, names_of_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import FeatureSpec, InvariantSpec


class PatternFeatures(TransformerMixin, BaseEstimator):
    """Computes a feature set from Bragg peaks; there is nothing to fit.

    Parameters
    ----------
    spec : RadialBasisSpec or InvariantSpec

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from diffractory.learning.boosting import BoostedClassifier
    >>> pipeline = make_pipeline(PatternFeatures(), BoostedClassifier(n_rounds=50))
    """

    def __init__(self, spec: FeatureSpec = InvariantSpec()) -> None:  # noqa: B008
        self.spec = spec

    def fit(self, X: PeakTable | Sequence[PeakTable], y: ArrayLike | None = None) -> Self:
        """Check the patterns.

        Parameters
        ----------
        X : PeakTable or sequence of PeakTable
            Patterns.
        y : ignored
            As scikit-learn's pipelines hand it on.

        Returns
        -------
        PatternFeatures
            This transformer: there is nothing to fit.

        Raises
        ------
        ModelError
            If they are not peak tables.
        """
        _as_table(X)
        return self

    def transform(self, X: PeakTable | Sequence[PeakTable]) -> NDArray[np.float32]:
        """Return the features of every pattern, of shape (n, n_features).

        Parameters
        ----------
        X : PeakTable or sequence of PeakTable
            n patterns.

        Returns
        -------
        ndarray of shape (n, n_features), float32

        Raises
        ------
        ModelError
            If the patterns are not peak tables.
        DiffractoryError
            If a position or an intensity is not finite.
        """
        return compute_features(_as_table(X), self.spec)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the name of every feature.

        Parameters
        ----------
        input_features : ignored
            As scikit-learn's pipelines hand it on.

        Returns
        -------
        ndarray of shape (n_features,), object
            In the order of the columns.
        """
        return np.array(names_of_features(self.spec), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _as_table(X: PeakTable | Sequence[PeakTable]) -> PeakTable:
    if isinstance(X, PeakTable):
        return X
    # scikit-learn's splitters make lists of single patterns.
    if not all(isinstance(table, PeakTable) for table in X):
        raise ModelError("patterns must be a PeakTable, or a list of them")
    return PeakTable.concatenate(list(X))
