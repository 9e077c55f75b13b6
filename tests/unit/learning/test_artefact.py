from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.errors import ModelError
from diffractory.learning.artefact import load_model, save_model
from diffractory.learning.boosted_hierarchy import BoostedHierarchy
from diffractory.learning.calibration import Calibration
from diffractory.learning.hierarchy import SymmetryHierarchy
from diffractory.learning.system_hierarchy import SystemHierarchy
from diffractory.learning.trained_hierarchies import TrainedBoosting, TrainedForests
from diffractory.specs import RadialBasisSpec
from small_models import BOOSTED, BOOSTED_PROVENANCE, INVARIANT_X, MODEL, PROVENANCE, X, fitted, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(MODEL, tmp_path / "model")


@pytest.fixture
def boosted_folder(tmp_path: Path) -> Path:
    return saved(BOOSTED, tmp_path / "boosted")


def assert_same_domain(model: SystemHierarchy, expected: SystemHierarchy, features: np.ndarray) -> None:
    """Assert that patterns lie at the same places among those of training, near ones and far ones."""
    both = np.concatenate([features, 9.0 * features])
    for found, wanted in zip(model.locate(both), expected.locate(both), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert 0.0 < model.locate(both)[0].mean() < 1.0
    np.testing.assert_array_equal(model.domain_.sample, expected.domain_.sample)


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


def test_an_untrained_boosted_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="not trained"):
        save_model(BoostedHierarchy(), tmp_path / "model", {})
    assert not list(tmp_path.iterdir())
