"""The result of one solve: the Bragg peaks of one orientation at every thickness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PeakList:
    """Bragg peaks of one crystal in one orientation.

    Parameters
    ----------
    hkl : ndarray of shape (n, 3), int
        Miller indices in the cell of the crystal that was handed in; 000 comes first.
    q : ndarray of shape (n, 2)
        Position on the detector in Å⁻¹: x and y of the reciprocal vector in the lab frame.
    intensity : ndarray of shape (n_thicknesses, n)
        Share of the incident beam.
    solver : {"chebyshev", "dense", "kinematic"}
        What gave the intensities; "dense" where the series was asked for but did not converge.
    """

    hkl: NDArray[np.int64]
    q: NDArray[np.float64]
    intensity: NDArray[np.float64]
    solver: Literal["chebyshev", "dense", "kinematic"] = "chebyshev"

    def __len__(self) -> int:
        return len(self.hkl)
