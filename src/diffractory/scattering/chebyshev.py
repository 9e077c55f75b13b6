"""Propagation by a Chebyshev series: products with the structure matrix, and nothing else.

exp(2πi t M) e₀ = Σ_k c_k(t) T_k(S) e₀, with S = (M − m) / r scaled so that its spectrum lies in [−1, 1] and
c_k(t) = (2 − δ_k0) iᵏ J_k(2πrt) exp(2πimt). The coefficients die off faster than exponentially once
k exceeds 2πrt, so the number of terms is known beforehand, and one recurrence serves all
thicknesses. Unlike an Arnoldi basis nothing is orthogonalised, so single precision keeps 1e-6.

References
----------
Tal-Ezer and Kosloff, J. Chem. Phys. 81, 3967 (1984).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import jv

#: Terms below this are left out, far under what the precision of the recurrence can hold.
_TRUNCATION = {np.dtype(np.complex64): 1e-8, np.dtype(np.complex128): 1e-13}
#: Lanczos steps behind the estimate of the spectrum's ends.
_LANCZOS_STEPS = 12
#: The range of absorption only limits the length of a series: a rougher estimate will do.
_ABSORPTION_STEPS = 5
#: Ritz values approach the ends from inside: widen the interval by this share of its width, each side.
_MARGIN = 0.06
#: Half-widths are rounded up to multiples of this (Å⁻¹), so that coefficients can be cached.
_WIDTH_STEP = 0.002
#: Terms are added up in blocks of so many, as one matrix product for all thicknesses.
_BLOCK = 64
#: Absorption makes the spectrum complex; terms may grow by exp(this) before the series is restarted.
_MAX_GROWTH = 3.0
#: Norm of a term beyond which the interval was too narrow: rounding and truncation are multiplied by it.
_MAX_NORM = 4.0 * math.exp(_MAX_GROWTH)
#: Longest series, in terms; longer paths are restarted too.
MAX_TERMS = 1200


@dataclass(frozen=True)
class Spectrum:
    """Where the eigenvalues of a structure matrix lie.

    Parameters
    ----------
    middle : complex
        Middle of the real and of the imaginary parts, in Å⁻¹.
    half_width : float
        Half-width of an interval that holds all real parts, in Å⁻¹.
    half_height : float
        Half the range of the imaginary parts, which absorption makes, in Å⁻¹.
    """

    middle: complex
    half_width: float
    half_height: float

    @property
    def reach(self) -> float:
        """Longest path of one series, in Å."""
        by_growth = _MAX_GROWTH / (2.0 * math.pi * max(self.half_height, 1e-9))
        by_terms = (MAX_TERMS - 100) / (2.0 * math.pi * self.half_width)
        return min(by_growth, by_terms)


def n_terms(thickness: float, half_width: float) -> int:
    """Return how many terms a path needs: the phase it spans, and a margin."""
    phase = 2.0 * math.pi * thickness * half_width
    return math.ceil(phase + 5.0 * math.cbrt(phase)) + 14


def spectrum_of(matrix: NDArray[np.complex128]) -> Spectrum:
    """Estimate the spectrum of a structure matrix by a few Lanczos steps on each of its parts.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
    """
    single = matrix.astype(np.complex64)
    adjoint = single.conj().T
    low, high = _hermitian_ends(single + adjoint, _LANCZOS_STEPS)
    faint, strong = _hermitian_ends(-1j * (single - adjoint), _ABSORPTION_STEPS)
    width = 0.25 * (high - low) * (1.0 + 2.0 * _MARGIN)
    steps = max(1, math.ceil(width / _WIDTH_STEP))
    return Spectrum(0.25 * complex(low + high, faint + strong), steps * _WIDTH_STEP, 0.25 * (strong - faint))


def _hermitian_ends(matrix: NDArray[np.complex64], steps: int) -> tuple[float, float]:
    """Return estimates of the smallest and largest eigenvalue of a Hermitian matrix."""
    vector: NDArray[Any] = _start(len(matrix))
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    previous, beta = np.zeros_like(vector), 0.0
    for _ in range(min(steps, len(matrix))):
        image = matrix @ vector - np.float32(beta) * previous
        diagonal.append(float(np.vdot(vector, image).real))
        image -= np.float32(diagonal[-1]) * vector
        beta = float(np.linalg.norm(image))
        off_diagonal.append(beta)
        if beta < 1e-7:
            break
        previous, vector = vector, image / np.float32(beta)
    inner = off_diagonal[: len(diagonal) - 1]
    ritz: NDArray[np.float64] = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    # What the last step left over bounds how far a Ritz value may still move.
    rest = 0.2 * off_diagonal[-1]
    return float(ritz[0]) - rest, float(ritz[-1]) + rest


def _start(n: int) -> NDArray[np.complex64]:
    # Seeded: the same matrix always gives the same interval.
    real, imaginary = np.random.default_rng(n).normal(size=(2, n))
    vector = real + 1j * imaginary
    unit: NDArray[np.complex64] = (vector / np.linalg.norm(vector)).astype(np.complex64)
    return unit


# An entry of a hundred thicknesses is 2 MB: keep few.
@lru_cache(maxsize=32)
def _coefficients(lengths: tuple[float, ...], half_width: float, truncation: float) -> NDArray[np.complex128]:
    """Return c_k of each length, of shape (n_terms, n_lengths), without the phase of the middle."""
    phase = 2.0 * np.pi * half_width * np.array(lengths)
    # More than are needed at any precision; what is small is cut off below.
    k = np.arange(n_terms(lengths[-1], half_width) + math.ceil(6.0 * math.cbrt(phase[-1])) + 10)
    # Powers of i by table: a complex power would leave rounding errors.
    powers = np.array([1.0, 1.0j, -1.0, -1.0j])[k % 4]
    values = (2.0 - (k == 0))[:, None] * powers[:, None] * jv(k[:, None], phase[None, :])
    needed = np.flatnonzero(np.abs(values).max(axis=1) > truncation)[-1] + 1
    return np.ascontiguousarray(values[:needed])


def chebyshev_series(
    matrix: NDArray[np.complex128],
    thicknesses: tuple[float, ...],
    spectrum: Spectrum,
    dtype: type[np.complex64] | type[np.complex128],
) -> NDArray[np.complex128] | None:
    """Return the wave at each thickness, or None where the series diverged.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex128
        A / 2k₀ in Å⁻¹; beam 0 is the incident one.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    spectrum : Spectrum
        Of the matrix.
    dtype : numpy complex type
        Precision of the recurrence.

    Returns
    -------
    ndarray of shape (n_thicknesses, n), complex128, or None

    Notes
    -----
    The exponential is entire, so the series converges even for eigenvalues outside the interval;
    but its terms then grow, and errors of rounding and truncation with them. The norm of the
    terms is therefore watched: it bounds the error.
    """
    scaled: NDArray[Any] = (matrix / spectrum.half_width).astype(dtype)
    scaled[np.diag_indices_from(scaled)] -= spectrum.middle / spectrum.half_width
    wave = np.zeros(len(matrix), dtype=np.complex128)
    wave[0] = 1.0
    waves: list[NDArray[np.complex128]] = []
    start, remaining = 0.0, list(thicknesses)
    while remaining:
        reached = [round(t - start, 9) for t in remaining if t - start <= spectrum.reach]
        # An interval too long for one series is crossed in equal pieces.
        gap = remaining[0] - start
        lengths = reached or [gap / math.ceil(gap / spectrum.reach)]
        pieces = _one_series(scaled, wave, tuple(lengths), spectrum)
        if pieces is None:
            return None
        wave, start = pieces[-1], start + lengths[-1]
        if reached:
            waves.extend(pieces)
            remaining = remaining[len(reached) :]
    return np.array(waves)


def _one_series(
    scaled: NDArray[Any],
    wave: NDArray[np.complex128],
    lengths: tuple[float, ...],
    spectrum: Spectrum,
) -> NDArray[np.complex128] | None:
    dtype = scaled.dtype
    coefficients = _coefficients(lengths, spectrum.half_width, _TRUNCATION[dtype])
    total = np.zeros((len(lengths), len(wave)), dtype=np.complex128)
    block = np.empty((_BLOCK, len(wave)), dtype=dtype)
    older, newer = wave.astype(dtype), wave.astype(dtype)
    for first in range(0, len(coefficients), _BLOCK):
        some = coefficients[first : first + _BLOCK]
        for row in range(len(some)):
            if first + row == 0:
                block[0] = newer
                continue
            image = scaled @ newer
            if first + row > 1:
                image *= 2.0
                image -= older
            older, newer = newer, image
            block[row] = image
        norms = np.linalg.norm(block[: len(some)], axis=1)
        if not norms.max() <= _MAX_NORM:
            return None
        total += some.T.astype(dtype) @ block[: len(some)]
    total *= np.exp(2j * np.pi * spectrum.middle * np.array(lengths))[:, None]
    return total
