"""Calibrates peaks: the origin of every position, the ellipse of the projection, the size of a pixel.

Pure functions of peak positions. An origin is a row and a column in pixels; an ellipse is the matrix
that a perfect projection is distorted by, of determinant 1: measured = matrix @ true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable

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
#: Shares of its radius within which spots are taken to be of one ring, round by round.
_RING_WIDTHS: Final = (0.08, 0.06, 0.04, 0.03, 0.03, 0.03)
#: A ring is seen from all sides if this share of 18 sectors of half a turn holds spots of it.
_SECTORS: Final = 18
_COVERED: Final = 0.6
#: Fewest spots a ring needs.
_FEWEST: Final = 20
#: Relative distance within which a spot belongs to a ring of a known material, round by round.
_MATCH: Final = (0.025, 0.02, 0.015, 0.012, 0.012)


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
    terms = _terms(shape, model)
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
            return _origin(peaks, shape, fitted, used, reach, model)
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


@dataclass(frozen=True, eq=False)
class EllipseFit:
    """How a projection is stretched.

    Parameters
    ----------
    matrix : ndarray of shape (2, 2)
        Symmetric, of determinant 1: measured position = matrix @ true position.
    ring : float or None
        Radius in pixels of the ring it was fitted to.
    """

    matrix: NDArray[np.float64]
    ring: float | None = None

    @property
    def ratio(self) -> float:
        """Long axis over short axis."""
        values = np.linalg.eigvalsh(self.matrix)
        return float(values[1] / values[0])

    @property
    def angle(self) -> float:
        """Angle of the long axis from the rows' direction (qx towards qy) in degrees, 0 … 180."""
        _, vectors = np.linalg.eigh(self.matrix)
        return float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180.0)


def fit_ellipse(vectors: NDArray[np.float64], ring: tuple[float, float] | None = None) -> EllipseFit:
    """Fit the ellipse that a ring of spots has become.

    Parameters
    ----------
    vectors : ndarray of shape (n, 2)
        Spots of all positions in pixels, from the origin.
    ring : tuple of float, optional
        Inner and outer radius in pixels around one ring; the strongest one by default.

    Returns
    -------
    EllipseFit

    Raises
    ------
    ScanError
        If no ring has spots all around, as a single crystal has none.
    """
    radius = np.hypot(*vectors.T)
    low, high = ring or _strongest_ring(radius)
    if not 0.0 < low < high:
        raise ScanError(f"--ring {low:g} {high:g}", "it is an inner and a larger outer radius in pixels")
    middle = 0.5 * (low + high)
    matrix = np.eye(2)
    widths = (high - low) / (high + low) if ring else _RING_WIDTHS[0]
    for width in (widths, *(min(widths, w) for w in _RING_WIDTHS)):
        rounded = vectors @ np.linalg.inv(matrix).T
        distance = np.hypot(*rounded.T)
        chosen = np.abs(distance / middle - 1.0) <= width
        _check_ring(rounded[chosen], middle)
        matrix, middle = _ellipse_through(vectors[chosen])
    return EllipseFit(matrix, float(middle))


def _strongest_ring(radius: NDArray[np.float64]) -> tuple[float, float]:
    """Return the inner and outer radius of the most frequent radius, per area."""
    reach = float(radius.max(initial=0.0))
    if reach <= 4.0:
        raise ScanError("there are no spots to fit a ring to", fix="Use --ellipse none")
    counts, edges = np.histogram(radius, bins=np.arange(0.0, reach + 0.25, 0.25))
    middle = 0.5 * (edges[1:] + edges[:-1])
    # Square root of the area: a random spot's share grows with the radius, its scatter with the root.
    profile = gaussian_filter1d(counts / np.sqrt(np.maximum(middle, 1.0)), 3.0)
    profile[middle < max(4.0, 0.05 * reach)] = 0.0
    profile[middle > 0.98 * reach] = 0.0
    best = float(middle[int(profile.argmax())])
    return best * (1.0 - _RING_WIDTHS[0]), best * (1.0 + _RING_WIDTHS[0])


def _check_ring(vectors: NDArray[np.float64], middle: float) -> None:
    angle = np.arctan2(vectors[:, 1], vectors[:, 0]) % np.pi
    filled = len(np.unique((angle / np.pi * _SECTORS).astype(int) % _SECTORS))
    if len(vectors) < _FEWEST or filled < _COVERED * _SECTORS:
        raise ScanError(
            f"no ring to fit an ellipse to: {len(vectors)} spots around {middle:.4g} pixels, "
            f"in {filled} of {_SECTORS} directions",
            "an ellipse needs a ring of spots from grains in many orientations",
            "Name a ring with --ring INNER OUTER (pixels), or use --ellipse none",
        )


def _ellipse_through(
    vectors: NDArray[np.float64], target: NDArray[np.float64] | float = 1.0
) -> tuple[NDArray[np.float64], float]:
    """Return the matrix, of determinant 1, and the scale of the centred ellipses through spots.

    Least squares of q · M · q = target²; sectors count alike, however many spots they hold, and spots
    far off are left out.
    """
    angle = np.arctan2(vectors[:, 1], vectors[:, 0]) % np.pi
    sector = (angle / np.pi * _SECTORS).astype(int) % _SECTORS
    weights = 1.0 / np.sqrt(np.bincount(sector, minlength=_SECTORS)[sector])
    x, y = vectors.T / target
    scale = float(np.hypot(x, y).mean())
    columns = np.stack([x * x, 2.0 * x * y, y * y], axis=1) / scale**2
    kept = np.ones(len(x), dtype=bool)
    solution = np.array([1.0, 0.0, 1.0])
    for _ in range(10):
        solution, *_ = np.linalg.lstsq(columns[kept] * weights[kept, None], weights[kept], rcond=None)
        off = np.abs(columns @ solution - 1.0)
        kept = off <= 3.0 * max(1.4826 * float(np.median(off[kept])), 1e-6)
    form = np.array([[solution[0], solution[1]], [solution[1], solution[2]]]) / scale**2
    values, axes_of = np.linalg.eigh(form)
    if values.min() <= 0.0:
        raise ScanError("the ring is no ellipse", fix="Name a ring with --ring, or use --ellipse none")
    axes = 1.0 / np.sqrt(values)
    middle = math.sqrt(float(axes.prod()))
    return axes_of @ np.diag(axes / middle) @ axes_of.T, middle


@dataclass(frozen=True, eq=False)
class PixelFit:
    """Size of a pixel, from the rings of a known material.

    Parameters
    ----------
    pixel_size : float
        In Å⁻¹.
    matched : float
        Share of the spots that lie on a ring.
    by_chance : float
        Share that would if they lay anywhere.
    """

    pixel_size: float
    matched: float
    by_chance: float


def fit_pixel_size(
    radius: NDArray[np.float64], rings: NDArray[np.float64], guess: tuple[float, float]
) -> PixelFit:
    """Find the size of a pixel with which spots lie on the rings of a known material.

    Parameters
    ----------
    radius : ndarray of shape (n,)
        Distance of spots from the origin in pixels, ellipse corrected, direct beams left out.
    rings : ndarray of shape (m,)
        Radii of the material's reflections in Å⁻¹.
    guess : tuple of float
        Smallest and largest size that is tried, in Å⁻¹.

    Returns
    -------
    PixelFit

    Raises
    ------
    ScanError
        If no size in the range makes clearly more spots lie on rings than chance would.
    """
    rings = np.unique(np.round(np.sort(rings), 6))
    radius = radius[radius > 0.0]
    low, high = guess
    if not (0.0 < low < high and np.isfinite(high)) or not len(rings) or len(radius) < _FEWEST:
        raise ScanError(
            f"{len(radius)} spots and {len(rings)} rings between {low:g} and {high:g} Å⁻¹ per pixel",
            f"at least {_FEWEST} spots and a ring are needed",
            "Give --pixel-size, or another --material",
        )
    sizes = np.geomspace(low, high, max(int(np.log(high / low) / 0.001), 2))
    scores = [_match(radius * size, rings, 0.01) for size in sizes]
    best = sizes[int(np.argmax([matched - chance for matched, chance in scores]))]
    for tolerance in _MATCH:
        ring, near = _nearest(radius * best, rings, tolerance)
        if not near.any():
            break
        # Ratios, and their median: what belongs to another ring does not pull.
        best *= float(np.median(ring[near] / (radius[near] * best)))
    matched, chance = _match(radius * best, rings, 0.01)
    if matched < chance + 3.0 * math.sqrt(max(chance * (1.0 - chance), 1e-3) / len(radius)) + 0.1:
        raise ScanError(
            f"no size of a pixel between {low:g} and {high:g} Å⁻¹ puts the spots on the material's rings",
            f"at best {100 * matched:.0f} % lie on one, {100 * chance:.0f} % would by chance",
            "Check the material, or give --pixel-size",
        )
    return PixelFit(float(best), matched, chance)


def refine_on_rings(
    vectors: NDArray[np.float64], rings: NDArray[np.float64], ellipse: EllipseFit, pixel: PixelFit
) -> tuple[EllipseFit, PixelFit]:
    """Fit ellipse and pixel size once more, together, to all rings of a known material.

    Parameters
    ----------
    vectors : ndarray of shape (n, 2)
        Spots of all positions in pixels from the origin, direct beams left out.
    rings : ndarray of shape (m,)
        Radii of the material's reflections in Å⁻¹.
    ellipse, pixel
        Where to begin.

    Returns
    -------
    ellipse : EllipseFit
    pixel : PixelFit

    Raises
    ------
    ScanError
        If the spots of the rings do not lie all around.
    """
    rings = np.unique(np.round(np.sort(rings), 6))
    matrix, size = ellipse.matrix, pixel.pixel_size
    for tolerance in _MATCH:
        rounded = vectors @ np.linalg.inv(matrix).T
        ring, near = _nearest(np.hypot(*rounded.T) * size, rings, tolerance)
        _check_ring(rounded[near], float(np.hypot(*rounded[near].T).mean()) if near.any() else 0.0)
        matrix, scale = _ellipse_through(vectors[near], ring[near, None].T)
        size = 1.0 / scale
    matched, chance = _match(np.hypot(*(vectors @ np.linalg.inv(matrix).T).T) * size, rings, 0.01)
    return EllipseFit(matrix, ellipse.ring), PixelFit(size, matched, chance)


def _nearest(
    q: NDArray[np.float64], rings: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    after = np.clip(np.searchsorted(rings, q), 1, max(len(rings) - 1, 1))
    left, right = rings[after - 1], rings[np.minimum(after, len(rings) - 1)]
    ring = np.where(np.abs(q - left) <= np.abs(right - q), left, right)
    return ring, np.abs(q - ring) <= tolerance * ring


def _match(q: NDArray[np.float64], rings: NDArray[np.float64], tolerance: float) -> tuple[float, float]:
    """Return the share of spots near a ring, and the share of their range of radii that is near one."""
    _, near = _nearest(q, rings, tolerance)
    low, high = np.quantile(q, [0.01, 0.99])
    # Rings that should be seen between the origin and the first spot, and are not, speak against a size.
    low, high = min(low, 0.7 * rings[0]), max(high, 1.3 * rings[0])
    grid = np.linspace(low, high, 2000)
    _, covered = _nearest(grid, rings, tolerance)
    return float(near.mean()), float(covered.mean())


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
