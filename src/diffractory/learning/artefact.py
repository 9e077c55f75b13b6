"""Saved models: a folder with ``model.json`` and ``trees.npz``, read back without running code.

Whoever loads a model may not know who made it. So nothing is unpickled, the arrays must match
the checksum in ``model.json``, and every index in them is checked before compiled code follows it.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import AccessError, DiffractoryError, ModelError
from diffractory.learning.calibration import Calibration
from diffractory.learning.card import card_of
from diffractory.learning.domain import TrainingDomain
from diffractory.learning.evaluation_record import EvaluationRecord, with_evaluation
from diffractory.learning.provenance import check_provenance
from diffractory.learning.system_hierarchy import SystemHierarchy, TrainingSummary
from diffractory.learning.trained_hierarchies import TrainedBoosting, TrainedForests
from diffractory.learning.trained_trees import (
    TrainedBoostedClassifier,
    TrainedBoostedRegressor,
    TrainedMedianForest,
    TrainedVoteForest,
)
from diffractory.learning.trees import TreeArrays
from diffractory.patterns.feature_sets import number_of_features
from diffractory.specs import (
    BoostingSpec,
    ForestSpec,
    InvariantSpec,
)
from diffractory.storage import atomic_path, write_atomic

FORMAT_VERSION = 2
_HEADER, _ARRAYS, _CARD = "model.json", "trees.npz", "card.md"
#: What numpy and zipfile raise on files that are no archive of arrays.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    SyntaxError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def save_model(model: SystemHierarchy, path: Path, provenance: Mapping[str, Any]) -> None:
    """Save a trained hierarchy, replacing an older one at the same path at once or not at all.

    Parameters
    ----------
    model : SystemHierarchy
        Trained.
    path : Path
        Folder to write.
    provenance : mapping
        Plain JSON data on where the model comes from. ``features`` (a feature spec as JSON data)
        and ``simulation`` (a ``SimulationSpec``) are what
        :func:`~diffractory.learning.provenance.check_features` compares.

    Raises
    ------
    ModelError
        If the model is not trained, the path is a file, or the provenance is not JSON data or
        belongs to other features.
    """
    if not hasattr(model, "training_"):
        raise ModelError("this model is not trained", "there is nothing to save", "Call fit first")
    if path.exists() and not path.is_dir():
        raise ModelError(f"{path} is a file", "a model is a folder", "Choose another path")
    check_model_folder(path)
    check_provenance(provenance, model.n_features_in_)
    with atomic_path(path) as folder:
        folder.mkdir()
        np.savez_compressed(folder / _ARRAYS, **_arrays_of(model))
        header = _header_of(model, provenance) | {"arrays_sha256": _sha256_of_file(folder / _ARRAYS)}
        _write_header(folder, header)


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Write into a saved model how it fared: into its provenance and its card.

    Parameters
    ----------
    path : Path
        Folder of the model; its arrays stay as they are.
    record : EvaluationRecord
        Takes the place of an earlier one on the same run.

    Raises
    ------
    ModelError
        If the folder is no model, or a damaged one.
    AccessError
        If it cannot be written to.
    """
    # The whole model: nothing is recorded of one that is damaged.
    _, provenance = load_model(path)
    header = _read_header(path) | {"provenance": with_evaluation(provenance, record)}
    try:
        _write_header(path, header)
    except OSError as error:
        raise AccessError(
            f"the evaluation cannot be recorded in {path} ({error.strerror or error})",
            "it is written into the model's own folder",
            "Make the folder writable, copy the model to where you may write, or leave --record out",
        ) from None


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    write_atomic(folder / _CARD, card_of(header))
    write_atomic(folder / _HEADER, json.dumps(header, indent=2, sort_keys=True, allow_nan=False))


def check_model_folder(path: Path) -> None:
    """Refuse a folder that a model must not take the place of: it is replaced whole.

    Raises
    ------
    ModelError
        If it holds anything but an older model.
    """
    fix = "Name a folder that is new, empty or an older model, such as models/first"
    if path.name in ("", ".."):
        raise ModelError(f"{path} names no folder of its own", fix=fix)
    kept = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in kept if name not in (_HEADER, _ARRAYS, _CARD)]
    if foreign:
        raise ModelError(f"{path} holds {foreign[0]}", "the model would replace the whole folder", fix)


def load_model(path: Path) -> tuple[SystemHierarchy, dict[str, Any]]:
    """Load a saved hierarchy and its provenance, as what answers: to train on, fit a new one with its spec.

    Parameters
    ----------
    path : Path
        Folder written by :func:`save_model`.

    Returns
    -------
    model : TrainedForests or TrainedBoosting
    provenance : dict

    Raises
    ------
    ModelError
        If the folder is no model, is of another format version, or is damaged.

    Examples
    --------
    >>> from diffractory.crystals.systems import CRYSTAL_SYSTEMS
    >>> from diffractory.learning.artefact import load_model
    >>> from diffractory.learning.saved_model import packaged_model
    >>> model, provenance = load_model(packaged_model())
    >>> [CRYSTAL_SYSTEMS[code] for code in model.systems_][-1], provenance["features"]["kind"]
    ('cubic', 'invariant')
    """
    header = _read_header(path)
    arrays = _read_arrays(path, header.get("arrays_sha256"))
    try:
        model, provenance = _build(header, arrays), header["provenance"]
        check_provenance(provenance, model.n_features_in_)
    except DiffractoryError as error:
        raise _damaged(path, error.what) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    return model, provenance


def _arrays_of(model: SystemHierarchy) -> dict[str, NDArray[Any]]:
    parts = {name: member.trees_.to_arrays() for name, member in model.members_.items()}
    parts["domain"] = model.domain_.to_arrays()
    return {f"{name}.{part}": array for name, arrays in parts.items() for part, array in arrays.items()}


def _header_of(model: SystemHierarchy, provenance: Mapping[str, Any]) -> dict[str, Any]:
    models = model.members_
    header = {
        "format_version": FORMAT_VERSION,
        "spec": model.spec.model_dump(mode="json"),
        "n_features": model.n_features_in_,
        "systems": [CRYSTAL_SYSTEMS[code] for code in model.systems_],
        "group_classes": {
            CRYSTAL_SYSTEMS[int(name.partition("-")[2])]: member.classes_.tolist()
            for name, member in models.items()
            if name.startswith("group-")
        },
        "skipped": model.skipped_,
        "training": {CRYSTAL_SYSTEMS[code]: asdict(summary) for code, summary in model.training_.items()},
        "provenance": dict(provenance),
    }
    if isinstance(model, TrainedBoosting):
        header |= {
            "features": model.features.model_dump(mode="json"),
            "prior": model.prior_.tolist(),
            "calibration": asdict(model.calibration_),
        }
    return header


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads((path / _HEADER).read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(
            f"{path} is not a model",
            f"it holds no readable {_HEADER}",
            "Give the folder that 'diffractory train' wrote",
        ) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{_HEADER} is not valid JSON: {error}") from None
    if not isinstance(header, dict) or "format_version" not in header:
        raise _damaged(path, f"{_HEADER} holds no format version")
    if header["format_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{path} has model format {header['format_version']!r}",
            f"this version of diffractory reads format {FORMAT_VERSION}",
            "Train the model again, or use the version of diffractory that wrote it",
        )
    return header


def _read_arrays(path: Path, sha256: Any) -> dict[str, NDArray[Any]]:
    try:
        if _sha256_of_file(path / _ARRAYS) != sha256:
            raise ValueError("it does not match its checksum")
        with (path / _ARRAYS).open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is no archive of arrays")
            return {name: stored[name] for name in stored.files}
    except _UNREADABLE as error:
        raise _damaged(path, f"{_ARRAYS} cannot be read: {error}") from None


def _build(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SystemHierarchy:
    codes = [CRYSTAL_SYSTEMS.index(name) for name in header["systems"]]
    if len(codes) < 2 or codes != sorted(set(codes)):
        raise ValueError(f"crystal systems {header['systems']}")
    classes = {
        CRYSTAL_SYSTEMS.index(name): _group_classes(numbers)
        for name, numbers in header["group_classes"].items()
    }
    if not set(classes) <= set(codes):
        raise ValueError(f"space groups of crystal systems that are not learned: {sorted(classes)}")
    known = {"system", "domain"} | {f"{role}-{code}" for role in ("group", "lattice") for code in classes}
    if {name.partition(".")[0] for name in arrays} != known:
        raise ValueError(f"{_ARRAYS} does not hold the models {sorted(known)}")
    model = _boosting(header) if header["spec"].get("kind") == "boosting" else _forests(header)
    model.n_features_in_ = _whole(header["n_features"], 1)
    model.systems_ = np.array(codes, dtype=np.int8)
    model.skipped_ = {str(name): str(reason) for name, reason in header["skipped"].items()}
    model.training_ = {code: _training_summary(header["training"][CRYSTAL_SYSTEMS[code]]) for code in codes}
    model.domain_ = TrainingDomain.from_arrays(_parts_of(arrays, "domain"), model.n_features_in_)
    if isinstance(model, TrainedBoosting):
        _add_boosted(model, classes, arrays)
    else:
        _add_forests(model, classes, arrays)
    return model


def _forests(header: Mapping[str, Any]) -> TrainedForests:
    model = TrainedForests()
    model.spec = ForestSpec(**header["spec"])
    return model


def _boosting(header: Mapping[str, Any]) -> TrainedBoosting:
    model, n_systems = TrainedBoosting(), len(header["systems"])
    model.spec, model.features = BoostingSpec(**header["spec"]), InvariantSpec(**header["features"])
    same = header["features"] == header["provenance"].get("features", header["features"])
    if number_of_features(model.features) != header["n_features"] or not same:
        raise ValueError(f"{header['n_features']} features of {header['features']}")
    prior = np.array(header["prior"], dtype=np.float64)
    if prior.shape != (n_systems,) or not np.all(prior > 0.0) or abs(prior.sum() - 1.0) > 1e-6:
        raise ValueError(f"shares of crystal systems {header['prior']}")
    model.prior_ = prior
    calibration = header["calibration"]
    if set(calibration) != {"temperature", "dependence"}:
        raise ValueError(f"a calibration of {sorted(calibration)}")
    model.calibration_ = Calibration(**{name: _number(value) for name, value in calibration.items()})
    return model


def _add_boosted(
    model: TrainedBoosting, groups: Mapping[int, NDArray[Any]], arrays: Mapping[str, NDArray[Any]]
) -> None:
    n_features = model.n_features_in_

    def classifier(name: str, classes: NDArray[Any]) -> TrainedBoostedClassifier:
        part = TrainedBoostedClassifier()
        part.trees_ = _trees(arrays, name, "leaf_value", n_features, 1)
        part.classes_, part.n_features_in_ = classes, n_features
        return part

    model.system_model_ = classifier("system", model.systems_)
    model.group_models_, model.lattice_models_ = {}, {}
    for code, classes in groups.items():
        model.group_models_[code] = classifier(f"group-{code}", classes)
        lattice = TrainedBoostedRegressor()
        lattice.trees_ = _trees(arrays, f"lattice-{code}", "leaf_value", n_features, 1)
        lattice.n_outputs_, lattice.n_features_in_ = 3, n_features
        model.lattice_models_[code] = lattice


def _add_forests(
    model: TrainedForests, groups: Mapping[int, NDArray[Any]], arrays: Mapping[str, NDArray[Any]]
) -> None:
    n_features = model.n_features_in_

    def classifier(name: str, classes: NDArray[Any]) -> TrainedVoteForest:
        forest = TrainedVoteForest()
        forest.trees_ = _trees(arrays, name, "leaf_class", n_features, len(classes))
        forest.classes_, forest.n_features_in_ = classes, n_features
        return forest

    model.system_forest_ = classifier("system", model.systems_)
    model.group_forests_, model.lattice_forests_ = {}, {}
    for code, classes in groups.items():
        model.group_forests_[code] = classifier(f"group-{code}", classes)
        lattice = TrainedMedianForest()
        lattice.trees_ = _trees(arrays, f"lattice-{code}", "leaf_value", n_features, 3)
        lattice.n_outputs_, lattice.n_features_in_ = 3, n_features
        model.lattice_forests_[code] = lattice


def _parts_of(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}


def _trees(
    arrays: Mapping[str, NDArray[Any]], name: str, leaf: str, n_features: int, n_outputs: int
) -> TreeArrays:
    parts = _parts_of(arrays, name)
    if leaf not in parts:
        raise ValueError(f"forest {name!r} holds no {leaf}")
    return TreeArrays.from_arrays(parts, n_features, n_outputs)


def _group_classes(classes: Any) -> NDArray[np.int16]:
    numbers = [_whole(number, 1, 230) for number in classes]
    if not numbers or numbers != sorted(set(numbers)):
        raise ValueError(f"space-group classes {classes}")
    return np.array(numbers, dtype=np.int16)


def _training_summary(stored: Mapping[str, Any]) -> TrainingSummary:
    a, b, c = (_number(length) for length in stored["median_lattice"])
    if not (a > 0.0 and b > 0.0 and c > 0.0):
        raise ValueError(f"a lattice of {stored['median_lattice']}")
    return TrainingSummary(
        _whole(stored["n_patterns"], 1),
        _whole(stored["majority_group"], 1, 230),
        _whole(stored["n_majority"], 1),
        (a, b, c),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _whole(value: Any, low: int, high: int = 2**31 - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"the model {path} is damaged: {reason}", fix="Copy it again, or train it again")
