import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffractory.errors import ModelError
from diffractory.learning import saved_model as saved_model_module
from diffractory.learning.artefact import save_model
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.saved_model import SavedModel
from diffractory.specs import ForestSpec

RNG = np.random.default_rng(2)
X = RNG.random((60, 5)).astype(np.float32)


def _fitted(seed: int) -> SymmetryHierarchy:
    code, group = np.array([3, 6])[np.arange(60) % 2], np.array([123, 225])[np.arange(60) % 2]
    spec = ForestSpec(system_trees=3, group_trees=3, lattice_trees=3, seed=seed)
    return SymmetryHierarchy(spec).fit(X, Targets.from_labels(code, group, 3.0 + RNG.random((60, 3))))


FIRST, SECOND = _fitted(0), _fitted(1)


def _same(a: object, b: object, *names: str) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(FIRST, tmp_path / "my model", {"note": "first"})
    return tmp_path / "my model"


def test_it_answers_like_the_model_that_was_saved(folder: Path):
    saved = SavedModel(folder)
    assert _same(saved.vote_systems(X), FIRST.vote_systems(X), "share", "system", "confidence", "difference")
    system = np.array([3, 6, -1])[np.arange(60) % 3]
    assert _same(saved.predict_within(X, system), FIRST.predict_within(X, system), "space_group", "lattice")
    for found, expected in zip(saved.locate(3.0 * X), FIRST.locate(3.0 * X), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(saved.domain_sample, FIRST.domain_.sample)
    assert saved.systems_.tolist() == [3, 6]
    assert saved.systems_.dtype == np.int64
    assert saved.provenance == {"note": "first"}


def test_it_is_small_to_send_and_knows_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    saved = SavedModel(Path("my model"))
    assert saved.path == folder
    saved.vote_systems(X)
    sent = pickle.dumps(saved)
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    there = pickle.loads(sent)
    assert there == saved
    assert _same(there.vote_systems(X), FIRST.vote_systems(X), "share")


def test_it_is_loaded_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    loads: list[Path] = []
    load = saved_model_module.load_model

    def counted(path: Path) -> object:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(saved_model_module, "load_model", counted)
    for _ in range(3):
        SavedModel(folder).vote_systems(X)
    assert loads == [folder]


def test_a_model_trained_anew_at_the_same_path_is_the_one_that_answers(folder: Path):
    saved = SavedModel(folder)
    assert saved.provenance == {"note": "first"}
    save_model(SECOND, folder, {"note": "second"})
    assert saved.provenance == {"note": "second"}
    assert _same(saved.vote_systems(X), SECOND.vote_systems(X), "share", "confidence")


def test_a_model_that_is_not_there_or_damaged_is_named(folder: Path):
    saved = SavedModel(folder)
    saved.vote_systems(X)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="is not a model"):
        saved.vote_systems(X)
    save_model(FIRST, folder, {})
    (folder / "trees.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="damaged"):
        SavedModel(folder).predict_within(X, np.full(60, 3))


def test_a_model_that_does_not_say_its_features_is_an_error_with_advice(folder: Path):
    with pytest.raises(ModelError, match="does not say with which features kind it was trained"):
        _ = SavedModel(folder).features
