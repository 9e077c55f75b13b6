from hypothesis import given
from hypothesis import strategies as st

from diffractory.scattering.cost import (
    predicted_seconds,
    predicted_setup_seconds,
    predicted_solve_bytes,
)
from diffractory.specs import SimulationSpec

BEAMS = st.integers(1, 5000)


@given(BEAMS)
def test_more_beams_cost_more(n: int):
    spec = SimulationSpec(thicknesses=tuple(20.0 * i for i in range(1, 101)))
    assert 0.0 < predicted_seconds(n, spec) < predicted_seconds(2 * n, spec)
    assert 0 < predicted_solve_bytes(n) < predicted_solve_bytes(n + 1)


@given(BEAMS)
def test_a_thicker_foil_and_more_thicknesses_cost_no_less(n: int):
    thin, thick = SimulationSpec(thicknesses=(200.0,)), SimulationSpec(thicknesses=(2000.0,))
    every = SimulationSpec(thicknesses=(200.0, 733.0, 2000.0))
    assert predicted_seconds(n, thin) <= predicted_seconds(n, thick) <= predicted_seconds(n, every)


def test_a_solve_of_a_thousand_beams_takes_seconds_and_its_matrices_megabytes():
    assert 1e-3 < predicted_seconds(1000, SimulationSpec()) < 10.0
    assert predicted_solve_bytes(1000) == 9 * 16 * 1000**2


def test_a_larger_cell_takes_longer_to_prepare():
    assert 0.0 < predicted_setup_seconds(50.0) < predicted_setup_seconds(5000.0) < 10.0
