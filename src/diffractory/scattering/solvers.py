"""Propagation of the incident wave through the foil: ψ(t) = exp(2πi t M) e₀ with M = A / 2k₀.

Three exact ways, chosen by their cost:

- *Krylov*: Arnoldi from e₀, stopped on its own error estimate; best for short paths.
- *Step operator*: exp(2πi Δt M) once, then one product a step; best for uniform series.
- *Dense reference*: a matrix exponential for each interval; the fallback, and the yardstick.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from diffractory.errors import SimulationError

Solver = Literal["auto", "krylov", "step", "dense"]

#: Bound on the amplitude error of a Krylov solve; intensities are then good to 1e-6.
_KRYLOV_TOLERANCE = 1e-7
#: The Krylov space grows by this many vectors between two error estimates.
_KRYLOV_STRIDE = 16
#: Larger spaces cost more than restarting.
_KRYLOV_MAX = 320
#: A step operator may be applied this often to reach the largest thickness.
_MAX_STEPS = 20_000


def propagate(
    matrix: NDArray[np.complex128],
    thicknesses: tuple[float, ...],
    solver: Solver = "auto",
) -> NDArray[np.complex128]:
    """Return the wave at each thickness.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex128
        A / 2k₀ in Å⁻¹; beam 0 is the incident one.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    solver : {"auto", "krylov", "step", "dense"}
        "auto" takes the cheapest.

    Returns
    -------
    ndarray of shape (n_thicknesses, n), complex128

    Raises
    ------
    SimulationError
        If the result is not finite.
    """
    chosen = cheapest_solver(len(matrix), thicknesses, _half_width(matrix)) if solver == "auto" else solver
    waves: NDArray[np.complex128] | None
    if chosen == "krylov":
        waves = _krylov(matrix, thicknesses)
    elif chosen == "step":
        waves = _step_series(matrix, thicknesses)
    else:
        waves = None
    if waves is None or not np.all(np.isfinite(waves)):
        waves = _dense(matrix, thicknesses)
    if not np.all(np.isfinite(waves)):
        raise SimulationError(
            f"a Bloch-wave solve of {len(matrix)} beams gave numbers that are not finite",
            "the structure matrix is out of the range of double precision",
            "Check the crystal for overlapping atoms",
        )
    return waves


def cheapest_solver(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> Solver:
    """Return the solver of least predicted cost.

    Parameters
    ----------
    n_beams : int
    thicknesses : tuple of float
        In Å.
    half_width : float
        Half-width of the spectrum of the matrix in Å⁻¹.
    """
    krylov = _krylov_products(n_beams, thicknesses, half_width)
    return "krylov" if krylov <= _step_products(n_beams, thicknesses, half_width) else "step"


def predicted_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    """Return the cost of the cheapest solver, in matrix-vector products of n_beams²."""
    return min(
        _krylov_products(n_beams, thicknesses, half_width), _step_products(n_beams, thicknesses, half_width)
    )


def _krylov_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    total, start = 0.0, 0.0
    spaces = max(1, math.ceil(krylov_size(thicknesses[-1], half_width) / _KRYLOV_MAX))
    for end in (thicknesses[-1] * (i + 1) / spaces for i in range(spaces)):
        size = min(krylov_size(end - start, half_width), n_beams)
        intervals = len({round(b - a, 6) for a, b in pairwise((start, *thicknesses)) if start < b <= end})
        # Products, orthogonalising twice against a growing basis, and the small exponentials.
        total += size + 3.0 * size**2 / n_beams + 12.0 * max(1, intervals) * size**3 / n_beams**2
        start = end
    return total


def _step_products(n_beams: int, thicknesses: tuple[float, ...], half_width: float) -> float:
    step = _common_step(thicknesses)
    if step is None:
        return math.inf
    squarings = max(0.0, math.log2(max(2.0 * math.pi * step * half_width, 1.0)))
    # A matrix product does n_beams matrix-vector products, at the higher speed of a product.
    return (7.5 + squarings) * 0.18 * n_beams + thicknesses[-1] / step


def krylov_size(thickness: float, half_width: float) -> int:
    """Estimate the Krylov vectors needed: the phase range crossed, and a margin."""
    phase = 2.0 * math.pi * thickness * half_width
    return math.ceil(0.9 * phase + 2.5 * math.cbrt(phase)) + 6


def _half_width(matrix: NDArray[np.complex128]) -> float:
    """Return half the spread of the diagonal: the excitation errors dominate the spectrum."""
    diagonal = matrix.diagonal().real
    return 0.5 * float(diagonal.max() - diagonal.min())


def _common_step(thicknesses: tuple[float, ...]) -> float | None:
    """Return the largest step of which all thicknesses are multiples, None if there is none."""
    # Thicknesses are given in Å with a few decimals: compare them on a grid of 1e-6 Å.
    ticks = [round(t * 1e6) for t in thicknesses]
    step = math.gcd(*ticks)
    if step == 0 or ticks[-1] // step > _MAX_STEPS:
        return None
    return step * 1e-6


def _dense(matrix: NDArray[np.complex128], thicknesses: tuple[float, ...]) -> NDArray[np.complex128]:
    wave = _incident(len(matrix))
    waves = []
    operators: dict[float, NDArray[np.complex128]] = {}
    for previous, thickness in pairwise((0.0, *thicknesses)):
        length = round(thickness - previous, 9)
        if length not in operators:
            operators = {length: expm(2j * np.pi * length * matrix)}
        wave = operators[length] @ wave
        waves.append(wave)
    return np.array(waves)


def _incident(n_beams: int) -> NDArray[np.complex128]:
    wave = np.zeros(n_beams, dtype=np.complex128)
    wave[0] = 1.0
    return wave


def _step_series(
    matrix: NDArray[np.complex128], thicknesses: tuple[float, ...]
) -> NDArray[np.complex128] | None:
    step = _common_step(thicknesses)
    if step is None:
        return None
    operator = expm(2j * np.pi * step * matrix)
    wave = _incident(len(matrix))
    waves = np.empty((len(thicknesses), len(matrix)), dtype=np.complex128)
    done = 0
    for row, thickness in enumerate(thicknesses):
        target = round(thickness / step)
        for _ in range(target - done):
            wave = operator @ wave
        done = target
        waves[row] = wave
    return waves


def _krylov(matrix: NDArray[np.complex128], thicknesses: tuple[float, ...]) -> NDArray[np.complex128] | None:
    """Propagate in Krylov spaces, restarting where one space cannot reach the next thickness."""
    half_width = _half_width(matrix)
    wave, start = _incident(len(matrix)), 0.0
    waves: list[NDArray[np.complex128]] = []
    remaining = list(thicknesses)
    while remaining:
        reachable = [t - start for t in remaining if krylov_size(t - start, half_width) <= _KRYLOV_MAX]
        # A single interval may be too long for one space: cross half of it first.
        lengths = reachable or [_reach(remaining[0] - start, half_width)]
        pieces = _arnoldi(matrix, wave, lengths, half_width)
        if pieces is None:
            return None
        wave, start = pieces[-1], start + lengths[-1]
        if reachable:
            waves.extend(pieces)
            remaining = remaining[len(reachable) :]
    return np.array(waves)


def _reach(length: float, half_width: float) -> float:
    while krylov_size(length, half_width) > _KRYLOV_MAX:
        length *= 0.5
    return length


def _arnoldi(
    matrix: NDArray[np.complex128], start: NDArray[np.complex128], lengths: list[float], half_width: float
) -> NDArray[np.complex128] | None:
    """Return exp(2πi t M) start for each length, of shape (n_lengths, n); None if not converged.

    References
    ----------
    Saad, SIAM J. Numer. Anal. 29, 209 (1992): Arnoldi approximation and its error estimate.
    """
    n = len(matrix)
    norm = float(np.linalg.norm(start))
    limit = min(n, 2 * _KRYLOV_MAX)
    first_check = krylov_size(lengths[-1], half_width)
    basis = np.empty((limit + 1, n), dtype=np.complex128)
    hessenberg = np.zeros((limit + 1, limit), dtype=np.complex128)
    basis[0] = start / norm
    for size in range(1, limit + 1):
        vector = matrix @ basis[size - 1]
        known = basis[:size]
        # Classical Gram-Schmidt twice: as stable as modified, and all matrix-vector products.
        for _ in range(2):
            # Conjugating the vector instead of the basis saves a copy of the basis.
            overlap = (known @ vector.conj()).conj()
            vector -= overlap @ known
            hessenberg[:size, size - 1] += overlap
        residual = float(np.linalg.norm(vector))
        hessenberg[size, size - 1] = residual
        exhausted = residual < 1e-13 or size == limit
        if exhausted or (size >= first_check and (size - first_check) % _KRYLOV_STRIDE == 0):
            small, error = _small_exponentials(hessenberg[:size, :size], residual, lengths)
            if norm * error < _KRYLOV_TOLERANCE or residual < 1e-13 or size == n:
                waves: NDArray[np.complex128] = small @ basis[:size]
                waves *= norm
                return waves
        if exhausted:
            return None
        basis[size] = vector / residual
    return None


def _small_exponentials(
    hessenberg: NDArray[np.complex128], residual: float, lengths: list[float]
) -> tuple[NDArray[np.complex128], float]:
    """Return the waves in the Krylov basis, (n_lengths, m), and the estimate of the largest error."""
    m = len(hessenberg)
    # The extra row integrates the last component: Saad's φ₁ estimate comes out with the waves.
    augmented = np.zeros((m + 1, m + 1), dtype=np.complex128)
    augmented[:m, :m] = hessenberg
    augmented[m, m - 1] = residual
    vector = np.zeros(m + 1, dtype=np.complex128)
    vector[0] = 1.0
    waves = np.empty((len(lengths), m), dtype=np.complex128)
    previous, operator, used = 0.0, augmented, -1.0
    for row, length in enumerate(lengths):
        step = round(length - previous, 9)
        if step != used:
            operator, used = expm(2j * np.pi * step * augmented), step
        vector = operator @ vector
        waves[row] = vector[:m]
        previous = length
    return waves, float(abs(vector[m]))
