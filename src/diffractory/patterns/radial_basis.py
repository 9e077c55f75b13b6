"""The paper's radial basis: triangular rings times angular harmonics of the Bragg peaks.

References
----------
Gleason et al., "Random forest prediction of crystal structure from electron diffraction patterns
incorporating multiple scattering", Physical Review Materials 8, 093802 (2024).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.patterns.peak_table import PeakTable, refuse_not_finite
from diffractory.specs import RadialBasisSpec

#: A coefficient below this share of its ring's summed weight is zero but for rounding. Its
#: argument would be noise that depends on the order of the peaks, so both parts are set to 0;
#: so is an imaginary part, which in symmetric patterns would toss between the arguments π and -π.
_CANCELLATION = 1e-12
#: Peaks whose harmonics are computed side by side.
_BLOCK = 32
#: Orders are padded to a multiple of the processor's vectors of double precision.
_LANES = 4
#: Patterns whose sums are held at once: about 170 kB at one thickness.
_PATTERNS = 16


def radial_basis(table: PeakTable, spec: RadialBasisSpec = RadialBasisSpec()) -> NDArray[np.float32]:  # noqa: B008
    """Compute the radial-basis features of every pattern.

    R_nm = Σ_j I_j max(0, 1 − |q_j − nΔ|/Δ) exp(i m φ_j) over all peaks but the direct beam.

    Parameters
    ----------
    table : PeakTable
        Peaks of n_patterns patterns; positions in Å⁻¹.
    spec : RadialBasisSpec
        Rings and orders.

    Returns
    -------
    ndarray of shape (n_patterns, spec.n_features), float32
        First all magnitudes, ring by ring (column ``n * n_orders + m``), then all arguments in
        (−π, π] in the same order. A coefficient that vanishes has argument 0.

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.
    """
    refuse_not_finite(table)
    return radial_basis_series(table.q, table.intensity[:, None], table.offsets, table.direct, spec)[:, 0]


def radial_basis_series(
    q: NDArray[np.float64],
    intensity: NDArray[Any],
    offsets: NDArray[np.int64],
    direct: NDArray[np.int64],
    spec: RadialBasisSpec,
) -> NDArray[np.float32]:
    """Compute the features of patterns at many thicknesses at once: angles are the same at all.

    Parameters
    ----------
    q : ndarray of shape (n_peaks, 2)
        Positions in Å⁻¹; finite, as are the intensities.
    intensity : ndarray of shape (n_peaks, n_thicknesses)
    offsets : ndarray of shape (n_patterns + 1,)
        Start of each pattern, and the end of the last.
    direct : ndarray of shape (n_patterns,)
        Place of each direct beam, -1 where there is none.
    spec : RadialBasisSpec

    Returns
    -------
    ndarray of shape (n_patterns, n_thicknesses, spec.n_features), float32
        Columns as in :func:`radial_basis`.
    """
    n, n_thicknesses = len(offsets) - 1, intensity.shape[1]
    features = np.empty((n, n_thicknesses, 2, spec.n_rings, spec.n_orders), dtype=np.float32)
    lanes = -(-spec.n_orders // _LANES) * _LANES
    for first in range(0, n, _PATTERNS):
        some = features[first : first + _PATTERNS]
        # A ring more, which is not read: what the last one passes on outwards.
        sums = np.zeros((len(some), n_thicknesses, spec.n_rings + 1, 2, lanes))
        weights = np.zeros(sums.shape[:3])
        shared = slice(first, first + len(some))
        _add_up(q, intensity, offsets[first:], direct[shared], float(spec.ring_width), sums, weights)
        parts = np.empty((2, *some[:, :, 0].shape), dtype=np.float32)
        _fill_coefficients(sums, weights, some, parts)
        # Compiled for the processor's vectors in single precision, three times as fast as in double.
        np.arctan2(parts[1], parts[0], out=some[:, :, 1])
    return features.reshape(n, n_thicknesses, spec.n_features)


def feature_names(spec: RadialBasisSpec = RadialBasisSpec()) -> tuple[str, ...]:  # noqa: B008
    """Return the name of every column of :func:`radial_basis`, as ``magnitude_n3_m2``."""
    return tuple(
        f"{part}_n{ring}_m{order}"
        for part in ("magnitude", "argument")
        for ring in range(spec.n_rings)
        for order in range(spec.n_orders)
    )


def scale_total(table: PeakTable, total: float = 0.3) -> PeakTable:
    """Scale each pattern's summed intensity, direct beam included; for measured patterns only.

    Parameters
    ----------
    table : PeakTable
        Measured patterns on any intensity scale.
    total : float
        Summed intensity of every pattern afterwards. 0.3 is the paper's rule for experiments;
        simulated patterns keep about 0.75 at 200 Å, and forests are trained on those unscaled.

    Returns
    -------
    PeakTable
        Same peaks; patterns without a positive sum are unchanged.
    """
    pattern = np.repeat(np.arange(len(table)), table.counts)
    sums = np.bincount(pattern, weights=table.intensity, minlength=len(table))
    factors = np.divide(total, sums, out=np.ones(len(table)), where=sums > 0.0)
    return PeakTable(table.q, table.intensity * factors[pattern], table.offsets, table.direct)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _add_up(q, intensity, offsets, direct, ring_width, sums, weights):  # type: ignore[no-untyped-def]
    """Add all peaks to ``sums`` (n_patterns, n_thicknesses, n_rings + 1, 2, lanes), given as zeros.

    Real and imaginary parts lie beside each other, and everything is indexed in full: one inner loop
    of whole vectors, and no views of rows, each of which would be counted and released.
    """
    n_thicknesses, n_rings, lanes = sums.shape[1], sums.shape[2] - 1, sums.shape[4]
    flat = sums.reshape(len(sums), n_thicknesses, n_rings + 1, 2 * lanes)
    radius, cosine, sine = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    harmonics = np.empty((_BLOCK, 2, lanes // _LANES, _LANES))
    rows = harmonics.reshape(_BLOCK, 2 * lanes)
    for pattern in range(len(sums)):
        for first in range(offsets[pattern], offsets[pattern + 1], _BLOCK):
            stop = min(first + _BLOCK, offsets[pattern + 1])
            _fill_polar(q, first, stop, radius, cosine, sine)
            _fill_harmonics(cosine, sine, stop - first, harmonics)
            for peak in range(first, stop):
                position = radius[peak - first] / ring_width
                if peak == direct[pattern] or position >= n_rings:
                    continue
                # A triangle reaches to the neighbouring ring centres: each peak lights at most two rings.
                inner = int(position)
                for thickness in range(n_thicknesses):
                    value = intensity[peak, thickness]
                    # Many peaks are below what is stored.
                    if value == 0.0:
                        continue
                    outward = value * (position - inner)
                    inward = value * (1.0 - (position - inner))
                    weights[pattern, thickness, inner] += abs(inward)
                    weights[pattern, thickness, inner + 1] += abs(outward)
                    for k in range(2 * lanes):
                        flat[pattern, thickness, inner, k] += inward * rows[peak - first, k]
                    for k in range(2 * lanes):
                        flat[pattern, thickness, inner + 1, k] += outward * rows[peak - first, k]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _fill_polar(q, first, stop, radius, cosine, sine):  # type: ignore[no-untyped-def]
    """Fill in |q|, cos φ and sin φ of peaks ``first`` … ``stop - 1``; at the origin φ = 0."""
    for row in range(stop - first):
        x, y = q[first + row, 0], q[first + row, 1]
        radius[row] = math.sqrt(x * x + y * y)
        # Without a branch, so that many roots and quotients are taken at once.
        divisor = radius[row] if radius[row] > 0.0 else 1.0
        cosine[row] = x / divisor if radius[row] > 0.0 else 1.0
        sine[row] = y / divisor


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _fill_harmonics(cosine, sine, n, harmonics):  # type: ignore[no-untyped-def]
    """Fill in cos mφ, then sin mφ, of ``n`` peaks: ``harmonics`` (n, 2, lanes / 4, 4).

    Four orders follow from the four before by one turn of 4φ. One by one each would wait for the last.
    """
    for row in range(n):
        c1, s1 = cosine[row], sine[row]
        c2, s2 = c1 * c1 - s1 * s1, 2.0 * c1 * s1
        c3, s3 = c1 * c2 - s1 * s2, c1 * s2 + s1 * c2
        c4, s4 = c2 * c2 - s2 * s2, 2.0 * c2 * s2
        x0, x1, x2, x3 = 1.0, c1, c2, c3
        y0, y1, y2, y3 = 0.0, s1, s2, s3
        # Written out: the compiler makes vectors of the four, not of an inner loop over them.
        for group in range(harmonics.shape[2]):
            harmonics[row, 0, group, 0], harmonics[row, 1, group, 0] = x0, y0
            harmonics[row, 0, group, 1], harmonics[row, 1, group, 1] = x1, y1
            harmonics[row, 0, group, 2], harmonics[row, 1, group, 2] = x2, y2
            harmonics[row, 0, group, 3], harmonics[row, 1, group, 3] = x3, y3
            x0, y0 = x0 * c4 - y0 * s4, x0 * s4 + y0 * c4
            x1, y1 = x1 * c4 - y1 * s4, x1 * s4 + y1 * c4
            x2, y2 = x2 * c4 - y2 * s4, x2 * s4 + y2 * c4
            x3, y3 = x3 * c4 - y3 * s4, x3 * s4 + y3 * c4


@njit(nogil=True, cache=True)
def _fill_coefficients(sums, weights, features, parts):  # type: ignore[no-untyped-def]
    """Fill in magnitudes, and the real and imaginary ``parts`` (2, …) whose argument is still to be taken."""
    n_patterns, n_thicknesses, _, n_rings, n_orders = features.shape
    for pattern in range(n_patterns):
        for thickness in range(n_thicknesses):
            for ring in range(n_rings):
                noise = _CANCELLATION * weights[pattern, thickness, ring]
                for order in range(n_orders):
                    real = sums[pattern, thickness, ring, 0, order]
                    imaginary = sums[pattern, thickness, ring, 1, order]
                    magnitude = math.sqrt(real * real + imaginary * imaginary)
                    holds = magnitude > noise
                    features[pattern, thickness, 0, ring, order] = magnitude if holds else 0.0
                    # The argument of 1 is 0.
                    parts[0, pattern, thickness, ring, order] = real if holds else 1.0
                    parts[1, pattern, thickness, ring, order] = (
                        imaginary if holds and abs(imaginary) > noise else 0.0
                    )
