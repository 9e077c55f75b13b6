from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ModelError
from diffractory.learning.aggregation import aggregate_labels, difference_confidence
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.learning.system_hierarchy import SystemVotes
from diffractory.specs import ForestSpec

SPEC = ForestSpec(system_trees=12, group_trees=10, lattice_trees=8, seed=4)
GROUPS = ((1, 2), (4, 14), (16, 62), (99, 123), (146, 166), (168, 194), (216, 225))


def make_data(n: int = 420, codes: tuple[int, ...] = tuple(range(7))) -> tuple[np.ndarray, Targets]:
    """Features that show system, space group and a; the other features are noise."""
    generator = np.random.default_rng(1)
    system = np.array(codes)[np.arange(n) % len(codes)]
    which = np.arange(n) // len(codes) % 2
    group = np.array(GROUPS)[system, which]
    lattice = np.sort(generator.uniform(3.0, 9.0, (n, 3)), axis=1)
    X = generator.random((n, 8)).astype(np.float32)
    X[:, 0] += system
    X[:, 1] = which
    X[:, 2] = lattice[:, 0]
    return X, Targets.from_labels(system, group, lattice)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, Targets]:
    return make_data()


@pytest.fixture(scope="module")
def model(data: tuple[np.ndarray, Targets]) -> SymmetryHierarchy:
    return SymmetryHierarchy(SPEC).fit(*data)


def test_six_systems_make_thirteen_forests(model: SymmetryHierarchy):
    assert model.n_models_ == 13
    assert model.systems_.tolist() == [1, 2, 3, 4, 5, 6]
    assert list(model.skipped_) == ["triclinic"]
    assert "with_triclinic" in model.skipped_["triclinic"]
    assert model.n_features_in_ == 8
    assert model.system_forest_.trees_.n_trees == 12
    assert {forest.trees_.n_trees for forest in model.group_forests_.values()} == {10}
    assert {forest.trees_.n_trees for forest in model.lattice_forests_.values()} == {8}


def test_triclinic_can_be_learned_and_leaves_the_other_forests_alone(model: SymmetryHierarchy, data):
    with_triclinic = SymmetryHierarchy(SPEC.model_copy(update={"with_triclinic": True})).fit(*data)
    assert with_triclinic.n_models_ == 15
    assert with_triclinic.systems_.tolist() == list(range(7))
    assert with_triclinic.skipped_ == {}
    np.testing.assert_array_equal(
        with_triclinic.group_forests_[6].votes(data[0]), model.group_forests_[6].votes(data[0])
    )


def test_votes_of_the_crystal_system(model: SymmetryHierarchy, data):
    X, targets = data
    result, votes = model.vote_systems(X), model.system_forest_.votes(X)
    assert result.share.shape == (420, 6)
    assert result.share.dtype == np.float64
    assert result.system.dtype == np.int8
    np.testing.assert_array_equal(result.share, votes / 12)
    np.testing.assert_array_equal(result.system, model.systems_[votes.argmax(axis=1)])
    np.testing.assert_array_equal(result.confidence, votes.max(axis=1) / 12)
    np.testing.assert_array_equal(result.difference, difference_confidence(votes))
    np.testing.assert_array_equal(model.predict(X), result.system)
    learned = targets.system > 0
    assert np.mean(result.system[learned] == targets.system[learned]) > 0.95
    assert not np.isin(result.system, 0).any()


def test_the_largest_share_wins_and_the_lower_code_a_tie():
    share = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
    votes = SystemVotes.from_share(share, np.array([1, 3, 6], dtype=np.int8))
    assert votes.share is share
    assert votes.system.tolist() == [3, 1, 6]
    assert votes.system.dtype == np.int8
    assert votes.confidence.tolist() == [0.5, 0.4, 1.0]
    np.testing.assert_allclose(votes.difference, [0.2, 0.0, 1.0])


@pytest.mark.parametrize("chosen", [np.array([2, 0]), np.array([True, False, True])])
def test_votes_of_chosen_patterns(chosen: np.ndarray):
    share = np.array([[0.2, 0.8], [0.4, 0.6], [1.0, 0.0]])
    votes = SystemVotes.from_share(share, np.array([3, 6], dtype=np.int8))
    taken = votes.take(chosen)
    for name in ("share", "system", "confidence", "difference"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(votes, name)[chosen])


def test_groups_are_pooled_by_the_rule_of_the_paper(model: SymmetryHierarchy, data):
    votes, groups = model.vote_systems(data[0]), np.arange(420) // 7
    pooled = model.pool_systems(votes, groups)
    expected = aggregate_labels(votes.system, votes.difference, groups)
    for name in ("groups", "label", "confidence"):
        np.testing.assert_array_equal(getattr(pooled, name), getattr(expected, name))


def test_the_space_groups_told_apart_are_known(model: SymmetryHierarchy):
    assert {code: classes.tolist() for code, classes in model.group_classes_.items()} == {
        code: list(GROUPS[code]) for code in range(1, 7)
    }


def test_within_a_system_the_models_of_that_system_answer(model: SymmetryHierarchy, data):
    X, targets = data
    within = model.predict_within(X, targets.system)
    triclinic = targets.system == 0
    assert within.space_group.dtype == np.int16
    assert np.mean((within.space_group == targets.space_group)[~triclinic]) > 0.9
    assert np.median(np.abs(within.lattice - targets.lattice)[~triclinic, 0]) < 0.5
    assert (within.group_confidence[~triclinic] >= within.group_difference[~triclinic]).all()
    np.testing.assert_array_equal(
        within.lattice[targets.system == 6], model.lattice_forests_[6].predict(X[targets.system == 6])
    )
    # Not learned: no answer, instead of that of another system.
    assert not within.space_group[triclinic].any()
    assert not within.group_confidence[triclinic].any()
    assert np.isnan(within.lattice[triclinic]).all()


def test_without_a_system_there_is_no_answer(model: SymmetryHierarchy, data):
    codes = np.full(420, -1)
    codes[3] = 6
    within = model.predict_within(data[0], codes)
    assert np.flatnonzero(within.space_group).tolist() == [3]
    assert np.flatnonzero(~np.isnan(within.lattice).any(axis=1)).tolist() == [3]
    assert np.flatnonzero(within.group_difference > 0).tolist() in ([3], [])


def test_predictions_are_the_same_row_by_row(model: SymmetryHierarchy, data):
    X = data[0]
    whole, rows = model.vote_systems(X), [5, 300, 17]
    np.testing.assert_array_equal(model.vote_systems(X[rows]).share, whole.share[rows])
    all_cubic = model.predict_within(X, np.full(420, 6))
    part = model.predict_within(X[rows], [6, 6, 6])
    np.testing.assert_array_equal(part.lattice, all_cubic.lattice[rows])


def test_training_is_reproducible_and_cloneable(model: SymmetryHierarchy, data):
    again = clone(model).fit(*data)
    np.testing.assert_array_equal(again.vote_systems(data[0]).share, model.vote_systems(data[0]).share)
    other = SymmetryHierarchy(SPEC.model_copy(update={"seed": 5})).fit(*data)
    assert not np.array_equal(other.vote_systems(data[0]).share, model.vote_systems(data[0]).share)


def test_a_system_with_one_material_gets_no_models_of_its_own():
    X, targets = make_data(60, (3, 6))
    materials = np.where(targets.system == 6, np.arange(60), 7)
    model = SymmetryHierarchy(SPEC).fit(X, targets, materials)
    assert model.n_models_ == 3
    assert model.systems_.tolist() == [3, 6]
    assert model.skipped_ == {"tetragonal": "fewer than two materials to learn space groups from"}
    within = model.predict_within(X, targets.system)
    assert not within.space_group[targets.system == 3].any()


def test_a_system_with_one_space_group_is_a_constant():
    X, targets = make_data(60, (3, 6))
    targets = Targets(targets.system, np.where(targets.system == 6, 225, 123), targets.lattice)
    within = SymmetryHierarchy(SPEC).fit(X, targets).predict_within(X, targets.system)
    np.testing.assert_array_equal(within.space_group, targets.space_group)
    assert (within.group_difference == 1.0).all()


def test_training_summary_is_what_was_seen(model: SymmetryHierarchy, data):
    targets = data[1]
    cubic = targets.system == 6
    assert set(model.training_) == {1, 2, 3, 4, 5, 6}
    assert model.training_[6].n_patterns == 60
    assert model.training_[6].majority_group == 216
    np.testing.assert_allclose(model.training_[6].median_lattice, np.median(targets.lattice[cubic], axis=0))


def test_one_system_alone_says_what_to_do():
    for codes in ((6,), (0, 6), (0,)):
        X, targets = make_data(20, codes)
        with pytest.raises(ModelError, match=r"at least two.*materials of more .*--with-triclinic"):
            SymmetryHierarchy(SPEC).fit(X, targets)


@pytest.mark.parametrize("group", [[225, np.nan], [225, 225.7], [225, None], ["225", "225"]])
def test_space_groups_that_are_no_whole_numbers_are_refused(group: list):
    with pytest.raises(ModelError, match="a space group is missing, or is no whole number"):
        Targets.from_labels(["cubic"] * 2, group, np.ones((2, 3)))


def test_bad_input_is_refused(model: SymmetryHierarchy, data):
    X, targets = data
    with pytest.raises(ModelError, match=r"420 rows of features, 20 targets"):
        SymmetryHierarchy(SPEC).fit(X, targets.take(np.arange(20)))
    with pytest.raises(ModelError, match="is not trained"):
        SymmetryHierarchy(SPEC).vote_systems(X)
    with pytest.raises(ModelError, match="is not trained"):
        SymmetryHierarchy(SPEC).predict_within(X, targets.system)
    with pytest.raises(ModelError, match="trained on 8 features, got 3"):
        model.vote_systems(X[:, :3])
    with pytest.raises(ModelError, match="trained on 8 features, got 3"):
        model.predict_within(X[:, :3], targets.system)
    for codes in (np.full(420, 7), np.full(420, -2), np.zeros(3)):
        with pytest.raises(ModelError, match="a code from -1"):
            model.predict_within(X, codes)


def test_targets_from_names_or_codes_with_sorted_orthorhombic_axes():
    names = ["orthorhombic", "tetragonal"]
    lattice = np.array([[9.0, 4.0, 6.0], [9.0, 9.0, 4.0]])
    targets = Targets.from_labels(names, [62, 123], lattice)
    assert targets.system.tolist() == [2, 3]
    assert targets.lattice.tolist() == [[4.0, 6.0, 9.0], [9.0, 9.0, 4.0]]
    assert lattice[0, 0] == 9.0, "the caller's array is left alone"
    by_code = Targets.from_labels(np.array([2, 3]), [62, 123], lattice)
    assert by_code.system.tolist() == [2, 3]
    as_objects = Targets.from_labels(np.array(names, dtype=object), [62, 123], lattice)
    assert as_objects.system.dtype == np.int8
    assert len(targets.take(np.array([True, False]))) == 1


@pytest.mark.parametrize(
    ("systems", "groups", "lattice", "message"),
    [
        (["kubisch"], [225], np.ones((1, 3)), "'kubisch' is no crystal system. Use triclinic, "),
        ([9], [225], np.ones((1, 3)), "9 is no crystal system"),
        ([1.5], [225], np.ones((1, 3)), "must be names or codes, got float64"),
        (["cubic"], [62], np.ones((1, 3)), "space group 62 is listed under cubic"),
        (["cubic"], [231], np.ones((1, 3)), "space group 231"),
        (["cubic", "tetragonal"], [225, 225], np.ones((2, 3)), "each belongs to one crystal system"),
        (["cubic"], [225], np.zeros((1, 3)), "not a positive number"),
        (["cubic"], [225], np.full((1, 3), np.nan), "not a positive number"),
        (["cubic"], [225, 225], np.ones((1, 3)), r"\(1,\) crystal systems with \(2,\) space groups"),
        (["cubic"], [225], np.ones((1, 2)), r"\(1, 2\) lattices"),
    ],
)
def test_labels_that_do_not_fit_are_refused(systems, groups, lattice, message):
    with pytest.raises(ModelError, match=message):
        Targets.from_labels(systems, groups, lattice)


def test_codes_are_indices_into_the_systems():
    assert Targets.from_labels(
        CRYSTAL_SYSTEMS, [g[0] for g in GROUPS], np.ones((7, 3))
    ).system.tolist() == list(range(7))


def test_it_answers_as_scikit_learn_asks(model: SymmetryHierarchy, data):
    X, _ = data
    probability = model.predict_proba(X)
    assert probability.shape == (len(X), len(model.classes_))
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.classes_[probability.argmax(axis=1)], model.predict(X))
    assert model.classes_.tolist() == model.systems_.tolist()
    check_is_fitted(model)


def test_before_it_is_trained_scikit_learn_is_told_so_in_its_own_terms(data):
    untrained = SymmetryHierarchy(SPEC)
    with pytest.raises(NotFittedError):
        check_is_fitted(untrained)
    for predict in (untrained.predict, untrained.predict_proba, untrained.locate):
        with pytest.raises(
            NotFittedError, match=r"is not trained.*Call fit first, or load a model"
        ) as caught:
            predict(data[0])
        assert isinstance(caught.value, ModelError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))
