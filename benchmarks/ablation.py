"""Which features and which learner earn their place in the robust preset, on validation materials.

Trained on seven orientations a material of a part of the training materials and tried on the materials
that are set aside for calibration; the test materials are not looked at. Results in
results/ablation.json, kept line by line: what is there of the same patterns is not trained again::

    diffractory features RUN --preset robust
    python benchmarks/ablation.py RUN

With ``--folds 5``, what did not stay is compared once more, by cross-validation over all materials but
those of the test: each material is tried once, so that small differences show.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from machine import command, describe, write_json
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from diffractory.dataset.protocol_patterns import protocol_patterns
from diffractory.dataset.run import Run
from diffractory.learning.accuracies import SystemAccuracies
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.system_hierarchy import SystemVotes
from diffractory.learning.training import (
    Subset,
    TrainingSet,
    feature_sets_of,
    requested_features,
    training_set,
)
from diffractory.patterns.feature_sets import names_of_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import radial_basis
from diffractory.settings import usable_cores
from diffractory.specs import BoostingSpec, RadialBasisSpec

RESULT = Path(__file__).parent / "results" / "ablation.json"
ORIENTATIONS = 7
#: Longest distance between spots, and bins, of the pair distances that were tried.
LONGEST, BINS = 1.0, 100


def groups_of(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the columns of each group of features."""
    prefixes = np.array([name.partition("_")[0] for name in names])
    kinds = np.where(np.isin(prefixes, ["profile", "magnitude", "plane"]), prefixes, "lattice")
    # The plane that most spots lie in is all that a lattice in two dimensions tells.
    kinds[np.array(names) == "in_plane"] = "plane"
    return {kind: np.flatnonzero(kinds == kind) for kind in ("plane", "lattice", "profile", "magnitude")}


def extra_features(table: PeakTable) -> np.ndarray:
    """Return what was tried and did not stay: relative phases, and distances between pairs of spots."""
    basis = RadialBasisSpec(ring_width=0.1, n_rings=21, n_orders=9)
    size = basis.n_rings * basis.n_orders
    features = radial_basis(table, basis)
    shape = (len(table), basis.n_rings, basis.n_orders)
    magnitude, angle = features[:, :size].reshape(shape), features[:, size:].reshape(shape)
    even = np.arange(2, basis.n_orders, 2)
    # A turn adds m × angle to the argument of order m: differences between rings do not change.
    relative = angle[:, 1:, even] - angle[:, :-1, even]
    weight = np.sqrt(magnitude[:, 1:, even] * magnitude[:, :-1, even])
    phases = np.concatenate([weight * np.cos(relative), weight * np.sin(relative)], axis=2)
    pairs = np.zeros((len(table), BINS), dtype=np.float32)
    for index in range(len(table)):
        q, intensity = table.pattern(index)
        bright = np.argsort(-intensity)[:60]
        apart = np.linalg.norm(q[bright, None] - q[None, bright], axis=2)[np.triu_indices(len(bright), 1)]
        pairs[index] = np.histogram(apart, BINS, (0.0, LONGEST))[0]
    return np.concatenate([phases.reshape(len(table), -1), pairs], axis=1).astype(np.float32)


def extras_of(run: Run, spec: BoostingSpec, index: int, wanted: np.ndarray) -> dict[int, np.ndarray]:
    """Return the extra features of one partition by item and kind of pattern."""
    partition = run.plan.partitions[index]
    items = np.arange(partition.first, partition.stop)
    rows = np.flatnonzero(np.isin(items, wanted))
    if not len(rows):
        return {}
    found = {}
    for number, kind in enumerate(requested_features(run, spec)):
        patterns = protocol_patterns(run, index, kind.thickness, kind.lab, kind.seed, rows)
        found |= dict(zip((2 * items[rows] + number).tolist(), extra_features(patterns.peaks), strict=True))
    return found


def learners(cores: int) -> dict[str, Any]:
    """Return an untrained model of each kind."""
    return {
        "boosting": BoostedClassifier(150, n_jobs=cores),
        "forest": RandomForestClassifier(80, n_jobs=cores, random_state=0),
        "extra trees": ExtraTreesClassifier(80, n_jobs=cores, random_state=0),
    }


READ = ["plane", "lattice"]
ALL = [*READ, "profile", "magnitude"]
TRIES: list[tuple[list[str], str]] = [
    ([*READ, "profile"], "boosting"),
    (ALL, "boosting"),
    (["magnitude"], "boosting"),
    (["profile"], "boosting"),
    (["plane"], "boosting"),
    (READ, "boosting"),
    (ALL, "forest"),
    (ALL, "extra trees"),
    (["magnitude", "profile"], "boosting"),
    (["magnitude", "profile", "phases"], "boosting"),
    (["magnitude", "profile", "pairs"], "boosting"),
    (["plane", "profile"], "boosting"),
    ([*ALL, "phases", "pairs"], "boosting"),
]


def columns_of(run: Run, spec: BoostingSpec, training: TrainingSet, cores: int) -> dict[str, np.ndarray]:
    """Return the features of every group, those that did not stay too, of the rows of training."""
    X, crystals = np.asarray(training.features), training.crystals
    items = crystals * run.plan.orientations.count + training.orientations
    keys = 2 * items + np.arange(len(crystals)) % 2
    parts = joblib.Parallel(cores)(
        joblib.delayed(extras_of)(run, spec, index, np.unique(items))
        for index in range(len(run.plan.partitions))
    )
    extras: dict[int, np.ndarray] = {key: row for part in parts for key, row in part.items()}
    extra = np.stack([extras[key] for key in keys.tolist()])
    names = names_of_features(feature_sets_of(run, spec)[0][0].features)
    columns = {name: X[:, chosen] for name, chosen in groups_of(names).items()}
    return columns | {"phases": extra[:, :-BINS], "pairs": extra[:, -BINS:]}


def tried(
    columns: dict[str, np.ndarray], names: list[str], learner: str, training: TrainingSet, cores: int
) -> dict[str, Any]:
    """Train one model, and try it on the materials set aside, noise-free and rough."""
    features = np.concatenate([columns[name] for name in names], axis=1)
    systems, held, kinds = training.targets.system, training.calibration, np.arange(len(features)) % 2
    started = time.perf_counter()
    model = learners(cores)[learner].fit(features[~held], systems[~held])
    line: dict[str, Any] = {"features": names, "n_features": features.shape[1], "learner": learner}
    line["seconds"] = round(time.perf_counter() - started, 1)
    for number, protocol in enumerate(("turned", "rough")):
        asked = held & (kinds == number)
        votes = SystemVotes.from_share(model.predict_proba(features[asked]), model.classes_)
        accuracies = SystemAccuracies(model, votes, systems[asked], training.crystals[asked], 1000, 0)
        found = accuracies.by_difference()
        line[protocol] = {key: found[key] for key in ("1", "3")}
    return line


#: What is compared by cross-validation; the first is what the others are compared with.
COMPARED = [ALL, [*ALL, "phases"], [*ALL, "pairs"], [*ALL, "phases", "pairs"]]


def right_of_fold(
    columns: dict[str, np.ndarray], names: list[str], training: TrainingSet, held: np.ndarray, cores: int
) -> np.ndarray:
    """Train boosting without some rows, and return whether it is right about each of them."""
    features = np.concatenate([columns[name] for name in names], axis=1)
    systems = training.targets.system
    model = learners(cores)["boosting"].fit(features[~held], systems[~held])
    right: np.ndarray = model.predict(features[held]) == systems[held]
    return right


def compared(right: np.ndarray, reference: np.ndarray, crystals: np.ndarray) -> dict[str, Any]:
    """Return the share of right answers, and by how much it exceeds the reference's, resampling materials."""
    names, material = np.unique(crystals, return_inverse=True)
    gained = np.bincount(material, weights=right.astype(float) - reference)
    counts = np.bincount(material).astype(float)
    drawn = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    differences = gained[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return {
        "n": len(right),
        "n_materials": len(names),
        "accuracy": float(right.mean()),
        "difference": float(gained.sum() / counts.sum()),
        "interval_of_difference": np.percentile(differences, [2.5, 97.5]).tolist(),
    }


def cross_validation(
    columns: dict[str, np.ndarray], training: TrainingSet, folds: int, cores: int
) -> list[dict[str, Any]]:
    """Compare sets of features on every material, each by a model that has not seen it."""
    materials = np.unique(training.crystals)
    fold_of = dict(zip(materials, np.random.default_rng(0).permutation(len(materials)) % folds, strict=True))
    fold = np.array([fold_of[crystal] for crystal in training.crystals])
    kinds = np.arange(len(fold)) % 2
    right = np.zeros((len(COMPARED), len(fold)), dtype=bool)
    for index, names in enumerate(COMPARED):
        for number in range(folds):
            held = fold == number
            right[index, held] = right_of_fold(columns, names, training, held, cores)
            print(names, f"fold {number + 1}", f"{right[index, held].mean():.4f}", flush=True)
    return [
        {
            "features": names,
            "n_features": sum(columns[name].shape[1] for name in names),
            **{
                protocol: compared(right[index, chosen], right[0, chosen], training.crystals[chosen])
                for protocol, chosen in (("turned", kinds == 0), ("rough", kinds == 1))
            },
        }
        for index, names in enumerate(COMPARED)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="share of the training materials")
    parser.add_argument("--folds", type=int, help="compare by cross-validation over so many folds instead")
    arguments = parser.parse_args()
    run, spec, cores = Run.open(arguments.run), BoostingSpec(), usable_cores()
    known: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with training_set(
        run, spec, feature_sets_of(run, spec), Subset(arguments.share, ORIENTATIONS)
    ) as training:
        held = training.calibration
        same = {
            "plan_id": run.plan.plan_id,
            "training": {"patterns": int((~held).sum()), "materials": _count(training.crystals[~held])},
            "validation": {"patterns": int(held.sum()), "materials": _count(training.crystals[held])},
        }
        lines = known["lines"] if all(known.get(key) == value for key, value in same.items()) else []
        if arguments.folds:
            columns = columns_of(run, spec, training, cores)
            lines = cross_validation(columns, training, arguments.folds, cores)
            content = {"plan_id": run.plan.plan_id, "folds": arguments.folds, "lines": lines}
            whole = {**known, "cross_validation": {**content, "command": command(), **describe()}}
            write_json(RESULT, whole)
            print(json.dumps(lines, indent=1))
            return
        done = [(line["features"], line["learner"]) for line in lines]
        columns = columns_of(run, spec, training, cores)
        for names, learner in TRIES:
            if (names, learner) in done:
                continue
            line = tried(columns, names, learner, training, cores)
            lines.append(line)
            print(names, learner, line["turned"]["1"]["accuracy"], line["rough"]["1"]["accuracy"], flush=True)
            content = {**same, "lines": lines, "command": command(), **describe()}
            write_json(RESULT, known | content)


def _count(crystals: np.ndarray) -> int:
    return len(np.unique(crystals))


if __name__ == "__main__":
    main()
