"""Where the eigenvalues of a structure matrix lie, estimated by a few Lanczos steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Lanczos steps for the ends of the real parts, and for those of the imaginary parts: the range of
#: absorption only decides when a series is restarted, so a rougher estimate will do.
_STEPS, _ABSORPTION_STEPS = 10, 4
#: What an estimate costs in matrix-vector products: each step takes two.
SPECTRUM_PRODUCTS = 2 * (_STEPS + _ABSORPTION_STEPS)
#: Ritz values approach the ends from inside. How far the residual lets them move, and a share of
#: the half-width besides, are added at each end.
_RESIDUAL_SHARE, _WIDTH_SHARE = 1.2, 0.01
#: Absorption makes the spectrum complex; terms may grow by exp(this) before a series is restarted.
MAX_GROWTH = 3.0
#: Longest series, in radians of phase; longer paths are restarted too.
MAX_PHASE = 1500.0


@dataclass(frozen=True)
class Spectrum:
    """A rectangle that holds the eigenvalues of a matrix.

    Parameters
    ----------
    middle : complex
        Middle of the real and of the imaginary parts, in Å⁻¹.
    half_width : float
        Half the range of the real parts, in Å⁻¹.
    half_height : float
        Half the range of the imaginary parts, which absorption makes, in Å⁻¹.
    """

    middle: complex
    half_width: float
    half_height: float

    @property
    def reach(self) -> float:
        """Longest path of one series, in Å."""
        by_growth = MAX_GROWTH / (2.0 * math.pi * max(self.half_height, 1e-9))
        return min(by_growth, MAX_PHASE / (2.0 * math.pi * self.half_width))

    def widened(self, factor: float) -> Self:
        """Return the same rectangle with a wider range of real parts."""
        return replace(self, half_width=factor * self.half_width)

    def union(self, other: Spectrum) -> Spectrum:
        """Return the smallest rectangle that holds two."""
        spans = []
        for a, b, ra, rb in (
            (self.middle.real, other.middle.real, self.half_width, other.half_width),
            (self.middle.imag, other.middle.imag, self.half_height, other.half_height),
        ):
            low, high = min(a - ra, b - rb), max(a + ra, b + rb)
            spans.append((0.5 * (low + high), 0.5 * (high - low)))
        (real, width), (imaginary, height) = spans
        return Spectrum(complex(real, imaginary), width, height)


def spectrum_of(matrix: NDArray[Any]) -> Spectrum:
    """Estimate the spectrum of a structure matrix by Lanczos steps on its Hermitian parts.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex
        In Å⁻¹.

    Notes
    -----
    An estimate, not a bound: a series that it misleads is seen by the norm of its terms.
    """
    low, high = _ends(matrix, 0.5, _STEPS)
    faint, strong = _ends(matrix, -0.5j, _ABSORPTION_STEPS)
    # Never of no width: the series is scaled by it.
    half_width = max(1e-6, 0.5 * (high - low))
    return Spectrum(0.5 * complex(low + high, faint + strong), half_width, 0.5 * (strong - faint))


def _ends(matrix: NDArray[Any], factor: complex, steps: int) -> tuple[float, float]:
    """Estimate the extreme eigenvalues of factor·M + its adjoint, widened by what may be missing."""
    scale = matrix.dtype.type(factor)
    diagonal, off_diagonal = _lanczos(
        matrix, _start(len(matrix), matrix.dtype), scale, min(steps, len(matrix))
    )
    if not np.all(np.isfinite(diagonal)):
        return math.nan, math.nan
    inner = off_diagonal[: len(diagonal) - 1]
    ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    residual = off_diagonal[-1] * np.abs(vectors[-1, [0, -1]])
    margin = _RESIDUAL_SHARE * residual + _WIDTH_SHARE * 0.5 * (ritz[-1] - ritz[0])
    return float(ritz[0] - margin[0]), float(ritz[-1] + margin[1])


@njit(cache=True, nogil=True)
def _lanczos(
    matrix: NDArray[Any], start: NDArray[Any], factor: Any, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    vector, previous, beta = start, np.zeros_like(start), 0.0
    diagonal, off_diagonal = np.empty(steps), np.empty(steps)
    for step in range(steps):
        forward = np.dot(matrix, vector)
        backward = np.dot(np.conj(vector), matrix)
        image = factor * forward + np.conj(factor * backward)
        alpha, norm = 0.0, 0.0
        for i in range(len(image)):
            image[i] -= beta * previous[i]
            alpha += (np.conj(vector[i]) * image[i]).real
        for i in range(len(image)):
            image[i] -= alpha * vector[i]
            norm += image[i].real ** 2 + image[i].imag ** 2
        beta = np.sqrt(norm)
        diagonal[step], off_diagonal[step] = alpha, beta
        if beta < 1e-7:
            return diagonal[: step + 1], off_diagonal[: step + 1]
        previous = vector
        vector = np.empty_like(image)
        for i in range(len(image)):
            vector[i] = image[i] / beta
    return diagonal, off_diagonal


def _start(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    # Seeded: the same matrix always gives the same interval.
    real, imaginary = np.random.default_rng(n).normal(size=(2, n))
    vector = real + 1j * imaginary
    unit: NDArray[Any] = (vector / np.linalg.norm(vector)).astype(dtype)
    return unit
