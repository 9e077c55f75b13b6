"""What is found out about a block of positions, or about all of a scan: one array an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.scan.mapping.system_model import Within


@dataclass(frozen=True, eq=False)
class SystemBlock:
    """Crystal systems of n positions.

    Parameters
    ----------
    share : ndarray of shape (n, n_systems), float32
        Share of trees that voted for each crystal system of the model, or its calibrated probability; 0
        at positions that were not asked.
    system : ndarray of shape (n,), int8
        Code of the crystal system with the largest share; -1 where not asked.
    confidence : ndarray of shape (n,)
        That share; NaN where not asked.
    difference : ndarray of shape (n,)
        Largest − second share; NaN where not asked.
    outside : ndarray of shape (n,), bool
        Unlike all but few patterns that the model was trained on; False where not asked.
    coordinates : ndarray of shape (n, 2)
        Place among training patterns, along their first two principal components; NaN where not asked.
    """

    share: NDArray[np.float32]
    system: NDArray[np.int8]
    confidence: NDArray[np.float64]
    difference: NDArray[np.float64]
    outside: NDArray[np.bool_]
    coordinates: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WithinBlock:
    """Space groups and lattices of n positions, given their crystal systems.

    Parameters
    ----------
    space_group : ndarray of shape (n,), int16
        International number; 0 where there is none.
    group_confidence, group_difference : ndarray of shape (n,)
        As for crystal systems; NaN where there is none.
    lattice : ndarray of shape (n, 3)
        Lattice constants a, b, c in Å; NaN where there is none.
    """

    space_group: NDArray[np.int16]
    group_confidence: NDArray[np.float64]
    group_difference: NDArray[np.float64]
    lattice: NDArray[np.float64]


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


_Number = TypeVar("_Number", np.float32, np.float64)
_Block = TypeVar("_Block", SystemBlock, WithinBlock, SpotLattices)


def nothing_within(n: int) -> WithinBlock:
    """Return the block of n positions that were not asked."""
    return WithinBlock(
        np.zeros(n, dtype=np.int16), np.full(n, np.nan), np.full(n, np.nan), np.full((n, 3), np.nan)
    )


def write_within(block: WithinBlock, rows: NDArray[np.int64], found: Within | WithinBlock) -> None:
    """Write answers into some rows of a block."""
    block.space_group[rows] = found.space_group
    block.group_confidence[rows] = found.group_confidence
    block.group_difference[rows] = found.group_difference
    block.lattice[rows] = found.lattice


def without(block: WithinBlock, absent: NDArray[np.bool_]) -> WithinBlock:
    """Return a copy without the answers of some positions."""
    copy = WithinBlock(*(values.copy() for values in vars(block).values()))
    write_within(copy, np.flatnonzero(absent), nothing_within(int(absent.sum())))
    return copy


def spread_rows(values: NDArray[_Number], asked: NDArray[np.int64], n: int) -> NDArray[_Number]:
    """Return values of n positions, given those of the positions that were asked; 0 elsewhere."""
    spread = np.zeros((n, *values.shape[1:]), values.dtype)
    spread[asked] = values
    return spread


def join_position_blocks(parts: Sequence[PositionBlock]) -> PositionBlock:
    """Return consecutive blocks of the first phase as one."""
    lattices = [part.lattices for part in parts if part.lattices is not None]
    of_lattice = [part.of_lattice for part in parts if part.of_lattice is not None]
    overlapping = [part.overlapping for part in parts if part.overlapping is not None]
    return PositionBlock(
        join_blocks(SystemBlock, [part.systems for part in parts]),
        join_blocks(WithinBlock, [part.within for part in parts]),
        join_blocks(SpotLattices, lattices) if lattices else None,
        np.concatenate(of_lattice) if of_lattice else None,
        np.concatenate(overlapping) if overlapping else None,
    )


def join_blocks(kind: type[_Block], parts: Iterable[_Block]) -> _Block:
    """Return consecutive blocks of one kind as one."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return kind(*(np.concatenate(column) for column in columns))
