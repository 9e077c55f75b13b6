"""The cubic lattice constant that explains the lattices of many patterns of one particle together.

A single pattern often shows a part of the lattice, and the cell read from it is a guess. But whatever part it
is, scalar products of its reciprocal vectors, times a², are whole numbers if the crystal is cubic:
h·h' = hh' + kk' + ll'. So every a is judged by how near the six products of every pattern come to whole
numbers. Which of them are absent is left open; large constants come near by chance, and the density of a
hit, relative to that of numbers that lie anywhere, takes it into account. The radii of all spots say as much
where the lattices of single patterns are wrong, and both are added up.

A constant that is expected, such as a model's answer, which looks at intensities as well, decides between
whole factors that lattices leave open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from diffractory.patterns.cubic_rings import (
    CENTRINGS,
    ConstantGrid,
    count_radii,
    judge_rings,
    judge_rings_near,
    share_on_rings,
)
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.similarity import distinct_patterns
from diffractory.patterns.spot_lattice import SpotLattices

#: Smallest and largest constant that is an answer, in Å, and the relative distance of those that are tried.
_SMALLEST, _LARGEST, _STEP = 2.4, 18.0, 0.002
#: Constants up to this one are tried, so that an answer shows whether it is one or only the end of the range.
_BEYOND = 25.0
#: They begin at half of the smallest, for smaller cells that the coarse ones are.
CONSTANTS: Final = ConstantGrid(
    0.5 * _SMALLEST, math.ceil(math.log(2.0 * _BEYOND / _SMALLEST) / _STEP), _STEP
)
#: The constant of one pattern lies this near its particle's, relatively, by a normal distribution that ends
#: at so many of its standard deviations.
_SPREAD, _END = 0.01, 3.0
#: Most patterns of a particle that are asked.
_MOST: Final = 2000
#: Most patterns that are compared with each other, to see which are distinct.
MOST_DISTINCT: Final = 300
#: Patterns that are judged at a time: each takes a kilobyte.
_BLOCK = 20_000
#: Share of patterns whose lattice is believed to be wrong …
_WRONG = 0.2
#: … and of those that show the reflections of a smaller cell alone, with products that are all multiples
#: of 2, 3 or 4: superstructures are weak.
_COARSE = 0.01
_SHIFTS = tuple(round(0.5 * math.log(multiple) / _STEP) for multiple in (2, 3, 4))
#: A spot on a ring is believed as much as so many independent ones: those of a pattern lie on one lattice,
#: which is asked as well.
_A_SPOT = 0.5
#: Relative error of lengths across the beam, and absolute errors across and along it, in Å⁻¹.
_RELATIVE, _ACROSS, _ALONG = 0.006, 0.001, 0.01
#: A product this uncertain, in units of whole numbers, says nothing.
_VAGUE = 0.45
#: Logarithms of densities: below the first nothing is added up any more, below the second it is 0.
_HOPELESS, _NOTHING = -60.0, -30.0
_FIRST, _SECOND = np.array([0, 1, 2, 0, 0, 1]), np.array([0, 1, 2, 1, 2, 2])
#: Natural logarithm of the odds from which on a constant is an answer: about nine of ten are right from here
#: to the double, more beyond.
_DECIDED = 5.0
#: Constants this near, relatively, are the same.
_SAME = 0.02
#: What is expected is off by little in this share of cases, its logarithm by a Laplace distribution of the
#: first scale, otherwise by a normal one of the second; nothing is ruled out.
_KNOWN, _LITTLE, _MUCH, _ANYTHING = 0.58, 0.009, 0.27, 1e-4


@dataclass(frozen=True, eq=False)
class CubicConstants:
    """Pooled cubic lattice constants of n particles; NaN where no pattern has a spot and none is expected.

    Parameters
    ----------
    a : ndarray of shape (n,)
        In Å.
    support : ndarray of shape (n,)
        Share of the patterns with a lattice whose lattice it explains better than chance does.
    margin : ndarray of shape (n,)
        Natural logarithm of the likelihood over that of the best constant 2 % or more off, for as many
        patterns as are distinct: those of one grain repeat each other. Negative where a constant beyond the
        largest answer is more likely.
    centring : ndarray of shape (n,), str
        P, I or F, whichever has the rings that spots lie on; empty where no pattern has a spot.
    on_rings, by_chance : ndarray of shape (n,)
        Share of the spots within 1 % of a ring of that lattice, and the share that would be if they lay
        anywhere.
    patterns : ndarray of shape (n,), int64
        How many patterns were asked of which no two are alike.
    """

    a: NDArray[np.float64]
    support: NDArray[np.float64]
    margin: NDArray[np.float64]
    centring: NDArray[np.str_]
    on_rings: NDArray[np.float64]
    by_chance: NDArray[np.float64]
    patterns: NDArray[np.int64]

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Return particles of which nothing is known.

        Parameters
        ----------
        n : int

        Returns
        -------
        CubicConstants
        """
        a, support, margin, on_rings, by_chance = (np.full(n, np.nan) for _ in range(5))
        centring, patterns = np.full(n, "", dtype="<U1"), np.zeros(n, dtype=np.int64)
        return cls(a, support, margin, centring, on_rings, by_chance, patterns)


def is_decided(margin: ArrayLike) -> NDArray[np.bool_]:
    """Tell whether pooled constants are answers: their margin is known and 5 or more."""
    return np.asarray(np.asarray(margin) >= _DECIDED)


def pool_cubic_constants(
    lattices: SpotLattices,
    peaks: PeakTable,
    particle: NDArray[np.int32],
    wanted: NDArray[np.bool_],
    expected: NDArray[np.float64] | None = None,
) -> CubicConstants:
    """Find the lattice constant of particles that are taken to be cubic.

    Parameters
    ----------
    lattices : SpotLattices
        Of n patterns.
    peaks : PeakTable
        The same patterns. Those without a lattice are asked for their spots alone.
    particle : ndarray of shape (n,), int32
        Number of the particle of each pattern, 0 = none.
    wanted : ndarray of shape (n_particles,), bool
        Particles that are cubic.
    expected : ndarray of shape (n_particles,), optional
        Constants in Å that something else tells, NaN where it does not. They weigh as much as one more
        pattern, and are the answer where no pattern has a spot.

    Returns
    -------
    CubicConstants
        Of the particles 1 … n_particles; NaN where not wanted.
    """
    result = CubicConstants.unknown(len(wanted))
    told = np.full(len(wanted), np.nan) if expected is None else np.where(wanted, expected, np.nan)
    result.a[:] = told
    grid, tried = CONSTANTS, CONSTANTS.constants
    too_small, too_large = tried < _SMALLEST, tried >= _LARGEST
    usable = np.flatnonzero((particle > 0) & (peaks.counts > 1))
    members = np.split(
        usable[np.argsort(particle[usable], kind="stable")],
        np.cumsum(np.bincount(particle[usable], minlength=len(wanted) + 1))[:-1],
    )[1:]
    for number, member in enumerate(members):
        if not (wanted[number] and len(member)):
            continue
        # Evenly from all over the particle: more say nothing new.
        chosen = member[np.linspace(0, len(member) - 1, min(len(member), _MOST)).round().astype(np.int64)]
        shown, read = peaks.take(chosen), lattices.score[chosen] > 0.0
        radii = count_radii(shown, grid)
        if not (read.any() or radii.any()):
            continue
        products, errors = _products(lattices.take(chosen[read]), shown.counts[read])
        total, explains = _judge(products, errors, tried**2)
        rings = judge_rings(radii, grid)
        total += _A_SPOT * rings.max(axis=0)
        # All of them for the constant, but no more evidence than the distinct ones are.
        distinct = len(distinct_patterns(shown, MOST_DISTINCT))
        total *= distinct / len(chosen)
        if np.isfinite(told[number]):
            total += _log_expected(tried, told[number])
        total[too_small] = -np.inf
        best = int(np.where(too_large, -np.inf, total).argmax())
        other = np.abs(tried / tried[best] - 1.0) >= _SAME
        # Near the end of the range the best answer may be the flank of one that is none.
        other |= too_large & (total > total[best])
        off = _vertex(total[None], np.array([best]))[0]
        result.a[number] = min(tried[best] * math.exp(_STEP * off), _LARGEST)
        result.patterns[number] = distinct
        result.support[number] = explains[best] / read.sum() if read.any() else np.nan
        result.margin[number] = total[best] - total[other].max()
        centring = CENTRINGS[int(rings[:, best].argmax())]
        result.centring[number] = centring
        result.on_rings[number], result.by_chance[number] = share_on_rings(
            radii, grid, result.a[number], centring
        )
    return result


def refine_cubic_constants(
    peaks: PeakTable, known: NDArray[np.float64], centring: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Tell the constant of every single pattern from its spots, where that of its particle is known.

    What is known of the particle is a normal distribution of 1 % around its constant; the rings that the
    spots lie on decide the rest.

    Parameters
    ----------
    peaks : PeakTable
        Of n patterns.
    known : ndarray of shape (n,)
        Constant of the particle of each pattern in Å; NaN = not asked.
    centring : ndarray of shape (n,), str
        P, I or F: the lattice of the particle.

    Returns
    -------
    ndarray of shape (n,)
        In Å, at most 3 % from what was known; NaN where not asked, and where the spots are no likelier on the
        rings of any such constant than anywhere: they are not of this lattice.
    """
    a, evidence = judge_near(peaks, known, centring)
    return np.where(evidence > 0.0, a, np.nan)


def judge_near(
    peaks: PeakTable, known: NDArray[np.float64], centring: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the likeliest constant of each pattern near a known one, and what its spots say for it.

    Parameters
    ----------
    peaks, known, centring
        As for :func:`refine_cubic_constants`.

    Returns
    -------
    a : ndarray of shape (n,)
        In Å, at most 3 % from what was known.
    evidence : ndarray of shape (n,)
        Natural logarithm of how much likelier the spots are on its rings than anywhere; both NaN where not
        asked, and where there is no spot.
    """
    a, evidence = np.full(len(known), np.nan), np.full(len(known), np.nan)
    reach = round(_END * _SPREAD / _STEP)
    inside = (known > CONSTANTS.constants[reach]) & (known < CONSTANTS.constants[-1 - reach])
    asked = np.flatnonzero(inside)
    for rows in np.split(asked, range(_BLOCK, len(asked), _BLOCK)):
        if len(rows):
            a[rows], evidence[rows] = _judge_block(peaks.take(rows), known[rows], centring[rows], reach)
    return a, evidence


def _judge_block(
    peaks: PeakTable, known: NDArray[np.float64], centring: NDArray[np.str_], reach: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = np.rint(np.log(known / CONSTANTS.first) / _STEP).astype(np.int64)
    columns = middle[:, None] + np.arange(-reach, reach + 1)
    likelier = judge_rings_near(peaks, CONSTANTS, columns[:, 0], columns.shape[1], centring)
    tried = CONSTANTS.constants[columns]
    total = likelier - 0.5 * (np.log(tried / known[:, None]) / _SPREAD) ** 2
    best, rows = total.argmax(axis=1), np.arange(len(known))
    evidence = likelier[rows, best]
    a = tried[rows, best] * np.exp(_STEP * _vertex(total, best))
    return np.where(np.isnan(evidence), np.nan, a), evidence


def _vertex(total: NDArray[np.float64], best: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how many steps, at most half a one, the top of a parabola lies beside the best of each row."""
    rows, middle = np.arange(len(best)), np.clip(best, 1, total.shape[1] - 2)
    before, here, after = (total[rows, middle + step] for step in (-1, 0, 1))
    curvature = 2.0 * here - before - after
    peaked = (best == middle) & np.isfinite(before) & (curvature > 0.0)
    return np.clip(
        np.divide(0.5 * (after - before), curvature, out=np.zeros(len(best)), where=peaked), -0.5, 0.5
    )


def _log_expected(tried: NDArray[np.float64], expected: float) -> NDArray[np.float64]:
    """Return the log density, in the logarithm of the constant, that an expected one gives to others."""
    off = np.abs(np.log(tried / expected))
    little = np.exp(-off / _LITTLE) / (2.0 * _LITTLE)
    much = np.exp(-0.5 * (off / _MUCH) ** 2) / (_MUCH * math.sqrt(2.0 * math.pi))
    return np.asarray(np.log(_KNOWN * little + (1.0 - _KNOWN) * much + _ANYTHING))


def _products(
    lattices: SpotLattices, spots: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the six scalar products of each lattice's basis, in Å⁻², and their standard deviations."""
    basis = lattices.reciprocal.transpose(0, 2, 1)
    # The more spots a lattice was fitted to, the better it is known.
    fitted = (lattices.misfit + _ACROSS) / np.sqrt(np.maximum(lattices.explained * spots, 3.0))
    across = (basis[:, :, :2] ** 2).sum(axis=2)
    variance = across * (fitted**2)[:, None] + (_RELATIVE * across) ** 2 + (basis[:, :, 2] * _ALONG) ** 2
    errors = np.sqrt(variance[:, _FIRST] + variance[:, _SECOND])
    errors[:, _FIRST == _SECOND] *= math.sqrt(2.0)
    return (basis[:, _FIRST] * basis[:, _SECOND]).sum(axis=2), errors


@njit(nogil=True, cache=True, error_model="numpy")
def _judge(products, errors, squares):  # type: ignore[no-untyped-def]
    """Return the log likelihood of each constant, and how many patterns each explains."""
    n = len(squares)
    total, explains, logs = np.zeros(n), np.zeros(n), np.empty(n)
    for pattern in range(len(products)):
        # No reciprocal vector is shorter than 1/a.
        shortest = products[pattern, :3].min()
        for i in range(n):
            log = -np.inf if shortest * squares[i] < 0.5 else 0.0
            for k in range(products.shape[1]):
                sigma = errors[pattern, k] * squares[i]
                if log < _HOPELESS or sigma > _VAGUE:
                    continue
                value = products[pattern, k] * squares[i]
                off = (value - np.rint(value)) / sigma
                log -= 0.5 * off * off + math.log(math.sqrt(2.0 * math.pi) * sigma)
            logs[i] = log
        for i in range(n):
            coarse = -np.inf
            for shift in _SHIFTS:
                if i >= shift:
                    coarse = max(coarse, logs[i - shift])
            density = 0.0
            if max(logs[i], coarse) > _NOTHING:
                density = (1.0 - _COARSE) * math.exp(logs[i]) + _COARSE * math.exp(coarse)
            total[i] += math.log(_WRONG + (1.0 - _WRONG) * density)
            explains[i] += density > 1.0
    return total, explains
