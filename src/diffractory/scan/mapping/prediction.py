"""Predicts a scan: blocks of positions, the map's filter and particles, then what these change.

The first phase asks a model everything about a block, as if each position kept the crystal system it has
by itself. Filter, particles and flags need the whole map. The second phase asks again only where they
gave a position another system: the features of its lattice, which take most of the time, are kept from
the first phase; the others are not, since those of a million positions fill several gigabytes.

The functions of one block are pure; :func:`predict_scan` strings them together and takes the function that
maps over blocks as an argument, so that it knows nothing of where work runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.errors import ModelError, SpecError
from diffractory.patterns.cubic_constant import MOST_DISTINCT, pool_cubic_constants
from diffractory.patterns.feature_sets import compute_features, lattices_of, slow_features
from diffractory.patterns.invariants import invariant_lattices
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import scale_total
from diffractory.patterns.similarity import count_distinct
from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import UNLABELLED, ScanPrediction, filter_labels
from diffractory.scan.mapping.overlap import find_overlaps
from diffractory.scan.mapping.particle_prediction import (
    ParticlePrediction,
    known_constants,
    pool_particles,
    quantile_by_particle,
    refine_positions,
)
from diffractory.scan.mapping.particles import dark_field, divide_scan
from diffractory.scan.mapping.position_blocks import (
    PositionBlock,
    SystemBlock,
    WithinBlock,
    join_blocks,
    join_position_blocks,
    nothing_within,
    spread_rows,
    without,
    write_within,
)
from diffractory.scan.mapping.scan_phase import AUTO, NONE, ScanPhases, phases_of_scan, vote_with_phases
from diffractory.scan.mapping.system_model import SystemModel
from diffractory.specs import FeatureSpec, InvariantSpec, MapSpec, ParticleSpec

#: Positions in one block: 681 features of 2048 positions are 6 MB.
BLOCK_SIZE = 2048

#: Applies a function to every item, in order; the built-in ``map``, or one that runs elsewhere.
BlockMapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class _Task:
    """One block of the second phase: positions, their crystal systems and what is known of them."""

    peaks: PeakTable
    systems: NDArray[np.int8]
    of_lattice: NDArray[np.float32] | None


def predict_block(
    model: SystemModel,
    peaks: PeakTable,
    map_spec: MapSpec,
    features: FeatureSpec,
    *,
    assumed: int | None = None,
    overlap: InvariantSpec | None = None,
) -> PositionBlock:
    """Predict one block of positions, each by itself.

    Parameters
    ----------
    model : SystemModel
        Trained on features of the same spec.
    peaks : PeakTable
        Measured peaks of n positions, on any intensity scale.
    map_spec : MapSpec
        Fewest spots and the summed intensity each pattern is scaled to.
    features : RadialBasisSpec or InvariantSpec
        Features the model was trained on.
    assumed : int, optional
        Code of the crystal system whose space groups and lattices are asked for; the most voted one by
        default.
    overlap : InvariantSpec, optional
        Look for overlapping grains with these tolerances. Where the features describe no lattices, they
        are found for it.

    Returns
    -------
    PositionBlock
        Of n positions; code -1 and NaN where there are too few spots.
    """
    n = len(peaks)
    systems = SystemBlock(
        np.zeros((n, len(model.systems_)), dtype=np.float32),
        np.full(n, -1, dtype=np.int8),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.zeros(n, dtype=bool),
        np.full((n, 2), np.nan),
    )
    within = nothing_within(n)
    asked = np.flatnonzero(peaks.counts >= map_spec.min_spots)
    chosen = scale_total(peaks.take(asked), map_spec.total_intensity)
    lattices = lattices_of(chosen, features)
    values = compute_features(chosen, features, lattices)
    of_lattice = slow_features(values, features)
    if asked.size:
        result = model.vote_systems(values)
        systems.outside[asked], systems.coordinates[asked] = model.locate(values)
        systems.share[asked] = result.share
        systems.system[asked] = result.system
        systems.confidence[asked] = result.confidence
        systems.difference[asked] = result.difference
        codes = systems.system[asked] if assumed is None else np.full(len(asked), assumed, np.int8)
        write_within(within, asked, model.predict_within(values, codes))
    overlapping = None
    if overlap is not None:
        overlapping = np.zeros(n, dtype=bool)
        known = invariant_lattices(chosen, overlap) if lattices is None else lattices
        overlapping[asked] = find_overlaps(chosen, known, overlap)
    if lattices is not None:
        lattices = SpotLattices(*(spread_rows(values, asked, n) for values in vars(lattices).values()))
    known_features = None if of_lattice is None else spread_rows(of_lattice, asked, n)
    return PositionBlock(systems, within, lattices, known_features, overlapping)


def predict_within_block(
    model: SystemModel,
    peaks: PeakTable,
    systems: NDArray[np.int8],
    map_spec: MapSpec,
    features: FeatureSpec,
    of_lattice: NDArray[np.float32] | None = None,
) -> WithinBlock:
    """Predict space groups and lattices of one block of positions, given their crystal systems.

    Parameters
    ----------
    model, peaks, map_spec, features
        As for :func:`predict_block`.
    systems : ndarray of shape (n,), int8
        Crystal-system codes; negative = not asked.
    of_lattice : ndarray of shape (n, n_lattice_features), float32, optional
        What :func:`predict_block` found in the same positions.

    Returns
    -------
    WithinBlock
        Of n positions; space group 0 and NaN where not asked.
    """
    block = nothing_within(len(peaks))
    asked = np.flatnonzero(systems >= 0)
    if asked.size:
        chosen = scale_total(peaks.take(asked), map_spec.total_intensity)
        known = None if of_lattice is None else of_lattice[asked]
        values = compute_features(chosen, features, of_lattice=known)
        write_within(block, asked, model.predict_within(values, systems[asked]))
    return block


def predict_scan(
    model: SystemModel,
    scan: BraggScan,
    map_spec: MapSpec,
    features: FeatureSpec,
    *,
    particles: ParticleSpec | None = None,
    find_overlap: bool = False,
    map_blocks: BlockMapper = map,
    block_size: int = BLOCK_SIZE,
) -> ScanPrediction:
    """Predict every position of a scan, and every particle if asked for.

    First block by block; then, if the scan shows a cubic phase or one is told, what that says of the votes
    (``map_spec.phase``); then the median filter and the threshold on the whole map, and the division
    into particles; then block by block the space groups and lattices of positions whose crystal system
    has changed by that. Where ``map_spec.assume`` is given, that system's are used at every labelled
    position and in every particle.

    Parameters
    ----------
    model : SystemModel
        It travels with each block: to run blocks elsewhere, hand over something small that offers
        the same methods and loads the model where it arrives.
    scan : BraggScan
        What to predict.
    map_spec : MapSpec
        How votes become a map.
    features : RadialBasisSpec or InvariantSpec
        Features the model was trained on.
    particles : ParticleSpec, optional
        How to divide the scan; None = only positions are predicted.
    find_overlap : bool, optional
        Look for overlapping grains.
    map_blocks : callable, optional
        Like the built-in ``map``: function and list of blocks to results, in order.
    block_size : int, optional
        Positions in one block; changes no result.

    Returns
    -------
    ScanPrediction

    Raises
    ------
    SpecError
        If ``map_spec.assume`` is not a crystal system.
    ModelError
        If the model was not trained on the assumed crystal system, or on too little of it; if a phase is told
        and it has no calibrated probabilities.

    Examples
    --------
    A scan, the model that comes with the package, a labelled map:

    >>> from diffractory.learning.saved_model import SavedModel, packaged_model
    >>> from diffractory.scan.reading.emd_reader import read_bragg_scan
    >>> from diffractory.scan.mapping.label_map import to_dataset
    >>> from diffractory.scan.mapping.prediction import predict_scan
    >>> from diffractory.specs import MapSpec, feature_spec
    >>> from pathlib import Path
    >>> model, scan, spec = SavedModel(packaged_model()), read_bragg_scan(Path("scan.h5")), MapSpec()
    >>> prediction = predict_scan(model, scan, spec, feature_spec(model.provenance["features"]))
    >>> labelled = to_dataset(scan, prediction, spec, {"model": str(model.path)})
    >>> labelled.crystal_system.dims, dict(labelled.sizes)["scan_y"]
    (('scan_y', 'scan_x'), 8)
    """
    columns = tuple(int(code) for code in model.systems_)
    assumed = _assumed_code(map_spec, columns)
    with_phases = _knows_odds_of_cubic(model, map_spec, columns)
    overlap = _overlap_spec(features, scan) if find_overlap else None
    look = partial(_look, model, map_spec, features, assumed, overlap)
    found = join_position_blocks(list(map_blocks(look, list(scan.peaks.blocks(block_size)))))
    second = _SecondPhase(
        model, scan, map_spec, features, assumed, found, found.systems.system, map_blocks, block_size
    )
    phases = phases_of_scan(map_spec.phase, found, scan.peaks, second.cubic_constants) if with_phases else []
    scan_phases = None
    if phases:
        systems, scan_phases = vote_with_phases(found.systems, scan.peaks, phases, columns)
        found = replace(found, systems=systems)
        second = replace(second, found=found)
    labels, reason = filter_labels(found.systems, scan.shape, map_spec)
    within = second.within(labels)
    if assumed is not None and np.any(labels >= 0) and np.all(np.isnan(within.lattice)):
        raise ModelError(
            f"the model has no lattice forest for '{map_spec.assume}' crystals",
            "it was trained on fewer than two materials of them",
            "Assume another crystal system, or train a model on more crystals",
        )
    divided = None if particles is None else _by_particle(second, labels, particles, scan_phases)
    is_cubic = (labels if assumed is None else np.full(len(labels), assumed)) == system_code("cubic")
    known = known_constants(len(labels), divided, scan_phases)
    within, refined = refine_positions(within, is_cubic, *known, scan.peaks)
    return ScanPrediction(
        found.systems, labels, reason, within, columns, found.overlapping, divided, refined, scan_phases
    )


def _by_particle(
    second: _SecondPhase, labels: NDArray[np.int8], spec: ParticleSpec, phases: ScanPhases | None
) -> ParticlePrediction:
    """Divide the scan, pool the votes of each part, and ask for what lies within its system."""
    scan, systems = second.scan, second.found.systems
    image = dark_field(scan.peaks, scan.shape, spec.q_range)
    particle = divide_scan(scan, labels, image, spec).ravel()
    asked = np.where(systems.system >= 0, particle, 0).astype(np.int32)
    distinct = count_distinct(scan.peaks, asked, int(particle.max(initial=0)), MOST_DISTINCT, spec.patterns)
    difference, evidence = pool_particles(systems, particle, distinct, second.model.evidence_rule, spec)
    system = np.where(evidence.system >= 0, evidence.system, difference.system)
    # Number 0 takes the last, which is none.
    of_positions = np.append(system, UNLABELLED)[particle - 1].astype(np.int8)
    of_positions[systems.system < 0] = UNLABELLED
    within = second.within(of_positions)
    of_within = system if second.assumed is None else np.where(system >= 0, second.assumed, UNLABELLED)
    is_cubic, cubic = of_within == system_code("cubic"), None
    if second.found.lattices is not None:
        # What the model reads from intensities too decides between whole factors that lattices leave open;
        # without any lattice there is nothing to decide.
        read = np.where(second.found.lattices.score > 0.0, within.lattice[:, 0], np.nan)
        expected = quantile_by_particle(read, particle, len(system), 0.5)
        # Too few spots are as likely false ones.
        cubic = pool_cubic_constants(second.found.lattices, scan.peaks, asked, is_cubic, expected)
    divided = ParticlePrediction(
        spec,
        image,
        particle,
        difference,
        evidence,
        distinct,
        system,
        of_within.astype(np.int8),
        within,
        cubic,
    )
    known = known_constants(len(particle), divided, phases)
    within, _ = refine_positions(within, np.append(is_cubic, False)[particle - 1], *known, scan.peaks)
    return replace(divided, within=within)


@dataclass(frozen=True, eq=False)
class _SecondPhase:
    """Asks again where a position was given another crystal system than it has by itself."""

    model: SystemModel
    scan: BraggScan
    map_spec: MapSpec
    features: FeatureSpec
    assumed: int | None
    found: PositionBlock
    asked_as: NDArray[np.int8]
    map_blocks: BlockMapper
    block_size: int

    def cubic_constants(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the constants in Å that the model gives some positions as cubic crystals."""
        cubic = system_code("cubic")
        if self.assumed in (None, cubic):
            return np.asarray(self.found.within.lattice[rows, 0])
        nothing = np.full(len(self.asked_as), UNLABELLED, dtype=np.int8)
        given = nothing.copy()
        given[rows] = cubic
        return np.asarray(replace(self, assumed=None, asked_as=nothing).within(given).lattice[rows, 0])

    def within(self, given: NDArray[np.int8]) -> WithinBlock:
        """Return what lies within the given systems (n,), or the assumed one; negative = not asked."""
        result = without(self.found.within, given < 0)
        # What was assumed was asked for everywhere, in the first phase.
        other = (given >= 0) & (given != self.asked_as) & (self.assumed is None)
        changed = np.flatnonzero(other)
        tasks = [
            _Task(
                self.scan.peaks.take(rows),
                given[rows],
                None if self.found.of_lattice is None else self.found.of_lattice[rows],
            )
            for rows in np.split(changed, range(self.block_size, len(changed), self.block_size))
            if len(rows)
        ]
        if tasks:
            look = partial(_look_within, self.model, self.map_spec, self.features)
            write_within(result, changed, join_blocks(WithinBlock, self.map_blocks(look, tasks)))
        return result


def _look(
    model: SystemModel,
    map_spec: MapSpec,
    features: FeatureSpec,
    assumed: int | None,
    overlap: InvariantSpec | None,
    peaks: PeakTable,
) -> PositionBlock:
    return predict_block(model, peaks, map_spec, features, assumed=assumed, overlap=overlap)


def _look_within(model: SystemModel, map_spec: MapSpec, features: FeatureSpec, task: _Task) -> WithinBlock:
    return predict_within_block(model, task.peaks, task.systems, map_spec, features, task.of_lattice)


def _knows_odds_of_cubic(model: SystemModel, map_spec: MapSpec, columns: tuple[int, ...]) -> bool:
    """Tell whether a cubic phase can count: odds cannot be added to shares of trees."""
    knows = model.evidence_rule is not None and system_code("cubic") in columns
    if not knows and map_spec.phase not in (AUTO, NONE):
        raise ModelError(
            f"the phase '{map_spec.phase}' says nothing to this model",
            "its answers are shares of trees and no probabilities, or it knows no cubic crystals",
            "Use a model of the robust preset, or leave the phase out",
        )
    return knows


def _overlap_spec(features: FeatureSpec, scan: BraggScan) -> InvariantSpec:
    if isinstance(features, InvariantSpec):
        return features
    return InvariantSpec() if scan.energy_ev is None else InvariantSpec(energy_ev=scan.energy_ev)


def _assumed_code(map_spec: MapSpec, columns: tuple[int, ...]) -> int | None:
    if map_spec.assume is None:
        return None
    if map_spec.assume not in CRYSTAL_SYSTEMS:
        raise SpecError(
            f"assume = '{map_spec.assume}' is not a crystal system",
            "",
            f"Use one of {', '.join(CRYSTAL_SYSTEMS)}",
        )
    code = system_code(map_spec.assume)
    if code not in columns:
        known = ", ".join(CRYSTAL_SYSTEMS[column] for column in columns)
        raise ModelError(
            f"the model knows nothing of '{map_spec.assume}' crystals",
            f"it was trained on {known}",
            "Assume one of these, or train a model on more crystals",
        )
    return code
