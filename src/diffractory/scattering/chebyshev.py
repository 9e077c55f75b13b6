"""Propagation by a Chebyshev series: products with the structure matrix, and nothing else.

exp(2πi t M) ψ₀ = Σ_k c_k(t) T_k(S) ψ₀, with S = (M − m) / r scaled so that its spectrum lies in [−1, 1] and
c_k(t) = (2 − δ_k0) iᵏ J_k(2πrt) exp(2πimt). The coefficients die off faster than exponentially once
k exceeds 2πrt, so the number of terms is known beforehand, and one recurrence serves all
thicknesses. Unlike an Arnoldi basis nothing is orthogonalised, so single precision keeps 1e-6.

References
----------
Tal-Ezer and Kosloff, J. Chem. Phys. 81, 3967 (1984).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from diffractory.scattering.spectrum import Spectrum

#: Terms below this are left out, far under what the precision of the recurrence can hold.
TRUNCATION = {np.dtype(np.complex64): 1e-8, np.dtype(np.complex128): 1e-13}
#: Terms are added up in blocks of so many, as one matrix product for all thicknesses; even.
BLOCK = 64
#: Terms grow by absorption, and where the interval is too narrow; errors of rounding and truncation
#: grow with them. Beyond this factor a series ends and the next one starts where it got to.
_MAX_NORM = 60.0
#: Longest series, in radians of phase.
MAX_PHASE = 1500.0
#: Shortest series worth trying, in radians of phase.
MIN_PHASE = 1.0
#: Where a long series is evaluated besides the thicknesses, in radians of phase: if its terms grow too
#: large, the next one starts there, and what was computed is not lost.
_WAY_POINTS = np.array([8.0, 16.0, 28.0, 48.0])

#: Writes the next terms of T_{k+1} = (2/r)(M − m) T_k − T_{k−1} into an array of shape
#: (n_terms, *wave.shape), given T_{k−1}, T_k (left as the last two) and the gain 2/r.
Recurrence = Callable[[NDArray[Any], NDArray[Any], NDArray[Any], float], None]


def n_terms(thickness: float, half_width: ArrayLike) -> NDArray[np.float64]:
    """Return how many terms a path needs in single precision: the phase it spans, and a margin.

    Parameters
    ----------
    thickness : float
        In Å.
    half_width : array_like
        Half the range of the eigenvalues' real parts in Å⁻¹.
    """
    phase = 2.0 * np.pi * thickness * np.asarray(half_width, dtype=np.float64)
    terms: NDArray[np.float64] = np.ceil(phase + 5.5 * np.cbrt(phase)) + 8.0
    return terms


def matrix_recurrence(matrix: NDArray[Any], middle: complex) -> Recurrence:
    """Return the recurrence of one wave: matrix-vector products.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex
        A / 2k₀ in Å⁻¹.
    middle : complex
        Middle of its spectrum, in Å⁻¹.
    """
    centre = matrix.dtype.type(middle)

    def advance(older: NDArray[Any], newer: NDArray[Any], terms: NDArray[Any], gain: float) -> None:
        _advance(matrix, centre, centre.real.dtype.type(gain), older, newer, terms)

    return advance


@njit(cache=True, nogil=True)
def _advance(
    matrix: NDArray[Any],
    middle: Any,
    gain: Any,
    older: NDArray[Any],
    newer: NDArray[Any],
    terms: NDArray[Any],
) -> None:
    # Compiled: a small matrix is multiplied in less time than an interpreter's call takes.
    image = np.empty_like(newer)
    for row in range(len(terms)):
        np.dot(matrix, newer, image)
        for i in range(len(newer)):
            value = gain * (image[i] - middle * newer[i]) - older[i]
            older[i] = newer[i]
            newer[i] = value
            terms[row, i] = value


def tilted_recurrence(
    coupling: NDArray[Any], inverse_cosines: NDArray[np.float64], errors: NDArray[np.float64], middle: complex
) -> Recurrence:
    """Return the recurrence of many tilts of one beam set: matrix-matrix products.

    Parameters
    ----------
    coupling : ndarray of shape (n, n), complex
        U / 2k₀ in Å⁻¹, with i Im U_0 / 2k₀ on the diagonal.
    inverse_cosines : ndarray of shape (n_tilts,)
        Factor of the coupling for each tilt.
    errors : ndarray of shape (n, n_tilts)
        Excitation errors in Å⁻¹.
    middle : complex
        Middle of the union of all spectra, in Å⁻¹.
    """
    factor = inverse_cosines.astype(coupling.real.dtype)
    diagonal = (errors - middle).astype(coupling.dtype)

    def advance(older: NDArray[Any], newer: NDArray[Any], terms: NDArray[Any], gain: float) -> None:
        image = np.empty_like(newer)
        for term in terms:
            np.matmul(coupling, newer, out=image)
            image *= factor
            np.multiply(diagonal, newer, out=term)
            image += term
            image *= factor.dtype.type(gain)
            np.subtract(image, older, out=term)
            older[...] = newer
            newer[...] = term

    return advance


def chebyshev_series(
    recurrence: Recurrence, incident: NDArray[Any], thicknesses: tuple[float, ...], spectrum: Spectrum
) -> NDArray[Any] | None:
    """Return the waves at each thickness, or None where the series diverged.

    Parameters
    ----------
    recurrence : callable
        Of the matrix and the middle of its spectrum.
    incident : ndarray of shape (n,) or (n, n_tilts), complex64 or complex128
        Wave before the foil; its precision is that of the series.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    spectrum : Spectrum
        Of the matrix.

    Returns
    -------
    ndarray of shape (n_thicknesses, *incident.shape), or None

    Notes
    -----
    The exponential is entire, so the series converges even for eigenvalues outside the interval;
    but its terms then grow, and errors of rounding and truncation with them. The norm of the
    terms is therefore watched: it bounds the error.
    """
    waves = np.empty((len(thicknesses), *incident.shape), dtype=incident.dtype)
    done, per_length = 0, 2.0 * np.pi * spectrum.half_width
    for some in in_pieces(
        lambda wave, phases: _one_series(recurrence, wave, phases, spectrum),
        incident,
        thicknesses,
        per_length,
    ):
        waves[done : done + len(some)] = some
        done += len(some)
    return waves if done == len(thicknesses) else None


def in_pieces(
    series: Callable[[Any, NDArray[np.float64]], tuple[Any, int]],
    wave: Any,
    thicknesses: tuple[float, ...],
    per_length: float,
) -> Iterator[Any]:
    """Yield the waves at the thicknesses, some at a time; end before the last where terms diverge.

    Parameters
    ----------
    series : callable
        Takes a wave and phases; returns the waves after as many of them as its terms allow, and how
        many terms did.
    wave : array of any library
        Before the foil.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    per_length : float
        Phase of 1 Å.
    """
    start, done, reach = 0.0, 0, MAX_PHASE / per_length
    while done < len(thicknesses):
        lengths = [t - start for t in thicknesses[done:] if t - start <= reach]
        is_thickness = bool(lengths)
        if not is_thickness:
            # An interval too long for one series is crossed in equal pieces.
            gap = thicknesses[done] - start
            lengths = [gap / math.ceil(gap / reach)]
        # None close before the first thickness: that will do as well.
        ways = _WAY_POINTS[: np.searchsorted(_WAY_POINTS, 0.8 * per_length * lengths[0])] / per_length
        all_lengths = np.concatenate([ways, lengths])
        waves, n_terms_held = series(wave, per_length * all_lengths)
        if not len(waves):
            reach = 0.7 * min(reach, n_terms_held / per_length)
            if per_length * reach < MIN_PHASE:
                return
            continue
        reached = float(all_lengths[len(waves) - 1])
        if len(waves) < len(all_lengths):
            # What was reached will be reached again, and more if thicknesses are far apart.
            reach = max(reached, 0.7 * n_terms_held / per_length)
        wave, start = waves[-1], start + reached
        waves = waves[len(ways) :]
        if is_thickness and len(waves):
            done += len(waves)
            yield waves


def _one_series(
    recurrence: Recurrence, wave: NDArray[Any], phases: NDArray[np.float64], spectrum: Spectrum
) -> tuple[NDArray[Any], int]:
    """Return the waves after as many of the phases as the terms allow, and how many terms they did."""
    truncation = TRUNCATION[wave.dtype]
    coefficients = bessel_coefficients(phases, truncation)
    n_coefficients = coefficients.shape[1]
    gain = 2.0 / spectrum.half_width
    limit = _MAX_NORM * _norms(wave[None])[0]
    # c_k is real for even k and imaginary for odd k: two sums with real coefficients are half the
    # work of one with complex ones. A strided factor would not reach BLAS: copy.
    parts = [np.ascontiguousarray(coefficients[:, odd::2], dtype=wave.real.dtype) for odd in (0, 1)]
    sums = [np.zeros((len(phases), *wave.shape), dtype=wave.dtype) for _ in parts]
    block = np.empty((BLOCK, *wave.shape), dtype=wave.dtype)
    older, newer = np.zeros_like(wave), wave.copy()
    complete, held = len(phases), n_coefficients
    for first in range(0, n_coefficients, BLOCK):
        terms = block[: min(BLOCK, n_coefficients - first)]
        if first == 0:
            terms[0] = wave
            # T_1 = S T_0: half a step, from nothing before.
            recurrence(older, newer, terms[1:2], 0.5 * gain)
            recurrence(older, newer, terms[2:], gain)
        else:
            recurrence(older, newer, terms, gain)
        # Terms grow steadily where they grow at all: the last two stand for the block.
        if not _norms(terms[-2:]).max() <= limit:
            held = first + int(np.argmin(_norms(terms) <= limit))
            # What needs none of the terms that are too large is done.
            complete = int(np.argmax(np.abs(coefficients[:, held : held + 2]).max(axis=1) > truncation))
            terms = terms[: held - first]
        # A thin foil is done before a thick one.
        active = int(np.argmax(np.abs(coefficients[:, first : first + 2]).max(axis=1) > truncation))
        some = (
            slice(first // 2, first // 2 + (len(terms) + 1) // 2),
            slice(first // 2, (first + len(terms)) // 2),
        )
        for total, part, of, which in zip(sums, parts, some, (terms[0::2], terms[1::2]), strict=True):
            add_terms(total[active:complete], part[active:complete, of], which)
        if complete < len(phases):
            break
    waves: NDArray[Any] = sums[0][:complete] + 1j * sums[1][:complete]
    turn = np.exp(1j * phases[:complete] * (spectrum.middle / spectrum.half_width)).astype(wave.dtype)
    waves *= turn.reshape(-1, *(1,) * wave.ndim)
    return waves, held


def _norms(terms: NDArray[Any]) -> NDArray[np.float64]:
    """Return the norm of each term, the largest of its waves; NaN where it is not finite."""
    # In double precision: squares of a wave that is nearly absorbed would underflow.
    squares = np.square(terms.real, dtype=np.float64) + np.square(terms.imag, dtype=np.float64)
    norms: NDArray[np.float64] = np.sqrt(squares.sum(axis=1).reshape(len(terms), -1).max(axis=1))
    return norms


def add_terms(total: NDArray[Any], coefficients: NDArray[Any], terms: NDArray[Any]) -> None:
    """Add terms (n_terms, ...) with real coefficients (n_thicknesses, n_terms) to totals in place."""
    size, real = math.prod(total.shape[1:]), coefficients.dtype
    flat = total.reshape(len(total), size).view(real)
    flat += coefficients @ terms.reshape(len(terms), size).view(real)


def bessel_coefficients(phases: NDArray[np.float64], truncation: float) -> NDArray[np.float64]:
    """Return the coefficients of exp(i x S) in T_k(S), without the i of odd k.

    Parameters
    ----------
    phases : ndarray of shape (n,)
        x, increasing, above 0.
    truncation : float
        Coefficients below this are left out at the end.

    Returns
    -------
    ndarray of shape (n, n_terms)
        (2 − δ_k0) J_k(x), negative for k = 2, 3 modulo 4.
    """
    values: NDArray[np.float64] = _bessel(phases, _orders(phases[-1]))
    # J_k(x) dies off with k the later, the larger x is.
    needed = int(np.flatnonzero(np.abs(values[-1]) > truncation)[-1]) + 1
    return values[:, :needed]


@njit(cache=True, nogil=True)
def _orders(x: float) -> int:
    """Return an order at which J_k(x) is far below the smallest number kept."""
    return int(x + 11.0 * x ** (1.0 / 3.0)) + 30


@njit(cache=True, nogil=True)
def _bessel(x: NDArray[np.float64], orders: int) -> NDArray[np.float64]:
    """Fill in J_k(x) by Miller's downward recurrence, normalised by J_0 + 2 Σ J_2k = 1."""
    values = np.zeros((len(x), orders))
    for row in range(len(x)):
        line, double_inverse = values[row], 2.0 / x[row]
        above, here, even_sum = 0.0, 1e-250, 0.0
        last = min(orders, _orders(x[row])) - 1
        for k in range(last, -1, -1):
            line[k] = here
            if k % 2 == 0:
                even_sum += here
            above, here = here, k * double_inverse * here - above
            if abs(here) > 1e200:
                # What underflows is nothing beside what follows.
                line[k : last + 1] *= 1e-250
                even_sum, above, here = even_sum * 1e-250, above * 1e-250, here * 1e-250
        double = 2.0 / (2.0 * even_sum - line[0])
        line[0] *= 0.5
        for k in range(last + 1):
            line[k] *= -double if k & 2 else double
    return values
