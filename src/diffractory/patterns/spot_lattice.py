"""The three-dimensional lattice of a single pattern, read from where its spots lie.

A pattern off a zone axis cuts several Laue zones, and every spot lies within an excitation error of
the known Ewald sphere. So the third coordinate of each spot is known to about 0.01 Å⁻¹, and a lattice
can be told from chance by how many spots it explains:

1. frequent differences between bright spots give the vectors of a lattice plane;
2. spots that the plane leaves unexplained lie in other layers: the offset of a layer, and its mean
   distance from the Ewald sphere, are the third vector (or a multiple of it);
3. every such lattice is fitted and scored: explained spots × log(1 / probability of chance);
4. finer and coarser lattices of the best one are tried, and the best is fitted to all spots.

Positions across the beam fit by least squares. Coordinates along the beam need instruments (qx, qy,
q²): spots are seen *because* they are near the sphere, and plain least squares would pull the lattice
towards it by up to a factor of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError
from diffractory.patterns.compiled import is_compiled
from diffractory.patterns.lattice_planes import SMALLEST_AREA, likely_planes
from diffractory.patterns.lattice_points import (
    MISSING,
    assign_points,
    count_explained,
    determinant,
    refit,
    room_to_fit,
    spot_columns,
)
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import InvariantSpec
from diffractory.units import electron_wavelength

#: Bright spots that hypotheses are tested on, and layers that complete a plane.
_BRIGHT, _LAYERS = 80, 4
#: Spots nearer the origin, in Å⁻¹, are the direct beam.
DIRECT_BEAM = 0.02
#: Volumes of primitive cells that are believed, in Å³.
_SMALLEST_CELL, _LARGEST_CELL = 6.0, 3000.0
#: Spots of one layer agree within this in their distance from the plane, in Å⁻¹.
_LAYER_SPREAD = 0.05
#: Excitation error, in Å⁻¹, beyond which a spot says less and less about the third coordinate.
_BRIGHT_RANGE = 0.01
#: Share of the bright spots that a lattice explains where no wider tolerance is tried.
_ENOUGH = 0.9


def _relatives() -> NDArray[np.float64]:
    """Return what turns a basis into those of twice and three times as fine and as coarse lattices."""
    found = []
    for index in (2, 3):
        for a, b in ((a, b) for a in (1, index) for b in (1, index) if a * b <= index):
            # Hermite normal forms of this index: each is one sublattice.
            for i, j, k in np.ndindex(a, a, b):
                form = np.array([[a, i, j], [0.0, b, k], [0.0, 0.0, index // (a * b)]])
                found += [np.linalg.inv(form.T), form]
    return np.stack(found)


_RELATIVES = _relatives()


@dataclass(frozen=True, eq=False)
class SpotLattices:
    """Lattices of n patterns; where none was found everything is 0.

    Parameters
    ----------
    reciprocal : ndarray of shape (n, 3, 3)
        Columns are primitive reciprocal basis vectors in Å⁻¹, rows qx, qy and along the beam.
    score : ndarray of shape (n,)
        Natural logarithm of how unlikely the explained bright spots are by chance.
    explained_bright, explained : ndarray of shape (n,)
        Share of the bright spots, and of all, that the lattice explains.
    misfit : ndarray of shape (n,)
        Root mean square distance of explained spots from the lattice, in Å⁻¹, across the beam.
    excitation : ndarray of shape (n,)
        Mean absolute excitation error of explained spots, weighted by the root of intensity, in Å⁻¹.
    tolerance : ndarray of shape (n,)
        Tolerance the lattice was found with, in Å⁻¹.
    plane : ndarray of shape (n, 3)
        Reduced basis of the plane most spots lie in, as seen: two lengths in Å⁻¹ and the absolute
        cosine between them.
    in_plane : ndarray of shape (n,)
        Share of the bright spots that this plane explains.
    """

    reciprocal: NDArray[np.float64]
    score: NDArray[np.float64]
    explained_bright: NDArray[np.float64]
    explained: NDArray[np.float64]
    misfit: NDArray[np.float64]
    excitation: NDArray[np.float64]
    tolerance: NDArray[np.float64]
    plane: NDArray[np.float64]
    in_plane: NDArray[np.float64]

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return the lattices of the chosen patterns (indices or a mask).

        Parameters
        ----------
        chosen : ndarray of int or bool

        Returns
        -------
        SpotLattices
        """
        return type(self)(*(values[chosen] for values in vars(self).values()))


def find_spot_lattices(table: PeakTable, spec: InvariantSpec) -> SpotLattices:
    """Find the lattice of every pattern.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹, the direct beam at the origin.
    spec : InvariantSpec
        Energy, tolerances and largest excitation error.

    Returns
    -------
    SpotLattices
        One a pattern.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, simulate
    >>> from diffractory.patterns.peak_table import PeakTable
    >>> from diffractory.patterns.spot_lattice import find_spot_lattices
    >>> from diffractory.specs import InvariantSpec
    >>> caesium_chloride = Crystal(4.12 * np.eye(3), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> z = np.array([1.0, 4.0, 9.0]) / 98**0.5  # far from any zone axis of low index
    >>> x = np.cross([0.0, 1.0, 0.0], z) / np.linalg.norm(np.cross([0.0, 1.0, 0.0], z))
    >>> pattern, = simulate(caesium_chloride, np.stack([x, np.cross(z, x), z], axis=1)[None])
    >>> table = PeakTable.from_lists([pattern.q], [pattern.intensity[0]], [0])
    >>> found = find_spot_lattices(table, InvariantSpec())
    >>> volume = 1 / abs(np.linalg.det(found.reciprocal[0]))
    >>> bool(0.9 < volume / 4.12**3 < 1.15)  # known to some per cent along the beam
    True
    """
    n = len(table)
    reciprocal, numbers = np.zeros((n, 3, 3)), np.zeros((n, 10))
    _find_all(
        table.q, table.intensity, table.offsets, electron_wavelength(spec.energy_ev) / 2.0,
        np.array(spec.tolerances), spec.s_max, reciprocal, numbers,
    )  # fmt: skip
    score, bright, share, misfit, excitation, tolerance = numbers[:, :6].T
    return SpotLattices(
        reciprocal, score, bright, share, misfit, excitation, tolerance, numbers[:, 6:9], numbers[:, 9]
    )


def search_is_compiled() -> bool:
    """Tell whether :func:`find_spot_lattices` starts at once, or is compiled for most of a minute before."""
    return is_compiled(_find_all)


def explained_spots(table: PeakTable, lattices: SpotLattices, spec: InvariantSpec) -> NDArray[np.bool_]:
    """Tell which spots the lattice of their pattern explains.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹, the direct beam at the origin.
    lattices : SpotLattices
        One a pattern; those of score 0 explain nothing.
    spec : InvariantSpec
        Energy and largest excitation error.

    Returns
    -------
    ndarray of shape (n_peaks,), bool

    Raises
    ------
    DiffractoryError
        If there is not one lattice for each pattern.
    """
    if len(lattices.score) != len(table):
        raise DiffractoryError(f"{len(lattices.score)} lattices of {len(table)} patterns")
    explained = np.zeros(len(table.intensity), dtype=bool)
    _explain_all(
        table.q, table.offsets, electron_wavelength(spec.energy_ev) / 2.0, lattices.reciprocal,
        np.where(lattices.score > 0.0, lattices.tolerance, 0.0), spec.s_max, explained,
    )  # fmt: skip
    return explained


@njit(nogil=True, cache=True, error_model="numpy")
def _explain_all(q, offsets, curvature, reciprocal, tolerance, s_max, explained):  # type: ignore[no-untyped-def]
    for pattern in range(len(offsets) - 1):
        first, stop = offsets[pattern], offsets[pattern + 1]
        if not tolerance[pattern] > 0.0:
            continue
        spots = spot_columns(stop - first)
        _write_spots(q[first:stop], curvature, spots)
        assign_points(spots, stop - first, reciprocal[pattern], tolerance[pattern], s_max)
        for spot in range(stop - first):
            explained[first + spot] = spots[4, spot] != MISSING


@njit(nogil=True, cache=True, error_model="numpy")
def _write_spots(q, curvature, spots):  # type: ignore[no-untyped-def]
    for spot in range(len(q)):
        x, y = q[spot, 0], q[spot, 1]
        spots[0, spot], spots[1, spot], spots[2, spot] = x, y, curvature * (x * x + y * y)


@njit(nogil=True, cache=True, error_model="numpy")
def _find_all(q, intensity, offsets, curvature, tolerances, s_max, reciprocal, numbers):  # type: ignore[no-untyped-def]
    # Made once: asking for it in each of thousands of trials would take as long as the trials.
    room, basis, fitted = room_to_fit(), np.empty((3, 3)), np.empty((3, 3))
    for pattern in range(len(offsets) - 1):
        first, stop = offsets[pattern], offsets[pattern + 1]
        positions, values = q[first:stop], intensity[first:stop]
        bright = _brightest(positions, values)
        n = len(bright)
        if n < 4:
            continue
        spots, best = spot_columns(n), np.zeros((3, 3))
        _write_spots(positions[bright], curvature, spots)
        for spot in range(n):
            spots[3, spot] = math.sqrt(values[bright[spot]] / values[bright[0]])
        for tolerance in tolerances:
            planes, shares = likely_planes(spots[0], spots[1], n, tolerance)
            for number in range(len(planes)):
                if number == 0 and shares[0] > numbers[pattern, 9]:
                    _describe_plane(planes[0], shares[0], numbers[pattern, 6:])
                score = _try_plane(
                    spots, n, planes[number], tolerance, s_max, numbers[pattern, 0], best,
                    basis, fitted, room,
                )  # fmt: skip
                if score > numbers[pattern, 0]:
                    numbers[pattern, 0], numbers[pattern, 5] = score, tolerance
            # A wider tolerance is for positions too rough for this one.
            if numbers[pattern, 0] > 0.0 and (
                count_explained(spots, n, best, tolerance, s_max, _ENOUGH * n) > _ENOUGH * n
            ):
                break
        if numbers[pattern, 0] <= 0.0:
            continue
        tolerance = numbers[pattern, 5]
        numbers[pattern, 0] = _try_relatives(
            spots, n, tolerance, s_max, numbers[pattern, 0], best, basis, fitted, room
        )
        numbers[pattern, 1] = count_explained(spots, n, best, tolerance, s_max, 0.0) / n
        _fit_to_all(positions, values, curvature, tolerance, s_max, best, numbers[pattern], fitted, room)
        reciprocal[pattern] = best


@njit(nogil=True, cache=True, error_model="numpy")
def _scattered(position):  # type: ignore[no-untyped-def]
    return position[0] ** 2 + position[1] ** 2 > DIRECT_BEAM**2


@njit(nogil=True, cache=True, error_model="numpy")
def _brightest(q, intensity):  # type: ignore[no-untyped-def]
    """Return the brightest spots but the direct beam, brightest first."""
    order = np.argsort(-intensity)
    chosen = np.empty(_BRIGHT, dtype=np.int64)
    n = 0
    for spot in order:
        if n < _BRIGHT and _scattered(q[spot]) and intensity[spot] > 0.0:
            chosen[n] = spot
            n += 1
    return chosen[:n]


@njit(nogil=True, cache=True, error_model="numpy")
def _describe_plane(plane, share, numbers):  # type: ignore[no-untyped-def]
    a, b = math.hypot(plane[0, 0], plane[1, 0]), math.hypot(plane[0, 1], plane[1, 1])
    numbers[0], numbers[1] = a, b
    numbers[2] = abs(plane[0, 0] * plane[0, 1] + plane[1, 0] * plane[1, 1]) / (a * b)
    numbers[3] = share


@njit(nogil=True, cache=True, error_model="numpy")
def _try_plane(spots, n, plane, tolerance, s_max, best_score, best, basis, fitted, room):  # type: ignore[no-untyped-def]
    """Complete a plane to lattices; write one that scores above ``best_score`` to ``best``."""
    basis[:] = 0.0
    basis[:2, :2] = plane
    for attempt in range(2):
        in_plane = _assign_in_plane(spots, n, basis, tolerance, np.inf if attempt == 0 else s_max)
        if in_plane < 3 or not refit(spots, n, 2, basis, room):
            return best_score
    offsets = _layers(spots, n, basis, tolerance)
    for number in range(len(offsets)):
        u, v = offsets[number, 0], offsets[number, 1]
        basis[0, 2] = u * basis[0, 0] + v * basis[0, 1]
        basis[1, 2] = u * basis[1, 0] + v * basis[1, 1]
        basis[2, 2] = offsets[number, 2]
        best_score = _try_lattice(spots, n, basis, tolerance, s_max, best_score, best, fitted, room)
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _assign_in_plane(spots, n, basis, tolerance, s_max):  # type: ignore[no-untyped-def]
    """Write the indices of spots near points of the plane; return how many are."""
    xs, ys, zs, hs, ks = spots[0], spots[1], spots[2], spots[4], spots[5]
    in_plane = 0
    ax, bx, ay, by, az, bz = basis[0, 0], basis[0, 1], basis[1, 0], basis[1, 1], basis[2, 0], basis[2, 1]
    area = ax * by - bx * ay
    for spot in range(n):
        u = (xs[spot] * by - ys[spot] * bx) / area
        v = (ax * ys[spot] - ay * xs[spot]) / area
        nu, nv = np.rint(u), np.rint(v)
        off = nu * az + nv * bz - zs[spot]
        du, dv = u - nu, v - nv
        left, up = du * ax + dv * bx, du * ay + dv * by
        near = (abs(off) < s_max) & (left * left + up * up < tolerance * tolerance)
        hs[spot] = nu if near else MISSING
        ks[spot] = nv
        in_plane += near
    for spot in range(n):
        spots[6, spot] = 0.0
    return in_plane


@njit(nogil=True, cache=True, error_model="numpy")
def _layers(spots, n, basis, tolerance):  # type: ignore[no-untyped-def]
    """Return offsets (in the plane's vectors, and along the beam) of the fullest other layers."""
    ax, bx, ay, by, az, bz = basis[0, 0], basis[0, 1], basis[1, 0], basis[1, 1], basis[2, 0], basis[2, 1]
    us, vs, ws, near = spots[7], spots[8], spots[9], spots[10]
    # Only spots outside the plane, one after the other: they are compared with each other.
    area, left_over = ax * by - bx * ay, 0
    for spot in range(n):
        if spots[4, spot] == MISSING:
            x, y = spots[0, spot], spots[1, spot]
            u, v = (x * by - y * bx) / area, (ax * y - ay * x) / area
            nu, nv = np.rint(u), np.rint(v)
            us[left_over], vs[left_over] = u - nu, v - nv
            ws[left_over] = spots[2, spot] - nu * az - nv * bz
            left_over += 1
    taken = np.zeros(left_over, dtype=np.bool_)
    offsets, counts = np.zeros((left_over, 3)), np.zeros(left_over)
    found = 0
    for i in range(left_over):
        if taken[i]:
            continue
        u_i, v_i, w_i = us[i], vs[i], ws[i]
        for j in range(left_over):
            du, dv = us[j] - u_i, vs[j] - v_i
            nu, nv = np.rint(du), np.rint(dv)
            dw = ws[j] + nu * az + nv * bz - w_i
            off_u, off_v = du - nu, dv - nv
            left, up = off_u * ax + off_v * bx, off_u * ay + off_v * by
            here = (abs(dw) < _LAYER_SPREAD) & (left * left + up * up < tolerance * tolerance)
            near[j] = 1.0 if here else 0.0
        u, v, w = 0.0, 0.0, 0.0
        for j in range(left_over):
            if near[j] > 0.0:
                du, dv = us[j] - u_i, vs[j] - v_i
                nu, nv = np.rint(du), np.rint(dv)
                dw = ws[j] + nu * az + nv * bz - w_i
                taken[j] = True
                counts[found] += 1.0
                u, v, w = u + du - nu, v + dv - nv, w + dw
        offsets[found, 0] = u_i + u / counts[found]
        offsets[found, 1] = v_i + v / counts[found]
        offsets[found, 2] = w_i + w / counts[found]
        found += 1
    return offsets[np.argsort(-counts[:found])[:_LAYERS]]


@njit(nogil=True, cache=True, error_model="numpy")
def _try_lattice(spots, n, basis, tolerance, s_max, best_score, best, fitted, room):  # type: ignore[no-untyped-def]
    """Score a lattice, fit it if it is promising; write it to ``best`` if it scores higher."""
    if not _believable(basis):
        return best_score
    worth = _score(1.0, basis, tolerance, s_max)
    # Most lattices fail here, so which point each spot belongs to is asked of the others only.
    found = count_explained(spots, n, basis, tolerance, s_max, 0.8 * best_score / worth)
    if found * worth <= 0.8 * best_score:
        return best_score
    assign_points(spots, n, basis, tolerance, s_max)
    fitted[:] = basis
    if not (refit(spots, n, 3, fitted, room) and _believable(fitted)):
        return best_score
    worth = _score(1.0, fitted, tolerance, s_max)
    found = count_explained(spots, n, fitted, tolerance, s_max, best_score / worth)
    if found * worth > best_score:
        best[:] = fitted
        return found * worth
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _believable(basis):  # type: ignore[no-untyped-def]
    volume = abs(determinant(basis))
    # The plane that spots are placed in must not be seen edge-on.
    area = abs(basis[0, 0] * basis[1, 1] - basis[1, 0] * basis[0, 1])
    return volume > 1.0 / _LARGEST_CELL and volume < 1.0 / _SMALLEST_CELL and area > 0.5 * SMALLEST_AREA


@njit(nogil=True, cache=True, error_model="numpy")
def _score(explained, basis, tolerance, s_max):  # type: ignore[no-untyped-def]
    chance = math.pi * tolerance * tolerance * 2.0 * s_max / abs(determinant(basis))
    return explained * math.log(1.0 / min(0.9, chance))


@njit(nogil=True, cache=True, error_model="numpy")
def _try_relatives(spots, n, tolerance, s_max, best_score, best, basis, fitted, room):  # type: ignore[no-untyped-def]
    """Try lattices twice and three times as fine and as coarse as the best, until none is better."""
    start = np.empty((3, 3))
    for _ in range(3):
        start[:], before = best, best_score
        for number in range(len(_RELATIVES)):
            for i in range(3):
                for j in range(3):
                    basis[i, j] = (
                        start[i, 0] * _RELATIVES[number, 0, j]
                        + start[i, 1] * _RELATIVES[number, 1, j]
                        + start[i, 2] * _RELATIVES[number, 2, j]
                    )
            best_score = _try_lattice(spots, n, basis, tolerance, s_max, best_score, best, fitted, room)
        if best_score == before:
            break
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_to_all(q, intensity, curvature, tolerance, s_max, basis, numbers, fitted, room):  # type: ignore[no-untyped-def]
    """Fit the lattice to all spots, strong and well excited ones first, and describe how it fits."""
    n = len(q)
    spots = spot_columns(n)
    _write_spots(q, curvature, spots)
    strength = np.sqrt(np.maximum(intensity, 0.0) / intensity.max())
    spots[3, :n] = strength
    for attempt in range(3):
        assign_points(spots, n, basis, tolerance, s_max)
        if attempt:
            for spot in range(n):
                spots[3, spot] = strength[spot] / (1.0 + (spots[7, spot] / _BRIGHT_RANGE) ** 2)
        fitted[:] = basis
        if not refit(spots, n, 3, fitted, room):
            break
        if not _believable(fitted):
            break
        basis[:] = fitted
    explained = assign_points(spots, n, basis, tolerance, s_max)
    square, excited, total = 0.0, 0.0, 0.0
    for spot in range(n):
        if spots[4, spot] != MISSING:
            for row in range(2):
                at = (
                    spots[4, spot] * basis[row, 0]
                    + spots[5, spot] * basis[row, 1]
                    + spots[6, spot] * basis[row, 2]
                )
                square += (q[spot, row] - at) ** 2
            if _scattered(q[spot]):
                excited += strength[spot] * abs(spots[7, spot])
                total += strength[spot]
    numbers[2] = explained / n
    numbers[3] = math.sqrt(square / max(explained, 1))
    numbers[4] = excited / max(total, 1e-300)
