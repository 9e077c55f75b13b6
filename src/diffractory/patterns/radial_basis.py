"""The paper's radial basis: triangular rings times angular harmonics of the Bragg peaks.

References
----------
Gleason et al., "Random forest prediction of crystal structure from electron diffraction patterns
incorporating multiple scattering", Physical Review Materials 8, 093802 (2024).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import RadialBasisSpec

#: A coefficient below this share of its ring's summed weight is zero but for rounding. Its
#: argument would be noise that depends on the order of the peaks, so both parts are set to 0.
_CANCELLATION = 1e-12


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
    _refuse_not_finite(table)
    features = np.zeros((len(table), spec.n_features), dtype=np.float32)
    _fill_features(
        table.q,
        table.intensity,
        table.offsets,
        table.direct,
        float(spec.ring_width),
        spec.n_rings,
        spec.n_orders,
        features,
    )
    return features


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


def _refuse_not_finite(table: PeakTable) -> None:
    bad = ~(np.isfinite(table.intensity) & np.isfinite(table.q).all(axis=1))
    if bad.any():
        peak = int(np.argmax(bad))
        pattern = int(np.searchsorted(table.offsets, peak, side="right")) - 1
        raise DiffractoryError(
            f"peak {peak - int(table.offsets[pattern])} of pattern {pattern} has position "
            f"{table.q[peak].tolist()} Å⁻¹ and intensity {table.intensity[peak]}",
            "features need finite positions and intensities",
            "Remove such peaks, or detect the disks again",
        )


@njit(nogil=True, cache=True)
def _fill_features(q, intensity, offsets, direct, ring_width, n_rings, n_orders, features):  # type: ignore[no-untyped-def]
    """Fill ``features`` of shape (n_patterns, 2 * n_rings * n_orders), given as zeros."""
    real = np.zeros((n_rings, n_orders))
    imag = np.zeros((n_rings, n_orders))
    weight = np.zeros(n_rings)
    for pattern in range(len(offsets) - 1):
        for peak in range(offsets[pattern], offsets[pattern + 1]):
            if peak != direct[pattern]:
                _add_peak(q[peak, 0], q[peak, 1], intensity[peak], ring_width, real, imag, weight)
        _write_and_clear(real, imag, weight, features[pattern])


@njit(nogil=True, cache=True, inline="always")
def _add_peak(x, y, intensity, ring_width, real, imag, weight):  # type: ignore[no-untyped-def]
    n_rings, n_orders = real.shape
    radius = math.sqrt(x * x + y * y)
    position = radius / ring_width
    if position >= n_rings:
        return
    cosine, sine = (x / radius, y / radius) if radius > 0.0 else (1.0, 0.0)
    ring = int(position)
    # A triangle reaches to the neighbouring ring centres: each peak lights at most two rings.
    outer = intensity * (position - ring)
    inner = intensity - outer
    has_outer = ring + 1 < n_rings and outer != 0.0
    weight[ring] += abs(inner)
    if has_outer:
        weight[ring + 1] += abs(outer)
    c, s = 1.0, 0.0
    for order in range(n_orders):
        real[ring, order] += inner * c
        imag[ring, order] += inner * s
        if has_outer:
            real[ring + 1, order] += outer * c
            imag[ring + 1, order] += outer * s
        c, s = c * cosine - s * sine, c * sine + s * cosine


@njit(nogil=True, cache=True, inline="always")
def _write_and_clear(real, imag, weight, row):  # type: ignore[no-untyped-def]
    n_rings, n_orders = real.shape
    size = n_rings * n_orders
    for ring in range(n_rings):
        if weight[ring] == 0.0:
            continue
        smallest = _CANCELLATION * weight[ring]
        for order in range(n_orders):
            re, im = real[ring, order], imag[ring, order]
            magnitude = math.sqrt(re * re + im * im)
            if magnitude > smallest:
                row[ring * n_orders + order] = magnitude
                row[size + ring * n_orders + order] = math.atan2(im, re)
            real[ring, order] = 0.0
            imag[ring, order] = 0.0
        weight[ring] = 0.0
