import json

import numpy as np
import pytest
import xarray as xr

from diffractory.crystals.systems import system_code
from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.synthetic.scans import GrainLabels, score_map, synthetic_scan
from diffractory.specs import LabProtocolSpec

SHAPE = (20, 30)
CUBIC = system_code("cubic")


def grains():
    generator = np.random.default_rng(5)
    q = [np.concatenate([np.zeros((1, 2)), generator.uniform(0.2, 1.4, (6, 2))]) for _ in range(4)]
    return PeakTable.from_lists(q, [np.array([0.7, *[0.02] * 6])] * 4, [0] * 4)


def labels():
    return GrainLabels(
        np.array([6, 5, 3, 1], dtype=np.int8),
        np.array([225, 194, 123, 14], dtype=np.int16),
        np.arange(12.0).reshape(4, 3) + 3.0,
        np.array(["cu", "mg", "pb", "zr"]),
    )


def make(**options):
    return synthetic_scan(grains(), labels(), SHAPE, **{"n_grains": 9, "seed": 1, **options})


def test_truth_belongs_to_the_pattern_shown():
    scan, truth = make()
    table, known = grains(), labels()
    for index, (y, x) in enumerate(np.ndindex(*SHAPE)):
        grain = int(truth["grain"][y, x])
        q, intensity = scan.peaks.pattern(index)
        if grain < 0:
            assert (q.tolist(), intensity.tolist()) == ([[0.0, 0.0]], [1.0])
            assert truth["crystal_system"][y, x] == -1
            continue
        pattern = int(truth["pattern"][grain])
        np.testing.assert_array_equal(q, table.pattern(pattern)[0])
        assert truth["crystal_system"][y, x] == known.systems[pattern]
        assert truth["space_group"][y, x] == known.space_group[pattern]
        assert [truth[axis][y, x] for axis in "abc"] == known.lattice[pattern].tolist()
        assert truth["material_id"][grain] == known.material_id[pattern]


def test_every_grain_and_pattern_occurs():
    _, truth = make(vacuum_fraction=0.0)
    assert set(truth["grain"].to_numpy().ravel()) == set(range(9))
    assert np.bincount(truth["pattern"]).min() >= 2


@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.5])
def test_vacuum_fraction_is_exact(fraction):
    scan, truth = make(vacuum_fraction=fraction)
    vacuum = (truth["grain"] == -1).to_numpy()
    assert vacuum.sum() == round(fraction * 600)
    assert np.all(scan.peaks.counts[vacuum.ravel()] == 1)


def test_seed_determines_everything():
    noise = LabProtocolSpec()
    scan, truth = make(noise=noise)
    again, truth_again = make(noise=noise)
    other, _ = make(noise=noise, seed=2)
    np.testing.assert_array_equal(scan.peaks.q, again.peaks.q)
    np.testing.assert_array_equal(scan.peaks.intensity, again.peaks.intensity)
    xr.testing.assert_identical(truth, truth_again)
    assert scan.peaks.q.shape != other.peaks.q.shape or not np.allclose(scan.peaks.q, other.peaks.q)


def test_a_grain_keeps_its_rotation_and_positions_differ_by_noise():
    noise = LabProtocolSpec(position_sigma=0.002, scale_error=0.0, ellipticity=0.0, electrons=1e7)
    scan, truth = make(noise=noise, vacuum_fraction=0.0)
    table = grains()
    for index in (0, 299, 599):
        grain = int(truth["grain"].to_numpy().ravel()[index])
        angle = np.radians(float(truth["in_plane_angle"][grain]))
        x, y = table.pattern(int(truth["pattern"][grain]))[0].T
        turned = np.stack(
            [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1
        )
        q, _ = scan.peaks.pattern(index)
        np.testing.assert_allclose(q, turned, atol=0.012)
        assert not np.array_equal(q, turned)
    assert np.ptp(truth["in_plane_angle"].to_numpy()) > 90


def test_rotation_can_be_switched_off():
    scan, truth = make(
        noise=LabProtocolSpec(rotate=False, position_sigma=0.0, scale_error=0.0, ellipticity=0.0)
    )
    assert np.all(truth["in_plane_angle"] == 0.0)
    index = int(np.argmax(truth["grain"].to_numpy().ravel() >= 0))
    pattern = int(truth["pattern"][int(truth["grain"].to_numpy().ravel()[index])])
    np.testing.assert_allclose(scan.peaks.pattern(index)[0], grains().pattern(pattern)[0])


def test_one_microscope_deforms_the_whole_scan_alike():
    noise = LabProtocolSpec(
        rotate=False, position_sigma=0.0, scale_error=0.05, ellipticity=0.05, electrons=1e9
    )
    scan, truth = make(noise=noise, vacuum_fraction=0.0)
    table, maps = grains(), []
    for index in (0, 599):
        pattern = int(truth["pattern"][int(truth["grain"].to_numpy().ravel()[index])])
        maps.append(np.linalg.lstsq(table.pattern(pattern)[0], scan.peaks.pattern(index)[0], rcond=None)[0])
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-12)
    assert not np.allclose(maps[0], np.eye(2), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_grains": 0}, "0 grains do not fit"),
        ({"n_grains": 601}, "601 grains do not fit"),
        ({"vacuum_fraction": 1.0}, "vacuum_fraction = 1"),
        ({"vacuum_fraction": np.nan}, "vacuum_fraction = nan"),
        ({"seed": -1}, "seed = -1"),
        ({"step": 0.0}, "step = 0"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(ScanError, match=message):
        make(**options)


def test_inputs_that_do_not_fit():
    with pytest.raises(ScanError, match="3 patterns to draw from with labels of 4"):
        synthetic_scan(grains().take([0, 1, 2]), labels(), SHAPE, 3, 0)
    with pytest.raises(ScanError, match="at least one position"):
        synthetic_scan(grains(), labels(), (0, 4), 3, 0)
    with pytest.raises(ScanError, match="labels of 2 patterns"):
        GrainLabels(np.zeros(2, np.int8), np.ones(2, np.int16), np.ones((2, 2)), np.array(["a", "b"]))
    with pytest.raises(ScanError, match="codes must be 0 … 6"):
        GrainLabels(np.full(1, 7, np.int8), np.ones(1, np.int16), np.ones((1, 3)), np.array(["a"]))


def test_score():
    _, truth = make(vacuum_fraction=0.25)
    crystal = (truth["crystal_system"] >= 0).to_numpy()
    perfect = truth[["crystal_system", "a", "b", "c"]].copy(deep=True)
    score = score_map(perfect, truth)
    json.dumps(score, allow_nan=False)
    assert (score["accuracy"], score["labelled_share"], score["labelled_share_of_vacuum"]) == (1.0, 1.0, 0.0)
    assert score["lattice_error"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert (score["crystal_positions"], score["vacuum_positions"]) == (450, 150)
    all_cubic = perfect.copy(deep=True)
    all_cubic["crystal_system"][:] = CUBIC
    all_cubic["a"] += 0.5
    score = score_map(all_cubic, truth)
    n_cubic = int((truth["crystal_system"] == CUBIC).sum())
    assert score["accuracy"] == pytest.approx(n_cubic / crystal.sum())
    assert score["labelled_share_of_vacuum"] == 1.0
    assert score["lattice_error_where_right"]["a"] == pytest.approx(0.5)
    assert score["systems"]["cubic"] == {
        "positions": n_cubic, "labelled": n_cubic, "right": n_cubic, "claimed": int(crystal.sum()),
    }  # fmt: skip


def test_score_of_an_empty_map():
    _, truth = make()
    nothing = truth[["crystal_system", "a", "b", "c"]].copy(deep=True)
    nothing["crystal_system"][:] = -1
    score = score_map(nothing, truth)
    assert score["accuracy"] is None
    assert score["lattice_error"]["a"] is None
    assert score["labelled_share"] == 0.0
    with pytest.raises(ScanError, match="cannot be scored"):
        score_map(nothing.isel(scan_y=slice(1, None)), truth)
