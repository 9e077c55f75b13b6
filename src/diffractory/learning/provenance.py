"""What a model says of where it comes from, and whether that fits what it is asked."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from typing import Any

from diffractory.errors import ModelError
from diffractory.patterns.feature_sets import number_of_features
from diffractory.specs import FeatureSpec, SimulationSpec, canonical_json, feature_spec

#: Simulation settings that change what a pattern looks like; thicknesses may differ on purpose.
_COMPARED = (
    "energy_ev", "q_max", "s_max", "thermal_sigma", "form_factors", "foil_tilt_deg", "precession_deg",
)  # fmt: skip

#: Libraries whose versions go with every model: they train it, and make and read the features.
_LIBRARIES = ("numpy", "numba", "scikit-learn", "joblib", "dask", "dask-ml", "zarr")
#: What is told of each run, and of which kind it is.
_OF_RUNS = {"plan_id": str, "orientations": Mapping}


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of the libraries that a model is trained with.

    Parameters
    ----------
    *more : str
        Further distributions, such as ``"lightgbm"``.

    Returns
    -------
    dict of str to str
    """
    return {name: importlib.metadata.version(name) for name in sorted({*_LIBRARIES, *more})}


def check_features(
    provenance: Mapping[str, Any], features: FeatureSpec, simulation: SimulationSpec | None = None
) -> None:
    """Refuse to apply a model to patterns made with other settings than it was trained on.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`load_model`.
    features : RadialBasisSpec or InvariantSpec
        Features about to be computed.
    simulation : SimulationSpec, optional
        How the patterns were simulated; not given for measured patterns. Thicknesses are not
        compared.

    Raises
    ------
    ModelError
        If a setting differs, or the model does not say what it was trained with.
    """
    trained = provenance.get("features")
    if isinstance(trained, Mapping) and "kind" in trained:
        # Of settings that were not there yet a model says nothing: their defaults leave all as it was.
        trained = features_of(provenance).model_dump(mode="json")
    _compare(trained, "features", features.model_dump(mode="json"))
    if simulation is not None:
        settings = simulation.model_dump(mode="json")
        compared = {name: settings[name] for name in _COMPARED}
        if settings["precession_deg"]:
            compared["precession_azimuths"] = settings["precession_azimuths"]
        _compare(provenance.get("simulation"), "simulation", compared)


def told(provenance: Mapping[str, Any], *keys: str) -> Any:
    """Return what a model says of where it comes from, by the names of section and setting.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`load_model`.
    *keys : str
        Such as ``"simulation", "energy_ev"``.

    Returns
    -------
    object
        Plain JSON data.

    Raises
    ------
    ModelError
        If the model does not say it.
    """
    value: Any = provenance
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise ModelError(
                f"the model does not say with which {' '.join(keys)} it was trained",
                "it was saved without a part of its provenance",
                "Train it again with 'diffractory train'",
            )
        value = value[key]
    return value


def told_number(provenance: Mapping[str, Any], *keys: str) -> float:
    """Return what :func:`told` does, as a number above 0.

    Raises
    ------
    ModelError
        If the model does not say it, or it is no such number.
    """
    value = told(provenance, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise _useless(value, "is no number above 0", *keys)
    return float(value)


def training_materials(provenance: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the materials that a model was trained on.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`load_model`.

    Returns
    -------
    frozenset of str

    Raises
    ------
    ModelError
        If the model does not say it, or it is no list of names.
    """
    names = told(provenance, "training_materials")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _useless(names, "is no list of names", "training_materials")
    return frozenset(names)


def _useless(value: Any, reason: str, *keys: str) -> ModelError:
    return ModelError(
        f"the model says that it was trained with {' '.join(keys)} {str(value)[:40]!r}",
        f"that {reason}",
        "Copy the model again, or train it again with 'diffractory train'",
    )


def training_runs(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a model says of the runs it was trained on, as far as it says it.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`load_model`.

    Returns
    -------
    list of mapping
        Plan and zone axes (``plan_id``, ``orientations``) of each run, the first one first; either may be
        missing.
    """
    more = provenance.get("more_runs")
    told_of = [provenance, *(more if isinstance(more, list) else ())]
    runs = [run for run in told_of if isinstance(run, Mapping)]
    return [
        {name: run[name] for name, kind in _OF_RUNS.items() if isinstance(run.get(name), kind)}
        for run in runs
    ]


def features_of(provenance: Mapping[str, Any]) -> FeatureSpec:
    """Return the features that a model was trained on.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`load_model`.

    Returns
    -------
    RadialBasisSpec or InvariantSpec

    Raises
    ------
    ModelError
        If the model does not say it.
    SpecError
        If they are of a kind that this version does not know.
    """
    told(provenance, "features", "kind")
    return feature_spec(provenance["features"])


def _compare(trained: Any, section: str, wanted: Mapping[str, Any]) -> None:
    if not isinstance(trained, Mapping):
        raise ModelError(
            f"the model does not say which {section} settings it was trained with",
            "applied to others, its predictions would mean nothing",
            "Train it again with 'diffractory train'",
        )
    differing = [
        f"{name} = {trained.get(name)} in the model, {value} here"
        for name, value in wanted.items()
        if trained.get(name) != value
    ]
    if differing:
        raise ModelError(
            f"the model was trained with other {section} settings: {'; '.join(differing)}",
            "its predictions would mean nothing",
            "Use the model's settings, or train another model",
        )


def check_provenance(provenance: Any, n_features: int) -> None:
    """Refuse provenance that is no plain JSON data, or belongs to other features than the model's.

    Parameters
    ----------
    provenance : object
        To be saved with a model.
    n_features : int
        Of the model.

    Raises
    ------
    ModelError
        If it is not what it must be.
    """
    if not isinstance(provenance, Mapping):
        raise ModelError(f"the provenance must be a mapping, got {type(provenance).__name__}")
    try:
        canonical_json(dict(provenance))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the provenance is not plain JSON data ({error})") from None
    if "features" in provenance:
        expected = number_of_features(features_of(provenance))
        if expected != n_features:
            raise ModelError(f"the model takes {n_features} features, its feature settings give {expected}")
