from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffractory.errors import DiffractoryError, SpecError
from diffractory.patterns.lab_protocol import apply_lab_protocol, draw_thickness
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import LabProtocolSpec

#: Changes nothing: every test switches one effect on.
IDEAL = {
    "intensity_floor": 0.0,
    "position_sigma": 0.0,
    "electrons": 1e20,
    "scale_error": 0.0,
    "ellipticity": 0.0,
    "rotate": False,
}


def make_table(n_patterns: int = 6, n_peaks: int = 40) -> PeakTable:
    generator = np.random.default_rng(11)
    q = generator.uniform(-1.5, 1.5, (n_patterns * n_peaks, 2))
    intensity = generator.uniform(0.0, 1.0, len(q)) ** 8 * 0.3 + 1e-6
    offsets = np.arange(n_patterns + 1) * n_peaks
    q[offsets[:-1]], intensity[offsets[:-1]] = 0.0, 0.5
    return PeakTable(q, intensity, offsets, offsets[:-1].copy())


def apply(table: PeakTable, **effects: float) -> PeakTable:
    return apply_lab_protocol(table, LabProtocolSpec(**(IDEAL | effects)), np.arange(len(table)) + 100)


def radii(table: PeakTable) -> np.ndarray:
    return np.hypot(*table.q.T)


def test_without_effects_nothing_changes():
    table = make_table()
    result = apply(table)
    np.testing.assert_allclose(result.q, table.q, atol=1e-15)
    np.testing.assert_allclose(result.intensity, table.intensity, rtol=1e-12)
    np.testing.assert_array_equal(result.direct, table.direct)


def test_rotation_is_one_random_angle_for_each_pattern():
    table = make_table(200, 5)
    result = apply(table, rotate=True)
    np.testing.assert_allclose(radii(result), radii(table), atol=1e-12)
    turned, start = (t.q[:, 0] + 1j * t.q[:, 1] for t in (result, table))
    angles = np.angle(turned.reshape(200, 5)[:, 1:] / start.reshape(200, 5)[:, 1:])
    np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * angles[:, :1]) * np.ones((1, 4)), atol=1e-9)
    # Uniform over the whole circle: the mean direction of 200 angles is short.
    assert abs(np.exp(1j * angles[:, 0]).mean()) < 0.2
    assert np.histogram(angles[:, 0], bins=4, range=(-np.pi, np.pi))[0].min() > 25


def test_scale_error_is_one_factor_within_its_bounds():
    table = make_table(300, 4)
    factors = (
        radii(apply(table, scale_error=0.05)) / np.where(radii(table) > 0, radii(table), np.nan)
    ).reshape(300, 4)
    np.testing.assert_allclose(factors[:, 1:], factors[:, 1:2] * np.ones((1, 3)), rtol=1e-10)
    assert 0.95 <= factors[:, 1].min() < 0.96
    assert 1.04 < factors[:, 1].max() <= 1.05


def test_ellipticity_stretches_an_axis_and_keeps_the_area():
    angles = np.arange(3600) * np.pi / 1800
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    table = PeakTable(np.tile(circle, (20, 1)), np.ones(72000), np.arange(21) * 3600, np.full(20, -1))
    stretched = radii(apply(table, ellipticity=0.1)).reshape(20, 3600)
    largest, smallest = stretched.max(axis=1), stretched.min(axis=1)
    np.testing.assert_allclose(largest * smallest, 1.0, atol=1e-6)
    ratios = largest / smallest - 1.0
    assert ratios.max() <= 0.1 + 1e-6
    assert ratios.max() > 0.06
    assert len(np.unique(stretched.argmax(axis=1) % 1800)) > 15


def test_position_noise_has_its_standard_deviation():
    table = make_table(50, 100)
    deviation = apply(table, position_sigma=0.01).q - table.q
    np.testing.assert_allclose(deviation.std(axis=0), 0.01, rtol=0.05)
    np.testing.assert_allclose(deviation.mean(axis=0), 0.0, atol=0.001)


def test_poisson_noise_has_the_variance_of_its_mean():
    table = PeakTable(np.ones((5000, 2)), np.full(5000, 0.02), np.arange(5001), np.full(5000, -1))
    counts = apply(table, electrons=1e4).intensity * 1e4
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
    assert counts.mean() == pytest.approx(200.0, rel=0.01)
    assert counts.var() == pytest.approx(200.0, rel=0.1)


def test_spots_are_lost_by_true_intensity_and_the_direct_beam_moves_along():
    q = np.column_stack([np.arange(6.0), np.zeros(6)])
    intensity = np.array([1e-5, 1e-3, 0.5, 1e-4, 2e-5, 0.0])
    table = PeakTable(q, intensity, np.array([0, 3, 6]), np.array([2, 4]))
    result = apply(table, intensity_floor=1e-4)
    assert result.q[:, 0].round().tolist() == [1.0, 2.0, 3.0]
    assert result.offsets.tolist() == [0, 2, 3]
    assert result.direct.tolist() == [1, -1]
    assert result.intensity[1] == pytest.approx(0.5)


def test_spots_without_an_electron_are_lost():
    table = PeakTable(np.ones((2000, 2)), np.full(2000, 1e-3), np.array([0, 2000]), np.array([-1]))
    result = apply(table, electrons=1e3)
    assert (result.intensity > 0).all()
    assert 0.58 < len(result.intensity) / 2000 < 0.68  # 1 - exp(-1)


@settings(max_examples=25, deadline=None)
@given(chosen=st.lists(st.integers(0, 5), max_size=8))
def test_a_pattern_depends_only_on_its_own_seed(chosen: list[int]):
    table, spec = make_table(), LabProtocolSpec()
    seeds = np.array([3, 2**64 - 1, 0, 17, 17, 2**40], dtype=np.uint64)
    whole = apply_lab_protocol(table, spec, seeds).take(chosen)
    part = apply_lab_protocol(table.take(chosen), spec, seeds[chosen])
    for name in ("q", "intensity", "offsets", "direct"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))


def test_another_seed_gives_another_pattern():
    table = make_table(1)
    first, second = (apply_lab_protocol(table, LabProtocolSpec(), [seed]) for seed in (1, 2))
    assert not np.array_equal(first.q[:3], second.q[:3])


def test_switching_rotation_off_leaves_the_other_effects():
    table = make_table()
    turned, straight = apply(table, scale_error=0.1, rotate=True), apply(table, scale_error=0.1)
    np.testing.assert_allclose(radii(turned), radii(straight), atol=1e-12)


def test_each_pattern_has_its_own_position_noise_within_the_spread():
    table = make_table(300, 60)
    result = apply(table, position_sigma=0.004, position_spread=3.0)
    sigma = (result.q - table.q).reshape(300, -1).std(axis=1)
    # Estimated from 120 numbers each: good to 7 %.
    assert sigma.min() > 0.004 / 3.0 * 0.75
    assert sigma.max() < 0.004 * 3.0 * 1.25
    assert np.median(sigma) == pytest.approx(0.004, rel=0.2)
    assert np.histogram(np.log(sigma / 0.004), bins=4, range=(-np.log(3.0), np.log(3.0)))[0].min() > 45


def test_a_spread_leaves_the_other_effects():
    table, effects = make_table(), {"scale_error": 0.1, "rotate": True, "electrons": 1e5}
    one, other = apply(table, **effects), apply(table, position_spread=3.0, **effects)
    np.testing.assert_array_equal(other.q, one.q)
    np.testing.assert_array_equal(other.intensity, one.intensity)


def test_patterns_that_are_only_turned_keep_lengths_and_intensities():
    table = make_table()
    result = apply_lab_protocol(table, LabProtocolSpec.turned(200.0), np.arange(len(table)))
    np.testing.assert_allclose(radii(result), radii(table), atol=1e-12)
    np.testing.assert_allclose(result.intensity, table.intensity, rtol=1e-3)
    assert not np.allclose(result.q, table.q)
    assert draw_thickness((100.0, 200.0, 300.0), LabProtocolSpec.turned(200.0), [1, 2]).tolist() == [1, 1]


def test_empty_table():
    empty = PeakTable.from_lists([], [], [])
    assert len(apply_lab_protocol(empty, LabProtocolSpec(), np.empty(0, dtype=np.uint64))) == 0


def test_bad_intensities_and_seeds_are_refused():
    table = make_table(2)
    for value in (np.nan, -0.1):
        intensity = table.intensity.copy()
        intensity[3] = value
        bad = PeakTable(table.q, intensity, table.offsets, table.direct)
        with pytest.raises(DiffractoryError, match="negative or not finite"):
            apply_lab_protocol(bad, LabProtocolSpec(), [1, 2])
    with pytest.raises(DiffractoryError, match="2 patterns need as many seeds, got 3"):
        apply_lab_protocol(table, LabProtocolSpec(), [1, 2, 3])
    with pytest.raises(DiffractoryError, match="unsigned integers, got float64"):
        apply_lab_protocol(table, LabProtocolSpec(), [1.0, 2.0])
    with pytest.raises(DiffractoryError, match="unsigned integers"):
        apply_lab_protocol(table, LabProtocolSpec(), [1, -2])


def test_thickness_is_drawn_uniformly_inside_the_range():
    available = np.arange(20.0, 2001.0, 20.0)
    seeds = np.arange(4000, dtype=np.uint64)
    drawn = draw_thickness(available, LabProtocolSpec(), seeds)
    assert available[drawn].min() == 100.0
    assert available[drawn].max() == 500.0
    assert np.bincount(drawn)[4:].min() > 4000 / 21 * 0.7
    np.testing.assert_array_equal(draw_thickness(available, LabProtocolSpec(), seeds[[9, 3]]), drawn[[9, 3]])


def test_a_single_thickness_inside_the_range_is_always_drawn():
    assert draw_thickness((200.0, 900.0), LabProtocolSpec(), [5, 6, 7]).tolist() == [0, 0, 0]


def test_no_thickness_inside_the_range_says_what_to_do():
    with pytest.raises(SpecError, match=r"100 … 500 Å \(simulated: 50, 800\).*Widen thickness_range"):
        draw_thickness([50.0, 800.0], LabProtocolSpec(), [1])
