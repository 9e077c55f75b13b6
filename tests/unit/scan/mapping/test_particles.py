import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffractory.errors import ScanError, SpecError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.particles import (
    dark_field,
    divide_scan,
    grains,
    grid_regions,
    label_regions,
    segment,
)
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from diffractory.specs import LabProtocolSpec, ParticleSpec
from lattices import BRAVAIS, spots_of, table_of, turned_reciprocal


def discs(shape, *discs, background=1.0):
    """An image of round particles given as y, x, radius, brightness."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, background)
    for centre_y, centre_x, radius, brightness in discs:
        image[np.hypot(y - centre_y, x - centre_x) <= radius] = brightness
    return image


def test_dark_field_counts_all_but_the_direct_beam():
    q = [np.array([[0.0, 0.0], [0.3, 0.0], [0.0, -0.9]]), np.empty((0, 2)), np.array([[0.4, 0.3]])]
    # The third pattern has no direct beam: its one spot counts.
    table = PeakTable.from_lists(q, [np.array([9.0, 2.0, 1.0]), np.empty(0), np.array([5.0])], [0, -1, -1])
    assert dark_field(table, (1, 3)).tolist() == [[3.0, 0.0, 5.0]]
    assert dark_field(table, (3, 1), (0.4, 0.9)).ravel().tolist() == [1.0, 0.0, 5.0]
    assert dark_field(table, (1, 3), (2.0, 3.0)).ravel().tolist() == [0.0, 0.0, 0.0]


def test_particles_are_found_and_numbered_in_reading_order():
    image = discs((40, 60), (30, 10, 5, 90.0), (8, 45, 6, 30.0), (8, 12, 4, 60.0))
    found = segment(image, ParticleSpec(smoothing=0.0))
    assert found.dtype == np.int32
    assert (found[8, 12], found[8, 45], found[30, 10]) == (2, 1, 3)  # the larger one starts higher up
    assert found.max() == 3
    np.testing.assert_array_equal(found > 0, image > 1.0)


def test_a_faint_particle_is_seen_beside_a_bright_one():
    image = discs((40, 40), (10, 10, 6, 1000.0), (28, 28, 6, 120.0))
    assert segment(image, ParticleSpec()).max() == 2


def test_small_ones_are_dropped():
    image = discs((30, 30), (8, 8, 5, 50.0), (22, 22, 1, 50.0))
    assert segment(image, ParticleSpec(smoothing=0.0, min_size=6)).max() == 1
    assert segment(image, ParticleSpec(smoothing=0.0, min_size=5)).max() == 2
    assert segment(image, ParticleSpec(smoothing=0.0, min_size=1000)).max() == 0


def test_a_given_threshold_is_in_the_images_own_units():
    image = discs((40, 40), (10, 10, 6, 50.0), (28, 28, 6, 20.0))
    assert segment(image, ParticleSpec(smoothing=0.0, threshold=30.0)).max() == 1
    assert segment(image, ParticleSpec(smoothing=0.0, threshold=10.0)).max() == 2
    assert segment(image, ParticleSpec(smoothing=0.0, threshold=50.0)).max() == 0


def test_touching_particles_are_divided_if_asked():
    image = discs((40, 60), (20, 18, 11, 50.0), (20, 38, 11, 50.0), (4, 4, 2, 50.0))
    together = segment(image, ParticleSpec(smoothing=0.0))
    divided = segment(image, ParticleSpec(smoothing=0.0, split=True))
    assert (together.max(), divided.max()) == (2, 3)
    np.testing.assert_array_equal(together > 0, divided > 0)
    assert divided[20, 18] != divided[20, 38]
    assert len(np.unique(divided[:, :26][divided[:, :26] > 0])) == 2


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_even_image_has_no_particle(value):
    assert not segment(np.full((9, 5), value), ParticleSpec()).any()
    assert not segment(np.full((1, 1), value), ParticleSpec()).any()


def test_images_that_cannot_be_divided():
    with pytest.raises(ScanError, match="finite and 2-D"):
        segment(np.full((3, 3), np.nan), ParticleSpec())
    with pytest.raises(ScanError, match="finite and 2-D"):
        segment(np.ones(3), ParticleSpec())


images = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 1e6)
)


@given(images, st.booleans(), st.integers(1, 9))
def test_particles_are_connected_numbered_and_large_enough(image, split, min_size):
    spec = ParticleSpec(smoothing=0.7, min_size=min_size, split=split)
    found = segment(image, spec)
    numbers, first, sizes = np.unique(found, return_index=True, return_counts=True)
    kept = numbers > 0
    assert numbers[kept].tolist() == list(range(1, found.max() + 1))
    assert np.all(np.diff(first[kept]) > 0)
    assert np.all(sizes[kept] >= min_size)
    np.testing.assert_array_equal(found, segment(image, spec))


def test_blocks_of_a_grid():
    expected = [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]
    assert grid_regions((3, 5), 2).tolist() == expected
    assert grid_regions((3, 5), 100).max() == 1
    assert grid_regions((3, 5), 1).tolist() == np.arange(1, 16).reshape(3, 5).tolist()


def test_regions_of_equal_label():
    codes = np.array([[6, 6, -1, 6], [3, 6, -1, 6], [3, 3, 3, 6]], dtype=np.int8)
    assert label_regions(codes, 1).tolist() == [[1, 1, 0, 2], [3, 1, 0, 2], [3, 3, 3, 2]]
    assert label_regions(codes, 4).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    assert not label_regions(np.full((2, 2), -1, np.int8), 1).any()


def polycrystal(noise):
    names = ("oP", "tI", "hP", "cF", "mP", "oI", "cP", "hR", "oC")
    table = table_of([
        spots_of(turned_reciprocal(BRAVAIS[name].primitive, seed), seed, 0.0, 1.5)
        for seed, name in enumerate(names)
    ])  # fmt: skip
    labels = GrainLabels(
        np.array([2, 3, 5, 6, 1, 2, 6, 4, 2], np.int8), np.full(9, 1, np.int16), np.ones((9, 3)),
        np.array(names),
    )  # fmt: skip
    return synthetic_scan(table, labels, (30, 40), 9, seed=3, noise=noise)


@pytest.mark.parametrize("noise", [None, LabProtocolSpec()])
def test_grains_of_a_polycrystal_are_recovered(noise):
    scan, truth = polycrystal(noise)
    grain = truth["grain"].to_numpy()
    codes = truth["crystal_system"].to_numpy().ravel()
    found = divide_scan(scan, codes, dark_field(scan.peaks, scan.shape), ParticleSpec(regions="grains"))
    sizes = np.bincount(grain[grain >= 0], minlength=9)
    pairs = np.unique(np.stack([grain.ravel(), found.ravel()]), axis=1)
    pairs = pairs[:, (pairs[0] >= 0) & (pairs[1] > 0)]
    # Each found grain lies in one true grain only; each true one of ten positions is found as one.
    assert len(np.unique(pairs[1])) == pairs.shape[1]
    assert np.bincount(pairs[0], minlength=9)[sizes >= 20].tolist() == [1] * int((sizes >= 20).sum())
    assert (found > 0)[grain >= 0].mean() > 0.97
    assert not found[grain < 0].any()


def test_grains_end_where_there_is_no_crystal():
    table = table_of([spots_of(turned_reciprocal(BRAVAIS["oP"].primitive, 0), 0)] * 6)
    crystal = np.array([[True, True, False], [False, False, True]])
    assert grains(table, crystal, 0.5, 1).tolist() == [[1, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize("regions", ["particles", "grains", "labels", "grid"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_scans_of_any_shape_can_be_divided(regions, shape):
    n = shape[0] * shape[1]
    table = table_of([spots_of(turned_reciprocal(BRAVAIS["cF"].primitive, 0), 0)] * n)
    spec = ParticleSpec(regions=regions, min_size=1)
    scan = BraggScan(table, shape)
    found = divide_scan(scan, np.full(n, 6, np.int8), dark_field(table, shape), spec)
    assert found.shape == shape
    assert found.max() == (0 if regions == "particles" else 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"regions": "circles"}, "regions"),
        ({"grid": 0}, "grid"),
        ({"q_range": (0.5, 0.2)}, "smaller distance comes first"),
        ({"q_range": (-0.5, 0.2)}, "none is negative"),
        ({"smoothing": -1.0}, "smoothing"),
        ({"threshold": float("nan")}, "threshold"),
        ({"similarity": 0.0}, "similarity"),
        ({"min_size": 0}, "min_size"),
        ({"patterns": 0}, "patterns"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range(values, says):
    with pytest.raises(SpecError, match=says):
        ParticleSpec(**values)
    assert ParticleSpec.from_json(ParticleSpec(q_range=(0.1, 0.9)).to_json()).q_range == (0.1, 0.9)
