from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from diffractory.errors import ModelError
from diffractory.learning.aggregation import AggregatedLabels
from diffractory.learning.boosted_hierarchy import BoostedHierarchy, boosting_memory
from diffractory.learning.calibration import Calibration, scaled
from diffractory.learning.hierarchy import Targets
from diffractory.patterns.invariants import invariant_names
from diffractory.specs import BoostingSpec, InvariantSpec
from tree_checks import assert_same_trees, same_trees

#: Few features, among them all that cells are read from.
FEATURES = InvariantSpec(ring_width=1.0, n_rings=2, n_orders=1, profile_width=1.0)
COLUMNS = {name: index for index, name in enumerate(invariant_names(FEATURES))}
GROUPS = ((1, 2), (4, 14), (16, 62), (99, 123), (146, 166), (168, 194), (216, 225))
SMALL = BoostingSpec(system_rounds=8, group_rounds=4, lattice_rounds=4)


def make_data(
    n: int = 280, codes: tuple[int, ...] = tuple(range(7))
) -> tuple[np.ndarray, Targets, np.ndarray]:
    """Features that show the system in column 0 and the space group in column 1; ten patterns a material."""
    generator = np.random.default_rng(1)
    system = np.array(codes)[np.arange(n) % len(codes)]
    which = np.arange(n) // len(codes) % 2
    lattice = np.sort(generator.uniform(3.0, 9.0, (n, 3)), axis=1)
    features = generator.random((n, len(COLUMNS))).astype(np.float32)
    features[:, 0] += system
    features[:, 1] = which
    materials = system + 7 * (np.arange(n) // (10 * len(codes)))
    return features, Targets.from_labels(system, np.array(GROUPS)[system, which], lattice), materials


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, Targets, np.ndarray]:
    return make_data()


@pytest.fixture(scope="module")
def held(data: tuple[np.ndarray, Targets, np.ndarray]) -> np.ndarray:
    """Patterns of one material of each system."""
    return data[2] >= 21


@pytest.fixture(scope="module")
def model(data: tuple[np.ndarray, Targets, np.ndarray], held: np.ndarray) -> BoostedHierarchy:
    return BoostedHierarchy(SMALL, FEATURES, 1).fit(*data, held)


def test_a_boosted_hierarchy_learns_systems_groups_and_cells(model: BoostedHierarchy, data):
    features, targets, _ = data
    assert model.n_models_ == 15
    assert model.systems_.tolist() == list(range(7))
    assert model.skipped_ == {}
    np.testing.assert_allclose(model.prior_, 1 / 7)
    votes = model.vote_systems(features)
    assert np.mean(votes.system == targets.system) > 0.9
    np.testing.assert_array_equal(model.predict(features), votes.system)
    np.testing.assert_allclose(votes.share.sum(axis=1), 1.0)
    np.testing.assert_array_equal(votes.share, model.predict_proba(features))
    within = model.predict_within(features, targets.system)
    assert np.mean(within.space_group == targets.space_group) > 0.9
    assert np.isfinite(within.lattice).all()
    assert (within.lattice > 0.0).all()
    assert ((within.group_confidence >= within.group_difference) & (within.group_confidence <= 1.0)).all()


def test_nothing_but_the_calibration_is_learned_from_calibration_patterns(
    model: BoostedHierarchy, data, held
):
    features, targets, materials = data
    changed = features.copy()
    changed[held] = changed[held][::-1] + 3.0
    other = BoostedHierarchy(SMALL, FEATURES, 1).fit(changed, targets, materials, held)
    assert_same_trees(other.system_model_.trees_, model.system_model_.trees_)
    for code in range(7):
        assert_same_trees(other.group_models_[code].trees_, model.group_models_[code].trees_)
        assert_same_trees(other.lattice_models_[code].trees_, model.lattice_models_[code].trees_)
    assert other.training_ == model.training_
    assert other.calibration_ != model.calibration_
    without = BoostedHierarchy(SMALL, FEATURES, 1).fit(features[~held], targets.take(~held), materials[~held])
    assert_same_trees(without.system_model_.trees_, model.system_model_.trees_)
    assert without.calibration_ == Calibration()
    everything = BoostedHierarchy(SMALL, FEATURES, 1).fit(features, targets, materials)
    assert not same_trees(everything.system_model_.trees_, model.system_model_.trees_)


def test_probabilities_are_those_of_the_trees_at_the_temperature_found(model: BoostedHierarchy, data):
    raw = model.system_model_.predict_log_proba(data[0])
    np.testing.assert_allclose(model.predict_log_proba(data[0]), scaled(raw, model.calibration_.temperature))


def test_patterns_of_a_group_are_pooled_by_their_evidence(model: BoostedHierarchy, data):
    features, _, materials = data
    votes = model.vote_systems(features)
    pooled = model.pool_systems(votes, materials)
    assert isinstance(pooled, AggregatedLabels)
    assert pooled.groups.tolist() == sorted(set(materials))
    assert np.mean(pooled.label == pooled.groups % 7) == 1.0
    assert ((pooled.confidence > 0.0) & (pooled.confidence <= 1.0)).all()
    alone = model.pool_systems(votes, np.arange(len(features)))
    np.testing.assert_array_equal(alone.label, votes.system)
    np.testing.assert_allclose(alone.confidence, votes.confidence, rtol=1e-6)


def test_cells_read_from_the_spots_are_corrected_by_what_they_are_off(data):
    features, targets, materials = (np.array(data[0]), data[1], data[2])
    cubic = targets.system == 6
    for axis, name in enumerate(("cubic_a", "cubic_b", "cubic_c")):
        # The reading is twice too large throughout, and missing in some patterns.
        features[:, COLUMNS[name]] = 2.0 * targets.lattice[:, axis]
        features[::5, COLUMNS[name]] = 0.0
    spec = SMALL.model_copy(update={"lattice_rounds": 60})
    model = BoostedHierarchy(spec, FEATURES, 1).fit(features, targets, materials)
    found = model.predict_within(features, np.full(len(features), 6)).lattice
    read = cubic & (np.arange(len(features)) % 5 != 0)
    np.testing.assert_allclose(np.median(found[read] / targets.lattice[read], axis=0), 1.0, atol=0.05)
    assert np.isfinite(found).all()


def test_a_lattice_model_trained_alone_is_the_one_trained_with_all(model: BoostedHierarchy, data, held):
    features, targets, _ = data
    rows = np.flatnonzero((targets.system == 6) & ~held)
    alone = BoostedHierarchy(SMALL, FEATURES, 1)
    alone.training_, alone.lattice_models_ = model.training_, {}
    alone._fit_lattice(6, features[rows], targets.take(rows))
    assert_same_trees(alone.lattice_models_[6].trees_, model.lattice_models_[6].trees_)


def test_a_boosted_hierarchy_is_reproducible_and_can_be_cloned(model: BoostedHierarchy, data, held):
    again = clone(model).fit(*data, held)
    np.testing.assert_array_equal(again.predict_proba(data[0]), model.predict_proba(data[0]))
    other = BoostedHierarchy(SMALL.model_copy(update={"seed": 1}), FEATURES, 1).fit(*data, held)
    assert not same_trees(other.system_model_.trees_, model.system_model_.trees_)


def test_a_system_with_one_material_has_no_models_of_its_own():
    features, targets, materials = make_data(80, (3, 6))
    materials = np.where(targets.system == 3, 99, materials)
    model = BoostedHierarchy(SMALL, FEATURES, 1).fit(features, targets, materials)
    assert model.skipped_ == {"tetragonal": "fewer than two materials to learn space groups from"}
    assert list(model.group_models_) == list(model.lattice_models_) == list(model.group_classes_) == [6]
    assert model.n_models_ == 3
    within = model.predict_within(features, targets.system)
    tetragonal = targets.system == 3
    assert not within.space_group[tetragonal].any()
    assert np.isnan(within.lattice[tetragonal]).all()
    assert np.isfinite(within.lattice[~tetragonal]).all()


def test_calibration_materials_do_not_count_as_materials_to_learn_from():
    features, targets, materials = make_data(80, (3, 6))
    held = (targets.system == 3) & (materials >= 10)
    model = BoostedHierarchy(SMALL, FEATURES, 1).fit(features, targets, materials, held)
    assert list(model.skipped_) == ["tetragonal"]


def test_triclinic_can_be_left_out(data):
    model = BoostedHierarchy(SMALL.model_copy(update={"with_triclinic": False}), FEATURES, 1).fit(*data)
    assert model.systems_.tolist() == [1, 2, 3, 4, 5, 6]
    assert "with_triclinic" in model.skipped_["triclinic"]
    assert not np.isin(model.predict(data[0]), 0).any()


def test_calibration_patterns_of_a_system_that_was_not_learned_do_not_count():
    features, targets, materials = make_data(120, (3, 5, 6))
    held = (targets.system == 5) | (materials >= 21)
    model = BoostedHierarchy(SMALL, FEATURES, 1).fit(features, targets, materials, held)
    assert model.systems_.tolist() == [3, 6]
    assert np.isfinite(model.calibration_.temperature)


def test_one_system_alone_is_refused(data):
    with pytest.raises(ModelError, match=r"cannot train .* cubic.*at least two"):
        BoostedHierarchy(SMALL, FEATURES, 1).fit(*make_data(30, (6,)))
    with pytest.raises(ModelError, match="at least two"):
        BoostedHierarchy(SMALL, FEATURES, 1).fit(*data, np.ones(280, bool))
    spec = SMALL.model_copy(update={"with_triclinic": False})
    with pytest.raises(ModelError, match="at least two"):
        BoostedHierarchy(spec, FEATURES, 1).fit(*make_data(30, (0, 6)))


def test_what_does_not_fit_is_refused(model: BoostedHierarchy, data):
    features, targets, materials = data
    spoilt = features.copy()
    spoilt[5, 3] = np.nan
    untrained = BoostedHierarchy(SMALL, FEATURES, 1)
    with pytest.raises(ModelError, match="pattern 5 are not finite"):
        untrained.fit(spoilt, targets, materials)
    with pytest.raises(ModelError, match="280 rows of features, 280 targets, 279 materials"):
        untrained.fit(features, targets, materials[1:])
    with pytest.raises(ModelError, match="and 3 marks for calibration"):
        untrained.fit(features, targets, materials, np.ones(3, bool))
    for predict in (untrained.predict, untrained.predict_log_proba, untrained.vote_systems):
        with pytest.raises(ModelError, match="is not trained"):
            predict(features)
    with pytest.raises(ModelError, match="pattern 5 are not finite"):
        model.predict(spoilt)
    for call in (model.predict, lambda rows: model.predict_within(rows, targets.system)):
        with pytest.raises(ModelError, match=r"trained on \d+ features, got 9"):
            call(features[:, :9])
    for codes in (np.full(280, 7), np.full(280, -2), np.zeros(279, int)):
        with pytest.raises(ModelError, match="crystal-system codes"):
            model.predict_within(features, codes)


def test_features_of_another_spec_are_refused_in_training(data):
    features, targets, materials = data
    with pytest.raises(ModelError, match="features"):
        BoostedHierarchy(SMALL, FEATURES, 1).fit(features[:, :9], targets, materials)


def test_classes_are_the_columns_of_probabilities(model: BoostedHierarchy, data):
    probability = model.predict_proba(data[0])
    np.testing.assert_array_equal(model.classes_[probability.argmax(axis=1)], model.predict(data[0]))


def test_memory_counts_the_matrix_and_what_is_needed_beside_it():
    small, large, larger = (boosting_memory(n, 703, 7, BoostingSpec()) for n in (100_000, 300_000, 400_000))
    # As floats and as bins, with gradients; beyond some rows nothing else grows.
    assert larger - large == 100_000 * (5 * 703 + 7 * 16)
    assert large - small > 200_000 * (5 * 703 + 7 * 16)
    # As measured: 230,000 rows take 3.3 GB, 60,000 take 1.4.
    assert 3.3e9 < boosting_memory(230_000, 703, 7, BoostingSpec()) < 3.6e9
    assert 1.4e9 < boosting_memory(60_000, 703, 7, BoostingSpec()) < 1.6e9
