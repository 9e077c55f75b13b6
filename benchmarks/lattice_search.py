"""How often the lattice of a single pattern is found, how fast, and how far real spots scatter.

On materials that the models are trained on; the test materials are not looked at. Also how often two
patterns above each other are flagged as overlapping grains, and single ones. With a scan of a known
lattice, also how far its spots lie from that lattice, whatever its orientation. Results in
results/lattice-search.json::

    python benchmarks/lattice_search.py RUN
    python benchmarks/lattice_search.py RUN --scan SCAN.h5 --cubic-f 8.26
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from numba import njit
from scipy.spatial.transform import Rotation

from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.run import Run
from diffractory.learning.training import split_of
from diffractory.patterns.invariants import invariant_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import find_spot_lattices
from diffractory.scan.mapping.overlap import find_overlaps
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.specs import BoostingSpec, InvariantSpec, LabProtocolSpec
from diffractory.units import electron_wavelength

RESULT = Path(__file__).parent / "results" / "lattice-search.json"
PARTITIONS, PATTERNS = 10, 60
#: A volume this near, relatively, is that of the primitive cell.
NEAR = 0.15
PROTOCOLS = {
    "turned": LabProtocolSpec.turned(200.0),
    "lab": LabProtocolSpec(),
    "rough (0.0115 Å⁻¹)": LabProtocolSpec(position_sigma=0.0115),
}
SPECS = {
    "chosen": InvariantSpec(),
    "without the widest tolerance, s ≤ 0.07": InvariantSpec(tolerances=(0.004, 0.012), s_max=0.07),
    "s ≤ 0.05": InvariantSpec(s_max=0.05),
    "s ≤ 0.04": InvariantSpec(s_max=0.04),
    "tolerances 0.012, 0.03": InvariantSpec(tolerances=(0.012, 0.03)),
    "tolerances 0.004, 0.012, 0.024": InvariantSpec(tolerances=(0.004, 0.012, 0.024)),
}
#: Parts of the second of two patterns above each other, the weakest spot that is seen, and how far apart.
SECOND, WEAKEST, APART = (0.0, 0.5, 0.3, 0.15), 3e-4, 0.02
#: Orientations a known lattice is tried in, and how near its points count, across and along the beam.
ORIENTATIONS, REACH, ALONG = 300_000, 0.035, 0.03


def training_patterns(run: Run, lab: LabProtocolSpec) -> tuple[list[PeakTable], np.ndarray]:
    """Return patterns of training materials and the volumes of their primitive cells."""
    held_out, count = split_of(run, BoostingSpec()), run.plan.orientations.count
    volumes = run.catalogue.table["volume_primitive"].to_numpy()
    generator = np.random.default_rng(5)
    tables, truth = [], []
    for index in generator.choice(len(run.plan.partitions), PARTITIONS, replace=False):
        partition = run.plan.partitions[index]
        crystals = np.arange(partition.first, partition.stop) // count
        rows = np.sort(generator.choice(np.flatnonzero(~held_out[crystals]), PATTERNS, replace=False))
        tables.append(protocol_patterns(run, int(index), 200.0, lab, 11, rows).peaks)
        truth.append(volumes[crystals[rows]])
    return tables, np.concatenate(truth)


def searched(tables: list[PeakTable], truth: np.ndarray, spec: InvariantSpec) -> dict[str, Any]:
    """Return how often the primitive cell is found, and the time a pattern takes."""
    find_spot_lattices(tables[0].take([0]), spec)
    started = time.process_time()
    found = [find_spot_lattices(table, spec) for table in tables]
    seconds = time.process_time() - started
    reciprocal = np.abs(np.linalg.det(np.concatenate([each.reciprocal for each in found])))
    right = np.abs(1.0 / np.maximum(reciprocal, 1e-9) / truth - 1.0) < NEAR
    return {"right": round(float(right.mean()), 4), "ms_a_pattern": round(seconds / len(truth) * 1e3, 3)}


def overlaps(tables: list[PeakTable], spec: InvariantSpec) -> dict[str, float]:
    """Return which share of single and of mixed patterns is flagged as overlapping grains."""
    patterns = [table.pattern(index) for table in tables for index in range(len(table))]
    partner = np.random.default_rng(0).permutation(len(patterns))
    flagged = {}
    for share in SECOND:
        lists = [_mixed(*patterns[i], *patterns[j], share) for i, j in enumerate(partner)]
        table = PeakTable.from_lists(
            [q for q, _ in lists], [values for _, values in lists], [-1] * len(lists)
        )
        found = find_overlaps(table, find_spot_lattices(table, spec), spec)
        flagged[f"second grain {share:.0%}"] = round(float(found.mean()), 4)
    return flagged


def _mixed(
    q: np.ndarray, intensity: np.ndarray, other: np.ndarray, other_intensity: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    places = np.concatenate([q, other])
    values = np.concatenate([(1.0 - share) * intensity, share * other_intensity])
    seen = np.flatnonzero(values > WEAKEST)
    kept: list[int] = []
    for spot in seen[np.argsort(-values[seen])]:
        # Spots that a detector cannot tell apart become one; single patterns stay as they are.
        if share == 0.0 or not kept or np.hypot(*(places[kept] - places[spot]).T).min() > APART:
            kept.append(int(spot))
    return places[kept], values[kept]


@njit(cache=False)
def explained(q, curvature, primitive, reciprocal, rotations):  # type: ignore[no-untyped-def]
    """Return the orientation in which a lattice explains most spots, and which of them."""
    best, at = -1, 0
    for index in range(len(rotations)):
        turn, number = rotations[index].T, 0
        for x, y in q:
            z = (x * x + y * y) * curvature
            point = turn[0] * x + turn[1] * y + turn[2] * z
            off = reciprocal @ np.rint(primitive @ point) - point
            across = (turn[0] @ off) ** 2 + (turn[1] @ off) ** 2
            number += across < REACH**2 and abs(turn[2] @ off) < ALONG
        if number > best:
            best, at = number, index
    return at


def scatter(scan_path: Path, a: float, patterns: int) -> dict[str, Any]:
    """Return how far spots of a scan lie from a face-centred cubic lattice, its orientation fitted."""
    peaks = read_bragg_scan(scan_path).peaks
    curvature = electron_wavelength(300e3) / 2.0
    primitive = a / 2.0 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    reciprocal = np.linalg.inv(primitive)
    rotations = Rotation.random(ORIENTATIONS, random_state=1).as_matrix()
    chosen = np.random.default_rng(0).choice(np.flatnonzero(peaks.counts >= 15), patterns, replace=False)
    shares, spreads, chance = [], [], []
    for index in chosen:
        q, intensity = peaks.pattern(int(index))
        kept = (np.hypot(*q.T) > 0.05) & (np.hypot(*q.T) < 1.3)
        q = q[kept][np.argsort(-intensity[kept])[:30]]
        turn = rotations[explained(q, curvature, primitive, reciprocal, rotations)]
        other = rotations[explained(q, curvature, primitive * 0.93, reciprocal / 0.93, rotations)]
        seen = np.column_stack([q, (q * q).sum(axis=1) * curvature])
        for _ in range(8):
            points = np.rint(seen @ turn.T @ primitive.T) @ reciprocal.T @ turn
            off = seen - points
            near = (np.hypot(*off[:, :2].T) < REACH) & (np.abs(off[:, 2]) < ALONG) & points.any(axis=1)
            # A small turn about each axis that brings the points nearer, the beam direction counting little.
            rows = np.cross(np.eye(3)[None], points[near, None]).transpose(0, 2, 1) * [[1.0], [1.0], [0.2]]
            step = np.linalg.lstsq(rows.reshape(-1, 3), (off[near] * [1, 1, 0.2]).ravel(), rcond=None)[0]
            turn = turn @ Rotation.from_rotvec(step).as_matrix().T
        shares.append(near.mean())
        spreads.append(off[near, :2].std())
        control = seen - np.rint(seen @ other.T @ primitive.T * 0.93) @ reciprocal.T @ other / 0.93
        chance.append(((np.hypot(*control[:, :2].T) < REACH) & (np.abs(control[:, 2]) < ALONG)).mean())
    return {
        "patterns": patterns,
        "explained_spots": round(float(np.median(shares)), 3),
        "explained_by_a_lattice_7_percent_smaller": round(float(np.median(chance)), 3),
        "position_sigma": [round(float(value), 4) for value in np.quantile(spreads, [0.1, 0.5, 0.9])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--cubic-f", type=float, help="a in Å of the face-centred cubic lattice of the scan")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    content: dict[str, Any] = {"searches": {}, "features_ms_a_pattern": {}, "flagged_as_overlapping": {}}
    for name, lab in PROTOCOLS.items():
        tables, truth = training_patterns(run, lab)
        content["searches"][name] = {
            label: searched(tables, truth, spec) for label, spec in SPECS.items()
        } | {"patterns": len(truth)}
        if name != "turned":
            content["flagged_as_overlapping"][name] = overlaps(tables, InvariantSpec())
        invariant_features(tables[0].take([0]))
        started = time.process_time()
        for table in tables:
            invariant_features(table)
        content["features_ms_a_pattern"][name] = round((time.process_time() - started) / len(truth) * 1e3, 3)
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    content |= {name: before[name] for name in ("scan", "constants") if name in before}
    if arguments.scan:
        content["scan"] = scatter(arguments.scan, arguments.cubic_f, 60)
    write_json(RESULT, {**content, "command": command(), **describe()})
    print(json.dumps(content, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
