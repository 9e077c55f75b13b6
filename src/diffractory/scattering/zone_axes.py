"""Symmetry-unique zone axes: directions near-uniform over the fundamental zone of a Laue group.

Every number here is the same to the last bit on every machine (:mod:`.exact_arithmetic`): determinants and
traces, which are not, only decide by wide margins.
See docs/decisions/0003-zone-axes.md.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import OrientationError
from diffractory.scattering.exact_arithmetic import (
    cos_and_sin,
    images_under,
    matrix_products,
    scalar_products,
    unit_vectors,
)

#: Candidate directions for each axis wanted; more makes the sampling smoother and slower.
_CANDIDATES_PER_AXIS = 60
#: Rounds of relaxation after the farthest-point start.
_RELAXATIONS = 12
#: Directions looked at together: what belongs to them stays in the processor's cache.
_BLOCK = 256
#: Directions closer than this are the same, in radians.
_SAME = 1e-6
#: Numbers of operations that Laue groups have.
_ORDERS = frozenset({2, 4, 6, 8, 12, 16, 24, 48})


def sample_zone_axes(laue_operations: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return exactly ``count`` symmetry-unique directions, near-uniform over the fundamental zone.

    Rotation axes of the group (the corners of its zone) come first; the others are placed by
    farthest-point sampling and evened out by Lloyd's relaxation in the metric of directions
    modulo symmetry, where a direction on a mirror plane or an axis stays on it.

    Parameters
    ----------
    laue_operations : ndarray of shape (n, 3, 3)
        All operations of the Laue group, inversion included.
    count : int
        Number of directions.

    Returns
    -------
    ndarray of shape (count, 3)
        Unit vectors inside one fundamental zone, that of py4DSTEM for conventional cells.

    Raises
    ------
    OrientationError
        If the operations are not those of a Laue group.
    """
    given = np.asarray(laue_operations, dtype=np.float64)
    _check_group(given)
    # Rounded, so that crystals of one Laue group in one setting share the cached axes.
    key = np.round(given, 7) + 0.0
    order = np.lexsort(key.reshape(len(key), -1).T)
    return _sample(key[order].tobytes(), len(key), count).copy()


def _check_group(operations: NDArray[np.float64]) -> None:
    if operations.ndim != 3 or operations.shape[1:] != (3, 3) or not np.all(np.isfinite(operations)):
        raise OrientationError(
            f"operations of a Laue group must be finite and of shape (n, 3, 3), got {operations.shape}"
        )
    inverted = np.abs(operations + np.eye(3)).max(axis=(1, 2), initial=0.0).min(initial=np.inf) < _SAME
    if len(operations) not in _ORDERS or not inverted:
        raise OrientationError(
            f"{len(operations)} operations{'' if inverted else ' without the inversion'} are no Laue group",
            "it holds all rotations of a crystal, and each of them times the inversion",
            "Take what diffractory.crystals.symmetry.laue_operations returns",
        )


@lru_cache(maxsize=256)
def _sample(operations_bytes: bytes, n_operations: int, count: int) -> NDArray[np.float64]:
    operations = np.frombuffer(operations_bytes).reshape(n_operations, 3, 3)
    # Operations read from a structure are orthogonal to 1e-7 or so: take the nearest that are, by
    # Newton's iteration for the polar factor, each step of which squares what is left of the error.
    for _ in range(3):
        transposed = operations.transpose(0, 2, 1)
        operations = matrix_products(
            operations, 1.5 * np.eye(3) - 0.5 * matrix_products(transposed, operations)
        )
    corners = _rotation_axes(operations)
    candidates = np.concatenate([corners, _candidates(operations, count)])
    axes = _farthest_points(operations, candidates, min(len(corners), count), count)
    axes = _relax(operations, axes, candidates[len(corners) :], min(len(corners), count))
    return fold_into_zone(axes, operations)


def _sphere(count: int) -> NDArray[np.float64]:
    """Return Fibonacci's near-uniform directions on the whole sphere, of shape (count, 3)."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    cosine, sine = cos_and_sin((1.0 + np.sqrt(5.0)) / 2.0 * index % 1.0)
    radius = np.sqrt(1.0 - z * z)
    return np.stack([radius * cosine, radius * sine, z], axis=1)


def _candidates(operations: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return directions over one zone: a uniform filling, and a dense line along each mirror."""
    wanted = max(2000, _CANDIDATES_PER_AXIS * count)
    interior = _sphere(wanted * len(operations))
    folded = fold_into_zone(interior, operations)
    interior = interior[np.abs(folded - interior).max(axis=1) < _SAME]
    lines: list[NDArray[np.float64]] = []
    cosine, sine = (values[:, None] for values in cos_and_sin(np.arange(720) / 720))
    for normal in _mirror_normals(operations):
        first = unit_vectors(np.cross(normal, np.eye(3)[np.argmin(np.abs(np.round(normal, 6)))]))
        circle = cosine * first + sine * np.cross(normal, first)
        lines.append(_unique_directions(fold_into_zone(circle, operations)))
    return np.concatenate([interior, *lines])


def _mirror_normals(operations: NDArray[np.float64]) -> NDArray[np.float64]:
    mirrors = [w for w in operations if np.isclose(np.trace(w), 1.0) and np.linalg.det(w) < 0.0]
    # W = I − 2 n nᵀ
    return _lines(np.array([np.eye(3) - w for w in mirrors]).reshape(-1, 3, 3))


def _lines(projections: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit vector n of each multiple of n nᵀ, of shape (N, 3), its first component positive."""
    columns = projections.transpose(0, 2, 1)
    longest = np.argmax((columns * columns).sum(axis=2), axis=1)
    lines = unit_vectors(columns[np.arange(len(columns)), longest])
    leading = np.argmax(np.abs(lines) > _SAME, axis=1)
    oriented: NDArray[np.float64] = lines * np.sign(lines[np.arange(len(lines)), leading])[:, None]
    return oriented


def _rotation_axes(operations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one direction for each kind of rotation axis, highest order first, in the zone."""
    proper = [w for w in operations if np.linalg.det(w) > 0.0 and np.trace(w) < 3.0 - 1e-6]
    # The smallest angle about an axis tells its order: sort by it, largest trace first.
    proper.sort(key=lambda w: -round(float(np.trace(w)), 6))
    power = total = np.broadcast_to(np.eye(3), (len(proper), 3, 3))
    # All orders divide twelve: twelve turns one after the other sum up to twelve times n nᵀ.
    for _ in range(11):
        power = matrix_products(power, np.array(proper).reshape(-1, 3, 3))
        total = total + power
    axes = _lines(total)
    # Modulo symmetry: a border of the zone may hold several equivalents of one axis.
    same = _similarity(operations, axes, axes) > 1.0 - 1e-9
    first = [i for i in range(len(axes)) if not same[i, :i].any()]
    return fold_into_zone(axes[first], operations)


def _unique_directions(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop repeated rows, keep the first of each."""
    if len(directions) == 0:
        return directions
    _, first = np.unique(np.round(directions, 6) + 0.0, axis=0, return_index=True)
    kept: NDArray[np.float64] = directions[np.sort(first)]
    return kept


def fold_into_zone(directions: NDArray[np.float64], operations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace each direction by its symmetry equivalent in one fundamental zone.

    The zone is the set of directions nearer to a fixed generic direction than their equivalents
    are. For conventional cells this is the zone of py4DSTEM's orientation plan.

    Parameters
    ----------
    directions : ndarray of shape (N, 3)
    operations : ndarray of shape (n, 3, 3)

    Returns
    -------
    ndarray of shape (N, 3)
    """
    reference = _zone_reference(operations)
    best = np.full(len(directions), -np.inf)
    winner = np.zeros(len(directions), dtype=np.int64)
    for index, operation in enumerate(operations):
        # The angle between image and reference is that between direction and reference turned back.
        score = scalar_products(directions, images_under(operation.T, reference[None]))[:, 0]
        # Equal scores lie on the zone's border: the first operation wins, always the same one.
        better = score > best + 1e-9
        winner[better], best[better] = index, score[better]
    return _images(operations, winner, directions)


def _images(
    operations: NDArray[np.float64], which: NDArray[np.int64], directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the image of each direction under its own operation."""
    images = np.empty((len(directions), 3))
    for index, operation in enumerate(operations):
        chosen = which == index
        images[chosen] = images_under(operation, directions[chosen])
    return images


def _zone_reference(operations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a direction inside py4DSTEM's zone for this Laue group in its conventional cell."""
    order = len(operations)
    threefold = sum(np.isclose(np.trace(w), 0.0) and np.linalg.det(w) > 0 for w in operations)
    angles = {  # order of the group: (angle to z, azimuth) of the middle of the zone, in degrees
        2: (0.0, 0.0),
        4: (45.0, 90.0),
        6: (90.0, 0.0),
        8: (54.7356, 45.0),
        12: (54.7356, 0.0) if _has_no_sixfold(operations) else (54.7356, 30.0),
        16: (54.7356, 22.5),
        24: (54.7356, 15.0) if threefold == 2 else (0.0, 0.0),
        48: (0.0, 0.0),
    }
    if threefold == 8:
        corners = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
        if order == 48:
            corners[0] = [0.0, 1.0, 1.0]
        middle = unit_vectors(np.array(corners)).sum(axis=0)
        return unit_vectors(middle)
    cosine, sine = cos_and_sin(np.array(angles[order]) / 360.0)
    return np.array([sine[0] * cosine[1], sine[0] * sine[1], cosine[0]])


def _has_no_sixfold(operations: NDArray[np.float64]) -> bool:
    return not any(np.isclose(np.trace(w), 2.0) and np.linalg.det(w) > 0 for w in operations)


def _similarity(
    operations: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the cosine of the angle between directions modulo symmetry, of shape (n_a, n_b)."""
    cosine = np.full((len(a), len(b)), -1.0)
    opposite = _opposites(operations)
    for number, operation in enumerate(operations):
        if number in opposite.values():
            continue
        products = scalar_products(a, images_under(operation, b))
        if number in opposite:
            np.abs(products, out=products)
        np.maximum(cosine, products, out=cosine)
    return cosine


def _opposites(operations: NDArray[np.float64]) -> dict[int, int]:
    """Return which operation gives the opposite of whose images; Laue groups have the inversion."""
    same = (operations[:, None] == -operations).all(axis=(2, 3))
    return dict(np.argwhere(np.triu(same)).tolist())


def _farthest_points(
    operations: NDArray[np.float64], candidates: NDArray[np.float64], n_fixed: int, count: int
) -> NDArray[np.float64]:
    """Choose ``count`` candidates, each as far as possible from those before it."""
    chosen = list(range(n_fixed)) or [0]
    nearest = _similarity(operations, candidates, candidates[chosen]).max(axis=1)
    while len(chosen) < count:
        # Rounded, so that rounding errors of the machine cannot change which of two ties wins.
        chosen.append(int(np.argmin(np.round(nearest, 9))))
        np.maximum(nearest, _similarity(operations, candidates, candidates[chosen[-1:]])[:, 0], out=nearest)
    return candidates[chosen[:count]]


def _relax(
    operations: NDArray[np.float64], axes: NDArray[np.float64], filling: NDArray[np.float64], n_fixed: int
) -> NDArray[np.float64]:
    """Move each direction to the middle of its cell, within the symmetry elements it lies on."""
    axes = axes.copy()
    stabilisers = [_stabiliser_projection(operations, axis) for axis in axes]
    for _ in range(_RELAXATIONS):
        owner, image = _assign(operations, axes, filling)
        for index in range(n_fixed, len(axes)):
            middle = images_under(stabilisers[index], image[owner == index].sum(axis=0)[None])[0]
            if np.abs(middle).max() > 1e-6:
                axes[index] = unit_vectors(middle)
    return axes


def _assign(
    operations: NDArray[np.float64], axes: NDArray[np.float64], filling: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the axis nearest to each direction modulo symmetry, and its image that is nearest to it."""
    owner, winner = np.zeros((2, len(filling)), dtype=np.int64)
    turned = [images_under(operation.T, axes) for operation in operations]
    opposite = _opposites(operations)
    for first in range(0, len(filling), _BLOCK):
        block = slice(first, first + _BLOCK)
        best = np.full(len(filling[block]), -np.inf)
        found = {}
        for number, equivalents in enumerate(turned):
            if number not in found:
                cosine = scalar_products(filling[block], equivalents)
                found[number] = _largest(cosine)
                if number in opposite:
                    found[opposite[number]] = _largest(np.negative(cosine, out=cosine))
            nearest, value = found.pop(number)
            better = value > best + 1e-12
            best[better], owner[block][better], winner[block][better] = value[better], nearest[better], number
    return owner, _images(operations, winner, filling)


def _largest(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where in each row the largest value is, the first of them, and the value."""
    place = values.argmax(axis=1)
    return place, values[np.arange(len(values)), place]


def _stabiliser_projection(
    operations: NDArray[np.float64], direction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the projection onto what all operations that keep a direction keep."""
    keeping = [w for w in operations if np.allclose(w @ direction, direction, atol=1e-6)]
    projection: NDArray[np.float64] = np.mean(keeping, axis=0)
    return projection
