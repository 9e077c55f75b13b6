"""The Chebyshev series of a whole batch of structure matrices in PyTorch, in single precision.

The method is that of :mod:`diffractory.scattering.chebyshev`. The real parts of all eigenvalues of a
batch share one interval, the union of what each matrix needs, and so one set of coefficients;
absorption is each matrix's own. The device is waited for once a block of terms, not at each term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffractory.scattering.chebyshev import BLOCK, TRUNCATION, bessel_coefficients, in_pieces
from diffractory.scattering.spectrum import RESIDUAL_SHARE, STEPS, WIDTH_SHARE

#: Terms may grow by this factor before a series ends: less than for one problem, as an interval wider
#: than a problem's own takes more terms to the same growth, and rounding adds up (1e-6, not 5e-6).
_MAX_NORM = 20.0
#: Lanczos vectors shorter than this are rounding: the space is exhausted.
_EXHAUSTED = 1e-7


def solve_matrices(
    matrix: torch.Tensor, sizes: Sequence[int], thicknesses: tuple[float, ...]
) -> torch.Tensor | None:
    """Propagate a plane wave through a foil for each of many structure matrices.

    Parameters
    ----------
    matrix : Tensor of shape (n_problems, width, width), complex64
        A / 2k₀ in Å⁻¹, zero where it pads; beam 0 is the incident one. It is changed.
    sizes : sequence of int
        Beams of each problem, at most ``width``.
    thicknesses : tuple of float
        Strictly increasing, in Å.

    Returns
    -------
    Tensor of shape (n_thicknesses, n_problems, width), float32, or None
        Intensities; None where the series of any problem diverged.
    """
    spectra = _spectra_of(matrix, sizes)
    if spectra is None:
        return None
    absorption = torch.from_numpy((1j * spectra.absorption).astype(np.complex64)).to(matrix.device)
    matrix.diagonal(dim1=1, dim2=2).sub_(absorption[:, None])
    wave = torch.zeros((*matrix.shape[:2], 1), dtype=matrix.dtype, device=matrix.device)
    wave[:, 0] = 1.0
    intensity = torch.empty((len(thicknesses), *matrix.shape[:2]), device=matrix.device)
    done = 0
    per_length = 2.0 * np.pi * spectra.half_width
    for waves in in_pieces(
        lambda *start: _one_series(matrix, spectra, *start), wave, thicknesses, per_length
    ):
        reached = slice(done, done + len(waves))
        torch.sum(torch.view_as_real(waves[..., 0]).square(), dim=-1, out=intensity[reached])
        done += len(waves)
    # Padding stays zero, whatever the numbers are: one sum shows any that is not finite.
    return intensity if done == len(thicknesses) and bool(torch.isfinite(intensity.sum())) else None


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Where the eigenvalues of the matrices of a batch lie."""

    #: Middle of the real parts of all, and half their range, in Å⁻¹.
    middle: float
    half_width: float
    #: Mean of the imaginary parts of each, (n_problems,), in Å⁻¹.
    absorption: NDArray[np.float64]


def _spectra_of(matrix: torch.Tensor, sizes: Sequence[int]) -> _Spectra | None:
    """Estimate the spectra as ``spectrum_of`` does for one matrix; None if any number is not finite."""
    low, high = _ends(*_lanczos(matrix, sizes))
    absorption = matrix.diagonal(dim1=1, dim2=2).imag.sum(dim=1).cpu().numpy() / np.array(sizes, np.float64)
    if not np.isfinite([low.min(), high.max(), absorption.sum()]).all():
        return None
    # Never of no width: the series is scaled by it.
    half_width = max(1e-6, 0.5 * float(high.max() - low.min()))
    return _Spectra(0.5 * float(low.min() + high.max()), half_width, absorption)


def _lanczos(matrix: torch.Tensor, sizes: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return diagonals and off-diagonals, (n_problems, n_steps), of the Hermitian parts."""
    count = torch.tensor(sizes, device=matrix.device)[:, None, None]
    vector = _start(matrix, count)
    previous, beta = torch.zeros_like(vector), torch.zeros((len(matrix), 1, 1), device=matrix.device)
    going = torch.ones_like(beta, dtype=torch.bool)
    entries = torch.empty((2, len(matrix), STEPS), device=matrix.device)
    diagonal, off_diagonal = entries
    for step in range(STEPS):
        backward = torch.bmm(vector.mH.resolve_conj(), matrix)
        image = 0.5 * (torch.bmm(matrix, vector) + backward.mH)
        image -= beta * previous
        alpha = (vector.conj() * image).real.sum(dim=1, keepdim=True)
        image -= alpha * vector
        beta = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        # Once a space is exhausted, copies of its first entry change nothing about its ends.
        diagonal[:, step] = torch.where(going, alpha, diagonal[:, :1, None])[:, 0, 0]
        going = going & (beta >= _EXHAUSTED) & (count > step + 1)
        beta = torch.where(going, beta, 0.0)
        off_diagonal[:, step] = beta[:, 0, 0]
        previous, vector = vector, torch.where(going, image / beta, 0.0)
    diagonals, off_diagonals = entries.cpu().numpy().astype(np.float64)
    return diagonals, off_diagonals


def _start(matrix: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return unit vectors, mostly made of the beams at both ends of each diagonal, as for one matrix."""
    width, device = matrix.shape[1], matrix.device
    inside = torch.arange(width, device=device)[:, None] < count
    errors = matrix.diagonal(dim1=1, dim2=2).real[:, :, None]
    low = torch.where(inside, errors, math.inf).amin(dim=1, keepdim=True)
    high = torch.where(inside, errors, -math.inf).amax(dim=1, keepdim=True)
    distance = inside * (errors - 0.5 * (low + high)).abs()
    weights = inside * ((distance / distance.amax(dim=1, keepdim=True).clamp(min=1e-12)) ** 16 + 1e-6)
    # Seeded: the same batch always gives the same interval.
    real, imaginary = np.random.default_rng(width).normal(size=(2, width, 1))
    vector = weights * torch.from_numpy((real + 1j * imaginary).astype(np.complex64)).to(device)
    unit: torch.Tensor = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return unit


def _ends(
    diagonal: NDArray[np.float64], off_diagonal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the extreme eigenvalues of each problem, widened by what may be missing; NaN if unknown."""
    finite = np.isfinite(diagonal + off_diagonal).all(axis=1)[:, None]
    steps = np.arange(diagonal.shape[1])
    matrix = np.zeros((*diagonal.shape, len(steps)))
    matrix[:, steps, steps] = np.where(finite, diagonal, 0.0)
    matrix[:, steps[1:], steps[:-1]] = np.where(finite, off_diagonal, 0.0)[:, :-1]
    ritz, vectors = np.linalg.eigh(matrix)
    residual = off_diagonal[:, -1:] * np.abs(vectors[:, -1, [0, -1]])
    margin = RESIDUAL_SHARE * residual + WIDTH_SHARE * 0.5 * (ritz[:, -1:] - ritz[:, :1])
    low, high = np.where(finite, ritz[:, [0, -1]] + margin * [-1.0, 1.0], np.nan).T
    return low, high


def _one_series(
    matrix: torch.Tensor, spectra: _Spectra, wave: torch.Tensor, phases: NDArray[np.float64]
) -> tuple[torch.Tensor, int]:
    """Return the waves (n_phases, n_problems, width, 1), as many as the terms allow, and how many did.

    ``matrix`` has the mean absorption subtracted already; it is the same for all beams, and nothing
    is lost. The middle of the real parts is taken off term by term: rounding it into the diagonal
    would turn the phases of all terms the same way.
    """
    coefficients = bessel_coefficients(phases, TRUNCATION[np.dtype(np.complex64)])
    n_coefficients = coefficients.shape[1]
    gain = 2.0 / spectra.half_width
    limit = _MAX_NORM * _norms(wave)
    # Real sums of the even and of the odd terms, as in the series of one problem.
    parts = [
        torch.from_numpy(np.ascontiguousarray(coefficients[:, odd::2], np.float32)).to(matrix.device)
        for odd in (0, 1)
    ]
    sums = [torch.zeros((len(phases), *wave.shape), dtype=wave.dtype, device=wave.device) for _ in parts]
    terms = torch.empty((BLOCK, *wave.shape), dtype=wave.dtype, device=wave.device)
    terms[0] = wave
    # T_1 = S T_0: half a step, from nothing before.
    torch.mul(wave, 0.5 * gain * spectra.middle, out=terms[1])
    terms[1].baddbmm_(matrix, wave, beta=-1.0, alpha=0.5 * gain)
    complete, held = len(phases), n_coefficients
    for first in range(0, n_coefficients, BLOCK):
        used = min(BLOCK, n_coefficients - first)
        for k in range(0 if first else 2, used):
            # At the start of a block, −1 and −2 are the last terms of the block before.
            torch.add(terms[k - 2], terms[k - 1], alpha=gain * spectra.middle, out=terms[k])
            terms[k].baddbmm_(matrix, terms[k - 1], beta=-1.0, alpha=gain)
        # Terms grow steadily where they grow at all: the last two stand for the block.
        if not bool((_norms(terms[max(0, used - 2) : used]) <= limit).all()):
            used = int((_norms(terms[:used]) <= limit).all(dim=1).cpu().numpy().argmin())
            held = first + used
            # What needs none of the terms that are too large is done.
            complete = _first_active(coefficients, held)
        # A thin foil is done before a thick one.
        rows = slice(_first_active(coefficients, first), complete)
        for odd, (total, part) in enumerate(zip(sums, parts, strict=True)):
            which = terms[odd:used:2]
            _flat(total[rows]).addmm_(part[rows, first // 2 : first // 2 + len(which)], _flat(which))
        if held < n_coefficients:
            break
    waves = sums[0][:complete].add_(sums[1][:complete], alpha=1j)
    middles = spectra.middle + 1j * spectra.absorption
    turn = np.exp(1j * np.multiply.outer(phases[:complete], middles / spectra.half_width))
    waves *= torch.from_numpy(turn.astype(np.complex64)).to(waves.device)[:, :, None, None]
    return waves, held


def _first_active(coefficients: NDArray[np.float64], term: int) -> int:
    """Return the first path whose series is not done at a term."""
    needed = np.abs(coefficients[:, term : term + 2]).max(axis=1)
    return int(np.argmax(needed > TRUNCATION[np.dtype(np.complex64)]))


def _norms(waves: torch.Tensor) -> torch.Tensor:
    """Return the norms of waves of shape (..., width, 1)."""
    # In double precision: squares of a wave that is nearly absorbed would underflow.
    norms: torch.Tensor = torch.linalg.vector_norm(waves, dim=(-2, -1), dtype=torch.complex128)
    return norms


def _flat(waves: torch.Tensor) -> torch.Tensor:
    """Return waves as a real matrix, one row each, sharing their memory."""
    flat: torch.Tensor = torch.view_as_real(waves).view(len(waves), 2 * math.prod(waves.shape[1:]))
    return flat
