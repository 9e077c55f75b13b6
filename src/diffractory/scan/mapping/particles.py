"""A scan divided into particles: the dark-field image of its peaks, and four ways to divide it.

Every function here is pure and draws nothing at random. Particles are numbered from 1 in the order in
which a reader meets them, row by row; 0 is what belongs to none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label as label_connected
from skimage.segmentation import watershed

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.similarity import pattern_similarity
from diffractory.scan.bragg_scan import BraggScan
from diffractory.specs import ParticleSpec

#: Half the smallest distance between the middles of touching particles, in positions.
_APART = 3
#: Below this share of the brightest, intensities count as equally dark: noise has decades of its own.
_FAINTEST = 0.01


def dark_field(
    peaks: PeakTable, shape: tuple[int, int], q_range: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Sum the intensity of every position's spots but the direct beam.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, in row-major order.
    shape : tuple of int
        Scan shape (n_y, n_x).
    q_range : tuple of two float, optional
        Only spots between these distances from the direct beam, in Å⁻¹.

    Returns
    -------
    ndarray of shape (n_y, n_x)
        On the scale of the peaks' intensities.
    """
    counted = peaks.scattered
    if q_range is not None:
        distance = np.hypot(peaks.q[:, 0], peaks.q[:, 1])
        counted &= (distance >= q_range[0]) & (distance <= q_range[1])
    pattern = np.repeat(np.arange(len(peaks)), peaks.counts)
    sums = np.bincount(pattern, np.where(counted, peaks.intensity, 0.0), minlength=len(peaks))
    return sums.astype(np.float64).reshape(shape)


def divide_scan(
    scan: BraggScan, codes: NDArray[np.int8], image: NDArray[np.float64], spec: ParticleSpec
) -> NDArray[np.int32]:
    """Divide a scan into particles or regions, as the spec says.

    Parameters
    ----------
    scan : BraggScan
    codes : ndarray of shape (n,), int8
        Crystal system of every position, negative = none; only regions of equal system ask for it, and
        grains hold no position without one.
    image : ndarray of shape (n_y, n_x)
        Dark field.
    spec : ParticleSpec

    Returns
    -------
    ndarray of shape (n_y, n_x), int32
    """
    if spec.regions == "grid":
        return grid_regions(scan.shape, spec.grid)
    if spec.regions == "labels":
        return label_regions(codes.reshape(scan.shape), spec.min_size)
    if spec.regions == "grains":
        return grains(scan.peaks, codes.reshape(scan.shape) >= 0, spec.similarity, spec.min_size)
    return segment(image, spec)


def segment(image: NDArray[np.float64], spec: ParticleSpec) -> NDArray[np.int32]:
    """Find the connected bright parts of a dark-field image.

    Otsu's threshold is that of the logarithm of the smoothed intensity over two decades, so that a bright
    particle does not hide those a tenth as bright. It always divides in two: of a scan that is crystal
    throughout it keeps the brighter part.

    Parameters
    ----------
    image : ndarray of shape (n_y, n_x)
        Intensities ≥ 0.
    spec : ParticleSpec
        Smoothing, threshold, smallest size, and whether touching particles are divided.

    Returns
    -------
    ndarray of shape (n_y, n_x), int32

    Raises
    ------
    ScanError
        If the image is not two-dimensional or holds what is not finite.
    """
    if image.ndim != 2 or not np.all(np.isfinite(image)):
        raise ScanError(f"a dark field of shape {image.shape} cannot be divided: it must be finite and 2-D")
    smooth = np.maximum(gaussian(image, spec.smoothing, preserve_range=True), 0.0)
    if spec.threshold is not None:
        bright = smooth > spec.threshold
    elif smooth.max() > smooth.min():
        decades = np.log10(np.maximum(smooth, _FAINTEST * smooth.max()))
        bright = decades > threshold_otsu(decades)
    else:
        return np.zeros(image.shape, dtype=np.int32)
    found = label_connected(bright, connectivity=1)
    if spec.split:
        found = _split(bright, found)
    return _numbered(found, spec.min_size)


def grid_regions(shape: tuple[int, int], side: int) -> NDArray[np.int32]:
    """Divide a scan of shape (n_y, n_x) into square blocks; those at the end may be smaller."""
    rows, columns = (np.arange(size) // side for size in shape)
    blocks: NDArray[np.int32] = (rows[:, None] * (columns[-1] + 1) + columns + 1).astype(np.int32)
    return blocks


def label_regions(codes: NDArray[np.int8], min_size: int) -> NDArray[np.int32]:
    """Find connected regions of equal crystal system in codes (n_y, n_x); negative = none."""
    return _numbered(label_connected(codes, background=-1, connectivity=1), min_size)


def grains(
    peaks: PeakTable, crystal: NDArray[np.bool_], similarity: float, min_size: int
) -> NDArray[np.int32]:
    """Find connected regions whose neighbouring patterns are alike: one crystal in one orientation.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, in row-major order.
    crystal : ndarray of shape (n_y, n_x), bool
        Where there is a crystal at all.
    similarity : float
        Neighbours are joined if :func:`~diffractory.patterns.similarity.pattern_similarity` is larger.
    min_size : int
        Smaller grains are dropped.

    Returns
    -------
    ndarray of shape (n_y, n_x), int32
    """
    index = np.arange(crystal.size).reshape(crystal.shape)
    both = [
        (index[:, :-1], index[:, 1:], crystal[:, :-1] & crystal[:, 1:]),
        (index[:-1], index[1:], crystal[:-1] & crystal[1:]),
    ]
    first = np.concatenate([left[joined] for left, _, joined in both])
    second = np.concatenate([right[joined] for _, right, joined in both])
    alike = pattern_similarity(peaks, first, second) > similarity
    links = coo_matrix((alike[alike], (first[alike], second[alike])), shape=(crystal.size, crystal.size))
    found = connected_components(links, directed=False)[1].reshape(crystal.shape) + 1
    return _numbered(np.where(crystal, found, 0), min_size)


def _split(bright: NDArray[np.bool_], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide particles at their necks: each summit of the distance from the edge makes one."""
    distance = ndimage.distance_transform_edt(bright)
    # Smoothed, because the distance on a grid has many summits on one ridge.
    summits = peak_local_max(gaussian(distance, 1.0), min_distance=_APART, labels=found, exclude_border=False)
    markers = np.zeros(bright.shape, dtype=np.int64)
    markers[tuple(summits.T)] = np.arange(1, len(summits) + 1)
    divided: NDArray[np.int64] = watershed(-distance, markers, mask=bright).astype(np.int64)
    # A particle without a summit of its own stays whole.
    return np.where(bright & (divided == 0), found + len(summits), divided)


def _numbered(found: NDArray[np.int64], min_size: int) -> NDArray[np.int32]:
    """Drop small particles and number the others in reading order, from 1."""
    names, first, inverse, sizes = np.unique(
        found.ravel(), return_index=True, return_inverse=True, return_counts=True
    )
    kept = (sizes >= min_size) & (names > 0)
    order = np.argsort(np.where(kept, first, found.size), kind="stable")
    numbers = np.zeros(len(names), dtype=np.int32)
    numbers[order[: kept.sum()]] = np.arange(1, kept.sum() + 1)
    return numbers[inverse].reshape(found.shape)
