from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from diffractory.crystals.crystal import Crystal
from diffractory.errors import SpecError
from diffractory.scattering.cost import (
    TYPICAL,
    Speed,
    predicted_seconds,
    predicted_setup_seconds,
    predicted_solve_bytes,
    scattering_strength,
)
from diffractory.specs import SimulationSpec

BEAMS = st.integers(1, 5000)


@given(BEAMS)
def test_more_beams_cost_more(n: int) -> None:
    spec = SimulationSpec(thicknesses=tuple(20.0 * i for i in range(1, 101)))
    assert 0.0 < predicted_seconds(n, spec) < predicted_seconds(2 * n, spec)
    assert 0 < predicted_solve_bytes(n, spec) < predicted_solve_bytes(n + 1, spec)


@given(BEAMS)
def test_thicker_foils_more_thicknesses_and_wider_ranges_cost_more(n: int) -> None:
    thin, thick = SimulationSpec(thicknesses=(200.0,)), SimulationSpec(thicknesses=(2000.0,))
    every = SimulationSpec(thicknesses=(200.0, 733.0, 2000.0))
    assert predicted_seconds(n, thin) < predicted_seconds(n, thick) < predicted_seconds(n, every)
    assert predicted_seconds(n, thick, error_range=0.06) < predicted_seconds(n, thick)


def test_strong_scattering_lengthens_a_series_up_to_a_limit() -> None:
    spec = SimulationSpec(thicknesses=(500.0,))
    seconds = [predicted_seconds(300, spec, scattering=strength) for strength in (0.0, 2.0, 1e3, 1e9)]
    assert seconds[0] < seconds[1] < seconds[2] == seconds[3] < 6.0 * seconds[0]


@pytest.mark.parametrize("thickness", [1.0, 200.0, 2000.0, 1e5])
def test_no_scattering_lengthens_nothing(thickness: float) -> None:
    spec = SimulationSpec(thicknesses=(thickness,))
    assert predicted_seconds(300, spec, scattering=1e-6) == predicted_seconds(300, spec)


def test_heavier_and_denser_crystals_scatter_more() -> None:
    lattice, place = 4.0 * np.eye(3), np.zeros((1, 3))
    light, heavy = (scattering_strength(Crystal(lattice, [z], place)) for z in (6, 79))
    assert_allclose([light, heavy], [6 / 64, 79 / 64])
    assert_allclose(scattering_strength(Crystal(lattice, [79, 79], [[0, 0, 0], [0.5] * 3])), heavy * 2**0.5)


def test_many_orientations_are_predicted_at_once() -> None:
    n, spec = np.array([[10, 100], [300, 2000]]), SimulationSpec()
    expected = [[float(predicted_seconds(value, spec)) for value in row] for row in n]
    assert_allclose(predicted_seconds(n, spec), expected)


def test_precession_costs_a_matrix_product_for_each_term() -> None:
    cone = SimulationSpec(precession_deg=1.0, precession_azimuths=72)
    assert predicted_solve_bytes(10, cone) > 256_000_000
    assert 5.0 < predicted_seconds(1000, cone) / predicted_seconds(1000, SimulationSpec()) < 72.0


def test_a_solve_of_a_thousand_beams_takes_seconds_and_its_matrices_megabytes() -> None:
    assert 1e-3 < predicted_seconds(1000, SimulationSpec()) < 10.0
    assert predicted_solve_bytes(1000, SimulationSpec()) == 9 * 16 * 1000**2


def test_a_larger_cell_takes_longer_to_prepare() -> None:
    spec = SimulationSpec()
    assert 0.0 < predicted_setup_seconds(50.0, spec) < predicted_setup_seconds(5000.0, spec) < 10.0


def test_a_speed_survives_json() -> None:
    assert Speed.from_json(TYPICAL.to_json()) == TYPICAL


@pytest.mark.parametrize(
    "change",
    [
        {"speed_version": 99},
        {"solve": -1.0},
        {"solve": "fast"},
        {"solve": 10**400},
        {"sizes": [64, 32]},
        {"term": [1e-6]},
        {"add": float("nan")},
        {"unknown": 1.0},
    ],
)
def test_a_speed_file_that_is_none_is_refused(change: dict) -> None:
    text = json.dumps({**json.loads(TYPICAL.to_json()), **change})
    with pytest.raises(SpecError, match="diffractory calibrate"):
        Speed.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"speed_version": 1}'])
def test_text_that_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="speed file does not hold"):
        Speed.from_json(text)
