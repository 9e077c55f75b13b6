from types import SimpleNamespace

import numpy as np
import pytest

from diffractory.crystals.systems import system_code
from diffractory.errors import ModelError, SpecError
from diffractory.learning.hierarchy import SymmetryHierarchy, Targets
from diffractory.patterns.feature_sets import compute_features, lattices_of
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.radial_basis import radial_basis, scale_total
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import REASONS
from diffractory.scan.mapping.prediction import predict_block, predict_scan, predict_within_block
from diffractory.specs import ForestSpec, InvariantSpec, MapSpec, ParticleSpec, RadialBasisSpec

FEATURES = RadialBasisSpec(ring_width=0.1, n_rings=12, n_orders=3)
TETRAGONAL, CUBIC = system_code("tetragonal"), system_code("cubic")


class FakeModel:
    """Calls a pattern cubic if its outer half is empty; remembers what it was asked."""

    systems_ = np.array([TETRAGONAL, CUBIC], dtype=np.int8)
    n_trees = 10
    evidence_rule = None

    def __init__(self):
        self.asked = []

    def vote_systems(self, X):
        self.asked.append(X)
        outer = X[:, 6 * FEATURES.n_orders : 12 * FEATURES.n_orders].sum(axis=1) > 0
        votes = np.where(outer[:, None], [7, 3], [1, 9]).astype(np.int32)
        system = self.systems_[votes.argmax(axis=1)]
        return SimpleNamespace(
            share=votes / 10,
            system=system,
            confidence=votes.max(axis=1) / 10,
            difference=(votes.max(axis=1) - votes.min(axis=1)) / 10,
        )

    def locate(self, X):
        brightest = X[:, : 12 * FEATURES.n_orders].max(axis=1)
        return brightest > 0.1, np.stack([brightest, -brightest], axis=1)

    def predict_within(self, X, systems):
        cubic = np.asarray(systems) == CUBIC
        n = len(X)
        return SimpleNamespace(
            space_group=np.where(cubic, 225, 123).astype(np.int16),
            group_confidence=np.full(n, 0.5),
            group_difference=np.full(n, 0.25),
            lattice=np.where(cubic[:, None], [4.0, 4.0, 4.0], [3.0, 3.0, 5.0]) + X[:, :1],
        )


def ring(radius, n, brightness=1.0):
    angle = np.linspace(0.0, 2.0 * np.pi, n, endpoint=False)
    q = np.concatenate([np.zeros((1, 2)), radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)])
    return q, np.full(n + 1, brightness)


def scan_of(patterns, shape):
    return BraggScan(PeakTable.from_detected(*zip(*patterns, strict=True)), shape)


def mixed_scan():
    """Left half cubic, right half tetragonal, few spots in the first row."""
    shape = (6, 8)
    patterns = [
        ring(0.35 if x < 4 else 0.85, 2 if y == 0 else 6, brightness=1.0 + x + y)
        for y, x in np.ndindex(*shape)
    ]
    return scan_of(patterns, shape)


def test_positions_with_few_spots_are_not_asked():
    model = FakeModel()
    peaks = scan_of([ring(0.35, 6), ring(0.35, 3), ring(0.85, 4)], (1, 3)).peaks
    found = predict_block(model, peaks, MapSpec(min_spots=5), FEATURES)
    block = found.systems
    assert block.system.tolist() == [CUBIC, -1, TETRAGONAL]
    np.testing.assert_array_equal(block.share, np.float32([[0.1, 0.9], [0.0, 0.0], [0.7, 0.3]]))
    assert block.share.dtype == np.float32
    np.testing.assert_array_equal(block.confidence, [0.9, np.nan, 0.7])
    np.testing.assert_allclose(block.difference, [0.8, np.nan, 0.4])
    assert len(model.asked[0]) == 2
    outside, coordinates = model.locate(model.asked[0])
    assert block.outside.tolist() == [outside[0], False, outside[1]]
    np.testing.assert_array_equal(block.coordinates, [coordinates[0], [np.nan, np.nan], coordinates[1]])
    assert found.within.space_group.tolist() == [225, 0, 123]
    assert found.lattices is None
    assert found.overlapping is None


def test_features_do_not_depend_on_the_detectors_gain():
    model = FakeModel()
    peaks = scan_of([ring(0.35, 6, brightness=1e4)], (1, 1)).peaks
    predict_block(model, peaks, MapSpec(total_intensity=0.3), FEATURES)
    expected = radial_basis(scale_total(peaks, 0.3), FEATURES)
    np.testing.assert_array_equal(model.asked[0], expected)
    assert model.asked[0][0, ::3].max() < 0.3


def test_block_of_nothing_never_calls_the_model():
    peaks = scan_of([ring(0.35, 1), ring(0.35, 1)], (1, 2)).peaks
    model = FakeModel()
    block = predict_block(model, peaks, MapSpec(), FEATURES).systems
    within = predict_within_block(model, peaks, block.system, MapSpec(), FEATURES)
    assert model.asked == []
    assert block.share.shape == (2, 2)
    assert not block.outside.any()
    assert np.isnan(block.coordinates).all()
    assert within.space_group.tolist() == [0, 0]
    assert np.isnan(within.lattice).all()


def test_within_follows_the_given_systems():
    peaks = scan_of([ring(0.35, 6)] * 3, (1, 3)).peaks
    systems = np.array([CUBIC, -1, TETRAGONAL], dtype=np.int8)
    block = predict_within_block(FakeModel(), peaks, systems, MapSpec(), FEATURES)
    assert block.space_group.tolist() == [225, 0, 123]
    assert np.isnan(block.lattice[1]).all()
    assert np.isnan(block.group_confidence[1])
    assert block.lattice[2, 2] > block.lattice[2, 0]


def test_whole_scan():
    prediction = predict_scan(FakeModel(), mixed_scan(), MapSpec(median_size=3), FEATURES)
    labels = prediction.labels.reshape(6, 8)
    assert np.all(labels[0] == -1)
    assert np.all(labels[1:, :4] == CUBIC)
    assert np.all(labels[1:, 4:] == TETRAGONAL)
    assert np.all(prediction.reason.reshape(6, 8)[0] == REASONS.index("few_spots"))
    assert np.all(prediction.within.space_group.reshape(6, 8)[1:, 0] == 225)
    assert prediction.columns == (TETRAGONAL, CUBIC)


@pytest.mark.parametrize("block_size", [1, 7, 48, 1000])
def test_blocks_change_no_result(block_size):
    whole = predict_scan(FakeModel(), mixed_scan(), MapSpec(), FEATURES)
    parts = predict_scan(FakeModel(), mixed_scan(), MapSpec(), FEATURES, block_size=block_size)
    for name in ("share", "system", "confidence", "difference", "outside", "coordinates"):
        np.testing.assert_array_equal(getattr(whole.systems, name), getattr(parts.systems, name))
    np.testing.assert_array_equal(whole.labels, parts.labels)
    np.testing.assert_array_equal(whole.within.lattice, parts.within.lattice)


def speckled_scan():
    """Cubic, with one tetragonal position that a median filter overrules."""
    patterns = [ring(0.85 if (y, x) == (2, 3) else 0.35, 6) for y, x in np.ndindex(6, 8)]
    return scan_of(patterns, (6, 8))


def test_the_caller_decides_where_blocks_run_and_only_what_changed_is_asked_again():
    calls = []

    def map_blocks(function, items):
        calls.append(len(items))
        return [function(item) for item in items]

    predict_scan(FakeModel(), mixed_scan(), MapSpec(), FEATURES, map_blocks=map_blocks, block_size=20)
    assert calls == [3]
    calls.clear()
    spec = MapSpec(median_size=3)
    prediction = predict_scan(
        FakeModel(), speckled_scan(), spec, FEATURES, map_blocks=map_blocks, block_size=20
    )
    assert calls == [3, 1]
    assert prediction.systems.system[2 * 8 + 3] == TETRAGONAL
    assert set(prediction.labels) == {CUBIC}
    assert set(prediction.within.space_group) == {225}
    np.testing.assert_allclose(prediction.within.lattice[:, 2], prediction.within.lattice[:, 0])


def test_what_is_undecided_has_no_lattice():
    prediction = predict_scan(FakeModel(), mixed_scan(), MapSpec(min_difference=0.7), FEATURES)
    undecided = prediction.reason == REASONS.index("low_difference")
    assert undecided.any()
    assert (prediction.labels[~undecided] == CUBIC).any()
    assert np.isnan(prediction.within.lattice[undecided]).all()
    assert (prediction.within.space_group[undecided] == 0).all()


@pytest.mark.parametrize("assume", [None, "tetragonal"])
@pytest.mark.parametrize("block_size", [7, 1000])
def test_particles_have_the_lattice_of_their_own_system(assume, block_size):
    spec = MapSpec(median_size=1, assume=assume)
    whole = ParticleSpec(regions="grid", grid=100)
    prediction = predict_scan(
        FakeModel(), mixed_scan(), spec, FEATURES, particles=whole, block_size=block_size
    )
    divided = prediction.particles
    assert divided.n_particles == 1
    asked = prediction.systems.system >= 0
    expected = {None: {CUBIC: 225, TETRAGONAL: 123}[divided.system[0]], "tetragonal": 123}[assume]
    assert set(divided.within.space_group[asked]) == {expected}
    assert set(divided.within.space_group[~asked]) == {0}
    assert divided.within_system.tolist() == [TETRAGONAL if assume else divided.system[0]]
    assert divided.evidence.system.tolist() == [-1]
    assert divided.system.tolist() == divided.difference.system.tolist()


def test_a_second_phase_is_as_good_as_a_first():
    """The lattice kept from the first phase gives the features that would be computed anew."""
    spec, scan = InvariantSpec(), speckled_scan()
    lattices = lattices_of(scale_total(scan.peaks, 0.3), spec)
    again = compute_features(scale_total(scan.peaks, 0.3), spec, lattices)
    np.testing.assert_array_equal(again, compute_features(scale_total(scan.peaks, 0.3), spec))


def test_assumed_system_is_used_at_every_labelled_position():
    spec = MapSpec(median_size=1, assume="cubic")
    prediction = predict_scan(FakeModel(), mixed_scan(), spec, FEATURES)
    labelled = prediction.labels >= 0
    assert set(prediction.labels[labelled]) == {TETRAGONAL, CUBIC}
    assert set(prediction.within.space_group[labelled]) == {225}
    assert set(prediction.within.space_group[~labelled]) == {0}


def test_bad_assumptions():
    with pytest.raises(SpecError, match=r"'quasi' is not a crystal system.*cubic"):
        predict_scan(FakeModel(), mixed_scan(), MapSpec(assume="quasi"), FEATURES)
    with pytest.raises(ModelError, match=r"knows nothing of 'hexagonal'.*tetragonal, cubic"):
        predict_scan(FakeModel(), mixed_scan(), MapSpec(assume="hexagonal"), FEATURES)


def test_the_real_model_fits_the_protocol():
    scan = mixed_scan()
    chosen = np.flatnonzero(scan.peaks.counts >= 5)
    X = radial_basis(scale_total(scan.peaks.take(chosen), 0.3), FEATURES)
    cubic = chosen % 8 < 4
    targets = Targets.from_labels(
        np.where(cubic, "cubic", "tetragonal"),
        np.where(cubic, 225, 123),
        np.where(cubic[:, None], [4.0, 4.0, 4.0], [3.0, 3.0, 5.0]),
    )
    forests = ForestSpec(system_trees=5, group_trees=3, lattice_trees=3)
    model = SymmetryHierarchy(forests).fit(X, targets, np.arange(len(chosen)) % 4)
    prediction = predict_scan(model, scan, MapSpec(median_size=1), FEATURES)
    np.testing.assert_array_equal(prediction.labels[chosen], targets.system)
    np.testing.assert_array_equal(prediction.within.space_group[chosen], targets.space_group)
    np.testing.assert_allclose(prediction.within.lattice[chosen], targets.lattice)


def test_an_assumed_system_without_a_lattice_forest_is_refused():
    class WithoutLattice(FakeModel):
        def predict_within(self, X, systems):
            answer = super().predict_within(X, systems)
            answer.lattice[:] = np.nan
            return answer

    with pytest.raises(ModelError, match="no lattice forest"):
        predict_scan(WithoutLattice(), mixed_scan(), MapSpec(median_size=1, assume="cubic"), FEATURES)


def test_a_told_phase_needs_probabilities():
    with pytest.raises(ModelError, match=r"phase '4\.2:F' says nothing to this model.*robust"):
        predict_scan(FakeModel(), mixed_scan(), MapSpec(phase="4.2:F"), FEATURES)
    assert predict_scan(FakeModel(), mixed_scan(), MapSpec(), FEATURES).phases is None
