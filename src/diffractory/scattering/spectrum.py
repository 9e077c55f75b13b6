"""Where the eigenvalues of a structure matrix lie, estimated by a few Lanczos steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Lanczos steps behind the estimate.
STEPS = 6
#: What an estimate costs in matrix-vector products: each step takes two.
SPECTRUM_PRODUCTS = 2 * STEPS
#: Ritz values approach the ends from inside. How far the residual lets them move, and a share of
#: the half-width besides, are added at each end.
RESIDUAL_SHARE, WIDTH_SHARE = 1.0, 0.02


@dataclass(frozen=True)
class Spectrum:
    """Where the eigenvalues of a matrix lie.

    Parameters
    ----------
    middle : complex
        Middle of the real parts, and mean of the imaginary ones, which absorption makes; in Å⁻¹.
    half_width : float
        Half the range of the real parts, in Å⁻¹.
    """

    middle: complex
    half_width: float

    def union(self, other: Spectrum) -> Spectrum:
        """Return the smallest range that holds two."""
        low = min(s.middle.real - s.half_width for s in (self, other))
        high = max(s.middle.real + s.half_width for s in (self, other))
        absorption = 0.5 * (self.middle.imag + other.middle.imag)
        return Spectrum(complex(0.5 * (low + high), absorption), 0.5 * (high - low))


def spectrum_of(matrix: NDArray[Any]) -> Spectrum:
    """Estimate the spectrum of a structure matrix by Lanczos steps on its Hermitian part.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), complex
        In Å⁻¹.

    Notes
    -----
    An estimate, not a bound: a series that it misleads is seen by the norm of its terms. The mean
    of the imaginary parts is the trace's; they lie closer to it than to the middle of the range of
    the anti-Hermitian part, which is several times wider than theirs.
    """
    low, high = _ends(matrix)
    absorption = float(matrix.diagonal().imag.mean())
    # Never of no width: the series is scaled by it.
    return Spectrum(complex(0.5 * (low + high), absorption), max(1e-6, 0.5 * (high - low)))


def _ends(matrix: NDArray[Any]) -> tuple[float, float]:
    """Estimate the extreme eigenvalues of the Hermitian part, widened by what may be missing."""
    diagonal, off_diagonal = _lanczos(matrix, _start(matrix), matrix.dtype.type(0.5), min(STEPS, len(matrix)))
    if not np.all(np.isfinite(diagonal)):
        return math.nan, math.nan
    inner = off_diagonal[: len(diagonal) - 1]
    ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    residual = off_diagonal[-1] * np.abs(vectors[-1, [0, -1]])
    margin = RESIDUAL_SHARE * residual + WIDTH_SHARE * 0.5 * (ritz[-1] - ritz[0])
    return float(ritz[0] - margin[0]), float(ritz[-1] + margin[1])


@njit(cache=True, nogil=True)
def _lanczos(
    matrix: NDArray[Any], start: NDArray[Any], half: Any, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    vector, previous, beta = start, np.zeros_like(start), 0.0
    diagonal, off_diagonal = np.empty(steps), np.empty(steps)
    for step in range(steps):
        forward = np.dot(matrix, vector)
        backward = np.dot(np.conj(vector), matrix)
        image = half * (forward + np.conj(backward))
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


def _start(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return a unit vector that is mostly made of the beams at both ends of the diagonal."""
    # Excitation errors dominate the spectrum, so its ends are near: six steps find them as well
    # as ten from a vector without preference. Seeded: the same matrix always gives the same interval.
    errors = matrix.diagonal().real.astype(np.float64)
    distance = np.abs(errors - 0.5 * (errors.min() + errors.max()))
    weights = (distance / max(distance.max(), 1e-12)) ** 16 + 1e-6
    real, imaginary = np.random.default_rng(len(matrix)).normal(size=(2, len(matrix)))
    vector = weights * (real + 1j * imaginary)
    unit: NDArray[Any] = (vector / np.linalg.norm(vector)).astype(matrix.dtype)
    return unit
