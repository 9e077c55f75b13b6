"""Orientations: symmetry-unique zone axes and the in-plane frame that belongs to each.

An orientation matrix R has the lab axes x, y, z as columns, in the crystal's Cartesian frame;
z is the zone axis, and a reciprocal vector reads Rᵀ g in the lab.

Every number here is the same to the last bit on every machine, so that a run may be shared out among
nodes of several kinds and any of them may compute a partition again. Mathematics libraries differ by
rounding from one processor to the next: BLAS fuses and reorders, sines and eigenvectors come out
another way. So all is sums, products, quotients and square roots, element by element, which IEEE 754
fixes; matrix products, sines and axes are written out.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import OrientationError
from diffractory.specs import OrientationSpec

#: Candidate directions for each axis wanted; more makes the sampling smoother and slower.
_CANDIDATES_PER_AXIS = 60
#: Rounds of relaxation after the farthest-point start.
_RELAXATIONS = 12
#: Directions looked at together: what belongs to them stays in the processor's cache.
_BLOCK = 256
#: Directions closer than this are the same, in radians.
_SAME = 1e-6
#: Terms of the series of sine and cosine within an eighth of a turn: the next ones are below rounding.
_TERMS = 9
#: Squares of lengths below this are zero.
_TINY = 1e-300


def sample_orientations(
    laue_operations: NDArray[np.float64], spec: OrientationSpec, crystal_id: str = ""
) -> NDArray[np.float64]:
    """Return orientations near-uniform over the fundamental zone of a Laue group.

    Parameters
    ----------
    laue_operations : ndarray of shape (n, 3, 3)
        All operations of the Laue group, inversion included, in the crystal's Cartesian frame.
    spec : OrientationSpec
        Number, in-plane frame and seed.
    crystal_id : str
        Seeds the random in-plane angles, together with the seed and the orientation's index.

    Returns
    -------
    ndarray of shape (spec.count, 3, 3)
        Orientation matrices, one for each symmetry-unique zone axis.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import sample_orientations
    >>> from diffractory.specs import OrientationSpec
    >>> inversion_only = np.stack([np.eye(3), -np.eye(3)])
    >>> matrices = sample_orientations(inversion_only, OrientationSpec(count=20))
    >>> matrices.shape, bool(np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3)))
    ((20, 3, 3), True)
    """
    matrices = minimal_rotations(sample_zone_axes(laue_operations, spec.count))
    if spec.in_plane == "random":
        turns = np.array([_in_plane_turn(spec.seed, crystal_id, i) for i in range(spec.count)])
        cosine, sine = (values[:, None] for values in _cos_and_sin(turns))
        first, second = matrices[:, :, 0], matrices[:, :, 1]
        turned = first * cosine + second * sine, second * cosine - first * sine
        matrices = np.stack([*turned, matrices[:, :, 2]], axis=2)
    return matrices


def _cos_and_sin(turns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cosine and sine of angles in full turns."""
    quarter = np.round(4.0 * turns)
    x = 2.0 * np.pi * (turns - quarter / 4.0)
    square = x * x
    cosine, sine = np.ones_like(x), np.ones_like(x)
    for term in range(_TERMS, 0, -1):
        cosine = 1.0 - square / (2 * term * (2 * term - 1)) * cosine
        sine = 1.0 - square / (2 * term * (2 * term + 1)) * sine
    sine = x * sine
    past = (quarter % 4).astype(np.int64)
    swapped = past % 2 == 1
    cosine, sine = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    return np.where((past == 1) | (past == 2), -cosine, cosine), np.where(past >= 2, -sine, sine)


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of matrices of shape (…, 3, 3)."""
    product: NDArray[np.float64] = a[..., :, :1] * b[..., :1, :]
    product += a[..., :, 1:2] * b[..., 1:2, :]
    product += a[..., :, 2:] * b[..., 2:, :]
    return product


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors of shape (…, 3) divided by their lengths."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    unit: NDArray[np.float64] = vectors / np.sqrt(x * x + y * y + z * z)[..., None]
    return unit


def _apply(operation: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the images of directions of shape (N, 3) under an operation of shape (3, 3)."""
    x, y, z = directions.T
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in operation], axis=1)


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scalar products of directions, of shape (n_a, n_b)."""
    cosines: NDArray[np.float64] = a[:, :1] * b[:, 0]
    term = a[:, 1:2] * b[:, 1]
    cosines += term
    np.multiply(a[:, 2:], b[:, 2], out=term)
    cosines += term
    return cosines


def _in_plane_turn(seed: int, crystal_id: str, index: int) -> float:
    # A hash of the item itself: the angle depends neither on partitions nor on order.
    digest = hashlib.sha256(f"{seed}/{crystal_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def minimal_rotations(zone_axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest rotation that takes z to each zone axis: the frames of py4DSTEM's plan.

    Parameters
    ----------
    zone_axes : ndarray of shape (N, 3)
        Unit vectors in the crystal's Cartesian frame.

    Returns
    -------
    ndarray of shape (N, 3, 3)
        Rz(−α) Rx(−ε) Rz(α) with α = atan2(x, y) and ε the angle to z, as rational functions of the
        axis (Rodrigues).
    """
    x, y, z = zone_axes.T
    radius = x * x + y * y
    # 1 / (1 + z), which near z = −1 is better had from the radius; at −1 itself, a half turn about x.
    south = z < 0.0
    factor = np.where(south, 1.0 - z, 1.0) / np.where(south, np.where(radius > _TINY, radius, 1.0), 1.0 + z)
    half_turn = south & (radius <= _TINY)
    frames = np.empty((len(zone_axes), 3, 3))
    frames[:, 0, 0] = 1.0 - factor * x * x
    frames[:, 1, 1] = np.where(half_turn, -1.0, 1.0 - factor * y * y)
    frames[:, 0, 1] = frames[:, 1, 0] = -factor * x * y
    frames[:, 0, 2], frames[:, 1, 2], frames[:, 2, 2] = x, y, z
    frames[:, 2, 0], frames[:, 2, 1] = -x, -y
    return frames


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
    """
    # Rounded, so that crystals of one Laue group in one setting share the cached axes.
    key = np.round(np.asarray(laue_operations, dtype=np.float64), 7) + 0.0
    order = np.lexsort(key.reshape(len(key), -1).T)
    return _sample(key[order].tobytes(), len(key), count).copy()


@lru_cache(maxsize=256)
def _sample(operations_bytes: bytes, n_operations: int, count: int) -> NDArray[np.float64]:
    operations = np.frombuffer(operations_bytes).reshape(n_operations, 3, 3)
    # Operations read from a structure are orthogonal to 1e-7 or so: take the nearest that are, by
    # Newton's iteration for the polar factor, each step of which squares what is left of the error.
    for _ in range(3):
        transposed = operations.transpose(0, 2, 1)
        operations = _product(operations, 1.5 * np.eye(3) - 0.5 * _product(transposed, operations))
    corners = _rotation_axes(operations)
    candidates = np.concatenate([corners, _candidates(operations, count)])
    axes = _farthest_points(operations, candidates, min(len(corners), count), count)
    axes = _relax(operations, axes, candidates[len(corners) :], min(len(corners), count))
    return fold_into_zone(axes, operations)


def _sphere(count: int) -> NDArray[np.float64]:
    """Return Fibonacci's near-uniform directions on the whole sphere, of shape (count, 3)."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    cosine, sine = _cos_and_sin((1.0 + np.sqrt(5.0)) / 2.0 * index % 1.0)
    radius = np.sqrt(1.0 - z * z)
    return np.stack([radius * cosine, radius * sine, z], axis=1)


def _candidates(operations: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return directions over one zone: a uniform filling, and a dense line along each mirror."""
    wanted = max(2000, _CANDIDATES_PER_AXIS * count)
    interior = _sphere(wanted * len(operations))
    folded = fold_into_zone(interior, operations)
    interior = interior[np.abs(folded - interior).max(axis=1) < _SAME]
    lines: list[NDArray[np.float64]] = []
    cosine, sine = (values[:, None] for values in _cos_and_sin(np.arange(720) / 720))
    for normal in _mirror_normals(operations):
        first = _unit(np.cross(normal, np.eye(3)[np.argmin(np.abs(np.round(normal, 6)))]))
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
    lines = _unit(columns[np.arange(len(columns)), longest])
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
        power = _product(power, np.array(proper).reshape(-1, 3, 3))
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
        score = _cosines(directions, _apply(operation.T, reference[None]))[:, 0]
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
        images[chosen] = _apply(operation, directions[chosen])
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
        middle = _unit(np.array(corners)).sum(axis=0)
        return _unit(middle)
    cosine, sine = _cos_and_sin(np.array(angles[order]) / 360.0)
    return np.array([sine[0] * cosine[1], sine[0] * sine[1], cosine[0]])


def _has_no_sixfold(operations: NDArray[np.float64]) -> bool:
    return not any(np.isclose(np.trace(w), 2.0) and np.linalg.det(w) > 0 for w in operations)


def _similarity(
    operations: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the cosine of the angle between directions modulo symmetry, of shape (n_a, n_b)."""
    cosine = np.full((len(a), len(b)), -1.0)
    for operation in operations:
        np.maximum(cosine, _cosines(a, _apply(operation, b)), out=cosine)
    return cosine


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
            middle = _apply(stabilisers[index], image[owner == index].sum(axis=0)[None])[0]
            if np.abs(middle).max() > 1e-6:
                axes[index] = _unit(middle)
    return axes


def _assign(
    operations: NDArray[np.float64], axes: NDArray[np.float64], filling: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the axis nearest to each direction modulo symmetry, and its image that is nearest to it."""
    owner, winner = np.zeros((2, len(filling)), dtype=np.int64)
    turned = [_apply(operation.T, axes) for operation in operations]
    for first in range(0, len(filling), _BLOCK):
        block = slice(first, first + _BLOCK)
        best = np.full(len(filling[block]), -np.inf)
        for number, equivalents in enumerate(turned):
            cosine = _cosines(filling[block], equivalents)
            nearest = cosine.argmax(axis=1)
            value = cosine[np.arange(len(best)), nearest]
            better = value > best + 1e-12
            best[better], owner[block][better], winner[block][better] = value[better], nearest[better], number
    return owner, _images(operations, winner, filling)


def _stabiliser_projection(
    operations: NDArray[np.float64], direction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the projection onto what all operations that keep a direction keep."""
    keeping = [w for w in operations if np.allclose(w @ direction, direction, atol=1e-6)]
    projection: NDArray[np.float64] = np.mean(keeping, axis=0)
    return projection


def check_orientations(orientations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return orientations as a float array after checking that they are rotations.

    Parameters
    ----------
    orientations : array_like of shape (N, 3, 3)

    Raises
    ------
    OrientationError
        If the shape is wrong, a number is not finite, or a matrix is no rotation.
    """
    matrices = np.asarray(orientations, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise OrientationError(
            f"orientations must have shape (N, 3, 3), got {matrices.shape}",
            fix="For one orientation pass matrix[None]",
        )
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if not finite.all():
        raise OrientationError(f"orientation {int(np.argmin(finite))} holds NaN or infinity")
    deviation = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    wrong = (deviation > 1e-6) | (np.linalg.det(matrices) < 0.0)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise OrientationError(
            f"orientation {index} is not a rotation matrix: {np.round(matrices[index], 4).tolist()}",
            "its columns must be the lab axes x, y, z: orthonormal and right-handed",
        )
    return matrices
