import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffractory.patterns.cubic_constant import is_decided, pool_cubic_constants, refine_cubic_constants
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices

#: Primitive reciprocal bases in units of 1/a: of P, F and I lattices, rows h, k, l.
P = np.eye(3)
F = np.array([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])
I = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
YES = np.array([True])


def lattices_of(bases, noise=0.001, seed=0):
    """Lattices of bases (n, 3, 3), rows in Å⁻¹, each turned at random, worst known along the beam."""
    generator = np.random.default_rng(seed)
    turned = []
    for basis in bases:
        # The same lattice in another basis, as a pattern may show it.
        basis = np.array([basis[0], basis[1] + basis[0], basis[2] - basis[1]])
        turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        turned.append(basis @ turn + generator.normal(size=(3, 3)) * [noise, noise, 5.0 * noise])
    n = len(turned)
    ones, zero = np.ones(n), np.zeros(n)
    reciprocal = np.array(turned).reshape(n, 3, 3).transpose(0, 2, 1)
    return SpotLattices(reciprocal, ones, ones, ones, 0.004 * ones, zero, ones, np.zeros((n, 3)), zero)


def spots_of(n):
    """Patterns of 25 spots at radii where none is asked, no two alike: lattices alone are looked at."""
    q = np.random.default_rng(4).uniform(2.0, 4.0, (n, 25, 2))
    return PeakTable.from_lists(q, np.ones((n, 25)), [-1] * n)


def pooled(lattices, particle=None, wanted=YES, expected=None, peaks=None):
    n = len(lattices.score)
    owner = np.ones(n, np.int32) if particle is None else np.asarray(particle, np.int32)
    return pool_cubic_constants(lattices, spots_of(n) if peaks is None else peaks, owner, wanted, expected)


@pytest.mark.parametrize("basis", [P, F, I], ids="PFI")
@pytest.mark.parametrize("a", [3.6, 5.4, 8.26])
def test_a_is_found_whatever_is_absent(basis, a):
    found = pooled(lattices_of([basis / a] * 10))
    assert found.a[0] == pytest.approx(a, rel=0.005)
    assert found.support[0] == 1.0
    assert found.margin[0] > 10.0


def test_parts_of_the_lattice_tell_the_whole_together():
    a = 8.0
    # Products that are all multiples of 4, of 2 and of 3: each alone tells a smaller constant.
    parts = {
        2.0: 2.0 * P,
        np.sqrt(2.0): np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 2.0]]),
        np.sqrt(3.0): np.array([[1.0, 1.0, 1.0], [1.0, -2.0, 1.0], [3.0, 0.0, -3.0]]),
    }
    for factor, part in parts.items():
        assert pooled(lattices_of([part / a] * 4)).a[0] == pytest.approx(a / factor, rel=0.005)
    assert pooled(lattices_of([part / a for part in parts.values()] * 4)).a[0] == pytest.approx(a, rel=0.005)


def test_wrong_lattices_and_superstructures_do_not_pull():
    a, generator = 5.0, np.random.default_rng(3)
    wrong = generator.normal(size=(4, 3, 3)) * 0.3
    found = pooled(lattices_of([*([P / a] * 8), *wrong]))
    assert found.a[0] == pytest.approx(a, rel=0.005)
    assert found.support[0] == pytest.approx(8 / 12, abs=0.1)
    # Half of the patterns show the doubled cell's weak reflections, half the simple cell's alone.
    doubled = pooled(lattices_of([*([P / a] * 6), *([P / (2.0 * a)] * 6)]))
    assert doubled.a[0] == pytest.approx(2.0 * a, rel=0.005)


def test_each_particle_has_its_own_and_only_those_that_are_wanted():
    lattices = lattices_of([*([P / 4.0] * 5), *([F / 6.0] * 5), *([P / 5.0] * 5)])
    lattices.score[-5:-3] = 0.0  # no lattice was found
    particle = np.repeat([2, 1, 4], 5)
    found = pooled(lattices, particle, np.array([True, True, True, False]))
    np.testing.assert_allclose(found.a, [6.0, 4.0, np.nan, np.nan], rtol=0.005)
    alone = pooled(lattices.take(np.arange(5, 10)))
    assert alone.a[0] == found.a[0]
    assert alone.margin[0] == found.margin[0]
    lattices.score[:] = 0.0
    assert np.isnan(pooled(lattices, particle, np.ones(4, bool)).a).all()
    assert pooled(lattices, np.zeros(15), np.zeros(0, bool)).a.shape == (0,)


def test_many_patterns_are_thinned_out(monkeypatch):
    lattices = lattices_of([P / 4.0] * 40)
    monkeypatch.setattr("diffractory.patterns.cubic_constant._MOST", 7)
    thinned = pooled(lattices)
    chosen = np.linspace(0, 39, 7).round().astype(int)
    assert thinned.margin[0] == pooled(lattices.take(chosen)).margin[0]


def test_what_is_expected_decides_between_whole_factors():
    a = 8.0
    # All products are multiples of 4: nothing here tells a from a/2.
    coarse = lattices_of([2.0 * P / a])
    assert pooled(coarse).a[0] == pytest.approx(a / 2.0, rel=0.01)
    told = pooled(coarse, expected=np.array([7.9]))
    assert told.a[0] == pytest.approx(a, rel=0.01)
    # An unlikely answer of a model does not outweigh ten lattices that agree.
    many = lattices_of([P / a] * 10)
    assert pooled(many, expected=np.array([4.1])).a[0] == pytest.approx(a, rel=0.005)
    np.testing.assert_array_equal(pooled(many, expected=np.array([np.nan])).a, pooled(many).a)


def test_what_is_expected_is_the_answer_where_no_lattice_was_found():
    lattices = lattices_of([P / 5.0] * 3)
    lattices.score[:2] = 0.0
    found = pooled(lattices, [1, 2, 3], np.array([True, False, True]), np.array([4.3, 4.4, 5.02]))
    np.testing.assert_allclose(found.a, [4.3, np.nan, 5.0], rtol=0.005)
    assert np.isnan(found.margin[:2]).all()


@pytest.mark.parametrize("a", [4.001, 4.005, 4.009])
def test_constants_are_told_finer_than_they_are_tried(a):
    # Steps of 0.2 % would be off by up to 0.004 Å; errors of single lattices cancel in two hundred.
    found = pooled(lattices_of([P / a] * 200, noise=0.0002))
    assert found.a[0] == pytest.approx(a, abs=0.0015)


@pytest.mark.parametrize("a", [18.1, 18.15, 18.3, 19.0, 20.0, 23.0])
@pytest.mark.parametrize("patterns", [10, 60])
def test_an_answer_at_the_end_of_the_range_is_none_where_larger_constants_are_likelier(a, patterns):
    for seed in range(3):
        found = pooled(lattices_of([P / a] * patterns, seed=seed))
        assert found.a[0] <= 18.0
        assert found.margin[0] < 0.0


def test_a_constant_near_the_end_of_the_range_is_found():
    within = pooled(lattices_of([P / 17.5] * 10))
    assert within.a[0] == pytest.approx(17.5, rel=0.005)
    assert within.margin[0] > 0.0


def scattered(a, basis, n, seed=0, false=0):
    """Patterns of a dozen points of a lattice in any directions, and as many false spots as told."""
    generator = np.random.default_rng(seed)
    indices = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    radius = np.unique(np.round(np.hypot.reduce(indices @ basis / a, axis=1), 6))
    radius = radius[(radius > 0.05) & (radius < 1.4)]
    q = []
    for _ in range(n):
        length = generator.choice(radius, 12) * generator.normal(1.0, 0.003, 12)
        length = np.append(length, generator.uniform(0.1, 1.4, false))
        angle = generator.uniform(0.0, 2.0 * np.pi, len(length))
        q.append(np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1))
    return PeakTable.from_lists(q, [np.ones(len(each)) for each in q], [-1] * n)


@pytest.mark.parametrize("name", "PFI")
def test_spots_tell_what_wrong_lattices_do_not(name):
    a, basis, generator = 4.2, {"P": P, "F": F, "I": I}[name], np.random.default_rng(1)
    wrong = lattices_of(generator.normal(size=(60, 3, 3)) * 0.3)
    assert not is_decided(pooled(wrong).margin[0])
    found = pooled(wrong, peaks=scattered(a, basis, 60, false=6))
    assert found.a[0] == pytest.approx(a, rel=0.003)
    assert is_decided(found.margin[0])
    assert found.centring[0] == name
    assert 0.65 < found.on_rings[0] < 0.95
    assert found.by_chance[0] < 0.65


def test_spots_of_other_particles_are_not_asked_and_those_without_a_lattice_are():
    lattices = lattices_of([P / 5.0] * 40)
    lattices.score[10:] = 0.0
    nothing = PeakTable.from_lists([np.zeros((1, 2))] * 10, [np.ones(1)] * 10, [0] * 10)
    peaks = PeakTable.concatenate([scattered(5.0, P, 10), scattered(3.3, F, 20, seed=1), nothing])
    alone = pooled(lattices.take(np.arange(10)), peaks=peaks.take(np.arange(10)))
    found = pooled(lattices, np.repeat([1, 2, 2, 3], 10), np.ones(3, bool), peaks=peaks)
    assert found.margin[0] == alone.margin[0]
    assert found.on_rings[0] == alone.on_rings[0]
    # No lattice was read from any pattern of the second particle; the third has no spots either.
    assert found.centring.tolist() == ["P", "F", ""]
    np.testing.assert_allclose(found.a, [5.0, 3.3, np.nan], rtol=0.004)
    assert is_decided(found.margin).tolist() == [True, True, False]
    assert np.isnan(found.support).tolist() == [False, True, True]


@pytest.mark.parametrize("name", "PFI")
@settings(max_examples=15, deadline=None)
@given(a=st.floats(3.0, 9.0), off=st.floats(-0.012, 0.012), seed=st.integers(0, 99))
def test_single_patterns_tell_how_far_they_are_from_their_particle(name, a, off, seed):
    here = scattered(a * (1.0 + off), {"P": P, "F": F, "I": I}[name], 20, seed, false=1)
    found = refine_cubic_constants(here, np.full(20, a), np.full(20, name))
    assert np.nanmedian(found) == pytest.approx(a * (1.0 + off), rel=0.006)
    assert np.all(np.abs(found[np.isfinite(found)] / a - 1.0) < 0.031)


def test_patterns_of_no_such_lattice_keep_what_they_had():
    asked, known = scattered(4.2, F, 30), np.full(60, 4.2)
    mixed = PeakTable.concatenate([asked, scattered(5.43, F, 30, seed=2)])
    found = refine_cubic_constants(mixed, known, np.full(60, "F"))
    np.testing.assert_array_equal(np.isfinite(found[:30]), True)
    assert np.isnan(found[30:]).mean() > 0.8
    alone = refine_cubic_constants(asked, known[:30], np.full(30, "F"))
    np.testing.assert_array_equal(found[:30], alone)


def test_patterns_of_one_grain_are_one_pattern_of_evidence():
    lattices, one = lattices_of([F / 4.2] * 30), scattered(4.2, F, 1)
    repeated = pooled(lattices, peaks=one.take([0] * 30))
    single = pooled(lattices.take([0]), peaks=one)
    assert repeated.patterns.tolist() == single.patterns.tolist() == [1]
    assert repeated.margin[0] < 3.0 * max(single.margin[0], 1.0)
    assert pooled(lattices, peaks=scattered(4.2, F, 30)).margin[0] > 8.0 * single.margin[0]


def test_nothing_is_told_where_nothing_is_known():
    peaks = PeakTable.concatenate(
        [scattered(4.2, F, 3), PeakTable.from_lists([np.zeros((1, 2))], [[1.0]], [0])]
    )
    known = np.array([np.nan, 1.25, 24.9, 4.2])
    assert np.isnan(refine_cubic_constants(peaks, known, np.full(4, "F"))).all()
    assert len(refine_cubic_constants(peaks.take([]), known[:0], np.full(0, "F"))) == 0


def test_an_unknown_margin_decides_nothing():
    assert [bool(is_decided(margin)) for margin in (np.nan, 4.9, 5.0)] == [False, False, True]
    np.testing.assert_array_equal(is_decided([np.nan, 4.9, 5.0]), [False, False, True])
