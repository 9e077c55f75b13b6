"""How well the spots of many patterns lie on the rings of a cubic lattice, for every constant it may have.

Whatever part of a cubic lattice a pattern shows, its spots lie at radii √N / a, and a centred lattice has
some N only. Unlike a lattice read from single patterns, this needs no pattern to be understood by itself:
grains that overlap, false peaks and patterns with few spots count for what they show. As a function of ln q
the rings of all constants are one comb, moved by ln a, so that one correlation judges all constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from diffractory.patterns.peak_table import PeakTable

CENTRINGS: Final = ("P", "I", "F")
#: Radii that are asked, in Å⁻¹: nearer is the direct beam, and farther rings lie too close to tell.
_NEAREST, _FARTHEST = 0.05, 1.6
#: How far, rms in Å⁻¹, reciprocal vectors of spots that are seen lie off the detector's plane; at most this
#: share of their length, since the innermost ones of a zone axis lie in it.
_OFF_PLANE, _STEEPEST = 0.02, 0.08
#: Standard deviation of a ring in ln q, and of the window within which a spot may lie anywhere.
_WIDTH, _WINDOW = 0.008, 0.12
#: Shares of spots that may lie on rings; the others lie anywhere.
_SHARES = (0.3, 0.8)
#: A spot this near a ring, relatively, lies on it.
_ON = 0.01


@dataclass(frozen=True)
class ConstantGrid:
    """Lattice constants that are tried, evenly spaced in their logarithm.

    Parameters
    ----------
    first : float
        The smallest, in Å.
    count : int
    step : float
        Relative distance of neighbours.
    """

    first: float
    count: int
    step: float

    @property
    def constants(self) -> NDArray[np.float64]:
        """All of them, in Å, of shape (count,)."""
        return np.asarray(self.first * np.exp(self.step * np.arange(self.count)))

    @property
    def n_radii(self) -> int:
        """Number of bins of ln q, as wide as a step."""
        return round(math.log(_FARTHEST / _NEAREST) / self.step)


def count_radii(peaks: PeakTable, grid: ConstantGrid) -> NDArray[np.float64]:
    """Count the spots of patterns in the bins of ln q that belong to a grid.

    Parameters
    ----------
    peaks : PeakTable
    grid : ConstantGrid

    Returns
    -------
    ndarray of shape (grid.n_radii,)
        Direct beams, and spots nearer than 0.05 or farther than 1.6 Å⁻¹, are left out.
    """
    bins, inside = _bins(peaks.q[peaks.scattered], grid)
    return np.bincount(bins[inside], minlength=grid.n_radii).astype(np.float64)


def judge_rings(counts: NDArray[np.float64], grid: ConstantGrid) -> NDArray[np.float64]:
    """Return how much likelier spots are on the rings of every constant than anywhere.

    Parameters
    ----------
    counts : ndarray of shape (grid.n_radii,)
        Made by :func:`count_radii`.
    grid : ConstantGrid

    Returns
    -------
    ndarray of shape (3, grid.count)
        Natural logarithm of the likelihood ratio, for lattices of centring P, I and F. Every spot counts as
        if it were independent of the others.
    """
    found: NDArray[np.float64] = _correlate(_tables(grid), counts, grid.count)
    return np.asarray(found.max(axis=1))


def share_on_rings(
    counts: NDArray[np.float64], grid: ConstantGrid, a: float, centring: str
) -> tuple[float, float]:
    """Return the share of spots on the rings of one lattice, and the share that would be by chance.

    Parameters
    ----------
    counts : ndarray of shape (grid.n_radii,)
        Made by :func:`count_radii`.
    grid : ConstantGrid
    a : float
        In Å.
    centring : {"P", "I", "F"}

    Returns
    -------
    tuple of float
        Spots within 1 % of a ring, of all; and the share of the range of ln q from the innermost spot to the
        outermost that is so near one. NaN where there are no spots.
    """
    seen = np.flatnonzero(counts)
    if len(seen) == 0:
        return math.nan, math.nan
    radius = _NEAREST * np.exp((np.arange(grid.n_radii) + 0.5) * grid.step)
    rings = np.sqrt(allowed_numbers(centring, math.ceil((2.0 * _FARTHEST * a) ** 2))) / a
    after = np.clip(np.searchsorted(rings, radius), 1, len(rings) - 1)
    nearest = np.minimum(np.abs(rings[after] - radius), np.abs(rings[after - 1] - radius))
    near = nearest <= _ON * radius
    return float(counts[near].sum() / counts.sum()), float(near[seen[0] : seen[-1] + 1].mean())


def judge_rings_near(
    peaks: PeakTable, grid: ConstantGrid, first: NDArray[np.int64], count: int, centring: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Return how much likelier each pattern's own spots are on the rings of some constants than anywhere.

    Parameters
    ----------
    peaks : PeakTable
        Of n patterns.
    grid : ConstantGrid
    first : ndarray of shape (n,), int64
        The first constant of the grid that is asked of each pattern.
    count : int
        How many are asked; all of them lie in the grid.
    centring : ndarray of shape (n,), str
        P, I or F: the lattice of each pattern.

    Returns
    -------
    ndarray of shape (n, count)
        Natural logarithm of the likelihood ratio, as :func:`judge_rings` tells it of many patterns; NaN
        where a pattern has no spot that is asked.
    """
    scattered = peaks.scattered
    owner = np.repeat(np.arange(len(peaks)), peaks.counts)[scattered]
    bins, inside = _bins(peaks.q[scattered], grid)
    row = np.array([CENTRINGS.index(name) for name in centring.tolist()], dtype=np.int64)
    found = _correlate_near(_tables(grid), row, first, owner[inside], bins[inside], count).max(axis=1)
    found[np.bincount(owner[inside], minlength=len(peaks)) == 0] = np.nan
    return np.asarray(found)


def is_allowed(h: ArrayLike, k: ArrayLike, l: ArrayLike, centring: str) -> NDArray[np.bool_]:
    """Tell which reflections a cubic lattice has: P all, I those of even h + k + l, F the unmixed ones."""
    parity = np.stack([np.asarray(index) % 2 for index in (h, k, l)])
    if centring == "I":
        return np.asarray(parity.sum(axis=0) % 2 == 0)
    if centring == "F":
        return np.asarray((parity == parity[0]).all(axis=0))
    return np.ones(parity.shape[1:], dtype=bool)


def _bins(q: NDArray[np.float64], grid: ConstantGrid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the bin of ln q of each spot, and whether it lies in the range that is asked."""
    radius = np.hypot(*q.T)
    length = np.hypot(radius, np.minimum(_OFF_PLANE, _STEEPEST * radius))
    bins = np.floor(np.log(np.maximum(length, 1e-12) / _NEAREST) / grid.step).astype(np.int64)
    return bins, (radius >= _NEAREST) & (bins < grid.n_radii)


@lru_cache(maxsize=16)
def allowed_numbers(centring: str, largest: int) -> NDArray[np.int64]:
    """Return the numbers N = h² + k² + l² of a cubic lattice's reflections, without 0.

    Parameters
    ----------
    centring : {"P", "I", "F"}
        P allows all hkl, I those of even sum, F those that are all even or all odd.
    largest : int

    Returns
    -------
    ndarray of int64
        Sorted, up to ``largest``.
    """
    side = np.arange(math.isqrt(largest) + 1)
    h, k, l = (axis.ravel() for axis in np.meshgrid(side, side, side, indexing="ij"))
    numbers = np.unique((h * h + k * k + l * l)[is_allowed(h, k, l, centring)])
    return np.asarray(numbers[(numbers > 0) & (numbers <= largest)])


@njit(nogil=True, cache=True, error_model="numpy")
def _correlate(tables, counts, n):  # type: ignore[no-untyped-def]
    """Correlate each table with counts, most of which are 0."""
    found = np.zeros((*tables.shape[:2], n))
    for first in range(len(counts)):
        if counts[first] == 0.0:
            continue
        for i in range(tables.shape[0]):
            for j in range(tables.shape[1]):
                for k in range(n):
                    found[i, j, k] += counts[first] * tables[i, j, first + k]
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def _correlate_near(tables, columns, starts, owners, bins, n):  # type: ignore[no-untyped-def]
    """Return the log likelihood of n constants of each pattern, from its first one on, for every share."""
    found = np.zeros((len(columns), tables.shape[1], n))
    for spot in range(len(owners)):
        pattern = owners[spot]
        start = bins[spot] + starts[pattern]
        for j in range(tables.shape[1]):
            for k in range(n):
                found[pattern, j, k] += tables[columns[pattern], j, start + k]
    return found


@lru_cache(maxsize=2)
def _tables(grid: ConstantGrid) -> NDArray[np.float64]:
    """Return, for each centring and share, the log likelihood ratio of a spot as a function of ln(q a)."""
    # Beyond both ends as far as the window reaches, for the mean density there.
    beyond = math.ceil(4.0 * _WINDOW / grid.step)
    n = grid.n_radii + grid.count - 1 + 2 * beyond
    start = math.log(_NEAREST * grid.first) + (0.5 - beyond) * grid.step
    largest = math.ceil(math.exp(2.0 * (start + n * grid.step)))
    tables = []
    for centring in CENTRINGS:
        place = (0.5 * np.log(allowed_numbers(centring, largest)) - start) / grid.step
        before = np.floor(place).astype(np.int64)
        inside = (before >= 0) & (before < n - 1)
        before, part = before[inside], place[inside] - before[inside]
        comb = np.bincount(before, 1.0 - part, n) + np.bincount(before + 1, part, n)
        rings = gaussian_filter1d(comb, _WIDTH / grid.step, mode="nearest")
        mean = gaussian_filter1d(rings, _WINDOW / grid.step, mode="nearest")
        # Where there is no ring far and wide a spot lies on none.
        ratio = np.divide(rings, mean, out=np.zeros(n), where=mean > 1e-9)[beyond : n - beyond]
        tables.append([np.log(1.0 - share + share * ratio) for share in _SHARES])
    return np.array(tables)
