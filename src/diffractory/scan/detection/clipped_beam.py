"""Where the direct beam lies on a detector whose pixels it fills to their end.

Clipped, it is a plateau wider than the disks, and a correlation with a disk is as large all over it: its
maximum is anywhere. The middle of the plateau is not.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

#: A plateau has so many times the area of a disk at least; a smaller one is no hindrance.
_WIDER: Final = 1.2
#: Maxima so many pixels off the plateau are still its own.
_RIM: Final = 1.5
#: Largest share of a frame that is a direct beam.
_LARGEST: Final = 0.1


def centre_clipped_beam(
    frame: NDArray[np.generic], maxima: NDArray[np.void], radius: float
) -> NDArray[np.void]:
    """Put the maximum of a clipped direct beam into its middle, and leave out the others on it.

    Parameters
    ----------
    frame : ndarray of shape (rows, columns)
        Only integers are clipped.
    maxima : ndarray of shape (n,)
        Fields x (row), y (column), intensity; strongest first.
    radius : float
        Of a disk in pixels.

    Returns
    -------
    ndarray of shape (m,)
        The same where no plateau is wider than a disk.
    """
    if frame.dtype.kind not in "iu" or not len(maxima):
        return maxima
    top = frame.max()
    clipped = frame == top
    area = _WIDER * math.pi * radius**2
    if top <= 0 or not area < np.count_nonzero(clipped) < _LARGEST * frame.size:
        return maxima
    parts, _ = label(clipped)
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() <= area:
        return maxima
    beam = np.argwhere(parts == 1 + int(sizes.argmax()))
    middle = beam.mean(axis=0)
    reach = math.sqrt(len(beam) / math.pi) + _RIM
    on = np.flatnonzero(np.hypot(maxima["x"] - middle[0], maxima["y"] - middle[1]) <= reach)
    if not len(on):
        return maxima
    centred = maxima.copy()
    centred["x"][on[0]], centred["y"][on[0]] = middle
    return np.delete(centred, on[1:])
