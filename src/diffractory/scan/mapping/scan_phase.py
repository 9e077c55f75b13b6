"""Cubic phases that a scan holds, and what they change in the votes of its positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import system_code
from diffractory.patterns.cubic_phase import CubicPhase, find_cubic_phases, phase_probability, with_shares
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.position_blocks import PositionBlock, SystemBlock
from diffractory.specs.scan import read_cubic_phases

#: What ``MapSpec.phase`` may say instead of lattices.
AUTO, NONE = "auto", "none"
_CUBIC = system_code("cubic")
#: Of the spots that lie on no ring by chance, the rings of a phase that is there hold this share at least.
_SHOWN: Final = 0.3
#: Positions that are asked for phases, and that are judged at a time.
_MOST: Final = 20_000


@dataclass(frozen=True, eq=False)
class ScanPhases:
    """Cubic phases of a scan.

    Parameters
    ----------
    phases : tuple of CubicPhase
        One or more.
    phase : ndarray of shape (n,), int8
        Number of the phase, from 1 on, that the spots of each position speak for; 0 = for none.
    evidence : ndarray of shape (n,)
        Natural logarithm of how much likelier the spots of each position are on the rings of the likeliest
        phase than anywhere, the mean over spots; NaN where not asked.
    changed : int
        Positions that are called cubic with them, and another system without, before any filter.
    """

    phases: tuple[CubicPhase, ...]
    phase: NDArray[np.int8]
    evidence: NDArray[np.float64]
    changed: int

    def listed(self) -> list[dict[str, Any]]:
        """Return the phases as plain JSON data, each with the number of positions that speak for it."""
        rows = []
        for number, phase in enumerate(self.phases, start=1):
            told = {key: None if value != value else value for key, value in asdict(phase).items()}
            rows.append({**told, "positions": int((self.phase == number).sum())})
        return rows


def phases_of_scan(
    text: str,
    found: PositionBlock,
    peaks: PeakTable,
    cubic_constants: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> list[CubicPhase]:
    """Return the cubic phases that a scan is said to hold, or shows.

    Parameters
    ----------
    text : str
        As in :class:`~diffractory.specs.MapSpec`.
    found : PositionBlock
        What the model says of n positions.
    peaks : PeakTable
        Of the same positions.
    cubic_constants : callable
        From numbers of positions to the constants in Å that the model gives them as cubic crystals.
    """
    asked = np.flatnonzero(found.systems.system >= 0)
    if text == NONE or not len(asked):
        return []
    # Evenly from all over the scan: more say nothing new, and copies of a million patterns fill memory.
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), _MOST)).round().astype(np.int64)]
    shown = peaks.take(asked)
    if text != AUTO:
        return [with_shares(CubicPhase(*lattice), shown) for lattice in read_cubic_phases(text)]
    if found.lattices is None:
        return []
    called_cubic = found.systems.system[asked] == _CUBIC
    # The model reads intensities too: it decides between whole factors that radii leave open.
    a = np.full(len(asked), np.nan)
    a[called_cubic] = cubic_constants(asked[called_cubic])
    return find_cubic_phases(found.lattices.take(asked), shown, called_cubic, a)


def phase_doubts(phases: Sequence[CubicPhase]) -> list[str]:
    """Return what is to be said of phases whose rings hold few of the spots."""
    return [
        f"the phase {phase.centring}, a = {phase.a:.3f} Å hardly shows: {100 * phase.on_rings:.0f} % of the "
        f"spots lie on its rings, {100 * phase.by_chance:.0f} % would by chance; are there few grains of it, "
        "or is it another one, and is the pixel size right?"
        for phase in phases
        if phase.on_rings - phase.by_chance < _SHOWN * (1.0 - phase.by_chance)
    ]


def vote_with_phases(
    systems: SystemBlock, peaks: PeakTable, phases: Sequence[CubicPhase], columns: tuple[int, ...]
) -> tuple[SystemBlock, ScanPhases]:
    """Return the votes of positions, given that the scan holds cubic phases.

    Parameters
    ----------
    systems : SystemBlock
        Of n positions, with calibrated probabilities.
    peaks : PeakTable
        Of the same positions.
    phases : sequence of CubicPhase
    columns : tuple of int
        Crystal-system code of each column of ``systems.share``; cubic among them.

    Returns
    -------
    systems : SystemBlock
        With the probability of cubic that :func:`~diffractory.patterns.cubic_phase.phase_probability` gives;
        the others keep their proportions.
    scan_phases : ScanPhases
    """
    n, asked, column = len(systems.system), np.flatnonzero(systems.system >= 0), columns.index(_CUBIC)
    share, evidence, phase = systems.share.astype(np.float64), np.full(n, np.nan), np.zeros(n, np.int8)
    before = share[asked, column]
    after = before.copy()
    for start in range(0, len(asked), _MOST):
        rows = asked[start : start + _MOST]
        after[start : start + _MOST], phase[rows], evidence[rows] = phase_probability(
            before[start : start + _MOST], peaks.take(rows), phases
        )
    others = share[asked].sum(axis=1) - before
    share[asked] *= np.divide(1.0 - after, others, out=np.ones(len(asked)), where=others > 0.0)[:, None]
    share[asked, column] = after
    ordered = np.sort(share, axis=1)
    second = ordered[asked, -2] if share.shape[1] > 1 else 0.0
    system = systems.system.copy()
    confidence, difference = systems.confidence.copy(), systems.difference.copy()
    system[asked] = np.asarray(columns, dtype=np.int8)[share[asked].argmax(axis=1)]
    confidence[asked], difference[asked] = ordered[asked, -1], ordered[asked, -1] - second
    changed = int((system != systems.system).sum())
    updated = SystemBlock(
        share.astype(np.float32), system, confidence, difference, systems.outside, systems.coordinates
    )
    return updated, ScanPhases(tuple(phases), phase, evidence, changed)
