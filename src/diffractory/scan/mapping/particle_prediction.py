"""One answer for each particle, from the votes at its positions, by two rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.learning.aggregation import AggregatedLabels, EvidenceRule, aggregate_labels
from diffractory.patterns.cubic_constant import CubicConstants, is_decided, refine_cubic_constants
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.label_map import UNLABELLED
from diffractory.scan.mapping.position_blocks import SystemBlock, WithinBlock
from diffractory.scan.mapping.scan_phase import ScanPhases
from diffractory.specs import ParticleSpec

#: Positions whose peaks are copied at a time.
_BLOCK = 20_000


@dataclass(frozen=True, eq=False)
class PooledSystem:
    """The crystal system of every particle by one rule.

    Parameters
    ----------
    system : ndarray of shape (n_particles,), int8
        Code; -1 where no position of the particle was asked, or the rule has no answer.
    confidence : ndarray of shape (n_particles,)
        By the paper's rule the share of the summed weight, by evidence the probability; NaN where there
        is no answer.
    n_patterns : ndarray of shape (n_particles,), int64
        Patterns used.
    """

    system: NDArray[np.int8]
    confidence: NDArray[np.float64]
    n_patterns: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ParticlePrediction:
    """A scan by particle; arrays of n hold positions in row-major order.

    Parameters
    ----------
    spec : ParticleSpec
    image : ndarray of shape (n_y, n_x)
        Dark field.
    particle : ndarray of shape (n,), int32
        Number of the particle of each position, 0 = none.
    difference : PooledSystem
        By the paper's rule: labels weighted by difference confidence, of ``spec.patterns`` patterns at
        most.
    evidence : PooledSystem
        By pooled evidence of all patterns; no answer where the model's probabilities are not calibrated.
    distinct : ndarray of shape (n_particles,), int64
        How many of its patterns are distinct, counted up to ``spec.patterns``.
    system : ndarray of shape (n_particles,), int8
        The answer: by evidence, else by difference.
    within_system : ndarray of shape (n_particles,), int8
        System whose space groups and lattices were asked for: the answer, or the assumed one.
    within : WithinBlock
        Of n positions, what the models of that system say; lattices of cubic particles as
        :func:`refine_positions` tells them.
    cubic : CubicConstants or None
        Lattice constants that explain all patterns of a particle whose system is cubic; None where the
        model reads no lattices.
    """

    spec: ParticleSpec
    image: NDArray[np.float64]
    particle: NDArray[np.int32]
    difference: PooledSystem
    evidence: PooledSystem
    distinct: NDArray[np.int64]
    system: NDArray[np.int8]
    within_system: NDArray[np.int8]
    within: WithinBlock
    cubic: CubicConstants | None = None

    @property
    def n_particles(self) -> int:
        """Number of particles."""
        return len(self.system)


def draw_patterns(particle: NDArray[np.int32], most: int, seed: int) -> NDArray[np.int64]:
    """Draw positions of every particle at random, the same for the same seed.

    Parameters
    ----------
    particle : ndarray of shape (n,), int32
        Number of the particle of each position; 0 and less = none.
    most : int
        Positions drawn of each particle, or all it has.
    seed : int

    Returns
    -------
    ndarray of int64
        Sorted indices of positions.
    """
    member = np.flatnonzero(particle > 0)
    chance = np.random.default_rng(seed).random(len(particle))[member]
    order = np.lexsort((chance, particle[member]))
    owner = particle[member][order]
    starts = np.flatnonzero(np.diff(owner, prepend=0))
    rank = np.arange(len(owner)) - np.repeat(starts, np.diff(starts, append=len(owner)))
    return np.sort(member[order[rank < most]])


def pool_particles(
    systems: SystemBlock,
    particle: NDArray[np.int32],
    distinct: NDArray[np.int64],
    rule: EvidenceRule | None,
    spec: ParticleSpec,
) -> tuple[PooledSystem, PooledSystem]:
    """Pool the votes of every particle's positions by both rules.

    Parameters
    ----------
    systems : SystemBlock
        Votes at n positions, before any filter.
    particle : ndarray of shape (n,), int32
        Number of the particle of each position, 0 = none.
    distinct : ndarray of shape (n_particles,), int64
        How many patterns of each particle are distinct: evidence counts as that of so many.
    rule : EvidenceRule or None
        Of the model; None = its probabilities are not calibrated.
    spec : ParticleSpec
        Patterns and seed.

    Returns
    -------
    difference, evidence : PooledSystem
        Of the particles 1 … max(particle).
    """
    n = int(particle.max(initial=0))
    asked = np.where(systems.system >= 0, particle, 0).astype(np.int32)
    drawn = draw_patterns(asked, spec.patterns, spec.seed)
    difference = aggregate_labels(systems.system[drawn], systems.difference[drawn], asked[drawn])
    nothing = AggregatedLabels(np.empty(0, int), np.empty(0, int), np.empty(0))
    member = np.flatnonzero(asked)
    if rule is None:
        member, evidence = member[:0], nothing
    else:
        most = np.minimum(np.maximum(distinct, 1), spec.patterns)[np.unique(asked[member]) - 1]
        evidence = rule.pool(systems.share[member], asked[member], most)
    return _by_number(difference, asked[drawn], n), _by_number(evidence, asked[member], n)


def known_constants(
    n: int, divided: ParticlePrediction | None, phases: ScanPhases | None
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return what is known of the cubic constant at every position.

    Parameters
    ----------
    n : int
        Number of positions.
    divided : ParticlePrediction or None
    phases : ScanPhases or None
        Of the whole scan.

    Returns
    -------
    a : ndarray of shape (n,)
        In Å: that of the phase which the spots speak for, else of the particle; NaN where neither is decided.
    centring : ndarray of shape (n,), str
    """
    a, centring = np.full(n, np.nan), np.full(n, "", dtype="<U1")
    if divided is not None and divided.cubic is not None:
        cubic, owner = divided.cubic, divided.particle - 1
        own = np.flatnonzero(np.append(is_decided(cubic.margin), False)[owner])
        a[own], centring[own] = cubic.a[owner[own]], cubic.centring[owner[own]]
    if phases is not None:
        for number, phase in enumerate(phases.phases, start=1):
            here = phases.phase == number
            a[here], centring[here] = phase.a, phase.centring
    return a, centring


def refine_positions(
    within: WithinBlock,
    is_cubic: NDArray[np.bool_],
    known: NDArray[np.float64],
    centring: NDArray[np.str_],
    peaks: PeakTable,
) -> tuple[WithinBlock, NDArray[np.bool_]]:
    """Tell the lattice of cubic positions from their own spots, near a constant that is known.

    Few spots leave whole factors of a constant open, and a model guesses; all patterns together know them.

    Parameters
    ----------
    within : WithinBlock
        Of n positions.
    is_cubic : ndarray of shape (n,), bool
        Positions whose lattice in ``within`` is cubic.
    known, centring : ndarray of shape (n,)
        Made by :func:`known_constants`.
    peaks : PeakTable
        Of the positions.

    Returns
    -------
    within : WithinBlock
        A copy with these lattices.
    refined : ndarray of shape (n,), bool
        Where they are. Not where the spots are not on the rings of such a lattice.
    """
    asked = np.flatnonzero(is_cubic & np.isfinite(known) & np.isfinite(within.lattice[:, 0]))
    lattice, refined = within.lattice.copy(), np.zeros(len(known), dtype=bool)
    for rows in np.split(asked, range(_BLOCK, len(asked), _BLOCK)):
        a = refine_cubic_constants(peaks.take(rows), known[rows], centring[rows])
        found = np.isfinite(a)
        refined[rows[found]] = True
        lattice[rows[found]] = a[found, None]
    return replace(within, lattice=lattice), refined


def quantile_by_particle(
    values: NDArray[Any], particle: NDArray[np.int32], n: int, level: float
) -> NDArray[np.float64]:
    """Return a quantile of each particle's finite values, by linear interpolation.

    Parameters
    ----------
    values : ndarray of shape (n_positions,)
    particle : ndarray of shape (n_positions,), int32
        Number of the particle of each position, 0 = none.
    n : int
        Number of particles.
    level : float
        0 … 1; 0.5 = the median.

    Returns
    -------
    ndarray of shape (n,)
        Of the particles 1 … n; NaN where none of its positions has a finite value.
    """
    member = np.flatnonzero((particle > 0) & np.isfinite(values))
    order = member[np.lexsort((values[member], particle[member]))]
    counts = np.bincount(particle[order], minlength=n + 1)[1:]
    place = level * np.maximum(counts - 1, 0)
    low = np.floor(place).astype(np.int64)
    starts = np.cumsum(counts) - counts
    result = np.full(n, np.nan)
    some = counts > 0
    ranked = values[order].astype(np.float64)
    below = ranked[(starts + low)[some]]
    above = ranked[(starts + np.minimum(low + 1, counts - 1))[some]]
    result[some] = below + (place - low)[some] * (above - below)
    return result


def _by_number(answers: AggregatedLabels, owners: NDArray[np.int32], n: int) -> PooledSystem:
    system, confidence = np.full(n, UNLABELLED, dtype=np.int8), np.full(n, np.nan)
    system[answers.groups - 1], confidence[answers.groups - 1] = answers.label, answers.confidence
    return PooledSystem(system, confidence, np.bincount(owners, minlength=n + 1)[1:])
