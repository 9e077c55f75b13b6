"""Bragg peaks as py4DSTEM's BraggVectors, and how these are written."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffractory.patterns.peak_table import PeakTable
from diffractory.storage import atomic_path

if TYPE_CHECKING:
    # py4DSTEM takes seconds to import, and only those who use these functions need it.
    from py4DSTEM.braggvectors import BraggVectors

#: Detector pixel of written Bragg vectors, in Å⁻¹: fine enough to look like a detector to py4DSTEM.
WRITTEN_PIXEL_SIZE = 0.01
_FIELDS = [(name, "float64") for name in ("qx", "qy", "intensity")]


def bragg_vectors_of(peaks: PeakTable, shape: tuple[int, int]) -> BraggVectors:
    """Return patterns as BraggVectors with their calibration.

    The positions become detector pixels with an origin and a pixel size, as an instrument's would be.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, row by row.
    shape : tuple of int
        Rows and columns.
    """
    from py4DSTEM.braggvectors import BraggVectors

    half = math.ceil(float(np.abs(peaks.q).max(initial=0.0)) / WRITTEN_PIXEL_SIZE) + 2
    vectors = BraggVectors(shape, (2 * half, 2 * half), name="braggvectors")
    calibration = vectors.calibration
    calibration.set_origin((float(half), float(half)))
    calibration.set_Q_pixel_size(WRITTEN_PIXEL_SIZE)
    calibration.set_Q_pixel_units("A^-1")
    raw = np.zeros(len(peaks.intensity), dtype=_FIELDS)
    raw["qx"], raw["qy"] = (peaks.q / WRITTEN_PIXEL_SIZE + half).T
    raw["intensity"] = peaks.intensity
    for index, (y, x) in enumerate(np.ndindex(*shape)):
        # py4DSTEM names the slow direction x.
        vectors._v_uncal[y, x].add(raw[peaks.offsets[index] : peaks.offsets[index + 1]])
    return vectors


def save_bragg_vectors(vectors: BraggVectors, path: Path) -> None:
    """Write BraggVectors as a py4DSTEM file, whole or not at all, without py4DSTEM's progress bars.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import py4DSTEM

    # emdfile draws progress bars on stderr and has no switch for it.
    with atomic_path(path) as temporary, contextlib.redirect_stderr(io.StringIO()):
        py4DSTEM.save(str(temporary), vectors)
