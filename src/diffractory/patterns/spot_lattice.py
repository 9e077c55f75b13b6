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

from diffractory.patterns.lattice_planes import SMALLEST_AREA, distance2, likely_planes, plane_coordinates
from diffractory.patterns.linear_equations import solve_small
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import InvariantSpec
from diffractory.units import electron_wavelength

#: Bright spots that hypotheses are tested on, and layers that complete a plane.
_BRIGHT, _LAYERS = 80, 4
#: Spots nearer the origin, in Å⁻¹, are the direct beam.
_DIRECT = 0.02
#: Volumes of primitive cells that are believed, in Å³.
_SMALLEST_CELL, _LARGEST_CELL = 6.0, 3000.0
#: Spots of one layer agree within this in their distance from the plane, in Å⁻¹.
_LAYER_SPREAD = 0.05
#: Excitation error, in Å⁻¹, beyond which a spot says less and less about the third coordinate.
_BRIGHT_RANGE = 0.01
#: Share of the bright spots that a lattice explains where no wider tolerance is tried.
_ENOUGH = 0.9
_MISSING = -(2**31)
_LARGEST_INDEX = 1e6


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
        """Return the lattices of the chosen patterns (indices or a mask)."""
        return type(self)(*(values[chosen] for values in vars(self).values()))


def find_spot_lattices(table: PeakTable, spec: InvariantSpec) -> SpotLattices:
    """Find the lattice of every pattern.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹, the direct beam at the origin.
    spec : InvariantSpec
        Energy, tolerances and largest excitation error.

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
    """
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
        spots = q[first:stop]
        height = curvature * (spots * spots).sum(axis=1)
        hkl, excitation = np.empty((len(spots), 3)), np.empty(len(spots))
        _assign(spots, height, reciprocal[pattern], tolerance[pattern], s_max, hkl, excitation)
        for spot in range(len(spots)):
            explained[first + spot] = hkl[spot, 0] != _MISSING


@njit(nogil=True, cache=True, error_model="numpy")
def _find_all(q, intensity, offsets, curvature, tolerances, s_max, reciprocal, numbers):  # type: ignore[no-untyped-def]
    for pattern in range(len(offsets) - 1):
        first, stop = offsets[pattern], offsets[pattern + 1]
        positions, values = q[first:stop], intensity[first:stop]
        bright = _brightest(positions, values)
        if len(bright) < 4:
            continue
        spots, weights = positions[bright], np.sqrt(values[bright] / values[bright[0]])
        height = curvature * (spots * spots).sum(axis=1)
        best = np.zeros((3, 3))
        hkl, excitation = np.empty((len(spots), 3)), np.empty(len(spots))
        for tolerance in tolerances:
            planes, shares = likely_planes(spots, tolerance)
            for number in range(len(planes)):
                if number == 0 and shares[0] > numbers[pattern, 9]:
                    _describe_plane(planes[0], shares[0], numbers[pattern, 6:])
                score = _try_plane(
                    spots, height, weights, planes[number], tolerance, s_max, numbers[pattern, 0], best
                )
                if score > numbers[pattern, 0]:
                    numbers[pattern, 0], numbers[pattern, 5] = score, tolerance
            # A wider tolerance is for positions too rough for this one.
            explained = _assign(spots, height, best, tolerance, s_max, hkl, excitation)
            if numbers[pattern, 0] > 0.0 and explained > _ENOUGH * len(spots):
                break
        if numbers[pattern, 0] <= 0.0:
            continue
        tolerance = numbers[pattern, 5]
        numbers[pattern, 0] = _try_relatives(
            spots, height, weights, tolerance, s_max, numbers[pattern, 0], best
        )
        numbers[pattern, 1] = _assign(spots, height, best, tolerance, s_max, hkl, excitation) / len(spots)
        _fit_to_all(positions, values, curvature, tolerance, s_max, best, numbers[pattern])
        reciprocal[pattern] = best


@njit(nogil=True, cache=True, error_model="numpy")
def _scattered(position):  # type: ignore[no-untyped-def]
    return position[0] ** 2 + position[1] ** 2 > _DIRECT**2


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
def _try_plane(q, height, weights, plane, tolerance, s_max, best_score, best):  # type: ignore[no-untyped-def]
    """Complete a plane to lattices; write one that scores above ``best_score`` to ``best``."""
    n = len(q)
    hkl, excitation = np.zeros((n, 3)), np.zeros(n)
    basis = np.zeros((3, 3))
    basis[:2, :2] = plane
    layer = np.zeros((n, 3))
    for attempt in range(2):
        in_plane = 0
        for spot in range(n):
            u, v = plane_coordinates(q[spot], basis)
            nu, nv = np.rint(u), np.rint(v)
            off = nu * basis[2, 0] + nv * basis[2, 1] - height[spot]
            near = attempt == 0 or abs(off) < s_max
            if near and distance2(u - nu, v - nv, basis) < tolerance * tolerance:
                hkl[spot, 0], hkl[spot, 1], hkl[spot, 2] = nu, nv, 0.0
                in_plane += 1
            else:
                hkl[spot, 0] = _MISSING
        if in_plane < 3 or not _refit(q, height, weights, hkl, 2, basis):
            return best_score
    for spot in range(n):
        u, v = plane_coordinates(q[spot], basis)
        nu, nv = np.rint(u), np.rint(v)
        layer[spot, 0], layer[spot, 1] = u - nu, v - nv
        layer[spot, 2] = height[spot] - nu * basis[2, 0] - nv * basis[2, 1]
    offsets = _layers(layer, hkl, basis, tolerance)
    for number in range(len(offsets)):
        u, v = offsets[number, 0], offsets[number, 1]
        basis[0, 2] = u * basis[0, 0] + v * basis[0, 1]
        basis[1, 2] = u * basis[1, 0] + v * basis[1, 1]
        basis[2, 2] = offsets[number, 2]
        best_score = _try_lattice(
            q, height, weights, basis, tolerance, s_max, hkl, excitation, best_score, best
        )
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _layers(layer, hkl, basis, tolerance):  # type: ignore[no-untyped-def]
    """Return offsets (in the plane's vectors, and along the beam) of the fullest other layers."""
    n = len(layer)
    taken = hkl[:, 0] != _MISSING
    offsets, counts = np.zeros((n, 3)), np.zeros(n)
    found = 0
    for i in range(n):
        if taken[i]:
            continue
        u, v, w = 0.0, 0.0, 0.0
        for j in range(n):
            if hkl[j, 0] != _MISSING:
                continue
            du, dv = layer[j, 0] - layer[i, 0], layer[j, 1] - layer[i, 1]
            nu, nv = np.rint(du), np.rint(dv)
            dw = layer[j, 2] + nu * basis[2, 0] + nv * basis[2, 1] - layer[i, 2]
            if abs(dw) < _LAYER_SPREAD and distance2(du - nu, dv - nv, basis) < tolerance * tolerance:
                taken[j] = True
                counts[found] += 1.0
                u, v, w = u + du - nu, v + dv - nv, w + dw
        offsets[found, 0] = layer[i, 0] + u / counts[found]
        offsets[found, 1] = layer[i, 1] + v / counts[found]
        offsets[found, 2] = layer[i, 2] + w / counts[found]
        found += 1
    return offsets[np.argsort(-counts[:found])[:_LAYERS]]


@njit(nogil=True, cache=True, error_model="numpy")
def _try_lattice(q, height, weights, basis, tolerance, s_max, hkl, excitation, best_score, best):  # type: ignore[no-untyped-def]
    """Score a lattice, fit it if it is promising; write it to ``best`` if it scores higher."""
    if not _believable(basis):
        return best_score
    worth = _score(1.0, basis, tolerance, s_max)
    found = _assign(q, height, basis, tolerance, s_max, hkl, excitation, 0.8 * best_score / worth)
    if found * worth <= 0.8 * best_score:
        return best_score
    fitted = basis.copy()
    if not (_refit(q, height, weights, hkl, 3, fitted) and _believable(fitted)):
        return best_score
    worth = _score(1.0, fitted, tolerance, s_max)
    found = _assign(q, height, fitted, tolerance, s_max, hkl, excitation, best_score / worth)
    if found * worth > best_score:
        best[:] = fitted
        return found * worth
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _determinant(m):  # type: ignore[no-untyped-def]
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _believable(basis):  # type: ignore[no-untyped-def]
    volume = abs(_determinant(basis))
    # The plane that spots are placed in must not be seen edge-on.
    area = abs(basis[0, 0] * basis[1, 1] - basis[1, 0] * basis[0, 1])
    return volume > 1.0 / _LARGEST_CELL and volume < 1.0 / _SMALLEST_CELL and area > 0.5 * SMALLEST_AREA


@njit(nogil=True, cache=True, error_model="numpy")
def _score(explained, basis, tolerance, s_max):  # type: ignore[no-untyped-def]
    chance = math.pi * tolerance * tolerance * 2.0 * s_max / abs(_determinant(basis))
    return explained * math.log(1.0 / min(0.9, chance))


@njit(nogil=True, cache=True, error_model="numpy")
def _assign(q, height, basis, tolerance, s_max, hkl, excitation, needed=0.0):  # type: ignore[no-untyped-def]
    """Write the nearest lattice point of every spot, and its excitation error; return how many fit.

    Gives up, with a smaller number, as soon as ``needed`` is out of reach.
    """
    # Plain numbers, for the compiler cannot know that writing indices leaves the basis as it is.
    ax, bx, cx = basis[0, 0], basis[0, 1], basis[0, 2]
    ay, by, cy = basis[1, 0], basis[1, 1], basis[1, 2]
    az, bz, cz = basis[2, 0], basis[2, 1], basis[2, 2]
    area = ax * by - ay * bx
    # Third row of the inverse: the third index as a function of where a spot lies.
    volume = _determinant(basis)
    to_x, to_y, to_z = (ay * bz - by * az) / volume, (bx * az - ax * bz) / volume, area / volume
    u_x, u_y, v_x, v_y = by / area, -bx / area, -ay / area, ax / area
    reach = abs(to_z) * s_max + 0.2
    per_tolerance, per_s_max = 1.0 / (tolerance * tolerance), 1.0 / (s_max * s_max)
    n = 0
    for spot in range(len(q)):
        if n + len(q) - spot < needed:
            return n
        x, y, z = q[spot, 0], q[spot, 1], height[spot]
        middle = to_x * x + to_y * y + to_z * z
        best = np.inf
        hkl[spot, 0] = _MISSING
        if not abs(middle) < _LARGEST_INDEX:
            continue
        # Wherever within s_max of the sphere the spot lies, its third index lies within this range.
        l = math.ceil(middle - reach)
        while l <= middle + reach:
            left, up = x - l * cx, y - l * cy
            nu, nv = np.rint(u_x * left + u_y * up), np.rint(v_x * left + v_y * up)
            off_x, off_y = left - nu * ax - nv * bx, up - nu * ay - nv * by
            distance = (off_x * off_x + off_y * off_y) * per_tolerance
            if distance < 1.0:
                s = nu * az + nv * bz + l * cz - z
                both = distance + s * s * per_s_max
                if abs(s) < s_max and both < best:
                    best = both
                    hkl[spot, 0], hkl[spot, 1], hkl[spot, 2] = nu, nv, l
                    excitation[spot] = s
            l += 1
        n += best < np.inf
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def _refit(q, height, weights, hkl, size, basis):  # type: ignore[no-untyped-def]
    """Fit the leading ``size`` vectors to the spots that have indices; False where they do not allow it."""
    normal, right = np.zeros((3, 3)), np.zeros((3, 2))
    instruments, along = np.zeros((3, 3)), np.zeros((3, 1))
    for spot in range(len(q)):
        if hkl[spot, 0] == _MISSING:
            continue
        # q² as an instrument is scaled to the size of q.
        instrument = (q[spot, 0], q[spot, 1], q[spot, 0] ** 2 + q[spot, 1] ** 2)
        for i in range(size):
            weighted = weights[spot] * instrument[i]
            along[i, 0] += weighted * height[spot]
            for j in range(size):
                normal[i, j] += hkl[spot, i] * hkl[spot, j]
                instruments[i, j] += weighted * hkl[spot, j]
            right[i, 0] += hkl[spot, i] * q[spot, 0]
            right[i, 1] += hkl[spot, i] * q[spot, 1]
    if not (solve_small(normal, right, size) and solve_small(instruments, along, size)):
        return False
    for i in range(size):
        basis[0, i], basis[1, i], basis[2, i] = right[i, 0], right[i, 1], along[i, 0]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _try_relatives(q, height, weights, tolerance, s_max, best_score, best):  # type: ignore[no-untyped-def]
    """Try lattices twice and three times as fine and as coarse as the best, until none is better."""
    n = len(q)
    hkl, excitation = np.zeros((n, 3)), np.zeros(n)
    for _ in range(3):
        start, before = np.ascontiguousarray(best.copy()), best_score
        for index in (2, 3):
            for a in (1, index):
                for b in (1, index):
                    c = index // (a * b) if a * b <= index else 0
                    if c == 0:
                        continue
                    # Hermite normal forms of this index: each is one sublattice.
                    for i in range(a):
                        for j in range(a):
                            for k in range(b):
                                form = np.zeros((3, 3))
                                form[0, 0], form[1, 1], form[2, 2] = a, b, c
                                form[0, 1], form[0, 2], form[1, 2] = i, j, k
                                for finer in (True, False):
                                    inverse = np.ascontiguousarray(np.linalg.inv(form.T))
                                    changed = start @ (inverse if finer else form)
                                    best_score = _try_lattice(
                                        q, height, weights, changed, tolerance, s_max,
                                        hkl, excitation, best_score, best,
                                    )  # fmt: skip
        if best_score == before:
            break
    return best_score


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_to_all(q, intensity, curvature, tolerance, s_max, basis, numbers):  # type: ignore[no-untyped-def]
    """Fit the lattice to all spots, strong and well excited ones first, and describe how it fits."""
    n = len(q)
    height = curvature * (q * q).sum(axis=1)
    strength = np.sqrt(np.maximum(intensity, 0.0) / intensity.max())
    hkl, excitation, weights = np.zeros((n, 3)), np.zeros(n), strength.copy()
    for attempt in range(3):
        _assign(q, height, basis, tolerance, s_max, hkl, excitation)
        if attempt:
            weights = strength / (1.0 + (excitation / _BRIGHT_RANGE) ** 2)
        fitted = basis.copy()
        if not _refit(q, height, weights, hkl, 3, fitted):
            break
        if not _believable(fitted):
            break
        basis[:] = fitted
    explained = _assign(q, height, basis, tolerance, s_max, hkl, excitation)
    square, excited, total = 0.0, 0.0, 0.0
    for spot in range(n):
        if hkl[spot, 0] != _MISSING:
            for row in range(2):
                at = (
                    hkl[spot, 0] * basis[row, 0] + hkl[spot, 1] * basis[row, 1] + hkl[spot, 2] * basis[row, 2]
                )
                square += (q[spot, row] - at) ** 2
            if _scattered(q[spot]):
                excited += strength[spot] * abs(excitation[spot])
                total += strength[spot]
    numbers[2] = explained / n
    numbers[3] = math.sqrt(square / max(explained, 1))
    numbers[4] = excited / max(total, 1e-300)
