"""What a model says of where it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn

from diffractory.errors import ModelError
from diffractory.learning.card import card_of
from diffractory.learning.provenance import check_features, library_versions, told, training_runs
from diffractory.specs import InvariantSpec, RadialBasisSpec, SimulationSpec

FEATURES = RadialBasisSpec(n_rings=2, n_orders=2)
INVARIANT = InvariantSpec(n_rings=2, n_orders=1)
PROVENANCE = {
    "features": FEATURES.model_dump(mode="json"),
    "simulation": SimulationSpec().model_dump(mode="json"),
}


def test_same_settings_may_be_used():
    check_features(PROVENANCE, FEATURES)
    check_features(PROVENANCE, FEATURES, SimulationSpec(thicknesses=(100.0, 300.0)))


def test_a_setting_that_was_not_there_when_the_model_was_trained_has_its_default():
    without = INVARIANT.model_dump(mode="json")
    assert without.pop("s_max") == 0.03
    check_features({"features": without}, INVARIANT)
    with pytest.raises(ModelError, match=r"s_max = 0.03 in the model, 0.02 here"):
        check_features({"features": without}, INVARIANT.model_copy(update={"s_max": 0.02}))


def test_other_settings_are_refused_by_name_and_value():
    with pytest.raises(ModelError, match=r"ring_width = 0.05 in the model, 0.1 here.*Use the model's"):
        check_features(PROVENANCE, RadialBasisSpec(ring_width=0.1, n_rings=2, n_orders=2))
    with pytest.raises(ModelError, match="kind = radial-basis in the model, invariant here"):
        check_features(PROVENANCE, INVARIANT)
    other = SimulationSpec(energy_ev=200e3, thermal_sigma=0.1)
    with pytest.raises(ModelError, match=r"energy_ev = 300000.0 in the model, 200000.0 here; thermal_sigma"):
        check_features(PROVENANCE, FEATURES, other)


@pytest.mark.parametrize("change", [{"precession_deg": 1.0}, {"foil_tilt_deg": (20.0, 0.0)}])
def test_another_illumination_is_refused(change: dict):
    with pytest.raises(ModelError, match=rf"{next(iter(change))} = .* in the model, .* here"):
        check_features(PROVENANCE, FEATURES, SimulationSpec(**change))


def test_azimuths_matter_only_with_precession():
    check_features(PROVENANCE, FEATURES, SimulationSpec(precession_azimuths=36))
    rocked = SimulationSpec(precession_deg=1.0)
    trained = {**PROVENANCE, "simulation": rocked.model_dump(mode="json")}
    check_features(trained, FEATURES, rocked)
    with pytest.raises(ModelError, match="precession_azimuths = 72 in the model, 36 here"):
        check_features(trained, FEATURES, rocked.model_copy(update={"precession_azimuths": 36}))


def test_what_a_model_does_not_say_is_an_error_with_advice():
    assert told(PROVENANCE, "simulation", "energy_ev") == 300e3
    for provenance in ({}, {"simulation": "300 keV"}, {"simulation": {}}):
        with pytest.raises(ModelError, match=r"does not say with which simulation energy_ev.*Train it again"):
            told(provenance, "simulation", "energy_ev")


def test_a_model_that_does_not_say_is_refused():
    with pytest.raises(ModelError, match="does not say which features settings"):
        check_features({}, FEATURES)
    with pytest.raises(ModelError, match="does not say which simulation settings"):
        check_features({"features": PROVENANCE["features"]}, FEATURES, SimulationSpec())


EVEN, RANDOM = {"count": 3}, {"count": 4, "axes": "random"}


@pytest.mark.parametrize(
    ("provenance", "runs"),
    [
        ({"plan_id": "a", "orientations": EVEN}, [{"plan_id": "a", "orientations": EVEN}]),
        (
            {"plan_id": "a", "orientations": EVEN, "more_runs": [{"plan_id": "b", "orientations": RANDOM}]},
            [{"plan_id": "a", "orientations": EVEN}, {"plan_id": "b", "orientations": RANDOM}],
        ),
        # Models come from anywhere: what is no account of a run is left out.
        ({"orientations": [3], "more_runs": [5, None, {"plan_id": 7, "orientations": RANDOM}]},
         [{}, {"orientations": RANDOM}]),
        ({"more_runs": "many"}, [{}]),
        ({"more_runs": None}, [{}]),
    ],
)  # fmt: skip
def test_runs_of_a_training_are_those_that_the_model_tells_of(
    provenance: dict[str, Any], runs: list[dict[str, Any]]
) -> None:
    assert training_runs(provenance) == runs
    header = {"provenance": provenance, "spec": {}, "systems": ["cubic"], "n_features": 1}
    assert card_of(header).count("evenly spread") + card_of(header).count("at random") == len(runs)


def test_versions_are_those_of_what_is_installed():
    versions = library_versions("lightgbm")
    assert versions["numpy"] == np.__version__
    assert versions["scikit-learn"] == sklearn.__version__
    assert set(versions) - set(library_versions()) == {"lightgbm"}
    assert {"joblib", "dask", "zarr"} < set(versions)
    header = {"provenance": {"versions": versions}, "spec": {}, "systems": ["cubic"], "n_features": 1}
    assert f"numpy {np.__version__}, scikit-learn {sklearn.__version__}" in card_of(header)


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {
            "simulation": "300 keV",
            "features": [],
            "versions": 3,
            "training_materials": 7,
            "evaluations": "good",
        },
    ],
)
def test_a_card_is_made_of_whatever_a_model_says(provenance: dict[str, Any]) -> None:
    card = card_of({"provenance": provenance, "spec": {}, "systems": ["cubic"], "n_features": 1})
    assert "| beam energy | unknown eV |" in card
    assert "materials not listed in model.json" in card
    assert "not evaluated yet: `diffractory evaluate MODEL RUN --record`" in card
