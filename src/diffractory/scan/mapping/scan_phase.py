"""A cubic phase that a scan holds, and what it changes in the votes of its positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import system_code
from diffractory.patterns.cubic_phase import CubicPhase, find_cubic_phase, phase_probability, told_phase
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.position_blocks import PositionBlock, SystemBlock
from diffractory.specs.scan import read_cubic_phase

#: What ``MapSpec.phase`` may say instead of a lattice.
AUTO, NONE = "auto", "none"
_CUBIC = system_code("cubic")
#: A phase that is there has so many more of the spots on its rings than chance.
_SHOWN = 0.1


@dataclass(frozen=True, eq=False)
class ScanPhase:
    """A cubic phase of a scan.

    Parameters
    ----------
    phase : CubicPhase
    evidence : ndarray of shape (n,)
        Natural logarithm of how much likelier the spots of each position are on its rings than anywhere, the
        mean over spots; NaN where not asked.
    changed : int
        Positions whose most likely system is another one with it.
    """

    phase: CubicPhase
    evidence: NDArray[np.float64]
    changed: int


def phase_of_scan(text: str, found: PositionBlock, peaks: PeakTable) -> CubicPhase | None:
    """Return the cubic phase that a scan is said to hold, or shows.

    Parameters
    ----------
    text : str
        As in :class:`~diffractory.specs.MapSpec`.
    found : PositionBlock
        What the model says of n positions.
    peaks : PeakTable
        Of the same positions.
    """
    asked = np.flatnonzero(found.systems.system >= 0)
    if text == NONE:
        return None
    if text != AUTO:
        return told_phase(*read_cubic_phase(text), peaks.take(asked))
    if found.lattices is None or not len(asked):
        return None
    # What the model reads from intensities decides between whole factors that radii leave open.
    called_cubic = found.systems.system == _CUBIC
    a = found.within.lattice[called_cubic & (found.lattices.score > 0.0), 0]
    known = a[np.isfinite(a)]
    expected = float(np.median(known)) if len(known) else np.nan
    return find_cubic_phase(found.lattices.take(asked), peaks.take(asked), called_cubic[asked], expected)


def phase_doubt(phase: CubicPhase) -> str | None:
    """Return what is to be said of a phase whose rings few spots lie on; None = nothing."""
    if phase.on_rings - phase.by_chance >= _SHOWN:
        return None
    on_rings, by_chance = 100.0 * phase.on_rings, 100.0 * phase.by_chance
    return (
        f"the phase {phase.centring}, a = {phase.a:.3f} Å hardly shows: {on_rings:.0f} % of the spots lie on "
        f"its rings, {by_chance:.0f} % would by chance; is it the right one, and the pixel size?"
    )


def vote_with_phase(
    systems: SystemBlock, peaks: PeakTable, phase: CubicPhase, columns: tuple[int, ...]
) -> tuple[SystemBlock, ScanPhase]:
    """Return the votes of positions, given that the scan holds a cubic phase.

    Parameters
    ----------
    systems : SystemBlock
        Of n positions, with calibrated probabilities.
    peaks : PeakTable
        Of the same positions.
    phase : CubicPhase
    columns : tuple of int
        Crystal-system code of each column of ``systems.share``; cubic among them.

    Returns
    -------
    systems : SystemBlock
        With the probability of cubic that :func:`~diffractory.patterns.cubic_phase.phase_probability` gives;
        the others keep their proportions.
    scan_phase : ScanPhase
    """
    asked = np.flatnonzero(systems.system >= 0)
    column = columns.index(_CUBIC)
    share, evidence = systems.share.astype(np.float64), np.full(len(systems.system), np.nan)
    before = share[asked, column]
    after, evidence[asked] = phase_probability(before, peaks.take(asked), phase)
    others = share[asked].sum(axis=1) - before
    share[asked] *= np.divide(1.0 - after, others, out=np.ones(len(asked)), where=others > 0.0)[:, None]
    share[asked, column] = after
    ordered = np.sort(share, axis=1)
    system, confidence, difference = (
        systems.system.copy(), systems.confidence.copy(), systems.difference.copy()
    )  # fmt: skip
    system[asked] = np.asarray(columns, dtype=np.int8)[share[asked].argmax(axis=1)]
    confidence[asked] = ordered[asked, -1]
    difference[asked] = ordered[asked, -1] - (ordered[asked, -2] if share.shape[1] > 1 else 0.0)
    changed = int((system != systems.system).sum())
    updated = SystemBlock(
        share.astype(np.float32), system, confidence, difference, systems.outside, systems.coordinates
    )
    return updated, ScanPhase(phase, evidence, changed)
