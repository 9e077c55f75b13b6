"""A cubic lattice that many grains of a scan have, and how far it makes single patterns cubic.

Few spots do not tell a crystal system. But once many grains of a scan show one cubic lattice, as if they were
a powder, a pattern whose spots all lie on its rings is one more grain of it, whatever it looks like by
itself: along [111] the spots of any cubic crystal are a hexagonal net.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.cubic_constant import (
    CONSTANTS,
    is_decided,
    judge_near,
    pool_cubic_constants,
)
from diffractory.patterns.cubic_rings import CENTRINGS, count_radii, judge_rings, share_on_rings
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.similarity import distinct_patterns
from diffractory.patterns.spot_lattice import SpotLattices

#: Patterns of which no two are alike that a phase is seen in, and how much likelier a spot of them lies on
#: its rings than anywhere, as a natural logarithm: hardly any crystal reaches it that is not cubic.
_FEWEST, _CUBIC = 5, 0.3
#: Most patterns that are asked.
_MOST = 2000
#: The log odds that a pattern is cubic, where cubic crystals are of a known phase: a constant, and what the
#: model's log odds, the evidence of all its spots, and that of a spot in the mean add to it. By logistic
#: regression on materials that only calibrated the model (benchmarks/cubic_phase.py).
_ODDS: Final = (-3.85, 1.058, 0.363, 8.04)
#: Probabilities nearer to 0 and 1 than this count as so near.
_SURE = 1e-4
#: Share of cubic positions that are of that phase, and not of another cubic one.
_KNOWN = 0.9


@dataclass(frozen=True)
class CubicPhase:
    """The lattice of a cubic phase.

    Parameters
    ----------
    a : float
        In Å.
    centring : {"P", "I", "F"}
    on_rings, by_chance : float
        Share of the scan's spots within 1 % of a ring of it, and the share that would be if they lay
        anywhere.
    patterns : int
        Patterns that show it of which no two are alike.
    margin : float
        Natural logarithm of the odds against the next best constant; NaN where the phase was told.
    """

    a: float
    centring: str
    on_rings: float = math.nan
    by_chance: float = math.nan
    patterns: int = 0
    margin: float = math.nan


def told_phase(a: float, centring: str, peaks: PeakTable) -> CubicPhase:
    """Return a phase that somebody names, with how well the spots of a scan lie on its rings.

    Parameters
    ----------
    a : float
        In Å.
    centring : {"P", "I", "F"}
    peaks : PeakTable
    """
    on_rings, by_chance = share_on_rings(count_radii(peaks, CONSTANTS), CONSTANTS, a, centring)
    return CubicPhase(a, centring, on_rings, by_chance, len(distinct_patterns(peaks, _MOST)))


def find_cubic_phase(
    lattices: SpotLattices,
    peaks: PeakTable,
    called_cubic: NDArray[np.bool_],
    expected: float = math.nan,
) -> CubicPhase | None:
    """Find the cubic lattice that the patterns of a scan have, or those that are called cubic.

    Parameters
    ----------
    lattices : SpotLattices
        Of n patterns.
    peaks : PeakTable
        The same patterns.
    called_cubic : ndarray of shape (n,), bool
        Those that are asked alone where all together show no phase: a scan may hold others.
    expected : float, optional
        Constant in Å that something else tells; see
        :func:`~diffractory.patterns.cubic_constant.pool_cubic_constants`.

    Returns
    -------
    CubicPhase or None
        None where there are fewer than five distinct patterns, where no constant is decided, and where spots
        do not lie on its rings as those of hardly any crystal do that is not cubic.
    """
    for asked in (np.arange(len(peaks)), np.flatnonzero(called_cubic)):
        phase = _phase_of(lattices.take(asked), peaks.take(asked), expected)
        if phase is not None:
            radii = count_radii(peaks, CONSTANTS)
            on_rings, by_chance = share_on_rings(radii, CONSTANTS, phase.a, phase.centring)
            return replace(phase, on_rings=on_rings, by_chance=by_chance)
    return None


def _phase_of(lattices: SpotLattices, peaks: PeakTable, expected: float) -> CubicPhase | None:
    distinct = distinct_patterns(peaks, _MOST)
    if len(distinct) < _FEWEST:
        return None
    radii = count_radii(peaks.take(distinct), CONSTANTS)
    likelier = judge_rings(radii, CONSTANTS)
    enough = _CUBIC * radii.sum()
    if likelier.max() < enough:
        # Spared where no constant at all would do: pooling takes longer than all of the above.
        return None
    one, yes = np.ones(len(peaks), np.int32), np.ones(1, dtype=bool)
    found = pool_cubic_constants(lattices, peaks, one, yes, np.array([expected]))
    a, centring = float(found.a[0]), str(found.centring[0])
    near = np.abs(CONSTANTS.constants / a - 1.0) < 0.01
    if not is_decided(found.margin[0]) or likelier[CENTRINGS.index(centring), near].max() < enough:
        return None
    return CubicPhase(a, centring, patterns=len(distinct), margin=float(found.margin[0]))


def phase_probability(
    probability: NDArray[np.float64], peaks: PeakTable, phase: CubicPhase
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability that patterns are cubic, where a cubic phase of the scan is known.

    Parameters
    ----------
    probability : ndarray of shape (n,)
        The model's, calibrated, that each pattern is cubic.
    peaks : PeakTable
        Of the n patterns.
    phase : CubicPhase

    Returns
    -------
    probability : ndarray of shape (n,)
        Nine of ten cubic patterns are taken to be of that phase, one to be of another that says nothing.
    evidence : ndarray of shape (n,)
        Natural logarithm of how much likelier a spot is on a ring of the phase than anywhere, the mean over
        the spots of each pattern; NaN where there is none, and the probability is the model's.
    """
    _, total = judge_near(peaks, np.full(len(peaks), phase.a), np.full(len(peaks), phase.centring))
    spots = np.maximum(peaks.counts - (peaks.direct >= 0), 1)
    sure = np.clip(probability, _SURE, 1.0 - _SURE)
    before = np.log(sure / (1.0 - sure))
    constant, by_model, by_all, by_spot = _ODDS
    gain = constant + (by_model - 1.0) * before + by_all * total + by_spot * total / spots
    odds = np.exp(before) * (_KNOWN * np.exp(np.minimum(gain, 50.0)) + (1.0 - _KNOWN))
    return np.where(np.isnan(total), probability, odds / (1.0 + odds)), total / spots
