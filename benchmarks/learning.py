"""What training and applying the models takes, learning curves, and both presets beside each other.

Each part writes its section of results/learning.json, so they can be run one at a time::

    python benchmarks/learning.py compare models/paper models/robust
    python benchmarks/learning.py beside models/robust models/ANOTHER …
    python benchmarks/learning.py validate RANDOM-AXES-RUN models/robust models/ANOTHER …
    python benchmarks/learning.py scan MAP MAP-WITH-CUBIC-ASSUMED
    python benchmarks/learning.py votes RUN models/paper
    python benchmarks/learning.py scaling RUN
    python benchmarks/learning.py curves RUN
    python benchmarks/learning.py cubic_curves RANDOM-AXES-RUN RUN

The features of both presets must be computed: `diffractory features RUN --thickness 200` and
`diffractory features RUN --preset robust`. What training took is kept if its answer lies beside the model:
`diffractory train RUN --out models/robust --json > models/robust-training.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from cubic_constant import CUBIC, calibrates
from cubic_curves import CUBIC_SUBSETS, CubicTest, cubic_fits, cubic_point
from evaluations import PROTOCOLS, axes_of, difference, in_short, of_protocols, read_evaluation, seconds_of
from machine import command, describe, write_json
from system_curves import PAPER_MATERIALS, PAPER_ORIENTATIONS, SUBSETS, TRICLINIC, system_fits, system_point

from diffractory.dataset.run import Run
from diffractory.learning.accuracies import SystemAccuracies
from diffractory.learning.artefact import load_model
from diffractory.learning.forests import VoteForestClassifier
from diffractory.learning.growing import training_memory
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.learning.provenance import features_of
from diffractory.learning.saved_model import packaged_model
from diffractory.learning.trained_hierarchies import TrainedBoosting, TrainedForests
from diffractory.learning.training import (
    Subset,
    feature_sets_of,
    requested_features,
    split_of,
    training_set,
)
from diffractory.settings import usable_cores
from diffractory.specs import BoostingSpec, FeatureSpec, ForestSpec, LabProtocolSpec, TrainingSpec

RESULT = Path(__file__).parent / "results" / "learning.json"
#: Positions with enough spots in the paper's scan of 256 × 256.
PATTERNS = 44_600


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect what the evaluations of both presets found; each lies at MODEL-evaluation.

    A preset that is not given stays as it was. Tests along other zone axes go to a section of their own.
    """
    earlier = _read().get(arguments.section, {})
    section = {preset: earlier[preset] for preset in ("paper", "robust") if preset in earlier}
    for preset in section:
        section[preset].setdefault("collected", {name: earlier[name] for name in ("command", *describe())})
    for model in arguments.models:
        header = json.loads((model / "model.json").read_text())
        provenance = header["provenance"]
        preset = "paper" if header["spec"]["kind"] == "forests" else "robust"
        section[preset] = {
            "training_patterns": provenance["training_patterns"],
            "training_materials": len(provenance["training_materials"]),
            "trained_along": axes_of(provenance),
            "tested_along": read_evaluation(model)["orientations"],
            "model_bytes": sum(path.stat().st_size for path in model.iterdir()),
            "calibration_materials": provenance.get("calibration_materials", 0),
            "training_seconds": seconds_of(model.parent / f"{model.name}-training.json"),
            **of_protocols(model),
            "collected": {"command": command(), **describe()},
        }
    if len(section) == 2:
        section["robust_minus_paper"] = {
            name: {number: difference(section, name, number) for number in ("1", "3", "10")}
            for name in PROTOCOLS
        }
    return section


def beside(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect what evaluations of robust models on other runs found, by the names of their folders.

    Those that are not given stay as they were.
    """
    earlier = _read().get(arguments.section, {})
    section = {name: each for name, each in earlier.items() if "training_materials" in each}
    for each in section.values():
        each.setdefault("collected", {name: earlier[name] for name in ("command", *describe())})
    for model in arguments.models:
        header, results = json.loads((model / "model.json").read_text()), read_evaluation(model)
        provenance = header["provenance"]
        section[model.name] = {
            "diffractory": provenance["diffractory"],
            "features": header["n_features"],
            "trained_along": axes_of(provenance),
            "tested_along": results["orientations"],
            "training_patterns": provenance["training_patterns"],
            "training_materials": len(provenance["training_materials"]),
            "training_seconds": seconds_of(model.parent / f"{model.name}-training.json"),
            **{
                name: in_short(results[name]) | {"conditions": results[name]["conditions"]}
                for name in PROTOCOLS
            },
            "collected": {"command": command(), **describe()},
        }
    return section


def validate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Try models on materials that they were only calibrated on, along the zone axes of a run; lab protocol.

    What is chosen here is not chosen on test materials; of calibration it tells nothing. Models that are
    not given stay as they were.
    """
    run = Run.open(arguments.run)
    tested_along = run.plan.orientations.model_dump(mode="json")
    section: dict[str, Any] = _read().get(arguments.section, {"tested_along": tested_along})
    assert section.get("tested_along") == tested_along, "another section holds tests along these axes"
    table = run.catalogue.table["material_id"]
    for path in arguments.models:
        model, provenance = load_model(path)
        trained_on = table.isin(provenance["training_materials"]).to_numpy()
        calibrated_on = np.array([calibrates(name, provenance["training"]) for name in table])
        crystals = np.flatnonzero(trained_on & calibrated_on)
        features = features_of(provenance)
        patterns = _collected(run, features, model.spec.thickness, crystals, LabProtocolSpec())
        owners = patterns.items // run.plan.orientations.count
        truth, votes = targets_of(run.catalogue, owners).system, model.vote_systems(patterns.features)
        found = SystemAccuracies(model, votes, truth, owners, 1000, 0).by_number()["system_by_number"]
        section[path.name] = {
            "trained_along": axes_of(provenance),
            "training_patterns": provenance["training_patterns"],
            "features": features.model_dump(mode="json"),
            **{
                number: {key: found[number][key] for key in ("n", "n_materials", "accuracy", "interval")}
                for number in ("1", "3", "10", "30")
            },
            "collected": {"command": command(), **describe()},
        }
    return section


def scan(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keep what `diffractory map` said of a real scan and its particles, by the names of the maps."""
    section = {}
    for path in arguments.maps:
        rules = [
            f"{what}_by_{rule}" for rule in ("evidence", "difference") for what in ("system", "confidence")
        ]
        particles = pd.read_csv(path / "particles.csv")[["particle", "n_positions", *rules]]
        summary = json.loads((path / "summary.json").read_text())
        section[path.name] = {**summary, "both_rules": particles.to_dict("records")}
    return section


def votes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the forests on as many patterns as the paper's scan has, on two cores."""
    run = Run.open(arguments.run)
    model, _ = load_model(arguments.model)
    held = np.flatnonzero(split_of(run, model.spec))
    patterns = _collected(run, *_features_and_thickness(run, model.spec), held, None)
    features = np.resize(patterns.features, (PATTERNS, patterns.features.shape[1]))
    blocks = np.array_split(features, 32)
    timed: dict[str, Any] = {"patterns": PATTERNS}
    systems = model.vote_systems(features[:100]).system
    model.predict_within(features[:100], systems)
    for workers in (1, min(2, usable_cores())):
        with joblib.parallel_config(backend="threading"):
            started = time.perf_counter()
            found = joblib.Parallel(workers)(joblib.delayed(model.vote_systems)(part) for part in blocks)
            voted = time.perf_counter()
            joblib.Parallel(workers)(
                joblib.delayed(model.predict_within)(part, each.system)
                for part, each in zip(blocks, found, strict=True)
            )
        within = time.perf_counter() - voted
        timed[f"{workers}_threads"] = {
            "system_seconds": round(voted - started, 2),
            "space_group_and_lattice_seconds": round(within, 2),
        }
    if isinstance(model, TrainedForests):
        timed["trees"] = {"system": model.system_forest_.trees_.n_trees}
    return timed


def scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Grow the same trees with one and with two worker processes; time and size as patterns grow."""
    from distributed import Client, LocalCluster

    run, spec = Run.open(arguments.run), ForestSpec()
    section: dict[str, Any] = {"trees": 16, "by_workers": {}, "by_patterns": []}
    sets = feature_sets_of(run, spec)
    with training_set(run, spec, sets, Subset(0.25)) as training:
        shape = training.features.shape
        section["patterns"], section["features"] = shape
        for workers in (1, 2, 1, 2):
            with (
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
                joblib.parallel_config(backend="dask", client=client),
            ):
                # Workers start, and import, before the clock does.
                joblib.Parallel(n_jobs=workers)(joblib.delayed(time.sleep)(1.0) for _ in range(workers))
                seconds, _ = _grow(training.features, training.targets.system, 16)
            section["by_workers"].setdefault(str(workers), []).append(round(seconds, 1))
        section["planned_bytes_two_workers"] = training_memory(*shape, 1, 2)
        best = {workers: min(times) for workers, times in section["by_workers"].items()}
        section["speed_up"] = round(best["1"] / best["2"], 2)
    for share in (0.0625, 0.125, 0.25):
        with training_set(run, spec, sets, Subset(share)) as training:
            seconds, forest = _grow(training.features, training.targets.system, 8)
            section["by_patterns"].append(
                {
                    "patterns": len(training.crystals),
                    "seconds_a_tree": round(seconds / 8, 2),
                    "nodes_a_tree": len(forest.trees_.left) // 8,
                }
            )
    return section


def _grow(features: np.ndarray, systems: np.ndarray, trees: int) -> tuple[float, VoteForestClassifier]:
    forest = VoteForestClassifier(trees, 40, n_jobs=-1, random_state=0)
    started = time.perf_counter()
    forest.fit(features, systems)
    return time.perf_counter() - started, forest


def curves(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the crystal-system models on parts of the training patterns; kept point by point.

    With further runs a point has so many orientations of each; tested along the axes of the first.
    """
    run, more = Run.open(arguments.run), [Run.open(path) for path in arguments.more]
    kept: dict[str, Any] = _read().get(arguments.section, {"points": []})
    kept["orientations"] = run.plan.orientations.model_dump(mode="json")
    further = [other.plan.orientations.model_dump(mode="json") for other in more]
    assert not kept["points"] or kept.get("more_orientations", []) == further, "a section of other runs"
    assert all(other.plan.catalogue_hash == run.plan.catalogue_hash for other in more), "other crystals"
    if more:
        kept["more_orientations"] = further
    specs: dict[str, TrainingSpec] = {"paper": ForestSpec(), "robust": BoostingSpec()}
    for spec in [specs[name] for name in arguments.preset or specs]:
        tests = {name: _test(run, spec, lab) for name, lab in (("paper", None), ("lab", LabProtocolSpec()))}
        for subset in SUBSETS:
            key = {"preset": _name(spec), "materials": subset.materials, "orientations": subset.orientations}
            if any(key.items() <= point.items() for point in kept["points"]):
                continue
            kept["points"].append(key | system_point(run, more, spec, subset, tests))
            kept["fits"] = system_fits(kept["points"])
            kept["extrapolated_to"] = {"materials": PAPER_MATERIALS, "orientations": PAPER_ORIENTATIONS}
            _write(arguments.section, kept)
    return kept


def _name(spec: TrainingSpec) -> str:
    return "paper" if isinstance(spec, ForestSpec) else "robust"


def _test(run: Run, spec: TrainingSpec, lab: LabProtocolSpec | None) -> ProtocolFeatures:
    systems = targets_of(run.catalogue, np.arange(run.plan.n_crystals)).system
    held = np.flatnonzero(split_of(run, spec) & (systems != TRICLINIC))
    return _collected(run, *_features_and_thickness(run, spec), held, lab)


def _features_and_thickness(run: Run, spec: TrainingSpec) -> tuple[FeatureSpec, float]:
    wanted = requested_features(run, spec)[0]
    return wanted.features, wanted.thickness


def _collected(
    run: Run, features: FeatureSpec, thickness: float, crystals: np.ndarray, lab: LabProtocolSpec | None
) -> ProtocolFeatures:
    protocol = Protocol(features, thickness, lab)
    parts = joblib.Parallel(usable_cores())(
        joblib.delayed(protocol_features)(run.path, crystals, protocol, index)
        for index in range(len(run.plan.partitions))
    )
    return ProtocolFeatures.concatenate(parts)


def cubic_curves(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the included model's lattice model of cubic crystals on parts of its training patterns.

    The runs are those that it was trained on. Tested on the cubic materials it never saw along the axes of
    the first one, lab protocol; kept point by point.
    """
    runs = [Run.open(path) for path in arguments.runs]
    model, provenance = load_model(packaged_model())
    assert isinstance(model, TrainedBoosting)
    axes = [run.plan.orientations.model_dump(mode="json") for run in runs]
    known = [{"axes": "even", **each} for each in axes_of(provenance)]
    assert [{"axes": "even", **each} for each in axes] == known, "not the runs of the included model"
    test = CubicTest.of_run(runs[0], model)
    kept: dict[str, Any] = _read().get(arguments.section, {"points": []})
    kept |= {
        "trained_along": axes,
        "tested_along": axes[0],
        "asked": "called_cubic: by the included model at every point; all_cubic: whatever they are called",
        "pixel_sizes_alone": test.floor(),
    }
    for subset in CUBIC_SUBSETS:
        key = {"materials": subset.materials, "orientations_of_each_run": subset.orientations}
        if any(key.items() <= point.items() for point in kept["points"]):
            continue
        kept["points"].append(key | cubic_point(runs, test, subset))
        _write(arguments.section, kept)
    # As large a part of the paper's materials is cubic as of those here.
    systems = targets_of(runs[0].catalogue, np.flatnonzero(~split_of(runs[0], model.spec))).system
    cubic = PAPER_MATERIALS * float(np.mean(systems[systems != TRICLINIC] == CUBIC))
    kept["fits"] = cubic_fits(kept["points"], cubic, PAPER_ORIENTATIONS)
    kept["extrapolated_to"] = {
        "materials": PAPER_MATERIALS,
        "cubic_materials": round(cubic),
        "orientations": PAPER_ORIENTATIONS,
    }
    return kept


def _read() -> dict[str, Any]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def _write(name: str, section: dict[str, Any]) -> None:
    content = {**section, "command": command(), **describe()}
    write_json(RESULT, _read() | {name: content})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part in ("compare", "beside"):
        collected = parts.add_parser(part)
        collected.add_argument("models", type=Path, nargs="+")
        collected.add_argument("--section", default=part, help="of results/learning.json")
    tried = parts.add_parser("validate")
    tried.add_argument("run", type=Path)
    tried.add_argument("models", type=Path, nargs="+")
    tried.add_argument("--section", default="validate", help="of results/learning.json, one for each run")
    parts.add_parser("scan").add_argument("maps", type=Path, nargs="+")
    timed = parts.add_parser("votes")
    timed.add_argument("run", type=Path)
    timed.add_argument("model", type=Path)
    parts.add_parser("scaling").add_argument("run", type=Path)
    drawn = parts.add_parser("curves")
    drawn.add_argument("run", type=Path)
    drawn.add_argument(
        "--more", type=Path, action="append", default=[], help="a run that is learned from too"
    )
    drawn.add_argument("--section", default="curves", help="of results/learning.json, one for each run")
    drawn.add_argument("--preset", action="append", choices=("paper", "robust"), help="both by default")
    cubic = parts.add_parser("cubic_curves")
    cubic.add_argument(
        "runs", type=Path, nargs="+", help="those of the included model; the first is tested along"
    )
    cubic.add_argument("--section", default="cubic_curves", help="of results/learning.json")
    arguments = parser.parse_args()
    section = getattr(arguments, "section", arguments.part)
    _write(section, globals()[arguments.part](arguments))
    print(json.dumps(_read()[section], indent=1))


if __name__ == "__main__":
    main()
