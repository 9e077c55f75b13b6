"""Patterns of a run as a test sees them: the paper protocol and the lab protocol."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.systems import system_code
from diffractory.dataset.partition import read_partition
from diffractory.dataset.run import Run
from diffractory.errors import RunError
from diffractory.learning.hierarchy import Targets
from diffractory.patterns.lab_protocol import apply_lab_protocol, draw_thickness
from diffractory.patterns.radial_basis import radial_basis
from diffractory.specs import LabProtocolSpec, RadialBasisSpec


@dataclass(frozen=True)
class Protocol:
    """How test patterns are made from simulated ones.

    Parameters
    ----------
    basis : RadialBasisSpec
    thickness : float
        In Å; used by the paper protocol.
    lab : LabProtocolSpec or None
        None = paper protocol: frames as simulated, noise-free, one thickness. Otherwise each
        pattern's thickness is drawn among those simulated.
    seed : int
        With the material and the orientation it alone determines what happens to a pattern.
    """

    basis: RadialBasisSpec
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
    """

    items: NDArray[np.int64]
    features: NDArray[np.float32]


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
        return ProtocolFeatures(items[wanted], np.empty((0, protocol.basis.n_features), dtype=np.float32))
    peaks = read_partition(run, partition)
    available = np.array(run.plan.simulation.thicknesses)
    if protocol.lab is None:
        table = peaks.table(_thickness_index(run, protocol.thickness)).take(wanted)
        return ProtocolFeatures(items[wanted], radial_basis(table, protocol.basis))
    ids = run.catalogue.ids
    seeds = np.array([pattern_seed(protocol.seed, ids[i // count], int(i % count)) for i in items])
    table = peaks.table(draw_thickness(available, protocol.lab, seeds)).take(wanted)
    noisy = apply_lab_protocol(table, protocol.lab, seeds[wanted])
    return ProtocolFeatures(items[wanted], radial_basis(noisy, protocol.basis))


def pattern_seed(seed: int, material_id: str, orientation: int) -> np.uint64:
    """Return the seed of one pattern: a hash of what it is, not of where it is stored."""
    digest = hashlib.sha256(f"lab/{seed}/{material_id}/{orientation}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "big"))


def _thickness_index(run: Run, thickness: float) -> int:
    available = run.plan.simulation.thicknesses
    if thickness not in available:
        raise RunError(
            f"{run.path} holds no patterns at {thickness} Å",
            f"it was simulated at {list(available)} Å",
            "Evaluate on a run that holds the model's training thickness",
        )
    return available.index(thickness)


def targets_of(catalogue: Catalogue, crystals: NDArray[np.int64]) -> Targets:
    """Return the truth for patterns of the given crystals, one row a pattern."""
    table = catalogue.table
    systems = np.array([system_code(name) for name in table["crystal_system"]])
    return Targets.from_labels(
        systems[crystals],
        table["space_group"].to_numpy()[crystals],
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[crystals],
    )
