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


@njit(nogil=True, cache=True, error_model="numpy")
def _differences(q, tolerance):  # type: ignore[no-untyped-def]
    """Return distinct difference vectors of bright spots (and the origin), the most frequent first."""
    n = min(len(q), _PROPOSING)
    vectors, counts = np.empty((n * (n + 1) // 2, 2)), np.zeros(n * (n + 1) // 2)
    found = 0
    for i in range(n):
        for j in range(-1, i):
            x, y = q[i, 0], q[i, 1]
            if j >= 0:
                x, y = x - q[j, 0], y - q[j, 1]
            square = x * x + y * y
            if square < _SHORTEST**2 or square > _LONGEST**2:
                continue
            known = False
            for k in range(found):
                # A vector and its opposite are the same, whichever of two spots came first.
                across = abs(vectors[k, 0] * x + vectors[k, 1] * y)
                apart = vectors[k, 0] ** 2 + vectors[k, 1] ** 2 + square - 2.0 * across
                if apart < tolerance * tolerance:
                    counts[k] += 1.0
                    known = True
                    break
            if not known:
                vectors[found, 0], vectors[found, 1], counts[found] = x, y, 1.0
                found += 1
    lengths = np.sqrt((vectors[:found] * vectors[:found]).sum(axis=1))
    return vectors[np.argsort(-counts[:found] / (1.0 + 0.5 * lengths))[:_VECTORS]]


@njit(nogil=True, cache=True, error_model="numpy")
def likely_planes(q, tolerance):  # type: ignore[no-untyped-def]
    """Return the lattice planes (columns: two vectors) that explain most, and their shares of spots."""
    vectors = _differences(q, tolerance)
    n = len(vectors)
    planes, scores, shares = np.empty((n * n, 2, 2)), np.empty(n * n), np.empty(n * n)
    found = 0
    for i in range(n):
        for j in range(i):
            plane = np.empty((2, 2))
            plane[:, 0], plane[:, 1] = vectors[i], vectors[j]
            _reduce_plane(plane)
            area = abs(plane[0, 0] * plane[1, 1] - plane[0, 1] * plane[1, 0])
            if area < SMALLEST_AREA or plane[0, 0] ** 2 + plane[1, 0] ** 2 < 0.5 * _SHORTEST**2:
                continue
            explained = 0
            for spot in range(len(q)):
                u, v = plane_coordinates(q[spot], plane)
                explained += distance2(u - np.rint(u), v - np.rint(v), plane) < tolerance * tolerance
            score = explained * math.log(1.0 / min(0.9, math.pi * tolerance * tolerance / area))
            known = False
            for k in range(found):
                if abs(scores[k] - score) <= 0.02 * score:
                    other = abs(planes[k, 0, 0] * planes[k, 1, 1] - planes[k, 0, 1] * planes[k, 1, 0])
                    known = known or abs(other - area) < 0.02 * area
            if not known:
                planes[found], scores[found], shares[found] = plane, score, explained / len(q)
                found += 1
    order = np.argsort(-scores[:found])[:_PLANES]
    return planes[order], shares[order]


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


@njit(nogil=True, cache=True, error_model="numpy")
def plane_coordinates(q, plane):  # type: ignore[no-untyped-def]
    """Return a position in units of a plane's two vectors (the leading columns)."""
    determinant = plane[0, 0] * plane[1, 1] - plane[0, 1] * plane[1, 0]
    u = (q[0] * plane[1, 1] - q[1] * plane[0, 1]) / determinant
    return u, (plane[0, 0] * q[1] - plane[1, 0] * q[0]) / determinant


@njit(nogil=True, cache=True, error_model="numpy")
def distance2(u, v, plane):  # type: ignore[no-untyped-def]
    """Return the squared length of u and v times a plane's two vectors."""
    return (u * plane[0, 0] + v * plane[0, 1]) ** 2 + (u * plane[1, 0] + v * plane[1, 1]) ** 2
