from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ModelError
from diffractory.learning.accuracies import group_patterns
from diffractory.learning.aggregation import AggregatedLabels
from diffractory.learning.evaluation import evaluate
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.system_hierarchy import SystemVotes, TrainingSummary
from diffractory.specs import ForestSpec
from scripted_model import ScriptedModel


class LastWord(ScriptedModel):
    """Pools by a rule of its own: the last pattern of a group decides."""

    def pool_systems(self, votes: SystemVotes, groups: np.ndarray) -> AggregatedLabels:
        names = np.unique(groups)
        last = [np.flatnonzero(groups == name)[-1] for name in names]
        return AggregatedLabels(names, votes.system[last], np.full(len(names), 0.75))


class KnowsTriclinic(ScriptedModel):
    """Gives triclinic a share of a half everywhere, and what the features say the rest."""

    systems_ = np.array([0, 3, 6], dtype=np.int8)
    group_classes_: ClassVar = {0: np.array([2]), **ScriptedModel.group_classes_}
    training_: ClassVar = {0: TrainingSummary(20, 2, 20, (5.0, 5.0, 5.0)), **ScriptedModel.training_}

    def vote_systems(self, X: np.ndarray) -> SystemVotes:
        known = super().vote_systems(X)
        share = np.concatenate([np.full((len(X), 1), 0.5), known.share / 2], axis=1)
        return SystemVotes.from_share(share, self.systems_)


NOTHING = {
    "n": 0,
    "n_materials": 0,
    "accuracy": None,
    "interval": None,
    "calibration_error": None,
    "calibration_interval": None,
}
#: What is told of a whole test and of each part of it.
OF_A_TEST = {
    "counts",
    "single",
    "aggregated",
    "aggregated_small_groups",
    "system_by_number",
    "system_by_difference",
    "without_triclinic",
    "cubic_constant",
}


def scripted(
    rows: list[tuple[float, ...]],
    truth: list[tuple[int, int]],
    model: ScriptedModel | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate scripted answers; truth holds system and material of each pattern; a is 5 Å."""
    system = [code for code, _ in truth]
    groups = np.array([2, 14, 62, 123, 166, 194, 225])[system]
    targets = Targets.from_labels(np.array(system), groups, np.full((len(truth), 3), 5.0))
    features = np.array(rows, dtype=np.float32)
    return evaluate(model or ScriptedModel(), features, targets, [m for _, m in truth], **options)


def test_single_pattern_numbers_by_hand():
    rows = [(6, 9, 225, 5.1), (6, 7, 221, 5.3), (3, 6, 123, 9.0), (3, 8, 123, 4.8)]
    single = scripted(rows, [(6, 0), (6, 0), (6, 1), (3, 2)])["single"]
    assert (single["n"], single["n_materials"]) == (4, 3)
    system = single["system"]
    assert system["accuracy"] == 0.75
    assert system["baseline"] == 0.75
    assert system["baseline_answer"] == "cubic"
    assert system["confidence_right"] == pytest.approx(0.8)
    assert system["confidence_wrong"] == pytest.approx(0.6)
    assert system["confusion"] == [[1, 0], [1, 2]]
    assert system["confidence"][0] == [pytest.approx(0.8), None]
    assert system["confidence"][1] == [pytest.approx(0.6), pytest.approx(0.8)]
    assert system["by_system"] == {"tetragonal": 1.0, "cubic": pytest.approx(2 / 3)}
    group = single["space_group"]
    assert group["accuracy"] == 0.5
    assert group["given_right_system"] == pytest.approx(2 / 3)
    assert group["by_system"]["cubic"] == {
        "n": 3,
        "accuracy": pytest.approx(1 / 3),
        "interval": [0.0, 0.5],
        "n_right_system": 2,
        "given_right_system": 0.5,
        # The two whose system is right are of one material.
        "given_right_system_interval": None,
        "baseline": 1.0,
    }
    assert group["baseline"] == 0.75
    assert group["n_unseen_in_training"] == 0
    cubic = single["lattice"]["cubic"]
    assert cubic["n"] == 2
    assert cubic["median_error"]["a"] == pytest.approx(0.2, abs=1e-6)
    assert cubic["baseline"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    # Both patterns are of one material.
    assert cubic["interval"] == {"a": None, "b": None, "c": None}
    assert single["lattice"]["tetragonal"]["baseline"] == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_aggregation_lets_sure_patterns_outvote_unsure_ones():
    rows = [(6, 10, 225, 5.0), (3, 6, 225, 5.2), (3, 6, 225, 5.6)]
    result = scripted(rows, [(6, 0)] * 3, group_size=3)
    assert result["single"]["system"]["accuracy"] == pytest.approx(1 / 3)
    aggregated = result["aggregated"]
    assert aggregated["n"] == 1
    assert aggregated["system"]["accuracy"] == 1.0
    assert aggregated["system"]["confidence_right"] == pytest.approx(1.0 / 1.4)
    assert aggregated["space_group"]["accuracy"] == 1.0
    # The whole group goes through the cubic models: the median is over all three patterns.
    assert aggregated["lattice"]["cubic"]["median_error"]["a"] == pytest.approx(0.2, abs=1e-6)
    assert result["aggregated_small_groups"]["n"] == 0


def test_accuracy_against_the_number_of_patterns():
    # Of three patterns of each material one is right and sure, two are wrong and unsure.
    rows = [(6, 10, 225, 5.0), (3, 6, 225, 5.0), (3, 6, 225, 5.0)] * 2
    result = scripted(rows, [(6, 0)] * 3 + [(6, 1)] * 3)
    numbers = result["system_by_number"]
    assert list(numbers) == ["1", "3", "10", "30"]
    assert numbers["1"]["accuracy"] == result["single"]["system"]["accuracy"] == pytest.approx(1 / 3)
    assert numbers["1"]["interval"] == result["single"]["system"]["interval"]
    assert (numbers["3"]["n"], numbers["3"]["n_materials"], numbers["3"]["accuracy"]) == (2, 2, 1.0)
    # No material has ten: smaller groups do not count.
    assert numbers["10"] == NOTHING


def test_the_own_rule_of_a_model_stands_beside_that_of_the_paper():
    rows = [(6, 10, 225, 5.0), (3, 6, 225, 5.0), (3, 6, 225, 5.0)]
    result = scripted(rows, [(6, 0)] * 3, LastWord(), group_size=3)
    assert result["system_by_number"]["3"]["accuracy"] == 0.0
    assert result["system_by_difference"]["3"]["accuracy"] == 1.0
    assert result["system_by_difference"]["1"] == result["system_by_number"]["1"]
    assert result["aggregated"]["system"]["accuracy"] == 0.0
    assert result["aggregated"]["system"]["confidence_wrong"] == 0.75
    usual = scripted(rows, [(6, 0)] * 3)
    assert usual["system_by_number"] == usual["system_by_difference"] == result["system_by_difference"]


def test_without_triclinic_it_is_neither_asked_nor_answered():
    rows = [(6, 9, 225, 5.0), (3, 8, 123, 5.0), (6, 7, 225, 5.0), (6, 9, 2, 5.0)]
    truth = [(6, 0), (3, 1), (3, 2), (0, 3)]
    result = scripted(rows, truth, KnowsTriclinic())
    assert result["system_by_number"]["1"]["accuracy"] == 0.25
    others = result["without_triclinic"]
    assert set(others) == {"system_by_number", "system_by_difference"}
    for rule in others.values():
        assert (rule["1"]["n"], rule["1"]["n_materials"]) == (3, 3)
        assert rule["1"]["accuracy"] == pytest.approx(2 / 3)
    # Who does not know triclinic is asked the same as ever.
    result = scripted(rows, truth)
    assert result["without_triclinic"]["system_by_number"] == result["system_by_number"]


def test_accuracy_against_conditions_by_hand():
    rows = [(6, 9, 225, 5.0), (3, 9, 225, 5.0), (6, 9, 225, 5.0), (3, 9, 123, 5.0), (6, 9, 225, 5.0)]
    truth = [(6, 0), (6, 0), (6, 1), (3, 2), (0, 3)]
    thickness = [300.0, 100.0, 100.0, 300.0, 500.0]
    found = scripted(rows, truth, conditions={"thickness": thickness})["conditions"]["thickness"]
    # Each value is a bin; the triclinic pattern, which is not learned, is in none.
    assert [(each["low"], each["high"], each["n"], each["accuracy"]) for each in found] == [
        (100.0, 100.0, 2, 0.5),
        (300.0, 300.0, 2, 1.0),
    ]
    assert found[0]["interval"] == [0.0, 1.0]
    assert scripted(rows, truth)["conditions"] == {}


def test_many_values_of_a_condition_are_binned_evenly():
    tilt = np.random.default_rng(0).permutation(61)
    rows = [(3 if number < 15 else 6, 9, 225, 5.0) for number in tilt]
    result = scripted(rows, [(6, number % 4) for number in range(61)], conditions={"tilt": tilt})
    found = result["conditions"]["tilt"]
    assert [each["n"] for each in found] == [10, 10, 10, 10, 10, 11]
    assert [each["low"] for each in found] == [0, 10, 20, 30, 40, 50]
    assert [each["high"] for each in found] == [9, 19, 29, 39, 49, 60]
    assert [each["accuracy"] for each in found] == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_subsets_are_reported_apart():
    rows = [(6, 10, 225, 5.0), (3, 6, 225, 5.0), (3, 6, 225, 5.0)] * 2 + [(6, 9, 2, 5.0)]
    truth = [(6, 0)] * 3 + [(6, 1)] * 3 + [(0, 2)]
    chosen = [number >= 3 for number in range(7)]
    found = scripted(rows, truth, subsets={"unseen": chosen, "none": [False] * 7})["subsets"]
    alone = scripted(rows[3:], truth[3:])
    for rule in ("system_by_number", "system_by_difference"):
        assert found["unseen"][rule] == alone[rule]
        assert found["none"][rule]["1"] == NOTHING
    assert found["unseen"]["system_by_number"]["3"]["accuracy"] == 1.0
    assert set(found["unseen"]) == set(found["none"]) == OF_A_TEST
    assert found["unseen"] == {key: alone[key] for key in OF_A_TEST}
    assert found["unseen"]["counts"] == alone["counts"]
    assert found["none"]["counts"] == {"patterns": 0, "materials": 0, "by_system": {}}


def test_a_subset_is_told_without_triclinic_too():
    rows = [(6, 9, 225, 5.0), (3, 8, 123, 5.0), (6, 7, 225, 5.0), (6, 9, 2, 5.0)]
    truth = [(6, 0), (3, 1), (3, 2), (0, 3)]
    found = scripted(rows, truth, KnowsTriclinic(), subsets={"unseen": [False, True, True, True]})["subsets"]
    alone = scripted(rows[1:], truth[1:], KnowsTriclinic())
    assert found["unseen"]["without_triclinic"] == alone["without_triclinic"]
    assert found["unseen"]["without_triclinic"]["system_by_number"]["1"]["accuracy"] == 0.5
    assert found["unseen"]["system_by_number"]["1"]["accuracy"] == pytest.approx(1 / 3)
    assert found["unseen"]["counts"]["by_system"] == {
        "triclinic": {"patterns": 1, "materials": 1},
        "tetragonal": {"patterns": 2, "materials": 2},
    }


def test_calibration_errors_stand_beside_accuracies():
    rows = [(6, 9, 225, 5.0), (6, 9, 225, 5.0), (3, 6, 123, 5.0)] * 10
    truth = [(6, 0), (3, 1), (3, 2)] * 10
    found = scripted(rows, truth)
    numbers = found["system_by_number"]
    assert numbers["1"]["calibration_error"] == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)
    for number, part in (("1", "single"), ("10", "aggregated")):
        reliability = found[part]["system"]["reliability"]
        assert numbers[number]["calibration_error"] == reliability["expected_calibration_error"]
    # Ten that agree are wholly sure, and those of one material in three are wrong.
    assert numbers["10"]["calibration_error"] == pytest.approx(1 / 3)
    assert numbers["30"]["calibration_error"] is None


def test_reliability_of_single_patterns_by_hand():
    rows = [(6, 9, 225, 5.0), (6, 9, 225, 5.0), (3, 6, 123, 5.0)]
    found = scripted(rows, [(6, 0), (3, 1), (3, 2)])["single"]["system"]["reliability"]
    # Sure to 0.9, half of them right; sure to 0.6, and right.
    assert found["expected_calibration_error"] == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)


def test_calibration_errors_and_space_groups_given_the_system_have_intervals_over_materials():
    generator = np.random.default_rng(2)
    rows = [
        (6, float(sure), 225 if right else 221, 5.0)
        for sure, right in generator.integers(6, 10, (400, 2)) % [10, 2]
    ]
    truth = [(6 if generator.random() < 0.7 else 3, number // 8) for number in range(400)]
    found = scripted(rows, truth)
    for part, number in (("single", "1"), ("aggregated_small_groups", None)):
        system, group = found[part]["system"], found[part]["space_group"]
        low, high = system["reliability"]["interval"]
        assert 0.0 <= low <= system["reliability"]["expected_calibration_error"] <= high
        if number is not None:
            assert found["system_by_number"][number]["calibration_interval"] == [low, high]
        for each in (group, group["by_system"]["cubic"]):
            low, high = each["given_right_system_interval"]
            assert low < each["given_right_system"] < high


def test_lattice_errors_have_intervals_over_materials():
    errors = [0.1, 0.1, 0.2, 0.4]
    rows = [(6, 9, 225, 5.0 + error) for error in errors]
    cubic = scripted(rows, [(6, number) for number in range(4)])["single"]["lattice"]["cubic"]
    assert cubic["median_error"]["a"] == pytest.approx(0.15, abs=1e-6)
    low, high = cubic["interval"]["a"]
    assert (low, high) == (pytest.approx(0.1, abs=1e-6), pytest.approx(0.4, abs=1e-6))
    assert cubic["interval"]["a"] == cubic["interval"]["c"]


def test_small_materials_are_reported_apart():
    result = scripted([(6, 9, 225, 5.0)] * 15, [(6, 0)] * 12 + [(6, 1)] * 3, group_size=5)
    assert result["aggregated"]["n"] == 2
    assert result["aggregated"]["n_materials"] == 1
    assert result["aggregated_small_groups"]["n"] == 1
    assert result["counts"] == {
        "patterns": 15,
        "materials": 2,
        "by_system": {"cubic": {"patterns": 15, "materials": 2}},
    }


def test_systems_that_are_not_learned_count_in_nothing_else():
    rows = [(6, 9, 225, 5.0), (3, 9, 225, 5.0), (3, 9, 123, 5.0)]
    result = scripted(rows, [(6, 0), (0, 1), (0, 1)])
    assert result["single"]["n"] == 1
    assert result["single"]["system"]["accuracy"] == 1.0
    assert result["systems"] == ["tetragonal", "cubic"]
    assert result["not_learned"] == {
        "patterns": 2,
        "materials": 1,
        "by_system": {"triclinic": {"patterns": 2, "materials": 1}},
    }


def test_nothing_that_was_learned_gives_no_numbers():
    nothing = {"conditions": {"spots": [9, 9]}, "subsets": {"unseen": [True, False]}}
    result = scripted([(3, 9, 123, 5.0)] * 2, [(0, 0), (0, 1)], **nothing)
    json.dumps(result, allow_nan=False)
    assert result["conditions"] == {"spots": []}
    for part in (result, result["without_triclinic"], result["subsets"]["unseen"]):
        for rule in ("system_by_number", "system_by_difference"):
            assert [numbers["accuracy"] for numbers in part[rule].values()] == [None] * 4
    for part in ("single", "aggregated", "aggregated_small_groups"):
        assert result[part]["n"] == 0
        assert result[part]["system"]["accuracy"] is None
        assert result[part]["system"]["interval"] is None
        assert result[part]["lattice"]["cubic"]["median_error"] == {"a": None, "b": None, "c": None}


@given(counts=st.lists(st.integers(0, 25), max_size=6), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_groups_are_disjoint_and_of_one_material(counts: list[int], size: int, seed: int):
    materials = np.repeat(np.arange(len(counts)), counts)
    groups = group_patterns(materials, size, seed)
    present = np.unique(groups[groups >= 0])
    assert present.tolist() == list(range(len(present)))
    for group in present:
        assert len(set(materials[groups == group])) == 1
    for material, count in enumerate(counts):
        sizes = np.unique(groups[(materials == material) & (groups >= 0)], return_counts=True)[1].tolist()
        expected = [] if count == 0 else [size] * (count // size) or [count]
        assert sizes == expected


def test_groups_are_random_but_seeded():
    materials = np.repeat([4, 9], 40)
    first = group_patterns(materials, 10, 0)
    np.testing.assert_array_equal(first, group_patterns(materials, 10, 0))
    assert not np.array_equal(first, group_patterns(materials, 10, 1))
    # Another material in the set does not change how this one is divided.
    np.testing.assert_array_equal(group_patterns(materials[:40], 10, 0), first[:40])
    assert (np.diff(first[:40]) != 0).sum() > 10


def test_a_real_model_gives_plain_json():
    generator = np.random.default_rng(3)
    n = 280
    materials = np.arange(n) // 10
    codes = materials % 7
    groups = np.array([2, 14, 62, 123, 166, 194, 225])[codes]
    targets = Targets.from_labels(codes, groups, 3.0 + generator.random((n, 3)))
    X = generator.random((n, 6)).astype(np.float32)
    X[:, 0] += codes
    spec = ForestSpec(system_trees=10, group_trees=5, lattice_trees=5)
    model = SymmetryHierarchy(spec).fit(X, targets, materials)
    asked = {"conditions": {"first": X[:, 1]}, "subsets": {"even": materials % 2 == 0}, "n_bootstrap": 50}
    result = evaluate(model, X, targets, materials, **asked)
    json.dumps(result, allow_nan=False)
    assert result["single"]["system"]["accuracy"] > 0.9
    assert result["aggregated"]["n"] == 24
    assert result["aggregated"]["system"]["accuracy"] == 1.0
    assert result["not_learned"]["patterns"] == 40
    assert "six" not in result["note"]
    assert "'not_learned'" in result["note"]
    assert result["system_by_difference"] == result["system_by_number"]
    assert result["without_triclinic"]["system_by_number"] == result["system_by_number"]
    assert sum(each["n"] for each in result["conditions"]["first"]) == 240
    assert result["subsets"]["even"]["system_by_number"]["10"]["n"] == 12
    even = materials % 2 == 0
    alone = evaluate(model, X[even], targets.take(even), materials[even], n_bootstrap=50)
    assert result["subsets"]["even"] == {key: alone[key] for key in OF_A_TEST}
    assert evaluate(model, X, targets, materials, **asked) == result


@pytest.mark.parametrize(
    ("materials", "options", "message"),
    [
        ([0], {}, r"2 rows of features, 2 targets and materials of shape \(1,\)"),
        ([0.5, 1.5], {}, "a material index ≥ 0"),
        ([0, -1], {}, "a material index ≥ 0"),
        ([0, 1], {"group_size": 0}, "group_size = 0 is below 1"),
        ([0, 1], {"n_bootstrap": 0}, "n_bootstrap = 0 is below 1"),
    ],
)
def test_bad_input_is_refused(materials: list[float], options: dict[str, int], message: str):
    targets = Targets.from_labels(["cubic"] * 2, [225] * 2, np.ones((2, 3)))
    with pytest.raises(ModelError, match=message):
        evaluate(ScriptedModel(), np.zeros((2, 4)), targets, materials, **options)


def test_no_patterns_and_other_features_are_refused():
    targets = Targets.from_labels(np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty((0, 3)))
    with pytest.raises(ModelError, match="at least one pattern"):
        evaluate(ScriptedModel(), np.empty((0, 4)), targets, np.empty(0, dtype=int))
    with pytest.raises(ModelError, match="trained on 4 features, got 9"):
        evaluate(ScriptedModel(), np.empty((0, 9)), targets, np.empty(0, dtype=int))
