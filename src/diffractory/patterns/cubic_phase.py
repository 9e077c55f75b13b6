"""Cubic lattices that many grains of a scan have, and how far they make single patterns cubic.

Few spots do not tell a crystal system. But once many grains of a scan show one cubic lattice, as if they were
a powder, a pattern whose spots all lie on its rings is one more grain of it, whatever it looks like by
itself: along [111] the spots of any cubic crystal are a hexagonal net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.cubic_constant import (
    CONSTANTS,
    MOST_DISTINCT,
    is_decided,
    judge_near,
    pool_cubic_constants,
)
from diffractory.patterns.cubic_rings import CENTRINGS, count_radii, judge_rings, share_on_rings
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.similarity import distinct_patterns
from diffractory.patterns.spot_lattice import SpotLattices

#: Patterns of which no two are alike that a phase is seen in.
_FEWEST: Final = 5
#: How much likelier a spot of theirs lies on its rings than anywhere, as a natural logarithm: hardly any
#: crystal reaches it that is not cubic. And what the best of all constants that are tried reaches by chance.
_A_SPOT, _BY_CHANCE = 0.3, 7.0
#: Of the patterns that speak for a phase a model calls at least this share cubic: lattices of other systems
#: may have nearly the rings of a cubic one, and intensities of their own.
_CALLED: Final = 0.4
#: Most phases of a scan, and how far their constants differ at least, relatively.
_MOST_PHASES, _APART = 3, 0.02
#: The log odds that a pattern is cubic, where cubic crystals are of a known phase: a constant, and what the
#: model's log odds, the evidence of all its spots, and that of a spot in the mean add to it. By logistic
#: regression on materials that only calibrated the model (benchmarks/cubic_phase.py).
_ODDS: Final = (-3.98, 1.049, 0.357, 7.67)
#: Probabilities nearer to 0 and 1 than this count as so near.
_SURE = 1e-4


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
        anywhere; NaN where there are no spots.
    patterns : int
        Patterns that show it of which no two are alike; 0 where the phase was told.
    margin : float
        Natural logarithm of the odds against the next best constant; NaN where the phase was told.
    """

    a: float
    centring: str
    on_rings: float = math.nan
    by_chance: float = math.nan
    patterns: int = 0
    margin: float = math.nan


def with_shares(phase: CubicPhase, peaks: PeakTable) -> CubicPhase:
    """Return a phase with the share of the spots of a scan that lie on its rings, and that by chance."""
    on_rings, by_chance = share_on_rings(count_radii(peaks, CONSTANTS), CONSTANTS, phase.a, phase.centring)
    return replace(phase, on_rings=on_rings, by_chance=by_chance)


def find_cubic_phases(
    lattices: SpotLattices,
    peaks: PeakTable,
    called_cubic: NDArray[np.bool_],
    a_of_model: NDArray[np.float64],
) -> list[CubicPhase]:
    """Find the cubic lattices that patterns of a scan have, the most evident one first.

    All patterns are asked together, and where they show no phase, those that are called cubic alone; then
    those that the phase does not explain are asked for another.

    Parameters
    ----------
    lattices : SpotLattices
        Of n patterns.
    peaks : PeakTable
        The same patterns.
    called_cubic : ndarray of shape (n,), bool
        Whether a model calls them cubic.
    a_of_model : ndarray of shape (n,)
        Their constants in Å by a model that reads intensities too, NaN where it says none. The median of
        those that are called cubic and have a lattice is what is expected; see
        :func:`~diffractory.patterns.cubic_constant.pool_cubic_constants`.

    Returns
    -------
    list of CubicPhase
        Three at most. Five patterns of each are distinct, its constant is decided, their spots lie on
        its rings as those of hardly any crystal do that is not cubic, and of the patterns that speak for it
        two of five are called cubic.
    """
    phases: list[CubicPhase] = []
    left = np.ones(len(peaks), dtype=bool)
    told = np.where(called_cubic & (lattices.score > 0.0), a_of_model, np.nan)
    while len(phases) < _MOST_PHASES:
        found = None
        for asked in (np.flatnonzero(left), np.flatnonzero(left & called_cubic)):
            found = found or _phase_of(lattices.take(asked), peaks.take(asked), told[asked])
        if found is None or any(abs(found.a / phase.a - 1.0) < _APART for phase in phases):
            break
        speak = left & (_gain(peaks, found)[0] > 0.0)
        if called_cubic[speak].sum() < _CALLED * speak.sum():
            break
        phases.append(with_shares(found, peaks))
        left &= ~speak
    return phases


def _phase_of(lattices: SpotLattices, peaks: PeakTable, told: NDArray[np.float64]) -> CubicPhase | None:
    distinct = distinct_patterns(peaks, MOST_DISTINCT)
    if len(distinct) < _FEWEST:
        return None
    radii = count_radii(peaks.take(distinct), CONSTANTS)
    likelier = judge_rings(radii, CONSTANTS)
    enough = _A_SPOT * radii.sum() + _BY_CHANCE
    if likelier.max() < enough:
        # Spared where no constant at all would do: pooling takes longer than all of the above.
        return None
    known = told[np.isfinite(told)]
    expected = np.array([np.median(known) if len(known) else np.nan])
    one, yes = np.ones(len(peaks), np.int32), np.ones(1, dtype=bool)
    found = pool_cubic_constants(lattices, peaks, one, yes, expected)
    if not is_decided(found.margin[0]):
        return None
    a, centring = float(found.a[0]), str(found.centring[0])
    near = np.abs(CONSTANTS.constants / a - 1.0) < 0.01
    if likelier[CENTRINGS.index(centring), near].max() < enough:
        return None
    return CubicPhase(a, centring, patterns=len(distinct), margin=float(found.margin[0]))


def phase_probability(
    probability: NDArray[np.float64], peaks: PeakTable, phases: Sequence[CubicPhase]
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    """Return the probability that patterns are cubic, where cubic phases of the scan are known.

    Parameters
    ----------
    probability : ndarray of shape (n,)
        The model's, calibrated, that each pattern is cubic.
    peaks : PeakTable
        Of the n patterns.
    phases : sequence of CubicPhase

    Returns
    -------
    probability : ndarray of shape (n,)
        Nowhere lower than the model's: what lies on no ring may be of a cubic phase that nobody knows.
    phase : ndarray of shape (n,), int8
        Number of the phase, from 1 on, that the spots of each pattern speak for; 0 = for none.
    evidence : ndarray of shape (n,)
        Natural logarithm of how much likelier a spot is on a ring of the likeliest phase than anywhere, the
        mean over the spots of each pattern; NaN where there is none.
    """
    n = len(peaks)
    gain, evidence, phase = np.full(n, -np.inf), np.full(n, np.nan), np.zeros(n, dtype=np.int8)
    for number, known in enumerate(phases, start=1):
        here, mean = _gain(peaks, known)
        better = here > gain
        gain[better], evidence[better], phase[better] = here[better], mean[better], number
    sure = np.clip(probability, _SURE, 1.0 - _SURE)
    before = np.log(sure / (1.0 - sure))
    more = np.clip(gain + (_ODDS[1] - 1.0) * before, 0.0, 50.0)
    odds = np.exp(before + more)
    phase[gain <= 0.0] = 0
    return np.where(more > 0.0, np.maximum(odds / (1.0 + odds), probability), probability), phase, evidence


def _gain(peaks: PeakTable, phase: CubicPhase) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the spots of patterns add to the log odds of cubic, and the mean evidence of a spot."""
    n = len(peaks)
    _, total = judge_near(peaks, np.full(n, phase.a), np.full(n, phase.centring))
    mean = total / np.maximum(peaks.counts - (peaks.direct >= 0), 1)
    constant, _, by_all, by_spot = _ODDS
    gain = constant + by_all * total + by_spot * mean
    return np.where(np.isnan(gain), -np.inf, gain), mean
