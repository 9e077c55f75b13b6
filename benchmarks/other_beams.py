"""What the included model is worth for beams it was not trained with: another energy, precession.

It was trained at 300 keV without precession. Materials it was not trained on are simulated with every beam,
go through the lab protocol, nine patterns of each, and are mapped as a scan would be, each material a block
of nine positions. Lattices are read with the Ewald sphere of the scan, and once, to compare, with that of the
training. ``python benchmarks/other_beams.py --catalogue crystals.parquet`` writes
``benchmarks/results/other-beams.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from scipy.spatial.transform import Rotation

from diffractory import Catalogue, simulate
from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.learning.bootstrap import bootstrap_interval
from diffractory.learning.protocol_features import targets_of
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.lab_protocol import apply_lab_protocol
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.specs import (
    InvariantSpec,
    LabProtocolSpec,
    MapSpec,
    ParticleSpec,
    SimulationSpec,
    feature_spec,
)  # fmt: skip

RESULT = Path(__file__).parent / "results" / "other-beams.json"
#: Side of a material's block of positions: its square is the number of patterns.
SIDE = 3
THICKNESSES = tuple(100.0 * n for n in range(1, 6))
AZIMUTHS = 12
NEAR = 0.02


@dataclass(frozen=True)
class Beam:
    """Energy and precession of a simulated scan, and the energy its lattices are read with."""

    energy_ev: float
    precession_deg: float = 0.0
    read_at_ev: float | None = None


BEAMS = {
    "300 keV": Beam(300e3),
    "200 keV": Beam(200e3),
    "200 keV, read as 300 keV": Beam(200e3, read_at_ev=300e3),
    "200 keV, precession 1°": Beam(200e3, 1.0),
    "300 keV, precession 1°": Beam(300e3, 1.0),
    "80 keV": Beam(80e3),
}


def chosen_materials(catalogue: Catalogue, trained_on: set[str], each: int, largest: float) -> np.ndarray:
    """Return rows of random unseen materials, as many of each crystal system, with small primitive cells."""
    table = catalogue.table
    unseen = ~table["material_id"].isin(trained_on) & (table["volume_primitive"] <= largest)
    generator = np.random.default_rng(11)
    rows = [
        generator.permutation(np.flatnonzero(unseen & (table["crystal_system"] == system)))[:each]
        for system in CRYSTAL_SYSTEMS
    ]
    return np.sort(np.concatenate(rows))


def patterns(catalogue: Catalogue, rows: np.ndarray, beam: Beam) -> PeakTable:
    """Return nine patterns of each material, in the same orientations and thicknesses for every beam."""
    spec = SimulationSpec(
        energy_ev=beam.energy_ev, thicknesses=THICKNESSES, precession_deg=beam.precession_deg,
        precession_azimuths=AZIMUTHS,
    )  # fmt: skip
    tables = []
    for row in rows:
        generator = np.random.default_rng([7, int(row)])
        turns = Rotation.random(SIDE**2, random_state=generator).as_matrix()
        thickness = generator.integers(len(THICKNESSES), size=SIDE**2)
        found = simulate(catalogue.crystal(int(row)), turns, spec)
        tables.append(
            PeakTable.from_lists(
                [peaks.q for peaks in found],
                [peaks.intensity[t] for peaks, t in zip(found, thickness, strict=True)],
                [0] * SIDE**2,
            )
        )
    table = PeakTable.concatenate(tables)
    seeds = np.random.SeedSequence(3).generate_state(len(table), np.uint64)
    return apply_lab_protocol(table, LabProtocolSpec(), seeds)


def scored(
    table: PeakTable, catalogue: Catalogue, rows: np.ndarray, read_at_ev: float, model: SavedModel
) -> dict[str, Any]:
    """Map the patterns and compare positions and materials with the truth."""
    # Blocks are numbered row by row: one row of blocks, each of nine positions in a square.
    order = np.arange(len(table)).reshape(len(rows), SIDE, SIDE).transpose(1, 0, 2).reshape(-1)
    scan = BraggScan(table.take(order), (SIDE, SIDE * len(rows)), None, None, "unseen materials")
    features = feature_spec(model.provenance["features"])
    assert isinstance(features, InvariantSpec)
    prediction = predict_scan(
        model, scan, MapSpec(median_size=1, min_difference=0.0),
        features.model_copy(update={"energy_ev": read_at_ev}),
        particles=ParticleSpec(regions="grid", grid=SIDE),
    )  # fmt: skip
    truth, divided = targets_of(catalogue, rows), prediction.particles
    assert divided is not None
    assert divided.cubic is not None
    system, true_a = np.asarray(truth.system), np.asarray(truth.lattice)[:, 0]
    owner = divided.particle - 1
    asked = prediction.systems.system >= 0
    right = (prediction.systems.system == system[owner])[asked]
    pooled = divided.system == system
    cubic = system == system_code("cubic")
    a_right = cubic & (np.abs(divided.cubic.a / true_a - 1.0) < NEAR)
    each = np.arange(len(rows))
    return {
        "asked": float(asked.mean()),
        "position_right": float(right.mean()),
        "position_interval": bootstrap_interval(right, owner[asked], 1000, 0),
        "outside_training": float(prediction.systems.outside[asked].mean()),
        "nine_right": float(pooled.mean()),
        "nine_interval": bootstrap_interval(pooled, each, 1000, 0),
        "nine_mean_confidence": float(np.nanmean(divided.evidence.confidence)),
        "nine_right_by_system": {
            name: [int(pooled[system == code].sum()), int((system == code).sum())]
            for code, name in enumerate(CRYSTAL_SYSTEMS)
        },
        "cubic_a_pooled_within_2_percent": [int(a_right.sum()), int((cubic & pooled).sum())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--each", type=int, default=7, help="materials of each crystal system")
    parser.add_argument("--largest", type=float, default=100.0, help="Å³ of the primitive cell")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    model = SavedModel(packaged_model())
    catalogue = Catalogue.from_parquet(options.catalogue)
    rows = chosen_materials(
        catalogue, set(model.provenance["training_materials"]), options.each, options.largest
    )
    beams: dict[str, Any] = {}
    for name, beam in BEAMS.items():
        table = patterns(catalogue, rows, beam)
        beams[name] = scored(table, catalogue, rows, beam.read_at_ev or beam.energy_ev, model)
        print(name, json.dumps(beams[name]), flush=True)
        result = {
            "command": command(), **describe(), "catalogue": catalogue.content_hash, "materials": len(rows),
            "patterns_a_material": SIDE**2, "protocol": LabProtocolSpec().model_dump(mode="json"),
            "precession_azimuths": AZIMUTHS, "beams": beams,
        }  # fmt: skip
        write_json(options.out, result)


if __name__ == "__main__":
    main()
