"""What rings of a film, or a halo, give a correlation where there is no disk.

A kernel that sums to 0 sees no flat background, but it does see the crest of a ring, and noise on a crest is
taken for disks. A disk stands out of what lies as far from the direct beam in other directions; a ring does
not.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Directions that are compared, and how many of them at least must lie in the frame.
_DIRECTIONS: Final = 64
_FEWEST: Final = 16
#: A lower quartile: disks cover less than three quarters of a circle. In standard deviations of noise a
#: quartile lies so far below the mean.
_QUANTILE, _BELOW = 0.25, 0.6745


def ring_background(
    values: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    deviation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return what maxima of a correlation owe to rings around the strongest of them.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Correlation; what is below 0 may be 0.
    rows, columns : ndarray of shape (n,), int64
        Maxima.
    deviation : ndarray of shape (n,)
        Standard deviation of the correlation by noise at each.

    Returns
    -------
    ndarray of shape (n,)
        Mean height of the ring that a maximum lies on; 0 unless a quarter of its circle lies in the frame and
        three quarters of that part are above 0, and for the strongest itself.
    """
    if not len(rows):
        return np.empty(0)
    first = int(values[rows, columns].argmax())
    angle = np.arange(_DIRECTIONS) * (2.0 * math.pi / _DIRECTIONS)
    radius = np.hypot(rows - rows[first], columns - columns[first])[:, None]
    row = np.rint(rows[first] + radius * np.cos(angle)).astype(np.int64)
    column = np.rint(columns[first] + radius * np.sin(angle)).astype(np.int64)
    inside = (row >= 0) & (row < values.shape[0]) & (column >= 0) & (column < values.shape[1])
    around = np.where(inside, values[np.where(inside, row, 0), np.where(inside, column, 0)], np.inf)
    around.sort(axis=1)
    seen = inside.sum(axis=1)
    quartile = around[np.arange(len(rows)), (_QUANTILE * (seen - 1)).astype(np.int64)]
    raised = (seen >= _FEWEST) & (quartile > 0.0)
    raised[first] = False
    return np.where(raised, quartile + _BELOW * deviation, 0.0)
