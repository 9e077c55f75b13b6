"""Measure how fast one core of this machine does each kind of work a solve is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.chebyshev import n_terms, tilted_recurrence
from diffractory.scattering.cost import Speed, n_table_points
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.solvers import propagate, tilted_matrix
from diffractory.scattering.structure_factors import StructureFactors
from diffractory.scattering.structure_matrix import coupling_matrix
from diffractory.specs import SimulationSpec

#: Beam counts at which series are timed: a matrix of 511 fills the usual second-level cache. Odd, because
#: most are no multiple of a vector register, and columns that all begin on one are read faster.
SIZES = (31, 63, 127, 193, 255, 385, 511, 769, 1023, 1535)
#: Each kind of work is repeated for about so long, in seconds.
_DURATION = 0.1
_MIN_REPEATS = 2


def measure_speed(on_step: Callable[[], None] = lambda: None) -> Speed:
    """Time every kind of work on one core; about fifteen seconds.

    Parameters
    ----------
    on_step : callable
        Called :func:`n_steps` times, for a progress bar.

    Returns
    -------
    Speed
    """
    with threadpool_limits(limits=1, user_api="blas"):
        series = []
        for n in SIZES:
            series.append(_series(n))
            on_step()
        rest: dict[str, float] = {}
        for measure in _OTHERS:
            rest |= measure()
            on_step()
    start, term, adds = zip(*series, strict=True)
    # Differences of large numbers are rough at the largest sizes: the median holds.
    return Speed(SIZES, start, term, float(np.median(adds)), **rest)


def n_steps() -> int:
    """Return how many steps :func:`measure_speed` reports."""
    return len(SIZES) + len(_OTHERS)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the median time of some repeats, the first one not counted: it may compile."""
    work()
    times: list[float] = []
    while len(times) < _MIN_REPEATS or sum(times) < _DURATION:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _matrix(n: int) -> NDArray[Any]:
    """Return a matrix like a crystal's, without absorption: weak couplings, excitation errors to 0.06 Å⁻¹."""
    rng = np.random.default_rng(n)
    coupling = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    matrix: NDArray[Any] = np.asfortranarray(1e-3 / n * (coupling + coupling.conj().T), dtype=np.complex64)
    matrix[np.diag_indices(n)] += np.linspace(-0.06, 0.06, n, dtype=np.float32)
    return matrix


def _series(n: int) -> tuple[float, float, float]:
    """Return seconds of a series besides its terms, of a term, and of a further thickness a term and beam.

    From whole series, so that what they do to caches is in the numbers.
    """
    matrix, half_width = _matrix(n), 0.0612
    every = tuple(float(t) for t in range(20, 2001, 20))
    thin, thick, many = (_seconds(partial(propagate, matrix, t)) for t in ((200.0,), (2000.0,), every))
    few, most = (float(n_terms(t, half_width)) for t in (200.0, 2000.0))
    term = max(thick - thin, 1e-9) / (most - few)
    add = max(many - thick, 1e-9) / (most * (len(every) - 1) * n)
    return max(thin - few * term, 1e-6), term, add


def _tilted_product(n: int = 512, tilts: int = 72) -> dict[str, float]:
    advance = tilted_recurrence(_matrix(n), np.ones(tilts), np.zeros((n, tilts)), 0j)
    waves, terms = np.ones((n, tilts), dtype=np.complex64), np.empty((8, n, tilts), dtype=np.complex64)
    seconds = _seconds(lambda: advance(np.zeros_like(waves), waves, terms, 1.0))
    return {"tilted_product": seconds / (len(terms) * n**2 * tilts)}


def _element(n: int = 768, width: int = 91) -> dict[str, float]:
    rng = np.random.default_rng(0)
    table = StructureFactors(rng.normal(size=(width, width, width)) + 0j)
    # Beams lie in a thin shell.
    hkl = rng.integers(-width // 4, width // 4, (n, 3)) * [1, 1, 0]
    return {"element": _seconds(lambda: coupling_matrix(table, hkl, 0.02)) / n**2}


def _solve() -> dict[str, float]:
    """Time what a solve takes besides its series and its matrix: a share for each beam, and the rest."""
    element = _element()["element"]
    (small, few), (large, many) = (_rest_of_solve(volume, element) for volume in (27.0, 216.0))
    each = max(large - small, 1e-9) / (many - few)
    return {"element": element, "solve": max(small - each * few, 1e-6), "solve_beam": each}


def _rest_of_solve(volume: float, element: float) -> tuple[float, int]:
    """Return seconds besides series and matrix of a crystal with this volume in Å³, and its beams."""
    scatterer = Scatterer.prepare(_copper(volume, 1), SimulationSpec())
    tilt = np.deg2rad([30.0, 20.0])
    (c1, c2), (s1, s2) = np.cos(tilt), np.sin(tilt)
    orientation = np.array([[c1, 0, s1], [s1 * s2, c2, -c1 * s2], [-s1 * c2, s2, c1 * c2]])
    chosen, errors = scatterer.select_beams(orientation)
    matrix = tilted_matrix(scatterer.coupling(chosen, "single"), 1.0, errors[0])
    series = _seconds(lambda: propagate(matrix, scatterer.spec.thicknesses))
    return _seconds(lambda: scatterer.solve(orientation)) - series - element * len(matrix) ** 2, len(matrix)


def _preparation() -> dict[str, float]:
    (small, few), (large, many) = (_prepare_seconds(volume) for volume in (27.0, 512.0))
    each = max(large - small, 1e-9) / (many - few)
    return {"prepare": max(small - each * few, 1e-6), "prepare_point": each}


def _prepare_seconds(volume: float) -> tuple[float, float]:
    """Return the seconds to prepare a crystal of this volume in Å³, and its structure factors."""
    crystal, spec = _copper(volume, 1 + round(volume / 25.0)), SimulationSpec()
    return _seconds(lambda: Scatterer.prepare(crystal, spec)), float(n_table_points(volume, spec))


def _copper(volume: float, n_atoms: int) -> Crystal:
    rng = np.random.default_rng(n_atoms)
    return Crystal(volume ** (1 / 3) * np.eye(3), np.full(n_atoms, 29), rng.uniform(size=(n_atoms, 3)))


_OTHERS = (_tilted_product, _solve, _preparation)
