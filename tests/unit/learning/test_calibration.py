from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ModelError
from diffractory.learning.aggregation import pool_evidence
from diffractory.learning.calibration import Calibration, scaled

CLASSES = 4
FLAT = np.full(CLASSES, 1.0 / CLASSES)


def calibrated(n: int, seed: int = 0, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that mean what they say, and the truth drawn from them."""
    generator = np.random.default_rng(seed)
    logs = scaled(spread * generator.normal(size=(n, CLASSES)), 1.0)
    truth = (np.exp(logs).cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    return logs, truth


def evidence_of(materials: int, per_material: int, *, copies: bool, prior: np.ndarray = FLAT) -> tuple:
    """Posteriors of a shift by one in the true class's direction under unit noise, and their materials."""
    generator = np.random.default_rng(1)
    truth = generator.choice(CLASSES, materials, p=prior)
    noise = generator.normal(size=(materials, 1 if copies else per_material, CLASSES))
    seen = np.broadcast_to(np.eye(CLASSES)[truth][:, None] + noise, (materials, per_material, CLASSES))
    logs = scaled(seen.reshape(-1, CLASSES) + np.log(prior), 1.0)
    return logs, np.repeat(truth, per_material), np.repeat(np.arange(materials), per_material)


def test_scaling_by_hand():
    logs = np.log([[0.9, 0.1], [0.5, 0.5]])
    np.testing.assert_allclose(np.exp(scaled(logs, 2.0)), [[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(np.exp(scaled(logs, 0.5))[0], [81 / 82, 1 / 82])
    np.testing.assert_allclose(scaled(logs, 1.0), logs)
    # Far below what an exponential can hold.
    np.testing.assert_allclose(scaled(np.array([[-5000.0, -5000.0]]), 1.0), np.log([[0.5, 0.5]]))


@pytest.mark.parametrize("overconfident", [0.5, 1.0, 2.0, 3.5])
def test_the_temperature_of_overconfident_probabilities_is_recovered(overconfident: float):
    logs, truth = calibrated(20_000)
    found = Calibration.fit(scaled(logs, 1.0 / overconfident), truth, np.arange(len(truth)), FLAT)
    assert found.temperature == pytest.approx(overconfident, rel=0.05)


def test_temperatures_stay_within_a_factor_of_five():
    logs, truth = calibrated(4000)
    for overconfident, expected in ((20.0, 5.0), (0.05, 0.2)):
        found = Calibration.fit(scaled(logs, 1.0 / overconfident), truth, np.arange(len(truth)), FLAT)
        assert found.temperature == pytest.approx(expected, rel=0.01)


def test_without_several_patterns_of_a_material_the_dependence_stays_at_its_default():
    logs, truth = calibrated(500)
    assert Calibration.fit(logs, truth, np.arange(500), FLAT).dependence == Calibration().dependence
    twice = Calibration.fit(logs, truth, np.arange(500) // 2, FLAT)
    assert twice.dependence == Calibration().dependence


def test_independent_patterns_have_no_dependence():
    found = Calibration.fit(*evidence_of(300, 30, copies=False), FLAT)
    assert found.dependence < 0.05
    assert found.temperature == pytest.approx(1.0, abs=0.1)


def test_copies_of_one_pattern_depend_on_each_other_entirely():
    found = Calibration.fit(*evidence_of(300, 30, copies=True), FLAT)
    assert found.dependence > 0.95


def test_patterns_that_share_half_of_their_noise_lie_in_between():
    generator = np.random.default_rng(3)
    truth = generator.integers(CLASSES, size=300)
    shared = generator.normal(size=(300, 1, CLASSES))
    own = generator.normal(size=(300, 30, CLASSES))
    seen = np.eye(CLASSES)[truth][:, None] + np.sqrt(0.5) * shared + np.sqrt(0.5) * own
    logs = scaled(seen.reshape(-1, CLASSES), 1.0)
    found = Calibration.fit(logs, np.repeat(truth, 30), np.repeat(np.arange(300), 30), FLAT)
    assert 0.4 < found.dependence < 0.95


def test_dependence_is_found_under_an_uneven_prior():
    prior = np.array([0.6, 0.2, 0.15, 0.05])
    assert Calibration.fit(*evidence_of(300, 30, copies=False, prior=prior), prior).dependence < 0.1
    assert Calibration.fit(*evidence_of(300, 30, copies=True, prior=prior), prior).dependence > 0.9


def test_the_order_of_patterns_and_the_names_of_materials_hardly_matter():
    logs, truth, materials = evidence_of(120, 12, copies=False)
    order = np.random.default_rng(0).permutation(len(truth))
    first = Calibration.fit(logs, truth, materials, FLAT)
    second = Calibration.fit(logs[order], truth[order], 7 * materials[order] + 3, FLAT)
    assert second.temperature == pytest.approx(first.temperature, rel=1e-6)
    assert second.dependence == pytest.approx(first.dependence, abs=0.15)
    assert Calibration.fit(logs, truth, materials, FLAT) == first


@pytest.mark.parametrize(
    "values", [(0.0, 0.5), (-1.0, 0.5), (np.nan, 0.5), (101.0, 0.5), (1.0, -0.1), (1.0, 1.1), (1.0, np.nan)]
)
def test_a_calibration_out_of_range_is_refused(values: tuple[float, float]):
    with pytest.raises(ModelError, match="out of range"):
        Calibration(*values)


def test_pooled_evidence_by_hand():
    logs = np.log([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
    groups, independent = pool_evidence(logs, [7, 7, 3], [0.5, 0.5], 0.0)
    assert groups.tolist() == [3, 7]
    # Odds 4 and 1.5 multiply to 6; their mean evidence has odds √6.
    np.testing.assert_allclose(independent, [[0.5, 0.5], [6 / 7, 1 / 7]])
    _, alike = pool_evidence(logs, [7, 7, 3], [0.5, 0.5], 1.0)
    np.testing.assert_allclose(alike[1], [6**0.5 / (1 + 6**0.5), 1 / (1 + 6**0.5)])
    # Under a prior with odds ¼ the evidence has odds 16 and 6: 96 × ¼ in all.
    _, uneven = pool_evidence(logs[:2], [0, 0], [0.2, 0.8], 0.0)
    np.testing.assert_allclose(uneven, [[24 / 25, 1 / 25]])


@given(
    seed=st.integers(0, 2**32 - 1),
    dependence=st.floats(0.0, 1.0),
    n_classes=st.integers(1, 7),
    n=st.integers(1, 9),
)
def test_one_pattern_alone_is_itself_and_copies_that_depend_entirely_too(
    seed: int, dependence: float, n_classes: int, n: int
):
    generator = np.random.default_rng(seed)
    probability = generator.dirichlet(np.full(n_classes, 0.8)) * 0.999 + 0.001 / n_classes
    prior = generator.dirichlet(np.full(n_classes, 5.0)) * 0.9 + 0.1 / n_classes
    alone = pool_evidence(np.log(probability)[None], ["a"], prior, dependence)[1]
    np.testing.assert_allclose(alone, probability[None], rtol=1e-6, atol=1e-11)
    copies = pool_evidence(np.tile(np.log(probability), (n, 1)), np.zeros(n), prior, 1.0)[1]
    np.testing.assert_allclose(copies, probability[None], rtol=1e-6, atol=1e-11)


@given(
    prior=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6),
    n=st.integers(1, 20),
    dependence=st.floats(0.0, 1.0),
)
def test_patterns_that_say_nothing_leave_the_prior(prior: list[float], n: int, dependence: float):
    before = np.array(prior) / np.sum(prior)
    pooled = pool_evidence(np.tile(np.log(before), (n, 1)), np.zeros(n, int), before, dependence)[1]
    np.testing.assert_allclose(pooled, before[None], rtol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), dependence=st.floats(0.0, 1.0), factor=st.floats(-50.0, 50.0))
def test_groups_are_independent_and_the_order_and_scale_do_not_matter(
    seed: int, dependence: float, factor: float
):
    generator = np.random.default_rng(seed)
    logs, groups = np.log(generator.dirichlet(np.ones(3), 20) + 1e-9), generator.integers(4, size=20)
    prior = generator.dirichlet(np.full(3, 5.0)) * 0.9 + 0.1 / 3
    ids, pooled = pool_evidence(logs, groups, prior, dependence)
    assert ids.tolist() == sorted(set(groups.tolist()))
    np.testing.assert_allclose(pooled.sum(axis=1), 1.0)
    order = generator.permutation(20)
    np.testing.assert_allclose(
        pool_evidence(logs[order] + factor, groups[order], prior, dependence)[1],
        pooled,
        rtol=1e-6,
        atol=1e-11,
    )
    only = groups == ids[0]
    np.testing.assert_allclose(
        pool_evidence(logs[only], groups[only], prior, dependence)[1], pooled[:1], rtol=1e-6, atol=1e-11
    )


def test_nothing_is_ever_impossible():
    logs = np.tile([0.0, -700.0], (50, 1))
    pooled = pool_evidence(logs, np.zeros(50), [0.5, 0.5], 0.0)[1]
    assert np.isfinite(np.log(pooled)).all()
    assert pooled[0, 1] == pytest.approx(1e-12, rel=1e-6)


def test_no_patterns_are_no_groups():
    groups, pooled = pool_evidence(np.empty((0, 3)), [], [0.2, 0.3, 0.5], 0.5)
    assert groups.shape == (0,)
    assert pooled.shape == (0, 3)


@pytest.mark.parametrize(
    ("logs", "groups", "prior"),
    [
        (np.zeros((2, 3)), [0], [0.3, 0.3, 0.4]),
        (np.zeros((2, 3)), [0, 0, 0], [0.3, 0.3, 0.4]),
        (np.zeros((2, 3)), [0, 0], [0.5, 0.5]),
        (np.zeros((2, 3)), [0, 0], [[0.3, 0.3, 0.4]]),
        (np.zeros(3), [0, 0, 0], [0.3, 0.3, 0.4]),
        (np.zeros((2, 3)), [[0, 0]], [0.3, 0.3, 0.4]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logs: np.ndarray, groups: list, prior: list):
    with pytest.raises(ModelError, match=r"log-probabilities with .* groups and a prior"):
        pool_evidence(logs, groups, prior, 0.5)
