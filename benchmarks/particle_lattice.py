"""How often the lattice constant of a cubic particle is found from its patterns together.

On materials that the included model was not trained on, several patterns of each in random orientations,
against the median of what the model says of every pattern where cubic is assumed. With a scan, also what its
particle gives. Results in results/particle-lattice.json::

    python benchmarks/particle_lattice.py RUN
    python benchmarks/particle_lattice.py RUN --scan SCAN.h5 --candidates A.cif B.cif
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from pymatgen.core import Structure

from diffractory.crystals.crystal import Crystal
from diffractory.crystals.systems import system_code
from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.run import Run
from diffractory.errors import DiffractoryError
from diffractory.learning.bootstrap import bootstrap_interval
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.cubic_constant import is_decided, pool_cubic_constants
from diffractory.patterns.feature_sets import compute_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices, find_spot_lattices
from diffractory.scan.detection.ring_calibration import fit_pixel_size
from diffractory.scan.detection.ring_radii import ring_radii
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.specs import InvariantSpec, LabProtocolSpec

RESULT = Path(__file__).parent / "results" / "particle-lattice.json"
PROTOCOLS = {
    "lab": LabProtocolSpec(),
    "rough (0.0115 Å⁻¹)": LabProtocolSpec(position_sigma=0.0115),
}
NUMBERS, NEAR = (1, 3, 10), 0.02
#: Parts of the scan's positions that are asked each by itself.
PARTS = 10
#: Spots of a scan that candidate phases are compared with, in Å⁻¹, and how far off its calibration may be.
INNER, SCALES = 0.9, 0.04


def cubic_patterns(
    run: Run, lab: LabProtocolSpec, materials: int, trained_on: set[str]
) -> tuple[PeakTable, np.ndarray]:
    """Return as many patterns of each unseen cubic material as are asked for at most, and the true a."""
    table, count = run.catalogue.table, run.plan.orientations.count
    usable = (table["crystal_system"] == "cubic").to_numpy() & ~table["material_id"].isin(
        trained_on
    ).to_numpy()
    generator = np.random.default_rng(9)
    tables: list[PeakTable] = []
    truth: list[float] = []
    for index in generator.permutation(len(run.plan.partitions)):
        first, stop = run.plan.partitions[index].first, run.plan.partitions[index].stop
        owners = np.arange(first, stop) // count
        whole = [m for m in np.unique(owners) if usable[m] and (owners == m).sum() == count]
        if not whole:
            continue
        # In random order: the first orientations of a plan are zone axes.
        rows = [generator.choice(np.flatnonzero(owners == m), max(NUMBERS), replace=False) for m in whole]
        tables.append(protocol_patterns(run, int(index), 200.0, lab, 31, np.concatenate(rows)).peaks)
        truth += [float(table["a"].iat[m]) for m in whole]
        if len(truth) >= materials:
            break
    return PeakTable.concatenate(tables), np.array(truth)


def recovered(table: PeakTable, truth: np.ndarray, model: SavedModel, spec: InvariantSpec) -> dict[str, Any]:
    """Return how often the pooled constant is right, and the median of single answers."""
    lattices = find_spot_lattices(table, spec)
    cubic = np.full(len(table), system_code("cubic"), np.int8)
    single = model.predict_within(compute_features(table, spec, lattices), cubic).lattice[:, 0]
    owner = np.repeat(np.arange(1, len(truth) + 1), max(NUMBERS))
    rank, result = np.arange(len(table)) % max(NUMBERS), {}
    for number in NUMBERS:
        particle = np.where(rank < number, owner, 0).astype(np.int32)
        found = pool_cubic_constants(lattices, table, particle, np.ones(len(truth), bool))
        median = np.nanmedian(single.reshape(-1, max(NUMBERS))[:, :number], axis=1)
        sure = is_decided(found.margin)
        result[str(number)] = {
            "materials": len(truth),
            "pooled": _right(found.a, truth),
            "median_of_single_patterns": _right(median, truth),
            "decided": _right(found.a[sure], truth[sure]),
        }
    return result


def _right(found: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    off = np.abs(found / truth - 1.0)
    right = off < NEAR
    return {
        "n": len(truth), "within_2_percent": float(right.mean()) if len(truth) else None,
        "interval": bootstrap_interval(right, np.arange(len(truth)), 1000, 0),
        "median_error_of_those_in_A": float(np.median(np.abs(found - truth)[right])) if right.any() else None,
    }  # fmt: skip


def of_scan(path: Path, spec: InvariantSpec) -> dict[str, Any]:
    """Return the constant that all patterns of a scan with a lattice give, and tenths of them at random."""
    peaks = read_bragg_scan(path).peaks
    lattices = find_spot_lattices(peaks, spec)
    whole = (peaks.counts >= 5).astype(np.int32)
    tenth = np.random.default_rng(0).integers(1, PARTS + 1, len(peaks)).astype(np.int32) * whole
    return {
        "patterns": int((lattices.score * whole > 0.0).sum()),
        "whole": _listed(lattices, peaks, whole, 1), "tenths": _listed(lattices, peaks, tenth, PARTS),
    }  # fmt: skip


def candidates(path: Path, files: list[Path]) -> dict[str, Any]:
    """Return how many spots of a scan lie on the rings of phases it may be, each at its best scale.

    Spots nearer than 0.9 Å⁻¹: farther out the rings of all of them lie too close to tell.
    """
    peaks = read_bragg_scan(path).peaks
    radius = np.hypot(*peaks.q[peaks.scattered].T)
    radius, found = radius[radius < INNER], {}
    for file in files:
        structure = Structure.from_file(file)
        crystal = Crystal(
            structure.lattice.matrix, np.array([site.specie.Z for site in structure]), structure.frac_coords
        )
        rings = ring_radii(crystal, 1.1 * INNER)
        try:
            fit = fit_pixel_size(radius, rings, (1.0 - SCALES, 1.0 + SCALES))
            found[file.stem] = {"scale": fit.pixel_size, "on_rings": fit.matched, "by_chance": fit.by_chance}
        except DiffractoryError as error:
            found[file.stem] = {"none": str(error)}
    return found


def _listed(lattices: SpotLattices, peaks: PeakTable, particle: np.ndarray, n: int) -> dict[str, Any]:
    found = pool_cubic_constants(lattices, peaks, particle, np.ones(n, bool))
    return {
        name: (values if values.dtype.kind == "U" else np.round(values, 3)).tolist()
        for name, values in vars(found).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--materials", type=int, default=160)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--candidates", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    run, model = Run.open(arguments.run), SavedModel(packaged_model())
    spec = InvariantSpec(energy_ev=run.plan.simulation.energy_ev)
    trained_on = set(model.provenance["training_materials"])
    content: dict[str, Any] = {"command": command(), **describe(), "patterns_a_particle": {}}
    for name, lab in PROTOCOLS.items():
        table, truth = cubic_patterns(run, lab, arguments.materials, trained_on)
        content["patterns_a_particle"][name] = recovered(table, truth, model, spec)
    if arguments.scan:
        content["scan"] = of_scan(arguments.scan, spec)
        content["scan"]["candidates"] = candidates(arguments.scan, arguments.candidates)
    write_json(RESULT, content)
    print(json.dumps(content, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
