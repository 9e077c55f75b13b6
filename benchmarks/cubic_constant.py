"""How well the constant of cubic crystals is told from one and from several patterns, and what is in the way.

On the cubic materials of a run, by the included model: those that it was only calibrated on, where all
choices were made, and those it never saw. Results in results/cubic-constant.json::

    python benchmarks/cubic_constant.py RUN
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json

from diffractory.crystals.systems import system_code
from diffractory.dataset.run import Run
from diffractory.learning.artefact import load_model
from diffractory.learning.cubic_accuracies import NEAR, CubicAccuracies
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.learning.saved_model import packaged_model
from diffractory.learning.system_hierarchy import SystemHierarchy
from diffractory.patterns.cubic_constant import pool_cubic_constants
from diffractory.specs import InvariantSpec, LabProtocolSpec

RESULT = Path(__file__).parent / "results" / "cubic-constant.json"
PROTOCOLS = {"lab": LabProtocolSpec(), "paper": None}
CUBIC, SEED = system_code("cubic"), 0
#: Factors that a sublattice, or a superstructure that is not seen, makes.
FACTORS = {"2": 2.0, "√2": 2.0**0.5, "√3": 3.0**0.5, "3/2": 1.5}
SPOTS, TILTS = (0, 10, 20, 30, 50, 100, 10_000), (0.0, 0.5, 2.0, 5.0, 10.0, 90.0)


def parts_of(run: Run, provenance: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the cubic materials that only calibrated the model, and those it never saw."""
    table = run.catalogue.table
    trained_on = table["material_id"].isin(provenance["training_materials"]).to_numpy()
    cubic = (table["crystal_system"] == "cubic").to_numpy()
    calibrating = np.array([calibrates(name, provenance["training"]) for name in table["material_id"]])
    return {
        "calibration": np.flatnonzero(cubic & trained_on & calibrating),
        "unseen": np.flatnonzero(cubic & ~trained_on),
    }


def calibrates(material: str, training: dict[str, Any]) -> bool:
    """Tell whether training set a material aside, as learning/training.py decides it."""
    mark = sha256(f"calibration/{training['seed']}/{material}".encode()).hexdigest()[:8]
    return int(mark, 16) < int(training["calibration_fraction"] * 2**32)


def measured(
    run: Run, model: SystemHierarchy, crystals: np.ndarray, lab: LabProtocolSpec | None
) -> dict[str, Any]:
    """Return the errors of all answers under one protocol, and where they come from."""
    protocol = Protocol(InvariantSpec(energy_ev=run.plan.simulation.energy_ev), 200.0, lab, SEED)
    found = ProtocolFeatures.concatenate(
        [protocol_features(run.path, crystals, protocol, index) for index in range(len(run.plan.partitions))]
    )
    owners = found.items // run.plan.orientations.count
    votes, truth = model.vote_systems(found.features), targets_of(run.catalogue, owners)
    assert found.lattices is not None
    accuracies = CubicAccuracies(
        model, found.features, votes, truth, owners, found.lattices, found.peaks, 1000, SEED
    )
    result: dict[str, Any] = {"materials": len(crystals), "patterns": len(owners)}
    result["by_number"] = accuracies.by_number()
    if lab is not None:
        result["one_pattern"] = analysis(model, found, truth.lattice[:, 0], votes.system == CUBIC)
        result["floor"] = floor(truth.lattice[votes.system == CUBIC, 0], lab.scale_error)
    return result


def floor(a: np.ndarray, scale_error: float) -> dict[str, float]:
    """Return the median error in Å that wrong pixel sizes alone make, of the mean of several patterns."""
    generator = np.random.default_rng(SEED)
    return {
        str(n): float(
            np.median(np.abs(a * generator.uniform(-scale_error, scale_error, (n, len(a))).mean(axis=0)))
        )
        for n in (1, 3, 10, 30)
    }


def analysis(
    model: SystemHierarchy, found: ProtocolFeatures, truth: np.ndarray, called: np.ndarray
) -> dict[str, Any]:
    """Return where single patterns that are called cubic go wrong."""
    n = len(truth)
    single = model.predict_within(found.features, np.full(n, CUBIC)).lattice[:, 0]
    each, everyone = np.arange(1, n + 1, dtype=np.int32), np.ones(n, bool)
    assert found.lattices is not None
    pooled, both = (
        pool_cubic_constants(found.lattices, found.peaks, each, everyone, expected).a
        for expected in (None, single)
    )
    section: dict[str, Any] = {}
    for name, answer in (("median", single), ("pooled", pooled), ("both", both)):
        ratio = answer / truth
        section[name] = {
            "factors": _factors(ratio[called]),
            "by_spots": [
                _bin(
                    ratio,
                    truth,
                    called & (found.peaks.counts >= low) & (found.peaks.counts < high),
                    low,
                    high,
                )
                for low, high in pairwise(SPOTS)
            ],
            "by_degrees_from_a_zone_axis": [
                _bin(ratio, truth, called & (found.tilt >= low) & (found.tilt < high), low, high)
                for low, high in pairwise(TILTS)
            ],
        }
        right = called & (np.abs(ratio - 1.0) < NEAR)
        section[name]["median_error_of_those_within_2_percent"] = float(
            np.median(np.abs(answer - truth)[right])
        )
    return section


def _factors(ratio: np.ndarray) -> dict[str, float]:
    """Return the shares of constants that are right, off by a whole factor, by another, or not there."""
    shares = {"right": float((np.abs(ratio - 1.0) < NEAR).mean())}
    for name, factor in FACTORS.items():
        shares[f"× {name}"] = float((np.abs(ratio / factor - 1.0) < NEAR).mean())
        shares[f"/ {name}"] = float((np.abs(ratio * factor - 1.0) < NEAR).mean())
    shares["none"] = float(np.isnan(ratio).mean())
    shares["otherwise wrong"] = 1.0 - sum(shares.values())
    return shares


def _bin(ratio: np.ndarray, truth: np.ndarray, here: np.ndarray, low: float, high: float) -> dict[str, Any]:
    off = np.where(np.isnan(ratio), np.inf, np.abs(ratio - 1.0))[here]
    median = float(np.median(off * truth[here])) if here.any() else np.inf
    return {
        "from": low, "to": high, "patterns": int(here.sum()),
        "within_2_percent": float((off < NEAR).mean()) if here.any() else None,
        "median_error": median if np.isfinite(median) else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    model, provenance = load_model(packaged_model())
    content: dict[str, Any] = {"command": command(), **describe()}
    content["orientations"] = run.plan.orientations.count
    for part, crystals in parts_of(run, provenance).items():
        content[part] = {name: measured(run, model, crystals, lab) for name, lab in PROTOCOLS.items()}
    write_json(RESULT, content)
    print(json.dumps(content, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
