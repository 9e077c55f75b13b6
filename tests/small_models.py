"""A small model of each kind with what is saved beside it, and what damages a saved one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffractory.learning.artefact import save_model
from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.system_hierarchy import SystemHierarchy
from diffractory.patterns.feature_sets import number_of_features
from diffractory.specs import BoostingSpec, ForestSpec, InvariantSpec, RadialBasisSpec, SimulationSpec

FEATURES = RadialBasisSpec(n_rings=2, n_orders=2)
PROVENANCE = {
    "features": FEATURES.model_dump(mode="json"),
    "simulation": SimulationSpec().model_dump(mode="json"),
    "plan_id": "abc",
}
GENERATOR = np.random.default_rng(6)
X = GENERATOR.random((90, 8)).astype(np.float32)


def fitted(seed: int = 0) -> SymmetryHierarchy:
    code = np.array([0, 3, 6])[np.arange(90) % 3]
    group = np.array([2, 123, 225])[np.arange(90) % 3]
    spec = ForestSpec(system_trees=6, group_trees=5, lattice_trees=4, seed=seed)
    return SymmetryHierarchy(spec).fit(X, Targets.from_labels(code, group, 3.0 + GENERATOR.random((90, 3))))


MODEL = fitted()

INVARIANT = InvariantSpec(n_rings=2, n_orders=1)
BOOSTED_PROVENANCE = PROVENANCE | {"features": INVARIANT.model_dump(mode="json")}
INVARIANT_X = GENERATOR.random((180, number_of_features(INVARIANT))).astype(np.float32)
INVARIANT_X[:20] = 0.0  # no lattice was found in these


def boosted() -> BoostedHierarchy:
    """Train on 18 materials of three crystal systems, three of them for calibration only."""
    materials = np.arange(180) % 18
    which = materials % 3
    group = np.array([[1, 123, 221], [2, 127, 225]])[materials // 3 % 2, which]
    targets = Targets.from_labels(np.array([0, 3, 6])[which], group, 3.0 + GENERATOR.random((180, 3)))
    spec = BoostingSpec(
        system_rounds=4, group_rounds=3, lattice_rounds=2, system_leaves=5, group_leaves=4, seed=1
    )
    model = BoostedHierarchy(spec, INVARIANT, n_jobs=1)
    return model.fit(INVARIANT_X, targets, materials, materials >= 15)


BOOSTED = boosted()


def saved(model: SystemHierarchy, folder: Path) -> Path:
    """Save a model where it was asked for, with the provenance of its kind."""
    save_model(model, folder, BOOSTED_PROVENANCE if model is BOOSTED else PROVENANCE)
    return folder


def change_header(folder: Path, **values: Any) -> None:
    header = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(header | values))


def change_arrays(folder: Path, change: dict[str, np.ndarray | None]) -> None:
    """Replace arrays and make the checksum right again, as somebody hostile would."""
    with np.load(folder / "trees.npz") as stored:
        arrays = dict(stored) | change
    np.savez(folder / "trees.npz", **{name: array for name, array in arrays.items() if array is not None})
    change_header(folder, arrays_sha256=hashlib.sha256((folder / "trees.npz").read_bytes()).hexdigest())
