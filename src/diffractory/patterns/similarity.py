"""How alike two patterns are, from where their spots lie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError
from diffractory.patterns.peak_table import PeakTable

#: Spots nearer than this, in Å⁻¹, are the same: positions vary by a third of it from pattern to pattern.
SAME_SPOT = 0.015
#: Patterns at least this alike are of one grain.
_ALIKE = 0.4


def pattern_similarity(
    table: PeakTable, first: NDArray[np.int64], second: NDArray[np.int64], tolerance: float = SAME_SPOT
) -> NDArray[np.float64]:
    """Return how alike pairs of patterns are: 1 for equal ones, 0 where no spot lies on another.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹, intensities on any scale. Direct beams do not count.
    first, second : ndarray of shape (n_pairs,), int
        Patterns of each pair.
    tolerance : float
        Spots of two patterns nearer than this, in Å⁻¹, are the same.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Σ √(I I′) over the spots they share, divided by √(Σ I Σ I′) over all their spots (the
        Bhattacharyya coefficient); 0 where one of them has no spot.

    Raises
    ------
    DiffractoryError
        If the numbers of patterns are not of equally many, or there is no such pattern.
    """
    both = np.concatenate([first, second])
    if len(first) != len(second) or (both.size and not 0 <= both.min() <= both.max() < len(table)):
        raise DiffractoryError(
            f"pairs of {len(first)} and {len(second)} patterns, of a table of {len(table)}",
            "each pair is two numbers from 0 on, below the number of patterns",
        )
    result = np.zeros(len(first))
    _compare(table.q, table.intensity, table.offsets, table.direct, first, second, tolerance, result)
    return result


def distinct_patterns(table: PeakTable, most: int) -> NDArray[np.int64]:
    """Choose patterns of which no two are alike: positions of one grain repeat each other.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹.
    most : int
        Of more patterns, so many are asked, evenly from all of them.

    Returns
    -------
    ndarray of int64
        Indices, ascending: the first pattern with a spot, and each one after it whose similarity to all that
        were chosen before is below 0.4.
    """
    return _distinct(table, np.arange(len(table)), most, len(table))


def count_distinct(
    table: PeakTable, group: NDArray[np.int32], n: int, most: int, enough: int
) -> NDArray[np.int64]:
    """Count the patterns of groups of which no two are alike, as :func:`distinct_patterns` chooses them.

    Parameters
    ----------
    table : PeakTable
        Positions in Å⁻¹.
    group : ndarray of shape (n_patterns,), int32
        Number of the group of each pattern, 0 = none.
    n : int
        Number of groups.
    most : int
        Of more patterns in a group, so many are asked.
    enough : int
        More are not counted.

    Returns
    -------
    ndarray of shape (n,), int64
        Of the groups 1 … n.
    """
    order = np.argsort(group, kind="stable")
    stops = np.cumsum(np.bincount(group, minlength=n + 1))
    members = (order[start:stop] for start, stop in pairwise(stops.tolist()))
    counts = [len(_distinct(table, rows, most, enough)) for rows in members]
    return np.array(counts, dtype=np.int64)


def _distinct(table: PeakTable, rows: NDArray[np.int64], most: int, enough: int) -> NDArray[np.int64]:
    asked = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)]
    kept = np.zeros(min(len(asked), enough), dtype=np.int64)
    n = _choose(table.q, table.intensity, table.offsets, table.direct, asked, SAME_SPOT, _ALIKE, kept)
    return kept[:n]


@njit(nogil=True, cache=True, error_model="numpy")
def _choose(q, intensity, offsets, direct, asked, tolerance, alike, kept):  # type: ignore[no-untyped-def]
    n, one, other, result = 0, np.empty(1, np.int64), np.empty(1, np.int64), np.empty(1)
    for pattern in asked:
        if n == len(kept):
            break
        first, stop = offsets[pattern], offsets[pattern + 1]
        if stop - first - (direct[pattern] >= 0) <= 0:
            continue
        new, one[0] = True, pattern
        for i in range(n):
            other[0], result[0] = kept[i], 0.0
            _compare(q, intensity, offsets, direct, one, other, tolerance, result)
            if result[0] >= alike:
                new = False
                break
        if new:
            kept[n] = pattern
            n += 1
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def _compare(q, intensity, offsets, direct, first, second, tolerance, result):  # type: ignore[no-untyped-def]
    for pair in range(len(first)):
        a, b = first[pair], second[pair]
        taken = np.zeros(offsets[b + 1] - offsets[b], dtype=np.bool_)
        shared, total_a, total_b = 0.0, 0.0, 0.0
        for j in range(offsets[b], offsets[b + 1]):
            if j == direct[b]:
                taken[j - offsets[b]] = True
            else:
                total_b += max(intensity[j], 0.0)
        for i in range(offsets[a], offsets[a + 1]):
            if i == direct[a]:
                continue
            here = max(intensity[i], 0.0)
            total_a += here
            nearest, least = -1, tolerance * tolerance
            for j in range(offsets[b], offsets[b + 1]):
                distance = (q[i, 0] - q[j, 0]) ** 2 + (q[i, 1] - q[j, 1]) ** 2
                if distance < least and not taken[j - offsets[b]]:
                    nearest, least = j, distance
            if nearest >= 0:
                taken[nearest - offsets[b]] = True
                shared += np.sqrt(here * max(intensity[nearest], 0.0))
        if total_a > 0.0 and total_b > 0.0:
            result[pair] = min(shared / np.sqrt(total_a * total_b), 1.0)
