import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diffractory.errors import SpecError
from diffractory.specs import (
    FORM_FACTOR_MODELS,
    BoostingSpec,
    FeatureSpec,
    ForestSpec,
    InvariantSpec,
    LabProtocolSpec,
    MapSpec,
    OrientationSpec,
    RadialBasisSpec,
    SimulationSpec,
    Spec,
    canonical_json,
    feature_spec,
    sha256_of,
)

SPECS = (
    SimulationSpec,
    OrientationSpec,
    RadialBasisSpec,
    InvariantSpec,
    LabProtocolSpec,
    ForestSpec,
    BoostingSpec,
    MapSpec,
)
#: The one value of a field that tells specs apart.
KINDS = {
    RadialBasisSpec: "radial-basis",
    InvariantSpec: "invariant",
    ForestSpec: "forests",
    BoostingSpec: "boosting",
}


def _positive(high: float) -> st.SearchStrategy[float]:
    return st.floats(0.0, high, exclude_min=True)


simulations = st.builds(
    SimulationSpec,
    energy_ev=st.floats(30e3, 1e6),
    q_max=_positive(6.0),
    s_max=_positive(1.0),
    thermal_sigma=st.floats(0.0, 1.0).map(abs),
    thicknesses=st.lists(_positive(1e5), min_size=1, unique=True).map(sorted),
    form_factors=st.sampled_from(FORM_FACTOR_MODELS),
    foil_tilt_deg=st.tuples(st.floats(-30.0, 30.0).map(float), st.floats(-30.0, 30.0)),
    precession_deg=st.floats(0.0, 5.0).map(abs),
    precession_azimuths=st.integers(1, 3600),
)
orientations = st.builds(
    OrientationSpec,
    count=st.integers(1, 100_000),
    in_plane=st.sampled_from(["paper", "random"]),
    seed=st.integers(0, 2**63 - 1),
    axes=st.sampled_from(["even", "random"]),
)
bases = st.builds(
    RadialBasisSpec, ring_width=_positive(1.0), n_rings=st.integers(1, 1000), n_orders=st.integers(1, 200)
)
invariants = st.builds(
    InvariantSpec,
    energy_ev=st.floats(30e3, 1e6),
    ring_width=_positive(1.0),
    n_rings=st.integers(1, 1000),
    n_orders=st.integers(1, 200),
    profile_width=st.floats(0.001, 1.0),
    tolerances=st.lists(_positive(0.1), min_size=1, max_size=4),
    s_max=_positive(1.0),
)
laboratories = st.builds(
    LabProtocolSpec,
    electrons=_positive(1e12),
    thickness_range=st.tuples(_positive(1e4), _positive(1e4)).map(sorted),
    rotate=st.booleans(),
)
forests = st.builds(
    ForestSpec, system_trees=st.integers(1, 500), thickness=_positive(1e4), seed=st.integers(0, 2**32 - 1)
)
boostings = st.builds(
    BoostingSpec,
    system_rounds=st.integers(1, 500),
    lattice_leaves=st.integers(2, 500),
    with_triclinic=st.booleans(),
    calibration_fraction=st.floats(0.0, 0.9, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**32 - 1),
)
maps = st.builds(
    MapSpec,
    median_size=st.integers(0, 50).map(lambda n: 2 * n + 1),
    assume=st.none() | st.text(),
    phase=st.sampled_from(["auto", "none", "4.212:F"]),
)
any_spec = st.one_of(simulations, orientations, bases, invariants, laboratories, forests, boostings, maps)


@given(any_spec)
def test_json_gives_the_same_spec_back(spec: Spec) -> None:
    again = type(spec).from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.spec_id == spec.spec_id
    # Python's own writer loses no digit either: this is what goes into plans and models.
    assert type(spec)(**json.loads(canonical_json(spec.model_dump(mode="json")))) == spec


@given(any_spec, any_spec)
def test_different_specs_have_different_ids(one: Spec, other: Spec) -> None:
    if type(one) is type(other):
        assert (one == other) == (one.spec_id == other.spec_id)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_the_order_of_keys_is_without_effect(values: dict[str, float]) -> None:
    assert sha256_of(values) == sha256_of(dict(reversed(values.items())))


def test_nan_is_not_hashed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


OTHER = [
    (SimulationSpec, "energy_ev", 200e3),
    (SimulationSpec, "q_max", 1.5),
    (SimulationSpec, "s_max", 0.05),
    (SimulationSpec, "thermal_sigma", 0.0),
    (SimulationSpec, "thicknesses", (200.0, 300.0)),
    (SimulationSpec, "form_factors", "wk"),
    (SimulationSpec, "foil_tilt_deg", (0.0, 1.0)),
    (SimulationSpec, "precession_deg", 1.0),
    (SimulationSpec, "precession_azimuths", 36),
    (OrientationSpec, "count", 101),
    (OrientationSpec, "in_plane", "random"),
    (OrientationSpec, "seed", 1),
    (OrientationSpec, "axes", "random"),
    (RadialBasisSpec, "ring_width", 0.04),
    (RadialBasisSpec, "n_rings", 40),
    (RadialBasisSpec, "n_orders", 12),
    (InvariantSpec, "energy_ev", 200e3),
    (InvariantSpec, "ring_width", 0.04),
    (InvariantSpec, "n_rings", 40),
    (InvariantSpec, "n_orders", 12),
    (InvariantSpec, "profile_width", 0.01),
    (InvariantSpec, "tolerances", (0.004,)),
    (InvariantSpec, "s_max", 0.06),
    (LabProtocolSpec, "intensity_floor", 0.0),
    (LabProtocolSpec, "position_sigma", 0.0),
    (LabProtocolSpec, "position_spread", 3.0),
    (LabProtocolSpec, "electrons", 1e4),
    (LabProtocolSpec, "scale_error", 0.0),
    (LabProtocolSpec, "ellipticity", 0.0),
    (LabProtocolSpec, "thickness_range", (100.0, 400.0)),
    (LabProtocolSpec, "rotate", False),
    (ForestSpec, "system_trees", 81),
    (ForestSpec, "system_depth", 41),
    (ForestSpec, "group_trees", 129),
    (ForestSpec, "group_depth", 31),
    (ForestSpec, "lattice_trees", 81),
    (ForestSpec, "lattice_depth", 101),
    (ForestSpec, "with_triclinic", True),
    (ForestSpec, "thickness", 100.0),
    (ForestSpec, "test_fraction", 0.5),
    (ForestSpec, "seed", 1),
    (BoostingSpec, "system_rounds", 201),
    (BoostingSpec, "group_rounds", 61),
    (BoostingSpec, "lattice_rounds", 81),
    (BoostingSpec, "system_leaves", 64),
    (BoostingSpec, "group_leaves", 16),
    (BoostingSpec, "lattice_leaves", 16),
    (BoostingSpec, "with_triclinic", False),
    (BoostingSpec, "thickness", 100.0),
    (BoostingSpec, "test_fraction", 0.5),
    (BoostingSpec, "calibration_fraction", 0.2),
    (BoostingSpec, "seed", 1),
    (MapSpec, "min_spots", 4),
    (MapSpec, "median_size", 3),
    (MapSpec, "min_difference", 0.0),
    (MapSpec, "total_intensity", 1.0),
    (MapSpec, "assume", "cubic"),
    (MapSpec, "phase", "4.212:F"),
]


@pytest.mark.parametrize(("kind", "name", "value"), OTHER)
def test_every_field_enters_the_id(kind: type[Spec], name: str, value: Any) -> None:
    default, changed = kind(), kind(**{name: value})
    assert changed != default
    assert changed.spec_id != default.spec_id


def test_no_field_was_forgotten() -> None:
    one_value = {(kind, "kind") for kind in KINDS}
    assert {(kind, name) for kind, name, _ in OTHER} | one_value == {
        (kind, name) for kind in SPECS for name in kind.model_fields
    }


@pytest.mark.parametrize(("kind", "name"), KINDS.items())
def test_the_kind_enters_the_id(kind: type[Spec], name: str) -> None:
    spec = kind(kind=name)
    assert spec == kind()
    values = spec.model_dump(mode="json")
    assert values.pop("kind") == name
    assert spec.spec_id != sha256_of(values)


REFUSED = [
    (SimulationSpec, "energy_ev", [29_999.0, 1_000_001.0, 300.0, -3e5, math.nan, math.inf, "fast", None]),
    (SimulationSpec, "q_max", [0.0, -1.0, 6.01, math.nan, math.inf]),
    (SimulationSpec, "s_max", [0.0, -0.1, 1.01, math.nan]),
    (SimulationSpec, "thermal_sigma", [-0.01, 1.01, math.nan]),
    (
        SimulationSpec,
        "thicknesses",
        [
            *((), (0.0,), (-5.0,), (math.nan,), (math.inf,), (2.0, 1.0), (1.0, 1.0), (100_001.0,)),
            *("thick", None, [[1.0, 2.0]], np.ones((2, 2))),
        ],
    ),
    (SimulationSpec, "form_factors", ["Lobato", "", None]),
    (SimulationSpec, "foil_tilt_deg", [(30.1, 0.0), (0.0,), (0.0, math.nan), 1.0]),
    (SimulationSpec, "precession_deg", [-0.1, 5.1, math.nan]),
    (SimulationSpec, "precession_azimuths", [0, 3601, 1.5]),
    (OrientationSpec, "count", [0, -1, 100_001, 1.5, "many"]),
    (OrientationSpec, "in_plane", ["plain", "", None]),
    (OrientationSpec, "seed", [-1, 2**63, 0.5]),
    (OrientationSpec, "axes", ["odd", "", None]),
    (RadialBasisSpec, "ring_width", [0.0, 1.1, math.nan]),
    (RadialBasisSpec, "n_rings", [0, 1001]),
    (RadialBasisSpec, "n_orders", [0, 201]),
    (InvariantSpec, "energy_ev", [29_999.0, 1_000_001.0, math.nan, "fast", None]),
    (InvariantSpec, "ring_width", [0.0, 1.1, math.nan]),
    (InvariantSpec, "n_rings", [0, 1001, 1.5]),
    (InvariantSpec, "n_orders", [0, 201, 1.5]),
    (InvariantSpec, "profile_width", [0.0, 1e-4, -0.02, 1.1, math.nan]),
    (
        InvariantSpec,
        "tolerances",
        [
            *((), (0.0,), (-0.004,), (0.11,), (0.004, math.nan), (0.01,) * 5),
            *("wide", None, [[0.004, 0.012]], np.ones((2, 2))),
        ],
    ),
    (InvariantSpec, "s_max", [0.0, -0.1, 1.01, math.nan]),
    (LabProtocolSpec, "intensity_floor", [-1e-9, 1.0, math.nan]),
    (LabProtocolSpec, "position_sigma", [-1e-9, 0.11, math.nan]),
    (LabProtocolSpec, "position_spread", [0.99, 101.0, math.nan]),
    (LabProtocolSpec, "electrons", [0.0, -1.0, math.inf]),
    (LabProtocolSpec, "scale_error", [-0.1, 0.5]),
    (LabProtocolSpec, "ellipticity", [-0.1, 0.5]),
    (LabProtocolSpec, "thickness_range", [(500.0, 100.0), (0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0,)]),
    (LabProtocolSpec, "rotate", ["perhaps", None]),
    *[
        (ForestSpec, f"{role}_{size}", [0, -1, 1.5])
        for role in ("system", "group", "lattice")
        for size in ("trees", "depth")
    ],
    *[(kind, "kind", ["other", "", None]) for kind in KINDS],
    *[(BoostingSpec, f"{role}_rounds", [0, -1, 1.5]) for role in ("system", "group", "lattice")],
    *[(BoostingSpec, f"{role}_leaves", [1, 0, -1, 2.5]) for role in ("system", "group", "lattice")],
    (BoostingSpec, "with_triclinic", ["perhaps", None]),
    (BoostingSpec, "thickness", [0.0, -200.0, math.nan]),
    (BoostingSpec, "test_fraction", [0.0, 1.0, -0.1, math.nan]),
    (BoostingSpec, "calibration_fraction", [0.0, 0.9, -0.1, math.nan]),
    (BoostingSpec, "seed", [-1, 2**32]),
    (ForestSpec, "with_triclinic", ["perhaps", None]),
    (ForestSpec, "thickness", [0.0, -200.0, math.nan]),
    (ForestSpec, "test_fraction", [0.0, 1.0, -0.1, math.nan]),
    (ForestSpec, "seed", [-1, 2**32]),
    (MapSpec, "min_spots", [0, -1, 2.5]),
    (MapSpec, "median_size", [0, -1, 4, 103]),
    (
        MapSpec,
        "phase",
        [
            "",
            "F",
            "4.2",
            "4.2:",
            "4.2:X",
            "4.2:FF",
            "1.0:F",
            "18.0:F",
            "nan:F",
            "-4:F",
            "4,2:F",
            "4.2:F,",
            "Auto",
        ],
    ),
    (MapSpec, "min_difference", [-0.001, 1.001, math.nan]),
    (MapSpec, "total_intensity", [0.0, -1.0, 1e7, math.nan, math.inf]),
    (MapSpec, "assume", [5]),
]


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, name, value) for kind, name, values in REFUSED for value in values]
)
def test_every_bound_is_refused_in_one_sentence(kind: type[Spec], name: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        kind(**{name: value})
    message = str(caught.value)
    assert f"{kind.__name__} refused: {name}" in message
    assert "pydantic" not in message
    assert "\n" not in message
    assert caught.value.fix


def test_every_field_has_values_that_are_refused() -> None:
    assert {(kind, name) for kind, name, _ in REFUSED} == {
        (kind, n) for kind in SPECS for n in kind.model_fields
    }


@pytest.mark.parametrize("kind", SPECS)
def test_specs_are_frozen_and_closed(kind: type[Spec]) -> None:
    spec = kind()
    with pytest.raises(ValidationError):
        setattr(spec, next(iter(kind.model_fields)), 1)
    with pytest.raises(SpecError, match="energy = 1"):
        kind(energy=1)
    assert len({spec, kind()}) == 1


@given(st.one_of(bases, invariants))
def test_the_kind_tells_which_features_are_meant(spec: FeatureSpec) -> None:
    assert feature_spec(json.loads(spec.to_json())) == spec


def test_features_that_do_not_say_their_kind_are_the_radial_basis() -> None:
    assert feature_spec({}) == RadialBasisSpec()
    assert feature_spec({"n_rings": 7}) == RadialBasisSpec(n_rings=7)


@pytest.mark.parametrize("kind", ["other", "", None, 1, ["invariant"], "forests"])
def test_an_unknown_kind_of_features_is_refused(kind: Any) -> None:
    with pytest.raises(SpecError, match=r"is no kind of features\. Use one of radial-basis, invariant"):
        feature_spec({"kind": kind})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "radial-basis", "s_max": 0.05}, r"RadialBasisSpec refused: s_max = 0\.05"),
        ({"kind": "invariant", "n_rings": 0}, "InvariantSpec refused: n_rings = 0"),
    ],
)
def test_feature_values_are_checked_by_their_kind(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        feature_spec(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"q_max": 1.0', "not valid JSON"),
        ("[1, 2]", "expected a JSON object, got list"),
        ("null", "expected a JSON object, got NoneType"),
        ('{"q_max": NaN}', "q_max = nan"),
        ('{"qmax": 1.0}', "qmax = 1.0"),
        ('{"self": 1}', "self = 1"),
        ("[" * 100_000, "not valid JSON"),
        ('{"q_max": 1' + 5000 * "0" + "}", "not valid JSON"),
    ],
)
def test_damaged_json_is_a_spec_error(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        SimulationSpec.from_json(text)
    assert message in str(caught.value)


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_whatever_is_read_is_a_spec_or_a_spec_error(text: str) -> None:
    try:
        spec = SimulationSpec.from_json(text)
    except SpecError:
        return
    assert isinstance(spec, SimulationSpec)


@pytest.mark.parametrize(
    "thicknesses",
    [
        200,
        200.0,
        [200],
        (200,),
        np.float32(200),
        np.int64(200),
        np.array(200.0),
        np.array([200]),
        np.float64(200),
    ],
)
def test_thicknesses_are_a_tuple_of_numbers_whatever_is_given(thicknesses: Any) -> None:
    spec = SimulationSpec(thicknesses=thicknesses)
    assert spec.thicknesses == (200.0,)
    assert spec == SimulationSpec()
    assert spec.spec_id == SimulationSpec().spec_id


@pytest.mark.parametrize("tolerances", [0.02, [0.02], (0.02,), np.array(0.02), np.array([0.02])])
def test_tolerances_are_a_tuple_of_numbers_whatever_is_given(tolerances: Any) -> None:
    assert InvariantSpec(tolerances=tolerances).tolerances == (0.02,)


def test_defaults_are_those_of_the_paper() -> None:
    assert RadialBasisSpec().n_features == 1066
    assert SimulationSpec().energy_ev == 300e3
    assert SimulationSpec().q_max == 2.0


@pytest.mark.parametrize(
    "update", [{"precession_deg": 50.0}, {"precesion": 1.0}, {"foil_tilt_deg": (95.0, 0.0)}]
)
def test_a_changed_copy_is_checked_like_any_spec(update: dict) -> None:
    with pytest.raises(SpecError, match=next(iter(update))):
        SimulationSpec().model_copy(update=update)
    assert SimulationSpec().model_copy(update={"q_max": 1.0}) == SimulationSpec(q_max=1.0)
