"""Patterns of a run as a test sees them: the paper protocol and the lab protocol."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.systems import system_code
from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.run import Run
from diffractory.learning.hierarchy import Targets
from diffractory.patterns.feature_sets import compute_features, lattices_of, number_of_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.specs import FeatureSpec, LabProtocolSpec


@dataclass(frozen=True)
class Protocol:
    """How test patterns are made from simulated ones.

    Parameters
    ----------
    features : RadialBasisSpec or InvariantSpec
    thickness : float
        In Å; used by the paper protocol.
    lab : LabProtocolSpec or None
        None = paper protocol: frames as simulated, noise-free, one thickness. Otherwise each
        pattern's thickness is drawn among those simulated.
    seed : int
        With the material and the orientation it alone determines what happens to a pattern.
    """

    features: FeatureSpec
    thickness: float
    lab: LabProtocolSpec | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ProtocolFeatures:
    """Features of some items of a run.

    Parameters
    ----------
    items : ndarray of shape (n,), int64
        Items of the run, crystal × orientations + orientation.
    features : ndarray of shape (n, n_features), float32
    peaks : PeakTable
        The patterns themselves.
    thickness : ndarray of shape (n,)
        In Å.
    tilt : ndarray of shape (n,)
        Angle between the beam and the nearest zone axis with indices up to 2, in degrees.
    lattices : SpotLattices or None
        The lattice read from each pattern; None where the features describe none.
    """

    items: NDArray[np.int64]
    features: NDArray[np.float32]
    peaks: PeakTable
    thickness: NDArray[np.float64]
    tilt: NDArray[np.float64]
    lattices: SpotLattices | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join parts of one protocol, in the order of their items.

        Parameters
        ----------
        parts : sequence of ProtocolFeatures
            Of different items.

        Returns
        -------
        ProtocolFeatures
            Sorted by item.
        """
        order = np.argsort(np.concatenate([part.items for part in parts]))
        pairs = zip(*map(_columns, parts), strict=True)
        items, features, thickness, tilt = (np.concatenate(column)[order] for column in pairs)
        peaks = PeakTable.concatenate([part.peaks for part in parts]).take(order)
        joined = cls(items, features, peaks, thickness, tilt)
        read = [vars(part.lattices).values() for part in parts if part.lattices is not None]
        if not read:
            return joined
        lattices = SpotLattices(*(np.concatenate(column)[order] for column in zip(*read, strict=True)))
        return replace(joined, lattices=lattices)


def _columns(part: ProtocolFeatures) -> list[NDArray[Any]]:
    return [part.items, part.features, part.thickness, part.tilt]


def protocol_features(
    run_path: Path | str, crystals: NDArray[np.int64], protocol: Protocol, partition: int
) -> ProtocolFeatures:
    """Compute the features of chosen crystals in one partition of a run.

    Parameters
    ----------
    run_path : Path or str
    crystals : ndarray of int
        Indices of the crystals wanted; others in the partition are left out.
    protocol : Protocol
    partition : int

    Returns
    -------
    ProtocolFeatures
        Of the wanted items of this partition; empty where there is none.

    Raises
    ------
    RunError
        If the partition is not done, or the protocol's thickness was not simulated.
    SpecError
        If no simulated thickness lies in the lab protocol's range.
    """
    run = Run.open(run_path)
    count = run.plan.orientations.count
    chosen = run.plan.partitions[partition]
    items = np.arange(chosen.first, chosen.stop)
    wanted = np.flatnonzero(np.isin(items // count, crystals))
    if len(wanted) == 0:
        empty = np.empty(0)
        none = np.empty((0, number_of_features(protocol.features)), dtype=np.float32)
        nothing = PeakTable.from_lists([], [], [])
        lattices = lattices_of(nothing, protocol.features)
        return ProtocolFeatures(items[wanted], none, nothing, empty, empty, lattices)
    patterns = protocol_patterns(run, partition, protocol.thickness, protocol.lab, protocol.seed, rows=wanted)
    lattices = lattices_of(patterns.peaks, protocol.features)
    return ProtocolFeatures(
        items[wanted],
        compute_features(patterns.peaks, protocol.features, lattices),
        patterns.peaks,
        patterns.thickness,
        tilt_from_zone_axes(run, items[wanted], patterns.rotation),
        lattices,
    )


def tilt_from_zone_axes(
    run: Run, items: NDArray[np.int64], rotation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the angle between the beam and the nearest low-index zone axis.

    Parameters
    ----------
    run : Run
    items : ndarray of shape (n,), int64
    rotation : ndarray of shape (n, 3, 3)
        Orientation matrices; the third column is the beam in the crystal's Cartesian frame.

    Returns
    -------
    ndarray of shape (n,)
        In degrees; zone axes [uvw] of the conventional cell with indices from −2 to 2.
    """
    crystals, which = np.unique(items // run.plan.orientations.count, return_inverse=True)
    direct = np.linalg.inv(run.catalogue.reciprocal(crystals)).transpose(0, 2, 1)
    indices = np.array([v for v in itertools.product(range(-2, 3), repeat=3) if v > (0, 0, 0)], dtype=float)
    axes = indices @ direct
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    cosine = np.abs(np.einsum("nij,nj->ni", axes[which], rotation[:, :, 2])).max(axis=1)
    return np.asarray(np.degrees(np.arccos(np.minimum(cosine, 1.0))))


def targets_of(catalogue: Catalogue, crystals: NDArray[np.int64]) -> Targets:
    """Return the truth for patterns of the given crystals, one row a pattern.

    Parameters
    ----------
    catalogue : Catalogue
        With crystal system, space group and conventional cell of each material.
    crystals : ndarray of shape (n,), int64
        Number of each pattern's crystal in the catalogue.

    Returns
    -------
    Targets
        Of n patterns.
    """
    table = catalogue.table
    systems = np.array([system_code(name) for name in table["crystal_system"]])
    return Targets.from_labels(
        systems[crystals],
        table["space_group"].to_numpy()[crystals],
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[crystals],
    )
