from dataclasses import replace

import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.learning.aggregation import aggregate_labels, pool_evidence
from diffractory.patterns.cubic_constant import CubicConstants
from diffractory.patterns.cubic_phase import CubicPhase
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.mapping.flags import FLAG_MASKS, flag_texts, particle_flags, position_flags
from diffractory.scan.mapping.label_map import ScanPrediction, summarise, to_dataset
from diffractory.scan.mapping.particle_prediction import (
    ParticlePrediction,
    draw_patterns,
    known_constants,
    pool_particles,
    refine_positions,
)
from diffractory.scan.mapping.particle_table import particle_table, summarise_particles
from diffractory.scan.mapping.position_blocks import WithinBlock
from diffractory.scan.mapping.scan_phase import ScanPhases
from diffractory.specs import MapSpec, ParticleSpec
from particle_examples import PARTICLE, RULE, SHAPE, prediction, scan, votes


def test_ten_are_drawn_of_many_and_all_of_few():
    particle = np.repeat([0, 1, 2, 3], [5, 100, 7, 40])
    drawn = draw_patterns(particle.astype(np.int32), 10, 0)
    assert np.bincount(particle[drawn], minlength=4).tolist() == [0, 10, 7, 10]
    assert np.all(np.diff(drawn) > 0)
    np.testing.assert_array_equal(drawn, draw_patterns(particle.astype(np.int32), 10, 0))
    assert drawn.tolist() != draw_patterns(particle.astype(np.int32), 10, 1).tolist()


def test_what_a_particle_draws_does_not_depend_on_the_others():
    particle = np.repeat([1, 2], [50, 50]).astype(np.int32)
    alone = np.where(particle == 2, 2, 0).astype(np.int32)
    both = draw_patterns(particle, 10, 0)
    np.testing.assert_array_equal(both[both >= 50], draw_patterns(alone, 10, 0))
    assert draw_patterns(np.zeros(9, np.int32), 10, 0).size == 0


def test_both_rules_are_those_of_their_functions():
    share = np.random.default_rng(0).uniform(0.05, 0.95, 60)
    share[::7] = np.nan
    systems, particle = votes(share), np.repeat([0, 1, 2, 3], 15).astype(np.int32)
    difference, evidence = pool_particles(systems, particle, np.array([20, 4, 1]), RULE, ParticleSpec())
    asked = np.where(np.isnan(share), 0, particle).astype(np.int32)
    drawn = draw_patterns(asked, 10, 0)
    expected = aggregate_labels(systems.system[drawn], systems.difference[drawn], particle[drawn])
    np.testing.assert_array_equal(difference.system, expected.label)
    np.testing.assert_allclose(difference.confidence, expected.confidence)
    assert difference.n_patterns.tolist() == [10, 10, 10]
    member = asked > 0
    logs = np.log(systems.share[member].astype(float))
    _, pooled = pool_evidence(logs, asked[member], RULE.prior, RULE.dependence, [10, 4, 1])
    np.testing.assert_array_equal(evidence.system, RULE.systems[pooled.argmax(axis=1)])
    np.testing.assert_allclose(evidence.confidence, pooled.max(axis=1))
    assert evidence.n_patterns.tolist() == np.bincount(asked)[1:].tolist()


@pytest.mark.parametrize("n", [10, 1000])
def test_more_of_the_same_is_no_more_evidence_than_ten(n):
    logs = np.log(np.tile([0.4, 0.6], (n, 1)))
    _, ten = pool_evidence(logs[:10], np.zeros(10), RULE.prior, RULE.dependence)
    _, many = pool_evidence(logs, np.zeros(n), RULE.prior, RULE.dependence, 10)
    np.testing.assert_allclose(many, ten)
    _, three = pool_evidence(logs[:3], np.zeros(3), RULE.prior, RULE.dependence, 10)
    np.testing.assert_allclose(three, pool_evidence(logs[:3], np.zeros(3), RULE.prior, RULE.dependence)[1])


def test_particles_that_were_never_asked_have_no_answer():
    difference, evidence = pool_particles(
        votes([np.nan] * 4), np.array([0, 1, 2, 2], np.int32), np.zeros(2, int), RULE, ParticleSpec()
    )
    for pooled in (difference, evidence):
        assert pooled.system.tolist() == [-1, -1]
        assert np.isnan(pooled.confidence).all()
        assert pooled.n_patterns.tolist() == [0, 0]


def test_no_particle_at_all():
    for pooled in pool_particles(
        votes([0.7] * 4), np.zeros(4, np.int32), np.zeros(0, int), RULE, ParticleSpec()
    ):
        assert len(pooled.system) == len(pooled.confidence) == len(pooled.n_patterns) == 0


def test_flags_of_positions():
    asked, outside = np.array([True, False, True, True]), np.array([False, False, True, True])
    overlapping = np.array([False, False, False, True])
    flags = position_flags(asked, outside, overlapping)
    assert flags.dtype == np.int8
    assert flag_texts(flags) == ["", "few_spots", "outside_training", "outside_training overlapping_grains"]
    assert position_flags(asked, outside, None).tolist() == [0, 1, 2, 2]


def test_particles_get_the_flags_of_most_of_their_positions():
    few, outside, overlap = FLAG_MASKS
    flags = np.array([few, few, 0, 0, outside, outside, few, 0, overlap, 0], dtype=np.int8)
    particle = np.array([1, 1, 1, 1, 2, 2, 2, 2, 3, 3], dtype=np.int32)
    # Half with too few is too few; two of three asked outside is most; one of two is not.
    assert particle_flags(flags, particle).tolist() == [few, outside, 0]
    assert particle_flags(flags, np.zeros(10, np.int32)).tolist() == []


def test_the_table_says_where_particles_are_and_what():
    table = particle_table(scan(), prediction(overlapping=np.arange(24) % 2 == 0))
    assert table["particle"].tolist() == [1, 2, 3]
    assert table["n_positions"].tolist() == [9, 10, 3]
    assert table["n_patterns"].tolist() == [9, 10, 0]
    np.testing.assert_allclose(table["area_nm2"], [36.0, 40.0, 12.0])
    np.testing.assert_allclose(table["centroid_y"][[0, 2]], [1.0, 3.0])
    np.testing.assert_allclose(table["centroid_x"][[0, 2]], [1.0, 2.0])
    np.testing.assert_allclose(table["centroid_x_nm"], 2.0 * table["centroid_x"])
    assert table["touches_border"].tolist() == [True, True, True]
    assert table["crystal_system"].fillna("none").tolist() == ["cubic", "tetragonal", "none"]
    assert table["system_by_difference"].equals(table["crystal_system"])
    np.testing.assert_allclose(table["confidence"], table["confidence_by_evidence"])
    assert table["n_by_difference"].tolist() == [9, 10, 0]
    assert table["lattice_system"].equals(table["crystal_system"])
    assert table["space_group"].tolist() == [225, 123, 0]
    members = [np.flatnonzero(PARTICLE.ravel() == number) for number in (1, 2)]
    for suffix, level in (("", 50), ("_lower_quartile", 25), ("_upper_quartile", 75)):
        expected = [np.percentile(4.5 + 0.01 * rows, level) for rows in members]
        np.testing.assert_allclose(table[f"b{suffix}"], [*expected, np.nan])
    spots = (np.arange(24) % 5 + 3)[members[1]]
    assert table["median_spots"][1] == np.median(spots)
    assert table["mean_dark_field"][0] == pytest.approx(members[0].mean())
    np.testing.assert_allclose(table["outside_share"], [0.0, 0.6, np.nan])
    np.testing.assert_allclose(table["overlap_share"][:2], [6 / 9, 4 / 10])
    assert table["flags"].tolist() == ["overlapping_grains", "outside_training", "few_spots"]


def test_without_a_step_nothing_is_in_nm():
    table = particle_table(scan(None), prediction())
    assert table[["area_nm2", "centroid_x_nm", "centroid_y_nm"]].isna().all(axis=None)
    assert table["overlap_share"].isna().all()
    assert table["n_positions"].tolist() == [9, 10, 3]


def test_without_calibrated_probabilities_the_papers_rule_answers():
    table = particle_table(scan(), prediction(rule=None))
    assert table["system_by_evidence"].isna().all()
    assert table["n_by_evidence"].tolist() == [0, 0, 0]
    assert table["crystal_system"].equals(table["system_by_difference"])
    np.testing.assert_allclose(table["confidence"], table["confidence_by_difference"])


def test_a_table_of_nothing():
    whole = prediction()
    nothing = np.zeros(24, np.int32)
    pooled = pool_particles(whole.systems, nothing, np.zeros(0, int), RULE, ParticleSpec())
    image, within = np.zeros(SHAPE), whole.within
    divided = ParticlePrediction(
        ParticleSpec(), image, nothing, *pooled, np.zeros(0, int), *[pooled[0].system] * 2, within
    )
    empty = ScanPrediction(**{**vars(whole), "particles": divided})
    table = particle_table(scan(), empty)
    assert len(table) == 0
    assert list(table.columns) == list(particle_table(scan(), whole).columns)
    assert summarise_particles(table)["count"] == 0
    with pytest.raises(ScanError, match="not divided"):
        particle_table(scan(), ScanPrediction(**{**vars(whole), "particles": None}))


def test_the_summary_counts():
    report = summarise_particles(particle_table(scan(), prediction(overlapping=np.zeros(24, bool))))
    assert report["count"] == 3
    assert report["positions"] == 22
    assert {name: n for name, n in report["systems"].items() if n} == {"cubic": 1, "tetragonal": 1}
    assert (report["without_answer"], report["rules_disagree"], report["flagged"]) == (1, 0, 2)


def test_the_dataset_holds_particles_and_flags():
    overlapping = np.arange(24) % 2 == 0
    whole = prediction(overlapping=overlapping)
    dataset = to_dataset(scan(), whole, MapSpec())
    np.testing.assert_array_equal(dataset["particle"], PARTICLE)
    np.testing.assert_array_equal(dataset["dark_field"], np.arange(24.0).reshape(SHAPE))
    attrs = dataset["flags"].attrs
    meaning = dict(zip(attrs["flag_meanings"].split(), attrs["flag_masks"], strict=True))
    flags = dataset["flags"].to_numpy().ravel()
    np.testing.assert_array_equal((flags & meaning["overlapping_grains"]) > 0, overlapping)
    np.testing.assert_array_equal((flags & meaning["outside_training"]) > 0, whole.systems.outside)
    np.testing.assert_array_equal((flags & meaning["few_spots"]) > 0, whole.systems.system < 0)
    assert "were looked for" in attrs["comment"]
    assert summarise(dataset)["flags"] == {"few_spots": 3, "outside_training": 6, "overlapping_grains": 12}
    assert ParticleSpec.from_json(dataset.attrs["particle_spec"]) == whole.particles.spec
    plain = to_dataset(
        scan(), ScanPrediction(**{**vars(whole), "particles": None, "overlapping": None}), MapSpec()
    )
    assert "particle" not in plain
    assert "not looked for" in plain["flags"].attrs["comment"]


def test_pooled_constants_are_listed_where_there_are_any():
    none = particle_table(scan(), prediction())
    assert none[["a_pooled", "a_pooled_support", "a_pooled_margin"]].isna().all(axis=None)
    predicted = prediction()
    cubic = CubicConstants(
        a=np.array([4.0, np.nan, 5.0]), support=np.array([0.9, np.nan, 0.4]),
        margin=np.array([30.0, np.nan, 2.0]), centring=np.array(["F", "", ""]),
        on_rings=np.array([0.8, np.nan, np.nan]), by_chance=np.array([0.2, np.nan, np.nan]),
        patterns=np.array([12, 0, 2]),
    )  # fmt: skip
    table = particle_table(scan(), replace(predicted, particles=replace(predicted.particles, cubic=cubic)))
    np.testing.assert_array_equal(table["a_pooled"], cubic.a)
    np.testing.assert_array_equal(table["a_pooled_support"], cubic.support)
    np.testing.assert_array_equal(table["a_pooled_margin"], cubic.margin)
    assert table["a"].equals(none["a"])
    named = summarise_particles(table)["cubic_constants"]
    assert [(item["a"], item["margin"], item["centring"]) for item in named] == [
        (4.0, 30.0, "F"),
        (5.0, 2.0, None),
    ]
    assert [(item["on_rings"], item["patterns"]) for item in named] == [(0.8, 12), (None, 2)]
    assert list(table["a_pooled_by_chance"].dropna()) == [0.2]
    assert summarise_particles(none)["cubic_constants"] == []


def test_cubic_positions_of_a_decided_particle_tell_their_own_lattice():
    radius = np.sqrt([3.0, 4.0, 8.0, 11.0, 12.0])
    q = [np.stack([radius / (4.212 * (1.0 + 0.001 * n)), np.zeros(5)], axis=1) for n in range(6)]
    peaks = PeakTable.from_lists(q, [np.ones(5)] * 6, [-1] * 6)
    particle = np.array([1, 1, 1, 2, 0, 1], np.int32)
    cubic = replace(
        CubicConstants.unknown(2), a=np.array([4.212, 4.212]), margin=np.array([50.0, 4.0]),
        centring=np.array(["F", "F"]),
    )  # fmt: skip
    within = WithinBlock(*(np.zeros(6, int) for _ in range(3)), np.full((6, 3), [6.0, 6.0, 7.0]))
    within.lattice[2] = np.nan
    is_cubic = np.array([True, True, True, True, True, False])
    nothing = pool_particles(votes(np.full(6, np.nan)), particle, np.ones(2, int), None, ParticleSpec())
    divided = ParticlePrediction(
        ParticleSpec(),
        np.zeros((1, 6)),
        particle,
        *nothing,
        np.ones(2, int),
        np.zeros(2, np.int8),
        np.zeros(2, np.int8),
        within,
        cubic,
    )
    a, centring = known_constants(6, divided, None)
    np.testing.assert_array_equal(a, [4.212, 4.212, 4.212, np.nan, np.nan, 4.212])
    found, refined = refine_positions(within, is_cubic, a, centring, peaks)
    assert refined.tolist() == [True, True, False, False, False, False]
    np.testing.assert_allclose(found.lattice[:2], [[4.212] * 3, [4.216] * 3], rtol=0.002)
    np.testing.assert_array_equal(found.lattice[2:], within.lattice[2:])
    np.testing.assert_array_equal(within.lattice[:2], [[6.0, 6.0, 7.0]] * 2)
    # A phase that the spots speak for is better known than the particle.
    speak = np.array([0, 1, 0, 2, 0, 0], np.int8)
    phases = ScanPhases((CubicPhase(5.0, "P"), CubicPhase(6.0, "I")), speak, np.zeros(6), 0)
    both, letters = known_constants(6, divided, phases)
    np.testing.assert_array_equal(both, [4.212, 5.0, 4.212, 6.0, np.nan, 4.212])
    assert letters.tolist() == ["F", "P", "F", "I", "", "F"]
    unchanged, nowhere = refine_positions(within, is_cubic, *known_constants(6, None, None), peaks)
    np.testing.assert_array_equal(unchanged.lattice, within.lattice)
    assert not nowhere.any()


def test_the_dataset_says_what_a_lattice_was_told_from():
    whole, refined = prediction(), np.arange(24) < 2
    dataset = to_dataset(scan(), replace(whole, refined=refined), MapSpec())
    source = dataset["lattice_source"]
    meaning = dict(zip(source.attrs["flag_meanings"].split(), source.attrs["flag_values"], strict=True))
    has_lattice = np.isfinite(whole.within.lattice[:, 0])
    np.testing.assert_array_equal(source.to_numpy().ravel() == meaning["rings"], refined)
    np.testing.assert_array_equal(source.to_numpy().ravel() == meaning["none"], ~has_lattice)
    labelled = int((whole.labels[has_lattice] >= 0).sum())
    assert summarise(dataset)["lattice_sources"] == {"model": labelled - 2, "rings": 2}
