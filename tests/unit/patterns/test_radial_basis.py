from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffractory.errors import DiffractoryError
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import feature_names, radial_basis, scale_total
from diffractory.specs import RadialBasisSpec

SPEC = RadialBasisSpec(ring_width=0.1, n_rings=7, n_orders=5)
N = SPEC.n_rings * SPEC.n_orders


def random_table(seed: int, counts: list[int], q_max: float = 0.8) -> PeakTable:
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    q = generator.uniform(-q_max, q_max, (int(offsets[-1]), 2))
    direct = np.where(np.array(counts) > 0, offsets[:-1], -1)
    return PeakTable(q, generator.random(len(q)), offsets, direct)


def reference_coefficients(table: PeakTable, spec: RadialBasisSpec) -> np.ndarray:
    """The formula of the module, word by word, of shape (n_patterns, n_rings, n_orders)."""
    centres = np.arange(spec.n_rings) * spec.ring_width
    coefficients = np.zeros((len(table), spec.n_rings, spec.n_orders), dtype=complex)
    for index in range(len(table)):
        q, intensity = table.pattern(index)
        keep = np.arange(len(q)) + table.offsets[index] != table.direct[index]
        radius, angle = np.hypot(*q[keep].T), np.arctan2(q[keep][:, 1], q[keep][:, 0])
        rings = np.maximum(0.0, 1.0 - np.abs(radius[:, None] - centres) / spec.ring_width)
        waves = np.exp(1j * angle[:, None] * np.arange(spec.n_orders))
        coefficients[index] = np.einsum("j,jn,jm->nm", intensity[keep], rings, waves)
    return coefficients


def coefficients_of(features: np.ndarray, spec: RadialBasisSpec) -> np.ndarray:
    magnitude, argument = features.astype(float).reshape(-1, 2, spec.n_rings, spec.n_orders).swapaxes(0, 1)
    return magnitude * np.exp(1j * argument)


@pytest.mark.parametrize(
    "spec", [SPEC, RadialBasisSpec(), RadialBasisSpec(ring_width=0.05, n_rings=1, n_orders=1)]
)
def test_agrees_with_the_formula(spec: RadialBasisSpec):
    table = random_table(3, [40, 0, 1, 2, 120], q_max=1.6)
    features = radial_basis(table, spec)
    assert features.dtype == np.float32
    assert features.shape == (5, spec.n_features)
    expected = reference_coefficients(table, spec)
    np.testing.assert_allclose(coefficients_of(features, spec), expected, rtol=2e-6, atol=2e-6)
    magnitudes = features[:, : features.shape[1] // 2]
    np.testing.assert_allclose(magnitudes, np.abs(expected).reshape(5, -1), rtol=1e-6, atol=1e-12)


def test_default_has_the_papers_1066_features():
    assert radial_basis(random_table(0, [10])).shape == (1, 1066)


def test_one_peak_by_hand():
    angle = 0.7
    peak = 0.23 * np.array([np.cos(angle), np.sin(angle)])
    table = PeakTable(peak[None], np.array([2.0]), np.array([0, 1]), np.array([-1]))
    magnitude, argument = radial_basis(table, SPEC).reshape(2, SPEC.n_rings, SPEC.n_orders)
    np.testing.assert_allclose(magnitude[2], 2.0 * 0.7, rtol=1e-6)
    np.testing.assert_allclose(magnitude[3], 2.0 * 0.3, rtol=1e-6)
    assert not magnitude[[0, 1, 4, 5, 6]].any()
    np.testing.assert_allclose(argument[2, :4], angle * np.arange(4), rtol=1e-6)


def test_direct_beam_is_left_out_even_away_from_the_origin():
    table = random_table(1, [12], q_max=0.45)
    without = PeakTable(table.q[1:], table.intensity[1:], np.array([0, 11]), np.array([-1]))
    np.testing.assert_array_equal(radial_basis(table, SPEC), radial_basis(without, SPEC))
    assert not np.array_equal(
        radial_basis(table, SPEC),
        radial_basis(PeakTable(table.q, table.intensity, table.offsets, np.array([-1])), SPEC),
    )


def test_a_coefficient_that_cancels_is_zero_with_argument_zero():
    angles = np.arange(4) * np.pi / 2.0 + 0.3
    q = 0.2 * np.column_stack([np.cos(angles), np.sin(angles)])
    table = PeakTable(q, np.full(4, 0.1), np.array([0, 4]), np.array([-1]))
    magnitude, argument = radial_basis(table, SPEC).reshape(2, SPEC.n_rings, SPEC.n_orders)
    assert magnitude[2, 1:4].tolist() == [0.0, 0.0, 0.0]
    assert argument[2, 1:4].tolist() == [0.0, 0.0, 0.0]
    assert magnitude[2, 4] == pytest.approx(0.4)
    assert argument[2, 4] == pytest.approx(1.2)


def test_peaks_beyond_the_last_ring_do_not_count():
    table = PeakTable(np.array([[0.701, 0.0], [50.0, 0.0]]), np.ones(2), np.array([0, 2]), np.array([-1]))
    assert not radial_basis(table, SPEC).any()


def test_each_pattern_stands_for_itself():
    table = random_table(5, [9, 4, 0, 30])
    features = radial_basis(table, SPEC)
    np.testing.assert_array_equal(radial_basis(table.take([3, 1]), SPEC), features[[3, 1]])
    assert not features[2].any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), angle=st.floats(-10.0, 10.0))
def test_in_plane_rotation_keeps_magnitudes_and_shifts_arguments(seed: int, angle: float):
    table = random_table(seed, [25])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = PeakTable(table.q @ rotation.T, table.intensity, table.offsets, table.direct)
    before, after = radial_basis(table, SPEC), radial_basis(turned, SPEC)
    np.testing.assert_allclose(after[:, :N], before[:, :N], rtol=1e-5, atol=1e-6)
    phases = np.tile(np.exp(1j * angle * np.arange(SPEC.n_orders)), (SPEC.n_rings, 1))
    shifted = coefficients_of(before, SPEC) * phases
    np.testing.assert_allclose(coefficients_of(after, SPEC), shifted, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e6))
def test_magnitudes_are_linear_in_intensity_and_arguments_do_not_change(seed: int, scale: float):
    table = random_table(seed, [20])
    scaled = PeakTable(table.q, table.intensity * scale, table.offsets, table.direct)
    before, after = radial_basis(table, SPEC), radial_basis(scaled, SPEC)
    np.testing.assert_allclose(after[:, :N], before[:, :N] * scale, rtol=1e-5)
    large = before[:, :N] > 1e-6
    turn = np.angle(np.exp(1j * (after[:, N:] - before[:, N:]).astype(float)))
    np.testing.assert_allclose(turn[large], 0.0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_order_of_the_peaks_does_not_matter(seed: int):
    table = random_table(seed, [30])
    order = np.random.default_rng(seed).permutation(30)
    direct = np.array([int(np.flatnonzero(order == 0)[0])])
    shuffled = PeakTable(table.q[order], table.intensity[order], table.offsets, direct)
    before, after = radial_basis(table, SPEC), radial_basis(shuffled, SPEC)
    np.testing.assert_allclose(coefficients_of(after, SPEC), coefficients_of(before, SPEC), atol=2e-6)


def test_not_finite_peaks_are_refused_with_their_place():
    table = random_table(0, [3, 4])
    q = table.q.copy()
    q[5, 1] = np.nan
    with pytest.raises(DiffractoryError, match=r"peak 2 of pattern 1 .* finite positions"):
        radial_basis(PeakTable(q, table.intensity, table.offsets, table.direct))
    intensity = table.intensity.copy()
    intensity[0] = np.inf
    with pytest.raises(DiffractoryError, match="peak 0 of pattern 0"):
        radial_basis(PeakTable(table.q, intensity, table.offsets, table.direct))


def test_feature_names_follow_the_columns():
    names = feature_names(SPEC)
    assert len(names) == len(set(names)) == SPEC.n_features
    assert names[:2] == ("magnitude_n0_m0", "magnitude_n0_m1")
    assert names[SPEC.n_orders] == "magnitude_n1_m0"
    assert names[N + 2 * SPEC.n_orders + 3] == "argument_n2_m3"


def test_scale_total_counts_the_direct_beam_and_leaves_empty_patterns():
    table = PeakTable.from_lists(
        [np.zeros((2, 2)), np.empty((0, 2)), np.ones((2, 2))],
        [np.array([900.0, 100.0]), np.empty(0), np.zeros(2)],
        [0, -1, -1],
    )
    scaled = scale_total(table)
    np.testing.assert_allclose(scaled.intensity, [0.27, 0.03, 0.0, 0.0])
    np.testing.assert_array_equal(scaled.direct, table.direct)
    np.testing.assert_array_equal(scaled.q, table.q)
    assert scale_total(table, total=1.0).intensity[0] == pytest.approx(0.9)
