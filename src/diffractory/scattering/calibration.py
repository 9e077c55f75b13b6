"""Measure how fast one core of this machine does each kind of work a solve is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.chebyshev import BLOCK, add_terms, matrix_recurrence, tilted_recurrence
from diffractory.scattering.cost import Speed, n_table_points
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.solvers import propagate
from diffractory.scattering.structure_factors import StructureFactors
from diffractory.scattering.structure_matrix import coupling_matrix
from diffractory.specs import SimulationSpec

#: Beam counts at which products are timed: a matrix of 512 fills the usual second-level cache.
SIZES = (32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536)
#: Each kind of work is repeated for about so long, in seconds.
_DURATION = 0.5
_MIN_REPEATS = 3


def measure_speed(on_step: Callable[[], None] = lambda: None) -> Speed:
    """Time every kind of work on one core; about ten seconds.

    Parameters
    ----------
    on_step : callable
        Called :func:`n_steps` times, for a progress bar.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        products = []
        for n in SIZES:
            products.append(_product_seconds(n))
            on_step()
        rest: dict[str, float] = {}
        for measure in _OTHERS:
            rest |= measure()
            on_step()
    return Speed(SIZES, tuple(products), **rest)


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
    rng = np.random.default_rng(n)
    matrix: NDArray[Any] = np.asfortranarray(rng.normal(size=(n, n)), dtype=np.complex64)
    return matrix * np.float32(1e-3 / n)


def _product_seconds(n: int) -> float:
    advance = matrix_recurrence(_matrix(n), 0j)
    wave, terms = np.ones(n, dtype=np.complex64), np.empty((BLOCK, n), dtype=np.complex64)
    return _seconds(lambda: advance(np.zeros_like(wave), wave, terms, 1.0)) / BLOCK


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


def _add(n: int = 256, thicknesses: int = 100) -> dict[str, float]:
    total = np.zeros((thicknesses, n), dtype=np.complex64)
    part = np.ones((thicknesses, BLOCK // 2), dtype=np.float32)
    terms = np.ones((BLOCK, n), dtype=np.complex64)
    return {"add": _seconds(lambda: add_terms(total, part, terms[0::2])) / (BLOCK // 2 * n * thicknesses)}


def _overheads(blocks: int = 12) -> dict[str, float]:
    """Time solves in which there is next to nothing to multiply."""
    scatterer = Scatterer.prepare(_copper(27.0, 1), SimulationSpec(q_max=0.5))
    matrix = np.diag([0.0, 0.06, -0.06]).astype(np.complex64)
    short, long = (
        _seconds(lambda t=t: propagate(matrix, (t,)))  # type: ignore[misc]
        for t in (100.0, 100.0 + blocks * BLOCK / (2.0 * np.pi * 0.0612))
    )
    return {"solve": _seconds(lambda: scatterer.solve(np.eye(3))), "block": max(long - short, 1e-9) / blocks}


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


_OTHERS = (_tilted_product, _element, _add, _overheads, _preparation)
