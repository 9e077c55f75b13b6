"""The feature sets that models are trained on, behind one function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.invariants import invariant_features, invariant_names
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import feature_names, radial_basis
from diffractory.specs import FeatureSpec, InvariantSpec


def compute_features(table: PeakTable, spec: FeatureSpec) -> NDArray[np.float32]:
    """Compute the features of every pattern, of shape (n_patterns, n_features).

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.
    """
    return invariant_features(table, spec) if isinstance(spec, InvariantSpec) else radial_basis(table, spec)


def names_of_features(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the name of every column of :func:`compute_features`."""
    return invariant_names(spec) if isinstance(spec, InvariantSpec) else feature_names(spec)


def number_of_features(spec: FeatureSpec) -> int:
    """Return the number of columns of :func:`compute_features`."""
    return len(names_of_features(spec))
