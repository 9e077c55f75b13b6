from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from diffractory.errors import SimulationError
from diffractory.scattering import chebyshev, solvers
from diffractory.scattering.chebyshev import Spectrum, chebyshev_series, spectrum_of
from diffractory.scattering.solvers import cheapest_solver, propagate


def random_matrix(n: int, seed: int, absorption: float = 2e-4) -> np.ndarray:
    """Hermitian coupling, excitation errors on the diagonal, a positive absorptive part."""
    rng = np.random.default_rng(seed)
    coupling = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    matrix = 2e-3 * (coupling + coupling.conj().T)
    lossy = rng.normal(size=(n, n)) / n**0.5
    np.fill_diagonal(matrix, rng.uniform(-0.06, 0.06, n))
    return matrix + 1j * absorption * (lossy @ lossy.T)


@given(
    s=st.floats(-0.05, 0.05),
    extinction=st.floats(100.0, 2000.0),
    thickness=st.floats(1.0, 2000.0),
    solver=st.sampled_from(["chebyshev", "step", "dense"]),
)
def test_two_beams_follow_the_analytic_solution(
    s: float, extinction: float, thickness: float, solver: str
) -> None:
    thickness = round(thickness, 3)
    matrix = np.array([[0.0, 0.5 / extinction], [0.5 / extinction, s]], dtype=complex)
    wave = propagate(matrix, (thickness,), solver, "double")[0]  # type: ignore[arg-type]
    effective = np.hypot(s, 1.0 / extinction)
    expected = (np.sin(np.pi * thickness * effective) / (extinction * effective)) ** 2
    assert_allclose(np.abs(wave) ** 2, [1.0 - expected, expected], atol=1e-9)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """The dense reference, which no solver may fall back to in this test."""
    dense = solvers._dense

    def refuse(*_: object) -> None:
        raise AssertionError("fell back to the dense reference")

    monkeypatch.setattr(solvers, "_dense", refuse)
    return lambda matrix, thicknesses: np.abs(dense(matrix, thicknesses)) ** 2


@pytest.mark.parametrize("n", [1, 2, 5, 40, 150])
@pytest.mark.parametrize("thicknesses", [(200.0,), (20.0, 40.0, 60.0), (13.7, 200.0, 533.3), (2000.0,)])
def test_all_solvers_agree(
    n: int, thicknesses: tuple[float, ...], reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(n, seed=n)
    expected = reference(matrix, thicknesses)
    for solver in ("chebyshev", "step", "auto"):
        assert_allclose(np.abs(propagate(matrix, thicknesses, solver)) ** 2, expected, atol=2e-6)


def test_a_series_is_restarted_on_a_path_too_long_for_one(
    monkeypatch: pytest.MonkeyPatch, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(200, seed=3)
    monkeypatch.setattr(chebyshev, "MAX_TERMS", 150)
    thicknesses = (100.0, 900.0, 950.0)
    assert spectrum_of(matrix).reach < 200.0
    waves = propagate(matrix, thicknesses, "chebyshev")
    assert_allclose(np.abs(waves) ** 2, reference(matrix, thicknesses), atol=2e-6)


@pytest.mark.parametrize("absorption", [0.0, 1e-4, 2e-3, 1e-2])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_series_keep_their_bound_at_any_absorption(
    absorption: float, precision: str, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(120, seed=8, absorption=absorption)
    thicknesses = (20.0, 200.0, 2000.0)
    waves = propagate(matrix, thicknesses, "chebyshev", precision)  # type: ignore[arg-type]
    bound = 2e-6 if precision == "single" else 1e-9
    assert_allclose(np.abs(waves) ** 2, reference(matrix, thicknesses), rtol=0, atol=bound)


@given(shrunk=st.floats(0.3, 1.0), absorption=st.sampled_from([0.0, 1e-3, 1e-2]), seed=st.integers(0, 1000))
def test_a_series_on_a_narrow_interval_is_right_or_given_up(
    shrunk: float, absorption: float, seed: int
) -> None:
    matrix = random_matrix(40, seed, absorption)
    found = spectrum_of(matrix)
    narrow = Spectrum(found.middle, found.half_width * shrunk, found.half_height)
    with np.errstate(over="ignore", invalid="ignore"):
        waves = chebyshev_series(matrix, (100.0, 400.0), narrow, np.complex64)
    if waves is not None:
        expected = np.abs(solvers._dense(matrix, (100.0, 400.0))) ** 2
        assert_allclose(np.abs(waves) ** 2, expected, rtol=0, atol=1e-5)


@given(n=st.integers(2, 80), seed=st.integers(0, 10**6))
def test_the_interval_holds_the_spectrum(n: int, seed: int) -> None:
    matrix = random_matrix(n, seed)
    found = spectrum_of(matrix)
    eigenvalues = np.linalg.eigvalsh(0.5 * (matrix + matrix.conj().T))
    assert found.middle.real - found.half_width <= eigenvalues[0]
    assert found.middle.real + found.half_width >= eigenvalues[-1]


def test_a_series_that_diverges_falls_back_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random_matrix(60, seed=4)
    monkeypatch.setattr(solvers, "spectrum_of", lambda _: Spectrum(0j, 0.02, 1e-4))
    assert_allclose(propagate(matrix, (200.0,), "chebyshev"), propagate(matrix, (200.0,), "dense"))


def test_thicknesses_without_a_common_step_fall_back() -> None:
    matrix = random_matrix(20, seed=5)
    thicknesses = (0.000123, 1234.567891)
    assert_allclose(
        np.abs(propagate(matrix, thicknesses, "step")), np.abs(propagate(matrix, thicknesses, "dense"))
    )


@pytest.mark.filterwarnings("ignore")
def test_numbers_that_are_not_finite_never_leave() -> None:
    matrix = random_matrix(4, seed=6)
    matrix[1, 1] = np.nan
    with pytest.raises(SimulationError, match="not finite"):
        propagate(matrix, (200.0,), "dense")


def test_the_cheapest_solver_is_a_series_for_large_and_the_step_operator_for_small() -> None:
    series = tuple(20.0 * i for i in range(1, 101))
    assert cheapest_solver(1000, (200.0,), 0.06) == "chebyshev"
    assert cheapest_solver(1000, series, 0.06) == "chebyshev"
    assert cheapest_solver(60, series, 0.06) == "step"
    assert cheapest_solver(60, (0.000123, 1234.567891), 0.06) == "chebyshev"
