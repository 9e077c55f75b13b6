"""Images of a scan of Bragg peaks: all peaks in one pattern, and how many each position has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffractory.scan.bragg_scan import BraggScan


def bragg_vector_map(scan: BraggScan, pixels: int = 300) -> tuple[NDArray[np.float64], float]:
    """Return the intensity of all peaks, the direct beams excepted, binned over the detector.

    Parameters
    ----------
    scan : BraggScan
    pixels : int
        Rows and columns of the image.

    Returns
    -------
    image : ndarray of shape (pixels, pixels)
        Rows along the first coordinate of q (py4DSTEM's qx), columns along the second.
    reach : float
        The image spans from -reach to reach, in Å⁻¹.
    """
    scattered = scan.peaks.scattered
    q, intensity = scan.peaks.q[scattered], scan.peaks.intensity[scattered]
    # A few stray peaks far out must not shrink everything else.
    reach = 1.05 * float(np.percentile(np.abs(q).max(axis=1), 99.9)) if len(q) else 1.0
    extent = ((-reach, reach), (-reach, reach))
    image, _, _ = np.histogram2d(q[:, 0], q[:, 1], bins=pixels, range=extent, weights=intensity)
    return image, reach


def peak_count_map(scan: BraggScan) -> NDArray[np.int64]:
    """Return the number of peaks at each position, of shape (n_y, n_x)."""
    counts: NDArray[np.int64] = scan.peaks.counts.reshape(scan.shape)
    return counts
