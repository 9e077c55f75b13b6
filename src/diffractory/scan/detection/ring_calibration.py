"""Fits the ellipse of the projection and the size of a pixel to rings of spots.

Pure functions of spot positions. An ellipse is the matrix that a perfect projection is distorted by, of
determinant 1: measured = matrix @ true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from diffractory.errors import ScanError

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
            "Check the material, of --lattice its centring too (4.212:F: face-centred), or give --pixel-size",
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
