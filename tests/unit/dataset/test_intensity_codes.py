import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffractory.dataset.intensity_codes import (
    FLOOR,
    OFFSET,
    RELATIVE,
    STEPS,
    decode_intensity,
    encode_intensity,
    largest_error,
)
from diffractory.dataset.partition import read_partition
from diffractory.dataset.run import Run

ALL_CODES = np.arange(1 << 16, dtype=np.uint16)
#: Rounding of float32 and float64 themselves: decoded numbers are float32.
ROUNDING = 6e-8


def test_the_documented_bound_is_the_one_of_the_scale():
    assert FLOOR == 2.0**-22
    assert RELATIVE == 2.0**-13
    assert FLOOR < 1e-6 / 4
    np.testing.assert_array_equal(largest_error(np.array([0.0, 1.0])), [FLOOR, FLOOR + RELATIVE])


@given(arrays(np.float64, st.integers(0, 50), elements=st.floats(0.0, 100.0)))
def test_the_bound_holds_from_either_side_and_nothing_from_the_floor_on_is_lost(intensity: np.ndarray):
    codes = encode_intensity(intensity)
    stored = decode_intensity(codes)
    assert codes.dtype == np.uint16
    assert stored.dtype == np.float32
    error = np.abs(stored.astype(np.float64) - intensity)
    assert np.all(error <= largest_error(intensity) + ROUNDING * intensity)
    assert np.all(error <= largest_error(stored) + ROUNDING * intensity)
    np.testing.assert_array_equal(stored > 0.0, intensity >= FLOOR)
    np.testing.assert_array_equal(encode_intensity(stored), codes)


@given(st.floats(-12.0, 0.0), st.floats(-12.0, 0.0))
def test_order_is_kept(first: float, second: float):
    low, high = sorted((10.0**first, 10.0**second))
    codes = encode_intensity(np.array([low, high]))
    assert codes[0] <= codes[1]


@given(arrays(np.float32, (4, 3), elements=st.floats(0.0, 1.0, width=32)))
def test_memory_order_and_precision_of_the_input_do_not_matter(intensity: np.ndarray):
    codes = encode_intensity(intensity)
    np.testing.assert_array_equal(encode_intensity(np.asfortranarray(intensity)), codes)
    np.testing.assert_array_equal(encode_intensity(intensity.T), codes.T)
    np.testing.assert_array_equal(encode_intensity(intensity.astype(np.float64)), codes)


def test_every_code_survives_a_round_trip_and_means_what_the_formula_says():
    intensity = decode_intensity(ALL_CODES)
    np.testing.assert_array_equal(encode_intensity(intensity), ALL_CODES)
    assert np.all(np.diff(intensity) > 0.0)
    n = ALL_CODES.astype(np.float64)
    formula = OFFSET * (2.0 ** (n // STEPS) * (1.0 + n % STEPS / STEPS) - 1.0)
    np.testing.assert_array_equal(intensity, formula.astype(np.float32))


def test_a_step_is_as_coarse_as_the_bound_says_and_no_finer():
    intensity = decode_intensity(ALL_CODES).astype(np.float64)
    half = np.diff(intensity) / 2.0
    assert np.all(half <= largest_error(intensity[:-1]) + ROUNDING * intensity[1:])
    assert np.all(half >= 0.499 * largest_error(intensity[:-1]))


@pytest.mark.parametrize("wrong", [-1e-3, -5.0, np.nan, -np.nan, np.inf, -np.inf, 129.0, 1e300])
def test_what_cannot_be_a_share_of_the_beam_is_refused(wrong: float):
    with pytest.raises(ValueError, match="at least 0, finite"):
        encode_intensity(np.array([0.1, wrong, 0.2]))


def test_another_program_can_read_the_store_by_the_formula_in_its_attributes(original: Run):
    array = zarr.open_array(original.path / "peaks.zarr" / "intensity", mode="r")
    attributes = dict(array.attrs)
    assert attributes["largest_error"] == f"{FLOOR:.4g} + {RELATIVE:.4g} * intensity"
    n_peaks = sum(original.done()[0].counts)
    names = {name: attributes[name] for name in ("offset", "steps")}
    intensity = eval(attributes["decode"], names | {"n": array[:n_peaks].astype(np.float64)})
    np.testing.assert_array_equal(intensity.astype(np.float32), read_partition(original, 0).intensity)


def test_the_store_needs_only_codecs_that_zarr_itself_names(original: Run):
    named = {"sharding_indexed", "bytes", "blosc", "transpose", "crc32c"}
    for name in ("intensity", "hkl", "rotation"):
        metadata = json.loads((original.path / "peaks.zarr" / name / "zarr.json").read_text())
        (sharding,) = metadata["codecs"]
        inner = sharding["configuration"]["codecs"] + sharding["configuration"]["index_codecs"]
        assert {sharding["name"], *(codec["name"] for codec in inner)} <= named


def test_a_partition_is_three_files_and_its_record(original: Run):
    for index, record in original.done().items():
        files = [p for p in original.path.glob(f"peaks.zarr/*/c/{index}/**/*") if p.is_file()]
        assert sorted(str(p.relative_to(original.path)) for p in files) == sorted(record.shards)
        assert len(files) == 3
