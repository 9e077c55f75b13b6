from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.errors import AccessError, ModelError
from diffractory.learning.artefact import load_model, record_evaluation, save_model
from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.calibration import Calibration
from diffractory.learning.evaluation_record import EvaluationRecord, recorded_evaluations
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.system_hierarchy import SystemHierarchy
from diffractory.learning.trained_hierarchies import TrainedBoosting, TrainedForests
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(MODEL, tmp_path / "model", PROVENANCE)
    return tmp_path / "model"


@pytest.fixture
def boosted_folder(tmp_path: Path) -> Path:
    save_model(BOOSTED, tmp_path / "boosted", BOOSTED_PROVENANCE)
    return tmp_path / "boosted"


def change_header(folder: Path, **values: Any) -> None:
    header = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(header | values))


def change_arrays(folder: Path, change: dict[str, np.ndarray | None]) -> None:
    """Replace arrays and make the checksum right again, as somebody hostile would."""
    with np.load(folder / "trees.npz") as stored:
        arrays = dict(stored) | change
    np.savez(folder / "trees.npz", **{name: array for name, array in arrays.items() if array is not None})
    change_header(folder, arrays_sha256=hashlib.sha256((folder / "trees.npz").read_bytes()).hexdigest())


def assert_same_domain(model: SystemHierarchy, expected: SystemHierarchy, features: np.ndarray) -> None:
    """Assert that patterns lie at the same places among those of training, near ones and far ones."""
    both = np.concatenate([features, 9.0 * features])
    for found, wanted in zip(model.locate(both), expected.locate(both), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert 0.0 < model.locate(both)[0].mean() < 1.0
    np.testing.assert_array_equal(model.domain_.sample, expected.domain_.sample)


def npy_bytes() -> bytes:
    """A whole file of one array: readable, but no archive of named ones."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def test_a_loaded_model_answers_exactly_like_the_saved_one(folder: Path):
    model, provenance = load_model(folder)
    assert provenance == PROVENANCE
    for name in ("share", "system", "confidence", "difference"):
        np.testing.assert_array_equal(
            getattr(model.vote_systems(X), name), getattr(MODEL.vote_systems(X), name)
        )
    codes = np.array([-1, 3, 6])[np.arange(90) % 3]
    for name in ("space_group", "group_confidence", "group_difference", "lattice"):
        np.testing.assert_array_equal(
            getattr(model.predict_within(X, codes), name), getattr(MODEL.predict_within(X, codes), name)
        )
    assert_same_domain(model, MODEL, X)
    assert model.spec == MODEL.spec
    assert model.skipped_ == MODEL.skipped_
    assert model.training_ == MODEL.training_
    assert model.n_models_ == MODEL.n_models_ == 5
    assert model.systems_.dtype == MODEL.systems_.dtype


def test_saving_again_replaces_the_model_and_leaves_nothing_behind(folder: Path):
    save_model(fitted(seed=1), folder, {"note": "second"})
    model, provenance = load_model(folder)
    assert provenance == {"note": "second"}
    assert model.spec.seed == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_loaded_model_can_be_saved_again(folder: Path, tmp_path: Path):
    model, provenance = load_model(folder)
    save_model(model, tmp_path / "copy", provenance)
    assert (tmp_path / "copy" / "model.json").exists()
    np.testing.assert_array_equal(load_model(tmp_path / "copy")[0].predict(X), MODEL.predict(X))


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"when": object()}, "not plain JSON data"),
        ({"loss": float("nan")}, "not plain JSON data"),
        ({"features": RadialBasisSpec().model_dump()}, "takes 8 features, its feature settings give 1066"),
        ([1], "must be a mapping, got list"),
    ],
)
def test_provenance_that_cannot_be_true_is_refused(tmp_path: Path, provenance: Any, message: str):
    with pytest.raises(ModelError, match=message):
        save_model(MODEL, tmp_path / "model", provenance)
    assert not list(tmp_path.iterdir())


def test_untrained_models_and_files_in_the_way_are_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="not trained"):
        save_model(SymmetryHierarchy(), tmp_path / "model", {})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes.txt is a file.*Choose another path"):
        save_model(MODEL, tmp_path / "notes.txt", {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_model_at_all(tmp_path: Path):
    with pytest.raises(ModelError, match=r"is not a model.*diffractory train"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="is not a model"):
        load_model(tmp_path / "missing")


def test_another_format_version_is_refused(folder: Path):
    change_header(folder, format_version=99)
    with pytest.raises(ModelError, match=r"has model format 99.*reads format 2"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff\xfe", "[" * 100_000])
def test_a_damaged_header_is_refused(folder: Path, text: str):
    (folder / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_arrays_are_refused(folder: Path, keep: int):
    content = (folder / "trees.npz").read_bytes()
    (folder / "trees.npz").write_bytes(content[:keep])
    with pytest.raises(ModelError, match=r"trees.npz cannot be read: it does not match its checksum"):
        load_model(folder)
    (folder / "trees.npz").unlink()
    with pytest.raises(ModelError, match=r"is damaged: trees.npz cannot be read"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY", npy_bytes()])
def test_files_that_are_no_archive_are_refused_despite_a_right_checksum(folder: Path, content: bytes):
    (folder / "trees.npz").write_bytes(content)
    change_header(folder, arrays_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match=r"trees.npz cannot be read"):
        load_model(folder)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    trap = np.array([Trap()], dtype=object)
    with np.load(folder / "trees.npz") as stored:
        arrays = dict(stored)
    np.savez(folder / "trees.npz", **(arrays | {"system.left": trap}))
    change_header(folder, arrays_sha256=hashlib.sha256((folder / "trees.npz").read_bytes()).hexdigest())
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"systems": ["cubic"]},
        {"systems": ["cubic", "tetragonal"]},
        {"systems": ["tetragonal", "round"]},
        {"systems": 7},
        {"n_features": 3},
        {"n_features": "8"},
        {"n_features": True},
        {"spec": {"system_trees": -1}},
        {"spec": []},
        {"spec": {"kind": "boosting"}},
        {"spec": {"kind": "other"}},
        {"group_classes": {}},
        {"group_classes": {"tetragonal": [123], "cubic": []}},
        {"group_classes": {"tetragonal": [123], "cubic": [999]}},
        {"group_classes": {"tetragonal": [123], "trigonal": [166]}},
        {"group_classes": []},
        {"skipped": None},
        {"training": {}},
        {"training": {"tetragonal": {"median_lattice": [1, 2]}, "cubic": {}}},
        {"provenance": None},
        {"provenance": {"features": {"n_rings": "many"}}},
        {"provenance": {"features": {"kind": "other"}}},
        {"provenance": {"features": InvariantSpec().model_dump(mode="json")}},
        {"arrays_sha256": None},
    ],
)
def test_a_header_that_does_not_fit_is_refused(folder: Path, values: dict[str, Any]):
    change_header(folder, **values)
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)


def test_hostile_arrays_are_refused_despite_a_right_checksum(folder: Path):
    with np.load(folder / "trees.npz") as stored:
        left, feature = stored["system.left"].copy(), stored["group-6.feature"].copy()
    left[0] = 2**31 - 1
    change_arrays(folder, {"system.left": left})
    with pytest.raises(ModelError, match="is damaged: a node of a forest has children outside its tree"):
        load_model(folder)
    save_model(MODEL, folder, PROVENANCE)
    change_arrays(folder, {"lattice-3.leaf_value": np.zeros((feature.size, 1))})
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)
    save_model(MODEL, folder, PROVENANCE)
    change_arrays(folder, {"domain.scale": np.zeros(8)})
    with pytest.raises(ModelError, match=r"is damaged: the training domain .* a spread that is not positive"):
        load_model(folder)


@pytest.mark.parametrize("name", ["system.left", "lattice-3.leaf_value", "group-6.leaf_class", "domain.mean"])
def test_missing_arrays_are_refused(folder: Path, name: str):
    change_arrays(folder, {name: None})
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)


def test_unknown_arrays_are_refused(folder: Path):
    change_arrays(folder, {"lattice-1.left": np.zeros(3)})
    with pytest.raises(ModelError, match="does not hold the models"):
        load_model(folder)


@pytest.mark.parametrize("features", ["abc", {}, None])
def test_provenance_with_features_that_are_none_is_refused(features: Any, tmp_path: Path):
    with pytest.raises(ModelError, match="does not say with which features kind"):
        save_model(MODEL, tmp_path / "model", {"features": features})


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter-1.tex").write_text("precious")
    for model in (MODEL, BOOSTED):
        with pytest.raises(ModelError, match=r"holds chapter-1\.tex"):
            save_model(model, folder, {})
    assert (folder / "chapter-1.tex").read_text() == "precious"


def test_a_loaded_boosted_model_answers_exactly_like_the_saved_one(boosted_folder: Path):
    model, provenance = load_model(boosted_folder)
    assert isinstance(model, TrainedBoosting)
    assert provenance == BOOSTED_PROVENANCE
    votes, saved_votes = model.vote_systems(INVARIANT_X), BOOSTED.vote_systems(INVARIANT_X)
    for name in ("share", "system", "confidence", "difference"):
        np.testing.assert_array_equal(getattr(votes, name), getattr(saved_votes, name))
    groups = np.arange(180) // 7
    pooled, saved_pooled = model.pool_systems(votes, groups), BOOSTED.pool_systems(votes, groups)
    for name in ("groups", "label", "confidence"):
        np.testing.assert_array_equal(getattr(pooled, name), getattr(saved_pooled, name))
    codes = np.array([-1, 0, 3, 6])[np.arange(180) % 4]
    within, saved_within = (each.predict_within(INVARIANT_X, codes) for each in (model, BOOSTED))
    for name in ("space_group", "group_confidence", "group_difference", "lattice"):
        np.testing.assert_array_equal(getattr(within, name), getattr(saved_within, name))
    assert_same_domain(model, BOOSTED, INVARIANT_X)
    assert (model.spec, model.features) == (BOOSTED.spec, BOOSTED.features)
    assert model.calibration_ == BOOSTED.calibration_ != Calibration()
    np.testing.assert_array_equal(model.prior_, BOOSTED.prior_)
    assert model.skipped_ == BOOSTED.skipped_
    assert model.training_ == BOOSTED.training_
    assert model.n_models_ == BOOSTED.n_models_ == 7
    assert model.systems_.dtype == BOOSTED.systems_.dtype


def test_a_loaded_boosted_model_can_be_saved_again(boosted_folder: Path, tmp_path: Path):
    model, provenance = load_model(boosted_folder)
    save_model(model, tmp_path / "copy", provenance)
    again, provenance = load_model(tmp_path / "copy")
    assert provenance == BOOSTED_PROVENANCE
    np.testing.assert_array_equal(
        again.vote_systems(INVARIANT_X).share, BOOSTED.vote_systems(INVARIANT_X).share
    )


def test_one_kind_of_model_takes_the_place_of_the_other(boosted_folder: Path):
    save_model(MODEL, boosted_folder, PROVENANCE)
    assert isinstance(load_model(boosted_folder)[0], TrainedForests)
    save_model(BOOSTED, boosted_folder, BOOSTED_PROVENANCE)
    assert isinstance(load_model(boosted_folder)[0], TrainedBoosting)


@pytest.mark.parametrize(
    "values",
    [
        {"calibration": None},
        {"calibration": [1.0, 0.5]},
        {"calibration": {"temperature": 0.0, "dependence": 0.5}},
        {"calibration": {"temperature": 1e9, "dependence": 0.5}},
        {"calibration": {"temperature": float("nan"), "dependence": 0.5}},
        {"calibration": {"temperature": 1.0, "dependence": 1.5}},
        {"calibration": {"temperature": 1.0, "dependence": -0.1}},
        {"calibration": {"temperature": "warm", "dependence": 0.5}},
        {"calibration": {"temperature": 1.0, "dependence": 0.5, "more": 1.0}},
        {"prior": None},
        {"prior": 1.0},
        {"prior": []},
        {"prior": [0.5, 0.5]},
        {"prior": [0.5, 0.5, 0.5]},
        {"prior": [0.0, 0.5, 0.5]},
        {"prior": [-0.5, 0.5, 1.0]},
        {"prior": [float("nan"), 0.5, 0.5]},
        {"prior": ["a", "b", "c"]},
        {"prior": [[0.2, 0.3, 0.5]]},
        {"features": None},
        {"features": []},
        {"features": FEATURES.model_dump(mode="json")},
        {"features": InvariantSpec().model_dump(mode="json")},
        {"features": INVARIANT.model_dump(mode="json") | {"n_rings": 0}},
        {"features": INVARIANT.model_dump(mode="json") | {"colour": "red"}},
        {"provenance": PROVENANCE},
        {"n_features": 8},
        {"systems": ["triclinic", "tetragonal"]},
        {"spec": {"kind": "forests"}},
        {"spec": {"kind": "boosting", "system_rounds": 0}},
        {"spec": {"kind": "boosting", "system_trees": 5}},
    ],
)
def test_a_header_that_does_not_fit_a_boosted_model_is_refused(boosted_folder: Path, values: dict[str, Any]):
    change_header(boosted_folder, **values)
    with pytest.raises(ModelError, match="is damaged"):
        load_model(boosted_folder)


@pytest.mark.parametrize("name", ["calibration", "prior", "features"])
def test_a_boosted_model_without_all_of_its_header_is_refused(boosted_folder: Path, name: str):
    header = json.loads((boosted_folder / "model.json").read_text())
    del header[name]
    (boosted_folder / "model.json").write_text(json.dumps(header))
    with pytest.raises(ModelError, match=f"is damaged: KeyError: '{name}'"):
        load_model(boosted_folder)


@pytest.mark.parametrize("name", ["system.leaf_value", "group-0.left", "lattice-6.offsets", "domain.limits"])
def test_missing_arrays_of_a_boosted_model_are_refused(boosted_folder: Path, name: str):
    change_arrays(boosted_folder, {name: None})
    with pytest.raises(ModelError, match="is damaged"):
        load_model(boosted_folder)


def test_hostile_arrays_of_a_boosted_model_are_refused(boosted_folder: Path):
    with np.load(boosted_folder / "trees.npz") as stored:
        left, value = stored["system.left"].copy(), stored["group-6.leaf_value"].copy()
    left[0] = 2**31 - 1
    change_arrays(boosted_folder, {"system.left": left})
    with pytest.raises(ModelError, match="is damaged: a node of a forest has children outside its tree"):
        load_model(boosted_folder)
    save_model(BOOSTED, boosted_folder, BOOSTED_PROVENANCE)
    change_arrays(boosted_folder, {"group-6.leaf_value": np.column_stack([value, value])})
    with pytest.raises(ModelError, match="is damaged: the leaves hold 2 values, expected 1"):
        load_model(boosted_folder)


def test_an_untrained_boosted_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="not trained"):
        save_model(BoostedHierarchy(), tmp_path / "model", {})
    assert not list(tmp_path.iterdir())


def record(**changes: Any) -> EvaluationRecord:
    found = {
        "1": {"accuracy": 0.754, "interval": [0.745, 0.763], "calibration_error": 0.013},
        "10": {"accuracy": None, "interval": None, "calibration_error": None},
    }
    values = {
        "date": "2024-02-29",
        "diffractory": "0.4.0",
        "plan_id": "f" * 64,
        "axes": "random",
        "orientations": 14,
        "same_zone_axes_as_training": False,
        "materials": 4230,
        "patterns": 59220,
        "protocols": {"paper": found, "lab": found},
    }
    return EvaluationRecord.model_validate(values | changes)


def test_an_evaluation_is_recorded_in_provenance_and_card_and_the_model_stays(folder: Path):
    assert "not evaluated yet" in (folder / "card.md").read_text(encoding="utf-8")
    arrays = (folder / "trees.npz").read_bytes()
    record_evaluation(folder, record())
    model, provenance = load_model(folder)
    assert recorded_evaluations(provenance) == [record()]
    assert {name: provenance[name] for name in PROVENANCE} == PROVENANCE
    assert (folder / "trees.npz").read_bytes() == arrays
    np.testing.assert_array_equal(model.predict(X), MODEL.predict(X))
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "trees.npz"]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "not evaluated yet" not in card
    where = "4230 materials, zone axes 14 at random (plan ffffffffffff, 2024-02-29, diffractory 0.4.0)"
    for protocol in ("paper", "lab"):
        numbers = "75.4 % [74.5–76.3] | 0.013 | no such patterns | –"
        assert f"| {where} | {protocol} | {numbers} |" in card


def test_one_evaluation_a_run_is_kept(boosted_folder: Path):
    even = record(plan_id="e" * 64, axes="even", same_zone_axes_as_training=True)
    for each in (record(materials=3), even, record()):
        record_evaluation(boosted_folder, each)
    assert recorded_evaluations(load_model(boosted_folder)[1]) == [even, record()]
    card = (boosted_folder / "card.md").read_text(encoding="utf-8")
    assert "zone axes 14 evenly spread, as in training" in card
    assert "| 3 materials" not in card
    # Of a model that is trained anew nothing is known.
    save_model(BOOSTED, boosted_folder, BOOSTED_PROVENANCE)
    assert "not evaluated yet" in (boosted_folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stored", [None, "good", [3, None, {}, {"date": 7}]])
def test_what_is_no_account_of_an_evaluation_is_left_out(folder: Path, stored: Any):
    change_header(folder, provenance=PROVENANCE | {"evaluations": stored})
    assert recorded_evaluations(load_model(folder)[1]) == []
    record_evaluation(folder, record())
    assert recorded_evaluations(load_model(folder)[1]) == [record()]


def test_nothing_is_recorded_where_nothing_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("diffractory.learning.artefact.write_atomic", full)
    with pytest.raises(AccessError, match=r"cannot be recorded in .*Permission denied.*leave --record out"):
        record_evaluation(folder, record())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_recorded_of_a_damaged_model(folder: Path):
    (folder / "trees.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="is damaged"):
        record_evaluation(folder, record())
