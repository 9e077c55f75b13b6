"""The feature sets that models are trained on, behind one function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.invariants import (
    invariant_features,
    invariant_lattices,
    invariant_names,
    lattice_features,
)
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import feature_names, radial_basis
from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.specs import FeatureSpec, InvariantSpec


def compute_features(
    table: PeakTable,
    spec: FeatureSpec,
    lattices: SpotLattices | None = None,
    of_lattice: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Compute the features of every pattern, of shape (n_patterns, n_features).

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹, intensities on the scale that the model was trained on.
    spec : RadialBasisSpec or InvariantSpec
    lattices : SpotLattices, optional
        What :func:`lattices_of` gave for the same patterns; saves finding them again.
    of_lattice : ndarray, optional
        What :func:`slow_features` gave for the same patterns; saves computing them again.

    Returns
    -------
    ndarray of shape (n_patterns, n_features), float32

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, simulate
    >>> from diffractory.patterns.feature_sets import compute_features
    >>> from diffractory.patterns.peak_table import PeakTable
    >>> from diffractory.specs import InvariantSpec
    >>> iron = Crystal(2.866 * np.eye(3), [26, 26], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> pattern, = simulate(iron, np.eye(3)[None])
    >>> table = PeakTable.from_lists([pattern.q], [pattern.intensity[0]], [0])
    >>> compute_features(table, InvariantSpec()).shape
    (1, 703)
    """
    if isinstance(spec, InvariantSpec):
        return invariant_features(table, spec, lattices, of_lattice)
    return radial_basis(table, spec)


def lattices_of(table: PeakTable, spec: FeatureSpec) -> SpotLattices | None:
    """Return the lattices that the features of a spec describe; None where they describe none.

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.
    """
    return invariant_lattices(table, spec) if isinstance(spec, InvariantSpec) else None


def slow_features(features: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32] | None:
    """Return the few columns that took most of the time, as a copy; None where all are fast."""
    return lattice_features(features).copy() if isinstance(spec, InvariantSpec) else None


def names_of_features(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the name of every column of :func:`compute_features`.

    Parameters
    ----------
    spec : RadialBasisSpec or InvariantSpec

    Returns
    -------
    tuple of str
    """
    return invariant_names(spec) if isinstance(spec, InvariantSpec) else feature_names(spec)


def number_of_features(spec: FeatureSpec) -> int:
    """Return the number of columns of :func:`compute_features`.

    Parameters
    ----------
    spec : RadialBasisSpec or InvariantSpec

    Returns
    -------
    int
    """
    return len(names_of_features(spec))
