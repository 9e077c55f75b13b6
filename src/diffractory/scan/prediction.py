"""Predicts a scan: votes on blocks of positions, the map's filter, then space groups and lattices.

The two functions of one block are pure; :func:`predict_scan` strings them together and takes the
function that maps over blocks as an argument, so that it knows nothing of where work runs.
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
from diffractory.patterns.feature_sets import compute_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import scale_total
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.label_map import ScanPrediction, SystemBlock, WithinBlock, filter_labels
from diffractory.specs import FeatureSpec, MapSpec

__all__ = [
    "BlockMapper",
    "SystemBlock",
    "SystemModel",
    "WithinBlock",
    "predict_scan",
    "predict_systems_block",
    "predict_within_block",
]

_Block = TypeVar("_Block", SystemBlock, WithinBlock)

#: Positions in one block: 1066 features of 512 positions are 2 MB.
BLOCK_SIZE = 512

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

    def locate(self, X: NDArray[np.float32], /) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Say which features are unlike those of training, (n,), and where they lie, (n, 2)."""

    def predict_within(self, X: NDArray[np.float32], systems: NDArray[np.int8], /) -> Within:
        """Predict space groups and lattices, given crystal systems of shape (n,); -1 = none."""


@dataclass(frozen=True, eq=False)
class _Task:
    """One block of the second phase: its peaks and their crystal systems."""

    peaks: PeakTable
    systems: NDArray[np.int8]


def predict_systems_block(
    model: SystemModel, peaks: PeakTable, map_spec: MapSpec, features: FeatureSpec
) -> SystemBlock:
    """Vote on the crystal systems of one block of positions.

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

    Returns
    -------
    SystemBlock
        Of n positions; code -1 and NaN confidences where there are too few spots.
    """
    n = len(peaks)
    block = SystemBlock(
        np.zeros((n, len(model.systems_)), dtype=np.float32),
        np.full(n, -1, dtype=np.int8),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.zeros(n, dtype=bool),
        np.full((n, 2), np.nan),
    )
    asked = np.flatnonzero(peaks.counts >= map_spec.min_spots)
    if asked.size:
        values = _features(peaks, asked, map_spec, features)
        result = model.vote_systems(values)
        block.outside[asked], block.coordinates[asked] = model.locate(values)
        block.share[asked] = result.share
        block.system[asked] = result.system
        block.confidence[asked] = result.confidence
        block.difference[asked] = result.difference
    return block


def predict_within_block(
    model: SystemModel,
    peaks: PeakTable,
    systems: NDArray[np.int8],
    map_spec: MapSpec,
    features: FeatureSpec,
) -> WithinBlock:
    """Predict space groups and lattices of one block of positions, given their crystal systems.

    Parameters
    ----------
    model, peaks, map_spec, features
        As for :func:`predict_systems_block`.
    systems : ndarray of shape (n,), int8
        Crystal-system codes; negative = not asked.

    Returns
    -------
    WithinBlock
        Of n positions; space group 0 and NaN where not asked.
    """
    n = len(peaks)
    block = WithinBlock(
        np.zeros(n, dtype=np.int16), np.full(n, np.nan), np.full(n, np.nan), np.full((n, 3), np.nan)
    )
    asked = np.flatnonzero(systems >= 0)
    if asked.size:
        result = model.predict_within(_features(peaks, asked, map_spec, features), systems[asked])
        block.space_group[asked] = result.space_group
        block.group_confidence[asked] = result.group_confidence
        block.group_difference[asked] = result.group_difference
        block.lattice[asked] = result.lattice
    return block


def predict_scan(
    model: SystemModel,
    scan: BraggScan,
    map_spec: MapSpec,
    features: FeatureSpec,
    *,
    map_blocks: BlockMapper = map,
    block_size: int = BLOCK_SIZE,
) -> ScanPrediction:
    """Predict every position of a scan.

    First votes block by block; then the median filter and the threshold on the whole map; then
    space groups and lattices block by block, with the filtered crystal system of a position or,
    where ``map_spec.assume`` is given, with that one at every labelled position.

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
    """
    columns = tuple(int(code) for code in model.systems_)
    assumed = _assumed_code(map_spec, columns)
    blocks = list(scan.peaks.blocks(block_size))
    vote = partial(_vote, model, map_spec, features)
    systems = _joined(SystemBlock, map_blocks(vote, blocks))
    labels, reason = filter_labels(systems, scan.shape, map_spec)
    used = labels if assumed is None else np.where(labels >= 0, np.int8(assumed), labels)
    starts = range(0, len(scan), block_size)
    tasks = [
        _Task(peaks, used[start : start + block_size]) for start, peaks in zip(starts, blocks, strict=True)
    ]
    within = _joined(WithinBlock, map_blocks(partial(_look_within, model, map_spec, features), tasks))
    if assumed is not None and np.any(labels >= 0) and np.all(np.isnan(within.lattice)):
        raise ModelError(
            f"the model has no lattice forest for '{map_spec.assume}' crystals",
            "it was trained on fewer than two materials of them",
            "Assume another crystal system, or train a model on more crystals",
        )
    return ScanPrediction(systems, labels, reason, within, columns)


def _vote(model: SystemModel, map_spec: MapSpec, features: FeatureSpec, peaks: PeakTable) -> SystemBlock:
    return predict_systems_block(model, peaks, map_spec, features)


def _look_within(model: SystemModel, map_spec: MapSpec, features: FeatureSpec, task: _Task) -> WithinBlock:
    return predict_within_block(model, task.peaks, task.systems, map_spec, features)


def _features(
    peaks: PeakTable, chosen: NDArray[np.int64], map_spec: MapSpec, features: FeatureSpec
) -> NDArray[np.float32]:
    return compute_features(scale_total(peaks.take(chosen), map_spec.total_intensity), features)


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


def _joined(kind: type[_Block], parts: Iterable[_Block]) -> _Block:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return kind(*(np.concatenate(column) for column in columns))
