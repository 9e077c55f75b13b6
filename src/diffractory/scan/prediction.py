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
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.errors import ModelError, SpecError
from diffractory.learning.aggregation import EvidenceRule
from diffractory.patterns.cubic_constant import pool_cubic_constants
from diffractory.patterns.feature_sets import compute_features, lattices_of, slow_features
from diffractory.patterns.invariants import invariant_lattices
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import scale_total
from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.label_map import UNLABELLED, ScanPrediction, SystemBlock, WithinBlock, filter_labels
from diffractory.scan.overlap import find_overlaps
from diffractory.scan.particle_prediction import ParticlePrediction, pool_particles
from diffractory.scan.particles import dark_field, divide_scan
from diffractory.specs import FeatureSpec, InvariantSpec, MapSpec, ParticleSpec

__all__ = [
    "BlockMapper",
    "PositionBlock",
    "SystemBlock",
    "SystemModel",
    "WithinBlock",
    "predict_block",
    "predict_scan",
    "predict_within_block",
]

_Number = TypeVar("_Number", np.float32, np.float64)
_Block = TypeVar("_Block", SystemBlock, WithinBlock, SpotLattices)

#: Positions in one block: 681 features of 2048 positions are 6 MB.
BLOCK_SIZE = 2048

#: Applies a function to every item, in order; the built-in ``map``, or one that runs elsewhere.
BlockMapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


class Votes(Protocol):
    """Votes of n patterns, as the model gives them."""

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of trees for each crystal system, or its probability, of shape (n, n_systems)."""

    @property
    def system(self) -> NDArray[np.int8]:
        """Code of the crystal system with the largest share, of shape (n,)."""

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Share of that system, of shape (n,)."""

    @property
    def difference(self) -> NDArray[np.float64]:
        """Difference confidence, of shape (n,)."""


class Within(Protocol):
    """Space groups and lattices of n patterns, as the model gives them."""

    @property
    def space_group(self) -> NDArray[np.int16]:
        """International number, of shape (n,); 0 = none."""

    @property
    def group_confidence(self) -> NDArray[np.float64]:
        """Share of that space group, of shape (n,)."""

    @property
    def group_difference(self) -> NDArray[np.float64]:
        """Difference confidence of the space group, of shape (n,)."""

    @property
    def lattice(self) -> NDArray[np.float64]:
        """Lattice constants a, b, c in Å, of shape (n, 3); NaN = none."""


class SystemModel(Protocol):
    """What a model must offer to predict a scan; ``learning.SymmetryHierarchy`` does."""

    @property
    def systems_(self) -> Sequence[int] | NDArray[Any]:
        """Crystal-system codes in the order of the columns of shares."""

    def vote_systems(self, X: NDArray[np.float32], /) -> Votes:
        """Vote on the crystal systems of features of shape (n, n_features)."""

    @property
    def evidence_rule(self) -> EvidenceRule | None:
        """How evidence of several patterns is pooled; None where probabilities are not calibrated."""

    def locate(self, X: NDArray[np.float32], /) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Say which features are unlike those of training, (n,), and where they lie, (n, 2)."""

    def predict_within(self, X: NDArray[np.float32], systems: NDArray[np.int8], /) -> Within:
        """Predict space groups and lattices, given crystal systems of shape (n,); -1 = none."""


@dataclass(frozen=True, eq=False)
class PositionBlock:
    """What the first phase finds out about n positions.

    Parameters
    ----------
    systems : SystemBlock
        Votes.
    within : WithinBlock
        Space groups and lattices, given the most voted system, or the assumed one.
    lattices : SpotLattices or None
        Of the spots of each position, 0 where not asked; None where the features describe none.
    of_lattice : ndarray of shape (n, n_lattice_features), float32, or None
        Features of these lattices, 0 where not asked.
    overlapping : ndarray of shape (n,), bool, or None
        Where two grains likely lie above each other; None = not looked for.
    """

    systems: SystemBlock
    within: WithinBlock
    lattices: SpotLattices | None
    of_lattice: NDArray[np.float32] | None
    overlapping: NDArray[np.bool_] | None


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
    within = _nothing_within(n)
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
        _write(within, asked, model.predict_within(values, codes))
    overlapping = None
    if overlap is not None:
        overlapping = np.zeros(n, dtype=bool)
        known = invariant_lattices(chosen, overlap) if lattices is None else lattices
        overlapping[asked] = find_overlaps(chosen, known, overlap)
    spread = (
        None if lattices is None else SpotLattices(*(_spread(v, asked, n) for v in vars(lattices).values()))
    )
    known_features = None if of_lattice is None else _spread(of_lattice, asked, n)
    return PositionBlock(systems, within, spread, known_features, overlapping)


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
    block = _nothing_within(len(peaks))
    asked = np.flatnonzero(systems >= 0)
    if asked.size:
        chosen = scale_total(peaks.take(asked), map_spec.total_intensity)
        known = None if of_lattice is None else of_lattice[asked]
        values = compute_features(chosen, features, of_lattice=known)
        _write(block, asked, model.predict_within(values, systems[asked]))
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

    First block by block; then the median filter and the threshold on the whole map, and the division
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
        If the model was not trained on the assumed crystal system, or on too little of it.

    Examples
    --------
    A scan, the model that comes with the package, a labelled map:

    >>> from diffractory.learning.saved_model import SavedModel, packaged_model
    >>> from diffractory.scan.emd_reader import read_bragg_scan
    >>> from diffractory.scan.label_map import to_dataset
    >>> from diffractory.scan.prediction import predict_scan
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
    overlap = _overlap_spec(features, scan) if find_overlap else None
    look = partial(_look, model, map_spec, features, assumed, overlap)
    found = _joined_blocks(list(map_blocks(look, list(scan.peaks.blocks(block_size)))))
    labels, reason = filter_labels(found.systems, scan.shape, map_spec)
    second = _SecondPhase(model, scan, map_spec, features, assumed, found, map_blocks, block_size)
    within = second.within(labels)
    if assumed is not None and np.any(labels >= 0) and np.all(np.isnan(within.lattice)):
        raise ModelError(
            f"the model has no lattice forest for '{map_spec.assume}' crystals",
            "it was trained on fewer than two materials of them",
            "Assume another crystal system, or train a model on more crystals",
        )
    divided = None if particles is None else _by_particle(second, labels, particles)
    return ScanPrediction(found.systems, labels, reason, within, columns, found.overlapping, divided)


def _by_particle(second: _SecondPhase, labels: NDArray[np.int8], spec: ParticleSpec) -> ParticlePrediction:
    """Divide the scan, pool the votes of each part, and ask for what lies within its system."""
    scan, systems = second.scan, second.found.systems
    image = dark_field(scan.peaks, scan.shape, spec.q_range)
    particle = divide_scan(scan, labels, image, spec).ravel()
    difference, evidence = pool_particles(systems, particle, second.model.evidence_rule, spec)
    system = np.where(evidence.system >= 0, evidence.system, difference.system)
    # Number 0 takes the last, which is none.
    of_positions = np.append(system, UNLABELLED)[particle - 1].astype(np.int8)
    of_positions[systems.system < 0] = UNLABELLED
    within = second.within(of_positions)
    of_within = system if second.assumed is None else np.where(system >= 0, second.assumed, UNLABELLED)
    cubic = None
    if second.found.lattices is not None:
        is_cubic = of_within == system_code("cubic")
        cubic = pool_cubic_constants(second.found.lattices, scan.peaks.counts, particle, is_cubic)
    return ParticlePrediction(
        spec, image, particle, difference, evidence, system, of_within.astype(np.int8), within, cubic
    )


@dataclass(frozen=True, eq=False)
class _SecondPhase:
    """Asks again where a position was given another crystal system than it has by itself."""

    model: SystemModel
    scan: BraggScan
    map_spec: MapSpec
    features: FeatureSpec
    assumed: int | None
    found: PositionBlock
    map_blocks: BlockMapper
    block_size: int

    def within(self, given: NDArray[np.int8]) -> WithinBlock:
        """Return what lies within the given systems (n,), or the assumed one; negative = not asked."""
        result = _without(self.found.within, given < 0)
        # What was assumed was asked for everywhere, in the first phase.
        other = (given >= 0) & (given != self.found.systems.system) & (self.assumed is None)
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
            _write(result, changed, _joined(WithinBlock, self.map_blocks(look, tasks)))
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


def _overlap_spec(features: FeatureSpec, scan: BraggScan) -> InvariantSpec:
    if isinstance(features, InvariantSpec):
        return features
    return InvariantSpec() if scan.energy_ev is None else InvariantSpec(energy_ev=scan.energy_ev)


def _nothing_within(n: int) -> WithinBlock:
    return WithinBlock(
        np.zeros(n, dtype=np.int16), np.full(n, np.nan), np.full(n, np.nan), np.full((n, 3), np.nan)
    )


def _write(block: WithinBlock, rows: NDArray[np.int64], found: Within | WithinBlock) -> None:
    block.space_group[rows] = found.space_group
    block.group_confidence[rows] = found.group_confidence
    block.group_difference[rows] = found.group_difference
    block.lattice[rows] = found.lattice


def _without(block: WithinBlock, absent: NDArray[np.bool_]) -> WithinBlock:
    """Return a copy without the answers of some positions."""
    copy = WithinBlock(*(values.copy() for values in vars(block).values()))
    _write(copy, np.flatnonzero(absent), _nothing_within(int(absent.sum())))
    return copy


def _spread(values: NDArray[_Number], asked: NDArray[np.int64], n: int) -> NDArray[_Number]:
    """Return values of n positions, given those of the positions that were asked; 0 elsewhere."""
    spread = np.zeros((n, *values.shape[1:]), values.dtype)
    spread[asked] = values
    return spread


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


def _joined_blocks(parts: Sequence[PositionBlock]) -> PositionBlock:
    lattices = [part.lattices for part in parts if part.lattices is not None]
    of_lattice = [part.of_lattice for part in parts if part.of_lattice is not None]
    overlapping = [part.overlapping for part in parts if part.overlapping is not None]
    return PositionBlock(
        _joined(SystemBlock, [part.systems for part in parts]),
        _joined(WithinBlock, [part.within for part in parts]),
        _joined(SpotLattices, lattices) if lattices else None,
        np.concatenate(of_lattice) if of_lattice else None,
        np.concatenate(overlapping) if overlapping else None,
    )


def _joined(kind: type[_Block], parts: Iterable[_Block]) -> _Block:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return kind(*(np.concatenate(column) for column in columns))
