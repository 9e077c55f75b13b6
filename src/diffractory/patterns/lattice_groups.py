"""All rotation groups that a reduced lattice can have, and the metrics that each leaves alone.

They are the same for ever and take more than a second to enumerate: the package holds them as a file, which
:mod:`diffractory.patterns.lattice_group_search` makes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

#: Metric symmetries by the order of their rotation group: 2, 4, 8, 6, 12 and 24.
LATTICE_FAMILIES = ("monoclinic", "orthorhombic", "tetragonal", "rhombohedral", "hexagonal", "cubic")
#: Rows and columns of the six elements of a symmetric matrix: 11, 22, 33, 23, 13, 12.
METRIC_ELEMENTS = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
#: Name of the file beside this module.
GROUPS_FILE = "lattice_groups.npz"


@dataclass(frozen=True, eq=False)
class LatticeGroups:
    """All rotation groups of reduced lattices.

    Parameters
    ----------
    family : ndarray of shape (n_groups,), int64
        Index into ``LATTICE_FAMILIES``.
    dimension : ndarray of shape (n_groups,), int64
        Free parameters of the metric.
    metrics : ndarray of shape (n_groups, 4, 6)
        Basis of the metrics that the group leaves alone: elements as in ``METRIC_ELEMENTS``; unused
        rows are 0.
    axes : ndarray of shape (n_groups, 3, 3)
        Lattice vectors whose lengths make the cell: monoclinic the two-fold axis and two vectors
        that span the plane across it; orthorhombic the three axes; else the main axis and the
        shorter two-fold axis across it.
    two_folds : ndarray of shape (n_groups, 9), int64
        Monoclinic groups that each contains, by their place in these arrays; −1 where there are fewer.
    """

    family: NDArray[np.int64]
    dimension: NDArray[np.int64]
    metrics: NDArray[np.float64]
    axes: NDArray[np.float64]
    two_folds: NDArray[np.int64]


@lru_cache(maxsize=1)
def lattice_groups() -> LatticeGroups:
    """Return the rotation groups that the two-fold rotations of reduced cells generate."""
    with as_file(files("diffractory.patterns") / GROUPS_FILE) as path, np.load(path) as stored:
        return LatticeGroups(*(stored[field.name] for field in fields(LatticeGroups)))
