"""Orientations: symmetry-unique zone axes and the in-plane frame that belongs to each.

An orientation matrix R has the lab axes x, y, z as columns, in the crystal's Cartesian frame;
z is the zone axis, and a reciprocal vector reads Rᵀ g in the lab.

Sampled orientations are the same to the last bit on every machine (:mod:`.exact_arithmetic`), so that a
run may be shared out among nodes of several kinds and any of them may compute a partition again.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import OrientationError
from diffractory.scattering.exact_arithmetic import cos_and_sin
from diffractory.scattering.zone_axes import sample_zone_axes as sample_zone_axes
from diffractory.specs import OrientationSpec

#: Squares of lengths below this are zero.
_TINY = 1e-300


def sample_orientations(
    laue_operations: NDArray[np.float64], spec: OrientationSpec, crystal_id: str = ""
) -> NDArray[np.float64]:
    """Return orientations near-uniform over the fundamental zone of a Laue group, or drawn at random.

    Parameters
    ----------
    laue_operations : ndarray of shape (n, 3, 3)
        All operations of the Laue group, inversion included, in the crystal's Cartesian frame.
    spec : OrientationSpec
        Number, zone axes, in-plane frame and seed.
    crystal_id : str
        Seeds random axes and in-plane angles, together with the seed and the orientation's index.

    Returns
    -------
    ndarray of shape (spec.count, 3, 3)
        Orientation matrices, one for each zone axis.

    Raises
    ------
    OrientationError
        If the operations are not those of a Laue group.

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
    if spec.axes == "random":
        axes = _random_axes(spec, crystal_id)
    else:
        axes = sample_zone_axes(laue_operations, spec.count)
    matrices = minimal_rotations(axes)
    if spec.in_plane == "random":
        turns = _uniform(f"{spec.seed}/{crystal_id}", spec.count, 1)[0]
        cosine, sine = (values[:, None] for values in cos_and_sin(turns))
        first, second = matrices[:, :, 0], matrices[:, :, 1]
        turned = first * cosine + second * sine, second * cosine - first * sine
        matrices = np.stack([*turned, matrices[:, :, 2]], axis=2)
    return matrices


def _random_axes(spec: OrientationSpec, crystal_id: str) -> NDArray[np.float64]:
    """Return directions of shape (count, 3), each alike likely (Archimedes: so is each height)."""
    height, turn = _uniform(f"axes/{spec.seed}/{crystal_id}", spec.count, 2)
    cosine, sine = cos_and_sin(turn)
    radius = 2.0 * np.sqrt(height * (1.0 - height))
    return np.stack([radius * cosine, radius * sine, 1.0 - 2.0 * height], axis=1)


def _uniform(name: str, count: int, each: int) -> NDArray[np.float64]:
    """Return numbers from 0 to 1 of shape (each, count)."""
    # Hashes of the items themselves: they depend neither on partitions nor on order.
    digests = [hashlib.sha256(f"{name}/{index}".encode()).digest() for index in range(count)]
    words = [[int.from_bytes(digest[8 * i : 8 * i + 8], "big") for digest in digests] for i in range(each)]
    return np.array([[word / 2.0**64 for word in row] for row in words])


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
    try:
        matrices = np.asarray(orientations, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OrientationError(f"orientations are not matrices of numbers ({error})") from None
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
