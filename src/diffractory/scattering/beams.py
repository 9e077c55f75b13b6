"""Which beams take part: reciprocal-lattice points, centring, nearness to the Ewald sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.scattering.illumination import Illumination
from diffractory.scattering.primitive import PrimitiveCell
from diffractory.scattering.structure_factors import index_limits, rows_inside
from diffractory.specs import SimulationSpec
from diffractory.units import electron_wavelength

#: Lengths equal in units of 1e-9 Å⁻¹ are one length, and hkl decides the order.
_LENGTHS_PER_UNIT = 1e9


@dataclass(frozen=True, eq=False)
class ReciprocalPoints:
    """All reciprocal-lattice points up to a length that the centring does not extinguish.

    Sorted by length, then by hkl; 000 comes first.

    Parameters
    ----------
    hkl : ndarray of shape (n, 3), int64
        Miller indices in the cell the crystal was given in.
    g : ndarray of shape (n, 3)
        Reciprocal vectors in Å⁻¹ in the crystal's Cartesian frame.
    index : ndarray of shape (n, 3), int64
        Miller indices in the primitive cell, those of its table of structure factors.
    """

    hkl: NDArray[np.int64]
    g: NDArray[np.float64]
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hkl)


def reciprocal_points(cell: PrimitiveCell, q_max: float) -> ReciprocalPoints:
    """List the reciprocal-lattice points with |g| ≤ q_max that the centring allows.

    Parameters
    ----------
    cell : PrimitiveCell
    q_max : float
        Largest |g| in Å⁻¹.

    Returns
    -------
    ReciprocalPoints

    Notes
    -----
    A centring-extinct beam has exactly zero coupling to every allowed one, so leaving it out
    changes nothing. Glide- and screw-extinct beams stay: multiple scattering lights them up.
    """
    given = cell.given
    limits = index_limits(given, q_max)
    h, k = (np.arange(-n, n + 1) for n in limits[:2])
    first, stop = rows_inside(given, q_max, h, k)
    hkl, index = _allowed(first, stop, limits, cell.to_primitive, cell.n_points)
    g = hkl @ given.reciprocal
    # Points that miss q_max by rounding are among them: equivalent ones come together, whatever the frame.
    length = np.linalg.norm(g, axis=1)
    # The points come in the order of hkl. It stands below the length in one integer, which is sorted
    # several times faster than by a stable sort.
    keys = (np.rint(length * _LENGTHS_PER_UNIT).astype(np.int64) << 30) | np.arange(len(length))
    keys.sort()
    order = keys & ((1 << 30) - 1)
    return ReciprocalPoints(hkl.take(order, axis=0), g.take(order, axis=0), index.take(order, axis=0))


@njit(cache=True, nogil=True)
def _allowed(
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    limits: NDArray[np.int64],
    to_primitive: NDArray[np.int64],
    n_points: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hkl and index of the points of some rows that are whole numbers in the primitive cell."""
    size = (stop - first).sum()
    hkl, index = np.empty((size, 3), dtype=np.int64), np.empty((size, 3), dtype=np.int64)
    n = 0
    for row in range(first.shape[0]):
        for column in range(first.shape[1]):
            h, k = row - limits[0], column - limits[1]
            for l in range(first[row, column], stop[row, column]):
                whole = True
                for axis in range(3):
                    hkl[n, axis] = (h, k, l)[axis]
                    scaled = h * to_primitive[0, axis] + k * to_primitive[1, axis] + l * to_primitive[2, axis]
                    index[n, axis] = scaled // n_points
                    whole = whole and scaled % n_points == 0
                n += whole
    return hkl[:n], index[:n]


def choose_beams(
    points: ReciprocalPoints,
    orientation: NDArray[np.float64],
    spec: SimulationSpec,
    illumination: Illumination | None = None,
) -> NDArray[np.bool_]:
    """Choose the beams that are near the Ewald sphere, |s_g| ≤ s_max, of any of the incident waves.

    Parameters
    ----------
    points : ReciprocalPoints
    orientation : ndarray of shape (3, 3)
    spec : SimulationSpec
    illumination : Illumination, optional
        That of the spec by default.

    Returns
    -------
    ndarray of shape (len(points),), bool
    """
    lit = illumination or Illumination.of(spec)
    directions, normals = _in_crystal(lit, orientation[None])
    chosen: NDArray[np.bool_] = _choose(
        _columns(points.g), directions[0], normals[0], lit.cosines(), *_limits(spec)
    )
    return chosen


def count_beams(
    points: ReciprocalPoints, orientations: NDArray[np.float64], spec: SimulationSpec
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the beams that :func:`choose_beams` chooses in each orientation.

    Parameters
    ----------
    points : ReciprocalPoints
    orientations : ndarray of shape (N, 3, 3)
    spec : SimulationSpec

    Returns
    -------
    counts : ndarray of shape (N,), int64
    ranges : ndarray of shape (N,), float64
        Largest less smallest excitation error of those beams, in Å⁻¹: with the thickness, it sets
        the length of a series.
    """
    lit = Illumination.of(spec)
    directions, normals = _in_crystal(lit, orientations)
    counts, ranges = _count(_columns(points.g), directions, normals, lit.cosines(), *_limits(spec))
    return counts, ranges


def _columns(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x, y, z and the square of each vector as rows, which vector instructions can take."""
    return np.array([*g.T, np.einsum("nx,nx->n", g, g)])


def _in_crystal(
    illumination: Illumination, orientations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return directions (N, n_tilts, 3) and foil normals (N, 3) in the crystal's frame."""
    directions = illumination.directions @ orientations.transpose(0, 2, 1)
    return directions, orientations @ illumination.foil_normal


def _limits(spec: SimulationSpec) -> tuple[float, float]:
    return electron_wavelength(spec.energy_ev), spec.s_max


@njit(cache=True, nogil=True)
def _choose(
    columns: NDArray[np.float64],
    directions: NDArray[np.float64],
    normal: NDArray[np.float64],
    cosines: NDArray[np.float64],
    wavelength: float,
    s_max: float,
) -> NDArray[np.bool_]:
    """Return whether each point is near the Ewald sphere of any direction."""
    x, y, z, square = columns[0], columns[1], columns[2], columns[3]
    a, b, c = normal[0], normal[1], normal[2]
    chosen = np.zeros(len(x), dtype=np.bool_)
    for tilt in range(len(cosines)):
        u, v, w = directions[tilt, 0], directions[tilt, 1], directions[tilt, 2]
        for i in range(len(x)):
            # |s_g| ≤ s_max with the denominator of s_g on the other side: divisions are slow.
            numerator = 2.0 * (u * x[i] + v * y[i] + w * z[i]) - wavelength * square[i]
            denominator = 2.0 * cosines[tilt] - 2.0 * wavelength * (a * x[i] + b * y[i] + c * z[i])
            chosen[i] |= abs(numerator) <= s_max * abs(denominator)
    return chosen


@njit(cache=True, nogil=True)
def _count(
    columns: NDArray[np.float64],
    directions: NDArray[np.float64],
    normals: NDArray[np.float64],
    cosines: NDArray[np.float64],
    wavelength: float,
    s_max: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    counts, ranges = np.empty(len(normals), dtype=np.int64), np.empty(len(normals))
    for i in range(len(normals)):
        chosen = np.flatnonzero(_choose(columns, directions[i], normals[i], cosines, wavelength, s_max))
        low, high = 0.0, 0.0
        for tilt in range(len(cosines)):
            d, n = directions[i, tilt], normals[i]
            for beam in chosen:
                x, y, z, square = columns[0, beam], columns[1, beam], columns[2, beam], columns[3, beam]
                s = (2.0 * (d[0] * x + d[1] * y + d[2] * z) - wavelength * square) / (
                    2.0 * cosines[tilt] - 2.0 * wavelength * (n[0] * x + n[1] * y + n[2] * z)
                )
                low, high = min(low, s), max(high, s)
        counts[i], ranges[i] = len(chosen), high - low
    return counts, ranges
