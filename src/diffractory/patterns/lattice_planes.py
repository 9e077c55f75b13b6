"""Lattice planes of a pattern: two vectors that many differences between bright spots agree on."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Bright spots whose differences are looked at; vectors and planes that are followed.
_PROPOSING, _VECTORS, _PLANES = 30, 12, 6
#: Differences between these lengths, in Å⁻¹, may be lattice vectors.
_SHORTEST, _LONGEST = 0.04, 0.9
#: Smallest area of a primitive reciprocal plane in Å⁻²: that of a plane of 25 × 25 Å.
SMALLEST_AREA = 0.0015
#: Most lists that difference vectors are kept in by their length.
_LENGTHS = 256


@njit(nogil=True, cache=True, error_model="numpy")
def _differences(xs, ys, n_spots, tolerance):  # type: ignore[no-untyped-def]
    """Return distinct difference vectors of bright spots (and the origin), the most frequent first."""
    n = min(n_spots, _PROPOSING)
    vectors, counts = np.empty((n * (n + 1) // 2, 2)), np.zeros(n * (n + 1) // 2)
    # Vectors that are the same have nearly the same length: lists of those of each length, the newest
    # first. A little wider than the tolerance, so that no rounding moves one two lists away.
    width = 1.001 * max(tolerance, _LONGEST / _LENGTHS)
    newest = np.full(int(_LONGEST / width) + 3, -1, dtype=np.int64)
    older = np.empty(len(counts), dtype=np.int64)
    found = 0
    for i in range(n):
        for j in range(-1, i):
            x, y = xs[i], ys[i]
            if j >= 0:
                x, y = x - xs[j], y - ys[j]
            square = x * x + y * y
            if square < _SHORTEST**2 or square > _LONGEST**2:
                continue
            place, first = int(math.sqrt(square) / width) + 1, found
            for near in range(place - 1, place + 2):
                k = newest[near]
                while k >= 0:
                    # A vector and its opposite are the same, whichever of two spots came first.
                    across = abs(vectors[k, 0] * x + vectors[k, 1] * y)
                    apart = vectors[k, 0] ** 2 + vectors[k, 1] ** 2 + square - 2.0 * across
                    if apart < tolerance * tolerance:
                        first = min(first, k)
                    k = older[k]
            if first == found:
                vectors[found, 0], vectors[found, 1] = x, y
                older[found], newest[place] = newest[place], found
                found += 1
            counts[first] += 1.0
    lengths = np.sqrt((vectors[:found] * vectors[:found]).sum(axis=1))
    return vectors[np.argsort(-counts[:found] / (1.0 + 0.5 * lengths))[:_VECTORS]]


@njit(nogil=True, cache=True, error_model="numpy")
def likely_planes(xs, ys, n_spots, tolerance):  # type: ignore[no-untyped-def]
    """Return the lattice planes (columns: two vectors) that explain most, and their shares of spots."""
    vectors = _differences(xs, ys, n_spots, tolerance)
    n = len(vectors)
    planes, scores, shares = np.empty((n * n, 2, 2)), np.empty(n * n), np.empty(n * n)
    areas, plane = np.empty(n * n), np.empty((2, 2))
    found = 0
    for i in range(n):
        for j in range(i):
            plane[0, 0], plane[1, 0] = vectors[i, 0], vectors[i, 1]
            plane[0, 1], plane[1, 1] = vectors[j, 0], vectors[j, 1]
            _reduce_plane(plane)
            area = abs(plane[0, 0] * plane[1, 1] - plane[0, 1] * plane[1, 0])
            if area < SMALLEST_AREA or plane[0, 0] ** 2 + plane[1, 0] ** 2 < 0.5 * _SHORTEST**2:
                continue
            explained = _explained(xs, ys, n_spots, plane, tolerance)
            score = explained * math.log(1.0 / min(0.9, math.pi * tolerance * tolerance / area))
            known = False
            for k in range(found):
                if abs(scores[k] - score) <= 0.02 * score:
                    known = known or abs(areas[k] - area) < 0.02 * area
            if not known:
                planes[found], scores[found], shares[found] = plane, score, explained / n_spots
                areas[found] = area
                found += 1
    order = np.argsort(-scores[:found])[:_PLANES]
    return planes[order], shares[order]


@njit(nogil=True, cache=True, error_model="numpy")
def _explained(xs, ys, n_spots, plane, tolerance):  # type: ignore[no-untyped-def]
    """Return how many spots lie on points of a plane."""
    ax, bx, ay, by = plane[0, 0], plane[0, 1], plane[1, 0], plane[1, 1]
    area, explained = ax * by - bx * ay, 0
    for spot in range(n_spots):
        u = (xs[spot] * by - ys[spot] * bx) / area
        v = (ax * ys[spot] - ay * xs[spot]) / area
        u, v = u - np.rint(u), v - np.rint(v)
        left, up = u * ax + v * bx, u * ay + v * by
        explained += left * left + up * up < tolerance * tolerance
    return explained


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce_plane(plane):  # type: ignore[no-untyped-def]
    """Make the columns the two shortest vectors of their lattice (Lagrange)."""
    for _ in range(50):
        aa = plane[0, 0] ** 2 + plane[1, 0] ** 2
        if aa > plane[0, 1] ** 2 + plane[1, 1] ** 2:
            for row in range(2):
                plane[row, 0], plane[row, 1] = plane[row, 1], plane[row, 0]
            continue
        turns = np.rint((plane[0, 0] * plane[0, 1] + plane[1, 0] * plane[1, 1]) / aa)
        if not abs(turns) > 0.0:
            break
        for row in range(2):
            plane[row, 1] -= turns * plane[row, 0]
