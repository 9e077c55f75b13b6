from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import jv

from diffractory.errors import SimulationError
from diffractory.scattering import chebyshev, solvers
from diffractory.scattering.chebyshev import (
    bessel_coefficients,
    chebyshev_series,
    matrix_recurrence,
    n_terms,
)
from diffractory.scattering.solvers import propagate, propagate_tilts, tilted_matrix
from diffractory.scattering.spectrum import Spectrum, spectrum_of


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
    solver=st.sampled_from(["chebyshev", "dense"]),
)
def test_two_beams_follow_the_analytic_solution(
    s: float, extinction: float, thickness: float, solver: str
) -> None:
    matrix = np.array([[0.0, 0.5 / extinction], [0.5 / extinction, s]], dtype=complex)
    intensity = propagate(matrix, (thickness,), solver).intensity[0]  # type: ignore[arg-type]
    effective = np.hypot(s, 1.0 / extinction)
    expected = (np.sin(np.pi * thickness * effective) / (extinction * effective)) ** 2
    assert_allclose(intensity, [1.0 - expected, expected], atol=1e-9)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """The dense reference, which no solver may fall back to in this test."""
    dense = solvers._dense

    def refuse(*_: object) -> None:
        raise AssertionError("fell back to the dense reference")

    monkeypatch.setattr(solvers, "_dense", refuse)
    return lambda matrix, thicknesses: np.abs(dense(matrix, thicknesses)) ** 2


@pytest.mark.parametrize("n", [1, 2, 5, 40, 150])
@pytest.mark.parametrize(
    "thicknesses", [(0.001,), (200.0,), (20.0, 40.0, 60.0), (13.7, 200.0, 533.3), (2000.0,)]
)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_the_series_agrees_with_the_reference(
    n: int, thicknesses: tuple[float, ...], dtype: type, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(n, seed=n)
    solution = propagate(matrix.astype(dtype), thicknesses)
    assert solution.solver == "chebyshev"
    bound = 2e-6 if dtype is np.complex64 else 1e-9
    assert_allclose(solution.intensity, reference(matrix, thicknesses), rtol=0, atol=bound)


def test_a_series_is_restarted_on_a_path_too_long_for_one(
    monkeypatch: pytest.MonkeyPatch, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(200, seed=3)
    monkeypatch.setattr(chebyshev, "MAX_PHASE", 80.0)
    thicknesses = (100.0, 900.0, 950.0)
    assert 2.0 * np.pi * spectrum_of(matrix).half_width * 300.0 > 80.0
    solution = propagate(matrix.astype(np.complex64), thicknesses)
    assert_allclose(solution.intensity, reference(matrix, thicknesses), rtol=0, atol=2e-6)


@pytest.mark.parametrize("absorption", [0.0, 1e-4, 2e-3, 1e-2])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_series_keep_their_bound_at_any_absorption(
    absorption: float, dtype: type, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(120, seed=8, absorption=absorption)
    thicknesses = (20.0, 200.0, 2000.0)
    solution = propagate(matrix.astype(dtype), thicknesses)
    bound = 2e-6 if dtype is np.complex64 else 1e-9
    assert_allclose(solution.intensity, reference(matrix, thicknesses), rtol=0, atol=bound)


@given(shrunk=st.floats(0.3, 1.0), absorption=st.sampled_from([0.0, 1e-3, 1e-2]), seed=st.integers(0, 1000))
def test_a_series_on_a_narrow_interval_is_right_or_given_up(
    shrunk: float, absorption: float, seed: int
) -> None:
    matrix = random_matrix(40, seed, absorption)
    incident = np.eye(40, dtype=np.complex64)[0]
    found = spectrum_of(matrix)
    narrow = Spectrum(found.middle, shrunk * found.half_width)
    with np.errstate(over="ignore", invalid="ignore"):
        recurrence = matrix_recurrence(matrix.astype(np.complex64), narrow.middle)
        waves = chebyshev_series(recurrence, incident, (100.0, 400.0), narrow)
    if waves is not None:
        expected = np.abs(solvers._dense(matrix, (100.0, 400.0))) ** 2
        assert_allclose(np.abs(waves) ** 2, expected, rtol=0, atol=1e-5)


@given(n=st.integers(2, 80), seed=st.integers(0, 10**6))
def test_the_interval_holds_the_spectrum_but_for_little(n: int, seed: int) -> None:
    matrix = random_matrix(n, seed)
    found = spectrum_of(matrix)
    eigenvalues = np.linalg.eigvalsh(0.5 * (matrix + matrix.conj().T))
    # What is missed makes terms grow, and is caught by their norm.
    slack = 0.03 * found.half_width
    assert found.middle.real - found.half_width - slack <= eigenvalues[0]
    assert found.middle.real + found.half_width + slack >= eigenvalues[-1]
    assert found.half_width < 0.8 * (eigenvalues[-1] - eigenvalues[0])


@pytest.mark.parametrize("thicknesses", [(400.0,), (100.0, 400.0), tuple(range(20, 401, 20))])
def test_a_series_whose_terms_grow_goes_on_in_shorter_pieces(
    thicknesses: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, reference: Callable[..., np.ndarray]
) -> None:
    matrix = random_matrix(60, seed=4)
    ends = np.linalg.eigvals(matrix).real
    narrow = Spectrum(0.5 * (ends.min() + ends.max()), 0.47 * (ends.max() - ends.min()))
    monkeypatch.setattr(solvers, "spectrum_of", lambda _: narrow)
    one_series, pieces = chebyshev._one_series, []

    def counted(*arguments: object) -> object:
        pieces.append(arguments)
        return one_series(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(chebyshev, "_one_series", counted)
    solution = propagate(matrix, thicknesses)
    assert solution.solver == "chebyshev"
    assert len(pieces) > 2
    assert_allclose(solution.intensity, reference(matrix, thicknesses), rtol=0, atol=1e-9)


def test_a_series_that_diverges_for_good_falls_back_to_the_reference_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = random_matrix(60, seed=4)
    monkeypatch.setattr(solvers, "spectrum_of", lambda _: Spectrum(0j, 1e-5))
    solution = propagate(matrix.astype(np.complex64), (200.0,))
    assert solution.solver == "dense"
    assert_allclose(solution.intensity, propagate(matrix, (200.0,), "dense").intensity, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["chebyshev", "dense"])
def test_numbers_that_are_not_finite_never_leave(solver: str) -> None:
    matrix = random_matrix(4, seed=6)
    matrix[1, 1] = np.nan
    with pytest.raises(SimulationError, match="not finite"):
        propagate(matrix, (200.0,), solver)  # type: ignore[arg-type]


@given(phases=st.lists(st.floats(1e-6, 1400.0), min_size=1, max_size=6, unique=True))
def test_coefficients_are_bessel_functions(phases: list[float]) -> None:
    x = np.array(sorted(phases))
    found = bessel_coefficients(x, 1e-13)
    k = np.arange(found.shape[1])
    expected = np.where(k == 0, 1.0, 2.0) * np.where(k % 4 > 1, -1.0, 1.0) * jv(k, x[:, None])
    assert_allclose(found, expected, rtol=0, atol=2e-12)
    assert np.abs(jv(found.shape[1], x)).max() < 1e-13


@given(thickness=st.floats(1.0, 3000.0), half_width=st.floats(0.005, 0.2))
def test_the_number_of_terms_is_known_beforehand(thickness: float, half_width: float) -> None:
    used = bessel_coefficients(np.array([2.0 * np.pi * thickness * half_width]), 1e-8).shape[1]
    assert abs(n_terms(thickness, half_width) - used) <= 0.05 * used + 6


TILTS = [np.array([1.0]), np.array([1.0, 1.001, 1.002]), np.linspace(1.0, 1.01, 40)]


@pytest.mark.parametrize("shares", TILTS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_tilts_together_equal_each_alone(
    shares: np.ndarray, dtype: type, reference: Callable[..., np.ndarray]
) -> None:
    coupling = random_matrix(50, seed=9)
    np.fill_diagonal(coupling, 1j * coupling.diagonal().imag)
    slope = np.random.default_rng(1).uniform(-0.05, 0.05, 50)
    errors = np.linspace(-0.04, 0.05, 50)[:, None] + slope[:, None] * np.linspace(-1.0, 1.0, len(shares))
    errors[0] = 0.0
    thicknesses = (20.0, 200.0, 901.0)
    solution = propagate_tilts(coupling.astype(dtype), shares, errors, thicknesses)
    bound = 2e-6 if dtype is np.complex64 else 1e-9
    for i, share in enumerate(shares):
        expected = reference(tilted_matrix(coupling.copy(), share, errors[:, i]), thicknesses)
        assert_allclose(solution.intensity[:, :, i], expected, rtol=0, atol=bound)


def test_tilts_fall_back_to_the_reference_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    coupling = random_matrix(20, seed=2)
    errors = np.linspace(-0.1, 0.1, 40).reshape(20, 2)
    series = propagate_tilts(coupling, np.ones(2), errors, (100.0, 200.0))
    monkeypatch.setattr(solvers, "spectrum_of", lambda _: Spectrum(0j, 1e-5))
    fallen = propagate_tilts(coupling, np.ones(2), errors, (100.0, 200.0))
    assert (series.solver, fallen.solver) == ("chebyshev", "dense")
    assert_allclose(fallen.intensity, series.intensity, rtol=0, atol=1e-9)
