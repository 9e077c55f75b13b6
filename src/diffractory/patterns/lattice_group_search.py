"""Enumerates the rotation groups of reduced lattices, and writes the file that the package reads them from.

``python -m diffractory.patterns.lattice_group_search`` writes it anew, beside this module.

References
----------
Lebedev, Vagin, Murshudov, Acta Cryst. D 62, 83 (2006): all two-fold rotations of a reduced cell
have elements −1, 0 and 1; there are 81 of them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.lattice_groups import GROUPS_FILE, METRIC_ELEMENTS, LatticeGroups
from diffractory.storage import atomic_path

_FAMILY_OF_ORDER = {2: 0, 4: 1, 8: 2, 6: 3, 12: 4, 24: 5}
_MAIN_AXIS_OF_ORDER = {2: 2, 8: 4, 6: 3, 12: 6, 24: 4}
#: The cubic group has so many two-fold rotations: three along its axes, six along face diagonals.
_MOST_TWO_FOLDS = 9


def enumerate_groups() -> LatticeGroups:
    """Enumerate the rotation groups that the two-fold rotations of reduced cells generate."""
    identity = np.eye(3, dtype=np.int64)
    candidates = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    proper = candidates[np.rint(np.linalg.det(candidates)) == 1]
    two_folds = [m for m in proper if np.trace(m) == -1 and np.array_equal(m @ m, identity)]
    groups: dict[frozenset[bytes], list[NDArray[np.int64]]] = {}

    def add(generators: list[NDArray[np.int64]]) -> None:
        group = _generated(generators)
        if group:
            groups.setdefault(frozenset(group), list(group.values()))

    every = np.array(two_folds)
    # Most products leave −1 … 1 at once: they need not be followed.
    allowed = np.abs(every[:, None] @ every).max(axis=(2, 3)) <= 1
    for index, first in enumerate(two_folds):
        add([first])
        for second in np.flatnonzero(allowed[index, :index]):
            add([first, two_folds[second]])
    # Two two-fold rotations make a dihedral group at most; a third one makes the cubic ones.
    for group in [members for members in groups.values() if len(members) == 8]:
        products = np.abs(np.array(group)[:, None] @ every).max(axis=(0, 2, 3))
        for third in np.flatnonzero(products <= 1):
            add([*group, two_folds[third]])
    ordered = sorted(groups.values(), key=lambda group: _FAMILY_OF_ORDER[len(group)])
    family, dimension, metrics, axes = zip(*map(_described, ordered), strict=True)
    place = {_two_folds(group)[0].tobytes(): i for i, group in enumerate(ordered) if len(group) == 2}
    contained = np.full((len(ordered), _MOST_TWO_FOLDS), -1)
    for row, group in zip(contained, ordered, strict=True):
        found = [place[rotation.tobytes()] for rotation in _two_folds(group)]
        row[: len(found)] = found
    return LatticeGroups(np.array(family), np.array(dimension), np.array(metrics), np.array(axes), contained)


def _generated(generators: list[NDArray[np.int64]]) -> dict[bytes, NDArray[np.int64]] | None:
    """Return the group of some rotations; None if an element leaves −1 … 1, as no reduced cell's does."""
    identity = np.eye(3, dtype=np.int64)
    members, new = {identity.tobytes(): identity}, list(generators)
    while new:
        matrix = new.pop()
        if np.abs(matrix).max() > 1:
            return None
        if matrix.tobytes() not in members:
            members[matrix.tobytes()] = matrix
            new += [matrix @ generator for generator in generators]
    return members


def _described(group: list[NDArray[np.int64]]) -> tuple[int, int, NDArray[Any], NDArray[Any]]:
    """Return family, free parameters, invariant metrics and axes of a group."""
    invariant = _invariant_metrics(group)
    metrics = np.zeros((4, 6))
    metrics[: len(invariant)] = invariant
    return _FAMILY_OF_ORDER[len(group)], len(invariant), metrics, _cell_axes(group)


def _invariant_metrics(group: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    conditions = []
    for rotation in group:
        change = np.empty((6, 6))
        for element, (row, column) in enumerate(zip(*METRIC_ELEMENTS, strict=True)):
            unit = np.zeros((3, 3))
            unit[row, column] = unit[column, row] = 1.0
            change[:, element] = (rotation.T @ unit @ rotation - unit)[METRIC_ELEMENTS]
        conditions.append(change)
    _, singular, rows = np.linalg.svd(np.concatenate(conditions))
    return np.asarray(rows[np.count_nonzero(singular > 1e-9) :])


def _cell_axes(group: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    order = len(group)
    two_folds = _two_folds(group)
    axes = np.zeros((3, 3))
    if order == 4:
        axes[:] = [_axis(rotation) for rotation in two_folds]
        return axes
    axes[0] = _axis(next(r for r in group if _order(r) == _MAIN_AXIS_OF_ORDER[order]))
    if order == 2:
        axes[1:] = _plane_across(two_folds[0])
    elif order != 24:
        # Lengths under one metric of the group: across the main axis, two kinds differ by a fixed factor.
        # Whole numbers: of equally long ones the first is taken, whatever a library's rounding.
        metric = sum(r.T @ np.diag([10, 13, 17]) @ r for r in group)
        across = [axis for axis in map(_axis, two_folds) if np.any(np.cross(axis, axes[0]))]
        axes[1] = min(across, key=lambda axis: int(axis @ metric @ axis))
    return axes


def _two_folds(group: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return [rotation for rotation in group if _order(rotation) == 2]


def _order(rotation: NDArray[np.int64]) -> int:
    return {-1: 2, 0: 3, 1: 4, 2: 6, 3: 1}[int(np.trace(rotation))]


def _axis(rotation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the shortest lattice vector along the axis of a rotation."""
    moved = rotation - np.eye(3, dtype=np.int64)
    crosses = [np.cross(moved[i], moved[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    longest = max(crosses, key=lambda vector: int(np.abs(vector).sum()))
    return np.asarray(longest // np.gcd.reduce(longest))


def _plane_across(two_fold: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two lattice vectors that span the lattice plane that a two-fold rotation turns by 180°."""
    small = sorted(map(np.array, itertools.product(range(-2, 3), repeat=3)), key=lambda v: np.abs(v).sum())
    turned = [v for v in small if np.any(v) and np.array_equal(two_fold @ v, -v)]
    second = next(v for v in turned if np.gcd.reduce(np.cross(turned[0], v)) == 1)
    return turned[0], second


def write_groups(path: Path) -> None:
    """Enumerate the groups and write their arrays to an .npz file."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **vars(enumerate_groups()))


if __name__ == "__main__":
    write_groups(Path(__file__).with_name(GROUPS_FILE))
