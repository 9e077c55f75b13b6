import json
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code
from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import (
    REASONS,
    ScanPrediction,
    SystemBlock,
    WithinBlock,
    filter_labels,
    median_labels,
    summarise,
    to_dataset,
)
from diffractory.scan.mapping.map_files import write_map, write_netcdf
from diffractory.specs import MapSpec

CUBIC, HEXAGONAL = system_code("cubic"), system_code("hexagonal")
code_maps = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(-1, 6)
)
sizes = st.sampled_from([1, 3, 5])


def slow_median(codes, size):
    """The definition, one position at a time."""
    half, result = size // 2, np.full_like(codes, -1)
    for y, x in np.ndindex(*codes.shape):
        window = codes[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]
        ranked = sorted(window[window >= 0])
        if codes[y, x] >= 0:
            result[y, x] = ranked[(len(ranked) - 1) // 2]
    return result


@given(code_maps, sizes)
def test_median_is_its_definition(codes, size):
    np.testing.assert_array_equal(median_labels(codes, size), slow_median(codes, size))


@given(code_maps, sizes)
def test_median_invents_no_label_and_keeps_the_unlabelled(codes, size):
    filtered = median_labels(codes, size)
    assert set(filtered.ravel()) <= set(codes.ravel())
    np.testing.assert_array_equal(filtered < 0, codes < 0)
    assert filtered.dtype == np.int8


def test_median_removes_a_speck_and_keeps_an_edge():
    codes = np.full((7, 8), CUBIC, dtype=np.int8)
    codes[:, 4:] = HEXAGONAL
    edge = codes.copy()
    codes[3, 1] = 1
    np.testing.assert_array_equal(median_labels(codes, 5), edge)


def test_window_larger_than_the_scan():
    codes = np.array([[6, 6, 1]], dtype=np.int8)
    assert median_labels(codes, 101).tolist() == [[6, 6, 6]]


def test_unlabelled_neighbours_do_not_vote():
    codes = np.full((5, 5), -1, dtype=np.int8)
    codes[2, 1:4] = [0, 6, 6]
    assert median_labels(codes, 5)[2].tolist() == [-1, 6, 6, 6, -1]


def prediction_of(system, difference, columns=(3, 5, 6)):
    n = len(system)
    system = np.asarray(system, dtype=np.int8)
    asked = system >= 0
    share = np.zeros((n, len(columns)), dtype=np.float32)
    for row in np.flatnonzero(asked):
        share[row] = 0.5 / (len(columns) - 1)
        share[row, columns.index(system[row])] = 0.5
    confidence = np.where(asked, 0.5, np.nan)
    coordinates = np.where(asked[:, None], np.stack([np.arange(n), -np.arange(n)], axis=1), np.nan)
    outside = asked & (np.arange(n) % 2 == 1)
    difference = np.where(asked, difference, np.nan)
    block = SystemBlock(share, system, confidence, difference, outside, coordinates)
    lattice = np.where(asked[:, None], [4.0, 4.1, 4.2], np.nan) + np.linspace(0.0, 0.1, n)[:, None]
    within = WithinBlock(
        np.where(asked, 225, 0).astype(np.int16),
        np.where(asked, 0.3, np.nan),
        np.where(asked, 0.1, np.nan),
        lattice,
    )
    return block, within


SHAPE = (2, 3)
SYSTEM = [6, 6, 5, -1, 6, 5]
DIFFERENCE = [0.3, 0.004, 0.2, 0.0, 0.5, 0.005]


def example(step=20.0, map_spec=None, status=None):
    map_spec = map_spec or MapSpec(median_size=1)
    block, within = prediction_of(SYSTEM, DIFFERENCE)
    labels, reason = filter_labels(block, SHAPE, map_spec)
    prediction = ScanPrediction(block, labels, reason, within, (3, 5, 6))
    table = PeakTable.from_detected(
        [np.ones((index + 3, 2)) for index in range(6)], [np.ones(i + 3) for i in range(6)]
    )
    scan = BraggScan(table, SHAPE, step, 200e3, "scan.h5", {"sha256": "abc"}, status)
    return to_dataset(scan, prediction, map_spec, {"model_id": "m1", "materials": 7})


def test_threshold_is_on_the_difference_confidence():
    block, _ = prediction_of(SYSTEM, DIFFERENCE)
    labels, reason = filter_labels(block, SHAPE, MapSpec(median_size=1, min_difference=0.005))
    assert labels.tolist() == [6, -1, 5, -1, 6, 5]
    assert [REASONS[code] for code in reason] == [
        "labelled", "low_difference", "labelled", "few_spots", "labelled", "labelled",
    ]  # fmt: skip
    labels, _ = filter_labels(block, SHAPE, MapSpec(median_size=1, min_difference=0.0))
    assert labels.tolist() == SYSTEM


def test_filter_comes_before_the_threshold():
    block, _ = prediction_of([6, 5, 6], [0.3, 0.3, 0.001])
    labels, _ = filter_labels(block, (1, 3), MapSpec(median_size=3, min_difference=0.005))
    assert labels.tolist() == [5, 6, -1]


def test_dataset_is_labelled():
    dataset = example()
    assert dict(dataset.sizes) == {"scan_y": 2, "scan_x": 3, "crystal_system_class": 3}
    assert dataset["crystal_system"].dtype == np.int8
    assert dataset["crystal_system_raw"].to_numpy().ravel().tolist() == SYSTEM
    attrs = dataset["crystal_system"].attrs
    meaning = dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))
    assert meaning[-1] == "unlabelled"
    assert [meaning[code] for code in range(7)] == list(CRYSTAL_SYSTEMS)
    share = dataset["system_share"]
    assert share.dims == ("scan_y", "scan_x", "crystal_system_class")
    assert share.dtype == np.float32
    assert share.sel(crystal_system_class="cubic").to_numpy().ravel().tolist() == [
        *(0.5, 0.5, 0.25, 0.0, 0.5, 0.25)
    ]
    assert "votes" not in dataset
    assert dataset["outside_training"].to_numpy().ravel().tolist() == [0, 1, 0, 0, 0, 1]
    assert dataset["outside_training"].attrs["flag_meanings"] == "inside_or_not_asked outside"
    for number, sign in ((1, 1.0), (2, -1.0)):
        values = dataset[f"training_component_{number}"].to_numpy().ravel()
        np.testing.assert_array_equal(values, sign * np.array([0.0, 1.0, 2.0, np.nan, 4.0, 5.0]))
    assert dataset["scan_x"].to_numpy().tolist() == [0.0, 20.0, 40.0]
    assert dataset["scan_x"].attrs["units"] == "angstrom"
    assert all(dataset[axis].attrs["units"] == "angstrom" for axis in "abc")
    assert dataset["n_spots"].to_numpy().ravel().tolist() == [3, 4, 5, 6, 7, 8]
    assert all(dataset[name].attrs["long_name"] for name in dataset.variables)


def test_dataset_knows_where_it_came_from():
    attrs = example().attrs
    assert attrs["scan_source"] == "scan.h5"
    assert json.loads(attrs["scan"]) == {"sha256": "abc"}
    assert json.loads(attrs["model"]) == {"materials": 7, "model_id": "m1"}
    assert MapSpec.from_json(attrs["map_spec"]) == MapSpec(median_size=1)
    assert attrs["map_spec_id"] == MapSpec(median_size=1).spec_id
    assert {"diffractory", "zarr"} <= set(json.loads(attrs["versions"]))


def test_unknown_step_counts_positions():
    dataset = example(step=None)
    assert dataset["scan_y"].to_numpy().tolist() == [0.0, 1.0]
    assert dataset["scan_y"].attrs["units"] == "1"


def test_zarr_round_trip(tmp_path):
    dataset = example()
    path = tmp_path / "new" / "map.zarr"
    write_map(dataset, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = xr.open_zarr(path).load()
    xr.testing.assert_identical(dataset, again)
    assert again["crystal_system"].dtype == np.int8
    write_map(dataset.isel(scan_y=[0]), path)
    assert xr.open_zarr(path).sizes["scan_y"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["map.zarr"]


def test_unwritable_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanError, match="cannot write"):
        write_map(example(), tmp_path / "file" / "map.zarr")


def test_summary_counts_and_weighs():
    dataset = example()
    dataset["system_share"][0, 0] = [0.0, 0.0, 1.0]
    summary = summarise(dataset)
    json.dumps(summary, allow_nan=False)
    assert (summary["positions"], summary["labelled"]) == (6, 4)
    assert summary["unlabelled"] == {"few_spots": 1, "low_difference": 1, "bad_frame": 0}
    assert summary["outside_training"] == {"asked": 5, "count": 2, "fraction": 0.4}
    cubic, hexagonal = summary["systems"]["cubic"], summary["systems"]["hexagonal"]
    assert (cubic["count"], cubic["fraction"]) == (2, 0.5)
    assert cubic["weighted_fraction"] == pytest.approx(1.5 / 2.5)
    assert hexagonal["weighted_fraction"] == pytest.approx(1.0 / 2.5)
    assert cubic["mean_confidence"] == pytest.approx(0.75)
    assert cubic["lattice"]["a"]["median"] == pytest.approx(4.0 + 0.04)
    assert summary["lattice"]["c"]["lower_quartile"] < summary["lattice"]["c"]["median"]
    assert summary["systems"]["triclinic"]["mean_confidence"] is None


def test_frames_that_could_not_be_used_are_told_from_few_spots(tmp_path):
    # Positions 3 and 1 have no label: of too few spots, and of a small difference.
    dataset = example(status=np.array([0, 3, 5, 1, 0, 0], np.int8))
    status = dataset["frame_status"]
    meanings = status.attrs["flag_meanings"].split()
    assert [meanings[code] for code in status.to_numpy().ravel()] == [
        "good", "saturated", "no_direct_beam", "empty", "good", "good",
    ]  # fmt: skip
    assert status.attrs["flag_values"] == list(range(6))
    summary = summarise(dataset)
    assert summary["frames"] == {"empty": 1, "saturated": 1, "no direct beam": 1}
    assert summary["unlabelled"] == {"few_spots": 0, "low_difference": 1, "bad_frame": 1}
    write_netcdf(dataset, tmp_path / "map.nc")
    again = xr.load_dataset(tmp_path / "map.nc")["frame_status"]
    assert again.dtype == again.attrs["flag_values"].dtype == np.int8
    assert summarise(example(status=np.zeros(6, np.int8)))["frames"] == {}
    # A position without a disk is vacuum perhaps, and its frame a good one.
    assert summarise(example(status=np.full(6, 4, np.int8)))["unlabelled"]["bad_frame"] == 0


def test_without_a_status_of_frames_nothing_is_said_of_them():
    dataset = example()
    assert "frame_status" not in dataset
    assert "frames" not in summarise(dataset)


def test_summary_of_a_map_without_labels():
    summary = summarise(example(map_spec=MapSpec(median_size=1, min_difference=1.0)))
    json.dumps(summary, allow_nan=False)
    assert summary["labelled"] == 0
    assert summary["lattice"] == {"a": None, "b": None, "c": None}
    assert summary["unlabelled"] == {"few_spots": 1, "low_difference": 5, "bad_frame": 0}
