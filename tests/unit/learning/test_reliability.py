from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ModelError
from diffractory.learning.reliability import reliability


def test_numbers_by_hand():
    found = reliability([True, False, True, True], [0.3, 0.35, 0.9, 1.0], n_bins=4)
    # Bin 0.25 … 0.5: half right at 0.325; bin 0.75 … 1: all right at 0.95.
    assert found["bins"][0] == {"n": 0, "confidence": None, "accuracy": None}
    assert found["bins"][1] == {"n": 2, "confidence": pytest.approx(0.325), "accuracy": 0.5}
    assert found["bins"][3] == {"n": 2, "confidence": pytest.approx(0.95), "accuracy": 1.0}
    assert found["expected_calibration_error"] == pytest.approx(0.5 * 0.175 + 0.5 * 0.05)


def test_answers_as_sure_as_they_are_right_have_no_error():
    rng = np.random.default_rng(5)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    assert reliability(right, confidence)["expected_calibration_error"] < 0.01
    assert reliability(right, confidence**3)["expected_calibration_error"] > 0.1


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), max_size=30), st.integers(1, 12))
def test_it_is_strict_json_and_bounded(answers: list[tuple[bool, float]], n_bins: int):
    right, confidence = [hit for hit, _ in answers], [value for _, value in answers]
    found = reliability(right, confidence, n_bins=n_bins)
    json.dumps(found, allow_nan=False)
    assert sum(part["n"] for part in found["bins"]) == len(answers)
    error = found["expected_calibration_error"]
    if not answers:
        assert error is None
        return
    assert 0.0 <= error <= 1.0
    # In one bin it is the distance of the means; more bins cannot bring it below.
    assert error >= abs(np.mean(right) - np.mean(confidence)) - 1e-12


@pytest.mark.parametrize(
    ("right", "confidence", "n_bins", "says"),
    [
        ([True], [0.5, 0.5], 10, "1,"),
        ([True], [1.5], 10, "between 0 and 1"),
        ([True], [float("nan")], 10, "between 0 and 1"),
        ([True], [0.5], 0, "0 bins"),
    ],
)
def test_bad_input_is_named(right: list[bool], confidence: list[float], n_bins: int, says: str):
    with pytest.raises(ModelError, match=says):
        reliability(right, confidence, n_bins=n_bins)
