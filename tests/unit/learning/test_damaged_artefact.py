from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.errors import ModelError
from diffractory.learning.artefact import load_model, save_model
from diffractory.specs import InvariantSpec
from small_models import (
    BOOSTED,
    BOOSTED_PROVENANCE,
    FEATURES,
    INVARIANT,
    MODEL,
    PROVENANCE,
    change_arrays,
    change_header,
    saved,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(MODEL, tmp_path / "model")


@pytest.fixture
def boosted_folder(tmp_path: Path) -> Path:
    return saved(BOOSTED, tmp_path / "boosted")


def npy_bytes() -> bytes:
    """A whole file of one array: readable, but no archive of named ones."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


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
