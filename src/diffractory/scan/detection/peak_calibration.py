"""Finds the origin of every position, and calibrates peaks with it.

Pure functions of peak positions. An origin is a row and a column in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.ring_calibration import EllipseFit

OriginModel = Literal["constant", "plane", "parabola", "measured"]

#: Rounds of fitting the origin and leaving out what lies far off.
_ROUNDS: Final = 8
#: What lies beyond so many robust standard deviations of the fit is left out.
_OUTLIER: Final = 4.0
#: Smallest scatter of a measured origin in pixels: below it nothing is an outlier.
_LEAST_SCATTER: Final = 0.1
#: At least this share of the positions with peaks must agree on where the direct beam is.
_AGREEMENT: Final = 0.6
#: … and so many of all positions must have peaks at all.
_PEOPLED: Final = 0.1


@dataclass(frozen=True, eq=False)
class OriginFit:
    """Where the direct beam is.

    Parameters
    ----------
    measured : ndarray of shape (n_y, n_x, 2)
        Row and column of the peak taken as direct beam, in pixels; NaN = none.
    fitted : ndarray of shape (n_y, n_x, 2)
        What is used as origin.
    used : ndarray of shape (n_y, n_x), bool
        Positions that the fit rests on.
    direct : ndarray of shape (n_y * n_x,), int64
        Index of the direct beam among the peaks; −1 = none within reach of the origin.
    model : str
        How the origin depends on the position.
    """

    measured: NDArray[np.float64]
    fitted: NDArray[np.float64]
    used: NDArray[np.bool_]
    direct: NDArray[np.int64]
    model: OriginModel

    @property
    def residual(self) -> float:
        """Root mean square distance of the measured from the fitted origins used, in pixels."""
        difference = (self.measured - self.fitted)[self.used]
        return float(np.sqrt((difference**2).sum(axis=1).mean())) if len(difference) else math.nan


def fit_origin(
    peaks: PeakTable,
    shape: tuple[int, int],
    reach: float,
    model: OriginModel = "plane",
    guess: tuple[float, float] | None = None,
) -> OriginFit:
    """Measure the direct beam at every position, and fit it over the scan.

    The direct beam is the brightest peak near the guess, or near where most positions have their
    brightest one; then, in narrowing circles, the brightest one near the fit, so that a diffracted beam
    brighter than the direct one does no harm.

    Parameters
    ----------
    peaks : PeakTable
        In pixels, one pattern a position.
    shape : tuple of int
        Scan shape (n_y, n_x).
    reach : float
        How far in pixels from the fit the direct beam may lie: about the radius of a disk.
    model : {"constant", "plane", "parabola", "measured"}
        Measured: each position's own direct beam where there is one, the plane elsewhere.
    guess : tuple of float, optional
        Row and column in pixels where the direct beam is about, such as the brightest place of the
        mean frame.

    Returns
    -------
    OriginFit

    Raises
    ------
    ScanError
        If most positions do not agree on a direct beam.
    """
    if len(peaks) != shape[0] * shape[1]:
        raise ScanError(f"{len(peaks)} patterns for a scan of {shape[0]} × {shape[1]} positions")
    fitted, used = _agreed(peaks, _terms(shape, model), reach, guess)
    return _origin(peaks, shape, fitted, used, reach, model)


def check_direct_beam(
    peaks: PeakTable,
    positions: NDArray[np.int64],
    shape: tuple[int, int],
    reach: float,
    guess: tuple[float, float] | None = None,
) -> None:
    """Refuse, by a sample of its positions, a scan of which :func:`fit_origin` would refuse the whole.

    Parameters
    ----------
    peaks : PeakTable
        Of the sample, in pixels.
    positions : ndarray of shape (n, 2)
        Row and column of each in the scan.
    shape, reach, guess
        As for :func:`fit_origin`.

    Raises
    ------
    ScanError
        If most of the sample does not agree on a direct beam.
    """
    _agreed(peaks, _terms(shape, "plane")[positions @ [shape[1], 1]], reach, guess)


def _agreed(
    peaks: PeakTable, terms: NDArray[np.float64], reach: float, guess: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the fitted origin of each position, and on which the fit rests; refuse where most disagree."""
    brightest = _brightest(peaks, np.ones(len(peaks.intensity), dtype=bool))
    known = brightest >= 0
    if not known.any():
        raise ScanError(
            "no position has a peak", "so there is no direct beam", "Detect with a lower threshold"
        )
    if known.mean() < _PEOPLED:
        raise ScanError(
            f"only {int(known.sum()):,} of {len(known):,} positions have a peak",
            "so few may be noise, and tell no direct beam",
            "Give a lower --significance, or the disk's radius with --disk-radius",
        )
    starts = [_densest(peaks.q[brightest[known]], reach)]
    if guess is not None:
        starts.insert(0, np.array(guess, dtype=np.float64))
    counted = 0
    for start in starts:
        fitted, used = _narrow(peaks, terms, start, reach)
        counted = max(counted, int(used.sum()))
        if used.sum() >= _AGREEMENT * known.sum():
            return fitted, used
    raise ScanError(
        f"no direct beam: {counted:,} of {int(known.sum()):,} positions agree on where it is",
        "it may lie outside the frame, or behind a beam stop",
        "Give its place in pixels with --center ROW COLUMN",
    )


def _narrow(
    peaks: PeakTable, terms: NDArray[np.float64], start: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit the brightest peaks near a place in narrowing circles; return the fit and what it rests on."""
    fitted = np.broadcast_to(start, (len(peaks), 2)).astype(np.float64)
    used = np.zeros(len(peaks), dtype=bool)
    # Wide at first, so that a drift over the scan is caught.
    for width in np.geomspace(4.0 * reach, reach, _ROUNDS):
        distance = np.hypot(*(peaks.q - np.repeat(fitted, peaks.counts, axis=0)).T)
        direct = _brightest(peaks, distance <= width)
        used = direct >= 0
        if used.sum() < terms.shape[1]:
            break
        coefficients, used = _robust_fit(terms, peaks.q[direct], used)
        fitted = terms @ coefficients
    return fitted, used


def fixed_origin(
    peaks: PeakTable, shape: tuple[int, int], center: tuple[float, float], reach: float
) -> OriginFit:
    """Take one given place as origin of every position.

    Parameters
    ----------
    peaks : PeakTable
        In pixels.
    shape : tuple of int
    center : tuple of float
        Row and column in pixels; it may lie outside the frame.
    reach : float
        How far from it in pixels a peak may lie and still be the direct beam.
    """
    fitted = np.broadcast_to(np.array(center, dtype=np.float64), (len(peaks), 2)).copy()
    return _origin(peaks, shape, fitted, np.zeros(len(peaks), dtype=bool), reach, "constant")


def _origin(
    peaks: PeakTable,
    shape: tuple[int, int],
    fitted: NDArray[np.float64],
    used: NDArray[np.bool_],
    reach: float,
    model: OriginModel,
) -> OriginFit:
    distance = np.hypot(*(peaks.q - np.repeat(fitted, peaks.counts, axis=0)).T)
    direct = _brightest(peaks, distance <= reach)
    measured = np.full((len(peaks), 2), np.nan)
    measured[direct >= 0] = peaks.q[direct[direct >= 0]]
    if model == "measured":
        fitted = np.where(np.isfinite(measured), measured, fitted)
    grid = (*shape, 2)
    used = used & (direct >= 0)
    return OriginFit(measured.reshape(grid), fitted.reshape(grid), used.reshape(shape), direct, model)


def _terms(shape: tuple[int, int], model: OriginModel) -> NDArray[np.float64]:
    """Return the functions of the position that an origin is a sum of, of shape (n, n_terms)."""
    v, u = (np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1) for n in shape)
    y, x = (part.ravel() for part in np.meshgrid(v, u, indexing="ij"))
    columns = [np.ones_like(x)]
    if model != "constant":
        columns += [y, x]
    if model == "parabola":
        columns += [y * y, x * y, x * x]
    return np.stack(columns, axis=1)


def _brightest(peaks: PeakTable, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the brightest allowed peak of each pattern, −1 for none."""
    pattern = np.repeat(np.arange(len(peaks)), peaks.counts)[allowed]
    index = np.flatnonzero(allowed)
    order = np.lexsort((peaks.intensity[allowed], pattern))
    best = np.full(len(peaks), -1, dtype=np.int64)
    # Later entries of the same pattern, which are brighter, overwrite earlier ones.
    best[pattern[order]] = index[order]
    return best


def _densest(points: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Return the middle of where most points lie within four times the reach."""
    cells = np.floor(points / (4.0 * reach)).astype(np.int64)
    _, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    middle = np.median(points[inverse.ravel() == counts.argmax()], axis=0)
    for _ in range(3):
        near = np.hypot(*(points - middle).T) <= 4.0 * reach
        middle = np.median(points[near], axis=0)
    result: NDArray[np.float64] = middle
    return result


def _robust_fit(
    terms: NDArray[np.float64], points: NDArray[np.float64], used: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit points by the terms, and leave out what lies far off, until nothing changes."""
    coefficients = np.zeros((terms.shape[1], 2))
    for _ in range(20):
        coefficients, *_ = np.linalg.lstsq(terms[used], points[used], rcond=None)
        distance = np.hypot(*(points - terms @ coefficients).T)
        scatter = max(float(np.median(distance[used])) / 1.1774, _LEAST_SCATTER)
        kept = used & (distance <= _OUTLIER * scatter)
        if kept.sum() == used.sum() or kept.sum() < 3 * terms.shape[1]:
            break
        used = kept
    return coefficients, used


def calibrated(peaks: PeakTable, origin: OriginFit, ellipse: EllipseFit, pixel_size: float) -> PeakTable:
    """Return peaks in Å⁻¹ from the direct beam.

    Parameters
    ----------
    peaks : PeakTable
        In pixels.
    origin : OriginFit
    ellipse : EllipseFit
    pixel_size : float
        In Å⁻¹.

    Returns
    -------
    PeakTable
        In the same order, with the direct beam of every position that shows it.
    """
    vectors = centred(peaks, origin) @ np.linalg.inv(ellipse.matrix).T
    return PeakTable(vectors * pixel_size, peaks.intensity, peaks.offsets, origin.direct)


def centred(peaks: PeakTable, origin: OriginFit) -> NDArray[np.float64]:
    """Return where peaks lie from their position's origin, in pixels, of shape (n_peaks, 2)."""
    difference: NDArray[np.float64] = peaks.q - np.repeat(origin.fitted.reshape(-1, 2), peaks.counts, axis=0)
    return difference
