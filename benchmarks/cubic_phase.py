"""How often a cubic phase is found in patterns, cubic or not, and what it does to single patterns.

Each material of a run is a scan of its own: half of its orientations tell the phase, the others are judged
with it, and the other way round; lab protocol, the included model. On materials that only calibrated the
model the odds of patterns/cubic_phase.py are fitted; on those it never saw everything is measured. Results in
results/cubic-phase.json::

    python benchmarks/cubic_phase.py RUN
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cubic_constant import calibrates
from machine import command, describe, write_json
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.dataset.run import Run
from diffractory.learning.artefact import load_model
from diffractory.learning.protocol_features import Protocol, protocol_features
from diffractory.learning.saved_model import packaged_model
from diffractory.patterns.cubic_constant import judge_near
from diffractory.patterns.cubic_phase import _SURE, CubicPhase, find_cubic_phases, phase_probability
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices
from diffractory.specs import InvariantSpec, LabProtocolSpec, MapSpec

RESULT = Path(__file__).parent / "results" / "cubic-phase.json"
CUBIC, SEED = system_code("cubic"), 0
#: Spots, the direct beam included, below which a pattern has few.
FEW = 10


@dataclass(frozen=True, eq=False)
class Seen:
    """Patterns of some materials with spots enough, and what the model says of them."""

    peaks: PeakTable
    lattices: SpotLattices
    share: NDArray[np.float64]
    crystal: NDArray[np.int64]
    orientation: NDArray[np.int64]
    system: NDArray[np.int64]
    a: NDArray[np.float64]
    a_of_model: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> Seen:
        """Return some of the patterns."""
        values = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, peaks=self.peaks.take(rows), lattices=self.lattices.take(rows), **values)


def seen_by_model(run: Run, crystals: NDArray[np.int64]) -> Seen:
    """Return the patterns of materials under the lab protocol."""
    model, _ = load_model(packaged_model())
    protocol = Protocol(
        InvariantSpec(energy_ev=run.plan.simulation.energy_ev), 200.0, LabProtocolSpec(), SEED
    )
    parts = []
    for index in range(len(run.plan.partitions)):
        part = protocol_features(run.path, crystals, protocol, index)
        assert part.lattices is not None
        as_cubic = np.full(len(part.items), CUBIC, dtype=np.int8)
        a = model.predict_within(part.features, as_cubic).lattice[:, 0]
        parts.append((part.items, part.peaks, part.lattices, model.vote_systems(part.features).share, a))
    items = np.concatenate([part[0] for part in parts])
    columns = zip(*(vars(part[2]).values() for part in parts), strict=True)
    crystal, orientation = np.divmod(items, run.plan.orientations.count)
    table = run.catalogue.table
    codes = np.array([system_code(name) for name in table["crystal_system"]])
    seen = Seen(
        PeakTable.concatenate([part[1] for part in parts]),
        SpotLattices(*(np.concatenate(column) for column in columns)),
        np.concatenate([part[3] for part in parts]),
        crystal, orientation, codes[crystal], table["a"].to_numpy(dtype=float)[crystal],
        np.concatenate([part[4] for part in parts]),
    )  # fmt: skip
    return seen.take(np.flatnonzero(seen.peaks.counts >= MapSpec().min_spots))


def phases_in(seen: Seen) -> tuple[CubicPhase, ...]:
    """Return the phases that patterns show."""
    called_cubic = seen.share.argmax(axis=1) == CUBIC
    return tuple(find_cubic_phases(seen.lattices, seen.peaks, called_cubic, seen.a_of_model))


def phases_of(seen: Seen) -> dict[tuple[int, int], tuple[CubicPhase, ...]]:
    """Return the phases that each half of the orientations of each material shows."""
    middle = (seen.orientation.max() + 1) // 2
    half = (seen.orientation >= middle).astype(int)
    found = {}
    for crystal in np.unique(seen.crystal):
        for which in (0, 1):
            rows = np.flatnonzero((seen.crystal == crystal) & (half == which))
            found[int(crystal), which] = phases_in(seen.take(rows))
    return found


def told_by_other_half(
    seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]
) -> list[tuple[CubicPhase, ...]]:
    """Return, for each pattern, the phases that the half it is not of shows."""
    middle = (seen.orientation.max() + 1) // 2
    other = (seen.orientation < middle).astype(int)
    return [phases[int(crystal), int(half)] for crystal, half in zip(seen.crystal, other, strict=True)]


def pairs(
    seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]
) -> tuple[NDArray[np.int64], list[CubicPhase]]:
    """Return patterns, each with a phase: cubic ones with their own, all others with one drawn at random."""
    cubic = set(seen.crystal[seen.system == CUBIC].tolist())
    pool = [found[0] for (crystal, _), found in phases.items() if found and crystal in cubic]
    generator = np.random.default_rng(SEED)
    rows, chosen = [], []
    for row, own in enumerate(told_by_other_half(seen, phases)):
        if seen.system[row] != CUBIC:
            rows.append(row)
            chosen.append(pool[int(generator.integers(len(pool)))])
        elif own:
            rows.append(row)
            chosen.append(own[0])
    return np.array(rows), chosen


def fit(seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]) -> dict[str, Any]:
    """Return the odds of a pattern being cubic, of calibration materials."""
    rows, chosen = pairs(seen, phases)
    peaks, cubic = seen.peaks.take(rows), seen.system[rows] == CUBIC
    _, total = judge_near(
        peaks, np.array([phase.a for phase in chosen]), np.array([phase.centring for phase in chosen])
    )
    spots = np.maximum(peaks.counts - (peaks.direct >= 0), 1)
    known = np.isfinite(total)
    sure = np.clip(seen.share[rows, CUBIC], _SURE, 1.0 - _SURE)
    values = np.stack([np.log(sure / (1.0 - sure)), total, total / spots], axis=1)[known]
    # As if a phase were found in every cubic material: the odds before anything is seen are the model's.
    weight = np.where(cubic, (seen.system == CUBIC).sum() / cubic.sum(), 1.0)[known]
    model = LogisticRegression(C=100.0, max_iter=1000).fit(values, cubic[known], sample_weight=weight)
    odds = [float(model.intercept_[0]), *(float(value) for value in model.coef_[0])]
    return {"odds": odds, "patterns": len(rows), "cubic": int(cubic.sum())}


def found(seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]) -> dict[str, Any]:
    """Return in which share of materials of each system a phase is found, and how often it is right."""
    first = {int(c): int(np.flatnonzero(seen.crystal == c)[0]) for c in np.unique(seen.crystal)}
    result: dict[str, Any] = {}
    for code, name in enumerate(CRYSTAL_SYSTEMS):
        of = [(key[0], phase) for key, phase in phases.items() if seen.system[first[key[0]]] == code]
        decided = [(crystal, phase[0]) for crystal, phase in of if phase]
        result[name] = {"found": share(len(decided), len(of))}
        if code == CUBIC:
            near = [abs(phase.a / seen.a[first[crystal]] - 1.0) < 0.02 for crystal, phase in decided]
            result[name]["within_2_percent"] = share(sum(near), len(near))
    return result


def share(count: int, of: int) -> dict[str, Any]:
    """Return a share with its 95 % interval (Wilson)."""
    if of == 0:
        return {"count": 0, "of": 0}
    interval = binomtest(int(count), int(of)).proportion_ci(method="wilson")
    return {
        "share": count / of,
        "interval": [interval.low, interval.high],
        "count": int(count),
        "of": int(of),
    }


def called(seen: Seen, chosen: Sequence[tuple[CubicPhase, ...]]) -> NDArray[np.int64]:
    """Return the most likely system of each pattern, with the phases that are known of each."""
    shares = seen.share.astype(np.float64)
    by_phases: dict[tuple[CubicPhase, ...], list[int]] = {}
    for row, phases in enumerate(chosen):
        if phases:
            by_phases.setdefault(phases, []).append(row)
    for phases, members in by_phases.items():
        rows = np.array(members)
        before = shares[rows, CUBIC]
        after, _, _ = phase_probability(before, seen.peaks.take(rows), phases)
        shares[rows] *= ((1.0 - after) / np.maximum(1.0 - before, 1e-12))[:, None]
        shares[rows, CUBIC] = after
    return np.asarray(shares.argmax(axis=1))


def with_a_known_phase(seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]) -> dict[str, Any]:
    """Return how many cubic patterns are called so, and how many others, without and with a known phase."""
    rows, chosen = pairs(seen, phases)
    part = seen.take(rows)
    answers = {"without": part.share.argmax(axis=1), "with": called(part, [(phase,) for phase in chosen])}
    result: dict[str, Any] = {}
    for which, here in (
        ("all", np.ones(len(rows), bool)),
        (f"fewer than {FEW} spots", part.peaks.counts < FEW),
    ):
        result[which] = {}
        for name, answer in answers.items():
            for kind, of in (("cubic", part.system == CUBIC), ("others", part.system != CUBIC)):
                result[which][f"{kind} called cubic, {name}"] = by_material(
                    answer == CUBIC, part.crystal, of & here
                )
    return result


def each_a_scan(seen: Seen, phases: dict[tuple[int, int], tuple[CubicPhase, ...]]) -> dict[str, Any]:
    """Return how many patterns are right when each material is a scan, by system, without and with phases."""
    answers = {
        "without": seen.share.argmax(axis=1),
        "with": called(seen, told_by_other_half(seen, phases)),
    }
    result: dict[str, Any] = {}
    for name, answer in answers.items():
        right = answer == seen.system
        result[name] = {"all": by_material(right, seen.crystal, np.ones(len(right), bool))}
        for code, system in enumerate(CRYSTAL_SYSTEMS):
            result[name][system] = by_material(right, seen.crystal, seen.system == code)
    return result


def two_materials(seen: Seen, second_is_cubic: bool) -> dict[str, Any]:
    """Return what becomes of scans of a cubic material and another, as many patterns of each."""
    generator, system = np.random.default_rng(SEED), dict(zip(seen.crystal, seen.system, strict=True))
    ids = np.unique(seen.crystal)
    cubic = generator.permutation([i for i in ids if system[i] == CUBIC])
    others = generator.permutation([i for i in ids if system[i] != CUBIC])[: len(cubic)]
    right: dict[str, list[NDArray[np.bool_]]] = {"without": [], "with": []}
    rows, found, near = [], np.zeros(4, dtype=int), 0
    for pair in zip(cubic, np.roll(cubic, 1) if second_is_cubic else others, strict=False):
        member = np.flatnonzero(np.isin(seen.crystal, pair))
        part = seen.take(member)
        phases = phases_in(part)
        found[len(phases)] += 1
        true = part.a[part.system == CUBIC]
        near += sum(bool((np.abs(phase.a / true - 1.0) < 0.02).any()) for phase in phases)
        rows.append(member)
        right["without"].append(part.share.argmax(axis=1) == part.system)
        right["with"].append(called(part, [phases] * len(member)) == part.system)
    every = np.concatenate(rows)
    result: dict[str, Any] = {"scans": len(rows), "scans_with_so_many_phases": found.tolist()}
    result["phases_within_2_percent"] = share(near, int(found @ np.arange(4)))
    for name, answers in right.items():
        hits = np.concatenate(answers)
        for kind, of in (("cubic", seen.system[every] == CUBIC), ("others", seen.system[every] != CUBIC)):
            result[f"{kind} right, {name}"] = by_material(hits, seen.crystal[every], of)
    return result


def by_material(yes: NDArray[np.bool_], crystal: NDArray[np.int64], of: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a share of patterns with its 95 % interval, by bootstrap over materials."""
    ids, owner = np.unique(crystal[of], return_inverse=True)
    if len(ids) == 0:
        return {"patterns": 0, "materials": 0}
    hits, count = np.bincount(owner, yes[of]), np.bincount(owner)
    drawn = np.random.default_rng(SEED).integers(len(ids), size=(1000, len(ids)))
    interval = np.percentile(hits[drawn].sum(axis=1) / count[drawn].sum(axis=1), [2.5, 97.5])
    return {
        "share": float(hits.sum() / count.sum()), "interval": interval.tolist(),
        "patterns": int(count.sum()), "materials": len(ids),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    _, provenance = load_model(packaged_model())
    ids = run.catalogue.table["material_id"]
    trained = ids.isin(provenance["training_materials"]).to_numpy()
    calibrating = np.array([calibrates(name, provenance["training"]) for name in ids])
    content: dict[str, Any] = {"command": command(), **describe()}
    content["orientations"] = run.plan.orientations.count
    for part, crystals in (
        ("calibration", np.flatnonzero(trained & calibrating)),
        ("unseen", np.flatnonzero(~trained)),
    ):
        seen = seen_by_model(run, crystals)
        phases = phases_of(seen)
        section: dict[str, Any] = {"materials": len(crystals), "phases": found(seen, phases)}
        if part == "calibration":
            section["fit"] = fit(seen, phases)
        section["known_phase"] = with_a_known_phase(seen, phases)
        section["each_a_scan"] = each_a_scan(seen, phases)
        section["cubic_and_another_system"] = two_materials(seen, second_is_cubic=False)
        section["two_cubic_materials"] = two_materials(seen, second_is_cubic=True)
        content[part] = section
    write_json(RESULT, content)
    print(json.dumps(content, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
